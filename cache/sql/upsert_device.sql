-- The latest facts win; equal facts write nothing.
INSERT INTO devices (name, sm, sm_count, l2_bytes, smem_block_bytes, smem_sm_bytes, threads_per_sm,
                     clock_mhz, dram_gbps, mma_tflops)
VALUES (:name, :sm, :sm_count, :l2_bytes, :smem_block_bytes, :smem_sm_bytes, :threads_per_sm,
        :clock_mhz, :dram_gbps, :mma_tflops)
ON CONFLICT (name, sm, sm_count) DO UPDATE
SET l2_bytes = excluded.l2_bytes,
    smem_block_bytes = excluded.smem_block_bytes,
    smem_sm_bytes = excluded.smem_sm_bytes,
    threads_per_sm = excluded.threads_per_sm,
    clock_mhz = excluded.clock_mhz,
    dram_gbps = excluded.dram_gbps,
    mma_tflops = excluded.mma_tflops
WHERE (l2_bytes, smem_block_bytes, smem_sm_bytes, threads_per_sm, clock_mhz, dram_gbps, mma_tflops)
  IS NOT (excluded.l2_bytes, excluded.smem_block_bytes, excluded.smem_sm_bytes,
          excluded.threads_per_sm, excluded.clock_mhz, excluded.dram_gbps, excluded.mma_tflops);
