// SQLite as three small RAII types. Every failure throws Error{kDatabase}, one line with a remedy.
//
// One thread at a time may use a Database and what was made from it. A Statement must not outlive
// its Database. Parameters and columns go by name; a name the SQL lacks is a programmer's error.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace w4tune {

class Database {
 public:
  enum class Access { kReadOnly, kReadWrite, kCreate };

  // The path must exist unless access is kCreate. A lock of another process is waited for at most
  // `busy_timeout`.
  Database(std::string path, Access access, std::chrono::milliseconds busy_timeout);

  // A database in memory; messages name it as if it were the file `path`.
  static Database in_memory(std::string path);

  // Makes the schema `schema` of `target` a copy of this, as of one moment.
  void copy_to(const Database& target, const char* schema) const;

  // Runs every statement of a script and drops their rows.
  void execute(std::string_view script) const;
  // As execute, but a lock of another process is no failure: then it returns false.
  [[nodiscard]] bool try_execute(std::string_view script) const;

  // False where the file can only be read, whatever was asked for.
  [[nodiscard]] bool writable() const;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] sqlite3* handle() const { return handle_.get(); }

  // Throws what `result`, a code of SQLite, means to the user.
  [[noreturn]] void fail(int result) const;

 private:
  struct Closer {
    void operator()(sqlite3* handle) const noexcept;
  };

  Database(std::string path, const char* file, int flags, std::chrono::milliseconds busy_timeout);
  int run(std::string_view script) const;

  std::string path_;
  std::unique_ptr<sqlite3, Closer> handle_;
};

class Statement {
 public:
  Statement(const Database& database, std::string_view sql);

  template <std::integral T>
  Statement& bind(const char* name, T value) {
    return bind_int64(name, static_cast<std::int64_t>(value));
  }
  Statement& bind(const char* name, double value);  // NaN is stored as NULL
  Statement& bind(const char* name, std::string_view text);
  Statement& bind_or_null(const char* name, std::string_view text);   // empty is stored as NULL
  Statement& bind_flag(const char* name, std::optional<bool> value);  // empty is stored as NULL
  Statement& bind_blob(const char* name, std::string_view bytes);

  // True while there is a row to read; after the last one the statement may be bound and run again.
  bool step();
  // Runs a statement whose rows, if any, do not matter.
  void run();

  [[nodiscard]] bool is_null(std::string_view column) const;
  [[nodiscard]] std::int64_t int64(std::string_view column) const;
  [[nodiscard]] int integer(std::string_view column) const;
  [[nodiscard]] double real(std::string_view column) const;  // NULL reads as NaN
  // Text or blob, valid until the next step(); NULL reads as empty.
  [[nodiscard]] std::string_view bytes(std::string_view column) const;
  [[nodiscard]] std::string text(std::string_view column) const;

 private:
  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const noexcept;
  };

  Statement& bind_int64(const char* name, std::int64_t value);
  [[nodiscard]] int parameter(const char* name) const;
  [[nodiscard]] int column(std::string_view name) const;
  void check(int result) const;

  const Database* database_;
  std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
};

// Everything between construction and commit() happens as a whole, or not at all.
class Transaction {
 public:
  enum class Kind {
    kRead,   // sees one state of the file, whatever others write meanwhile
    kWrite,  // takes the write lock at once, so that it cannot fail halfway for a lock
  };

  Transaction(const Database& database, Kind kind);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();  // rolls back what was not committed

  void commit();

 private:
  const Database* database_;
  bool open_ = true;
};

}  // namespace w4tune
