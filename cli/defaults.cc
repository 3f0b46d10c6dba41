// w4tune defaults: kernels that serve any N and K, for GPUs and layers that nobody has tuned.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "cli/command.h"
#include "cli/options.h"
#include "tuner/defaults.h"

namespace w4tune {
namespace {

struct Options {
  std::string out;
  int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  bool json = false;
};

int run(const Options& options) {
  const DefaultsSummary summary = write_defaults(
      options.out, options.threads,
      [](const std::string& done) { fmt::print(stderr, "compiled for {}\n", done); });
  const auto bytes = std::filesystem::file_size(options.out);
  if (options.json) {
    fmt::print(
        "{}\n",
        nlohmann::json{{"file", options.out}, {"bytes", bytes}, {"kernels", summary.kernels}}.dump(
            1));
  } else {
    fmt::print("{}: {} kernels for {} architectures, {:.1f} MB\n", options.out, summary.kernels,
               summary.architectures, static_cast<double>(bytes) * 1e-6);
  }
  return kExitOk;
}

}  // namespace

void add_defaults(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "defaults", "Write the kernels that serve any layer on GPUs that were not tuned");
  command->footer(
      "The Python package ships such a file. Not tuned: right everywhere, fast nowhere.\n"
      "Needs NVRTC and no GPU; serves compute capability 8.0, 8.6, 8.9 and 9.0.\n"
      "Example:\n  w4tune defaults defaults.db");
  command->add_option("file", options->out, "The file to write")->required()->type_name("FILE");
  command->add_option("--threads", options->threads, "Compiler threads")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_cuda_path_option(*command);
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune
