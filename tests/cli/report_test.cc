// w4tune report as a user meets it, but for the page itself, which tests/browser opens.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/report_data.h"
#include "cli/report_page.h"
#include "cli/script.h"
#include "tests/cache/samples.h"
#include "tests/cli/run_command.h"
#include "tests/cli/sample_search.h"
#include "tests/tuner/sample_reports.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kResults = fs::path(W4TUNE_SOURCE_DIR) / "results";

CommandResult report(const std::string& arguments) {
  return run_command(std::string(W4TUNE_CLI) + " report " + arguments + " 2>&1");
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

ReportWithSearches read(const std::string& path) {
  return read_with_searches(path, [](const DeviceInfo&) { return true; });
}

std::map<std::string, std::string> plots_of(const json& data) {
  std::map<std::string, std::string> plots;
  for (const PlotFile& plot : report_plots(data)) plots[plot.name] = plot.text;
  return plots;
}

// Every file below a folder, by its path there.
std::map<std::string, std::string> files_below(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    files[entry.path().lexically_relative(folder).generic_string()] =
        samples::read_file(entry.path().string());
  }
  return files;
}

TEST(ReportPage, HasAMarkForEveryValue) {
  const ReportWithSearches each = read((kResults / "h200/small_m_chained_f16.json").string());
  const std::size_t rows = each.report.rows.size();
  ASSERT_GT(rows, 0U);
  const auto plots = plots_of(report_data({each}));
  EXPECT_EQ(count(plots.at("speedup.svg"), "class=\"mark "), rows);
  EXPECT_EQ(count(plots.at("time.svg"), "class=\"mark "), 5 * rows)
      << "w4tune, FP16, chained, read only, floor";
  EXPECT_EQ(count(plots.at("floor.svg"), "class=\"mark "), rows);
  EXPECT_EQ(count(plots.at("families.svg"), "class=\"mark "), rows);
  EXPECT_EQ(plots.size(), 4U);
  for (const auto& [name, text] : plots) {
    for (const char* defect : {"NaN", "undefined", "null", "var(", "Infinity"}) {
      EXPECT_EQ(count(text, defect), 0U) << name << " has " << defect;
    }
  }
}

TEST(ReportPage, OfTwoReportsHasTheirDifference) {
  const ReportWithSearches a = read((kResults / "h200/small_m_f16.json").string());
  const auto plots =
      plots_of(report_data({a, read((kResults / "h200/small_m_chained_f16.json").string())}));
  for (const char* name : {"difference.svg", "means.svg", "speedup_a.svg", "speedup_b.svg",
                           "time.svg", "floor_a.svg", "floor_b.svg", "families_a.svg"}) {
    EXPECT_EQ(plots.count(name), 1U) << name;
  }
  EXPECT_EQ(count(plots.at("difference.svg"), "class=\"mark "), a.report.rows.size());
}

TEST(ReportPage, ReportsWithNothingInCommonStillMakeAPage) {
  const samples::Folder folder;
  TuneResult a;
  a.ceilings = {600.0, 120.0, "cublaslt_8192"};
  TuneResult b = a;
  a.rows = {sample_row(1, 5.0, 0.0)};
  b.rows = {sample_row(2, 5.0, 0.0)};
  write_file(folder.file("a.json"), report_json(sample_run(), a).dump());
  write_file(folder.file("b.json"), report_json(sample_run(), b).dump());
  const CommandResult outcome =
      report(fmt::format("{} {} -o {} --plots {}", folder.file("a.json"), folder.file("b.json"),
                         folder.file("c.html"), folder.file("plots")));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out;
  EXPECT_FALSE(fs::exists(folder.file("plots/difference.svg")));
  EXPECT_TRUE(fs::exists(folder.file("plots/time.svg")));
}

TEST(ReportPage, OfACacheFileShowsTheSearches) {
  const samples::Folder folder;
  write_sample_searches(folder.file("s.db"), {40, 60});
  const ReportWithSearches each = read(folder.file("s.db"));
  ASSERT_EQ(each.searches.size(), 2U);
  EXPECT_EQ(each.searches[0].trials.size(), 40U);
  EXPECT_EQ(each.searches[1].workload.m, 32);
  const auto plots = plots_of(report_data({each}));
  EXPECT_EQ(count(plots.at("progress.svg"), "class=\"mark "), 60U) << "the larger search";
  EXPECT_EQ(count(plots.at("progress.svg"), "class=\"mark failed"), 5U);
  EXPECT_GT(count(plots.at("landscape.svg"), "class=\"mark "), 5U);
}

TEST(ReportPage, NoTextOfAReportIsMarkup) {
  const samples::Folder folder;
  const std::string evil = "</script><script>alert(1)</script><img src=x>\"'&-->";
  json hostile = report_json(sample_run(), sample_result());
  for (auto& [key, value] : hostile["environment"].items()) value = evil;
  hostile["rows"][0]["config"] = evil;
  hostile["rows"][0]["baselines"] = {{evil, hostile["rows"][0]["baselines"]["cublaslt_f16"]}};
  hostile["rows"][0]["baselines"][evil]["detail"] = evil;
  samples::write_file(folder.file("evil.json"), hostile.dump());
  const json data = report_data({read(folder.file("evil.json"))});
  const std::string html = report_html(data);
  EXPECT_EQ(count(html, "<script>alert"), 0U);
  EXPECT_EQ(count(html, "<img"), 0U);
  EXPECT_EQ(count(html, "</script>"), 3U) << "the data, the library and the page's own";
  for (const auto& [name, text] : plots_of(data)) {
    EXPECT_EQ(count(text, "<script"), 0U) << name;
    EXPECT_EQ(count(text, "<img"), 0U) << name;
  }
}

TEST(ReportPage, AsksNoNetwork) {
  const json data = report_data({read((kResults / "h200/pi05_f16.json").string())});
  const std::string html = report_html(data);
  EXPECT_LT(html.size(), 1U << 20);
  EXPECT_EQ(count(html, " src="), 0U);
  EXPECT_EQ(count(html, "<link"), 0U);
  EXPECT_EQ(count(html, "@import"), 0U);
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
  EXPECT_NE(html.find("Redistributions in binary form"), std::string::npos) << "D3's licence";
  EXPECT_EQ(html, report_html(data)) << "the same data give the same page";
}

TEST(ReportPage, WhatCannotBeDrawnIsOneLine) {
  const samples::Folder folder;
  const auto refused = [&](const std::string& arguments, const std::string& message) {
    const CommandResult outcome = report(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.out;
    EXPECT_NE(outcome.out.find(message), std::string::npos) << outcome.out;
    EXPECT_EQ(count(outcome.out, "\n"), 1U) << outcome.out;
  };
  json empty = report_json(sample_run(), sample_result());
  empty["rows"] = json::array();
  const std::string path = folder.file("empty.json");
  samples::write_file(path, empty.dump());
  refused("", "report needs a REPORT, or --folder DIR.");
  refused(path, "has no tuned workload: there is nothing to draw.");
  samples::write_file(path, report_json(sample_run(), sample_result()).dump());
  refused(path + " -o " + path, "is the report itself. Choose another file with -o.");
  refused(path + " --folder x", "--folder");
  EXPECT_EQ(report(path).exit_code, 0);
  EXPECT_TRUE(fs::exists(folder.file("empty.html"))) << "beside the report";
}

TEST(ReportPage, AScriptsErrorIsADefectWithItsPlace) {
  Script script;
  samples::expect_error(ErrorCode::kInternal, "bad.js", [&] { script.run("bad.js", "var = 1"); });
  samples::expect_error(ErrorCode::kInternal, "ReferenceError",
                        [&] { script.run("bad.js", "missing()"); });
  script.run("good.js", "var good = {twice: function (text, n) { return text + text + n; }};");
  EXPECT_EQ(script.call("good", "twice", "a\"\\", 2.5), "a\"\\a\"\\2.5");
  samples::expect_error(ErrorCode::kInternal, "once", [&] { script.call("good", "once", "", 0); });
}

// `make results` has been run since the reports, or what draws them, changed.
TEST(Results, SummaryAndPlotsAreCurrent) {
  const samples::Folder folder;
  for (const auto& [name, text] : files_below(kResults)) {
    if (fs::path(name).extension() != ".json") continue;
    const fs::path copy = folder.path() / name;
    fs::create_directories(copy.parent_path());
    samples::write_file(copy.string(), text);
  }
  const CommandResult outcome = report("--folder " + folder.path().string());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.out;
  const auto is_made = [](const std::string& name) {
    return name == "summary.md" || name.rfind("plots/", 0) == 0;
  };
  const auto made = [&](std::map<std::string, std::string> files) {
    std::erase_if(files, [&](const auto& file) { return !is_made(file.first); });
    return files;
  };
  const auto there = made(files_below(kResults));
  const auto fresh = made(files_below(folder.path()));
  for (const auto& [name, text] : fresh) {
    const auto found = there.find(name);
    EXPECT_TRUE(found != there.end() && found->second == text)
        << "results/" << name << " is not current: run 'make results'";
  }
  for (const auto& [name, text] : there) {
    EXPECT_EQ(fresh.count(name), 1U) << "results/" << name << " belongs to no report";
  }
}

}  // namespace
}  // namespace w4tune
