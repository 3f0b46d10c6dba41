// Recorded spaces from files: the committed synthetic one (tests/data/recorded/make.py) in both
// foreign formats, a cache file of our own, and files that are none of these.
#include "tuner/recorded.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "templates/family.h"
#include "tests/cache/samples.h"

namespace w4tune {
namespace {

using nlohmann::json;

std::string data(const std::string& name) {
  return std::string(W4TUNE_SOURCE_DIR) + "/tests/data/recorded/" + name;
}

RecordedSpace only(const std::vector<RecordedSpace>& spaces) {
  EXPECT_EQ(spaces.size(), 1U);
  return spaces.at(0);
}

// What reading the file says; it must be one line that names the file.
std::string complaint(const std::string& path, ErrorCode code = ErrorCode::kInvalidArgument) {
  try {
    read_recorded(path);
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), code) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_EQ(message.rfind(path, 0), 0U) << message;
    EXPECT_EQ(message.back(), '.') << "the remedy is a sentence: " << message;
    return message;
  }
  ADD_FAILURE() << path << " was read";
  return {};
}

std::vector<std::size_t> sizes_of(const Space& space) {
  std::vector<std::size_t> sizes;
  for (const Parameter& parameter : space.parameters()) sizes.push_back(parameter.values.size());
  return sizes;
}

TEST(Recorded, ReadsAKernelTunerCacheFile) {
  const RecordedSpace recorded = only(read_recorded(data("synthetic.json.gz")));
  EXPECT_EQ(recorded.name, "synthetic.json.gz: synthetic on a formula");
  EXPECT_EQ(recorded.costs.size(), 324U);
  EXPECT_EQ(recorded.failed(), 18U);
  EXPECT_DOUBLE_EQ(recorded.best(), 1.2);
  const Space& space = recorded.spaces.at(0);
  // tile, stages, layout, unroll, staged, precision: in the file's order.
  EXPECT_EQ(sizes_of(space), (std::vector<std::size_t>{5, 4, 3, 3, 2, 1}));
  EXPECT_EQ(space.parameters()[0].name, "tile");
  EXPECT_TRUE(space.parameters()[0].ordered);
  EXPECT_FALSE(space.parameters()[2].ordered) << "layouts are names";
  EXPECT_TRUE(space.parameters()[4].ordered) << "false comes before true";
  EXPECT_EQ(space.enumerate().points.size(), 324U);
  EXPECT_FALSE(space.contains({4, 3, 0, 0, 0, 0})) << "128 x 4 stages was never recorded";
  EXPECT_EQ(recorded.costs.at({0, {3, 3, 0, 0, 0, 0}}), kFailed) << "64 x 4 stages failed";
}

TEST(Recorded, ReadsTheSameFromAPlainT4File) {
  const RecordedSpace cache = only(read_recorded(data("synthetic.json.gz")));
  const RecordedSpace t4 = only(read_recorded(data("synthetic_T4.json")));
  EXPECT_EQ(t4.costs.size(), cache.costs.size());
  EXPECT_EQ(t4.failed(), cache.failed());
  std::multiset<double> of_cache;
  std::multiset<double> of_t4;
  for (const auto& [choice, cost] : cache.costs) of_cache.insert(cost);
  for (const auto& [choice, cost] : t4.costs) of_t4.insert(cost);
  EXPECT_EQ(of_t4, of_cache);
}

// The promise of `replay`'s default: better than chance wherever it is asked.
TEST(Recorded, TheDefaultStrategyBeatsChanceOnTheSyntheticSpace) {
  ReplayOptions options;
  options.evaluations = {15, 30, 60, 120};
  options.seeds = 20;
  for (const char* name : {"synthetic.json.gz", "synthetic_T4.json"}) {
    const RecordedSpace recorded = only(read_recorded(data(name)));
    for (const ReplayRow& row : replay(recorded, strategies().front(), options)) {
      EXPECT_GT(row.mean, row.random) << name << " at " << row.evaluations;
    }
  }
}

class RecordedFile : public testing::Test {
 protected:
  [[nodiscard]] std::string write(const std::string& text) const {
    std::string path = folder_.file("space.json");
    samples::write_file(path, text);
    return path;
  }
  // A Kernel Tuner cache file with this for its entries.
  [[nodiscard]] std::string write_cache(const json& entries) const {
    return write(json{{"tune_params_keys", {"a", "b"}}, {"cache", entries}}.dump());
  }

  samples::Folder folder_;
};

TEST_F(RecordedFile, OrdersNumbersByValueAndNamesByName) {
  // a: numbers, some written as text; b: text that is no number.
  const std::string path = write_cache({{"1", {{"a", "16"}, {"b", "x"}, {"time", 1.0}}},
                                        {"2", {{"a", 8}, {"b", "x"}, {"time", 2.0}}},
                                        {"3", {{"a", 2.5}, {"b", "10"}, {"time", 3.0}}}});
  const RecordedSpace recorded = only(read_recorded(path));
  EXPECT_EQ(recorded.costs.at({0, {2, 1}}), 1.0);
  EXPECT_EQ(recorded.costs.at({0, {1, 1}}), 2.0);
  EXPECT_EQ(recorded.costs.at({0, {0, 0}}), 3.0);
  EXPECT_TRUE(recorded.spaces[0].parameters()[0].ordered);
  EXPECT_FALSE(recorded.spaces[0].parameters()[1].ordered);
}

TEST_F(RecordedFile, KnowsEveryFormOfAFailure) {
  const std::string path = write_cache({{"1", {{"a", 1}, {"b", 1}, {"time", 1.0}}},
                                        {"2", {{"a", 2}, {"b", 1}, {"time", "InvalidConfig"}}},
                                        {"3", {{"a", 3}, {"b", 1}, {"time", nullptr}}},
                                        {"4", {{"a", 4}, {"b", 1}, {"time", 1e20}}}});
  EXPECT_EQ(only(read_recorded(path)).failed(), 3U);
}

TEST_F(RecordedFile, TakesTheMeanOfRuntimesWhereAT4FileHasNoTime) {
  const json result = {{"configuration", {{"a", 1}}},
                       {"times", {{"runtimes", {1.0, 3.0}}}},
                       {"invalidity", "correct"}};
  const std::string path = write(json{{"schema_version", "1.0.0"}, {"results", {result}}}.dump());
  EXPECT_EQ(only(read_recorded(path)).best(), 2.0);
}

TEST_F(RecordedFile, SaysWhatIsWrongAndWhere) {
  const std::string missing = folder_.file("missing.json");
  EXPECT_NE(complaint(missing, ErrorCode::kNotFound).find("No such file"), std::string::npos);
  EXPECT_NE(complaint(folder_.path().string()).find("folder"), std::string::npos);
  EXPECT_NE(complaint(write("")).find("not JSON"), std::string::npos);
  EXPECT_NE(complaint(write("{\"cache\": {")).find("byte 12"), std::string::npos);
  EXPECT_NE(complaint(write("[1, 2]")).find("neither"), std::string::npos);
  EXPECT_NE(complaint(write("{\"schema\": \"w4tune.report/1\"}")).find("report"),
            std::string::npos);
  EXPECT_NE(complaint(write_cache(json::object())).find("no configurations"), std::string::npos);
  EXPECT_NE(complaint(write("{\"schema_version\": \"1\", \"results\": [{}]}")).find("result 0"),
            std::string::npos);
  const json good = {{"a", 1}, {"b", 1}, {"time", 1.0}};
  const auto complain = [&](const json& bad) {
    return complaint(write_cache({{"1,1", good}, {"2,1", bad}}));
  };
  EXPECT_NE(complain({{"a", 2}, {"time", 1.0}}).find("parameter b in cache entry '2,1'"),
            std::string::npos);
  EXPECT_NE(complain({{"a", 2}, {"b", 1}}).find("no time in cache entry '2,1'"), std::string::npos);
  EXPECT_NE(complain({{"a", 2}, {"b", 1}, {"time", -1.0}}).find("'2,1': -1.0"), std::string::npos);
  EXPECT_NE(complain({{"a", 2}, {"b", 1}, {"time", json::array()}}).find("'2,1'"),
            std::string::npos);
  EXPECT_NE(complain(good).find("twice"), std::string::npos);
  EXPECT_NE(complain(3).find("'2,1'"), std::string::npos);
  EXPECT_NE(complaint(write_cache({{"1", {{"a", 1}, {"b", 1}, {"time", "no"}}}})).find("worked"),
            std::string::npos);
  EXPECT_NE(complaint(write("{\"tune_params_keys\": [1], \"cache\": {}}")).find("wrong kind"),
            std::string::npos);
}

TEST_F(RecordedFile, ToldThatItsGzipDataAreCutOff) {
  const std::string whole = samples::read_file(data("synthetic.json.gz"));
  EXPECT_NE(complaint(write(whole.substr(0, whole.size() / 2))).find("damaged"), std::string::npos);
  std::string wrong = whole;
  wrong[wrong.size() / 2] = static_cast<char>(~wrong[wrong.size() / 2]);
  EXPECT_NE(complaint(write(wrong)).find("damaged"), std::string::npos);
}

// Our own results: the trials of one workload by two families.
TEST_F(RecordedFile, ReadsTheTrialsOfACacheFile) {
  const std::string path = folder_.file("trials.db");
  const auto put = [&](const std::string& config, int split, Outcome outcome, double time_us) {
    Store store = Store::open(path, Store::Mode::kReadWrite);
    const std::int64_t run = store.begin_run(samples::run_info());
    Trial trial;
    trial.workload = {samples::problem(), 10};
    trial.candidate = {parse_kernel_config(config), {split, 1}};
    trial.outcome = outcome;
    if (outcome == Outcome::kOk) trial.time_us = {time_us, time_us + 1.0, time_us + 2.0};
    store.put_trial(run, trial);
  };
  EXPECT_EQ(complaint(folder_.file("no.db"), ErrorCode::kNotFound).empty(), false);
  put("left a=1 b=2", 1, Outcome::kOk, 9.0);
  put("left a=2 b=2", 4, Outcome::kOk, 7.0);
  put("left a=2 b=2", 1, Outcome::kWrongResult, 0.0);
  put("right a=5", 1, Outcome::kOk, 3.0);
  const RecordedSpace recorded = only(read_recorded(path));
  EXPECT_EQ(recorded.name, to_string(Workload{samples::problem(), 10}) + " on NVIDIA A40");
  ASSERT_EQ(recorded.spaces.size(), 2U);
  EXPECT_EQ(recorded.costs.size(), 4U);
  EXPECT_EQ(recorded.failed(), 1U);
  EXPECT_EQ(recorded.costs.at({0, {1, 2, 1, 1}}), 10.0) << "the median";
  EXPECT_EQ(recorded.costs.at({0, {2, 2, 4, 1}}), 8.0);
  EXPECT_EQ(recorded.costs.at({0, {2, 2, 1, 1}}), kFailed);
  EXPECT_EQ(recorded.best(), 4.0);
  for (const auto& expected : recorded.expected) {
    EXPECT_FALSE(expected) << "the model knows no such family";
  }
}

// Trials of a family that still offers them come with the cost model's word.
TEST_F(RecordedFile, TrialsBringTheModelAlong) {
  const std::string path = folder_.file("model.db");
  const DeviceInfo a40 = find_known_device("a40")->info;
  const Workload workload{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};
  const Family* family = find_family("mma_pipe");
  const Space space = family->space(workload, a40, std::size_t{64} << 20);
  std::map<Choice, double> predicted;
  {
    Store store = Store::open(path, Store::Mode::kReadWrite);
    RunInfo info = samples::run_info();
    info.device = a40;
    const std::int64_t run = store.begin_run(info);
    Random random(1);
    for (const Point& point : space.points(0, 40, random)) {
      Trial trial;
      trial.workload = workload;
      trial.candidate = candidate_at(*family, space, point);
      trial.outcome = Outcome::kOk;
      trial.time_us = {family->cost(trial.candidate, workload, a40).total_us};
      store.put_trial(run, trial);
      predicted[{0, point}] = trial.time_us[0];
    }
  }
  const RecordedSpace recorded = only(read_recorded(path));
  EXPECT_EQ(recorded.costs, predicted);
  ASSERT_TRUE(recorded.expected.at(0));
  for (const auto& [choice, cost] : predicted) {
    EXPECT_DOUBLE_EQ(recorded.expected[0](choice.point), cost);
  }
  ReplayOptions options;
  options.evaluations = {1};
  options.seeds = 2;
  EXPECT_EQ(replay(recorded, find_strategy("surrogate"), options).front().worst, 1.0)
      << "a model that is right leads to the best at once";
}

TEST_F(RecordedFile, ACacheFileWithoutTrialsHoldsNothing) {
  const std::string path = folder_.file("empty.db");
  { const Store store = Store::open(path, Store::Mode::kReadWrite); }
  EXPECT_NE(complaint(path).find("no trial"), std::string::npos);
}

}  // namespace
}  // namespace w4tune
