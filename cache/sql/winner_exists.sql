-- Whether a measured winner of a workload stands from a run with these sources and this protocol.
SELECT 1 AS present
FROM winners
JOIN runs ON runs.id = winners.run_id
WHERE winners.device_id = :device_id AND winners.problem_id = :problem_id AND winners.m = :m
  AND winners.provenance = 'measured' AND runs.source_hash = :source_hash
  AND runs.protocol_hash = :protocol_hash;
