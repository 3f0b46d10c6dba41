// Host twin: a machine that runs a CUDA kernel without a GPU, and watches it more closely than a
// GPU would. twin_ptx.h and twin_ptx_sm90.h give the wrappers of templates/device/ptx.cuh and
// ptx_sm90.cuh their meaning on it.
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
//   - a copy of the copy engine lands when nobody else can run, or at any time in the interleaved
//     order; its bytes are seen by those who wait for its mbarrier's phase, and by nobody else;
//   - an mbarrier that was not initialised, or not fenced before the copy engine counts on it; more
//     arrivals or bytes than it expects; data over it;
//   - a product of a warpgroup is carried out when its threads wait for its group, and not before:
//     operands that are no longer what they were, sums that were touched meanwhile (they read as
//     NaN), tokens that others may overwrite; no fence since the last wait;
//   - lanes of one warp, or warps of one warpgroup, at different collectives; threads that wait for
//     ever; threads that end with copies or products in flight.
// Not watched: bank conflicts, the warp-uniformity of barriers, the ordering of relaxed stores, the
// fences between ordinary accesses and the copy engine's other than that of fresh mbarriers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace w4::twin {

// What a thread can be made not to do, to see that a test notices.
enum class Sync : std::uint8_t {
  kBarrier,
  kCopyWait,
  kWarpSync,
  kMbarrierWait,
  kProductFence,
  kProductWait,
};
inline constexpr std::size_t kSyncKinds = 6;

struct Removal {
  Sync kind = Sync::kBarrier;
  int index = 0;                           // counted in each thread by itself
  std::optional<int> warp = std::nullopt;  // of this warp of each block alone
};

enum class Order : std::uint8_t {
  kForward,      // block after block; threads take turns
  kReversed,     // last block first, and of its threads the one that was ready last; of copies, too
  kInterleaved,  // all blocks at once, the next thread drawn by lot, or the next copy to land
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
int grid_size();

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
void barrier_arrive(int id, int threads);  // counts there, and waits for nobody
void barrier_of_block();
void warp_sync();

// mbarriers, and the copies that count on them, in pieces of 16 bytes.
void init_mbarrier(std::uint32_t address, std::uint32_t count);
void fence_mbarriers();  // those that this thread has initialised
void expect_bytes(std::uint32_t mbarrier, std::uint32_t bytes);
void arrive_at_mbarrier(std::uint32_t mbarrier);
void wait_for_mbarrier(std::uint32_t mbarrier, std::uint32_t parity);

struct Piece {
  std::uint32_t to;
  const void* from;  // nullptr: zeros
};
void launch_bulk_copy(std::vector<Piece> pieces, std::uint32_t mbarrier);

// Products of a warpgroup: `compute` adds a warp's part to its lanes' sums, on behalf of the lane
// that runs, when their group is waited for. Leaving the operands in place is the kernel's duty.
struct ProductLane {
  const std::uint32_t* a;  // kOperands of them
  float* sums;
};
struct Product {
  static constexpr std::size_t kOperands = 4;

  void (*compute)(const std::array<ProductLane, kLanes>& lanes, std::uint64_t tokens,
                  std::size_t values);
  float* d;
  std::size_t values;  // of d, in a lane
  const std::uint32_t* a;
  std::uint64_t tokens;
  bool adds;  // to d
};
void launch_product(const Product& product);
void fence_products();
void commit_products();
// For all but the `pending` youngest groups. Loads that came before it in the warp are done: they
// brought the operands of products, and kernels release what they read behind this wait.
void wait_products(int pending);

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
