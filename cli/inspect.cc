// w4tune inspect: one candidate from source to lower bound; compiles, needs no GPU.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/options.h"
#include "templates/cost.h"
#include "tuner/compiler.h"
#include "tuner/ranking.h"
#include "tuner/report.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

struct Options {
  std::string problem = "gemm_n16384_k2048_g128_f16";
  std::string op;
  int m = 10;
  std::string gpu = "auto";
  std::string config;
  int split_k = 1;
  int raster = 1;
  std::string device_dir;
  std::string cubin;
  bool json = false;
};

Candidate chosen(const Options& options, const Workload& workload, const DeviceInfo& device) {
  constexpr std::size_t kWorkspace = std::size_t{64} << 20;
  if (options.config.empty()) {
    const Rankings rankings = rank_all({workload}, device, kWorkspace, 1).front();
    const std::vector<Choice> choices = by_prediction(rankings);
    if (choices.empty()) {
      throw Error(ErrorCode::kNotFound, fmt::format("the space of {} is empty on {}. See 'w4tune "
                                                    "--explain'.",
                                                    to_string(workload), device.name));
    }
    return candidate_at(rankings, choices.front());
  }
  Candidate candidate{parse_kernel_config(options.config), {options.split_k, options.raster}};
  const Family* family = find_family(candidate.config.family);
  if (family == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("family '{}' is not known.", candidate.config.family));
  }
  const std::string reason = family->why_not(workload.problem, device);
  if (!reason.empty()) throw Error(ErrorCode::kInvalidArgument, reason + ".");
  const Space space = family->space(workload, device, kWorkspace);
  for (const Parameter& parameter : space.parameters()) {
    const auto& given = candidate.config.parameters;
    const bool present = std::any_of(
        given.begin(), given.end(), [&](const auto& item) { return item.first == parameter.name; });
    if (!present && parameter.name != "split_k" && parameter.name != "raster") {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("--config lacks {}. Copy one from 'w4tune show'.", parameter.name));
    }
  }
  return candidate;
}

int run(const Options& options) {
  Workload workload{parse_problem(options.problem), options.m};
  if (!options.op.empty()) workload.problem.op = parse_op(options.op);
  const DeviceInfo device = find_target(options.gpu).device;
  const Candidate candidate = chosen(options, workload, device);
  const Family& family = *find_family(candidate.config.family);
  const Footprint footprint = family.footprint(candidate.config, workload.problem);
  const LaunchPlan plan =
      make_launch_plan(footprint, workload.problem, workload.m, candidate.schedule);
  const std::string source = family.source(candidate.config, workload.problem);
  Compiler compiler(arch_name(device.sm), options.device_dir, 1, nullptr);
  const Compilation& compilation = compiler.get(candidate.config, workload.problem);
  if (!compilation.ok()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} does not compile for {}:\n{}", to_string(candidate.config),
                            compiler.arch(), compilation.log));
  }
  if (!options.cubin.empty()) write_file(options.cubin, compilation.cubin);
  const Cost cost = family.cost(candidate, workload, device);
  const Rates rates = rates_of(device);
  const double floor = floor_us(workload, rates.dram_gbps, device.mma_tflops);
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"workload", to_string(workload)},
                                      {"gpu", device.name},
                                      {"candidate", to_string(candidate)},
                                      {"arch", compiler.arch()},
                                      {"registers", compilation.registers},
                                      {"spill_bytes", compilation.spill_bytes},
                                      {"smem_bytes", footprint.smem_bytes},
                                      {"threads", footprint.threads},
                                      {"grid", plan.grid},
                                      {"partial_bytes", plan.partial_bytes},
                                      {"cubin_bytes", compilation.cubin.size()},
                                      {"floor_us", floor},
                                      {"predicted_us", cost.total_us},
                                      {"dram_us", cost.dram_us},
                                      {"l2_us", cost.l2_us},
                                      {"mma_us", cost.mma_us},
                                      {"issue_us", cost.issue_us},
                                      {"latency_us", cost.latency_us},
                                      {"launch_us", cost.launch_us},
                                      {"reduce_us", cost.reduce_us},
                                      {"assumed", describe(rates, device)},
                                      {"source", source}}
                           .dump(1));
    return kExitOk;
  }
  fmt::print("{} on {}\n{}\n\n{}\n", to_string(workload), device.name, to_string(candidate),
             source);
  fmt::print("compiled for {}: {} registers, {} bytes spilled, {} bytes of cubin\n",
             compiler.arch(), compilation.registers, compilation.spill_bytes,
             compilation.cubin.size());
  fmt::print(
      "launch: {} blocks of {} threads, {} bytes of shared memory (limit {}), workspace {} bytes\n",
      plan.grid, plan.threads, plan.smem_bytes, device.smem_block_bytes, plan.partial_bytes);
  fmt::print(
      "lower bound {:.2f} us; predicted {:.2f} us = launch {:.2f} + reduction {:.2f} + a norm of "
      "DRAM {:.2f}, L2 {:.2f}, tensor cores {:.2f}, issue {:.2f}, latency {:.2f}\n",
      floor, cost.total_us, cost.launch_us, cost.reduce_us, cost.dram_us, cost.l2_us, cost.mma_us,
      cost.issue_us, cost.latency_us);
  for (const std::string& line : describe(rates, device)) fmt::print("assumed: {}\n", line);
  return kExitOk;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("inspect", "One candidate: source, resources, lower bound");
  command->footer(
      "Without --config, the cost model's first choice.\n"
      "Examples:\n"
      "  w4tune inspect --gpu a40 --problem gemm_n4096_k1024_g128_f16 --m 10\n"
      "  w4tune inspect --gpu a40 --m 16 --split-k 2 --config \"mma_pipe row_tile=128 "
      "token_tile=16\n"
      "      depth_tile=128 stages=4 row_warps=4 token_warps=1 depth_warps=2 dequant=1 reduce=0 "
      "evict_first=0\"");
  command->add_option("--problem", options->problem, "Problem")
      ->capture_default_str()
      ->type_name("TEXT");
  command->add_option("--op", options->op, "gemm or geglu in place of the problem's own")
      ->type_name("OP");
  command->add_option("--m", options->m, "Tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--gpu", options->gpu, "auto, or one of: " + known_device_aliases())
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option("--config", options->config, "Kernel configuration, as 'w4tune show' prints it")
      ->type_name("TEXT");
  command->add_option("--split-k", options->split_k, "With --config")->check(CLI::Range(1, 1024));
  command->add_option("--raster", options->raster, "With --config")->check(CLI::Range(1, 1 << 16));
  command->add_option("--cubin", options->cubin, "Write the cubin here")->type_name("FILE");
  command->add_option("--device-dir", options->device_dir, "Read device sources from here")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory);
  add_cuda_path_option(*command);
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune
