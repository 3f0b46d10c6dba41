-- Every cubin the winners and the kernels of one device need.
WITH needed (key) AS (
  SELECT compilation_key FROM winners WHERE device_id = :device_id AND m_lo IS NOT NULL
  UNION
  SELECT compilation_key FROM device_kernels WHERE device_id = :device_id
)
SELECT compilations.key AS key, sha256, image
FROM needed
JOIN compilations ON compilations.key = needed.key
JOIN cubins ON cubins.sha256 = compilations.cubin_sha256;
