#include "cache/merge.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "generated/cache_sql.h"
#include "tests/cache/samples.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;
using samples::expect_error;
using samples::Folder;

// A measured winner whose samples lie within 0.2 % of `time_us`.
Winner measured(int m, double time_us, int row_tile = 128) {
  Winner winner = samples::winner(m, Provenance::kMeasured);
  winner.candidate.config = samples::config(row_tile);
  winner.time_us.clear();
  for (int i = -12; i <= 12; ++i) winner.time_us.push_back(time_us * (1.0 + 0.0001 * i));
  winner.clock_mhz.assign(winner.time_us.size(), 1740.0);
  winner.time_us_median = time_us;
  return winner;
}

using Fill = std::function<void(Store&, std::int64_t)>;

// A cache file with one run in it.
std::string make(const Folder& folder, const std::string& name, const RunInfo& info,
                 const Fill& fill) {
  std::string path = folder.file(name);
  Store store = Store::open(path, Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation());
  const std::int64_t run = store.begin_run(info);
  fill(store, run);
  return path;
}

std::string make(const Folder& folder, const std::string& name, const std::vector<Winner>& winners,
                 const std::string& started_at = "2026-01-01") {
  RunInfo info = samples::run_info();
  info.started_at = started_at;
  return make(folder, name, info, [&](Store& store, std::int64_t run) {
    for (const Winner& winner : winners) store.put_winners(run, winner.problem, {winner});
  });
}

MergeCounts merge(const std::string& out, const std::vector<std::string>& inputs,
                  bool replace = false) {
  return Merge(inputs, out, replace).write();
}

std::vector<Winner> winners_of(const std::string& path) {
  return Store::open(path, Store::Mode::kReadOnly).winners(samples::device());
}

// Every row of every table, numbers of rows apart: what a merge must carry along.
std::string dump(const std::string& path) {
  const Database database = open_for_reading(path);
  std::vector<std::string> tables;
  {
    Statement select(database, "SELECT name FROM sqlite_schema WHERE type = 'table'");
    while (select.step()) tables.push_back(select.text("name"));
  }
  std::vector<std::string> lines;
  for (const std::string& table : tables) {
    std::vector<std::string> columns;
    Statement select(database, sql::text("select_columns.sql"));
    select.bind(":table", table);
    while (select.step()) columns.push_back(select.text("name"));
    std::string text;
    for (const std::string& column : columns) {
      const bool number = column == "id" || column.ends_with("_id");
      if (number && column != "commit_id") continue;
      text += (text.empty() ? "" : " || ',' || ") + fmt::format("quote({})", column);
    }
    Statement all(database, fmt::format("SELECT {} AS line FROM {}", text, table));
    while (all.step()) lines.push_back(table + ": " + all.text("line"));
  }
  std::sort(lines.begin(), lines.end());
  return fmt::format("{}", fmt::join(lines, "\n"));
}

// One row in every table.
void fill_every_table(Store& store, std::int64_t run) {
  store.put_trial(run, samples::trial());
  store.put_baseline(
      run, samples::trial().workload,
      {.name = "cublaslt_f16", .detail = "algo 3", .time_us = {1.0, 2.0}, .clock_mhz = {3.0, 4.0}});
  store.put_winners(run, samples::problem(),
                    {samples::composite_winner(968), measured(16, 5.0),
                     samples::winner(16, Provenance::kPredicted)});
  store.put_device_kernel(samples::device(), "utility", samples::compilation("key-2", "other"));
}

TEST(Merge, OneFileComesOutAsItWas) {
  const Folder folder;
  RunInfo info = samples::run_info();
  info.device.mma_denormals = true;
  const std::string in = make(folder, "in.db", info, fill_every_table);
  const std::string out = folder.file("out.db");
  const MergeCounts counts = merge(out, {in});
  EXPECT_EQ(dump(out), dump(in)) << "a table or a column is left out";
  EXPECT_EQ(counts.inputs, 1U);
  EXPECT_EQ(counts.devices, 1U);
  EXPECT_EQ(counts.winners, 2U) << "the hidden one does not serve";
  EXPECT_EQ(counts.trials, 1U);
}

TEST(Merge, EveryTableHasItsRule) {
  const Folder folder;
  const Database database = open_for_reading(make(folder, "a.db", {measured(16, 5.0)}));
  Statement select(database, "SELECT name FROM sqlite_schema WHERE type = 'table'");
  while (select.step()) {
    const std::string file = fmt::format("cache/sql/merge_{}.sql", select.text("name"));
    EXPECT_TRUE(fs::exists(fs::path(W4TUNE_SOURCE_DIR) / file))
        << file << " is missing: write it, and name the table in cache/merge.cc";
  }
}

TEST(Merge, DisjointFilesAreUnited) {
  const Folder folder;
  Winner geglu = measured(8, 3.0);
  geglu.problem.op = Op::kGeglu;
  const std::string a = make(folder, "a.db", {measured(1, 2.0), measured(64, 9.0)});
  const std::string b = make(folder, "b.db", {measured(16, 4.0), geglu}, "2026-01-02");
  const std::string out = folder.file("out.db");
  const std::string before = samples::read_file(a) + samples::read_file(b);
  Merge merge({a, b}, out, false);
  EXPECT_TRUE(merge.conflicts().empty());
  EXPECT_EQ(merge.write().winners, 4U);
  const auto found = winners_of(out);
  ASSERT_EQ(found.size(), 4U);
  const std::vector<std::vector<int>> expected = {
      {1, 1, 1}, {16, 2, 16}, {64, 17, kUnboundedM}, {8, 1, kUnboundedM}};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ((std::vector{found[i].m, found[i].m_lo, found[i].m_hi}), expected[i]);
  }
  EXPECT_EQ(samples::read_file(a) + samples::read_file(b), before) << "inputs stay as they are";
  EXPECT_EQ(Store::open(out, Store::Mode::kReadOnly).winner_runs(samples::device()).size(), 2U);
}

TEST(Merge, EqualFilesAreOne) {
  const Folder folder;
  const std::string a = make(folder, "a.db", samples::run_info(), fill_every_table);
  const std::string b = folder.file("b.db");
  fs::copy_file(a, b);
  const std::string out = folder.file("out.db");
  EXPECT_TRUE(Merge({a, b}, folder.file("never.db"), false).conflicts().empty());
  merge(out, {a, b});
  EXPECT_EQ(dump(out), dump(a));
  merge(out, {out, a, b, a});
  EXPECT_EQ(dump(out), dump(a)) << "nor does once more change anything";
}

TEST(Merge, TheFastestBySamplesStaysAndItSaysByHowMuch) {
  const Folder folder;
  const std::string a = make(folder, "a.db", {measured(16, 5.0, 64)});
  const std::string b = make(folder, "b.db", {measured(16, 4.0, 32)}, "2025-01-01");
  Merge merge({a, b}, folder.file("out.db"), false);
  ASSERT_EQ(merge.conflicts().size(), 1U);
  const WinnerConflict& conflict = merge.conflicts()[0];
  EXPECT_EQ(conflict.claimants[conflict.kept].file, b);
  EXPECT_EQ(conflict.ground, Ground::kFaster);
  ASSERT_EQ(conflict.others.size(), 1U);
  EXPECT_EQ(conflict.claimants[conflict.others[0].claimant].file, a);
  EXPECT_NEAR(conflict.others[0].by, 0.25, 1e-9);
  EXPECT_GT(conflict.others[0].at_least.value(), 0.23);
  EXPECT_LT(conflict.others[0].at_most.value(), 0.27);
  EXPECT_NE(slower_text(conflict.others[0]).find("25.00 % slower (95 %: 2"), std::string::npos);
  merge.write();
  EXPECT_EQ(winners_of(folder.file("out.db"))[0].candidate.config, samples::config(32));
}

TEST(Merge, TimesThatCannotBeToldApartSaySo) {
  const Folder folder;
  const std::string a = make(folder, "a.db", {measured(16, 5.001, 64)});
  const std::string b = make(folder, "b.db", {measured(16, 5.0, 32)});
  Merge merge({a, b}, folder.file("out.db"), false);
  ASSERT_EQ(merge.conflicts().size(), 1U);
  EXPECT_NE(slower_text(merge.conflicts()[0].others[0]).find("cannot be told apart"),
            std::string::npos);
}

TEST(Merge, AServedCompositeCountsByItsOwnTime) {
  const Folder folder;
  Winner composite = samples::composite_winner(968, 25.0);
  const std::string a = make(folder, "a.db", {composite});
  const std::string b = make(folder, "b.db", {measured(968, 27.0, 32)});
  const std::string out = folder.file("out.db");
  merge(out, {a, b});
  EXPECT_TRUE(winners_of(out)[0].composite) << "its kernel takes 30 us";
}

TEST(Merge, OtherProtocolsAndPredictionsAreDecidedByAge) {
  const Folder folder;
  RunInfo other = samples::run_info();
  other.protocol_hash = "protocol-2";
  other.started_at = "2026-06-01";
  const std::string slow = make(folder, "slow.db", other, [](Store& store, std::int64_t run) {
    store.put_winners(run, samples::problem(), {measured(16, 9.0, 64)});
  });
  const std::string fast = make(folder, "fast.db", {measured(16, 4.0, 32)});
  Merge by_age({slow, fast}, folder.file("out.db"), false);
  ASSERT_EQ(by_age.conflicts().size(), 1U);
  const WinnerConflict& conflict = by_age.conflicts()[0];
  EXPECT_EQ(conflict.ground, Ground::kNewer);
  EXPECT_EQ(conflict.claimants[conflict.kept].file, slow);
  EXPECT_FALSE(conflict.others[0].at_least);
  EXPECT_NE(slower_text(conflict.others[0]).find("says nothing"), std::string::npos);

  Winner predicted = samples::winner(16, Provenance::kPredicted);
  predicted.time_us.clear();
  const std::string old_model = make(folder, "old.db", {predicted});
  predicted.time_us_median = 99.0;
  const std::string new_model = make(folder, "new.db", {predicted}, "2026-06-01");
  const std::string out = folder.file("predicted.db");
  merge(out, {new_model, old_model});
  EXPECT_EQ(winners_of(out)[0].time_us_median, 99.0);
}

// What --measure does, with made-up samples in place of a GPU's.
TEST(Merge, ARemeasuredConflictKeepsTheNewSamples) {
  const Folder folder;
  const std::string a = make(folder, "a.db", {measured(16, 5.0, 64)});
  const std::string b = make(folder, "b.db", {measured(16, 4.0, 32)});
  const std::string out = folder.file("out.db");
  Merge merge({a, b}, out, false);
  WinnerConflict& conflict = merge.conflicts().at(0);
  EXPECT_EQ(merge.cubin_of(conflict.claimants[0]), samples::compilation().cubin);
  Remeasured now{.time_us = {},
                 .clock_mhz = {},
                 .driver = "600.1",
                 .started_at = "2026-11-01",
                 .protocol = "anew",
                 .protocol_hash = "protocol-9"};
  decide_by(conflict, {});
  EXPECT_EQ(conflict.ground, Ground::kFaster) << "nothing was right: nothing is decided anew";
  for (const Claimant& claimant : conflict.claimants) {
    const bool is_a = claimant.file == a;
    now.time_us.push_back(measured(16, is_a ? 4.5 : 4.6).time_us);
    now.clock_mhz.push_back({1700.0});
  }
  decide_by(conflict, now);
  EXPECT_EQ(conflict.claimants[conflict.kept].file, a);
  EXPECT_EQ(conflict.ground, Ground::kRemeasured);
  ASSERT_EQ(conflict.others.size(), 1U);
  EXPECT_GT(conflict.others[0].at_least.value(), 0.0) << "in one run 2 % are told apart";
  merge.write();
  const auto rows = Store::open(out, Store::Mode::kReadOnly).winner_rows(samples::device());
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].winner.candidate.config, samples::config(64));
  EXPECT_EQ(rows[0].winner.time_us, measured(16, 4.5).time_us);
  EXPECT_EQ(rows[0].winner.time_us_median, 4.5);
  EXPECT_EQ(rows[0].run.driver, "600.1");
  EXPECT_EQ(rows[0].run.protocol_hash, "protocol-9");
  EXPECT_EQ(rows[0].run.source_hash, "source-1") << "the kernel is the one it was";
}

TEST(Merge, MeasuredRowsHidePredictedOnesOfAnotherFile) {
  const Folder folder;
  const std::string a = make(folder, "a.db", {measured(16, 5.0)});
  const std::string b = make(
      folder, "b.db",
      {samples::winner(16, Provenance::kPredicted), samples::winner(32, Provenance::kPredicted)});
  Merge merge({b, a}, folder.file("out.db"), false);
  EXPECT_TRUE(merge.conflicts().empty());
  EXPECT_EQ(merge.write().winners, 2U);
  EXPECT_EQ(winners_of(folder.file("out.db"))[0].provenance, Provenance::kMeasured);
}

TEST(Merge, TheOrderOfTheInputsDoesNotMatter) {
  const Folder folder;
  std::vector<std::string> inputs;
  for (int file = 0; file < 3; ++file) {
    RunInfo info = samples::run_info();
    info.started_at = fmt::format("2026-0{}-01", 1 + (file + 1) % 3);
    info.device.clock_mhz = 1700 + file;
    inputs.push_back(
        make(folder, fmt::format("{}.db", file), info, [&](Store& store, std::int64_t run) {
          for (int m = 1; m < 6; ++m) {
            const double time = 5.0 + ((m * 7 + file * 3) % 5) * 0.4;
            store.put_winners(run, samples::problem(), {measured(m, time, 16 * (file + 1))});
            Trial trial = samples::trial(128, m);
            trial.time_us = {time};
            store.put_trial(run, trial);
          }
          store.put_baseline(
              run, samples::trial().workload,
              {.name = "b", .detail = fmt::format("{}", file), .time_us = {}, .clock_mhz = {}});
        }));
  }
  std::string first;
  std::vector<std::string> order = inputs;
  std::sort(order.begin(), order.end());
  do {
    const std::string out = folder.file("out.db");
    merge(out, order, true);
    if (first.empty()) first = dump(out);
    EXPECT_EQ(dump(out), first);
  } while (std::next_permutation(order.begin(), order.end()));
  // What is merged already does not come to another end with one of its inputs.
  merge(folder.file("again.db"), {folder.file("out.db"), inputs[1]});
  const auto once = winners_of(folder.file("out.db"));
  const auto twice = winners_of(folder.file("again.db"));
  ASSERT_EQ(once.size(), twice.size());
  for (std::size_t i = 0; i < once.size(); ++i) {
    EXPECT_EQ(once[i].candidate, twice[i].candidate);
    EXPECT_EQ(once[i].time_us, twice[i].time_us);
  }
}

TEST(Merge, FinishedWorkStaysFinishedAndTrialsAreFound) {
  const Folder folder;
  const std::string a = make(folder, "a.db", samples::run_info(), fill_every_table);
  const std::string b = make(folder, "b.db", {measured(64, 5.0)});
  const std::string out = folder.file("out.db");
  merge(out, {a, b});
  Store store = Store::open(out, Store::Mode::kReadWrite);
  const std::int64_t run = store.begin_run(samples::run_info());
  EXPECT_TRUE(store.finished(run, {samples::problem(), 16}));
  EXPECT_TRUE(store.finished(run, {samples::problem(), 64}));
  EXPECT_EQ(store.trials(run, samples::trial().workload).size(), 1U);
  EXPECT_TRUE(store.has_device_kernel(samples::device(), "utility"));
  store.put_winners(run, samples::problem(), {measured(128, 6.0)});  // and it can be gone on with
  EXPECT_EQ(winners_of(out).size(), 4U);
}

TEST(Merge, ASuccessHidesAFailedCompilation) {
  const Folder folder;
  const std::string failed = make(folder, "a.db", samples::run_info(), [](Store& store, auto run) {
    store.put_compilation(samples::config(), samples::compilation("key-7", ""));
    store.put_trial(run, samples::trial());
  });
  const std::string good = make(folder, "b.db", samples::run_info(), [](Store& store, auto run) {
    store.put_compilation(samples::config(), samples::compilation("key-7", "cubin 7"));
    store.put_trial(run, samples::trial());
  });
  for (const auto& inputs : {std::vector{failed, good}, std::vector{good, failed}}) {
    merge(folder.file("out.db"), inputs, true);
    const Store store = Store::open(folder.file("out.db"), Store::Mode::kReadOnly);
    EXPECT_EQ(store.find_compilation("key-7")->cubin, "cubin 7");
  }
}

TEST(Merge, AnOlderSchemaIsBroughtUpToDateInMemory) {
  const Folder folder;
  const std::string old = folder.file("old.db");
  {
    Database database(old, Database::Access::kCreate, kBusyTimeout);
    database.execute(sql::text("migration_001.sql"));
    database.execute(
        "INSERT INTO devices VALUES (5, 'NVIDIA A40', 86, 84, 1, 1, 1, 1, 1, 1.0, 1.0);"
        "INSERT INTO problems VALUES (3, 'gemm', 16384, 2048, 128, 'f16');"
        "INSERT INTO runs VALUES (9, 5, '2020', '', '', '', '', '', '', 'old', 1, 0, 0);"
        "INSERT INTO compilations VALUES ('k', 'c', 'sm_86', 'failed', '', NULL, 0, 0, 0, '2020');"
        "INSERT INTO trials VALUES (1, 9, 5, 3, 16, 'mma_pipe', 'mma_pipe row_tile=1', 1, 1, 's', "
        "'p', 'ok', '', 0, 0, 0, x'', x'', 'k', '2020');");
  }
  const std::string before = samples::read_file(old);
  const std::string out = folder.file("out.db");
  EXPECT_EQ(merge(out, {make(folder, "new.db", {measured(16, 5.0)}), old}).trials, 1U);
  EXPECT_EQ(samples::read_file(old), before);
  EXPECT_EQ(winners_of(out).size(), 1U);
}

TEST(Merge, ExportedFilesAreInputsToo) {
  const Folder folder;
  const std::string a = make(folder, "a.db", samples::run_info(), fill_every_table);
  const std::string exported = folder.file("exported.db");
  Store::open(a, Store::Mode::kReadOnly).export_to(exported);
  const std::string b = make(folder, "b.db", {measured(64, 5.0)});
  EXPECT_EQ(merge(folder.file("out.db"), {b, exported}).winners, 3U);
  EXPECT_EQ(merge(exported, {exported, b}).winners, 3U) << "even one that becomes the target";
}

TEST(Merge, WhatCannotBeMergedIsOneLineAndWritesNothing) {
  const Folder folder;
  const std::string good = make(folder, "good.db", {measured(16, 5.0)});
  const std::string out = folder.file("out.db");
  const auto refused = [&](const std::string& input, ErrorCode code, const std::string& text) {
    expect_error(code, text, [&] { merge(out, {good, input}); });
    EXPECT_FALSE(fs::exists(out));
  };
  refused(folder.file("none.db"), ErrorCode::kNotFound, "none.db");
  const std::string text = folder.file("text.db");
  samples::write_file(text, "This is not a database at all, however long it may be.");
  refused(text, ErrorCode::kDatabase, "text.db': it is not a SQLite file");
  const std::string newer = folder.file("newer.db");
  fs::copy_file(good, newer);
  Database(newer, Database::Access::kReadWrite, kBusyTimeout).execute("PRAGMA user_version = 99");
  refused(newer, ErrorCode::kDatabase, "newer.db': a newer w4tune wrote it");
  const std::string other = folder.file("other.db");
  Database(other, Database::Access::kCreate, kBusyTimeout).execute("CREATE TABLE t (x)");
  refused(other, ErrorCode::kDatabase, "not one of w4tune");

  const std::string dangling = folder.file("dangling.db");
  fs::copy_file(good, dangling);
  Database(dangling, Database::Access::kReadWrite, kBusyTimeout)
      .execute("PRAGMA foreign_keys = OFF; DELETE FROM compilations");
  refused(dangling, ErrorCode::kDatabase, "dangling.db' is damaged: a row of winners lacks");
  const std::string swapped = folder.file("swapped.db");
  fs::copy_file(good, swapped);
  Database(swapped, Database::Access::kReadWrite, kBusyTimeout)
      .execute("UPDATE cubins SET image = x'00'");
  refused(swapped, ErrorCode::kDatabase, "swapped.db' is damaged: a cubin differs");
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << "nothing is left behind";
  }
}

// Whatever bytes of a file are overwritten: it is merged, or refused in one line.
TEST(Merge, DamagedPagesAreNoDefect) {
  const Folder folder;
  const std::string good = make(folder, "good.db", samples::run_info(), fill_every_table);
  Database(good, Database::Access::kReadWrite, kBusyTimeout)
      .execute("PRAGMA journal_mode = DELETE");
  const std::string bytes = samples::read_file(good);
  const std::string damaged = folder.file("damaged.db");
  int refused = 0;
  for (std::size_t page = 1; page < bytes.size() / 4096; ++page) {
    std::string bad = bytes;
    std::fill_n(bad.begin() + static_cast<std::ptrdiff_t>(page * 4096), 512, '\xa5');
    samples::write_file(damaged, bad);
    try {
      merge(folder.file("out.db"), {damaged}, true);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kDatabase) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 5);
}

TEST(Merge, WinnersOfTwoWaysToLaunchAreRefused) {
  const Folder folder;
  const std::string plain = make(folder, "plain.db", {measured(16, 5.0)});
  RunInfo info = samples::run_info();
  info.protocol = fmt::format("medians, {}", kDependentText);
  const std::string dependent = make(folder, "dependent.db", info, [](Store& store, auto run) {
    store.put_winners(run, samples::problem(), {measured(32, 5.0)});
  });
  for (const auto& inputs : {std::vector{plain, dependent}, std::vector{dependent, plain}}) {
    expect_error(ErrorCode::kInvalidArgument, "Merge each kind into a file of its own",
                 [&] { merge(folder.file("out.db"), inputs); });
  }
  EXPECT_FALSE(fs::exists(folder.file("out.db")));
}

TEST(Merge, AnExistingTargetIsReplacedOnPurposeAlone) {
  const Folder folder;
  const std::string a = make(folder, "a.db", {measured(16, 5.0)});
  const std::string b = make(folder, "b.db", {measured(32, 5.0)});
  const std::string out = make(folder, "out.db", {measured(64, 5.0)});
  const std::string before = dump(out);
  expect_error(ErrorCode::kInvalidArgument, "--force", [&] { merge(out, {a, b}); });
  EXPECT_EQ(dump(out), before);
  EXPECT_EQ(merge(out, {a, out}).winners, 2U) << "one of the inputs";
  EXPECT_EQ(merge(out, {a, b}, true).winners, 2U);
  EXPECT_EQ(winners_of(out).back().m, 32);
  const std::string text = folder.file("text.txt");
  samples::write_file(text, "my notes, longer than the head of a database file is, to be sure");
  expect_error(ErrorCode::kDatabase, "not a SQLite file", [&] { merge(text, {a}, true); });
  expect_error(ErrorCode::kInvalidArgument, "it is a folder",
               [&] { merge(folder.path().string(), {a}); });
  expect_error(ErrorCode::kInvalidArgument, "there is no folder",
               [&] { merge(folder.file("no/such/out.db"), {a}); });
}

TEST(Merge, ATargetInUseIsLeftAlone) {
  const Folder folder;
  const std::string a = make(folder, "a.db", {measured(16, 5.0)});
  const std::string out = make(folder, "out.db", {measured(64, 5.0)});
  const Store user = Store::open(out, Store::Mode::kReadOnly);
  EXPECT_EQ(user.winners(samples::device()).size(), 1U);
  expect_error(ErrorCode::kInvalidArgument, "another process uses it", [&] {
    Merge({a, out}, out, false, std::chrono::milliseconds(50)).write();
  });
  EXPECT_EQ(user.winners(samples::device()).size(), 1U);
}

// Killed at any moment: the target is the old file or the new one, and the inputs are as they were.
TEST(Merge, AKilledMergeLeavesAllOrNothing) {
  const Folder folder;
  std::vector<std::string> inputs;
  for (int file = 0; file < 3; ++file) {
    inputs.push_back(make(folder, fmt::format("{}.db", file), samples::run_info(),
                          [&](Store& store, std::int64_t run) {
                            for (int m = 1; m <= 20; ++m) {
                              store.put_winners(run, samples::problem(),
                                                {measured(3 * m + file, 5.0)});
                            }
                          }));
  }
  const std::string old = make(folder, "old.db", {measured(4000, 5.0)});
  const std::string out = folder.file("out.db");
  int whole = 0;
  constexpr int kTries = 40;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    fs::copy_file(old, out, fs::copy_options::overwrite_existing);
    const pid_t child = ::fork();
    if (child == 0) {
      merge(out, inputs, true);
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2 * attempt));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    // A reader may have to be told to repair what the kill has left.
    const std::size_t found =
        Store::open(out, Store::Mode::kReadWrite).winners(samples::device()).size();
    EXPECT_TRUE(found == 1 || found == 60) << found;
    if (found == 60) ++whole;
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) fs::remove(out + suffix);
  }
  EXPECT_EQ(merge(out, inputs).winners, 60U);
  RecordProperty("whole", whole);
}

}  // namespace
}  // namespace w4tune
