// Session: what every strategy keeps while it searches: the budget, what was evaluated, whose share
// is due.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "search/strategy.h"

namespace w4tune {

// Shares that add up to more than the whole are cut to equal ones.
double possible_share(double least_share, std::size_t contenders);

// Spaces of up to so many points are enumerated as a whole; of larger ones points are drawn.
inline constexpr std::size_t kMostEnumerated = 131'072;

// The points of all spaces together, in random order; of a space too large to enumerate as many as
// the budget has evaluations.
std::vector<Choice> random_choices(std::span<const Contender> contenders, const Budget& budget);

class Session {
 public:
  // A search without a contender is a programmer's error.
  Session(std::span<const Contender> contenders, const Budget& budget, Evaluator& evaluator);

  // Announces and evaluates the choices not seen yet, until `limit` evaluations were made in all.
  // Returns false when the search must end.
  bool evaluate(std::span<const Choice> choices, int limit);
  bool evaluate(std::span<const Choice> choices) { return evaluate(choices, budget_.evaluations); }
  // One choice; `soon` is announced with it: what may be asked for next.
  bool evaluate(const Choice& choice, std::span<const Choice> soon);

  [[nodiscard]] int count() const { return static_cast<int>(result_.evaluations.size()); }
  [[nodiscard]] bool has_more() const { return !result_.stopped && count() < budget_.evaluations; }
  [[nodiscard]] const std::vector<Evaluation>& evaluations() const { return result_.evaluations; }
  // Empty where the choice was not evaluated.
  [[nodiscard]] std::optional<double> cost(const Choice& choice) const;
  // How many evaluations a space lacks of its least share once `soon` evaluations are made.
  [[nodiscard]] std::size_t due(std::size_t space, int soon) const;

  [[nodiscard]] std::span<const Contender> contenders() const { return contenders_; }
  [[nodiscard]] const Space& space(std::size_t index) const { return *contenders_[index].space; }
  [[nodiscard]] const Budget& budget() const { return budget_; }

  SearchResult take() { return std::move(result_); }

 private:
  [[nodiscard]] bool out_of_time() const;
  bool run(const Choice& choice);

  std::span<const Contender> contenders_;
  const Budget& budget_;
  Evaluator& evaluator_;
  double least_share_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::vector<int> counts_;  // evaluations by space
  std::map<Choice, double> costs_;
  SearchResult result_;
};

}  // namespace w4tune
