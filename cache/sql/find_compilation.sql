SELECT arch, log, registers, spill_bytes, static_smem_bytes, sha256, image
FROM compilations LEFT JOIN cubins ON cubins.sha256 = compilations.cubin_sha256
WHERE key = :key;
