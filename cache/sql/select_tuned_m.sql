-- The first row at one m serves it: 'measured' sorts before 'predicted'.
SELECT m, provenance FROM winners
WHERE device_id = :device_id AND problem_id = :problem_id
ORDER BY m, provenance;
