INSERT INTO main.device_kernels ({own}, device_id)
SELECT {source}, device_map.id
FROM source.device_kernels AS s
JOIN temp.device_map ON device_map.source_id = s.device_id
WHERE true
ON CONFLICT (device_id, name) DO UPDATE
SET compilation_key = excluded.compilation_key
WHERE (SELECT created_at FROM main.compilations WHERE key = excluded.compilation_key)
   >= (SELECT created_at FROM main.compilations WHERE key = device_kernels.compilation_key);
