-- Schema 2: what a probe found of a GPU's tensor cores, and what a launch needs to know of kernels
-- that the copy engine feeds.

PRAGMA user_version = 2;

-- 1: mma.sync takes FP16 denormals as they are; 0: it does not; NULL: not probed.
ALTER TABLE devices ADD COLUMN mma_denormals INTEGER CHECK (mma_denormals IN (0, 1));

-- 1: the kernel takes a tensor map of x.
ALTER TABLE winners ADD COLUMN token_map INTEGER NOT NULL DEFAULT 0 CHECK (token_map IN (0, 1));

-- 1: it may begin before the kernel before it has ended (programmatic dependent launch).
ALTER TABLE winners ADD COLUMN dependent INTEGER NOT NULL DEFAULT 0 CHECK (dependent IN (0, 1));
