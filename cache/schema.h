// Opens a cache file: tells apart what it may be, and brings an older one up to date.
#pragma once

#include <chrono>
#include <string>

#include "cache/sqlite.h"

namespace w4tune {

inline constexpr int kSchemaVersion = 5;
inline constexpr std::chrono::milliseconds kBusyTimeout{10000};

// Opens a file that exists, for reading. A missing file throws Error{kNotFound}; one that is not a
// cache, or of another schema, throws Error{kDatabase}. Changes nothing.
Database open_for_reading(const std::string& path,
                          std::chrono::milliseconds busy_timeout = kBusyTimeout);

// A copy in memory of a file of this schema or an older one, brought up to date, and checked for
// damage as far as SQLite can see it. Throws as open_for_reading does; changes nothing in the file.
Database open_copy(const std::string& path, std::chrono::milliseconds busy_timeout = kBusyTimeout);
// The same of a file that is open.
Database copy_of(const Database& file);

// Opens a file for writing. Creates it, and its folder, where it is missing; migrates an older one.
Database open_for_writing(const std::string& path,
                          std::chrono::milliseconds busy_timeout = kBusyTimeout);

}  // namespace w4tune
