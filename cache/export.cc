// Store::export_to: a stripped copy, made beside its target and renamed as a whole.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "cache/store.h"
#include "cache/temporary_file.h"
#include "generated/cache_sql.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& path, const std::string& reason,
                       ErrorCode code = ErrorCode::kDatabase) {
  throw Error(code, fmt::format("cannot export to '{}': {}", path, reason));
}

[[noreturn]] void fail(const std::string& path, int system_error, std::string_view remedy) {
  fail(path, fmt::format("{}. {}", std::generic_category().message(system_error), remedy));
}

// Brings a file, or the names in a folder, to the disk.
void synchronise(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool ok = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!ok) fail(path, error, "Check the disk.");
}

void check_target(const fs::path& target, const fs::path& folder, const std::string& source) {
  constexpr auto kInvalid = ErrorCode::kInvalidArgument;
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    fail(target, fmt::format("there is no folder '{}'. Make it first.", folder.string()), kInvalid);
  }
  if (fs::is_directory(target, error)) {
    fail(target, "it is a folder. Give the name of a file.", kInvalid);
  }
  if (fs::exists(target, error) && fs::equivalent(target, source, error)) {
    fail(target, "it is the cache itself. Give another name.", kInvalid);
  }
  if (::access(folder.c_str(), W_OK) != 0) fail(target, errno, "Use a folder you may write to.");
}

void check_has_winners(const Database& database) {
  Statement count(database, sql::text("count_winners.sql"));
  count.step();
  if (count.int64("winners") > 0) return;
  throw Error(ErrorCode::kNotFound,
              fmt::format("cannot export the cache '{}': it has no winners yet. Run 'w4tune tune' "
                          "first.",
                          database.path()));
}

}  // namespace

void Store::export_to(const std::string& path) const {
  const fs::path target(path);
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  check_target(target, folder, database_.path());
  check_has_winners(database_);
  const TemporaryFile temporary(fmt::format("{}.{}.tmp", path, ::getpid()));
  Statement(database_, sql::text("vacuum_into.sql")).bind(":path", temporary.path()).run();
  Database(temporary.path(), Database::Access::kReadWrite, kBusyTimeout)
      .execute(sql::text("strip_for_export.sql"));
  if (::chmod(temporary.path().c_str(), S_IRUSR | S_IRGRP | S_IROTH) != 0) {
    fail(path, errno, "Check the disk.");
  }
  synchronise(temporary.path());
  std::error_code error;
  fs::rename(temporary.path(), target, error);
  if (error) fail(path, error.value(), "Check the permissions of the folder.");
  synchronise(folder.string());
}

}  // namespace w4tune
