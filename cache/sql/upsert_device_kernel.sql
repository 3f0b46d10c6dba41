INSERT INTO device_kernels (device_id, name, compilation_key)
VALUES (:device_id, :name, :compilation_key)
ON CONFLICT (device_id, name) DO UPDATE
SET compilation_key = excluded.compilation_key
WHERE compilation_key IS NOT excluded.compilation_key;
