-- Every winner of one device with the run that made it, whether it serves or not, and whether its
-- compilation is there or not.
SELECT op, n, k, group_size, dtype, m, provenance, m_lo, m_hi, winners.config AS config, split_k,
       raster, row_tile, token_tile, depth_tile, threads, smem_bytes, cluster_split,
       token_map, dependent, persistent, compilation_key,
       time_us_median, floor_us, baseline_us, time_us_samples, clock_mhz_samples,
       error_worst_ratio, error_relative_norm, error_max_abs, tie_set, registers, spill_bytes,
       composite_slice_rows, composite_scratch_bytes, composite_us_median, composite_us_samples,
       composite_error_worst_ratio,
       started_at, driver, nvrtc, version, commit_id, source_hash, protocol_hash, protocol, seed,
       copy_gbps, mma_tflops
FROM winners
JOIN problems ON problems.id = winners.problem_id
JOIN runs ON runs.id = winners.run_id
LEFT JOIN compilations ON compilations.key = winners.compilation_key
WHERE winners.device_id = :device_id
ORDER BY winners.problem_id, m, provenance;
