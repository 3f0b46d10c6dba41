#include "cache/schema.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "generated/cache_sql.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::int64_t kApplicationId = 0x77347475;  // "w4tu", set by migration_001.sql

struct Identity {
  std::int64_t application_id = 0;
  std::int64_t version = 0;
  bool empty = false;  // a file without any table, such as one just created
};

Identity read_identity(const Database& database) {
  Statement select(database, sql::text("file_identity.sql"));
  select.step();
  const Identity identity{.application_id = select.int64("application_id"),
                          .version = select.int64("user_version"),
                          .empty = select.int64("objects") == 0};
  return identity;
}

[[noreturn]] void refuse(const std::string& path, std::string_view reason) {
  throw Error(ErrorCode::kDatabase, fmt::format("cannot use the cache '{}': {}", path, reason));
}

void check_ours(const Database& database, const Identity& identity) {
  if (identity.application_id != kApplicationId) {
    refuse(database.path(),
           "it is a SQLite file, but not one of w4tune. Give the path of a w4tune cache.");
  }
  if (identity.version > kSchemaVersion) {
    refuse(database.path(),
           fmt::format("a newer w4tune wrote it (schema {}, this w4tune knows {}). Update w4tune, "
                       "or use another file.",
                       identity.version, kSchemaVersion));
  }
}

void migrate(const Database& database) {
  Transaction transaction(database, Transaction::Kind::kWrite);
  const Identity identity = read_identity(database);  // another process may have been faster
  const bool fresh = identity.empty && identity.application_id == 0 && identity.version == 0;
  if (!fresh) check_ours(database, identity);
  for (auto version = identity.version + 1; version <= kSchemaVersion; ++version) {
    database.execute(sql::text(fmt::format("migration_{:03}.sql", version)));
  }
  transaction.commit();
}

void create_folder(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw Error(ErrorCode::kDatabase,
                fmt::format("cannot create the folder '{}': {}. Use a file in a folder you may "
                            "write to.",
                            folder.string(), error.message()));
  }
}

// Opens a file that exists and is ours, of whatever schema this w4tune knows.
Database open_ours(const std::string& path, std::chrono::milliseconds busy_timeout) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("cannot open the cache '{}': there is no such file. Run 'w4tune' to "
                            "make one, or give the right path.",
                            path));
  }
  Database database(path, Database::Access::kReadOnly, busy_timeout);
  database.execute(sql::text("open_connection.sql"));
  check_ours(database, read_identity(database));
  return database;
}

void check_undamaged(const Database& database) {
  Statement check(database, sql::text("quick_check.sql"));
  check.step();
  const std::string finding = check.text("quick_check");
  if (finding == "ok") return;
  refuse(database.path(),
         fmt::format("it is damaged ({}). Restore a copy, or move it away and tune again.",
                     finding.substr(0, finding.find('\n'))));
}

}  // namespace

Database open_for_reading(const std::string& path, std::chrono::milliseconds busy_timeout) {
  Database database = open_ours(path, busy_timeout);
  const Identity identity = read_identity(database);
  if (identity.version < kSchemaVersion) {
    refuse(path, fmt::format("an older w4tune wrote it (schema {}, this w4tune needs {}) and it is "
                             "opened only to be read. Run 'w4tune tune --db' on a copy you may "
                             "write to: that brings it up to date.",
                             identity.version, kSchemaVersion));
  }
  return database;
}

Database open_copy(const std::string& path, std::chrono::milliseconds busy_timeout) {
  return copy_of(open_ours(path, busy_timeout));
}

Database copy_of(const Database& file) {
  check_ours(file, read_identity(file));
  Database copy = Database::in_memory(file.path());
  file.copy_to(copy, "main");
  copy.execute(sql::text("open_connection.sql"));
  check_undamaged(copy);
  migrate(copy);
  return copy;
}

Database open_for_writing(const std::string& path, std::chrono::milliseconds busy_timeout) {
  create_folder(path);
  Database database(path, Database::Access::kCreate, busy_timeout);
  database.execute(sql::text("open_connection.sql"));
  const Identity identity = read_identity(database);
  if (!database.writable()) {
    if (!identity.empty) check_ours(database, identity);
    refuse(path,
           "it is read-only, as an exported file is. Use another file, or a copy you may "
           "write to.");
  }
  if (identity.application_id == kApplicationId && identity.version == kSchemaVersion) {
    return database;
  }
  migrate(database);
  // Another process that is just using the file keeps it from changing: its next run will do it.
  static_cast<void>(database.try_execute(sql::text("use_wal.sql")));
  return database;
}

}  // namespace w4tune
