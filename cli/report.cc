// w4tune report: reports as one HTML file, and their plots as SVG files.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/find_report.h"
#include "cli/options.h"
#include "cli/report_data.h"
#include "cli/report_page.h"
#include "cli/report_summary.h"
#include "tuner/report.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPlots = "plots";  // below a folder of reports

struct Options {
  std::string a;
  std::string b;
  std::string out;
  std::string plots;
  std::string folder;
  std::string gpu;
};

ReportWithSearches read(const std::string& name, const std::string& gpu) {
  ReportWithSearches each =
      read_with_searches(name, [&](const DeviceInfo& device) { return is_named(device, gpu); });
  if (each.report.rows.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} has no tuned workload: there is nothing to draw.", name));
  }
  return each;
}

void write_plots(const fs::path& folder, const nlohmann::json& data) {
  for (const PlotFile& plot : report_plots(data)) write_file(folder / plot.name, plot.text);
}

int write_page(const Options& options) {
  std::vector<std::string> paths = {find_report(options.a)};
  if (!options.b.empty()) paths.push_back(find_report(options.b));
  const std::string out = options.out.empty()
                              ? fs::path(paths.front()).replace_extension(".html").string()
                              : options.out;
  std::vector<ReportWithSearches> reports;
  for (const std::string& path : paths) {
    reports.push_back(read(path, options.gpu));
    if (fs::exists(out) && fs::equivalent(out, path)) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{} is the report itself. Choose another file with -o.", out));
    }
  }
  const nlohmann::json data = report_data(reports);
  const std::string html = report_html(data);
  write_file(out, html);
  fmt::print("{}: {:.1f} MB\n", out, static_cast<double>(html.size()) * 1e-6);
  if (!options.plots.empty()) {
    write_plots(options.plots, data);
    fmt::print("{}: plots as SVG\n", options.plots);
  }
  return kExitOk;
}

// Whether a JSON file says that it is a report: results/ holds others beside them.
bool is_report(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  const auto document = nlohmann::json::parse(stream, nullptr, false);
  return document.is_object() && document.contains("schema") && document["schema"].is_string() &&
         document["schema"].get<std::string>().rfind(kReportSchema, 0) == 0;
}

std::vector<fs::path> reports_below(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code failed;
  for (fs::recursive_directory_iterator it(folder, failed), end; !failed && it != end;
       it.increment(failed)) {
    if (it->path().extension() == ".json" && is_report(it->path())) found.push_back(it->path());
  }
  std::sort(found.begin(), found.end());
  if (found.empty()) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("folder {} holds no report. Check the path.", folder.string()));
  }
  return found;
}

int write_folder(const fs::path& folder) {
  std::vector<SummarisedReport> summarised;
  for (const fs::path& path : reports_below(folder)) {
    const fs::path name = path.lexically_relative(folder);
    ReportWithSearches each = read(path.string(), "");
    each.report.name = name.generic_string();
    const fs::path plots = fs::path(kPlots) / fs::path(name).replace_extension();
    write_plots(folder / plots, report_data({each}));
    summarised.push_back({std::move(each.report), plots.generic_string()});
  }
  const fs::path summary = folder / "summary.md";
  write_file(summary.string(), folder_summary(summarised));
  fmt::print("{}: {} reports\n", summary.string(), summarised.size());
  return kExitOk;
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("report", "Write a report, or two against each other, as an HTML page");
  command->footer(
      "A report is a file of tune or bench, a cache file, or a name in results/. The page is one\n"
      "file that opens from disk and asks no network. A cache file adds the progress of each\n"
      "search and its landscape; a second report adds what 'w4tune compare' says.\n"
      "Examples:\n"
      "  w4tune report pi05.json                      writes pi05.html\n"
      "  w4tune report pi05.db -o pi05.html --plots figures\n"
      "  w4tune report before.json after.json -o difference.html\n"
      "  w4tune report --folder results               results/summary.md and results/plots/");
  CLI::Option* a = command->add_option("REPORT", options->a, "The report")->type_name("");
  command->add_option("OTHER", options->b, "A report held against it")->type_name("")->needs(a);
  command
      ->add_option("-o,--out", options->out,
                   "The page to write; by default beside the report, with the extension .html")
      ->type_name("FILE")
      ->needs(a);
  command
      ->add_option("--plots", options->plots, "Write the plots as SVG files into this folder, too")
      ->type_name("DIR")
      ->needs(a);
  command->add_option("--gpu", options->gpu, "Of a cache file the winners of this GPU")
      ->type_name("NAME")
      ->needs(a);
  command
      ->add_option("--folder", options->folder,
                   "Instead: the plots of every report below DIR, and DIR/summary.md")
      ->type_name("DIR")
      ->excludes(a);
  command->callback([options, &action] {
    action = [options] {
      if (!options->folder.empty()) return write_folder(options->folder);
      if (options->a.empty()) {
        throw Error(ErrorCode::kInvalidArgument, "report needs a REPORT, or --folder DIR.");
      }
      return write_page(*options);
    };
  });
}

}  // namespace w4tune
