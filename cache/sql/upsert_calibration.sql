-- The latest probe wins.
INSERT INTO probes (device_id, method, measured_at, driver, clock_mhz, copy_gbps, read_gbps,
                    read_bytes_per_sm, read_curve_gbps, launch_us, dependent_launch_us, mma_tflops,
                    mma_source, mma_sync_tflops, reduce_us, reduce_sm_gbps)
VALUES (:device_id, :method, :measured_at, :driver, :clock_mhz, :copy_gbps, :read_gbps,
        :read_bytes_per_sm, :read_curve_gbps, :launch_us, :dependent_launch_us, :mma_tflops,
        :mma_source, :mma_sync_tflops, :reduce_us, :reduce_sm_gbps)
ON CONFLICT (device_id) DO UPDATE
SET method = excluded.method,
    measured_at = excluded.measured_at,
    driver = excluded.driver,
    clock_mhz = excluded.clock_mhz,
    copy_gbps = excluded.copy_gbps,
    read_gbps = excluded.read_gbps,
    read_bytes_per_sm = excluded.read_bytes_per_sm,
    read_curve_gbps = excluded.read_curve_gbps,
    launch_us = excluded.launch_us,
    dependent_launch_us = excluded.dependent_launch_us,
    mma_tflops = excluded.mma_tflops,
    mma_source = excluded.mma_source,
    mma_sync_tflops = excluded.mma_sync_tflops,
    reduce_us = excluded.reduce_us,
    reduce_sm_gbps = excluded.reduce_sm_gbps;
