-- Readers and one writer at a time do not wait for each other. No change where it is a WAL already.
PRAGMA journal_mode = WAL;
