#include "cache/lint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "core/bootstrap.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr double kTail = 0.025;

bool is_measured(const WinnerRow& row) { return row.winner.provenance == Provenance::kMeasured; }
bool serves(const WinnerRow& row) { return row.winner.m_lo >= 1; }

std::string range_text(int lo, int hi) {
  return hi >= kUnboundedM ? fmt::format("{}..", lo) : fmt::format("{}..{}", lo, hi);
}

// By how much less time the faster one takes, in percent.
double percent_less(double fast_us, double slow_us) { return 100.0 * (1.0 - fast_us / slow_us); }

// Rows of one problem on one device.
class ProblemLint {
 public:
  ProblemLint(Store& store, const LintReference& reference, std::string driver,
              std::vector<WinnerRow> rows, std::vector<LintFinding>& findings)
      : store_(store),
        reference_(reference),
        driver_(std::move(driver)),
        rows_(std::move(rows)),
        findings_(findings) {}

  void check() {
    check_choice();
    check_gaps();
    for (const WinnerRow& row : rows_) check_cubin(row);
    for (const WinnerRow& row : rows_) check_trials(row);
    for (const WinnerRow& row : rows_) check_larger_rows(row);
    check_sources();
    check_drivers();
  }

 private:
  void add(LintKind kind, const std::vector<int>& tokens, std::string what, std::string remedy) {
    const WinnerRow& first = rows_.front();
    findings_.push_back({kind,
                         fmt::format("{}, {} m={}", first.run.device.name,
                                     to_string(first.winner.problem), fmt::join(tokens, ",")),
                         std::move(what), std::move(remedy)});
  }

  void check_choice() {
    const WinnerRow* before = nullptr;  // that serves
    for (const WinnerRow& row : rows_) {
      const Winner& winner = row.winner;
      const bool measured_too = std::any_of(
          rows_.begin(), rows_.end(),
          [&](const WinnerRow& other) { return other.winner.m == winner.m && is_measured(other); });
      if (!serves(row) && !is_measured(row) && measured_too) {
        add(LintKind::kHidden, {winner.m}, "the predicted row is hidden by a measured one",
            "Nothing is lost: 'w4tune export' leaves it out.");
        continue;
      }
      const bool covered = before != nullptr && winner.m_hi <= before->winner.m_hi;
      if (!serves(row) || winner.m_lo > winner.m_hi || covered) {
        add(LintKind::kNeverChosen, {winner.m},
            fmt::format("the {} row serves no M", to_string(winner.provenance)),
            "'w4tune merge' it into another file: that divides the intervals anew.");
        continue;
      }
      before = &row;
    }
  }

  void check_gaps() {
    int next = 1;
    std::vector<std::string> gaps;
    for (const WinnerRow& row : rows_) {
      if (!serves(row)) continue;
      if (row.winner.m_lo > next) gaps.push_back(range_text(next, row.winner.m_lo - 1));
      if (row.winner.m_hi >= kUnboundedM) return report_gaps(gaps);
      next = std::max(next, row.winner.m_hi + 1);
    }
    gaps.push_back(range_text(next, kUnboundedM));
    report_gaps(gaps);
  }

  void report_gaps(const std::vector<std::string>& gaps) {
    if (gaps.empty()) return;
    const WinnerRow& first = rows_.front();
    findings_.push_back(
        {LintKind::kGap,
         fmt::format("{}, {}", first.run.device.name, to_string(first.winner.problem)),
         fmt::format("no row serves M {}", fmt::join(gaps, ", ")),
         "'w4tune merge' it into another file: that divides the intervals anew."});
  }

  void check_cubin(const WinnerRow& row) {
    const auto report = [&](std::string what) {
      add(LintKind::kNoCubin, {row.winner.m}, std::move(what),
          "Restore a copy, or tune into another file: this one cannot be served from.");
    };
    try {
      const auto compilation = store_.find_compilation(row.winner.compilation_key);
      if (!compilation || !compilation->ok()) {
        report(fmt::format("the {} row has no cubin", to_string(row.winner.provenance)));
      }
    } catch (const Error&) {
      report(fmt::format("the cubin of the {} row differs from its SHA-256",
                         to_string(row.winner.provenance)));
    }
  }

  void check_trials(const WinnerRow& row) {
    const std::vector<double>& samples = served_samples(row.winner);
    if (!is_measured(row) || !serves(row) || !LogRatio::takes(samples)) return;
    const double served = served_us(row.winner);
    const Trial* best = nullptr;
    const std::vector<Trial> trials =
        store_.trials(store_.begin_run(row.run), {row.winner.problem, row.winner.m});
    for (const Trial& trial : trials) {
      if (trial.outcome != Outcome::kOk || !LogRatio::takes(trial.time_us)) continue;
      if (trial.candidate == row.winner.candidate) continue;
      if (!beats(trial.time_us_median(), served)) continue;
      // Even at the slow end of what its samples allow.
      const double slow_end = LogRatio(trial.time_us, samples, 0.0).quantile(1.0 - kTail);
      if (slow_end > -std::log1p(kTieShare)) continue;
      if (best == nullptr || trial.time_us_median() < best->time_us_median()) best = &trial;
    }
    if (best == nullptr) return;
    add(LintKind::kFasterTrial, {row.winner.m},
        fmt::format("a trial took {:.2f} us and the winner takes {:.2f} ({:.1f} % less): {}",
                    best->time_us_median(), served, percent_less(best->time_us_median(), served),
                    to_string(best->candidate)),
        "Tune it again with another --seed.");
  }

  // Whether the times of two rows may be compared.
  static bool comparable(const WinnerRow& a, const WinnerRow& b) {
    if (a.winner.provenance != b.winner.provenance) return false;
    return is_measured(a) ? a.run.protocol_hash == b.run.protocol_hash
                          : a.run.source_hash == b.run.source_hash;
  }

  // A kernel works for every M below the one it was tuned at, and takes no longer there.
  void check_larger_rows(const WinnerRow& row) {
    if (!serves(row)) return;
    const WinnerRow* best = nullptr;
    for (const WinnerRow& other : rows_) {
      if (!serves(other) || other.winner.m <= row.winner.m || !comparable(row, other)) continue;
      if (!beats(served_us(other.winner), served_us(row.winner))) continue;
      if (best == nullptr || served_us(other.winner) < served_us(best->winner)) best = &other;
    }
    if (best == nullptr) return;
    add(LintKind::kFasterRow, {row.winner.m},
        fmt::format("serves M {} in {:.2f} us, and the row tuned at M = {} takes {:.2f} ({:.1f} % "
                    "less)",
                    range_text(row.winner.m_lo, row.winner.m_hi), served_us(row.winner),
                    best->winner.m, served_us(best->winner),
                    percent_less(served_us(best->winner), served_us(row.winner))),
        is_measured(row) ? "Tune it again with another --seed or more --evaluations."
                         : "Both are predictions: measure them on that GPU.");
  }

  // Rows for which `is_stale` holds, together by what it is they were made with.
  template <class Stale, class MadeWith>
  void check_stale(LintKind kind, const Stale& is_stale, const MadeWith& made_with,
                   const std::string& remedy) {
    std::map<std::string, std::vector<int>> tokens;
    for (const WinnerRow& row : rows_) {
      if (serves(row) && is_stale(row)) tokens[made_with(row)].push_back(row.winner.m);
    }
    for (const auto& [what, m] : tokens) add(kind, m, what, remedy);
  }

  void check_sources() {
    check_stale(
        LintKind::kOtherSource,
        [&](const WinnerRow& row) { return row.run.source_hash != reference_.source_hash; },
        [](const WinnerRow& row) {
          return fmt::format("{} from other device sources than this w4tune's (w4tune {}, {})",
                             to_string(row.winner.provenance), row.run.version, row.run.commit);
        },
        "Tune again with this w4tune.");
  }

  void check_drivers() {
    check_stale(
        LintKind::kOtherDriver,
        [&](const WinnerRow& row) { return is_measured(row) && row.run.driver != driver_; },
        [&](const WinnerRow& row) {
          return fmt::format("measured with driver {}, not with {}", row.run.driver, driver_);
        },
        "Compare with 'w4tune bench', and tune into another file where it differs.");
  }

  Store& store_;
  const LintReference& reference_;
  std::string driver_;
  std::vector<WinnerRow> rows_;
  std::vector<LintFinding>& findings_;
};

bool is_same(const DeviceInfo& a, const DeviceInfo& b) {
  return std::tie(a.name, a.sm, a.sm_count) == std::tie(b.name, b.sm, b.sm_count);
}

// What measured rows of the device are held against.
std::string driver_for(const DeviceInfo& device, const std::vector<WinnerRow>& rows,
                       const LintReference& reference) {
  for (const DeviceInfo& present : reference.present) {
    if (is_same(present, device)) return reference.driver;
  }
  const RunInfo* newest = nullptr;
  for (const WinnerRow& row : rows) {
    if (!is_measured(row)) continue;
    if (newest == nullptr || row.run.started_at > newest->started_at) newest = &row.run;
  }
  return newest == nullptr ? std::string() : newest->driver;
}

}  // namespace

std::string_view to_string(LintKind kind) {
  switch (kind) {
    case LintKind::kHidden: return "hidden";
    case LintKind::kNeverChosen: return "never-chosen";
    case LintKind::kGap: return "gap";
    case LintKind::kFasterTrial: return "faster-trial";
    case LintKind::kFasterRow: return "faster-row";
    case LintKind::kOtherSource: return "other-source";
    case LintKind::kOtherDriver: return "other-driver";
    case LintKind::kNoCubin: return "no-cubin";
    case LintKind::kNoUtilities: return "no-utilities";
  }
  return "?";
}

std::vector<LintFinding> lint(Store& store, const LintReference& reference) {
  std::vector<LintFinding> findings;
  for (const DeviceInfo& device : store.devices()) {
    std::vector<WinnerRow> rows = store.winner_rows(device);
    if (rows.empty()) continue;
    if (!store.has_device_kernel(device, "utility")) {
      findings.push_back({LintKind::kNoUtilities, device.name,
                          "no kernels that pack weights on the GPU",
                          "Run 'w4tune tune' on the file once."});
    }
    const std::string driver = driver_for(device, rows, reference);
    while (!rows.empty()) {
      const Problem problem = rows.front().winner.problem;
      const auto end = std::find_if(rows.begin(), rows.end(), [&](const WinnerRow& row) {
        return row.winner.problem != problem;
      });
      ProblemLint(store, reference, driver,
                  {std::make_move_iterator(rows.begin()), std::make_move_iterator(end)}, findings)
          .check();
      rows.erase(rows.begin(), end);
    }
  }
  return findings;
}

}  // namespace w4tune
