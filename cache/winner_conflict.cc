#include "cache/winner_conflict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "core/bootstrap.h"
#include "core/stats.h"

namespace w4tune {
namespace {

// Runs of the same kernel on the same GPU differ by this much (standard deviation of the log)
// beside what the samples of one run scatter: see docs/architecture.md, decision 24.
constexpr double kRunNoise = 0.003;
// Those that were measured in turns share the run.
constexpr double kNoNoise = 0.0;
constexpr double kTail = 0.025;

// A total order of rows that differ.
auto identity(const WinnerRow& row) {
  return std::tuple(row.run.started_at, row.run.protocol_hash, served_us(row.winner),
                    served_text(row.winner), to_string(row.winner.candidate),
                    row.winner.compilation_key, served_samples(row.winner));
}

bool comes_before(const Claimant& a, const Claimant& b) {
  return std::tuple(identity(a.row), a.file) < std::tuple(identity(b.row), b.file);
}

Slower slower_by_samples(std::size_t claimant, const std::vector<double>& slow,
                         const std::vector<double>& fast, double noise) {
  const LogRatio ratio(slow, fast, noise);
  return {.claimant = claimant,
          .by = std::expm1(ratio.estimate()),
          .at_least = std::expm1(ratio.quantile(kTail)),
          .at_most = std::expm1(ratio.quantile(1.0 - kTail))};
}

bool comparable(const WinnerRow& a, const WinnerRow& b) {
  return a.winner.provenance == Provenance::kMeasured &&
         a.run.protocol_hash == b.run.protocol_hash && LogRatio::takes(served_samples(a.winner)) &&
         LogRatio::takes(served_samples(b.winner));
}

}  // namespace

bool same_winner(const Winner& a, const Winner& b) {
  return a.candidate == b.candidate && a.compilation_key == b.compilation_key &&
         a.time_us_median == b.time_us_median && a.time_us == b.time_us &&
         a.composite == b.composite;
}

WinnerConflict decide(std::vector<Claimant> claimants) {
  std::sort(claimants.begin(), claimants.end(), comes_before);
  WinnerConflict conflict;
  const WinnerRow& newest = claimants.back().row;
  const bool measured = newest.winner.provenance == Provenance::kMeasured;
  const auto competes = [&](const WinnerRow& row) {
    return measured ? row.run.protocol_hash == newest.run.protocol_hash
                    : row.run.started_at == newest.run.started_at;
  };
  conflict.kept = claimants.size() - 1;
  conflict.ground = measured ? Ground::kFaster : Ground::kNewer;
  for (std::size_t i = claimants.size(); i-- > 0;) {
    if (!competes(claimants[i].row)) {
      conflict.ground = Ground::kNewer;
    } else if (served_us(claimants[i].row.winner) <
               served_us(claimants[conflict.kept].row.winner)) {
      conflict.kept = i;
    }
  }
  const WinnerRow& kept = claimants[conflict.kept].row;
  for (std::size_t i = 0; i < claimants.size(); ++i) {
    if (i == conflict.kept) continue;
    const WinnerRow& other = claimants[i].row;
    conflict.others.push_back(
        comparable(other, kept)
            ? slower_by_samples(i, served_samples(other.winner), served_samples(kept.winner),
                                kRunNoise)
            : Slower{.claimant = i, .by = served_us(other.winner) / served_us(kept.winner) - 1.0});
  }
  conflict.claimants = std::move(claimants);
  return conflict;
}

void decide_by(WinnerConflict& conflict, const Remeasured& remeasured) {
  const auto& times = remeasured.time_us;
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (!LogRatio::takes(times[i])) continue;
    if (!best || median(times[i]) < median(times[*best])) best = i;
  }
  if (!best) return;
  conflict.kept = *best;
  conflict.ground = Ground::kRemeasured;
  conflict.others.clear();
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (i == *best || !LogRatio::takes(times[i])) continue;
    conflict.others.push_back(slower_by_samples(i, times[i], times[*best], kNoNoise));
  }
  WinnerRow row = conflict.claimants[*best].row;
  row.run.driver = remeasured.driver;
  row.run.started_at = remeasured.started_at;
  row.run.protocol = remeasured.protocol;
  row.run.protocol_hash = remeasured.protocol_hash;
  if (row.winner.composite) {
    row.winner.composite->time_us = times[*best];
    row.winner.composite->time_us_median = median(times[*best]);
  } else {
    row.winner.time_us = times[*best];
    row.winner.clock_mhz = remeasured.clock_mhz[*best];
    row.winner.time_us_median = median(times[*best]);
  }
  conflict.remeasured = std::move(row);
}

std::string slower_text(const Slower& slower) {
  const std::string by = slower.by < 0.0 ? fmt::format("{:.2f} % faster", -100.0 * slower.by)
                                         : fmt::format("{:.2f} % slower", 100.0 * slower.by);
  if (!slower.at_least) return by + " by what is stored, which says nothing";
  if (*slower.at_least <= 0.0) return by + " (cannot be told apart)";
  return fmt::format("{} (95 %: {:.2f} to {:.2f} %)", by, 100.0 * *slower.at_least,
                     100.0 * *slower.at_most);
}

}  // namespace w4tune
