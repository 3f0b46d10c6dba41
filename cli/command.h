// The commands of w4tune, one a file. Each adds itself to the parser; main.cc runs the chosen one.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace w4tune {

// Exit codes (README.md, "Exit codes").
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNoDevice = 3;
inline constexpr int kExitUntuned = 4;
// Of compare --fail-on; where several apply, the first of them.
inline constexpr int kExitSlower = 5;
inline constexpr int kExitUnclear = 6;
inline constexpr int kExitMissing = 7;
// Of lint, as for a file that cannot be read: but then nothing is on standard output.
inline constexpr int kExitFindings = 1;

// What to run once the command line has been read; returns the exit code.
using Action = std::function<int()>;

void add_tune(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_probe(CLI::App& app, Action& action);
void add_show(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_compare(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_replay(CLI::App& app, Action& action);
void add_export(CLI::App& app, Action& action);
void add_defaults(CLI::App& app, Action& action);
void add_merge(CLI::App& app, Action& action);
void add_lint(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);

}  // namespace w4tune
