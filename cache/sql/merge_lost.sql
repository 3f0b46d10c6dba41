INSERT INTO temp.lost (device_id, problem_id, m, provenance)
SELECT devices.id, problems.id, :m, :provenance
FROM source.devices, source.problems
WHERE name = :name AND sm = :sm AND sm_count = :sm_count
  AND op = :op AND n = :n AND k = :k AND group_size = :group_size AND dtype = :dtype;
