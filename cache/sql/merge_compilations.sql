-- A compiler that was killed on one machine fails nowhere else.
INSERT INTO main.compilations ({own})
SELECT {source} FROM source.compilations AS s WHERE true
ON CONFLICT (key) DO UPDATE SET {newer}
WHERE outcome = 'failed' AND excluded.outcome = 'ok';
