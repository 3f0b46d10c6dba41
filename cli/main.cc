// w4tune: reads the command line, runs one command, turns errors into one line and an exit code.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "cli/command.h"
#include "generated/version.h"
#include "tuner/measuring_server.h"
#include "w4tune/error.h"

namespace {

constexpr std::array kCommands = {"tune",    "bench",    "probe",  "show",   "inspect",
                                  "compare", "report",   "replay", "export", "merge",
                                  "lint",    "defaults", "doctor"};

int exit_code(w4tune::ErrorCode code) {
  switch (code) {
    case w4tune::ErrorCode::kInvalidArgument: return w4tune::kExitUsage;
    case w4tune::ErrorCode::kNoDevice: return w4tune::kExitNoDevice;
    default: return w4tune::kExitFailed;
  }
}

// "w4tune --gpu a40" is "w4tune tune --gpu a40".
std::vector<std::string> with_default_command(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool help = !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h" ||
                                           arguments[0] == "--version");
  const bool named = !arguments.empty() && arguments[0].rfind('-', 0) != 0;
  if (!help && !named) arguments.insert(arguments.begin(), "tune");
  return arguments;
}

int run(int argc, char** argv) {
  // No command of a user's: how tune starts its measuring process.
  if (argc == 2 && std::string_view(argv[1]) == w4tune::kMeasuringCommand) {
    return w4tune::serve_measuring();
  }
  CLI::App app("Tunes W4A16 GEMM kernels (INT4 weights, FP16 or BF16 activations) for one GPU.",
               "w4tune");
  w4tune::Action action;
  w4tune::add_tune(app, action);
  w4tune::add_bench(app, action);
  w4tune::add_probe(app, action);
  w4tune::add_show(app, action);
  w4tune::add_inspect(app, action);
  w4tune::add_compare(app, action);
  w4tune::add_report(app, action);
  w4tune::add_replay(app, action);
  w4tune::add_export(app, action);
  w4tune::add_merge(app, action);
  w4tune::add_defaults(app, action);
  w4tune::add_lint(app, action);
  w4tune::add_doctor(app, action);
  app.require_subcommand(1);
  app.set_version_flag("--version",
                       fmt::format("w4tune {} ({})", w4tune::kVersion, w4tune::kCommit));
  app.footer(
      "Without a command, tune runs. 'w4tune COMMAND --help' says more.\n"
      "Examples:\n"
      "  w4tune --gpu auto                tune Pi0.5's MLPs on the GPU that is here\n"
      "  w4tune --gpu a40                 the same for an A40 (predicted where there is none)\n"
      "  w4tune show                      what serves each M\n"
      "  w4tune export pi05.db            one read-only file for serving\n"
      "Exit codes: 0 ok, 1 failed, 2 usage, 3 no usable device, 4 some workloads untuned.");
  std::vector<std::string> arguments = with_default_command(argc, argv);
  if (!arguments.empty() && arguments[0].rfind('-', 0) != 0 &&
      std::find(kCommands.begin(), kCommands.end(), arguments[0]) == kCommands.end()) {
    throw w4tune::Error(w4tune::ErrorCode::kInvalidArgument,
                        fmt::format("'{}' is not a command. Use one of: {}.", arguments[0],
                                    fmt::join(kCommands, ", ")));
  }
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes a vector
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    const bool asked = error.get_exit_code() == 0;  // --help and --version
    if (asked) return app.exit(error);
    fmt::print(stderr, "w4tune: {}. See 'w4tune --help'.\n", error.what());
    return w4tune::kExitUsage;
  }
  return action();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const w4tune::Error& error) {
    fmt::print(stderr, "w4tune: {}\n", error.what());
    return exit_code(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "w4tune: {}. This is a defect of w4tune: please report it.\n", error.what());
    return w4tune::kExitFailed;
  }
}
