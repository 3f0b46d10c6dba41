// wgmma: the sm_90 family for many tokens, persistent CTAs fed by the copy engine
// (templates/device/wgmma.cuh).
#pragma once

#include "templates/family.h"

namespace w4tune {

class WgmmaTiles final : public Family {
 public:
  [[nodiscard]] std::string_view id() const override { return "wgmma"; }
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
