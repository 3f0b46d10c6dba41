-- Schema 2: what a launch needs to know of the kernels that the copy engine feeds.
ALTER TABLE winners ADD COLUMN token_map INTEGER NOT NULL DEFAULT 0;  -- 1: takes a tensor map of x
ALTER TABLE winners ADD COLUMN dependent INTEGER NOT NULL DEFAULT 0;  -- 1: may begin early (PDL)
PRAGMA user_version = 2;
