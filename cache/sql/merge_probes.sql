-- What was measured last.
DELETE FROM main.probes
WHERE EXISTS
      (SELECT 1
       FROM source.probes AS s JOIN temp.device_map ON device_map.source_id = s.device_id
       WHERE device_map.id = main.probes.device_id AND s.measured_at > main.probes.measured_at);

INSERT INTO main.probes ({own}, device_id)
SELECT {source}, device_map.id
FROM source.probes AS s
JOIN temp.device_map ON device_map.source_id = s.device_id
WHERE true
ON CONFLICT DO NOTHING;
