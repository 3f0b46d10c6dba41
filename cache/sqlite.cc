#include "cache/sqlite.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <cmath>
#include <limits>
#include <utility>

#include "core/check.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// What a result code means and what to do about it.
std::string explain(int result, const char* message) {
  if (result == SQLITE_READONLY_ROLLBACK || result == SQLITE_READONLY_RECOVERY) {
    return "a process was killed while it wrote, and a reader may not repair that. Run 'w4tune "
           "tune' "
           "on it once; what was stored before is kept.";
  }
  switch (result & 0xff) {
    case SQLITE_NOTADB:
      return "it is not a SQLite file. Give the path of a w4tune cache, or move this file away.";
    case SQLITE_CORRUPT:
      return fmt::format("it is damaged ({}). Restore a copy, or move it away and tune again.",
                         message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return "another process keeps it locked. Wait until that one has ended, or use another file.";
    case SQLITE_READONLY:
      return "it, or its folder, is read-only. Use a copy you may write to; in a read-only folder "
             "only a file written by 'w4tune export' can be read.";
    case SQLITE_CANTOPEN:
      return fmt::format("{}. Check the path, and the permissions of the file and of its folder.",
                         message);
    case SQLITE_FULL: return "the disk is full. Free some space; what was stored before is kept.";
    case SQLITE_IOERR:
      return fmt::format("{}. Check the disk; what was stored before is kept.", message);
    default:
      return fmt::format("{} (SQLite error {}). Report this as a defect of w4tune.", message,
                         result);
  }
}

bool is_defect(int result) {
  const int primary = result & 0xff;
  return primary == SQLITE_CONSTRAINT || primary == SQLITE_MISUSE || primary == SQLITE_ERROR ||
         primary == SQLITE_RANGE || primary == SQLITE_MISMATCH;
}

int open_flags(Database::Access access) {
  switch (access) {
    case Database::Access::kReadOnly: return SQLITE_OPEN_READONLY;
    case Database::Access::kReadWrite: return SQLITE_OPEN_READWRITE;
    case Database::Access::kCreate: return SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  }
  return SQLITE_OPEN_READONLY;
}

}  // namespace

void Database::Closer::operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }

Database::Database(std::string path, Access access, std::chrono::milliseconds busy_timeout)
    : Database(std::move(path), nullptr, open_flags(access), busy_timeout) {}

// `file` is null where it is the path.
Database::Database(std::string path, const char* file, int flags,
                   std::chrono::milliseconds busy_timeout)
    : path_(std::move(path)) {
  sqlite3* handle = nullptr;
  flags |= SQLITE_OPEN_NOMUTEX;  // one thread at a time: no locks
  const int result =
      sqlite3_open_v2(file != nullptr ? file : path_.c_str(), &handle, flags, nullptr);
  handle_.reset(handle);  // there is a handle to close even where opening failed
  if (result != SQLITE_OK) fail(result);
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, static_cast<int>(busy_timeout.count()));
}

Database Database::in_memory(std::string path) {
  return {std::move(path), ":memory:", open_flags(Access::kCreate), std::chrono::milliseconds(0)};
}

void Database::copy_to(const Database& target, const char* schema) const {
  sqlite3_backup* backup = sqlite3_backup_init(target.handle(), schema, handle(), "main");
  if (backup == nullptr) target.fail(sqlite3_errcode(target.handle()));
  constexpr int kAllPages = -1;
  const int step = sqlite3_backup_step(backup, kAllPages);
  const int result = sqlite3_backup_finish(backup);
  if (result != SQLITE_OK) fail(result);
  if (step != SQLITE_DONE) fail(step);
}

int Database::run(std::string_view script) const {
  const char* next = script.data();
  const char* const end = script.data() + script.size();
  while (next < end) {
    sqlite3_stmt* statement = nullptr;
    int result =
        sqlite3_prepare_v2(handle(), next, static_cast<int>(end - next), &statement, &next);
    if (result != SQLITE_OK) return result;
    if (statement == nullptr) continue;  // only a comment or white space was left
    while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
    }
    sqlite3_finalize(statement);
    if (result != SQLITE_DONE) return result;
  }
  return SQLITE_OK;
}

void Database::execute(std::string_view script) const {
  const int result = run(script);
  if (result != SQLITE_OK) fail(result);
}

bool Database::try_execute(std::string_view script) const {
  const int result = run(script);
  if ((result & 0xff) == SQLITE_BUSY) return false;
  if (result != SQLITE_OK) fail(result);
  return true;
}

bool Database::writable() const { return sqlite3_db_readonly(handle(), "main") == 0; }

void Database::fail(int result) const {
  const char* message = handle() != nullptr ? sqlite3_errmsg(handle()) : sqlite3_errstr(result);
  throw Error(is_defect(result) ? ErrorCode::kInternal : ErrorCode::kDatabase,
              fmt::format("cannot use the cache '{}': {}", path_, explain(result, message)));
}

void Statement::Finalizer::operator()(sqlite3_stmt* statement) const noexcept {
  sqlite3_finalize(statement);
}

Statement::Statement(const Database& database, std::string_view sql) : database_(&database) {
  sqlite3_stmt* statement = nullptr;
  check(sqlite3_prepare_v2(database.handle(), sql.data(), static_cast<int>(sql.size()), &statement,
                           nullptr));
  statement_.reset(statement);
}

void Statement::check(int result) const {
  if (result != SQLITE_OK) database_->fail(result);
}

int Statement::parameter(const char* name) const {
  const int index = sqlite3_bind_parameter_index(statement_.get(), name);
  W4_CHECK(index > 0, name);
  return index;
}

Statement& Statement::bind_int64(const char* name, std::int64_t value) {
  check(sqlite3_bind_int64(statement_.get(), parameter(name), value));
  return *this;
}

Statement& Statement::bind(const char* name, double value) {
  check(sqlite3_bind_double(statement_.get(), parameter(name), value));
  return *this;
}

Statement& Statement::bind(const char* name, std::string_view text) {
  // An empty view may have a null pointer, which SQLite would store as NULL.
  check(sqlite3_bind_text64(statement_.get(), parameter(name), text.empty() ? "" : text.data(),
                            text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  return *this;
}

Statement& Statement::bind_or_null(const char* name, std::string_view text) {
  if (!text.empty()) return bind(name, text);
  check(sqlite3_bind_null(statement_.get(), parameter(name)));
  return *this;
}

Statement& Statement::bind_flag(const char* name, std::optional<bool> value) {
  if (value) return bind_int64(name, *value ? 1 : 0);
  check(sqlite3_bind_null(statement_.get(), parameter(name)));
  return *this;
}

Statement& Statement::bind_blob(const char* name, std::string_view bytes) {
  check(sqlite3_bind_blob64(statement_.get(), parameter(name), bytes.empty() ? "" : bytes.data(),
                            bytes.size(), SQLITE_TRANSIENT));
  return *this;
}

bool Statement::step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  sqlite3_reset(statement_.get());
  if (result != SQLITE_DONE) database_->fail(result);
  return false;
}

void Statement::run() {
  while (step()) {
  }
}

int Statement::column(std::string_view name) const {
  const int count = sqlite3_column_count(statement_.get());
  for (int i = 0; i < count; ++i) {
    if (name == sqlite3_column_name(statement_.get(), i)) return i;
  }
  W4_CHECK(false, std::string(name).c_str());
}

bool Statement::is_null(std::string_view name) const {
  return sqlite3_column_type(statement_.get(), column(name)) == SQLITE_NULL;
}

std::int64_t Statement::int64(std::string_view name) const {
  return sqlite3_column_int64(statement_.get(), column(name));
}

int Statement::integer(std::string_view name) const {
  return sqlite3_column_int(statement_.get(), column(name));
}

double Statement::real(std::string_view name) const {
  if (is_null(name)) return std::numeric_limits<double>::quiet_NaN();
  return sqlite3_column_double(statement_.get(), column(name));
}

std::string_view Statement::bytes(std::string_view name) const {
  const int index = column(name);
  const void* data = sqlite3_column_blob(statement_.get(), index);
  if (data == nullptr) return {};
  return {static_cast<const char*>(data),
          static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), index))};
}

std::string Statement::text(std::string_view name) const { return std::string(bytes(name)); }

Transaction::Transaction(const Database& database, Kind kind) : database_(&database) {
  database.execute(kind == Kind::kRead ? "BEGIN" : "BEGIN IMMEDIATE");
}

Transaction::~Transaction() {
  if (!open_) return;
  // A failure is dropped: SQLite rolls back by itself when the connection closes.
  sqlite3_exec(database_->handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void Transaction::commit() {
  database_->execute("COMMIT");
  open_ = false;
}

}  // namespace w4tune
