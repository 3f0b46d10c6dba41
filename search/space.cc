#include "search/space.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <set>

#include "core/check.h"

namespace w4tune {
namespace {

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();
// A draw that has met no valid point after so many nodes gives up.
constexpr std::uint64_t kVisitsPerDraw = 1'000'000;
// Points are drawn again where they repeat, up to so many draws for each point wanted.
constexpr std::size_t kDrawsPerPoint = 4;

}  // namespace

Space::Space(std::vector<Parameter> parameters, std::vector<Constraint> constraints)
    : parameters_(std::move(parameters)), constraints_(std::move(constraints)) {
  choose_order();
  checks_.resize(parameters_.size());
  for (std::size_t i = 0; i < constraints_.size(); ++i) {
    Check check{i, {}};
    std::size_t last = 0;
    for (const std::string& name : constraints_[i].reads) {
      check.reads.push_back(index(name));
      const auto at = std::find(order_.begin(), order_.end(), check.reads.back());
      last = std::max(last, static_cast<std::size_t>(at - order_.begin()));
    }
    checks_[last].push_back(std::move(check));
  }
  subtree_counts_.assign(parameters_.size() + 1, 1);
  for (std::size_t depth = parameters_.size(); depth-- > 0;) {
    subtree_counts_[depth] = subtree_counts_[depth + 1] * parameters_[order_[depth]].values.size();
  }
}

// Parameters are chosen in the order that lets constraints cut soonest: again and again those that
// the cheapest constraint still lacks, by the number of their combinations.
void Space::choose_order() {
  std::vector<char> placed(parameters_.size(), 0);
  std::vector<std::vector<std::size_t>> lacking;
  for (const Constraint& constraint : constraints_) {
    std::vector<std::size_t> reads;
    for (const std::string& name : constraint.reads) reads.push_back(index(name));
    std::sort(reads.begin(), reads.end());
    reads.erase(std::unique(reads.begin(), reads.end()), reads.end());
    // What reads one parameter cuts as soon, whenever that is chosen.
    if (reads.size() > 1) lacking.push_back(std::move(reads));
  }
  const auto place = [&](std::size_t parameter) {
    if (placed[parameter] != 0) return;
    placed[parameter] = 1;
    order_.push_back(parameter);
    for (auto& reads : lacking) std::erase(reads, parameter);
  };
  while (true) {
    const std::vector<std::size_t>* next = nullptr;
    double least = 0.0;
    for (const auto& reads : lacking) {
      if (reads.empty()) continue;
      double combinations = 1.0;
      for (const std::size_t parameter : reads) {
        combinations *= static_cast<double>(parameters_[parameter].values.size());
      }
      if (next != nullptr && combinations >= least) continue;
      next = &reads;
      least = combinations;
    }
    if (next == nullptr) break;
    for (const std::size_t parameter : std::vector<std::size_t>(*next)) place(parameter);
  }
  for (std::size_t parameter = 0; parameter < parameters_.size(); ++parameter) place(parameter);
}

Space Space::of_points(std::vector<Parameter> parameters, std::vector<Point> points) {
  std::sort(points.begin(), points.end());
  const auto sorted = std::make_shared<const std::vector<Point>>(std::move(points));
  // One rule for each prefix, so that a walk never leaves the points.
  const auto begins_one = [sorted](std::span<const int> prefix) {
    const auto less = [](const Point& point, std::span<const int> key) {
      return std::lexicographical_compare(point.begin(), point.end(), key.begin(), key.end());
    };
    const auto at = std::lower_bound(sorted->begin(), sorted->end(), prefix, less);
    return at != sorted->end() && std::equal(prefix.begin(), prefix.end(), at->begin());
  };
  std::vector<Constraint> constraints;
  std::vector<std::string> prefix;
  for (const Parameter& parameter : parameters) {
    prefix.push_back(parameter.name);
    constraints.push_back({"not among the points", prefix, begins_one});
  }
  return {std::move(parameters), std::move(constraints)};
}

std::size_t Space::index(std::string_view name) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].name == name) return i;
  }
  W4_CHECK(false, "no such parameter in this space");
}

bool Space::holds(const Check& check, const Point& point) const {
  std::vector<int> values;
  values.reserve(check.reads.size());
  for (const std::size_t i : check.reads) values.push_back(point[i]);
  return constraints_[check.constraint].holds(values);
}

// A walk over the valid points, depth first, value by value.
struct Space::Walk {
  Point point;
  std::function<bool(const Point&)> take;                         // false ends the walk
  std::function<void(const Check&, std::uint64_t count)> reject;  // raw points a check cuts
  Random* random = nullptr;                                       // values come in random order
  std::uint64_t visits = 0;                                       // of nodes
  std::uint64_t most_visits;                                      // ends the walk
  bool ended = false;
};

void Space::descend(std::size_t depth, Walk& walk) const {
  if (depth == parameters_.size()) {
    walk.ended = !walk.take(walk.point);
    return;
  }
  std::vector<int> values = parameters_[order_[depth]].values;
  if (walk.random != nullptr) walk.random->shuffle(values);
  for (const int value : values) {
    if (++walk.visits > walk.most_visits) walk.ended = true;
    if (walk.ended) return;
    walk.point[order_[depth]] = value;
    const auto broken = std::find_if(checks_[depth].begin(), checks_[depth].end(),
                                     [&](const Check& check) { return !holds(check, walk.point); });
    if (broken != checks_[depth].end()) {
      if (walk.reject) walk.reject(*broken, subtree_counts_[depth + 1]);
      continue;
    }
    descend(depth + 1, walk);
  }
}

Enumeration Space::enumerate() const {
  Enumeration result;
  result.raw_count = subtree_counts_[0];
  const auto take = [&](const Point& point) {
    result.points.push_back(point);
    return true;
  };
  const auto reject = [&](const Check& check, std::uint64_t count) {
    result.rejected[constraints_[check.constraint].reason] += count;
  };
  Walk walk{Point(parameters_.size()), take, reject, nullptr, 0, kUnlimited};
  descend(0, walk);
  // Values ascend, so the order of values is that of their positions.
  if (!std::is_sorted(order_.begin(), order_.end())) {
    std::sort(result.points.begin(), result.points.end());
  }
  return result;
}

void Space::for_each(const std::function<bool(const Point&)>& take) const {
  Walk walk{Point(parameters_.size()), take, {}, nullptr, 0, kUnlimited};
  descend(0, walk);
}

std::vector<Point> Space::points(std::size_t most, std::size_t drawn, Random& random) const {
  std::vector<Point> result;
  for_each([&](const Point& point) {
    result.push_back(point);
    return result.size() <= most;
  });
  if (result.size() <= most) {
    std::sort(result.begin(), result.end());
    return result;
  }
  std::set<Point> some;
  for (std::size_t tries = 0; some.size() < drawn && tries < kDrawsPerPoint * drawn; ++tries) {
    if (auto point = draw(random)) some.insert(std::move(*point));
  }
  return {some.begin(), some.end()};
}

std::optional<Point> Space::draw(Random& random) const {
  std::optional<Point> drawn;
  const auto take = [&](const Point& point) {
    drawn = point;
    return false;
  };
  Walk walk{Point(parameters_.size()), take, {}, &random, 0, kVisitsPerDraw};
  descend(0, walk);
  return drawn;
}

std::string Space::why_not(const Point& point) const {
  W4_CHECK(point.size() == parameters_.size(), "a point has one value per parameter");
  for (std::size_t i = 0; i < point.size(); ++i) {
    const auto& values = parameters_[i].values;
    if (std::find(values.begin(), values.end(), point[i]) == values.end()) {
      return parameters_[i].name + ": value not in the space";
    }
  }
  for (const auto& checks : checks_) {
    for (const Check& check : checks) {
      if (!holds(check, point)) return constraints_[check.constraint].reason;
    }
  }
  return {};
}

std::vector<Point> Space::neighbours(const Point& point) const {
  struct Step {
    std::size_t distance;  // in positions of the value list
    Point point;
  };
  std::vector<Step> steps;
  for (std::size_t i = 0; i < point.size(); ++i) {
    const auto& values = parameters_[i].values;
    const auto at = std::find(values.begin(), values.end(), point[i]) - values.begin();
    for (std::size_t j = 0; j < values.size(); ++j) {
      if (values[j] == point[i]) continue;
      Point other = point;
      other[i] = values[j];
      if (!contains(other)) continue;
      const auto distance = static_cast<std::size_t>(std::abs(static_cast<long>(j) - at));
      steps.push_back({distance, std::move(other)});
    }
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& a, const Step& b) { return a.distance < b.distance; });
  std::vector<Point> result;
  result.reserve(steps.size());
  for (Step& step : steps) result.push_back(std::move(step.point));
  return result;
}

}  // namespace w4tune
