-- What made the rows that serve on one device, oldest first.
SELECT DISTINCT runs.id AS id, started_at, driver, nvrtc, version, commit_id, source_hash,
       protocol_hash, protocol, seed, copy_gbps, mma_tflops
FROM winners
JOIN runs ON runs.id = winners.run_id
WHERE winners.device_id = :device_id AND m_lo IS NOT NULL
ORDER BY runs.id;
