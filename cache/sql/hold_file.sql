-- Nobody else has the file open, and nobody can read it until this connection ends: in this mode the
-- lock of the transaction stays.
PRAGMA journal_mode = DELETE;
PRAGMA locking_mode = EXCLUSIVE;
BEGIN EXCLUSIVE;
COMMIT;
