// w4tune bench: the winners of a cache file against cuBLASLt FP16, now.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "core/stats.h"
#include "generated/version.h"
#include "gpu/cublaslt.h"
#include "gpu/device.h"
#include "tuner/bench.h"
#include "tuner/report.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

struct Options {
  std::string db;
  std::string gpu = "auto";
  std::string report = "w4tune_bench.json";
  std::string problem;
  std::vector<std::string> ops;
  std::vector<int> m;
  std::vector<std::string> chain;
  bool quiet = false;
  bool json = false;
};

int run(const Options& options) {
  const Target target = find_target(options.gpu);
  if (!target.present) {
    throw Error(ErrorCode::kNoDevice,
                fmt::format("bench measures, and there is no {} here. Run it there, or look at the "
                            "predictions with 'w4tune show --gpu {}'.",
                            target.device.name, options.gpu));
  }
  TuneOptions bench;
  bench.device = target.device;
  bench.ordinal = target.ordinal;
  Progress progress(false, options.quiet);
  if (!CublasLt::available()) {
    progress.on_warning(
        "cuBLASLt is not found, so nothing is compared with FP16: see 'w4tune doctor'");
  }
  const Problem only = options.problem.empty() ? Problem{} : parse_problem(options.problem);
  std::vector<Op> ops;
  for (const std::string& op : options.ops) ops.push_back(parse_op(op));
  std::vector<std::vector<Workload>> chains;
  if (!options.chain.empty()) {
    if (options.m.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "--chain needs --m: one chain is measured at each M");
    }
    for (const int m : options.m) {
      std::vector<Workload>& chain = chains.emplace_back();
      for (const std::string& problem : options.chain) chain.push_back({parse_problem(problem), m});
    }
  }
  const TuneResult result = bench_winners(
      options.db, bench,
      [&](const Winner& winner) {
        const auto fits = [](const auto& wanted, const auto& value) {
          return wanted.empty() || std::find(wanted.begin(), wanted.end(), value) != wanted.end();
        };
        return fits(options.m, winner.m) && fits(ops, winner.problem.op) &&
               (options.problem.empty() || winner.problem == only);
      },
      chains, progress);
  RunInfo run;
  run.device = bench.device;
  run.driver = describe_driver();
  run.nvrtc = "not used";
  run.version = kVersion;
  run.commit = kCommit;
  run.protocol = bench.protocol.text();
  run.protocol_hash = bench.protocol.hash();
  run.started_at = timestamp_now();
  const nlohmann::json report = report_json(run, result);
  write_report(options.report, report);
  if (options.json) {
    fmt::print("{}\n", report.dump(1));
  } else {
    fmt::print("report: {}\n", options.report);
  }
  return kExitOk;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("bench", "Measure the winners against cuBLASLt FP16 now");
  command->footer(
      "Examples:\n"
      "  w4tune bench --m 10,50 --report now.json\n"
      "  w4tune bench --m 10 --chain geglu_n4096_k1024_g128_f16,gemm_n1024_k4096_g128_f16");
  add_db_option(*command, options->db);
  command->add_option("--gpu", options->gpu, "auto, or the name of a GPU that is here")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--problem", options->problem, "This problem only")->type_name("TEXT");
  command->add_option("--op", options->ops, "gemm or geglu only")->type_name("OP")->delimiter(',');
  command->add_option("--m", options->m, "Winners tuned at these M only")
      ->type_name("M,...")
      ->delimiter(',');
  command
      ->add_option(
          "--chain", options->chain,
          "Also these problems launched in turn at each --m, plain and as dependent launches")
      ->type_name("PROBLEM,...")
      ->delimiter(',');
  command
      ->add_option("--report", options->report,
                   "Where the JSON report goes; a summary goes beside it")
      ->type_name("FILE")
      ->capture_default_str();
  add_cuda_path_option(*command);
  command->add_flag("--quiet", options->quiet, "Warnings and the closing line only");
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune
