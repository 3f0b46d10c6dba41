-- What was tried on one device: workloads, by the sources and the protocol of their trials.
SELECT op, n, k, group_size, dtype, m, source_hash, protocol_hash
FROM trials
JOIN problems ON problems.id = trials.problem_id
WHERE device_id = :device_id
GROUP BY problem_id, m, source_hash, protocol_hash
ORDER BY MIN(trials.id);
