-- Schema 3: persistent kernels.

PRAGMA user_version = 3;

-- 1: CTAs stay, one an SM, and walk through the tiles; the kernel takes a tensor map of w, too.
ALTER TABLE winners ADD COLUMN persistent INTEGER NOT NULL DEFAULT 0 CHECK (persistent IN (0, 1));
