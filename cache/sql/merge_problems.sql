INSERT INTO main.problems ({own})
SELECT {source} FROM source.problems AS s WHERE true
ON CONFLICT DO NOTHING;

INSERT INTO temp.problem_map (source_id, id)
SELECT s.id, here.id
FROM source.problems AS s JOIN main.problems AS here USING (op, n, k, group_size, dtype);
