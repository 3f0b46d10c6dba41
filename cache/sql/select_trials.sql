SELECT config, split_k, raster, outcome, detail, error_worst_ratio, error_relative_norm,
       error_max_abs, time_us_samples, clock_mhz_samples, compilation_key
FROM trials
WHERE device_id = :device_id AND problem_id = :problem_id AND m = :m
  AND source_hash = :source_hash AND protocol_hash = :protocol_hash
ORDER BY id;
