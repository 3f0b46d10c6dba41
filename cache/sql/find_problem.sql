SELECT id FROM problems
WHERE op = :op AND n = :n AND k = :k AND group_size = :group_size AND dtype = :dtype;
