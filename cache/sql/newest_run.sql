SELECT MAX(started_at) AS started_at FROM runs;
