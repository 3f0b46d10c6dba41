INSERT INTO main.winners ({own}, run_id, device_id, problem_id)
SELECT {source}, run_map.id, device_map.id, problem_map.id
FROM source.winners AS s
JOIN temp.run_map ON run_map.source_id = s.run_id
JOIN temp.device_map ON device_map.source_id = s.device_id
JOIN temp.problem_map ON problem_map.source_id = s.problem_id
WHERE (s.device_id, s.problem_id, s.m, s.provenance) NOT IN
      (SELECT device_id, problem_id, m, provenance FROM temp.lost)
ON CONFLICT DO NOTHING;  -- an equal row
