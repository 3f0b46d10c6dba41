// w4tune tune: the default command. Measures on the GPU that is here, predicts for one that is not.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/command.h"
#include "cli/fleet.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "core/stats.h"
#include "gpu/cublaslt.h"
#include "gpu/device.h"
#include "templates/cost.h"
#include "templates/family.h"
#include "tuner/composite_run.h"
#include "tuner/fp16_intervals.h"
#include "tuner/ranking.h"
#include "tuner/report.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

void on_interrupt(int /*signal*/) {
  if (g_interrupted != 0) std::_Exit(130);  // the second Ctrl-C does not wait
  g_interrupted = 1;
}

struct Options {
  PlanOptions plan;
  std::string gpu = "auto";
  std::string db;
  std::string report;
  std::string budget;
  std::string max_workspace = "64M";
  std::string device_dir;
  std::string shard;
  std::string devices;
  int member = -1;  // >= 0: the process for this GPU of a fleet
  int evaluations = TuneOptions{}.evaluations;
  std::string strategy = TuneOptions{}.strategy;
  std::vector<std::string> families;
  int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::uint64_t seed = 1;
  bool explain = false;
  bool verify_on_device = false;
  bool dependent = false;
  bool no_baseline = false;
  bool quiet = false;
  bool json = false;
};

// Counts what each constraint rejected, for every workload and family; tunes nothing.
int explain(const TuneOptions& options, bool present, bool as_json) {
  nlohmann::json document = nlohmann::json::array();
  const auto rankings = rank_all(options.plan.workloads, options.device,
                                 options.max_workspace_bytes, options.threads, options.families);
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    const std::string workload = to_string(options.plan.workloads[i]);
    const auto add = [&](std::string_view family, std::uint64_t raw,
                         const std::map<std::string, std::uint64_t>& reasons) {
      std::uint64_t rejected = 0;
      for (const auto& [reason, count] : reasons) rejected += count;
      document.push_back({{"workload", workload},
                          {"family", family},
                          {"raw", raw},
                          {"kept", raw - rejected},
                          {"rejected", reasons}});
      if (as_json) return;
      fmt::print("{}  {}: {} points, {} kept\n", workload, family, raw, raw - rejected);
      for (const auto& [reason, count] : reasons) fmt::print("  {:>9}  {}\n", count, reason);
    };
    for (const Ranking& ranking : rankings[i]) {
      add(ranking.family->id(), ranking.raw_count, ranking.rejected);
    }
    // Its points are the slices that are measured; without one, a point that was left out.
    SlicePlan plan{.slice_rows = {}, .left_out = "measured only, never predicted"};
    if (present) plan = plan_composite(options.plan.workloads[i], options);
    if (plan.slice_rows.empty()) {
      add("dequant_cublas", 1, {{plan.left_out, 1}});
    } else {
      add("dequant_cublas", plan.slice_rows.size(), {});
    }
  }
  if (as_json) fmt::print("{}\n", document.dump(1));
  return kExitOk;
}

// Writes the report after every workload, so that a run that dies leaves what it has.
class Reporter final : public TuneObserver {
 public:
  Reporter(TuneObserver& next, std::string path, const TuneOptions& options)
      : next_(next), path_(std::move(path)), options_(options) {}

  void on_phase(const std::string& what) override { next_.on_phase(what); }
  void on_ceilings(const Ceilings& ceilings) override { next_.on_ceilings(ceilings); }
  void on_workload(std::size_t index, std::size_t total, const Workload& workload,
                   double floor) override {
    next_.on_workload(index, total, workload, floor);
  }
  void on_candidate(const Trial& trial, int done, int planned, double best_us) override {
    next_.on_candidate(trial, done, planned, best_us);
  }
  void on_result(const WorkloadResult& result, const TuneResult& so_far) override {
    next_.on_result(result, so_far);
    if (!path_.empty()) write_report(path_, report(so_far));
  }
  void on_warning(const std::string& message) override { next_.on_warning(message); }

  [[nodiscard]] nlohmann::json report(const TuneResult& result) {
    if (run_.source_hash.empty()) {
      run_ = describe_run(options_, device_sources_from(options_.device_dir).hash);
    }
    return report_json(run_, result);
  }

 private:
  TuneObserver& next_;
  std::string path_;
  const TuneOptions& options_;
  RunInfo run_;
};

void print_closing(const TuneResult& result, const Options& options) {
  std::vector<double> ratios;
  int slower = 0;
  for (const WorkloadResult& row : result.rows) {
    if (!row.winner || !row.baseline) continue;
    const double ratio = median(row.baseline->time_us) / served_us(*row.winner);
    ratios.push_back(ratio);
    if (ratio < 1.0) ++slower;
  }
  if (!ratios.empty()) {
    fmt::print("{} workloads: {:.2f}x the FP16 baseline (geometric mean); FP16 is faster in {}\n",
               ratios.size(), geometric_mean(ratios), slower);
  }
  for (const std::string& line : fp16_sentences(fp16_intervals(result))) fmt::print("{}\n", line);
  for (const std::string& line : describe(result.fits())) fmt::print("{}\n", line);
  const int untuned = result.untuned();
  if (result.interrupted) {
    fmt::print(
        "interrupted: everything measured so far is kept; the same command goes on from here\n");
  } else if (untuned > 0) {
    fmt::print("{} workloads are untuned: no candidate worked within the budget\n", untuned);
  }
  fmt::print("cache: {}\n", options.db);
  if (!options.report.empty()) fmt::print("report: {}\n", options.report);
}

// What earlier runs, here or on another machine, found out about the GPU.
void learn(DeviceInfo& device, const Store& store) {
  device.mma_denormals = store.mma_denormals(device);
  device.calibration = store.calibration(device);
}

// The GPUs that tune, and what they are.
struct Crew {
  Target target;
  std::vector<int> ordinals;  // more than one: a process for each
};

Crew find_crew(const Options& options) {
  Crew crew;
  if (options.devices.empty() || options.member >= 0) {
    crew.target = find_target(options.gpu);
    if (crew.target.present && options.member >= 0) crew.target.ordinal = options.member;
    return crew;
  }
  crew.ordinals = parse_devices(options.devices);
  crew.target = {query_device(crew.ordinals.front()), true, crew.ordinals.front()};
  if (options.gpu != "auto" && !is_named(crew.target.device, options.gpu)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("--devices {}: GPU {} is a {}, and --gpu asks for {}. Leave one of them "
                    "out.",
                    options.devices, crew.target.ordinal, crew.target.device.name, options.gpu));
  }
  return crew;
}

TuneResult tune_by_many(const TuneOptions& tune, const std::vector<int>& ordinals, Store& store,
                        TuneObserver& observer) {
  const int threads = std::max(1, tune.threads / static_cast<int>(ordinals.size()));
  std::vector<FleetMember> members;
  for (const int ordinal : ordinals) members.push_back(member_like_this(ordinal, threads));
  return lead_fleet(tune, store, members, observer);
}

int run(const Options& options) {
  const Crew crew = find_crew(options);
  const Target& target = crew.target;
  TuneOptions tune;
  tune.plan = options.plan.plan();
  if (!options.shard.empty()) {
    const Shard shard = parse_shard(options.shard);
    tune.plan = shard_of(tune.plan, shard.index, shard.count);
  }
  tune.device = target.device;
  tune.ordinal = target.ordinal;
  tune.evaluations = options.evaluations;
  tune.families = options.families;
  require_families(tune.plan.workloads, tune.device, tune.families);
  tune.strategy = find_strategy(options.strategy).name;
  if (!options.budget.empty()) tune.budget_s = parse_duration_s(options.budget);
  tune.max_workspace_bytes = parse_bytes(options.max_workspace);
  tune.threads = options.threads;
  tune.device_dir = options.device_dir;
  tune.baseline = !options.no_baseline;
  tune.verify_on_device = options.verify_on_device;
  tune.measuring_program = "/proc/self/exe";
  tune.protocol.seed = options.seed;
  tune.protocol.dependent = options.dependent;
  tune.interrupted = [] { return g_interrupted != 0; };
  if (options.explain) {
    if (std::filesystem::exists(options.db)) {
      learn(tune.device, Store::open(options.db, Store::Mode::kReadOnly));
    }
    return explain(tune, target.present, options.json);
  }
  if (options.dependent && !target.present) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--dependent: dependent launches are measured, never predicted, and "
                            "there is no {} here. Tune without it.",
                            target.device.name));
  }
  Store store = Store::open(options.db, Store::Mode::kReadWrite);
  learn(tune.device, store);

  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  if (options.member >= 0) {
    follow_fleet(tune, store, !target.present);
    return kExitOk;
  }
  Progress progress(!target.present, options.quiet);
  Reporter reporter(progress, options.report, tune);
  if (!target.present) {
    const std::string here = device_count() > 0 ? query_device(0).name : "no GPU";
    progress.on_warning(fmt::format(
        "no {} here ({}): kernels are ranked by the cost model and every time is a prediction",
        target.device.name, here));
    for (const auto& line : describe(rates_of(tune.device), tune.device)) {
      fmt::print(stderr, "assumed: {}\n", line);
    }
    if (!tune.device.mma_denormals) {
      fmt::print(stderr,
                 "not probed: whether this GPU's tensor cores take FP16 denormals, so "
                 "dequantisations 2 and 3 are left out\n");
    }
  } else if (tune.baseline && !CublasLt::available()) {
    progress.on_warning(
        "cuBLASLt is not found, so nothing is compared with FP16: see 'w4tune doctor'");
  }
  const TuneResult result = crew.ordinals.size() > 1
                                ? tune_by_many(tune, crew.ordinals, store, reporter)
                            : target.present ? tune_measured(tune, store, reporter)
                                             : tune_predicted(tune, store, reporter);
  if (!options.report.empty()) write_report(options.report, reporter.report(result));
  if (options.json) {
    fmt::print("{}\n", reporter.report(result).dump(1));
  } else {
    print_closing(result, options);
  }
  return result.interrupted || result.untuned() > 0 ? kExitUntuned : kExitOk;
}

}  // namespace

void add_tune(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("tune", "Find the fastest kernel for each workload (default)");
  command->footer(
      "Examples:\n"
      "  w4tune --gpu auto                       tune Pi0.5's MLPs on the GPU that is here\n"
      "  w4tune --gpu a40                        measure on an A40, or predict for one\n"
      "  w4tune --m 10,50 --shape 4096,1024 --budget 30s\n"
      "  w4tune --explain --m 10                 what the search space keeps, and why\n"
      "  w4tune --dependent --db chain.db        for serving with dependent_launch\n"
      "  w4tune --devices all                    a process for each GPU that is here\n"
      "  w4tune --shard 2/8 --db shard_2.db      the second of eight parts, for a cluster\n"
      "The same command again goes on where a killed run stopped.");
  command->add_option("--gpu", options->gpu, "auto, or one of: " + known_device_aliases())
      ->type_name("NAME")
      ->capture_default_str();
  add_plan_options(*command, options->plan);
  add_db_option(*command, options->db);
  command->add_option("--report", options->report, "Write a JSON report, and a summary beside it")
      ->type_name("FILE");
  command->add_option("--budget", options->budget, "Wall-clock limit of the run, e.g. 5m")
      ->type_name("TIME");
  command->add_option("--evaluations", options->evaluations, "Candidates measured for a workload")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  add_strategy_option(*command, options->strategy);
  std::vector<std::string> families_known;
  for (const Family* family : families()) families_known.emplace_back(family->id());
  command
      ->add_option("--family", options->families,
                   "Only these kernel families compete, e.g. --family mma_tile: in a cache of "
                   "their own, by --db")
      ->type_name("NAME,...")
      ->delimiter(',')
      ->check(CLI::IsMember(families_known));
  command
      ->add_option("--max-workspace", options->max_workspace,
                   "Limit of a split's partials and of dequant_cublas's scratch (0: neither)")
      ->type_name("SIZE")
      ->capture_default_str();
  command
      ->add_option("--shard", options->shard,
                   "Tune this part of the plan alone; 'w4tune merge' joins the files")
      ->type_name("I/N");
  command
      ->add_option("--devices", options->devices,
                   "Tune on several GPUs of one model, a process for each: 0,1,... or all")
      ->type_name("LIST");
  command->add_option("--member", options->member)->group("");  // see cli/fleet.h
  command->add_option("--threads", options->threads, "Compiler threads, of all GPUs together")
      ->check(CLI::Range(1, 1024))
      ->take_last()
      ->capture_default_str();
  command
      ->add_option("--seed", options->seed,
                   "Of the random operands and of the search; another seed measures anew")
      ->capture_default_str();
  command->add_flag("--explain", options->explain,
                    "Count what each constraint rejects; tune nothing");
  command->add_flag(
      "--dependent", options->dependent,
      "Tune for dependent launches (compute capability 9.0): in a cache of their own, "
      "by --db");
  command->add_flag("--verify-on-device", options->verify_on_device,
                    "Run predicted kernels (as PTX) on the GPU that is here, for correctness");
  command->add_flag("--no-baseline", options->no_baseline, "Do not measure cuBLASLt");
  command
      ->add_option("--device-dir", options->device_dir,
                   "Read device sources from here instead of the embedded ones")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory);
  add_cuda_path_option(*command);
  command->add_flag("--quiet", options->quiet, "Warnings and the closing lines only");
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune
