// Workspace: the scratch memory of kernels that split K, one slot for each stream.
//
// Work on one stream is ordered, so a slot has one user at a time. Slots are made at the first use
// of a stream, in the current context, and live as long as the Workspace. Any thread, under
// capture.
#pragma once

#include <cuda.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "gpu/buffer.h"
#include "runtime/table.h"

namespace w4tune {

class Workspace {
 public:
  static constexpr std::size_t kMaxStreams = 64;

  explicit Workspace(const WorkspaceNeed& need) : need_(need) {}

  // Pointers into device memory; counters are zero whenever no kernel of the stream runs.
  struct Slot {
    float* partials = nullptr;
    unsigned int* counters = nullptr;
  };

  // Takes no lock once the stream has its slot. Throws Error{kInvalidArgument} for one stream more
  // than kMaxStreams.
  Slot slot(CUstream stream);

  [[nodiscard]] const WorkspaceNeed& size() const { return need_; }

 private:
  struct Entry {
    std::atomic<std::uintptr_t> key{0};  // 0: free; set once memory is ready
    Buffer memory;                       // counters, then partials
  };

  [[nodiscard]] Slot slot_of(const Entry& entry) const;
  Slot make_slot(std::uintptr_t key);
  [[nodiscard]] Buffer zeroed_memory() const;

  WorkspaceNeed need_;
  std::mutex mutex_;
  std::array<Entry, kMaxStreams> entries_;
};

// Identity of a stream, never 0: equal for what the driver orders as one stream, different for the
// per-thread default streams of different threads.
std::uintptr_t stream_key(CUstream stream);

}  // namespace w4tune
