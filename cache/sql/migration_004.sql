-- Schema 4: beside a winner, the composite (dequantising slices of the weight, then cuBLASLt) that was
-- measured with it and is faster. composite_slice_rows 0: there is none.

PRAGMA user_version = 4;

ALTER TABLE winners ADD COLUMN composite_slice_rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE winners ADD COLUMN composite_scratch_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE winners ADD COLUMN composite_us_median REAL NOT NULL DEFAULT 0;
ALTER TABLE winners ADD COLUMN composite_us_samples BLOB NOT NULL DEFAULT x'';
ALTER TABLE winners ADD COLUMN composite_error_worst_ratio REAL NOT NULL DEFAULT 0;
