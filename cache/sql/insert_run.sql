INSERT INTO runs (device_id, started_at, driver, nvrtc, version, commit_id, source_hash,
                  protocol_hash, protocol, seed, copy_gbps, mma_tflops)
VALUES (:device_id, :started_at, :driver, :nvrtc, :version, :commit_id, :source_hash,
        :protocol_hash, :protocol, :seed, :copy_gbps, :mma_tflops)
RETURNING id;
