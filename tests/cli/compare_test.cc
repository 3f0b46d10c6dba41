// w4tune compare as a user meets it: what it prints, and its exit codes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/comparison_output.h"
#include "cli/table.h"
#include "cli/terminal.h"
#include "tests/cache/samples.h"
#include "tests/cli/run_command.h"
#include "tests/tuner/sample_reports.h"

namespace w4tune {
namespace {

using nlohmann::json;

CommandResult compare(const std::string& arguments, const std::string& redirect = "2>&1") {
  return run_command(std::string(W4TUNE_CLI) + " compare " + arguments + " " + redirect);
}

int lines(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

// A report of rows at M = 1, 2, ... with these times.
std::string write_times(const samples::Folder& folder, const std::string& name,
                        const std::vector<double>& times, int first_m = 1) {
  TuneResult result;
  result.ceilings = {600.0, 120.0, "cublaslt_8192"};
  int m = first_m;
  for (const double time : times) {
    WorkloadResult row = sample_row(m++, time, 0.0);
    row.winner->time_us.clear();
    for (int i = -5; i <= 5; ++i) row.winner->time_us.push_back(time * (1.0 + 0.0005 * i));
    row.winner->clock_mhz.assign(11, 1700.0);
    result.rows.push_back(std::move(row));
  }
  const std::string path = folder.file(name);
  write_file(path, report_json(sample_run(), result).dump());
  return path;
}

TEST(Compare, ExitCodesAreThoseOfFailOn) {
  const samples::Folder folder;
  const std::string a = write_times(folder, "a.json", {10.0, 10.0});
  const std::string slower = write_times(folder, "slower.json", {10.0, 11.0});
  const std::string unclear = write_times(folder, "unclear.json", {10.0, 10.1});
  const std::string fewer = write_times(folder, "fewer.json", {10.0});
  const std::string faster = write_times(folder, "faster.json", {10.0, 9.0, 8.0});
  const std::string all = " --fail-on slower,unclear,missing";
  EXPECT_EQ(compare(a + " " + a + all).exit_code, 0);
  EXPECT_EQ(compare(a + " " + faster + all).exit_code, 0) << "faster and added rows are no failure";
  EXPECT_EQ(compare(a + " " + slower).exit_code, 0) << "without --fail-on nothing fails";
  EXPECT_EQ(compare(a + " " + slower + all).exit_code, 5);
  EXPECT_EQ(compare(all + " " + a + " " + slower).exit_code, 5) << "options may come first";
  EXPECT_EQ(compare(a + " " + unclear + all).exit_code, 6);
  EXPECT_EQ(compare(a + " " + unclear + " --fail-on slower,missing").exit_code, 0);
  EXPECT_EQ(compare(a + " " + fewer + all).exit_code, 7);
  EXPECT_EQ(compare(a + " " + fewer + " " + unclear + " " + slower + all).exit_code, 5)
      << "the first that applies, of any report";
  EXPECT_EQ(compare(a + " " + slower + " --threshold 20% --fail-on slower").exit_code, 0);
  const auto document = json::parse(compare(a + " " + slower + all + " --json", "2>&-").out);
  EXPECT_EQ(document.at("exit_code"), 5);
}

TEST(Compare, BadInputIsOneLineAndADocumentedExitCode) {
  const samples::Folder folder;
  const std::string a = write_times(folder, "a.json", {10.0});
  const std::string elsewhere = write_times(folder, "elsewhere.json", {10.0}, 7);
  samples::write_file(folder.file("cut.json"), samples::read_file(a).substr(0, 300));
  samples::write_file(folder.file("newer.json"), R"({"schema": "w4tune.report/9"})");
  samples::write_file(folder.file("text.json"), "hello\n\nworld");
  samples::write_file(folder.file("broken.db"), "SQLite format 3" + std::string(4000, 'x'));
  const std::vector<std::tuple<std::string, int, std::string>> cases = {
      {folder.file("absent.json"), 1, "is neither a file nor a name in results/"},
      {folder.path().string(), 1, "can't be read"},
      {folder.file("broken.db"), 1, "broken.db"},
      {folder.file("cut.json"), 2, "ends after 300 bytes"},
      {folder.file("newer.json"), 2, "is of version 9"},
      {folder.file("text.json"), 2, "it is not JSON"},
      {elsewhere, 2, "have no workload in common"},
      {a + " --threshold 1", 2, "share '1' is not from 0 to 50 %"},
      {a + " --threshold nan", 2, "share 'nan'"},
      {a + " --threshold 1kg", 2, "unknown unit"},
      {a + " --run-noise -1%", 2, "is not a quantity"},
      {a + " --clocks sundial", 2, "Use both, cycles or time"},
      {a + " --fail-on faster", 2, "--fail-on"},
      {a + " --json --csv", 2, "--json"},
      {a + " --csv --markdown", 2, "--markdown"},
      {"", 2, "B is required"}};
  for (const auto& [arguments, code, text] : cases) {
    const CommandResult outcome = compare(a + " " + arguments);
    EXPECT_EQ(outcome.exit_code, code) << arguments << ": " << outcome.out;
    EXPECT_EQ(lines(outcome.out), 1) << arguments << ": " << outcome.out;
    EXPECT_NE(outcome.out.find(text), std::string::npos) << arguments << ": " << outcome.out;
    EXPECT_EQ(compare(a + " " + arguments, "2>/dev/null").out, "") << "nothing half done";
  }
  EXPECT_EQ(compare(a + " " + elsewhere + " --fail-on missing").exit_code, 7)
      << "with nothing in common, all is missing";
}

TEST(Compare, FindsNamesInResults) {
  const std::string root = "cd " + std::string(W4TUNE_SOURCE_DIR) + " && " + W4TUNE_CLI;
  const CommandResult named =
      run_command(root + " compare h200/small_m_f16 small_m_chained_f16.json 2>&1");
  EXPECT_EQ(named.exit_code, 0) << named.out;
  EXPECT_NE(named.out.find("A: results/h200/small_m_f16.json (NVIDIA H200"), std::string::npos);
  const CommandResult ambiguous = run_command(root + " compare pi05_f16 h200/pi05_f16 2>&1");
  EXPECT_EQ(ambiguous.exit_code, 2);
  EXPECT_EQ(ambiguous.out,
            "w4tune: pi05_f16 may be results/a40_predicted/pi05_f16.json or "
            "results/h200/pi05_f16.json. Say which.\n");
}

TEST(Compare, TakesACacheFile) {
  const samples::Folder folder;
  const std::string db = folder.file("w4tune.db");
  {
    Store store = Store::open(db, Store::Mode::kReadWrite);
    const std::int64_t run = store.begin_run(samples::run_info());
    store.put_compilation(samples::config(), samples::compilation());
    store.put_winners(run, samples::problem(), {samples::winner(16, Provenance::kMeasured)});
  }
  const CommandResult outcome = compare(db + " " + db + " --gpu a40");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out;
  EXPECT_NE(outcome.out.find("fewer than 9 samples, medians alone"), std::string::npos);
  EXPECT_EQ(compare(db + " " + db + " --gpu h100").exit_code, 1);
}

TEST(Compare, JsonHasWhatTheTextTells) {
  const samples::Folder folder;
  const std::string a = write_times(folder, "a.json", {10.0, 10.0, 10.0});
  const std::string b = write_times(folder, "b.json", {10.0, 11.0}, 2);
  const auto document = json::parse(compare("--json " + a + " " + b + " " + a, "2>/dev/null").out);
  EXPECT_EQ(document.at("schema"), "w4tune.comparison/1");
  EXPECT_EQ(document.at("reports").size(), 3U);
  EXPECT_EQ(document.at("reports").at(0).at("environment").at("gpu"), "NVIDIA A40");
  ASSERT_EQ(document.at("comparisons").size(), 2U);
  const auto& comparison = document.at("comparisons").at(0);
  EXPECT_EQ(comparison.at("counts").at("SLOWER"), 1);
  EXPECT_EQ(comparison.at("missing").at(0).at("m"), 1);
  const auto& row = comparison.at("rows").at(1);
  EXPECT_EQ(row.at("problem"), "gemm_n4096_k1024_g128_f16");
  EXPECT_EQ(row.at("verdict"), "SLOWER");
  EXPECT_NEAR(row.at("ratio").get<double>(), 10.0 / 11.0, 1e-9);
  EXPECT_LT(row.at("interval").at(1).get<double>(), 0.95);
  EXPECT_LT(row.at("p_value").get<double>(), 0.01);
  EXPECT_TRUE(row.at("same_config").get<bool>());
  EXPECT_EQ(comparison.at("geometric_means").at("all").at("workloads"), 2);
  EXPECT_EQ(document.at("comparisons").at(1).at("counts").at("SAME"), 3);
}

TEST(Compare, CsvHasOneLineForEachWorkload) {
  const samples::Folder folder;
  const std::string a = write_times(folder, "a, \"quoted\".json", {10.0, 10.0});
  const std::string b = write_times(folder, "b.json", {10.0, 10.0}, 2);
  const CommandResult outcome = compare(fmt::format("--csv '{}' {}", a, b), "2>/dev/null");
  std::istringstream stream(outcome.out);
  std::vector<std::string> text;
  for (std::string line; std::getline(stream, line);) text.push_back(line);
  ASSERT_EQ(text.size(), 4U) << outcome.out;
  const std::string head = "a,b,op,n,k,group,dtype,m,verdict,reason,a_us,b_us,ratio,";
  EXPECT_EQ(text[0].rfind(head, 0), 0U);
  const auto commas = std::count(text[0].begin(), text[0].end(), ',');
  EXPECT_NE(text[1].find("a, \"\"quoted\"\".json\","), std::string::npos) << text[1];
  EXPECT_NE(text[1].find(",gemm,4096,1024,128,f16,2,SAME,,10,10,1,"), std::string::npos) << text[1];
  EXPECT_NE(text[2].find(",1,MISSING,"), std::string::npos) << text[2];
  EXPECT_NE(text[3].find(",3,ADDED,"), std::string::npos) << text[3];
  for (std::size_t i = 1; i < text.size(); ++i) {
    EXPECT_EQ(std::count(text[i].begin(), text[i].end(), ','), commas + 1) << "one in the name";
  }
}

TEST(Compare, ChangesOfAFamilyNameWhatChanged) {
  EXPECT_EQ(config_change("f a=1 b=2 | split_k=1 raster=1", "f a=1 b=2 | split_k=1 raster=1"), "");
  EXPECT_EQ(config_change("f a=1 b=2 | split_k=1 raster=1", "f a=1 b=3 | split_k=2 raster=1"),
            "b 2 -> 3, split_k 1 -> 2");
  EXPECT_EQ(config_change("f a=1", "g a=1"), "f a=1 -> g a=1");
}

// A pipe is no terminal; `script` makes one.
TEST(Compare, ColourIsForTerminalsAlone) {
  const samples::Folder folder;
  const std::string a = write_times(folder, "a.json", {10.0});
  const std::string b = write_times(folder, "b.json", {11.0});
  EXPECT_EQ(compare(a + " " + b).out.find('\x1b'), std::string::npos);
  if (run_command("command -v script").out.empty()) GTEST_SKIP() << "script is not installed";
  const auto on_terminal = [&](const std::string& environment) {
    return run_command(fmt::format("{} script -qec '{} compare {} {}' /dev/null", environment,
                                   W4TUNE_CLI, a, b))
        .out;
  };
  EXPECT_NE(on_terminal("env -u NO_COLOR TERM=xterm").find("\x1b[31mSLOWER\x1b[0m"),
            std::string::npos);
  EXPECT_EQ(on_terminal("NO_COLOR=1 TERM=xterm").find('\x1b'), std::string::npos);
  EXPECT_EQ(on_terminal("env -u NO_COLOR TERM=dumb").find('\x1b'), std::string::npos);
}

TEST(Table, ColoursAndCharactersDoNotDisturbItsColumns) {
  EXPECT_EQ(display_width("ab"), 2U);
  EXPECT_EQ(display_width("\x1b[31mab\x1b[0m"), 2U);
  EXPECT_EQ(display_width("×µ"), 2U);
  EXPECT_EQ(display_width("a\x1b[3"), 1U) << "a sequence that never ends";
  EXPECT_EQ(format_table({{">×", "b"}, {"10", painted("x", Colour::kRed)}, {"1", "yy"}}),
            " ×  b\n10  \x1b[31mx\x1b[0m\n 1  yy\n");
}

}  // namespace
}  // namespace w4tune
