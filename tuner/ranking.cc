#include "tuner/ranking.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>

#include "w4tune/error.h"

namespace w4tune {
namespace {

const Family& family_for(const Problem& problem, const DeviceInfo& device) {
  std::string reasons;
  for (const Family* family : families()) {
    const std::string reason = family->why_not(problem, device);
    if (reason.empty()) return *family;
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", family->id(), reason);
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("no kernel family serves {} on {}: {}. Leave it out of the plan.",
                          to_string(problem), device.name, reasons));
}

}  // namespace

Ranking rank(const Family& family, const Workload& workload, const DeviceInfo& device,
             std::size_t max_workspace_bytes, std::size_t keep, int alike) {
  Ranking ranking{&family, family.space(workload, device, max_workspace_bytes), {}, {}, 0};
  Enumeration all = ranking.space.enumerate();
  ranking.rejected = std::move(all.rejected);
  ranking.raw_count = all.raw_count;
  std::vector<RankedPoint> points;
  points.reserve(all.points.size());
  for (Point& point : all.points) {
    const Candidate candidate = candidate_at(family, ranking.space, point);
    const double predicted = family.cost(candidate, workload, device).total_us;
    points.push_back({std::move(point), predicted});
  }
  std::stable_sort(points.begin(), points.end(), [](const RankedPoint& a, const RankedPoint& b) {
    return a.predicted_us < b.predicted_us;
  });
  std::map<std::vector<int>, int> seen;
  for (RankedPoint& ranked : points) {
    if (ranking.points.size() == keep) break;
    const Candidate candidate = candidate_at(family, ranking.space, ranked.point);
    const Footprint footprint = family.footprint(candidate.config, workload.problem);
    int& count = seen[{footprint.row_tile, footprint.token_tile, candidate.schedule.split_k}];
    if (++count <= alike) ranking.points.push_back(std::move(ranked));
  }
  return ranking;
}

std::vector<Ranking> rank_all(const std::vector<Workload>& workloads, const DeviceInfo& device,
                              std::size_t max_workspace_bytes, int threads) {
  for (const Workload& workload : workloads) family_for(workload.problem, device);  // may throw
  std::vector<std::optional<Ranking>> found(workloads.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < workloads.size(); i = next++) {
      found[i] =
          rank(family_for(workloads[i].problem, device), workloads[i], device, max_workspace_bytes);
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < std::max(1, threads); ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  std::vector<Ranking> rankings;
  rankings.reserve(found.size());
  for (auto& ranking : found) rankings.push_back(std::move(*ranking));
  return rankings;
}

}  // namespace w4tune
