-- Settings of a connection. With a WAL, synchronous = NORMAL loses nothing to a killed process.
PRAGMA foreign_keys = ON;
PRAGMA synchronous = NORMAL;
