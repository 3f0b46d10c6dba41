#include "cache/merge.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "cache/publish.h"
#include "cache/rows.h"
#include "cache/schema.h"
#include "cache/temporary_file.h"
#include "generated/cache_sql.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kVerb = "merge into";

// In an order in which no row comes before what it refers to.
constexpr std::array kTables = {"devices", "problems",  "cubins",  "compilations",   "runs",
                                "trials",  "baselines", "winners", "device_kernels", "probes"};
// Numbers of rows, which mean nothing in another file.
constexpr std::array kIds = {"id", "device_id", "problem_id", "run_id"};

[[noreturn]] void invalid(const std::string& out, std::string_view reason) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("cannot {} '{}': {}", kVerb, out, reason));
}

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code error;
  return a == b || fs::equivalent(a, b, error);
}

// `sql` with the columns of its table: {own} all but ids, {source} and {here} the same of the
// aliases s and here, {newer} assignments that let no NULL replace a value.
std::string with_columns(const Database& target, const char* table, std::string_view sql) {
  std::vector<std::string> own;
  Statement select(target, sql::text("select_columns.sql"));
  select.bind(":table", std::string_view(table));
  while (select.step()) {
    std::string name = select.text("name");
    if (std::find(kIds.begin(), kIds.end(), name) == kIds.end()) own.push_back(std::move(name));
  }
  const auto each = [&](const auto& text_of) {
    std::string text;
    for (const std::string& name : own) text += (text.empty() ? "" : ", ") + text_of(name);
    return text;
  };
  using fmt::arg;
  return fmt::format(fmt::runtime(sql), arg("own", each([](const auto& name) { return name; })),
                     arg("source", each([](const auto& name) { return "s." + name; })),
                     arg("here", each([](const auto& name) { return "here." + name; })),
                     arg("newer", each([&](const auto& name) {
                           return fmt::format("{0} = coalesce(excluded.{0}, {1}.{0})", name, table);
                         })));
}

void check_references(const Database& database) {
  Statement check(database, sql::text("foreign_key_check.sql"));
  if (!check.step()) return;
  throw Error(ErrorCode::kDatabase,
              fmt::format("the cache '{}' is damaged: a row of {} lacks what it refers to. Restore "
                          "a copy, or leave the file out.",
                          database.path(), check.text("table")));
}

void check_every_cubin(const Database& database) {
  Statement select(database, sql::text("select_every_cubin.sql"));
  while (select.step()) {
    rows::check_cubin(database, select.bytes("image"), select.bytes("sha256"));
  }
}

std::string newest_run(const Database& database) {
  Statement select(database, sql::text("newest_run.sql"));
  select.step();
  return select.text("started_at");
}

// What may have one winner.
using Cell = std::tuple<std::string, int, int, Problem, int, Provenance>;

Cell cell_of(const DeviceInfo& device, const Winner& winner) {
  return {device.name, device.sm, device.sm_count, winner.problem, winner.m, winner.provenance};
}

}  // namespace

Merge::Merge(const std::vector<std::string>& inputs, std::string out, bool replace,
             std::chrono::milliseconds busy_timeout)
    : out_(std::move(out)) {
  check_target(kVerb, out_);
  std::error_code error;
  if (fs::exists(out_, error)) {
    const bool is_input = std::any_of(inputs.begin(), inputs.end(), [&](const std::string& input) {
      return is_same_file(input, out_);
    });
    if (!is_input && !replace) {
      invalid(out_,
              "it exists and is none of the inputs. Give another name, or --force to replace it.");
    }
    held_.emplace(out_, Database::Access::kReadWrite, busy_timeout);
    // A file that was exported is read-only: nobody writes to it, and it has no journal.
    if (held_->writable() && !held_->try_execute(sql::text("hold_file.sql"))) {
      invalid(out_,
              "another process uses it. Wait until that one has ended, or give another name.");
    }
  }
  read(inputs);
  refuse_mixed_launches();
  find_conflicts();
}

void Merge::read(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    const bool known = std::any_of(inputs_.begin(), inputs_.end(), [&](const Input& input) {
      return is_same_file(input.file, file);
    });
    if (known) continue;
    const bool held = held_ && is_same_file(file, out_);
    Store store(held ? copy_of(*held_) : open_copy(file));
    check_references(store.database_);
    check_every_cubin(store.database_);
    std::string order = newest_run(store.database_) + ' ' + file;
    inputs_.push_back({file, std::move(store), std::move(order)});
  }
  std::sort(inputs_.begin(), inputs_.end(),
            [](const Input& a, const Input& b) { return a.order < b.order; });
}

void Merge::refuse_mixed_launches() const {
  // By device and way to launch, a file that has such winners.
  std::map<std::pair<std::string, bool>, std::string> files;
  for (const Input& input : inputs_) {
    for (const DeviceInfo& device : input.store.devices()) {
      for (const std::string& protocol : input.store.winner_protocols(device)) {
        const bool dependent = protocol.find(kDependentText) != std::string::npos;
        files.try_emplace({device.name, dependent}, input.file);
        const auto other = files.find({device.name, !dependent});
        if (other == files.end()) continue;
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("cannot merge: {} holds winners tuned for {} launches on {}, and "
                                "{} for {} ones. Merge each kind into a file of its own.",
                                input.file, dependent ? "dependent" : "plain", device.name,
                                other->second, dependent ? "plain" : "dependent"));
      }
    }
  }
}

void Merge::find_conflicts() {
  std::map<Cell, std::vector<Claimant>> cells;
  for (const Input& input : inputs_) {
    for (const DeviceInfo& device : input.store.devices()) {
      for (WinnerRow& row : input.store.winner_rows(device)) {
        std::vector<Claimant>& claimants = cells[cell_of(device, row.winner)];
        const bool known = std::any_of(
            claimants.begin(), claimants.end(),
            [&](const Claimant& claimant) { return same_winner(claimant.row.winner, row.winner); });
        if (!known) claimants.push_back({input.file, std::move(row)});
      }
    }
  }
  for (auto& [cell, claimants] : cells) {
    if (claimants.size() > 1) conflicts_.push_back(decide(std::move(claimants)));
  }
}

// The rows of an input that are not to come along.
void Merge::mark_lost(const Database& target, const Input& input) const {
  std::map<Cell, const Winner*> kept;
  for (const WinnerConflict& conflict : conflicts_) {
    const WinnerRow& row = conflict.claimants[conflict.kept].row;
    kept.emplace(cell_of(row.run.device, row.winner), &row.winner);
  }
  if (kept.empty()) return;
  for (const DeviceInfo& device : input.store.devices()) {
    for (const WinnerRow& row : input.store.winner_rows(device)) {
      const auto found = kept.find(cell_of(device, row.winner));
      if (found == kept.end() || same_winner(row.winner, *found->second)) continue;
      Statement lose(target, sql::text("merge_lost.sql"));
      rows::bind_device_key(lose, device);
      rows::bind_problem(lose, row.winner.problem);
      lose.bind(":m", row.winner.m).bind(":provenance", to_string(row.winner.provenance)).run();
    }
  }
}

void Merge::unite(const Database& target, const Input& input) const {
  target.execute(sql::text("merge_attach.sql"));
  input.store.database_.copy_to(target, "source");
  Transaction transaction(target, Transaction::Kind::kWrite);
  target.execute(sql::text("merge_maps.sql"));
  mark_lost(target, input);
  for (const char* table : kTables) {
    target.execute(with_columns(target, table, sql::text(fmt::format("merge_{}.sql", table))));
  }
  transaction.commit();
  target.execute(sql::text("merge_detach.sql"));
}

std::string Merge::cubin_of(const Claimant& claimant) const {
  for (const Input& input : inputs_) {
    if (input.file != claimant.file) continue;
    const auto found = input.store.find_compilation(claimant.row.winner.compilation_key);
    if (found) return found->cubin;
  }
  return {};
}

MergeCounts Merge::write() {
  const TemporaryFile temporary(fmt::format("{}.{}.tmp", out_, ::getpid()));
  MergeCounts counts{.inputs = inputs_.size()};
  {
    Store merged = Store::open(temporary.path(), Store::Mode::kReadWrite);
    const Database& target = merged.database_;
    target.execute(sql::text("merge_session.sql"));
    for (const Input& input : inputs_) unite(target, input);
    for (const WinnerConflict& conflict : conflicts_) {
      if (!conflict.remeasured) continue;
      const auto& [winner, run] = *conflict.remeasured;
      merged.put_winners(merged.begin_run(run), winner.problem, {winner});
    }
    Transaction transaction(target, Transaction::Kind::kWrite);
    merged.renew_all_intervals();
    transaction.commit();
    for (const DeviceInfo& device : merged.devices()) {
      ++counts.devices;
      counts.winners += merged.winners(device).size();
    }
    Statement count(target, sql::text("count_trials.sql"));
    count.step();
    counts.trials = static_cast<std::size_t>(count.int64("trials"));
  }
  publish(kVerb, temporary.path(), out_);
  return counts;
}

}  // namespace w4tune
