-- The latest facts win, but a probe's result stays until another probe; equal facts write nothing.
INSERT INTO devices (name, sm, sm_count, l2_bytes, smem_block_bytes, smem_sm_bytes, threads_per_sm,
                     clock_mhz, dram_gbps, mma_tflops, mma_denormals)
VALUES (:name, :sm, :sm_count, :l2_bytes, :smem_block_bytes, :smem_sm_bytes, :threads_per_sm,
        :clock_mhz, :dram_gbps, :mma_tflops, :mma_denormals)
ON CONFLICT (name, sm, sm_count) DO UPDATE
SET l2_bytes = excluded.l2_bytes,
    smem_block_bytes = excluded.smem_block_bytes,
    smem_sm_bytes = excluded.smem_sm_bytes,
    threads_per_sm = excluded.threads_per_sm,
    clock_mhz = excluded.clock_mhz,
    dram_gbps = excluded.dram_gbps,
    mma_tflops = excluded.mma_tflops,
    mma_denormals = coalesce(excluded.mma_denormals, mma_denormals)
WHERE (l2_bytes, smem_block_bytes, smem_sm_bytes, threads_per_sm, clock_mhz, dram_gbps, mma_tflops,
       mma_denormals)
  IS NOT (excluded.l2_bytes, excluded.smem_block_bytes, excluded.smem_sm_bytes,
          excluded.threads_per_sm, excluded.clock_mhz, excluded.dram_gbps, excluded.mma_tflops,
          coalesce(excluded.mma_denormals, mma_denormals));
