#include "cli/progress.h"

#include <fmt/format.h>

#include <cmath>

#include "core/stats.h"
#include "tuner/baseline.h"

namespace w4tune {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kStatusInterval = std::chrono::milliseconds(100);

}  // namespace

Progress::Progress(bool predicting, bool quiet)
    : predicting_(predicting), quiet_(quiet), line_(quiet) {}

std::string Progress::eta() const {
  const std::size_t done = index_ - resumed_;
  if (done == 0) return "ETA ?";
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  return "ETA " +
         duration_text(elapsed / static_cast<double>(done) * static_cast<double>(total_ - index_));
}

void Progress::on_phase(const std::string& what) {
  if (quiet_) return;
  if (line_.is_terminal()) {
    line_.show(what + " ...");
  } else {
    line_.print(what);
  }
}

void Progress::on_ceilings(const Ceilings& ceilings) {
  if (quiet_) return;
  line_.print(fmt::format("{}: {:.0f} GB/s, {:.0f} TFLOP/s ({}{})",
                          predicting_ ? "assumed" : "measured", ceilings.copy_gbps,
                          ceilings.mma_tflops, ceilings.mma_source,
                          ceilings.mma_sync_tflops > 0.0
                              ? fmt::format("; {:.0f} by mma.sync alone", ceilings.mma_sync_tflops)
                              : ""));
}

void Progress::on_workload(std::size_t index, std::size_t total, const Workload& workload,
                           double floor_us) {
  index_ = index;
  total_ = total;
  workload_ = workload;
  floor_us_ = floor_us;
  line_.show(fmt::format("[{}/{}] {}", index + 1, total, to_string(workload)));
}

void Progress::on_candidate(const Trial& trial, int done, int planned, double best_us) {
  if (Clock::now() - line_.last() < kStatusInterval) return;
  const std::string best =
      std::isfinite(best_us)
          ? fmt::format("best {:.2f} us, {:.0f} % of floor", best_us, 100.0 * floor_us_ / best_us)
          : "none works yet";
  line_.show(fmt::format("[{}/{}] {}  {}/{}  {}  {}  {}", index_ + 1, total_, to_string(workload_),
                         done, planned, best, eta(), to_string(trial.outcome)));
}

void Progress::on_result(const WorkloadResult& result, const TuneResult& /*so_far*/) {
  if (result.resumed) ++resumed_;
  if (quiet_) return;
  const Problem& problem = result.workload.problem;
  // Of several GPUs each line stands for itself.
  const std::string head = result.by.empty()
                               ? fmt::format("  M {:>4}", result.workload.m)
                               : fmt::format("{}  [{}/{}] {} M {:>4}", result.by, index_ + 1,
                                             total_, to_string(problem), result.workload.m);
  if (problem != printed_ && result.by.empty()) {
    const std::string note = baseline_note(problem);
    const bool noted = result.baseline && !note.empty();
    line_.print(to_string(problem) + (noted ? fmt::format(" (baseline: {})", note) : ""));
    printed_ = problem;
  }
  if (!result.winner) {
    const int tried = result.evaluated + result.reused;
    line_.print(fmt::format("{}  untuned: {}", head,
                            tried == 0
                                ? "the budget was spent before"
                                : fmt::format("{} of {} candidates failed", result.failed, tried)));
    return;
  }
  const Winner& winner = *result.winner;
  const char* kind = winner.provenance == Provenance::kPredicted ? "predicted" : "measured ";
  std::string line = fmt::format("{}  {} {:>8.2f} us  {:>3.0f} % of floor", head, kind,
                                 served_us(winner), 100.0 * winner.floor_us / served_us(winner));
  if (result.baseline) {
    line += fmt::format("  {:>5.2f}x {}", median(result.baseline->time_us) / served_us(winner),
                        result.baseline->name);
  }
  line += "  " + served_text(winner);
  if (result.resumed) line += "  (from the cache)";
  line_.print(line);
}

void Progress::on_warning(const std::string& message) { line_.print("warning: " + message); }

}  // namespace w4tune
