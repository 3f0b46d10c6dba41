PRAGMA synchronous = OFF;  -- a temporary file: it is synchronised as a whole before it is renamed
