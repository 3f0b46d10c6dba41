#include "search/session.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/check.h"

namespace w4tune {

double possible_share(double least_share, std::size_t contenders) {
  return std::min(least_share, 1.0 / static_cast<double>(contenders));
}

std::vector<Choice> random_choices(std::span<const Contender> contenders, const Budget& budget) {
  Random random(budget.seed);
  std::vector<Choice> choices;
  const auto drawn = static_cast<std::size_t>(std::max(0, budget.evaluations));
  for (std::size_t space = 0; space < contenders.size(); ++space) {
    for (Point& point : contenders[space].space->points(kMostEnumerated, drawn, random)) {
      choices.push_back({space, std::move(point)});
    }
  }
  random.shuffle(choices);
  return choices;
}

Session::Session(std::span<const Contender> contenders, const Budget& budget, Evaluator& evaluator)
    : contenders_(contenders),
      budget_(budget),
      evaluator_(evaluator),
      least_share_(possible_share(budget.least_share, contenders.size())),
      counts_(contenders.size(), 0) {
  W4_CHECK(!contenders.empty(), "a search needs a space");
}

bool Session::out_of_time() const {
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  return budget_.seconds > 0.0 && elapsed.count() > budget_.seconds;
}

bool Session::run(const Choice& choice) {
  if (budget_.stop() || out_of_time()) {
    result_.stopped = true;
    return false;
  }
  const double cost = evaluator_.evaluate(choice);
  result_.evaluations.push_back({choice, cost});
  costs_.emplace(choice, cost);
  ++counts_[choice.space];
  return true;
}

bool Session::evaluate(std::span<const Choice> choices, int limit) {
  std::vector<Choice> fresh;
  std::set<Choice> taken;
  const auto room = static_cast<std::size_t>(std::max(0, limit - count()));
  for (const Choice& choice : choices) {
    if (fresh.size() == room) break;
    const bool is_new = costs_.count(choice) == 0 && space(choice.space).contains(choice.point);
    if (is_new && taken.insert(choice).second) fresh.push_back(choice);
  }
  evaluator_.announce(fresh);
  for (const Choice& choice : fresh) {
    if (!run(choice)) return false;
  }
  return has_more();
}

bool Session::evaluate(const Choice& choice, std::span<const Choice> soon) {
  evaluator_.announce(soon);
  return run(choice) && has_more();
}

std::optional<double> Session::cost(const Choice& choice) const {
  const auto known = costs_.find(choice);
  return known == costs_.end() ? std::nullopt : std::optional(known->second);
}

std::size_t Session::due(std::size_t space, int soon) const {
  const double due = std::ceil(least_share_ * soon) - counts_[space];
  return due <= 0.0 ? 0 : static_cast<std::size_t>(due);
}

}  // namespace w4tune
