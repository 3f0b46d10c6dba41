// Retime: winners of one workload that come from several cache files, measured again in turns on
// the GPU that is here, so that a drift of the GPU and the differences between runs meet all alike.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/device_info.h"
#include "core/winner.h"
#include "tuner/gpu_session.h"
#include "tuner/measure.h"
#include "tuner/protocol.h"

namespace w4tune {

struct Entrant {
  Winner winner;
  std::string cubin;
};

class Retimer {
 public:
  // On GPU `ordinal`, which is `device`, with scratch for kernels and composites of
  // `workspace_bytes`.
  Retimer(int ordinal, DeviceInfo device, const Protocol& protocol, std::size_t workspace_bytes);

  // What an entrant needs of the workspace.
  static std::size_t workspace_for(const Winner& winner);

  // Final samples of what each entrant serves with, its composite where it has one (and cuBLASLt is
  // here), else its kernel; none of one that is wrong. Throws Error{kDevice} where one crashes.
  std::vector<Samples> time(const std::vector<Entrant>& entrants);

 private:
  DeviceInfo device_;
  Protocol protocol_;
  GpuSession gpu_;
};

}  // namespace w4tune
