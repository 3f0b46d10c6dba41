// WinnerConflict: several files have another winner for the same device, problem, M and provenance.
// Which of them stays is a matter of the rows alone, never of the order of the files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cache/store.h"

namespace w4tune {

struct Claimant {
  std::string file;
  WinnerRow row;
};

// Why one of them stays.
enum class Ground : std::uint8_t {
  kFaster,     // by the samples of their finals, taken by one protocol
  kNewer,      // predictions, or times of different protocols, which say nothing of each other
  kRemeasured  // timed anew, in turns
};

// How much slower than the one that stays another claimant is.
struct Slower {
  std::size_t claimant = 0;
  double by = 0.0;  // 0.02: takes 2 % longer
  // 95 % interval of `by`; none where there are no samples to tell, or the protocols differ.
  std::optional<double> at_least = {};
  std::optional<double> at_most = {};
};

struct WinnerConflict {
  std::vector<Claimant> claimants;  // at least two
  std::size_t kept = 0;
  Ground ground = Ground::kFaster;
  std::vector<Slower> others;  // all but the one that stays
  // The row that stays, with the samples it was decided by; where they are not those of its
  // claimant.
  std::optional<WinnerRow> remeasured = {};
};

// Whether both rows say the same: the same kernel, composite and samples.
bool same_winner(const Winner& a, const Winner& b);

// Measured rows: of those measured as the newest was, the one whose served time has the least
// median. Predicted rows: the one of the newest run, because models of different versions cannot
// be compared. What is equal then is decided by the text of the row. The claimants are put into an
// order that does not depend on how they came.
WinnerConflict decide(std::vector<Claimant> claimants);

// Samples of what the claimants serve with, taken in turns in one run; none of one that is wrong.
struct Remeasured {
  std::vector<std::vector<double>> time_us;  // by claimant
  std::vector<std::vector<double>> clock_mhz;
  std::string driver;  // of the run, as the next three
  std::string started_at;
  std::string protocol;
  std::string protocol_hash;
};
// Decides by them anew. Leaves a conflict as it is where every claimant is wrong.
void decide_by(WinnerConflict& conflict, const Remeasured& remeasured);

// "1.20 % slower (95 %: 0.80 to 1.61 %)", "0.10 % slower (cannot be told apart)": for messages.
std::string slower_text(const Slower& slower);

}  // namespace w4tune
