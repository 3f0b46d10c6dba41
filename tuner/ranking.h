// Ranking: the points of all families for one workload, likeliest first by the cost model.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "core/device_info.h"
#include "core/problem.h"
#include "search/space.h"
#include "templates/family.h"

namespace w4tune {

struct RankedPoint {
  Point point;
  double predicted_us = 0.0;
};

// What one family offers for one workload.
struct Ranking {
  const Family* family = nullptr;
  Space space;
  std::vector<RankedPoint> points;  // ascending by predicted_us
  std::map<std::string, std::uint64_t> rejected;
  std::uint64_t raw_count = 0;
};

// At most `keep` points survive, and of those that share tiles and split at most `alike`: the model
// is too coarse to tell those apart, and the neighbours of a good one are searched anyway.
Ranking rank(const Family& family, const Workload& workload, const DeviceInfo& device,
             std::size_t max_workspace_bytes, std::size_t keep = 256, int alike = 4);

// The rankings of all workloads by the first family that serves each, computed on `threads`
// threads. Throws Error{kInvalidArgument} for a workload that no family serves, with the reasons.
std::vector<Ranking> rank_all(const std::vector<Workload>& workloads, const DeviceInfo& device,
                              std::size_t max_workspace_bytes, int threads);

}  // namespace w4tune
