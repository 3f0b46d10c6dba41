SELECT detail, time_us_samples, clock_mhz_samples
FROM baselines
WHERE device_id = :device_id AND problem_id = :problem_id AND m = :m AND name = :name
  AND protocol_hash = :protocol_hash;
