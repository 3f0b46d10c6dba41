// Ranking: what each family offers for one workload, likeliest first by the cost model.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/device_info.h"
#include "core/problem.h"
#include "search/space.h"
#include "search/strategy.h"
#include "templates/family.h"

namespace w4tune {

// What one family offers for one workload.
struct Ranking {
  const Family* family = nullptr;
  Space space;
  std::vector<RankedPoint> points;  // ascending by expected cost, in microseconds
  std::map<std::string, std::uint64_t> rejected;
  std::uint64_t raw_count = 0;
};

// At most `keep` points survive, and of those that share tiles and split at most `alike`: the model
// is too coarse to tell those apart, and the neighbours of a good one are searched anyway.
Ranking rank(const Family& family, const Workload& workload, const DeviceInfo& device,
             std::size_t max_workspace_bytes, std::size_t keep = 256, int alike = 6);

// The families that compete for one workload.
using Rankings = std::vector<Ranking>;

// Throws Error{kInvalidArgument} for a workload that no family serves, or none of those named in
// `only` where it is not empty, with the reasons.
void require_families(const std::vector<Workload>& workloads, const DeviceInfo& device,
                      std::span<const std::string> only);

// The rankings of all workloads by every family that serves them, computed on `threads` threads.
// Throws as require_families() does.
std::vector<Rankings> rank_all(const std::vector<Workload>& workloads, const DeviceInfo& device,
                               std::size_t max_workspace_bytes, int threads,
                               std::span<const std::string> only = {});

// As the search takes them; `rankings` outlives the result.
std::vector<Contender> contenders_of(const Rankings& rankings, const Workload& workload,
                                     const DeviceInfo& device);

// The choices of all families, least predicted time first.
std::vector<Choice> by_prediction(const Rankings& rankings);

Candidate candidate_at(const Rankings& rankings, const Choice& choice);
// The choices that stand for a candidate of another workload: itself where its point is offered,
// else those nearest to it, one or two parameters away (other tokens want another token tile). None
// where its family or nothing so near is offered.
std::vector<Choice> choices_near(const Rankings& rankings, const Candidate& candidate);

}  // namespace w4tune
