// Host twin: a machine that runs a CUDA kernel without a GPU, and watches it more closely than a
// GPU would. twin_ptx.h gives the wrappers of templates/device/ptx.cuh their meaning on it.
//
// Every CUDA thread is a fiber on one OS thread, so a run depends on its Launch alone. A thread
// gives way where it waits for others: at barriers, at warp collectives, and before atomics.
//
// Global memory is the host's own: AddressSanitizer sees what lies out of bounds. Shared memory is
// addressed by 32-bit offsets from kSharedBase and is poisoned with NaN before a block starts.
//
// What ends a run with a fault:
//   - a shared address out of range, a misaligned access;
//   - a race: two accesses to the same 2 bytes, one of them a write, that neither barriers, warp
//     synchronisation nor release-acquire atomics order. Clocks decide (one a thread, as in Fidge
//     1988, Mattern 1989), not the order of this run, so one run finds the races of every order;
//   - touching the destination of an asynchronous copy that has not landed: a copy is carried out
//     when its own thread waits for its group, and not before;
//   - lanes of one warp at different collectives; threads that wait for ever; a thread that ends
//     with copies in flight.
// Not watched: bank conflicts, the warp-uniformity of barriers, the ordering of relaxed stores.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

namespace w4::twin {

// What a thread can be made not to do, to see that a test notices.
enum class Sync : std::uint8_t { kBarrier, kCopyWait, kWarpSync };
inline constexpr std::size_t kSyncKinds = 3;

struct Removal {
  Sync kind = Sync::kBarrier;
  int index = 0;  // counted in each thread by itself
};

enum class Order : std::uint8_t {
  kForward,      // block after block; threads take turns
  kReversed,     // last block first, and of its threads the one that was ready last
  kInterleaved,  // all blocks at once, the next thread drawn by lot
};

struct Launch {
  int grid = 1;
  int threads = 32;  // of a block, a multiple of 32
  std::size_t shared_bytes = 0;
  Order order = Order::kForward;
  std::uint64_t seed = 0;  // of kInterleaved
  std::optional<Removal> removal = std::nullopt;
};

struct Report {
  std::string fault;                    // the first one; empty when there was none
  std::array<int, kSyncKinds> calls{};  // by Sync: the most that one thread made
};

// Runs `kernel` once in every thread. Not reentrant; one run at a time in the process.
Report run(const Launch& launch, const std::function<void()>& kernel);

// ---- for the wrappers: valid within a kernel ----------------------------------------------------

inline constexpr std::uint32_t kSharedBase = 1024;  // not 0: an offset is not an address
inline constexpr int kLanes = 32;

[[noreturn]] void fail(const std::string& what);

int thread_index();
int block_index();

void load_shared(std::uint32_t address, void* to, std::size_t bytes);
void store_shared(std::uint32_t address, const void* from, std::size_t bytes);
// As load_shared, on behalf of another lane of this thread's warp.
void load_shared_as(int lane, std::uint32_t address, void* to, std::size_t bytes);

void load_global(const void* address, void* to, std::size_t bytes);
// Memory that nobody writes during the launch.
void load_global_constant(const void* address, void* to, std::size_t bytes);
void store_global(void* address, const void* from, std::size_t bytes);
// Acquires what others released here before, and releases what this thread has seen.
std::uint32_t atomic_increment(std::uint32_t* address);

// Copies 16 bytes, or zeros without `from`.
void copy_async(std::uint32_t shared, const void* from);
void commit_copies();
void wait_copies(int pending);

void barrier(int id, int threads);
void barrier_of_block();
void warp_sync();

// Brings the 32 lanes of a warp together: the last to arrive computes with what each one brought.
using Lanes = std::span<void* const, kLanes>;
void meet(const char* name, void* mine, const std::function<void(Lanes)>& compute);

// meet() with typed lanes: `compute` takes std::array<Lane*, 32>.
template <class Lane, class Compute>
void collective(const char* name, Lane& mine, Compute compute) {
  meet(name, &mine, [&compute](Lanes lanes) {
    std::array<Lane*, kLanes> typed;
    for (std::size_t i = 0; i < kLanes; ++i) typed[i] = static_cast<Lane*>(lanes[i]);
    compute(typed);
  });
}

}  // namespace w4::twin
