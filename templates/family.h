// Family: one kernel template and its description. Everything the tuner knows of a kernel comes
// from here: its space, its source text, its footprint and its predicted time.
//
// Stateless and immutable: safe to use from any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/compilation.h"
#include "core/device_info.h"
#include "core/launch_plan.h"
#include "core/problem.h"
#include "core/trial.h"
#include "search/space.h"
#include "templates/cost.h"

namespace w4tune {

class Family {
 public:
  virtual ~Family() = default;

  [[nodiscard]] virtual std::string_view id() const = 0;  // stable: the cache stores it
  [[nodiscard]] virtual int version() const = 0;  // raised when the meaning of a parameter changes

  // "" when the family can compute the problem on the device, else the reason why it can't.
  [[nodiscard]] virtual std::string why_not(const Problem& problem,
                                            const DeviceInfo& device) const = 0;

  // Compile-time parameters first, then "split_k" and "raster". `max_workspace_bytes` bounds the
  // FP32 partials of a split.
  [[nodiscard]] virtual Space space(const Workload& workload, const DeviceInfo& device,
                                    std::size_t max_workspace_bytes) const = 0;

  // The same computation without cache hints, which change no result but may not survive the
  // translation of one GPU's code for another: what runs when kernels of a GPU that is not here are
  // verified on the one that is.
  [[nodiscard]] virtual KernelConfig without_hints(const KernelConfig& config) const {
    return config;
  }

  [[nodiscard]] virtual Footprint footprint(const KernelConfig& config,
                                            const Problem& problem) const = 0;

  // The dozen lines that instantiate the template. Depends on the problem's op, dtype and group
  // size alone, never on N, K or M.
  [[nodiscard]] virtual std::string source(const KernelConfig& config,
                                           const Problem& problem) const = 0;

  [[nodiscard]] virtual Cost cost(const Candidate& candidate, const Workload& workload,
                                  const DeviceInfo& device) const = 0;
};

// All families; the pointers live as long as the program.
std::span<const Family* const> families();
// nullptr when there is no such family.
const Family* find_family(std::string_view id);

// A point of a family's space as a Candidate, and back. Requires a point of that very space.
Candidate candidate_at(const Family& family, const Space& space, const Point& point);
Point point_of(const Space& space, const Candidate& candidate);

// The device text of all families as NVRTC gets it.
struct DeviceSources {
  std::vector<Header> headers;
  std::string utilities;  // templates/device/utility.cu
  std::string hash;       // of the headers and the families' versions: what the cache knows them by
};

// Reads the embedded text, or that of `device_dir` if it is not empty (to try an edited kernel
// without a rebuild). Throws Error{kNotFound} naming the file that can't be read.
DeviceSources device_sources_from(const std::string& device_dir);

}  // namespace w4tune
