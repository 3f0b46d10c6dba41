-- Whose file this is: read before anything else.
SELECT (SELECT application_id FROM pragma_application_id) AS application_id,
       (SELECT user_version FROM pragma_user_version) AS user_version,
       (SELECT count(*) FROM sqlite_schema) AS objects;
