-- The interval follows in update_interval.sql, when every winner of the problem is known.
INSERT INTO winners (device_id, problem_id, m, provenance, config, split_k, raster, row_tile,
                     token_tile, depth_tile, threads, smem_bytes, compilation_key, time_us_median,
                     floor_us, baseline_us, time_us_samples, clock_mhz_samples, error_worst_ratio,
                     error_relative_norm, error_max_abs, tie_set, run_id)
VALUES (:device_id, :problem_id, :m, :provenance, :config, :split_k, :raster, :row_tile,
        :token_tile, :depth_tile, :threads, :smem_bytes, :compilation_key, :time_us_median,
        :floor_us, :baseline_us, :time_us_samples, :clock_mhz_samples, :error_worst_ratio,
        :error_relative_norm, :error_max_abs, :tie_set, :run_id)
ON CONFLICT (device_id, problem_id, m, provenance) DO UPDATE
SET config = excluded.config,
    split_k = excluded.split_k,
    raster = excluded.raster,
    row_tile = excluded.row_tile,
    token_tile = excluded.token_tile,
    depth_tile = excluded.depth_tile,
    threads = excluded.threads,
    smem_bytes = excluded.smem_bytes,
    compilation_key = excluded.compilation_key,
    time_us_median = excluded.time_us_median,
    floor_us = excluded.floor_us,
    baseline_us = excluded.baseline_us,
    time_us_samples = excluded.time_us_samples,
    clock_mhz_samples = excluded.clock_mhz_samples,
    error_worst_ratio = excluded.error_worst_ratio,
    error_relative_norm = excluded.error_relative_norm,
    error_max_abs = excluded.error_max_abs,
    tie_set = excluded.tie_set,
    run_id = excluded.run_id;
