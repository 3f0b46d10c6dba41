-- Leaves what the runtime loads: winners that serve, their cubins, device kernels, and their origin.
PRAGMA foreign_keys = ON;
PRAGMA synchronous = OFF;  -- a temporary copy: it is synchronised as a whole before it is renamed
PRAGMA journal_mode = DELETE;

BEGIN;
DELETE FROM trials;
DELETE FROM baselines;
DELETE FROM probes;
DELETE FROM winners WHERE m_lo IS NULL;
DELETE FROM device_kernels WHERE device_id NOT IN (SELECT device_id FROM winners);
DELETE FROM compilations
WHERE key NOT IN (SELECT compilation_key FROM winners)
  AND key NOT IN (SELECT compilation_key FROM device_kernels);
DELETE FROM cubins
WHERE sha256 NOT IN (SELECT cubin_sha256 FROM compilations WHERE cubin_sha256 IS NOT NULL);
DELETE FROM runs WHERE id NOT IN (SELECT run_id FROM winners);
DELETE FROM problems WHERE id NOT IN (SELECT problem_id FROM winners);
DELETE FROM devices WHERE id NOT IN (SELECT device_id FROM winners);
COMMIT;

PRAGMA page_size = 16384;  -- a cubin of 40 KB is then read in 3 pieces, not in 10
VACUUM;
