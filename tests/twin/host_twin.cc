#include "tests/twin/host_twin.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "core/check.h"
#include "tests/twin/fiber.h"
#include "tests/twin/race_watch.h"

namespace w4::twin {
namespace {

constexpr std::array kBarrierNames = {"barrier 0",  "barrier 1",  "barrier 2",  "barrier 3",
                                      "barrier 4",  "barrier 5",  "barrier 6",  "barrier 7",
                                      "barrier 8",  "barrier 9",  "barrier 10", "barrier 11",
                                      "barrier 12", "barrier 13", "barrier 14", "barrier 15"};
constexpr std::byte kPoison{0xff};  // NaN in FP16, BF16 and FP32
constexpr std::size_t kCopyBytes = 16;

// ---- the machine -------------------------------------------------------------------------------

struct Stopped {};  // thrown to leave a kernel early

struct Copy {
  std::uint32_t to;
  const void* from;  // nullptr: zeros
};

struct Block;

struct Thread {
  Block* block = nullptr;
  int index = 0;  // within the block
  Clock clock;

  Fiber fiber;
  std::vector<Copy> copies;         // in flight, oldest first
  std::vector<std::size_t> groups;  // sizes of the committed groups, oldest first
  std::size_t uncommitted = 0;
  std::array<int, kSyncKinds> calls{};
  const char* waits_at = nullptr;  // where it waits, if it does
};

struct Barrier {
  int threads = 0;
  std::vector<Thread*> waiting;
};

struct Warp {
  const char* name = nullptr;
  std::array<void*, kLanes> lanes{};
  std::size_t arrived = 0;
};

struct Block {
  int index = 0;
  std::size_t shared_bytes = 0;
  std::unique_ptr<std::byte[]> shared;
  RaceWatch watch;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::array<Barrier, kBarrierNames.size()> barriers;
};

class Machine {
 public:
  Machine(const Launch& launch, const std::function<void()>& kernel)
      : launch_(launch), kernel_(kernel), lot_(launch.seed) {
    W4_CHECK(launch.grid > 0 && launch.threads > 0 && launch.threads % kLanes == 0,
             "whole warps, and at least one");
  }

  Report run();

  [[nodiscard]] Thread& thread() const { return *running_; }
  [[nodiscard]] RaceWatch& global_watch() { return global_watch_; }
  [[nodiscard]] std::map<const void*, ClockTimes>& released() { return released_; }
  [[nodiscard]] bool is_interleaved() const { return launch_.order == Order::kInterleaved; }

  [[noreturn]] void fail(const std::string& what);
  void wait_at(const char* place);
  void wake(Thread& thread);
  void give_way();

  // Counts a call, and says whether it is the one to leave out.
  bool is_removed(Sync kind) {
    const int index = running_->calls[static_cast<std::size_t>(kind)]++;
    return launch_.removal && launch_.removal->kind == kind && launch_.removal->index == index;
  }

 private:
  void start(int index);
  void live(Thread& thread);
  void resume(Thread& thread);
  void suspend();
  void work_off();
  void finish();
  Thread* next();

  const Launch& launch_;
  const std::function<void()>& kernel_;
  std::mt19937_64 lot_;
  Report report_;
  std::vector<std::unique_ptr<Block>> blocks_;  // in flight
  std::deque<Thread*> ready_;
  Thread* running_ = nullptr;
  RaceWatch global_watch_;
  std::map<const void*, ClockTimes> released_;  // by counter
  bool stopping_ = false;
};

Machine* machine_in_use = nullptr;

Machine& machine() {
  W4_CHECK(machine_in_use != nullptr, "only a kernel on the twin may call this");
  return *machine_in_use;
}

Thread& self() { return machine().thread(); }

void Machine::fail(const std::string& what) {
  if (report_.fault.empty()) {
    report_.fault =
        fmt::format("thread {} of block {}: {}", running_->index, running_->block->index, what);
  }
  throw Stopped{};
}

void Machine::start(int index) {
  auto block = std::make_unique<Block>();
  block->index = index;
  block->shared_bytes = launch_.shared_bytes;
  block->shared = std::make_unique<std::byte[]>(launch_.shared_bytes);
  std::fill_n(block->shared.get(), launch_.shared_bytes, kPoison);
  block->threads = std::vector<Thread>(static_cast<std::size_t>(launch_.threads));
  block->warps.resize(block->threads.size() / kLanes);
  const auto no_times = std::make_shared<const ClockTimes>(static_cast<std::size_t>(launch_.grid) *
                                                           block->threads.size());
  for (std::size_t i = 0; i < block->threads.size(); ++i) {
    Thread& thread = block->threads[i];
    thread.block = block.get();
    thread.index = static_cast<int>(i);
    thread.clock = {static_cast<std::uint32_t>(index * launch_.threads + thread.index), 1,
                    no_times};
    thread.fiber.start([this, &thread] { live(thread); });
    ready_.push_back(&thread);
  }
  blocks_.push_back(std::move(block));
}

// A thread's whole life, on its own stack.
void Machine::live(Thread& thread) {
  if (stopping_) return;
  try {
    kernel_();
    if (!thread.copies.empty()) fail("ends with copies in flight");
  } catch (const Stopped&) {
    stopping_ = true;
  }
}

void Machine::resume(Thread& thread) {
  running_ = &thread;
  thread.fiber.resume();
  running_ = nullptr;
}

void Machine::suspend() {
  running_->fiber.suspend();
  if (stopping_) throw Stopped{};
}

void Machine::wait_at(const char* place) {
  running_->waits_at = place;
  suspend();
}

void Machine::wake(Thread& thread) {
  if (thread.waits_at == nullptr) return;
  thread.waits_at = nullptr;
  ready_.push_back(&thread);
}

void Machine::give_way() {
  ready_.push_back(running_);
  suspend();
}

Thread* Machine::next() {
  if (launch_.order == Order::kInterleaved) {
    std::swap(ready_[lot_() % ready_.size()], ready_.back());
  }
  const bool takes_last = launch_.order != Order::kForward;
  Thread* const chosen = takes_last ? ready_.back() : ready_.front();
  if (takes_last) {
    ready_.pop_back();
  } else {
    ready_.pop_front();
  }
  return chosen;
}

// Runs what is ready until nothing is.
void Machine::work_off() {
  while (!ready_.empty() && !stopping_) resume(*next());
  if (stopping_) return;
  std::map<std::string, int> stuck;
  int ended = 0;
  for (const auto& block : blocks_) {
    for (const Thread& thread : block->threads) {
      if (thread.fiber.has_ended()) {
        ++ended;
      } else {
        ++stuck[fmt::format("block {} at {}", block->index, thread.waits_at)];
      }
    }
  }
  if (stuck.empty()) return;
  report_.fault = "threads wait for ever:";
  for (const auto& [place, count] : stuck) {
    report_.fault += fmt::format(" {} of {},", count, place);
  }
  report_.fault += fmt::format(" {} ended", ended);
  stopping_ = true;
}

// Ends the blocks in flight; threads that wait leave their kernel first.
void Machine::finish() {
  ready_.clear();
  for (const auto& block : blocks_) {
    for (Thread& thread : block->threads) {
      if (!thread.fiber.has_ended()) resume(thread);
      for (std::size_t i = 0; i < kSyncKinds; ++i) {
        report_.calls[i] = std::max(report_.calls[i], thread.calls[i]);
      }
    }
  }
  blocks_.clear();
}

Report Machine::run() {
  std::vector<int> order(static_cast<std::size_t>(launch_.grid));
  std::iota(order.begin(), order.end(), 0);
  if (launch_.order == Order::kReversed) std::reverse(order.begin(), order.end());
  for (const int index : order) {
    if (stopping_) break;
    start(index);
    if (launch_.order == Order::kInterleaved && index + 1 < launch_.grid) continue;
    work_off();
    finish();
  }
  return report_;
}

// ---- memory ------------------------------------------------------------------------------------

void expect_aligned(const char* what, std::uintptr_t address, std::size_t bytes) {
  if (address % bytes != 0) {
    fail(fmt::format("misaligned {} access of {} bytes", what, bytes));
  }
}

// Offset of a shared address within the block's memory.
std::size_t shared_offset(const Block& block, std::uint32_t address, std::size_t bytes) {
  expect_aligned("shared", address, bytes);
  if (address < kSharedBase || address - kSharedBase + bytes > block.shared_bytes) {
    const auto offset = static_cast<std::int64_t>(address) - kSharedBase;
    fail(
        fmt::format("shared offset {} + {} is out of {} bytes", offset, bytes, block.shared_bytes));
  }
  return address - kSharedBase;
}

void refuse(const char* space, const std::optional<Conflict>& conflict) {
  if (!conflict) return;
  const auto threads = static_cast<std::uint32_t>(self().block->threads.size());
  fail(fmt::format("{} of thread {} of block {}, {} byte {}", conflict->what,
                   conflict->other % threads, conflict->other / threads, space, conflict->address));
}

void land(Thread& thread, const Copy& copy) {
  const std::size_t offset = copy.to - kSharedBase;
  std::byte* const to = thread.block->shared.get() + offset;
  if (copy.from == nullptr) {
    std::fill_n(to, kCopyBytes, std::byte{0});
  } else {
    std::memcpy(to, copy.from, kCopyBytes);
  }
  thread.block->watch.land(thread.clock, offset, kCopyBytes);
}

}  // namespace

Report run(const Launch& launch, const std::function<void()>& kernel) {
  W4_CHECK(machine_in_use == nullptr, "one run at a time");
  Machine machine(launch, kernel);
  machine_in_use = &machine;
  Report report = machine.run();
  machine_in_use = nullptr;
  return report;
}

void fail(const std::string& what) { machine().fail(what); }

int thread_index() { return self().index; }
int block_index() { return self().block->index; }

void load_shared_as(int lane, std::uint32_t address, void* to, std::size_t bytes) {
  Block& block = *self().block;
  const auto index = static_cast<std::size_t>(self().index / kLanes * kLanes + lane);
  const std::size_t offset = shared_offset(block, address, bytes);
  refuse("shared", block.watch.read(block.threads[index].clock, offset, bytes));
  std::memcpy(to, block.shared.get() + offset, bytes);
}

void load_shared(std::uint32_t address, void* to, std::size_t bytes) {
  load_shared_as(self().index % kLanes, address, to, bytes);
}

void store_shared(std::uint32_t address, const void* from, std::size_t bytes) {
  Block& block = *self().block;
  const std::size_t offset = shared_offset(block, address, bytes);
  refuse("shared", block.watch.write(self().clock, offset, bytes));
  std::memcpy(block.shared.get() + offset, from, bytes);
}

void load_global(const void* address, void* to, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  expect_aligned("global", at, bytes);
  refuse("global", machine().global_watch().read(self().clock, at, bytes));
  std::memcpy(to, address, bytes);
}

void load_global_constant(const void* address, void* to, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  expect_aligned("global", at, bytes);
  if (machine().global_watch().was_written(at, bytes)) {
    fail("a read-only load of what this launch wrote");
  }
  std::memcpy(to, address, bytes);
}

void store_global(void* address, const void* from, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  expect_aligned("global", at, bytes);
  refuse("global", machine().global_watch().write(self().clock, at, bytes));
  std::memcpy(address, from, bytes);
}

std::uint32_t atomic_increment(std::uint32_t* address) {
  if (machine().is_interleaved()) machine().give_way();
  self().clock.acquire_and_release(machine().released()[address]);
  return (*address)++;
}

void copy_async(std::uint32_t shared, const void* from) {
  Thread& thread = self();
  const std::size_t offset = shared_offset(*thread.block, shared, kCopyBytes);
  expect_aligned("global", reinterpret_cast<std::uintptr_t>(from), kCopyBytes);
  refuse("shared", thread.block->watch.launch_copy(thread.clock, offset, kCopyBytes));
  thread.copies.push_back({shared, from});
  ++thread.uncommitted;
}

void commit_copies() { self().groups.push_back(std::exchange(self().uncommitted, 0)); }

void wait_copies(int pending) {
  if (machine().is_removed(Sync::kCopyWait)) return;
  Thread& thread = self();
  while (thread.groups.size() > static_cast<std::size_t>(pending)) {
    const auto end = thread.copies.begin() + static_cast<std::ptrdiff_t>(thread.groups.front());
    std::for_each(thread.copies.begin(), end, [&](const Copy& copy) { land(thread, copy); });
    thread.copies.erase(thread.copies.begin(), end);
    thread.groups.erase(thread.groups.begin());
  }
}

void barrier(int id, int threads) {
  if (machine().is_removed(Sync::kBarrier)) return;
  Thread& thread = self();
  if (id < 0 || id >= static_cast<int>(kBarrierNames.size())) fail("there are barriers 0 to 15");
  if (threads <= 0 || threads % kLanes != 0) fail("a barrier is for whole warps");
  Barrier& barrier = thread.block->barriers[static_cast<std::size_t>(id)];
  if (barrier.waiting.empty()) barrier.threads = threads;
  if (barrier.threads != threads) fail("two numbers of threads for one barrier");
  barrier.waiting.push_back(&thread);
  if (barrier.waiting.size() < static_cast<std::size_t>(threads)) {
    machine().wait_at(kBarrierNames[static_cast<std::size_t>(id)]);
    return;
  }
  std::vector<Clock*> clocks;
  for (Thread* waiting : barrier.waiting) clocks.push_back(&waiting->clock);
  synchronize(clocks);
  for (Thread* waiting : barrier.waiting) machine().wake(*waiting);
  barrier.waiting.clear();
}

void barrier_of_block() { barrier(0, static_cast<int>(self().block->threads.size())); }

void warp_sync() {
  if (machine().is_removed(Sync::kWarpSync)) return;
  collective("warp_sync", self().clock, [](const auto& clocks) {
    synchronize({clocks.begin(), clocks.end()});
  });
}

void meet(const char* name, void* mine, const std::function<void(Lanes)>& compute) {
  Thread& thread = self();
  const auto first = static_cast<std::size_t>(thread.index / kLanes * kLanes);
  const auto lane = static_cast<std::size_t>(thread.index) - first;
  Warp& warp = thread.block->warps[first / kLanes];
  if (warp.arrived == 0) warp.name = name;
  if (warp.name != name && std::string_view(warp.name) != name) {
    fail(fmt::format("at {}, others of its warp at {}", name, warp.name));
  }
  warp.lanes[lane] = mine;
  if (++warp.arrived < kLanes) {
    machine().wait_at(name);
    return;
  }
  compute(Lanes(warp.lanes));
  warp.arrived = 0;
  for (std::size_t i = 0; i < kLanes; ++i) machine().wake(thread.block->threads[first + i]);
}

}  // namespace w4::twin
