#include "search/space.h"

#include <algorithm>
#include <cstdlib>

#include "core/check.h"

namespace w4tune {

Space::Space(std::vector<Parameter> parameters, std::vector<Constraint> constraints)
    : parameters_(std::move(parameters)), constraints_(std::move(constraints)) {
  checks_.resize(parameters_.size());
  for (std::size_t i = 0; i < constraints_.size(); ++i) {
    Check check{i, {}};
    std::size_t last = 0;
    for (const std::string& name : constraints_[i].reads) {
      check.reads.push_back(index(name));
      last = std::max(last, check.reads.back());
    }
    checks_[last].push_back(std::move(check));
  }
  subtree_counts_.assign(parameters_.size() + 1, 1);
  for (std::size_t depth = parameters_.size(); depth-- > 0;) {
    subtree_counts_[depth] = subtree_counts_[depth + 1] * parameters_[depth].values.size();
  }
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

void Space::descend(std::size_t depth, Point& point, Enumeration& into) const {
  if (depth == parameters_.size()) {
    into.points.push_back(point);
    return;
  }
  for (const int value : parameters_[depth].values) {
    point[depth] = value;
    const auto broken = std::find_if(checks_[depth].begin(), checks_[depth].end(),
                                     [&](const Check& check) { return !holds(check, point); });
    if (broken != checks_[depth].end()) {
      into.rejected[constraints_[broken->constraint].reason] += subtree_counts_[depth + 1];
      continue;
    }
    descend(depth + 1, point, into);
  }
}

Enumeration Space::enumerate() const {
  Enumeration result;
  result.raw_count = subtree_counts_[0];
  Point point(parameters_.size());
  descend(0, point, result);
  return result;
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
