// Merge: several cache files become one. Reading happens in the constructor, writing in write().
//
// The inputs are copied into memory, older schemas are brought up to date there, and the files stay
// as they are. Nothing depends on the order of the inputs: rows are united from the oldest input
// (by the start of its newest run) to the newest.
//
// - devices: the newest facts stay; what a probe found stays until another probe.
// - runs, problems, compilations, cubins: equal ones once. A success hides a failed compilation.
// - trials: of one candidate under one protocol, the one of the older input stays.
// - baselines: the one of the newer run stays; device kernels: the one compiled later.
// - winners: equal ones once; others are a WinnerConflict (cache/winner_conflict.h).
//
// Where a conflict was decided by measuring anew, the row that stays has those samples, in a run of
// its own. The intervals of M are then divided anew.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "cache/sqlite.h"
#include "cache/store.h"
#include "cache/winner_conflict.h"

namespace w4tune {

// What a merged file holds.
struct MergeCounts {
  std::size_t inputs = 0;
  std::size_t devices = 0;
  std::size_t winners = 0;  // that serve
  std::size_t trials = 0;
};

class Merge {
 public:
  // Reads the inputs; one that is given twice is read once. `out` must not exist, unless it is one
  // of the inputs or `replace` is set; it must not be in use, and is kept locked from here on.
  // Throws Error{kInvalidArgument}, Error{kNotFound} for a missing input and Error{kDatabase} for
  // one that is no cache, of a newer schema, or damaged; nothing is written then.
  //
  // Winners for plain and for dependent launches on one device are refused
  // (Error{kInvalidArgument}).
  Merge(const std::vector<std::string>& inputs, std::string out, bool replace,
        std::chrono::milliseconds busy_timeout = kBusyTimeout);

  // By device, problem, M and provenance; what is decided anew before write() is what is written.
  [[nodiscard]] std::vector<WinnerConflict>& conflicts() { return conflicts_; }

  // The cubin of a claimant, from the input it came from.
  [[nodiscard]] std::string cubin_of(const Claimant& claimant) const;

  // Writes `out` beside itself and renames it there: it appears as a whole or not at all.
  MergeCounts write();

 private:
  struct Input {
    std::string file;
    Store store;
    std::string order;  // inputs are united in this order
  };

  void read(const std::vector<std::string>& files);
  void refuse_mixed_launches() const;
  void find_conflicts();
  void unite(const Database& target, const Input& input) const;
  void mark_lost(const Database& target, const Input& input) const;

  std::string out_;
  std::optional<Database> held_;  // an `out` that exists
  std::vector<Input> inputs_;
  std::vector<WinnerConflict> conflicts_;
};

}  // namespace w4tune
