-- A row for each reference that leads nowhere; "table" has it.
PRAGMA foreign_key_check;
