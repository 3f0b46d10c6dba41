// The surrogate-guided search: a Gaussian process for each space, the greatest expected improvement
// next. docs/search.md has the numbers behind the constants.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <set>

#include "search/gaussian_process.h"
#include "search/session.h"
#include "search/strategy.h"

namespace w4tune {
namespace {

// Evaluations before the process is asked: by ranking where there is one, else at random.
constexpr int kFirst = 8;
// Points drawn of a space too large to enumerate; neighbours of its best join them.
constexpr std::size_t kDrawn = 16'384;
// The process is fitted anew after this many trials more, relative to those there were.
constexpr double kRefit = 0.25;
constexpr std::size_t kLeastRefit = 4;
// Trials times candidates that the process may judge: with more trials it judges fewer candidates,
// those it thought likeliest, the neighbours of the best and some others.
constexpr std::size_t kWork = 1'600'000;
constexpr std::size_t kLeastCandidates = 2048;
constexpr std::size_t kCentres = 3;
// Without a model, a trial worse than this share of the others counts as bad as the last of them,
// and a failed one too: how bad the bad are says nothing about the best.
constexpr double kBad = 0.75;
// Choices announced each time.
constexpr std::size_t kAnnounced = 8;

// The logarithm of the expected improvement over `best` of a normal variable.
double log_improvement(double best, double mean, double deviation) {
  constexpr double kPeak = 0.3989422804014327;      // of the normal density
  constexpr double kRootHalf = 0.7071067811865476;  // 1 / sqrt(2)
  const double z = (best - mean) / deviation;
  const double density = kPeak * std::exp(-0.5 * z * z);
  const double below = 0.5 * std::erfc(-z * kRootHalf);
  // Far below, where the sum would be the difference of two small numbers, by its asymptote.
  const double log_share =
      z < -6.0 ? std::log(kPeak) - 0.5 * z * z - 2.0 * std::log(-z) : std::log(z * below + density);
  return log_share + std::log(deviation);
}

struct Scored {
  double score;
  std::size_t point;  // index into the points of a guess
};

// What is believed of one space.
class Guess {
 public:
  Guess(const Contender& contender, std::size_t index, Random& random)
      : contender_(contender),
        index_(index),
        random_(random),
        points_(contender.space->points(kMostEnumerated, kDrawn, random)),
        process_(axes_of(*contender.space)) {
    for (std::size_t i = 0; i < points_.size(); ++i) known_.emplace(points_[i], i);
    is_tried_.resize(points_.size(), 0);
    is_candidate_.resize(points_.size(), 0);
  }

  [[nodiscard]] std::size_t trials() const { return tried_.size(); }
  [[nodiscard]] Choice choice(std::size_t point) const { return {index_, points_[point]}; }

  void learn(const Point& point, double cost) {
    const std::size_t at = find(point);
    is_tried_[at] = 1;
    tried_.push_back(at);
    positions_.push_back(positions_of(point));
    // Infinite where it failed.
    log_costs_.push_back(std::log(std::max(cost, std::numeric_limits<double>::min())));
    expected_.push_back(expected(at));
    const bool is_best = cost < best_;
    best_ = std::min(best_, cost);
    if (is_best && !is_stale()) add_neighbours(at);
  }

  // Points at random, of those not tried.
  [[nodiscard]] std::vector<std::size_t> some(std::size_t most) {
    std::vector<std::size_t> left;
    for (std::size_t i = 0; i < points_.size(); ++i) {
      if (is_tried_[i] == 0) left.push_back(i);
    }
    random_.shuffle(left);
    left.resize(std::min(most, left.size()));
    return left;
  }

  // The likeliest candidates to improve on `best`, in descending order. Requires a trial.
  [[nodiscard]] std::vector<Scored> likeliest(double best, std::size_t most) {
    judge();
    std::vector<Scored> scored = scores(best);
    const std::size_t kept = std::min(most, scored.size());
    std::partial_sort(scored.begin(), scored.begin() + static_cast<std::ptrdiff_t>(kept),
                      scored.end(), better);
    scored.resize(kept);
    return scored;
  }

  static bool better(const Scored& a, const Scored& b) { return a.score > b.score; }

 private:
  static std::vector<Axis> axes_of(const Space& space) {
    std::vector<Axis> axes;
    for (const Parameter& parameter : space.parameters()) {
      axes.push_back({parameter.values.size(), parameter.ordered});
    }
    return axes;
  }

  [[nodiscard]] Positions positions_of(const Point& point) const {
    Positions positions;
    for (std::size_t i = 0; i < point.size(); ++i) {
      const std::vector<int>& values = contender_.space->parameters()[i].values;
      const auto at = std::find(values.begin(), values.end(), point[i]);
      positions.push_back(static_cast<std::uint16_t>(at - values.begin()));
    }
    return positions;
  }

  // The index of a valid point, which joins the others where it was not drawn.
  std::size_t find(const Point& point) {
    const auto [at, is_new] = known_.emplace(point, points_.size());
    if (is_new) {
      points_.push_back(point);
      is_tried_.push_back(0);
      is_candidate_.push_back(0);
    }
    return at->second;
  }

  // The logarithm of what the model says, which is asked once; 0 without a model.
  double expected(std::size_t point) {
    if (!contender_.expected) return 0.0;
    model_.resize(points_.size(), std::numeric_limits<double>::quiet_NaN());
    if (std::isnan(model_[point])) model_[point] = std::log(contender_.expected(points_[point]));
    return model_[point];
  }

  // Whether there are so many trials that the process must be fitted anew.
  [[nodiscard]] bool is_stale() const { return tried_.size() >= next_fit_; }

  // What the process learns: logarithms of costs, or of how much they exceed what is expected.
  [[nodiscard]] std::vector<double> targets() const {
    std::vector<double> sorted;
    for (std::size_t i = 0; i < log_costs_.size(); ++i) {
      if (std::isfinite(log_costs_[i])) sorted.push_back(log_costs_[i] - expected_[i]);
    }
    std::sort(sorted.begin(), sorted.end());
    double bad = 0.0;
    if (!sorted.empty()) {
      const auto at = static_cast<std::size_t>(kBad * static_cast<double>(sorted.size()));
      bad = sorted[std::min(at, sorted.size() - 1)];
    }
    std::vector<double> targets;
    for (std::size_t i = 0; i < log_costs_.size(); ++i) {
      const double target = log_costs_[i] - expected_[i];
      const bool is_cut = !std::isfinite(target) || (!contender_.expected && target > bad);
      targets.push_back(is_cut ? bad : target);
    }
    return targets;
  }

  void judge() {
    if (!is_stale() && conditioned_ == positions_.size()) return;
    if (is_stale()) {
      const std::vector<std::size_t> likely = candidates_to_keep();
      process_.fit(positions_, targets(), random_);
      candidates_.clear();
      candidate_expected_.clear();
      std::fill(is_candidate_.begin(), is_candidate_.end(), 0);
      for (const std::size_t point : likely) add_candidate(point);
      conditioned_ = 0;
      next_fit_ = tried_.size() +
                  std::max(kLeastRefit,
                           static_cast<std::size_t>(kRefit * static_cast<double>(tried_.size())));
    }
    for (; conditioned_ < positions_.size(); ++conditioned_) {
      process_.add_trial(positions_[conditioned_]);
    }
    process_.update(targets());
  }

  // All points not tried where there is room, else those that scored best so far, the neighbours of
  // the best and others at random.
  std::vector<std::size_t> candidates_to_keep() {
    const std::size_t room = std::max(kLeastCandidates, kWork / tried_.size());
    if (points_.size() <= room) return some(room);
    std::vector<std::size_t> kept;
    std::set<std::size_t> taken;
    const auto keep = [&](std::size_t point) {
      if (kept.size() < room && is_tried_[point] == 0 && taken.insert(point).second) {
        kept.push_back(point);
      }
    };
    std::vector<std::size_t> order = tried_;
    std::map<std::size_t, double> cost;
    for (std::size_t i = 0; i < tried_.size(); ++i) cost[tried_[i]] = log_costs_[i];
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return cost[a] < cost[b]; });
    order.resize(std::min(order.size(), kCentres));
    for (const std::size_t centre : order) {
      for (const Point& near : contender_.space->neighbours(points_[centre])) keep(find(near));
    }
    if (!candidates_.empty()) {
      std::vector<Scored> scored = scores(best_);
      std::stable_sort(scored.begin(), scored.end(), better);
      scored.resize(std::min(scored.size(), room / 2));
      for (const Scored& candidate : scored) keep(candidate.point);
    }
    for (const std::size_t point : some(room)) keep(point);
    return kept;
  }

  // As of the last `judge`, of those not tried.
  [[nodiscard]] std::vector<Scored> scores(double best) const {
    std::vector<Scored> scored;
    scored.reserve(candidates_.size());
    const double goal = std::isfinite(best) ? std::log(best) : 0.0;
    for (std::size_t i = 0; i < process_.judged(); ++i) {
      if (is_tried_[candidates_[i]] != 0) continue;
      const double mean = process_.mean(i) + candidate_expected_[i];
      scored.push_back({log_improvement(goal, mean, process_.deviation(i)), candidates_[i]});
    }
    return scored;
  }

  void add_candidate(std::size_t point) {
    is_candidate_[point] = 1;
    candidates_.push_back(point);
    candidate_expected_.push_back(expected(point));
    process_.add_candidate(positions_of(points_[point]));
  }

  void add_neighbours(std::size_t centre) {
    for (const Point& near : contender_.space->neighbours(points_[centre])) {
      const std::size_t point = find(near);
      if (is_candidate_[point] == 0 && is_tried_[point] == 0) add_candidate(point);
    }
  }

  const Contender& contender_;
  std::size_t index_;
  Random& random_;
  std::vector<Point> points_;
  std::map<Point, std::size_t> known_;
  std::vector<char> is_tried_;      // by point
  std::vector<char> is_candidate_;  // by point
  std::vector<double> model_;       // by point: see `expected`

  std::vector<std::size_t> tried_;  // points in the order they were tried
  std::vector<Positions> positions_;
  std::vector<double> log_costs_;
  std::vector<double> expected_;  // logarithms of the model's costs; 0 without a model
  double best_ = kFailed;

  GaussianProcess process_;
  std::size_t conditioned_ = 0;          // trials that the process knows
  std::size_t next_fit_ = 0;             // trials
  std::vector<std::size_t> candidates_;  // points the process judges
  std::vector<double> candidate_expected_;
};

class SurrogateSearch {
 public:
  explicit SurrogateSearch(Session& session) : session_(session), random_(session.budget().seed) {
    for (std::size_t space = 0; space < session.contenders().size(); ++space) {
      guesses_.push_back(std::make_unique<Guess>(session.contenders()[space], space, random_));
    }
  }

  void run(std::span<const Choice> seeds) {
    bool more = session_.evaluate(seeds);
    learn();
    if (more) more = session_.evaluate(first_choices());
    learn();
    while (more) {
      const std::vector<Choice> next = next_choices();
      if (next.empty()) break;
      more = session_.evaluate(next.front(), next);
      learn();
    }
  }

 private:
  void learn() {
    const std::vector<Evaluation>& all = session_.evaluations();
    for (; learnt_ < all.size(); ++learnt_) {
      const Evaluation& evaluation = all[learnt_];
      guesses_[evaluation.choice.space]->learn(evaluation.choice.point, evaluation.cost);
      best_ = std::min(best_, evaluation.cost);
    }
  }

  // Half by ranking where there is one, the others at random from each space in turn.
  std::vector<Choice> first_choices() {
    const int evaluations = session_.budget().evaluations;
    const auto count = static_cast<std::size_t>(std::clamp(evaluations / 3, 1, kFirst));
    std::vector<Choice> choices =
        merge_rankings(session_.contenders(), session_.budget().least_share);
    choices.resize(std::min(choices.size(), (count + 1) / 2));
    std::vector<std::vector<std::size_t>> random;
    for (const auto& guess : guesses_) random.push_back(guess->some(count));
    for (std::size_t round = 0; round < count; ++round) {
      for (std::size_t space = 0; space < guesses_.size(); ++space) {
        if (choices.size() == count) return choices;
        if (round < random[space].size()) {
          choices.push_back(guesses_[space]->choice(random[space][round]));
        }
      }
    }
    return choices;
  }

  // The likeliest first: of a space below its share, else of all. Empty when every point is known.
  std::vector<Choice> next_choices() {
    for (std::size_t space = 0; space < guesses_.size(); ++space) {
      if (session_.due(space, session_.count() + 1) == 0) continue;
      std::vector<Choice> choices = likeliest(space, space + 1);
      if (!choices.empty()) return choices;
    }
    return likeliest(0, guesses_.size());
  }

  // Of the spaces from `begin` to `end` - 1.
  std::vector<Choice> likeliest(std::size_t begin, std::size_t end) {
    std::vector<std::pair<double, Choice>> scored;
    for (std::size_t space = begin; space < end; ++space) {
      Guess& guess = *guesses_[space];
      if (guess.trials() > 0) {
        for (const Scored& candidate : guess.likeliest(best_, kAnnounced)) {
          scored.emplace_back(candidate.score, guess.choice(candidate.point));
        }
      }
    }
    std::stable_sort(scored.begin(), scored.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    scored.resize(std::min(scored.size(), kAnnounced));
    std::vector<Choice> choices;
    for (auto& [score, choice] : scored) choices.push_back(std::move(choice));
    // Nothing is known of a space, or the process has judged all it knows.
    for (std::size_t space = begin; space < end && choices.empty(); ++space) {
      for (const std::size_t point : guesses_[space]->some(1)) {
        choices.push_back(guesses_[space]->choice(point));
      }
    }
    return choices;
  }

  Session& session_;
  Random random_;
  std::vector<std::unique_ptr<Guess>> guesses_;
  std::size_t learnt_ = 0;  // evaluations
  double best_ = kFailed;
};

}  // namespace

SearchResult surrogate(std::span<const Contender> contenders, std::span<const Choice> seeds,
                       const Budget& budget, Evaluator& evaluator) {
  Session session(contenders, budget, evaluator);
  SurrogateSearch(session).run(seeds);
  return session.take();
}

}  // namespace w4tune
