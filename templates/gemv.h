// gemv: the family on CUDA cores (templates/device/gemv.cuh), for up to 8 tokens. The control:
// what tensor cores are worth at few tokens shows against it.
#pragma once

#include "templates/family.h"

namespace w4tune {

class Gemv final : public Family {
 public:
  [[nodiscard]] std::string_view id() const override { return "gemv"; }
  [[nodiscard]] int version() const override { return 1; }
  [[nodiscard]] std::string why_not(const Problem& problem,
                                    const DeviceInfo& device) const override;
  [[nodiscard]] Space space(const Workload& workload, const DeviceInfo& device,
                            std::size_t max_workspace_bytes) const override;
  [[nodiscard]] Footprint footprint(const KernelConfig& config,
                                    const Problem& problem) const override;
  [[nodiscard]] std::string source(const KernelConfig& config,
                                   const Problem& problem) const override;
  [[nodiscard]] Cost cost(const Candidate& candidate, const Workload& workload,
                          const DeviceInfo& device) const override;
};

}  // namespace w4tune
