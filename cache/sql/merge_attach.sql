-- A place for the copy of one input; the maps say which row here one of the input's became.
ATTACH ':memory:' AS source;
