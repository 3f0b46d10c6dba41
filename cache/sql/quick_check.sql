-- 'ok', or what is wrong, one finding a row; the first is enough.
PRAGMA quick_check (1);
