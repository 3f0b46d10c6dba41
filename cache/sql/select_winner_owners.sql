-- Whose Ms the winners divide.
SELECT DISTINCT device_id, problem_id FROM winners;
