INSERT INTO main.cubins ({own})
SELECT {source} FROM source.cubins AS s WHERE true
ON CONFLICT DO NOTHING;
