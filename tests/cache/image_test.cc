#include "cache/image.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/store.h"
#include "tests/cache/samples.h"

namespace w4tune {
namespace {

using samples::Folder;

bool every_device(const DeviceInfo&) { return true; }

std::int64_t rows(const Database& database, const std::string& table) {
  Statement select(database, "SELECT count(*) AS n FROM " + table);
  select.step();
  return select.int64("n");
}

// Two devices with winners, one of them hidden by another; trials; a compilation nobody needs.
void fill(Store& store) {
  store.put_compilation(samples::config(), samples::compilation("key-1", "one"));
  store.put_compilation(samples::config(), samples::compilation("key-2", "two"));
  store.put_compilation(samples::config(), samples::compilation("key-3", "three"));
  store.put_compilation(samples::config(), samples::compilation("key-4", ""));
  auto info = samples::run_info();
  const auto a40 = store.begin_run(info);
  store.put_trial(a40, samples::trial());
  store.put_baseline(a40, samples::trial().workload,
                     {.name = "cublaslt_f16", .detail = "", .time_us = {1.0}, .clock_mhz = {1.0}});
  store.put_winners(a40, samples::problem(),
                    {samples::winner(16, Provenance::kPredicted, "key-3"),
                     samples::winner(16, Provenance::kMeasured, "key-1")});
  store.put_device_kernel(info.device, "pack_weight", samples::compilation("key-5", "pack"));
  info.device.name = "NVIDIA A10";
  store.put_winners(store.begin_run(info), samples::problem(),
                    {samples::winner(8, Provenance::kPredicted, "key-2")});
}

TEST(Image, HoldsWhatTheWantedDevicesNeed) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  auto store = Store::open(path, Store::Mode::kReadWrite);
  fill(store);
  const Image image =
      load_image(path, [](const DeviceInfo& info) { return info.name == "NVIDIA A40"; });
  ASSERT_EQ(image.devices.size(), 1u);
  EXPECT_EQ(image.devices[0].info, samples::device());
  ASSERT_EQ(image.devices[0].winners.size(), 1u);
  EXPECT_EQ(image.devices[0].winners[0].provenance, Provenance::kMeasured);
  const std::vector<std::pair<std::string, std::string>> kernels = {{"pack_weight", "key-5"}};
  EXPECT_EQ(image.devices[0].device_kernels, kernels);
  EXPECT_EQ(image.other_devices, (std::vector{samples::device("NVIDIA A10")}));
  const std::map<std::string, std::string> cubins = {{"key-1", "one"}, {"key-5", "pack"}};
  EXPECT_EQ(image.cubins, cubins);
}

TEST(Image, RefusesAKernelWithoutCubin) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  auto store = Store::open(path, Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation("key-4", ""));
  store.put_winners(store.begin_run(samples::run_info()), samples::problem(),
                    {samples::winner(16, Provenance::kMeasured, "key-4")});
  samples::expect_error(ErrorCode::kDatabase, "has no cubin",
                        [&] { load_image(path, every_device); });
}

TEST(Image, IsOfOneMomentWhileOthersWrite) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  auto store = Store::open(path, Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation());
  const auto run = store.begin_run(samples::run_info());
  const auto put = [&](double time_us) {
    std::vector<Winner> winners;
    for (int m = 1; m <= 8; ++m) winners.push_back(samples::winner(m, Provenance::kMeasured));
    for (auto& winner : winners) winner.time_us_median = time_us;
    store.put_winners(run, samples::problem(), winners);
  };
  put(0.0);
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done) {
      const Image image = load_image(path, every_device);
      ASSERT_EQ(image.devices.at(0).winners.size(), 8u);
      for (const Winner& winner : image.devices[0].winners) {
        EXPECT_EQ(winner.time_us_median, image.devices[0].winners[0].time_us_median);
      }
    }
  });
  for (int i = 1; i <= 40; ++i) put(i);
  done = true;
  reader.join();
}

TEST(Export, HoldsWinnersAndWhatTheyNeedOnly) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  const std::string target = folder.file("exported.db");
  auto store = Store::open(path, Store::Mode::kReadWrite);
  fill(store);
  samples::write_file(target, "something older");
  Store::open(path, Store::Mode::kReadOnly).export_to(target);  // reading is enough
  store.export_to(target);                                      // replaces a read-only file
  struct stat status = {};
  ASSERT_EQ(::stat(target.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0444u);
  const auto files = std::filesystem::directory_iterator(folder.path());
  for (const auto& entry : files) {
    EXPECT_EQ(entry.path().extension().string().find(".tmp"), std::string::npos);
  }

  const Database database = open_for_reading(target);
  for (const char* table : {"trials", "baselines"}) EXPECT_EQ(rows(database, table), 0) << table;
  for (const char* table : {"winners", "devices", "runs"}) {
    EXPECT_EQ(rows(database, table), 2) << table;
  }
  EXPECT_EQ(rows(database, "problems"), 1);
  EXPECT_EQ(rows(database, "compilations"), 3);
  EXPECT_EQ(rows(database, "cubins"), 3);

  const Image from_store = load_image(path, every_device);
  const Image from_export = load_image(target, every_device);
  EXPECT_EQ(from_export.cubins, from_store.cubins);
  ASSERT_EQ(from_export.devices.size(), from_store.devices.size());
  for (std::size_t i = 0; i < from_store.devices.size(); ++i) {
    const auto& a = from_export.devices[i];
    const auto& b = from_store.devices[i];
    EXPECT_EQ(a.info, b.info);
    EXPECT_EQ(a.device_kernels, b.device_kernels);
    ASSERT_EQ(a.winners.size(), b.winners.size());
    EXPECT_EQ(a.winners[0].candidate, b.winners[0].candidate);
    EXPECT_EQ(a.winners[0].m_hi, b.winners[0].m_hi);
  }
}

TEST(Export, LeavesTheStoreAsItIs) {
  const Folder folder;
  auto store = Store::open(folder.file("w4tune.db"), Store::Mode::kReadWrite);
  fill(store);
  store.export_to(folder.file("exported.db"));
  EXPECT_EQ(store.trials(store.begin_run(samples::run_info()), samples::trial().workload).size(),
            1u);
}

TEST(Export, ACopyCanBeTunedFurther) {
  const Folder folder;
  auto store = Store::open(folder.file("w4tune.db"), Store::Mode::kReadWrite);
  fill(store);
  store.export_to(folder.file("exported.db"));
  const std::string copy = folder.file("copy.db");
  samples::write_file(copy, samples::read_file(folder.file("exported.db")));
  auto more = Store::open(copy, Store::Mode::kReadWrite);
  more.put_trial(more.begin_run(samples::run_info()), samples::trial());
  EXPECT_EQ(more.winners(samples::device()).size(), 1u);
}

TEST(Export, RefusesWhatCannotWork) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  auto store = Store::open(path, Store::Mode::kReadWrite);
  samples::expect_error(ErrorCode::kNotFound, "no winners yet",
                        [&] { store.export_to(folder.file("exported.db")); });
  fill(store);
  std::filesystem::create_symlink(path, folder.file("link.db"));
  for (const auto& target : {path, folder.file("link.db"), folder.file("./w4tune.db")}) {
    samples::expect_error(ErrorCode::kInvalidArgument, "the cache itself",
                          [&] { store.export_to(target); });
  }
  samples::expect_error(ErrorCode::kInvalidArgument, "it is a folder",
                        [&] { store.export_to(folder.path().string()); });
  samples::expect_error(ErrorCode::kInvalidArgument, "there is no folder",
                        [&] { store.export_to(folder.file("none/exported.db")); });
  EXPECT_EQ(store.winners(samples::device()).size(), 1u);
}

}  // namespace
}  // namespace w4tune
