// Store::export_to: a stripped copy, made beside its target and renamed as a whole.

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "cache/publish.h"
#include "cache/store.h"
#include "cache/temporary_file.h"
#include "generated/cache_sql.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kVerb = "export to";

void check_is_another(const std::string& target, const std::string& source) {
  std::error_code error;
  if (!fs::exists(target, error) || !fs::equivalent(target, source, error)) return;
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("cannot {} '{}': it is the cache itself. Give another name.", kVerb, target));
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
  check_target(kVerb, path);
  check_is_another(path, database_.path());
  check_has_winners(database_);
  const TemporaryFile temporary(fmt::format("{}.{}.tmp", path, ::getpid()));
  Statement(database_, sql::text("vacuum_into.sql")).bind(":path", temporary.path()).run();
  Database(temporary.path(), Database::Access::kReadWrite, kBusyTimeout)
      .execute(sql::text("strip_for_export.sql"));
  if (::chmod(temporary.path().c_str(), S_IRUSR | S_IRGRP | S_IROTH) != 0) {
    fail_target(kVerb, path, errno, "Check the disk.");
  }
  publish(kVerb, temporary.path(), path);
}

}  // namespace w4tune
