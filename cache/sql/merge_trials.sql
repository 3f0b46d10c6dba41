INSERT INTO main.trials ({own}, run_id, device_id, problem_id)
SELECT {source}, run_map.id, device_map.id, problem_map.id
FROM source.trials AS s
JOIN temp.run_map ON run_map.source_id = s.run_id
JOIN temp.device_map ON device_map.source_id = s.device_id
JOIN temp.problem_map ON problem_map.source_id = s.problem_id
WHERE true
ORDER BY s.id
ON CONFLICT (device_id, problem_id, m, source_hash, protocol_hash, config, split_k, raster)
DO NOTHING;
