-- How the measured winners of one device were measured.
SELECT DISTINCT protocol
FROM winners
JOIN runs ON runs.id = winners.run_id
WHERE winners.device_id = :device_id AND provenance = 'measured'
ORDER BY protocol;
