#include "cache/schema.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>

#include "cache/image.h"
#include "cache/store.h"
#include "generated/cache_sql.h"
#include "tests/cache/samples.h"
#include "tests/core/sample_calibration.h"

namespace w4tune {
namespace {

using samples::expect_error;
using samples::Folder;
using std::chrono::milliseconds;

void expect_both_refuse(const std::string& path, const std::string& text) {
  const std::string before = samples::read_file(path);
  for (const auto mode : {Store::Mode::kReadOnly, Store::Mode::kReadWrite}) {
    expect_error(ErrorCode::kDatabase, text, [&] { Store::open(path, mode); });
  }
  EXPECT_EQ(samples::read_file(path), before);
}

void make_sqlite(const std::string& path, const std::string& script) {
  Database(path, Database::Access::kCreate, kBusyTimeout).execute(script);
}

// Runs `action` where not even root may write to a read-only file or folder.
void run_unprivileged(const std::function<void()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(2);
    action();
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Schema, MissingFileIsNotMade) {
  const Folder folder;
  expect_error(ErrorCode::kNotFound, "there is no such file",
               [&] { Store::open(folder.file("none.db"), Store::Mode::kReadOnly); });
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Schema, WritingMakesTheFileAndItsFolder) {
  const Folder folder;
  const std::string path = folder.file("a/b/w4tune.db");
  Store::open(path, Store::Mode::kReadWrite);
  EXPECT_NO_THROW(Store::open(path, Store::Mode::kReadOnly));
}

TEST(Schema, AnEmptyFileBecomesACache) {
  const Folder folder;
  const std::string path = folder.file("empty.db");
  samples::write_file(path, "");
  expect_error(ErrorCode::kDatabase, "not one of w4tune",
               [&] { Store::open(path, Store::Mode::kReadOnly); });
  Store::open(path, Store::Mode::kReadWrite);
  EXPECT_NO_THROW(Store::open(path, Store::Mode::kReadOnly));
}

TEST(Schema, TextIsNotADatabase) {
  const Folder folder;
  const std::string path = folder.file("notes.txt");
  samples::write_file(path, std::string(5000, 'x'));
  expect_both_refuse(path, "not a SQLite file");
}

TEST(Schema, ForeignDatabaseIsNotOurs) {
  const Folder folder;
  make_sqlite(folder.file("tables.db"), "CREATE TABLE t (i INTEGER)");
  expect_both_refuse(folder.file("tables.db"), "not one of w4tune");
  make_sqlite(folder.file("id.db"), "PRAGMA application_id = 7");
  expect_both_refuse(folder.file("id.db"), "not one of w4tune");
}

TEST(Schema, NewerFileIsRefused) {
  const Folder folder;
  const std::string path = folder.file("newer.db");
  Store::open(path, Store::Mode::kReadWrite);
  make_sqlite(path, "PRAGMA user_version = 99");
  expect_both_refuse(path, "a newer w4tune wrote it (schema 99, this w4tune knows 5)");
}

TEST(Schema, OlderFileIsMigratedOnlyWhenWriting) {
  const Folder folder;
  const std::string path = folder.file("older.db");
  make_sqlite(path, "PRAGMA application_id = 0x77347475");
  expect_error(ErrorCode::kDatabase, "an older w4tune wrote it",
               [&] { Store::open(path, Store::Mode::kReadOnly); });
  Store::open(path, Store::Mode::kReadWrite);
  EXPECT_NO_THROW(Store::open(path, Store::Mode::kReadOnly));
}

TEST(Schema, AFileOfSchemaOneKeepsItsRowsAndGainsTheProbe) {
  const Folder folder;
  const std::string path = folder.file("one.db");
  make_sqlite(path, std::string(sql::text("migration_001.sql")));
  make_sqlite(path,
              "INSERT INTO devices VALUES (1, 'NVIDIA A40', 86, 84, 6291456, 101376, 102400, 1536, "
              "1740, 696.0, 149.7)");
  auto store = Store::open(path, Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation());
  store.put_trial(store.begin_run(samples::run_info()), samples::trial());
  ASSERT_EQ(store.devices().size(), 1U) << "the row of before";
  EXPECT_EQ(store.devices()[0], samples::device());
  EXPECT_EQ(store.devices()[0].mma_denormals, std::nullopt);
}

// A winner as a w4tune of schema 1 stored it: samples::winner(), but for samples of one time.
constexpr const char* kWinnerOfSchemaOne = R"(
INSERT INTO devices VALUES (1, 'NVIDIA A40', 86, 84, 6291456, 101376, 102400, 1536, 1740, 696.0,
                            149.7);
INSERT INTO problems VALUES (1, 'gemm', 16384, 2048, 128, 'f16');
INSERT INTO cubins VALUES ('sha', x'00');
INSERT INTO compilations VALUES ('key-1', 'mma_pipe row_tile=128 stages=4', 'sm_86', 'ok', '',
                                 'sha', 128, 8, 16, '2025-01-01T00:00:00Z');
INSERT INTO runs VALUES (1, 1, '2025-01-01T00:00:00Z', '580.1', '13.0', '0.1.0', 'abc', 'source-1',
                         'protocol-1', 'cold=3 reps=30', 0, 0.0, 0.0);
INSERT INTO winners VALUES (1, 1, 16, 'measured', 1, 1073741824, 'mma_pipe row_tile=128 stages=4',
                            4, 2, 128, 16, 64, 256, 65536, 0, 'key-1', 30.1, 24.5, 61.0,
                            x'9a99999999193e40', x'0000000000309b40', 0.5, 0.001, 0.25, '', 1);
)";

TEST(Schema, AWinnerOfSchemaOneServesOn) {
  const Folder folder;
  const std::string path = folder.file("one.db");
  make_sqlite(path, std::string(sql::text("migration_001.sql")) + kWinnerOfSchemaOne);
  expect_error(ErrorCode::kDatabase, "an older w4tune wrote it (schema 1, this w4tune needs 5)",
               [&] { Store::open(path, Store::Mode::kReadOnly); });
  Store::open(path, Store::Mode::kReadWrite);
  const auto winners = Store::open(path, Store::Mode::kReadOnly).winners(samples::device());
  ASSERT_EQ(winners.size(), 1U);
  const Winner expected = samples::winner(16, Provenance::kMeasured);
  EXPECT_EQ(winners[0].candidate, expected.candidate);
  EXPECT_EQ(winners[0].footprint, expected.footprint) << "no tensor map, not dependent";
  EXPECT_EQ(winners[0].time_us, std::vector<double>{30.1});
  EXPECT_FALSE(winners[0].composite);
}

TEST(Schema, AFileOfSchemaFourGainsTheTableOfProbes) {
  const Folder folder;
  const std::string path = folder.file("four.db");
  std::string script;
  for (const char* version : {"001", "002", "003", "004"}) {
    script += sql::text(std::string("migration_") + version + ".sql");
  }
  make_sqlite(path, script +
                        "INSERT INTO devices VALUES (1, 'NVIDIA A40', 86, 84, 6291456, 101376, "
                        "102400, 1536, 1740, 696.0, 149.7, 1)");
  auto store = Store::open(path, Store::Mode::kReadWrite);
  EXPECT_EQ(store.calibration(samples::device()), std::nullopt);
  store.put_calibration(samples::device(), sample_calibration());
  EXPECT_EQ(store.calibration(samples::device()), sample_calibration());
}

TEST(Schema, TruncatedFileIsDamaged) {
  const Folder folder;
  const std::string path = folder.file("cut.db");
  Store::open(path, Store::Mode::kReadWrite)
      .put_compilation(samples::config(), samples::compilation());
  std::filesystem::resize_file(path, 8192);
  expect_both_refuse(path, "it is damaged");
}

TEST(Schema, FlippedCubinByteIsFound) {
  const Folder folder;
  const std::string path = folder.file("flipped.db");
  {
    auto store = Store::open(path, Store::Mode::kReadWrite);
    store.put_compilation(samples::config(), samples::compilation());
    store.put_winners(store.begin_run(samples::run_info()), samples::problem(),
                      {samples::winner(16, Provenance::kMeasured)});
  }
  std::string bytes = samples::read_file(path);
  const auto at = bytes.find("cubin of key-1");
  ASSERT_NE(at, std::string::npos);
  bytes[at] = 'C';
  samples::write_file(path, bytes);
  const auto store = Store::open(path, Store::Mode::kReadOnly);
  expect_error(ErrorCode::kDatabase, "a cubin differs from its SHA-256",
               [&] { static_cast<void>(store.find_compilation("key-1")); });
  expect_error(ErrorCode::kDatabase, "a cubin differs from its SHA-256",
               [&] { load_image(path, [](const DeviceInfo&) { return true; }); });
}

TEST(Schema, LockedFileIsWaitedForAndThenRefused) {
  const Folder folder;
  const std::string path = folder.file("locked.db");
  auto store = Store::open(path, Store::Mode::kReadWrite, milliseconds(20));
  const Database other(path, Database::Access::kReadWrite, milliseconds(0));
  const Transaction held(other, Transaction::Kind::kWrite);
  expect_error(ErrorCode::kDatabase, "keeps it locked",
               [&] { store.put_compilation(samples::config(), samples::compilation()); });
  EXPECT_FALSE(store.find_compilation("key-1"));  // readers do not wait
}

// A tuned file and its export, both in a folder that cannot be written to.
class ReadOnlyTest : public testing::Test {
 protected:
  ReadOnlyTest() {
    auto store = Store::open(tuned_, Store::Mode::kReadWrite);
    store.put_compilation(samples::config(), samples::compilation());
    store.put_winners(store.begin_run(samples::run_info()), samples::problem(),
                      {samples::winner(16, Provenance::kMeasured)});
    store.export_to(exported_);
    std::filesystem::permissions(folder_.path(), static_cast<std::filesystem::perms>(0555));
  }

  Folder folder_;
  std::string tuned_ = folder_.file("tuned.db");
  std::string exported_ = folder_.file("exported.db");
};

TEST_F(ReadOnlyTest, AnExportCanBeRead) {
  run_unprivileged([&] {
    const Image image = load_image(exported_, [](const DeviceInfo&) { return true; });
    EXPECT_EQ(image.devices.size(), 1u);
    EXPECT_EQ(image.cubins.at("key-1"), "cubin of key-1");
  });
}

TEST_F(ReadOnlyTest, AnExportCannotBeWritten) {
  run_unprivileged([&] {
    expect_error(ErrorCode::kDatabase, "it is read-only, as an exported file is",
                 [&] { Store::open(exported_, Store::Mode::kReadWrite); });
  });
}

TEST_F(ReadOnlyTest, ATunedFileIsRefusedWithTheRemedy) {
  run_unprivileged([&] {
    for (const auto mode : {Store::Mode::kReadOnly, Store::Mode::kReadWrite}) {
      expect_error(ErrorCode::kDatabase, "only a file written by 'w4tune export' can be read",
                   [&] { Store::open(tuned_, mode); });
    }
  });
}

TEST_F(ReadOnlyTest, NothingNewCanBeMadeThere) {
  run_unprivileged([&] {
    expect_error(ErrorCode::kDatabase, "Check the path",
                 [&] { Store::open(folder_.file("new.db"), Store::Mode::kReadWrite); });
    expect_error(ErrorCode::kDatabase, "cannot create the folder",
                 [&] { Store::open(folder_.file("new/new.db"), Store::Mode::kReadWrite); });
    expect_error(ErrorCode::kDatabase, "Use a folder you may write to", [&] {
      Store::open(exported_, Store::Mode::kReadOnly).export_to(folder_.file("again.db"));
    });
  });
}

TEST(Schema, OpeningAndReadingChangesNothing) {
  const Folder folder;
  const std::string path = folder.file("same.db");
  {
    auto store = Store::open(path, Store::Mode::kReadWrite);
    store.put_compilation(samples::config(), samples::compilation());
    store.put_trial(store.begin_run(samples::run_info()), samples::trial());
  }
  const std::string before = samples::read_file(path);
  {
    auto store = Store::open(path, Store::Mode::kReadWrite);
    const auto run = store.begin_run(samples::run_info());
    store.update_probe(run, 600.0, 140.0);
    store.put_compilation(samples::config(), samples::compilation());
    EXPECT_EQ(store.trials(run, samples::trial().workload).size(), 1u);
  }
  EXPECT_EQ(samples::read_file(path), before);
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
}

}  // namespace
}  // namespace w4tune
