-- Schema 5: what `w4tune probe` measured of a device, for the cost model (core/calibration.h).

PRAGMA user_version = 5;

CREATE TABLE probes (
  device_id INTEGER PRIMARY KEY REFERENCES devices (id),
  method INTEGER NOT NULL,  -- how it was measured; raised when that changes
  measured_at TEXT NOT NULL,
  driver TEXT NOT NULL,
  clock_mhz REAL NOT NULL,  -- 0: could not be read
  copy_gbps REAL NOT NULL,
  read_gbps REAL NOT NULL,
  read_bytes_per_sm BLOB NOT NULL,  -- the curve: two BLOBs of as many IEEE doubles
  read_curve_gbps BLOB NOT NULL,
  launch_us REAL NOT NULL,
  dependent_launch_us REAL NOT NULL,  -- 0: the device knows none
  mma_tflops REAL NOT NULL,
  mma_source TEXT NOT NULL,
  mma_sync_tflops REAL NOT NULL,
  reduce_us REAL NOT NULL,
  reduce_sm_gbps REAL NOT NULL
) STRICT;
