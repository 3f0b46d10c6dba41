#include "tuner/defaults.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "cache/store.h"
#include "cache/temporary_file.h"
#include "core/device_info.h"
#include "templates/family.h"
#include "tuner/compiler.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// Depth steps of 64 divide every K. Scales on the sums (dequant=1) are cheaper for few tokens and
// the only way with one scale for each output.
struct DefaultKernel {
  int m;  // the largest M it is meant for; the last one serves all beyond
  const char* config;
};
constexpr std::array kGrouped = {
    DefaultKernel{16,
                  "mma_pipe row_tile=64 token_tile=16 depth_tile=64 stages=6 row_warps=4 "
                  "token_warps=1 depth_warps=1 dequant=1 reduce=0 evict_first=0"},
    DefaultKernel{64,
                  "mma_pipe row_tile=128 token_tile=64 depth_tile=64 stages=4 row_warps=4 "
                  "token_warps=1 depth_warps=1 dequant=0 reduce=0 evict_first=0"},
};
constexpr std::array kPerOutput = {
    kGrouped[0],
    DefaultKernel{64,
                  "mma_pipe row_tile=128 token_tile=64 depth_tile=64 stages=4 row_warps=4 "
                  "token_warps=1 depth_warps=1 dequant=1 reduce=0 evict_first=0"},
};

// Kernels depend on op, dtype and group alone, so any N and K stand for all.
constexpr int kExampleN = 4096;
constexpr int kExampleK = 4096;

std::vector<Problem> examples() {
  std::vector<Problem> problems;
  for (const Op op : {Op::kGemm, Op::kGeglu}) {
    for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
      for (const int group : {32, 64, 128, kExampleK}) {
        problems.push_back({op, kExampleN, kExampleK, group, dtype});
      }
    }
  }
  return problems;
}

// What every GPU that runs code for `sm` has: the least shared memory among them.
DeviceInfo any_gpu(int sm) {
  DeviceInfo device;
  device.name = fmt::format("any GPU of compute capability {}.x", sm / 10);
  device.sm = sm;
  device.smem_block_bytes = std::size_t{99} << 10;
  device.smem_sm_bytes = std::size_t{100} << 10;
  return device;
}

Winner default_winner(const Problem& problem, const DefaultKernel& kernel, Compiler& compiler) {
  Winner winner;
  winner.problem = problem;
  winner.m = kernel.m;
  winner.provenance = Provenance::kPredicted;
  winner.candidate = {parse_kernel_config(kernel.config), {1, 1}};
  winner.footprint =
      find_family(winner.candidate.config.family)->footprint(winner.candidate.config, problem);
  const Compilation& compilation = compiler.get(winner.candidate.config, problem);
  if (!compilation.ok() || compilation.spill_bytes > 0) {
    throw Error(ErrorCode::kInternal,
                fmt::format("the default kernel '{}' of {} does not compile for {}, or spills: {}",
                            kernel.config, to_string(problem), compiler.arch(), compilation.log));
  }
  winner.compilation_key = compilation.key;
  winner.registers = compilation.registers;
  return winner;
}

}  // namespace

DefaultsSummary write_defaults(const std::string& path, int threads,
                               const std::function<void(const std::string&)>& progress) {
  const TemporaryFile work(path + ".work");  // filled, then exported
  DefaultsSummary summary;
  {
    Store store = Store::open(work.path(), Store::Mode::kReadWrite);
    const std::vector<Problem> problems = examples();
    for (const int sm : {80, 90}) {
      TuneOptions options;
      options.device = any_gpu(sm);
      Compiler compiler(arch_name(sm), "", threads, &store);
      const std::int64_t run = store.begin_run(describe_run(options, compiler.source_hash()));
      const auto kernels_of = [](const Problem& problem) {
        return problem.group_size == problem.k ? kPerOutput : kGrouped;
      };
      for (const Problem& problem : problems) {
        for (const DefaultKernel& kernel : kernels_of(problem)) {
          compiler.announce(parse_kernel_config(kernel.config), problem);
        }
      }
      std::size_t done = 0;
      for (const Problem& problem : problems) {
        std::vector<Winner> winners;
        for (const DefaultKernel& kernel : kernels_of(problem)) {
          winners.push_back(default_winner(problem, kernel, compiler));
          ++summary.kernels;
        }
        store.put_winners(run, problem, winners);
        progress(fmt::format("{}: {} of {} problems", compiler.arch(), ++done, problems.size()));
      }
      store.put_device_kernel(options.device, "utility", compiler.utilities());
      ++summary.architectures;
    }
    store.export_to(path);
  }
  return summary;
}

}  // namespace w4tune
