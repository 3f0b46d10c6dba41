#include "runtime/workspace.h"

#include <fmt/format.h>

#include "gpu/driver.h"
#include "gpu/graph.h"
#include "gpu/stream.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// Partials follow the counters at a multiple of this, as if they had a Buffer of their own.
constexpr std::size_t kAlignment = 256;

std::size_t counter_bytes(const WorkspaceNeed& need) {
  const std::size_t bytes = need.counter_count * sizeof(unsigned int);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::size_t first_place(std::uintptr_t key) {
  // Fibonacci hashing: handles are multiples of 16 and more.
  return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15ULL) >> 32) % Workspace::kMaxStreams;
}

}  // namespace

std::uintptr_t stream_key(CUstream stream) {
  if (stream == nullptr || stream == CU_STREAM_LEGACY) return 1;
  if (stream != CU_STREAM_PER_THREAD) return reinterpret_cast<std::uintptr_t>(stream);
  // An address that no other thread has; odd, so that it is no handle.
  alignas(16) thread_local const char of_this_thread[16] = {};
  return reinterpret_cast<std::uintptr_t>(&of_this_thread) | 3;
}

Workspace::Slot Workspace::slot(CUstream stream) {
  const std::uintptr_t key = stream_key(stream);
  const std::size_t first = first_place(key);
  for (std::size_t i = 0; i < kMaxStreams; ++i) {
    const Entry& entry = entries_[(first + i) % kMaxStreams];
    const std::uintptr_t found = entry.key.load(std::memory_order_acquire);
    if (found == key) return slot_of(entry);
    if (found == 0) break;
  }
  return make_slot(key);
}

Workspace::Slot Workspace::slot_of(const Entry& entry) const {
  return {.partials = reinterpret_cast<float*>(entry.memory.address() + counter_bytes(need_)),
          .counters = entry.memory.as<unsigned int>()};
}

// Two threads may use one stream: the second finds here what the first has made.
Workspace::Slot Workspace::make_slot(std::uintptr_t key) {
  const std::lock_guard lock(mutex_);
  const std::size_t first = first_place(key);
  for (std::size_t i = 0; i < kMaxStreams; ++i) {
    Entry& entry = entries_[(first + i) % kMaxStreams];
    const std::uintptr_t found = entry.key.load(std::memory_order_relaxed);
    if (found == key) return slot_of(entry);
    if (found != 0) continue;
    entry.memory = zeroed_memory();
    entry.key.store(key, std::memory_order_release);
    return slot_of(entry);
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("launch: more than {} streams use one Dispatcher. Reuse streams, or open "
                          "another Dispatcher.",
                          kMaxStreams));
}

Buffer Workspace::zeroed_memory() const {
  const RelaxedCapture relaxed;
  Buffer memory(counter_bytes(need_) + need_.partial_bytes);
  if (counter_bytes(need_) == 0) return memory;
  const Stream stream;  // not the caller's, which may be capturing
  check(driver().memset_d8_async(memory.address(), 0, counter_bytes(need_), stream.handle()),
        "cuMemsetD8Async");
  stream.synchronize();
  return memory;
}

}  // namespace w4tune
