-- What was measured beside the winners that serve on one device, by the same protocol.
SELECT op, n, k, group_size, dtype, winners.m AS m, name, detail,
       baselines.time_us_samples AS time_us_samples,
       baselines.clock_mhz_samples AS clock_mhz_samples
FROM winners
JOIN runs ON runs.id = winners.run_id
JOIN problems ON problems.id = winners.problem_id
JOIN baselines ON baselines.device_id = winners.device_id
  AND baselines.problem_id = winners.problem_id AND baselines.m = winners.m
  AND baselines.protocol_hash = runs.protocol_hash
WHERE winners.device_id = :device_id AND m_lo IS NOT NULL AND provenance = 'measured'
ORDER BY winners.problem_id, winners.m, name;
