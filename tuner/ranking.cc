#include "tuner/ranking.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>

#include "w4tune/error.h"

namespace w4tune {
namespace {

// Of one candidate: more would spend the evaluations on one idea.
constexpr std::size_t kMostNear = 3;

std::vector<const Family*> families_for(const Problem& problem, const DeviceInfo& device,
                                        std::span<const std::string> only) {
  std::vector<const Family*> serving;
  std::string reasons;
  for (const Family* family : families()) {
    if (!only.empty() && std::find(only.begin(), only.end(), family->id()) == only.end()) continue;
    const std::string reason = family->why_not(problem, device);
    if (reason.empty()) {
      serving.push_back(family);
    } else {
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", family->id(), reason);
    }
  }
  if (!serving.empty()) return serving;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("no kernel family serves {} on {}: {}. Leave it out of the plan.",
                          to_string(problem), device.name, reasons));
}

}  // namespace

void require_families(const std::vector<Workload>& workloads, const DeviceInfo& device,
                      std::span<const std::string> only) {
  for (const Workload& workload : workloads) families_for(workload.problem, device, only);
}

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
    return a.expected_cost < b.expected_cost;
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

std::vector<Rankings> rank_all(const std::vector<Workload>& workloads, const DeviceInfo& device,
                               std::size_t max_workspace_bytes, int threads,
                               std::span<const std::string> only) {
  struct Job {
    std::size_t workload;
    const Family* family;
    std::optional<Ranking> ranking;
  };
  std::vector<Job> jobs;
  for (std::size_t i = 0; i < workloads.size(); ++i) {
    for (const Family* family : families_for(workloads[i].problem, device, only)) {
      jobs.push_back({i, family, std::nullopt});
    }
  }
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < jobs.size(); i = next++) {
      Job& job = jobs[i];
      job.ranking = rank(*job.family, workloads[job.workload], device, max_workspace_bytes);
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < std::max(1, threads); ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  std::vector<Rankings> rankings(workloads.size());
  for (Job& job : jobs) rankings[job.workload].push_back(std::move(*job.ranking));
  return rankings;
}

std::vector<Contender> contenders_of(const Rankings& rankings, const Workload& workload,
                                     const DeviceInfo& device) {
  std::vector<Contender> contenders;
  contenders.reserve(rankings.size());
  for (const Ranking& ranking : rankings) {
    const auto expected = [&ranking, workload, device](const Point& point) {
      const Candidate candidate = candidate_at(*ranking.family, ranking.space, point);
      return ranking.family->cost(candidate, workload, device).total_us;
    };
    contenders.push_back({&ranking.space, ranking.points, expected});
  }
  return contenders;
}

std::vector<Choice> by_prediction(const Rankings& rankings) {
  std::vector<Contender> contenders;
  contenders.reserve(rankings.size());
  for (const Ranking& ranking : rankings)
    contenders.push_back({&ranking.space, ranking.points, {}});
  return merge_rankings(contenders, 0.0);
}

Candidate candidate_at(const Rankings& rankings, const Choice& choice) {
  const Ranking& ranking = rankings[choice.space];
  return candidate_at(*ranking.family, ranking.space, choice.point);
}

std::vector<Choice> choices_near(const Rankings& rankings, const Candidate& candidate) {
  std::vector<Choice> near;
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    if (rankings[i].family->id() != candidate.config.family) continue;
    const Space& space = rankings[i].space;
    const Point point = point_of(space, candidate);
    if (space.contains(point)) return {{i, point}};
    const auto add_all = [&](const Point& centre) {
      for (Point& found : space.neighbours(centre)) {
        Choice choice{i, std::move(found)};
        if (std::find(near.begin(), near.end(), choice) == near.end()) near.push_back(choice);
      }
    };
    add_all(point);
    for (std::size_t p = 0; near.empty() && p < point.size(); ++p) {
      for (const int value : space.parameters()[p].values) {
        Point changed = point;
        changed[p] = value;
        add_all(changed);
      }
    }
  }
  if (near.size() > kMostNear) near.resize(kMostNear);
  return near;
}

}  // namespace w4tune
