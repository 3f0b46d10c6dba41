SELECT method, measured_at, driver, clock_mhz, copy_gbps, read_gbps, read_bytes_per_sm,
       read_curve_gbps, launch_us, dependent_launch_us, mma_tflops, mma_source, mma_sync_tflops,
       reduce_us, reduce_sm_gbps
FROM probes
WHERE device_id = :device_id;
