// One GEMM kernel on the host twin: operands in allocations of exactly their size, a launch as the
// runtime would make it, and a judgement. Shared by the tests of all families.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/gemm_args.h"
#include "core/launch_plan.h"
#include "core/problem.h"
#include "templates/device/ptx_sm90.cuh"
#include "templates/family.h"
#include "tests/runtime/reference.h"
#include "tests/twin/host_twin.h"
#include "tuner/operands.h"

namespace w4tune {

// A kernel compiled for the host, and what its family says of it.
struct TwinKernel {
  const Family* family;
  KernelConfig config;
  Op op;
  Dtype dtype;
  int group_size;  // 0: one scale per row
  void (*body)(const w4::GemmArgs& args, const w4::TensorMap& tokens, const w4::TensorMap& weights);

  [[nodiscard]] std::string name() const;
  [[nodiscard]] Footprint footprint() const;
  [[nodiscard]] Problem problem(int n, int k) const;
};

// How a launch is made, beyond M.
struct TwinLaunch {
  Schedule schedule{};
  w4::twin::Order order = w4::twin::Order::kForward;
  std::uint64_t seed = 0;
  std::optional<w4::twin::Removal> removal = std::nullopt;
  bool dependent = false;
};

struct TwinOutcome {
  std::string wrong;  // empty when the run was without fault and y is within its bounds
  double worst_ratio = 0.0;
  std::vector<std::uint16_t> y;  // [m, ldy]
  w4::twin::Report report;
};

class GemmOnTwin {
 public:
  GemmOnTwin(const TwinKernel& kernel, int n, int k, int max_m, DataKind kind = DataKind::kPlain);

  [[nodiscard]] TwinOutcome run(int m, const TwinLaunch& launch) const;

 private:
  TwinKernel kernel_;
  Problem problem_;
  HostOperands host_;
  std::vector<std::uint32_t> weight_;
  std::vector<std::uint16_t> scales_;
  samples::Reference expected_;
};

}  // namespace w4tune
