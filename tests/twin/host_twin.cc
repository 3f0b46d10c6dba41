#include "tests/twin/host_twin.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/check.h"
#include "tests/twin/race_watch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace w4::twin {
namespace {

using boost::context::fiber;
using boost::context::stack_context;

constexpr std::size_t kStackBytes = std::size_t{128} << 10;  // -O0 under sanitizers takes 20 KiB
constexpr std::size_t kBarriers = 16;
constexpr std::byte kPoison{0xff};  // NaN in FP16, BF16 and FP32
constexpr std::size_t kCopyBytes = 16;

// ---- stacks ------------------------------------------------------------------------------------

// Stacks with a guard page, used again by later fibers.
class StackPool {
 public:
  ~StackPool() {
    for (stack_context& stack : free_) allocator_.deallocate(stack);
  }
  stack_context take() {
    if (free_.empty()) return allocator_.allocate();
    const stack_context stack = free_.back();
    free_.pop_back();
#if defined(__SANITIZE_ADDRESS__)
    // The frame a fiber ends in never returns, and leaves its red zones.
    __asan_unpoison_memory_region(static_cast<char*>(stack.sp) - stack.size, stack.size);
#endif
    return stack;
  }
  void give_back(const stack_context& stack) { free_.push_back(stack); }

 private:
  boost::context::protected_fixedsize_stack allocator_{kStackBytes};
  std::vector<stack_context> free_;
};

StackPool& stack_pool() {
  static StackPool pool;
  return pool;
}

// What Boost.Context asks for one fiber's stack.
struct PooledStack {
  stack_context stack;
  stack_context allocate() { return stack; }
  void deallocate(stack_context& done) { stack_pool().give_back(done); }
};

// AddressSanitizer has to know which stack is in use.
void announce_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                     [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, bottom, size);
#endif
}

void finish_switch([[maybe_unused]] void* saved, [[maybe_unused]] const void** bottom,
                   [[maybe_unused]] std::size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(saved, bottom, size);
#endif
}

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

  fiber own;      // where to go on, while it waits
  fiber machine;  // where to return to, while it runs
  stack_context stack;
  void* fake_stack = nullptr;

  std::vector<Copy> open;                // copies since the last commit
  std::deque<std::vector<Copy>> groups;  // committed, oldest first
  std::array<int, kSyncKinds> calls{};
  std::string waits_at;  // empty when it does not wait
  bool ended = false;
};

struct Barrier {
  int threads = 0;
  std::vector<Thread*> waiting;
};

struct Warp {
  std::string name;
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
  std::array<Barrier, kBarriers> barriers;
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
  void wait_at(std::string place);
  void wake(Thread& thread);
  void give_way();

  // Counts a call, and says whether it is the one to leave out.
  bool is_removed(Sync kind) {
    const int index = running_->calls[static_cast<std::size_t>(kind)]++;
    return launch_.removal && launch_.removal->kind == kind && launch_.removal->index == index;
  }

 private:
  void start(int index);
  fiber live(Thread& thread, fiber&& machine);
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

  void* fake_stack_ = nullptr;  // of the machine's own stack
  const void* stack_bottom_ = nullptr;
  std::size_t stack_size_ = 0;
};

Machine* machine_in_use = nullptr;

std::string name_of(const Thread& thread) {
  return "thread " + std::to_string(thread.index) + " of block " +
         std::to_string(thread.block->index);
}

Machine& machine() {
  W4_CHECK(machine_in_use != nullptr, "only a kernel on the twin may call this");
  return *machine_in_use;
}

Thread& self() { return machine().thread(); }

void Machine::fail(const std::string& what) {
  if (report_.fault.empty()) report_.fault = name_of(*running_) + ": " + what;
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
    thread.stack = stack_pool().take();
    thread.own =
        fiber(std::allocator_arg, PooledStack{thread.stack},
              [this, &thread](fiber&& machine) { return live(thread, std::move(machine)); });
    ready_.push_back(&thread);
  }
  blocks_.push_back(std::move(block));
}

// A thread's whole life, on its own stack.
fiber Machine::live(Thread& thread, fiber&& machine) {
  finish_switch(nullptr, &stack_bottom_, &stack_size_);
  thread.machine = std::move(machine);
  try {
    if (!stopping_) {
      kernel_();
      if (!thread.open.empty() || !thread.groups.empty()) {
        for (const std::vector<Copy>& group : thread.groups) {
          if (!group.empty()) fail("ends with copies in flight");
        }
        if (!thread.open.empty()) fail("ends with copies in flight");
      }
    }
  } catch (const Stopped&) {
    stopping_ = true;
  }
  thread.ended = true;
  announce_switch(nullptr, stack_bottom_, stack_size_);
  return std::move(thread.machine);
}

void Machine::resume(Thread& thread) {
  running_ = &thread;
  announce_switch(&fake_stack_, static_cast<char*>(thread.stack.sp) - thread.stack.size,
                  thread.stack.size);
  thread.own = std::move(thread.own).resume();
  finish_switch(fake_stack_, nullptr, nullptr);
  running_ = nullptr;
}

void Machine::suspend() {
  Thread& thread = *running_;
  announce_switch(&thread.fake_stack, stack_bottom_, stack_size_);
  thread.machine = std::move(thread.machine).resume();
  finish_switch(thread.fake_stack, &stack_bottom_, &stack_size_);
  if (stopping_) throw Stopped{};
}

void Machine::wait_at(std::string place) {
  running_->waits_at = std::move(place);
  suspend();
}

void Machine::wake(Thread& thread) {
  if (thread.waits_at.empty()) return;
  thread.waits_at.clear();
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
      if (thread.ended) {
        ++ended;
      } else {
        ++stuck["block " + std::to_string(block->index) + " at " + thread.waits_at];
      }
    }
  }
  if (stuck.empty()) return;
  report_.fault = "threads wait for ever:";
  for (const auto& [place, count] : stuck) {
    report_.fault += " " + std::to_string(count) + " of " + place + ",";
  }
  report_.fault += " " + std::to_string(ended) + " ended";
  stopping_ = true;
}

// Ends the blocks in flight; threads that wait leave their kernel first.
void Machine::finish() {
  ready_.clear();
  for (const auto& block : blocks_) {
    for (Thread& thread : block->threads) {
      if (!thread.ended) resume(thread);
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
    fail(std::string("misaligned ") + what + " access of " + std::to_string(bytes) + " bytes");
  }
}

// Offset of a shared address within the block's memory.
std::size_t shared_offset(const Block& block, std::uint32_t address, std::size_t bytes) {
  expect_aligned("shared", address, bytes);
  if (address < kSharedBase || address - kSharedBase + bytes > block.shared_bytes) {
    const auto offset = static_cast<std::int64_t>(address) - kSharedBase;
    fail("shared offset " + std::to_string(offset) + " + " + std::to_string(bytes) + " is out of " +
         std::to_string(block.shared_bytes) + " bytes");
  }
  return address - kSharedBase;
}

void refuse(const char* space, const std::optional<Conflict>& conflict) {
  if (!conflict) return;
  const auto threads = static_cast<std::uint32_t>(self().block->threads.size());
  fail(std::string(conflict->what) + " of thread " + std::to_string(conflict->other % threads) +
       " of block " + std::to_string(conflict->other / threads) + ", " + space + " byte " +
       std::to_string(conflict->address));
}

// Carries out one group of copies.
void land(Thread& thread, const std::vector<Copy>& group) {
  for (const Copy& copy : group) {
    const std::size_t offset = copy.to - kSharedBase;
    std::byte* const to = thread.block->shared.get() + offset;
    if (copy.from == nullptr) {
      std::fill_n(to, kCopyBytes, std::byte{0});
    } else {
      std::memcpy(to, copy.from, kCopyBytes);
    }
    thread.block->watch.land(thread.clock, offset, kCopyBytes);
  }
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
  thread.open.push_back({shared, from});
}

void commit_copies() {
  self().groups.push_back(std::move(self().open));
  self().open.clear();
}

void wait_copies(int pending) {
  if (machine().is_removed(Sync::kCopyWait)) return;
  Thread& thread = self();
  while (thread.groups.size() > static_cast<std::size_t>(pending)) {
    land(thread, thread.groups.front());
    thread.groups.pop_front();
  }
}

void barrier(int id, int threads) {
  if (machine().is_removed(Sync::kBarrier)) return;
  Thread& thread = self();
  if (id < 0 || id >= static_cast<int>(kBarriers)) fail("there are barriers 0 to 15");
  if (threads <= 0 || threads % kLanes != 0) fail("a barrier is for whole warps");
  const std::string name = "barrier " + std::to_string(id);
  Barrier& barrier = thread.block->barriers[static_cast<std::size_t>(id)];
  if (barrier.waiting.empty()) barrier.threads = threads;
  if (barrier.threads != threads) fail("two numbers of threads for " + name);
  barrier.waiting.push_back(&thread);
  if (barrier.waiting.size() < static_cast<std::size_t>(threads)) {
    machine().wait_at(name);
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
  if (warp.name != name) fail("at " + std::string(name) + ", others of its warp at " + warp.name);
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
