// The program as a user meets it: what it prints, and its exit codes. No GPU is assumed.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "cache/store.h"
#include "generated/cache_sql.h"
#include "gpu/device.h"
#include "tests/cli/run_command.h"
#include "tests/core/sample_calibration.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

CommandResult w4tune_run(const std::string& arguments, const std::string& redirect = "2>&1") {
  return run_command(std::string(W4TUNE_CLI) + " " + arguments + " " + redirect);
}

// Beside the program: two checkouts may be tested at the same time.
std::string temp(const std::string& name) {
  const fs::path folder = fs::path(W4TUNE_CLI).parent_path() / "cli_test";
  fs::create_directories(folder);
  return (folder / name).string();
}

int lines(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

TEST(Cli, HelpExplainsEveryCommandWithExamples) {
  EXPECT_EQ(w4tune_run("--help").exit_code, 0);
  for (const char* command : {"tune", "bench", "probe", "show", "inspect", "compare", "replay",
                              "export", "merge", "lint", "doctor"}) {
    const CommandResult help = w4tune_run(std::string(command) + " --help");
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_NE(help.out.find(std::string("w4tune ") + command), std::string::npos) << help.out;
    EXPECT_NE(w4tune_run("--help").out.find(command), std::string::npos);
  }
}

TEST(Cli, UsageErrorsAreOneLineAndExitCodeTwo) {
  for (const char* arguments : {"frobnicate",
                                "--frobnicate",
                                "--gpu gtx480",
                                "--m 0 --gpu a40",
                                "--shape 100,100 --gpu a40",
                                "--shape 16384 --gpu a40",
                                "--group 48 --gpu a40",
                                "--dtype f32 --gpu a40",
                                "--budget soon --gpu a40",
                                "--op conv --gpu a40",
                                "--dependent --gpu l4",
                                "show --problem gemm_n1",
                                "compare a.json",
                                "--plan x.json --m 3 --gpu a40",
                                "inspect --gpu a40 --config nonsense",
                                "inspect --gpu a40 --op conv",
                                "replay",
                                "replay x.json --evals 0",
                                "replay x.json --strategy simplex",
                                "--strategy simplex --gpu a40",
                                "--family nonsense --gpu a40",
                                "--shard 0/4 --gpu a40",
                                "--shard 5/4 --gpu a40",
                                "--shard two --gpu a40",
                                "--shard 1/99 --m 1 --gpu a40",
                                "merge",
                                "merge only_out.db",
                                "lint a.db b.db",
                                "--family wgmma --gpu a40"}) {
    const CommandResult outcome = w4tune_run(std::string(arguments) + " --db " + temp("usage.db"));
    const bool takes_db = std::string(arguments).rfind("inspect", 0) != 0 &&
                          std::string(arguments).rfind("compare", 0) != 0 &&
                          std::string(arguments).rfind("replay", 0) != 0 &&
                          std::string(arguments).rfind("merge", 0) != 0 &&
                          std::string(arguments).rfind("lint", 0) != 0;
    const CommandResult plain = takes_db ? outcome : w4tune_run(arguments);
    EXPECT_EQ(plain.exit_code, 2) << arguments << ": " << plain.out;
    EXPECT_EQ(lines(plain.out), 1) << arguments << ": " << plain.out;
  }
  EXPECT_FALSE(fs::exists(temp("usage.db"))) << "a wrong command leaves no file";
}

TEST(Cli, MissingFilesAreOneLineAndExitCodeOne) {
  for (const std::string& arguments :
       {std::string("show --db /no/such.db"), std::string("export x.db --db /no/such.db"),
        std::string("compare /no/a.json /no/b.json"), std::string("report /no/a.json"),
        std::string("report --folder /no/folder"), std::string("replay /no/space.json.gz"),
        std::string("lint /no/such.db"), std::string("merge never.db /no/such.db"),
        std::string("--gpu a40 --plan /no/plan.json")}) {
    const CommandResult outcome = w4tune_run(arguments);
    EXPECT_EQ(outcome.exit_code, 1) << arguments << ": " << outcome.out;
    EXPECT_EQ(lines(outcome.out), 1) << arguments << ": " << outcome.out;
  }
}

TEST(Cli, WithoutAGpuAutoSaysSoAndNamesTheRemedy) {
  if (device_count() > 0) GTEST_SKIP() << "this machine has a GPU";
  const CommandResult outcome = w4tune_run("--gpu auto --db " + temp("none.db"));
  EXPECT_EQ(outcome.exit_code, 3) << outcome.out;
  EXPECT_EQ(lines(outcome.out), 1);
  EXPECT_NE(outcome.out.find("--gpu a40"), std::string::npos);
  EXPECT_EQ(w4tune_run("bench --db " + temp("none.db")).exit_code, 3);
  const CommandResult devices = w4tune_run("--devices all --db " + temp("none.db"));
  EXPECT_EQ(devices.exit_code, 3) << devices.out;
  EXPECT_EQ(lines(devices.out), 1);
  const CommandResult probe = w4tune_run("probe --db " + temp("none.db"));
  EXPECT_EQ(probe.exit_code, 3) << probe.out;
  EXPECT_EQ(lines(probe.out), 1) << probe.out;
  EXPECT_FALSE(fs::exists(temp("none.db")));
}

TEST(Cli, TuneBringsAnOlderCacheUpToDate) {
  const std::string db = temp("older.db");
  fs::remove(db);
  std::string script;
  for (const char* version : {"001", "002", "003", "004"}) {
    script += sql::text(std::string("migration_") + version + ".sql");
  }
  Database(db, Database::Access::kCreate, kBusyTimeout).execute(script);
  const CommandResult outcome = w4tune_run("--gpu a40 --m 10 --shape 4096,1024 --quiet --db " + db);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out;
  EXPECT_EQ(w4tune_run("show --db " + db).exit_code, 0);
}

// A cache that comes from a machine with the GPU brings along what was probed there.
TEST(Cli, PredictsByACalibrationThatTheCacheBringsAlong) {
  const DeviceInfo h200 = find_known_device("h200")->info;
  if (device_count() > 0 && query_device(0).name == h200.name) GTEST_SKIP() << "this is an H200";
  const std::string arguments = "--gpu h200 --m 10 --shape 4096,1024 --json --quiet --db ";
  const auto report_of = [&](const std::string& db) {
    const CommandResult outcome = w4tune_run(arguments + db, "2>/dev/null");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.out;
    return nlohmann::json::parse(outcome.out);
  };
  fs::remove(temp("plain.db"));
  fs::remove(temp("probed.db"));
  const auto plain = report_of(temp("plain.db"));
  EXPECT_FALSE(plain.contains("calibration"));
  Store::open(temp("probed.db"), Store::Mode::kReadWrite)
      .put_calibration(h200, sample_calibration());
  const auto probed = report_of(temp("probed.db"));
  EXPECT_EQ(probed.at("calibration").at("read_gbps"), 4500.0);
  EXPECT_EQ(probed.at("environment").at("copy_gbps"), 4270.0);
  const auto& row = probed.at("rows").at(0);
  EXPECT_EQ(row.at("provenance"), "predicted");
  EXPECT_NE(row.at("time_us_median"), plain.at("rows").at(0).at("time_us_median"));
  EXPECT_NE(probed.at("environment").at("assumed").back().get<std::string>().find("measured on"),
            std::string::npos);
}

TEST(Cli, DoctorReportsEveryPart) {
  const CommandResult text = w4tune_run("doctor --db " + temp("doctor.db"));
  for (const char* part : {"NVRTC", "GPU", "denormals", "cuBLASLt", "cache"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part;
  }
  const auto findings = nlohmann::json::parse(
      w4tune_run("doctor --json --db " + temp("doctor.db"), "2>/dev/null").out);
  EXPECT_GE(findings.size(), 5U);
  EXPECT_FALSE(fs::exists(temp("doctor.db"))) << "looking changes nothing";
}

TEST(Cli, ExplainCountsTheSpace) {
  const CommandResult outcome =
      w4tune_run("--explain --json --gpu a40 --m 10 --shape 4096,1024", "2>/dev/null");
  ASSERT_EQ(outcome.exit_code, 0);
  const auto rows = nlohmann::json::parse(outcome.out);
  ASSERT_EQ(rows.size(), 5U) << "the families that an A40 runs, two without a point at M = 10, and "
                                "dequant_cublas";
  for (const auto& row : rows) {
    std::uint64_t rejected = 0;
    for (const auto& [reason, count] : row.at("rejected").items())
      rejected += count.get<std::uint64_t>();
    EXPECT_EQ(rejected + row.at("kept").get<std::uint64_t>(), row.at("raw").get<std::uint64_t>());
  }
}

TEST(Cli, ExplainSaysWhyDequantCublasIsLeftOut) {
  if (device_count() > 0 && query_device(0).name == "NVIDIA A40") GTEST_SKIP() << "this is an A40";
  const CommandResult outcome =
      w4tune_run("--explain --gpu a40 --m 968 --shape 4096,1024", "2>/dev/null");
  ASSERT_EQ(outcome.exit_code, 0);
  EXPECT_NE(outcome.out.find("gemm_n4096_k1024_g128_f16 m=968  dequant_cublas: 1 points, 0 kept\n"
                             "          1  measured only, never predicted\n"),
            std::string::npos)
      << outcome.out;
  const CommandResult help = w4tune_run("tune --help");
  EXPECT_NE(help.out.find("dequant_cublas"), std::string::npos) << "--max-workspace";
}

// The whole way without a GPU: predict, show, export, show the export, compare a report with
// itself.
TEST(Cli, PredictsShowsExportsAndCompares) {
  const std::string db = temp("predict.db");
  const std::string exported = temp("predict_export.db");
  const std::string report = temp("predict.json");
  for (const std::string& stale : {db, exported, report}) fs::remove(stale);
  const CommandResult tuned =
      w4tune_run("--gpu a40 --m 1,10 --shape 4096,1024 --db " + db + " --report " + report);
  if (device_count() > 0 && query_device(0).name == "NVIDIA A40") GTEST_SKIP() << "this is an A40";
  ASSERT_EQ(tuned.exit_code, 0) << tuned.out;
  EXPECT_NE(tuned.out.find("prediction"), std::string::npos) << tuned.out;
  const std::string unknown = "FP16 was not measured: whether it is faster is unknown";
  EXPECT_NE(tuned.out.find(unknown), std::string::npos) << tuned.out;
  EXPECT_NE(tuned.out.find("dequantisations 2 and 3 are left out"), std::string::npos) << tuned.out;

  const auto shown = nlohmann::json::parse(w4tune_run("show --json --db " + db, "2>/dev/null").out);
  ASSERT_EQ(shown.size(), 1U);
  EXPECT_EQ(shown[0].at("gpu"), "NVIDIA A40");
  ASSERT_EQ(shown[0].at("winners").size(), 2U);
  for (const auto& winner : shown[0].at("winners")) {
    EXPECT_EQ(winner.at("provenance"), "predicted");
    EXPECT_EQ(winner.at("spill_bytes"), 0);
    EXPECT_LE(winner.at("smem_bytes").get<int>(), 99 * 1024);
    EXPECT_TRUE(winner.at("fp16_faster_by").is_null());
  }
  EXPECT_EQ(shown[0].at("fp16_summary"), nlohmann::json::array({unknown}));
  // The report and show speak of the same intervals.
  std::ifstream stream(report);
  const auto reported = nlohmann::json::parse(stream);
  EXPECT_EQ(reported.at("fp16_intervals"), shown[0].at("fp16_intervals"));
  EXPECT_EQ(reported.at("rows").at(0).at("m_hi"), 1);
  EXPECT_TRUE(reported.at("rows").at(1).at("m_hi").is_null());

  const CommandResult export_run = w4tune_run("export " + exported + " --db " + db);
  ASSERT_EQ(export_run.exit_code, 0) << export_run.out;
  const auto again =
      nlohmann::json::parse(w4tune_run("show --json --db " + exported, "2>/dev/null").out);
  EXPECT_EQ(again, shown);

  const auto compared = nlohmann::json::parse(
      w4tune_run("compare --json " + report + " " + report, "2>/dev/null").out);
  const auto& comparison = compared.at("comparisons").at(0);
  EXPECT_EQ(comparison.at("counts").at("SAME"), 2);
  EXPECT_EQ(comparison.at("geometric_means").at("all").at("ratio"), 1.0);
  EXPECT_EQ(w4tune_run("compare --fail-on slower,unclear,missing " + report + " " + db).exit_code,
            0)
      << "the report and the cache file say the same";

  // The same command again gives the same rows.
  ASSERT_EQ(w4tune_run("--gpu a40 --m 1,10 --shape 4096,1024 --db " + db).exit_code, 0);
  EXPECT_EQ(nlohmann::json::parse(w4tune_run("show --json --db " + db, "2>/dev/null").out), shown);

  // An M between them takes its part of what the file serves, and the report says so.
  ASSERT_EQ(
      w4tune_run("--gpu a40 --m 5 --shape 4096,1024 --db " + db + " --report " + report).exit_code,
      0);
  const auto between = nlohmann::json::parse(std::ifstream(report));
  EXPECT_EQ(between.at("rows").at(0).at("m_lo"), 2);
  EXPECT_EQ(between.at("rows").at(0).at("m_hi"), 5);
}

TEST(Cli, ServesGegluLikeAnyOtherOp) {
  if (device_count() > 0 && query_device(0).name == "NVIDIA A40") GTEST_SKIP() << "this is an A40";
  const std::string db = temp("geglu.db");
  const std::string report = temp("geglu.json");
  for (const std::string& stale : {db, report}) fs::remove(stale);
  const CommandResult tuned =
      w4tune_run("--gpu a40 --op geglu --m 10,50 --db " + db + " --report " + report);
  ASSERT_EQ(tuned.exit_code, 0) << tuned.out;
  const auto shown = nlohmann::json::parse(w4tune_run("show --json --db " + db, "2>/dev/null").out);
  ASSERT_EQ(shown.at(0).at("winners").size(), 4U) << "two shapes at two M";
  for (const auto& winner : shown[0].at("winners")) {
    EXPECT_EQ(winner.at("problem").get<std::string>().rfind("geglu_", 0), 0U);
    EXPECT_NE(winner.at("baseline_note").get<std::string>().find("twice the rows"),
              std::string::npos);
  }
  const CommandResult text = w4tune_run("show --db " + db);
  EXPECT_NE(text.out.find("FP16 GEMM of twice the rows, no activation"), std::string::npos)
      << text.out;
  const auto inspected = nlohmann::json::parse(
      w4tune_run("inspect --json --gpu a40 --op geglu --m 10", "2>/dev/null").out);
  EXPECT_EQ(inspected.at("workload"), "geglu_n16384_k2048_g128_f16 m=10");
  EXPECT_NE(inspected.at("source").get<std::string>().find("kGeglu = true"), std::string::npos);
}

TEST(Cli, ASpentBudgetLeavesWorkloadsUntunedAndSaysSo) {
  if (device_count() > 0 && query_device(0).name == "NVIDIA A40") GTEST_SKIP() << "this is an A40";
  const std::string db = temp("budget.db");
  fs::remove(db);
  const CommandResult outcome =
      w4tune_run("--gpu a40 --budget 0.001s --shape 4096,1024 --db " + db);
  EXPECT_EQ(outcome.exit_code, 4) << outcome.out;
  EXPECT_NE(outcome.out.find("untuned"), std::string::npos) << outcome.out;
}

TEST(Cli, InterruptKeepsWhatIsThereAndTheSameCommandGoesOn) {
  if (device_count() > 0 && query_device(0).name == "NVIDIA A40") GTEST_SKIP() << "this is an A40";
  const std::string db = temp("interrupt.db");
  for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(db + suffix);
  const std::string command = "--gpu a40 --m 1,16,50,968 --threads 1 --op gemm --db " + db;
  // SIGINT as soon as the first workload has its line.
  const std::string log = temp("interrupt.txt");
  fs::remove(log);
  const std::string interrupted =
      std::string("bash -c '") + W4TUNE_CLI + " " + command + " >" + log +
      " 2>&1 & pid=$!; until grep -q \"  predicted  \" " + log +
      " || ! kill -0 $pid; do sleep 0.1; done 2>/dev/null; kill -INT $pid; wait $pid; "
      "echo rc=$?; cat " +
      log + "'";
  const std::string text = run_command(interrupted).out;
  const bool was_quick = text.find("rc=0") != std::string::npos;
  EXPECT_TRUE(was_quick || text.find("interrupted") != std::string::npos) << text;
  ASSERT_EQ(w4tune_run(command).exit_code, 0);
  const auto shown = nlohmann::json::parse(w4tune_run("show --json --db " + db, "2>/dev/null").out);
  EXPECT_EQ(shown.at(0).at("winners").size(), 16U);
}

// As a cluster does it: shards tuned apart, merged, and then one more time, all from the cache.
TEST(Cli, ShardsAreMergedToWhatOneRunFinds) {
  if (device_count() > 0 && query_device(0).name == "NVIDIA A40") GTEST_SKIP() << "this is an A40";
  const std::string plan = "--gpu a40 --m 1,10,50 --shape 4096,1024 --op gemm,geglu";
  const std::string whole = temp("whole.db");
  const std::string merged = temp("merged.db");
  std::string shards;
  for (const std::string& stale : {whole, merged}) fs::remove(stale);
  for (int index = 1; index <= 3; ++index) {
    const std::string db = temp("shard_" + std::to_string(index) + ".db");
    fs::remove(db);
    const CommandResult tuned =
        w4tune_run(plan + " --shard " + std::to_string(index) + "/3 --db " + db);
    ASSERT_EQ(tuned.exit_code, 0) << tuned.out;
    shards += " " + db;
  }
  ASSERT_EQ(w4tune_run(plan + " --db " + whole).exit_code, 0);
  const CommandResult text = w4tune_run("merge " + merged + shards);
  ASSERT_EQ(text.exit_code, 0) << text.out;
  EXPECT_NE(text.out.find("inputs 3, GPUs 1, winners 6, trials 0, conflicts 0"), std::string::npos)
      << text.out;
  EXPECT_EQ(w4tune_run("show --json --db " + merged, "2>/dev/null").out,
            w4tune_run("show --json --db " + whole, "2>/dev/null").out);
  const CommandResult clean = w4tune_run("lint " + merged);
  EXPECT_EQ(clean.exit_code, 0) << clean.out;
  EXPECT_EQ(nlohmann::json::parse(w4tune_run("lint --json " + merged, "2>/dev/null").out),
            nlohmann::json::array());
  const auto again = nlohmann::json::parse(
      w4tune_run("merge --json " + merged + " " + merged + shards, "2>/dev/null").out);
  EXPECT_EQ(again.at("inputs"), 4);
  EXPECT_EQ(again.at("winners"), 6);
  const CommandResult refused = w4tune_run("merge " + merged + shards);
  EXPECT_EQ(refused.exit_code, 2) << refused.out;
  EXPECT_EQ(lines(refused.out), 1) << refused.out;
}

TEST(Cli, InspectShowsSourceAndResources) {
  const auto inspected = nlohmann::json::parse(
      w4tune_run("inspect --json --gpu a40 --problem gemm_n4096_k1024_g128_f16 --m 10",
                 "2>/dev/null")
          .out);
  EXPECT_EQ(inspected.at("arch"), "sm_86");
  EXPECT_NE(inspected.at("source").get<std::string>().find("mma_pipe.cuh"), std::string::npos);
  EXPECT_GT(inspected.at("registers").get<int>(), 0);
  EXPECT_GE(inspected.at("predicted_us").get<double>(), inspected.at("floor_us").get<double>());
}

std::string recorded_space(const std::string& name) {
  return std::string(W4TUNE_SOURCE_DIR) + "/tests/data/recorded/" + name;
}

TEST(Cli, ReplayJudgesAStrategyBesideChance) {
  const std::string file = recorded_space("synthetic.json.gz");
  const CommandResult text =
      w4tune_run("replay " + file + " --evals 10,20 --seeds 5 --strategy greedy", "2>/dev/null");
  ASSERT_EQ(text.exit_code, 0) << text.out;
  EXPECT_NE(text.out.find("324 configurations, 18 failed; best / found by greedy, 5 seeds"),
            std::string::npos)
      << text.out;
  EXPECT_NE(text.out.find("random"), std::string::npos);

  const std::string json = "replay " + file + " " + recorded_space("synthetic_T4.json") +
                           " --json --evals 10,40,1000 --seeds 10";
  const auto document = nlohmann::json::parse(w4tune_run(json, "2>/dev/null").out);
  ASSERT_EQ(document.size(), 2U) << "one for each space";
  for (const auto& space : document) {
    EXPECT_EQ(space.at("strategy"), "surrogate") << "the default";
    EXPECT_EQ(space.at("configurations"), 324);
    EXPECT_EQ(space.at("best"), 1.2);
    ASSERT_EQ(space.at("rows").size(), 3U);
    EXPECT_GT(space.at("rows").at(1).at("mean"), space.at("rows").at(1).at("random"));
    EXPECT_EQ(space.at("rows").at(2).at("worst"), 1.0) << "the whole space was seen";
  }
  EXPECT_EQ(nlohmann::json::parse(w4tune_run(json + " --threads 1", "2>/dev/null").out), document);
}

TEST(Cli, ReplaySaysWhatIsWrongWithAFileInOneLine) {
  const std::string file = temp("cut.json");
  std::ofstream(file) << "{\"cache\": {";
  const CommandResult outcome = w4tune_run("replay " + file);
  EXPECT_EQ(outcome.exit_code, 2) << outcome.out;
  EXPECT_EQ(lines(outcome.out), 1) << outcome.out;
  EXPECT_NE(outcome.out.find("cut.json is not JSON"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace w4tune
