// What the host pays: select, and open of a file as full as Pi0.5 makes it.

#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cache/store.h"
#include "w4tune/dispatcher.h"

namespace w4tune {
namespace {

constexpr int kTokens[] = {1,  2,   4,   8,   10,  15,  16,  20,  32,  50,
                           64, 100, 128, 256, 512, 712, 816, 968, 1024};
constexpr std::pair<int, int> kShapes[] = {
    {16384, 2048}, {2048, 16384}, {4096, 1024}, {1024, 4096}};
constexpr std::size_t kCubins = 60;  // some winners share one
constexpr std::size_t kCubinBytes = 40000;

Problem problem_of(std::pair<int, int> shape) {
  return {.op = Op::kGemm,
          .n = shape.first,
          .k = shape.second,
          .group_size = 128,
          .dtype = Dtype::kF16};
}

// An exported cache of 76 winners, gone with the process.
class FullCache {
 public:
  FullCache()
      : path_(std::filesystem::temp_directory_path() /
              fmt::format("w4tune_bench_{}.db", ::getpid())) {
    const std::string draft = path_.string() + ".draft";
    {
      Store store = Store::open(draft, Store::Mode::kReadWrite);
      fill(store);
      store.export_to(path_.string());
    }
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(draft + suffix);
  }
  FullCache(const FullCache&) = delete;
  FullCache& operator=(const FullCache&) = delete;
  ~FullCache() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  static void fill(Store& store) {
    RunInfo info;
    info.device = find_known_device("a40")->info;
    const std::int64_t run = store.begin_run(info);
    std::mt19937_64 random(1);
    std::size_t count = 0;
    for (const auto& shape : kShapes) {
      std::vector<Winner> winners;
      for (const int m : kTokens) {
        Winner winner;
        winner.problem = problem_of(shape);
        winner.m = m;
        winner.provenance = Provenance::kMeasured;
        winner.candidate.config = {
            "mma_pipe", {{"row_tile", 128}, {"number", static_cast<int>(count % kCubins)}}};
        winner.footprint = {
            .row_tile = 128, .token_tile = 16, .depth_tile = 64, .threads = 128, .smem_bytes = 0};
        winner.compilation_key = fmt::format("key {}", count % kCubins);
        put_compilation(store, winner, random);
        winners.push_back(std::move(winner));
        ++count;
      }
      store.put_winners(run, winners.front().problem, winners);
    }
  }

  static void put_compilation(Store& store, const Winner& winner, std::mt19937_64& random) {
    Compilation compilation;
    compilation.key = winner.compilation_key;
    compilation.arch = "sm_86";
    compilation.cubin.resize(kCubinBytes);
    for (char& byte : compilation.cubin) byte = static_cast<char>(random());
    store.put_compilation(winner.candidate.config, compilation);
  }

  std::filesystem::path path_;
};

const FullCache& full_cache() {
  static const FullCache cache;
  return cache;
}

Dispatcher open_full() {
  return Dispatcher::open(full_cache().path(), {.device = -1, .device_name = "a40"});
}

void bm_select(benchmark::State& state) {
  const Dispatcher dispatcher = open_full();
  std::mt19937 random(2);
  std::vector<std::pair<Problem, int>> asked(4096);
  for (auto& [problem, m] : asked) {
    problem = problem_of(kShapes[random() % std::size(kShapes)]);
    m = static_cast<int>(random() % 1100) + 1;
  }
  std::size_t i = 0;
  for (auto _ : state) {
    const auto& [problem, m] = asked[i++ % asked.size()];
    benchmark::DoNotOptimize(dispatcher.select(problem, m));
  }
}
BENCHMARK(bm_select);

void bm_open(benchmark::State& state) {
  full_cache();
  for (auto _ : state) benchmark::DoNotOptimize(open_full());
}
BENCHMARK(bm_open)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace w4tune
