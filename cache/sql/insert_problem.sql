INSERT INTO problems (op, n, k, group_size, dtype)
VALUES (:op, :n, :k, :group_size, :dtype)
ON CONFLICT DO NOTHING;
