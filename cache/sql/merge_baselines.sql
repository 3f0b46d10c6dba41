INSERT INTO main.baselines ({own}, run_id, device_id, problem_id)
SELECT {source}, run_map.id, device_map.id, problem_map.id
FROM source.baselines AS s
JOIN temp.run_map ON run_map.source_id = s.run_id
JOIN temp.device_map ON device_map.source_id = s.device_id
JOIN temp.problem_map ON problem_map.source_id = s.problem_id
WHERE true
ON CONFLICT (device_id, problem_id, m, name, protocol_hash) DO UPDATE
SET {newer}, run_id = excluded.run_id
WHERE (SELECT started_at FROM main.runs WHERE id = excluded.run_id)
   >= (SELECT started_at FROM main.runs WHERE id = baselines.run_id);
