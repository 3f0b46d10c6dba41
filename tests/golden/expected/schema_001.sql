-- Schema 1. A published migration never changes: the next change is migration_002.sql.
--
-- Conventions: units end a name; *_samples are BLOBs of little-endian IEEE doubles, in the order
-- they were taken; a NULL error metric stands for NaN; created_at is UTC; texts such as op, dtype,
-- outcome, provenance and config are the to_string() forms of core/.

PRAGMA application_id = 0x77347475;  -- "w4tu"
PRAGMA user_version = 1;

CREATE TABLE devices (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,  -- as the driver says it
  sm INTEGER NOT NULL,  -- compute capability as major * 10 + minor
  sm_count INTEGER NOT NULL,
  l2_bytes INTEGER NOT NULL,
  smem_block_bytes INTEGER NOT NULL,
  smem_sm_bytes INTEGER NOT NULL,
  threads_per_sm INTEGER NOT NULL,
  clock_mhz INTEGER NOT NULL,
  dram_gbps REAL NOT NULL,
  mma_tflops REAL NOT NULL,
  UNIQUE (name, sm, sm_count)
) STRICT;

CREATE TABLE problems (
  id INTEGER PRIMARY KEY,
  op TEXT NOT NULL,
  n INTEGER NOT NULL,
  k INTEGER NOT NULL,
  group_size INTEGER NOT NULL,
  dtype TEXT NOT NULL,
  UNIQUE (op, n, k, group_size, dtype)
) STRICT;

CREATE TABLE cubins (
  sha256 TEXT PRIMARY KEY,  -- of image, checked at every load
  image BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What the compiler made of one source, failures included, so that nothing is compiled twice.
CREATE TABLE compilations (
  key TEXT PRIMARY KEY,  -- SHA-256 of source, options and compiler version
  config TEXT NOT NULL,
  arch TEXT NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('ok', 'failed')),
  log TEXT NOT NULL,
  cubin_sha256 TEXT REFERENCES cubins (sha256),
  registers INTEGER NOT NULL,  -- per thread
  spill_bytes INTEGER NOT NULL,
  static_smem_bytes INTEGER NOT NULL,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
  CHECK ((outcome = 'ok') = (cubin_sha256 IS NOT NULL))
) STRICT;

CREATE INDEX compilations_by_cubin ON compilations (cubin_sha256);

-- One process that wrote something, and what it was made of.
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  device_id INTEGER NOT NULL REFERENCES devices (id),
  started_at TEXT NOT NULL,
  driver TEXT NOT NULL,
  nvrtc TEXT NOT NULL,
  version TEXT NOT NULL,  -- of w4tune
  commit_id TEXT NOT NULL,
  source_hash TEXT NOT NULL,  -- of the device sources
  protocol_hash TEXT NOT NULL,  -- of how it was measured
  protocol TEXT NOT NULL,
  seed INTEGER NOT NULL,
  copy_gbps REAL NOT NULL,  -- probed in this run; 0 without a probe
  mma_tflops REAL NOT NULL
) STRICT;

-- Append-only. A resumed run finds its trials by device, source_hash and protocol_hash.
CREATE TABLE trials (
  id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES runs (id),
  device_id INTEGER NOT NULL REFERENCES devices (id),
  problem_id INTEGER NOT NULL REFERENCES problems (id),
  m INTEGER NOT NULL,
  family TEXT NOT NULL,
  config TEXT NOT NULL,
  split_k INTEGER NOT NULL,
  raster INTEGER NOT NULL,
  source_hash TEXT NOT NULL,
  protocol_hash TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detail TEXT NOT NULL,
  error_worst_ratio REAL,
  error_relative_norm REAL,
  error_max_abs REAL,
  time_us_samples BLOB NOT NULL,
  clock_mhz_samples BLOB NOT NULL,
  compilation_key TEXT REFERENCES compilations (key),  -- NULL where nothing was compiled
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
  UNIQUE (device_id, problem_id, m, source_hash, protocol_hash, config, split_k, raster)
) STRICT;

-- What the winners are compared with, e.g. 'cublaslt_f16'.
CREATE TABLE baselines (
  run_id INTEGER NOT NULL REFERENCES runs (id),
  device_id INTEGER NOT NULL REFERENCES devices (id),
  problem_id INTEGER NOT NULL REFERENCES problems (id),
  m INTEGER NOT NULL,
  name TEXT NOT NULL,
  protocol_hash TEXT NOT NULL,
  detail TEXT NOT NULL,  -- which algorithm it was
  time_us_samples BLOB NOT NULL,
  clock_mhz_samples BLOB NOT NULL,
  PRIMARY KEY (device_id, problem_id, m, name, protocol_hash)
) STRICT;

-- What serves. At one m a measured row hides the predicted one, whose interval is then NULL.
CREATE TABLE winners (
  device_id INTEGER NOT NULL REFERENCES devices (id),
  problem_id INTEGER NOT NULL REFERENCES problems (id),
  m INTEGER NOT NULL,  -- where it was tuned
  provenance TEXT NOT NULL CHECK (provenance IN ('measured', 'predicted')),
  m_lo INTEGER,  -- serves m_lo <= M <= m_hi
  m_hi INTEGER,
  config TEXT NOT NULL,
  split_k INTEGER NOT NULL,
  raster INTEGER NOT NULL,
  row_tile INTEGER NOT NULL,
  token_tile INTEGER NOT NULL,
  depth_tile INTEGER NOT NULL,
  threads INTEGER NOT NULL,
  smem_bytes INTEGER NOT NULL,  -- dynamic
  cluster_split INTEGER NOT NULL,  -- 1: the CTAs of a split form a cluster
  compilation_key TEXT NOT NULL REFERENCES compilations (key),
  time_us_median REAL NOT NULL,
  floor_us REAL NOT NULL,
  baseline_us REAL NOT NULL,  -- 0 where not measured
  time_us_samples BLOB NOT NULL,  -- of the final run; empty where predicted
  clock_mhz_samples BLOB NOT NULL,
  error_worst_ratio REAL,
  error_relative_norm REAL,
  error_max_abs REAL,
  tie_set TEXT NOT NULL,  -- one candidate a line
  run_id INTEGER NOT NULL REFERENCES runs (id),
  PRIMARY KEY (device_id, problem_id, m, provenance)
) STRICT;

-- Kernels that belong to no problem, e.g. 'pack_weight'.
CREATE TABLE device_kernels (
  device_id INTEGER NOT NULL REFERENCES devices (id),
  name TEXT NOT NULL,
  compilation_key TEXT NOT NULL REFERENCES compilations (key),
  PRIMARY KEY (device_id, name)
) STRICT;
