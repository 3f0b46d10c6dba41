INSERT INTO trials (run_id, device_id, problem_id, m, family, config, split_k, raster, source_hash,
                    protocol_hash, outcome, detail, error_worst_ratio, error_relative_norm,
                    error_max_abs, time_us_samples, clock_mhz_samples, compilation_key)
VALUES (:run_id, :device_id, :problem_id, :m, :family, :config, :split_k, :raster, :source_hash,
        :protocol_hash, :outcome, :detail, :error_worst_ratio, :error_relative_norm,
        :error_max_abs, :time_us_samples, :clock_mhz_samples, :compilation_key)
ON CONFLICT (device_id, problem_id, m, source_hash, protocol_hash, config, split_k, raster)
DO UPDATE SET outcome = excluded.outcome, detail = excluded.detail
WHERE trials.outcome = 'ok' AND excluded.outcome <> 'ok';
