// Greedy iterated local search.
#include <optional>

#include "search/session.h"
#include "search/strategy.h"

namespace w4tune {
namespace {

// How far from the best point a climb starts again.
constexpr int kStepsAside = 2;
// Steps aside that lead to known points before a climb starts anywhere.
constexpr int kTriesAside = 64;

// The climb within one space.
class Climb {
 public:
  Climb(Session& session, std::size_t space, std::vector<Point> starts, Random& random)
      : session_(session), space_(space), starts_(std::move(starts)), random_(random) {}

  [[nodiscard]] bool is_exhausted() const { return exhausted_; }
  [[nodiscard]] double best_cost() const { return best_.cost; }

  // A point that the search knows already, such as a seed.
  void learn(const Evaluation& evaluation) {
    if (evaluation.cost < best_.cost) best_ = evaluation;
    if (!current_ || evaluation.cost < current_->cost) current_ = evaluation;
  }

  // One evaluation, or none where the space is exhausted. Returns false when the search must end.
  bool step() {
    const std::optional<Choice> next = next_choice();
    if (!next) {
      exhausted_ = true;
      return true;
    }
    const bool more = session_.evaluate(*next, {&*next, 1});
    if (const auto cost = session_.cost(*next)) {
      const Evaluation evaluation{*next, *cost};
      if (restarts_) current_ = evaluation;
      learn(evaluation);
    }
    return more;
  }

 private:
  [[nodiscard]] std::vector<Choice> neighbours(const Point& point) const {
    std::vector<Choice> choices;
    for (Point& near : session_.space(space_).neighbours(point)) {
      choices.push_back({space_, std::move(near)});
    }
    return choices;
  }

  std::optional<Choice> next_choice() {
    restarts_ = false;
    if (!current_) return start();
    while (true) {
      std::vector<Choice> unseen;
      std::optional<Evaluation> better;
      for (Choice& near : neighbours(current_->choice.point)) {
        const auto cost = session_.cost(near);
        if (!cost) {
          unseen.push_back(std::move(near));
        } else if (*cost < (better ? better->cost : current_->cost)) {
          better = Evaluation{std::move(near), *cost};
        }
      }
      if (!better) {
        if (!unseen.empty()) return unseen[random_.below(unseen.size())];
        return aside();
      }
      current_ = std::move(better);
    }
  }

  // From a local optimum: a point beside the best, else any that is left.
  std::optional<Choice> aside() {
    restarts_ = true;
    for (int tried = 0; tried < kTriesAside; ++tried) {
      Choice choice = best_.choice;
      if (best_.cost == kFailed) choice = current_->choice;
      for (int i = 0; i < kStepsAside; ++i) {
        const std::vector<Choice> near = neighbours(choice.point);
        if (near.empty()) break;
        choice = near[random_.below(near.size())];
      }
      if (!session_.cost(choice)) return choice;
    }
    return start();
  }

  std::optional<Choice> start() {
    restarts_ = true;
    while (!starts_.empty()) {
      Choice choice{space_, std::move(starts_.back())};
      starts_.pop_back();
      if (!session_.cost(choice)) return choice;
    }
    return std::nullopt;
  }

  Session& session_;
  std::size_t space_;
  std::vector<Point> starts_;  // in random order
  Random& random_;
  std::optional<Evaluation> current_;
  Evaluation best_;
  bool restarts_ = false;  // the next point becomes the centre, whatever it costs
  bool exhausted_ = false;
};

}  // namespace

SearchResult greedy(std::span<const Contender> contenders, std::span<const Choice> seeds,
                    const Budget& budget, Evaluator& evaluator) {
  Session session(contenders, budget, evaluator);
  Random random(budget.seed);
  std::vector<Climb> climbs;
  for (std::size_t space = 0; space < contenders.size(); ++space) {
    std::vector<Point> starts = session.space(space).points(
        kMostEnumerated, static_cast<std::size_t>(budget.evaluations), random);
    random.shuffle(starts);
    climbs.emplace_back(session, space, std::move(starts), random);
  }
  bool more = session.evaluate(seeds);
  for (const Evaluation& evaluation : session.evaluations()) {
    climbs[evaluation.choice.space].learn(evaluation);
  }
  // A space below its share is next, else the one with the best point; the first of equals.
  while (more) {
    Climb* next = nullptr;
    for (std::size_t space = 0; space < climbs.size(); ++space) {
      Climb& climb = climbs[space];
      if (climb.is_exhausted()) continue;
      if (session.due(space, session.count() + 1) > 0) {
        next = &climb;
        break;
      }
      if (next == nullptr || climb.best_cost() < next->best_cost()) next = &climb;
    }
    if (next == nullptr) break;
    more = next->step();
  }
  return session.take();
}

}  // namespace w4tune
