-- Devices something is known of.
SELECT id, name, sm, sm_count, l2_bytes, smem_block_bytes, smem_sm_bytes, threads_per_sm, clock_mhz,
       dram_gbps, mma_tflops, mma_denormals
FROM devices
WHERE EXISTS (SELECT 1 FROM winners WHERE device_id = devices.id)
   OR EXISTS (SELECT 1 FROM trials WHERE device_id = devices.id)
ORDER BY name, sm, sm_count;
