CREATE TEMP TABLE device_map (source_id INTEGER PRIMARY KEY, id INTEGER NOT NULL);
CREATE TEMP TABLE problem_map (source_id INTEGER PRIMARY KEY, id INTEGER NOT NULL);
CREATE TEMP TABLE run_map (source_id INTEGER PRIMARY KEY, id INTEGER NOT NULL);
-- Winners of the input that another input's row replaces, by the input's own ids.
CREATE TEMP TABLE lost (device_id INTEGER, problem_id INTEGER, m INTEGER, provenance TEXT);
