INSERT INTO main.runs ({own}, device_id)
SELECT DISTINCT {source}, device_map.id
FROM source.runs AS s
JOIN temp.device_map ON device_map.source_id = s.device_id
WHERE NOT EXISTS (SELECT 1 FROM main.runs AS here
                  WHERE here.device_id = device_map.id AND ({here}) IS ({source}));

INSERT INTO temp.run_map (source_id, id)
SELECT s.id, MIN(here.id)
FROM source.runs AS s
JOIN temp.device_map ON device_map.source_id = s.device_id
JOIN main.runs AS here ON here.device_id = device_map.id AND ({here}) IS ({source})
GROUP BY s.id;
