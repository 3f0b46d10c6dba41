SELECT name, compilation_key FROM device_kernels WHERE device_id = :device_id ORDER BY name;
