// The trials in a cache file of w4tune as recorded spaces.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>

#include "cache/store.h"
#include "templates/family.h"
#include "tuner/options.h"
#include "tuner/recorded.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// The trials of one family and one list of parameters.
struct Group {
  std::string family;
  std::vector<std::string> names;  // "split_k" and "raster" last, as in the family's space
  std::vector<Point> points;
  std::vector<double> costs;
};

Group& group_of(std::vector<Group>& groups, const Candidate& candidate) {
  std::vector<std::string> names;
  for (const auto& [name, value] : candidate.config.parameters) names.push_back(name);
  names.insert(names.end(), {"split_k", "raster"});
  for (Group& group : groups) {
    if (group.family == candidate.config.family && group.names == names) return group;
  }
  groups.push_back({candidate.config.family, std::move(names), {}, {}});
  return groups.back();
}

std::vector<Group> groups_of(const std::vector<Trial>& trials) {
  std::vector<Group> groups;
  for (const Trial& trial : trials) {
    Group& group = group_of(groups, trial.candidate);
    Point point;
    for (const auto& [name, value] : trial.candidate.config.parameters) point.push_back(value);
    point.insert(point.end(), {trial.candidate.schedule.split_k, trial.candidate.schedule.raster});
    group.points.push_back(std::move(point));
    group.costs.push_back(trial.outcome == Outcome::kOk ? trial.time_us_median() : kFailed);
  }
  return groups;
}

Space space_of(const Group& group) {
  std::vector<Parameter> parameters;
  for (std::size_t i = 0; i < group.names.size(); ++i) {
    std::set<int> values;
    for (const Point& point : group.points) values.insert(point[i]);
    parameters.push_back({group.names[i], {values.begin(), values.end()}});
  }
  return Space::of_points(std::move(parameters), group.points);
}

// What the cost model expects, where today's family still offers every point of the group.
std::function<double(const Point&)> model_of(const Group& group, const Workload& workload,
                                             const DeviceInfo& device) {
  const Family* family = find_family(group.family);
  if (family == nullptr || !family->why_not(workload.problem, device).empty()) return nullptr;
  const auto space = std::make_shared<const Space>(
      family->space(workload, device, TuneOptions{}.max_workspace_bytes));
  const auto& parameters = space->parameters();
  const bool same_names = std::equal(
      parameters.begin(), parameters.end(), group.names.begin(), group.names.end(),
      [](const Parameter& parameter, const std::string& name) { return parameter.name == name; });
  const bool is_known =
      same_names && std::all_of(group.points.begin(), group.points.end(),
                                [&](const Point& p) { return space->contains(p); });
  if (!is_known) return nullptr;
  return [=](const Point& point) {
    return family->cost(candidate_at(*family, *space, point), workload, device).total_us;
  };
}

RecordedSpace recorded_of(const TrialSet& set, const std::vector<Trial>& trials) {
  RecordedSpace recorded;
  recorded.name = fmt::format("{} on {}", to_string(set.workload), set.run.device.name);
  for (Group& group : groups_of(trials)) {
    const std::size_t space = recorded.spaces.size();
    for (std::size_t i = 0; i < group.points.size(); ++i) {
      recorded.costs.emplace(Choice{space, group.points[i]}, group.costs[i]);
    }
    recorded.spaces.push_back(space_of(group));
    recorded.expected.push_back(model_of(group, set.workload, set.run.device));
  }
  return recorded;
}

}  // namespace

std::vector<RecordedSpace> read_recorded_trials(const std::string& path) {
  Store store = Store::open(path, Store::Mode::kReadOnly);
  std::vector<RecordedSpace> spaces;
  for (TrialSet& set : store.trial_sets()) {
    set.run.device.calibration = store.calibration(set.run.device);
    RecordedSpace recorded = recorded_of(set, store.trials(store.begin_run(set.run), set.workload));
    if (recorded.best() < kFailed) spaces.push_back(std::move(recorded));
  }
  if (spaces.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} holds no trial that worked: a file that only predicts or was "
                            "exported has none. Tune on a GPU with --db {} first.",
                            path, path));
  }
  return spaces;
}

}  // namespace w4tune
