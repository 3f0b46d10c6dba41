DROP TABLE temp.device_map;
DROP TABLE temp.problem_map;
DROP TABLE temp.run_map;
DROP TABLE temp.lost;
DETACH source;
