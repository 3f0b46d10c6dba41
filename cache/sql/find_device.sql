SELECT id FROM devices WHERE name = :name AND sm = :sm AND sm_count = :sm_count;
