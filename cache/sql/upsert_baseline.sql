-- The latest measurement wins.
INSERT INTO baselines (run_id, device_id, problem_id, m, name, protocol_hash, detail,
                       time_us_samples, clock_mhz_samples)
VALUES (:run_id, :device_id, :problem_id, :m, :name, :protocol_hash, :detail, :time_us_samples,
        :clock_mhz_samples)
ON CONFLICT (device_id, problem_id, m, name, protocol_hash) DO UPDATE
SET run_id = excluded.run_id,
    detail = excluded.detail,
    time_us_samples = excluded.time_us_samples,
    clock_mhz_samples = excluded.clock_mhz_samples;
