-- Schema 2: what a probe found of a GPU's tensor cores.

PRAGMA user_version = 2;

-- 1: mma.sync takes FP16 denormals as they are; 0: it does not; NULL: not probed.
ALTER TABLE devices ADD COLUMN mma_denormals INTEGER CHECK (mma_denormals IN (0, 1));
