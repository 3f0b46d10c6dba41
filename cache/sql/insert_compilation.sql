INSERT INTO compilations (key, config, arch, outcome, log, cubin_sha256, registers, spill_bytes,
                          static_smem_bytes)
VALUES (:key, :config, :arch, :outcome, :log, :cubin_sha256, :registers, :spill_bytes,
        :static_smem_bytes)
ON CONFLICT DO NOTHING;
