// The search strategy: the best of a ranking first, then the neighbours of what won.
//
// Knows no GPU and no GEMM: an Evaluator says what a point costs. Deterministic given its inputs.
#pragma once

#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "search/space.h"

namespace w4tune {

inline constexpr double kFailed = std::numeric_limits<double>::infinity();

class Evaluator {
 public:
  virtual ~Evaluator() = default;

  // Points that will probably be evaluated soon, likeliest first, so that they can be prepared.
  virtual void announce(std::span<const Point> points) = 0;

  // Cost of a point, lower is better; kFailed if it does not work. Called once per point.
  virtual double evaluate(const Point& point) = 0;
};

struct Budget {
  int evaluations = 64;
  // Share of the evaluations that goes to the ranking before neighbours are tried.
  double ranked_share = 0.45;
  // Asked before every evaluation; true ends the search (time is up, the user pressed Ctrl-C).
  std::function<bool()> stop = [] { return false; };
};

struct Evaluation {
  Point point;
  double cost = kFailed;
};

struct SearchResult {
  std::vector<Evaluation> evaluations;  // in the order they were made
  bool stopped = false;                 // the budget's stop() ended it
};

// Evaluates `seeds` (winners of nearby workloads), then `ranked` in order (likeliest first), then
// the unseen Hamming neighbours of the best point found, again from each new best, until the budget
// is spent or no neighbour is left. Points outside the space are skipped, repeated ones evaluated
// once.
SearchResult ranked_then_neighbours(const Space& space, std::span<const Point> seeds,
                                    std::span<const Point> ranked, const Budget& budget,
                                    Evaluator& evaluator);

}  // namespace w4tune
