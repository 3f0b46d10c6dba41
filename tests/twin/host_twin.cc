#include "tests/twin/host_twin.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "core/check.h"
#include "tests/twin/fiber.h"
#include "tests/twin/mbarrier.h"
#include "tests/twin/race_watch.h"

namespace w4::twin {
namespace {

constexpr std::array kBarrierNames = {"barrier 0",  "barrier 1",  "barrier 2",  "barrier 3",
                                      "barrier 4",  "barrier 5",  "barrier 6",  "barrier 7",
                                      "barrier 8",  "barrier 9",  "barrier 10", "barrier 11",
                                      "barrier 12", "barrier 13", "barrier 14", "barrier 15"};
constexpr std::byte kPoison{0xff};  // NaN in FP16, BF16 and FP32
constexpr std::size_t kCopyBytes = 16;
constexpr std::size_t kMbarrierBytes = 8;
constexpr int kWarpgroup = 4 * kLanes;

// ---- the machine -------------------------------------------------------------------------------

struct Stopped {};  // thrown to leave a kernel early

// A product under way, with what its operands were.
struct Launched {
  Product product;
  std::array<std::uint32_t, Product::kOperands> a;
};

// Of products under way: kept here, while NaN stands in the registers.
struct Sums {
  std::vector<float> values;
  int users = 0;
};

struct Block;

struct Thread {
  Block* block = nullptr;
  int index = 0;  // within the block
  Clock clock;

  Fiber fiber;
  std::vector<Piece> copies;        // in flight, oldest first
  std::vector<std::size_t> groups;  // sizes of the committed groups, oldest first
  std::size_t uncommitted = 0;

  std::deque<Launched> products;  // under way, oldest first
  std::deque<std::size_t> product_groups;
  std::size_t uncommitted_products = 0;
  std::map<float*, Sums> sums;
  bool has_fenced = false;  // since it last waited for products

  std::array<int, kSyncKinds> calls{};
  const char* waits_at = nullptr;  // where it waits, if it does
};

struct Barrier {
  int threads = 0;
  std::size_t arrived = 0;
  std::vector<Thread*> waiting;  // of those who arrived
  ClockTimes released;           // by the others
};

struct WatchedMbarrier {
  Mbarrier state;
  bool is_fenced = false;
  std::vector<Thread*> waiting{};
};

struct BulkCopy {
  Thread* thread;
  std::vector<Piece> pieces;
  WatchedMbarrier* mbarrier;
};

// Where a warp or a warpgroup comes together.
struct Meeting {
  const char* name = nullptr;
  std::array<void*, kWarpgroup> lanes{};
  std::size_t arrived = 0;
};

struct Block {
  int index = 0;
  std::size_t shared_bytes = 0;
  std::unique_ptr<std::byte[]> shared;
  RaceWatch watch;
  std::vector<Thread> threads;
  std::size_t alive = 0;  // threads
  std::size_t copies_in_flight = 0;
  std::vector<Meeting> warps;
  std::vector<Meeting> warpgroups;  // whole ones
  std::array<Barrier, kBarrierNames.size()> barriers;
  std::map<std::size_t, WatchedMbarrier> mbarriers;  // by offset
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
  [[nodiscard]] int grid() const { return launch_.grid; }
  [[nodiscard]] bool is_interleaved() const { return launch_.order == Order::kInterleaved; }

  [[noreturn]] void fail(const std::string& what);
  void wait_at(const char* place);
  void wake(Thread& thread);
  void give_way();

  // Counts a call, and says whether it is the one to leave out.
  bool is_removed(Sync kind) {
    const int index = running_->calls[static_cast<std::size_t>(kind)]++;
    const std::optional<Removal>& removal = launch_.removal;
    return removal && removal->kind == kind && removal->index == index &&
           removal->warp.value_or(running_->index / kLanes) == running_->index / kLanes;
  }

  // Copy engines' numbers in clocks follow those of the threads.
  [[nodiscard]] std::uint32_t threads() const {
    return static_cast<std::uint32_t>(launch_.grid * launch_.threads);
  }
  std::uint32_t new_engine() { return threads() + engines_++; }
  void add(BulkCopy copy);
  void wake_all(std::vector<Thread*>& waiting);

 private:
  void start(int index);
  void live(Thread& thread);
  void resume(Thread& thread);
  void suspend();
  void blame(const Thread& thread, const std::string& what);
  void land_next();
  void work_off();
  void finish();
  Thread* next();

  const Launch& launch_;
  const std::function<void()>& kernel_;
  std::mt19937_64 lot_;
  Report report_;
  std::vector<std::unique_ptr<Block>> blocks_;  // in flight
  std::deque<Thread*> ready_;
  std::deque<BulkCopy> in_flight_;
  std::uint32_t engines_ = 0;
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

// A piece of a copy lands, by `writer`.
void put(Block& block, const Piece& piece, const Clock& writer) {
  const std::size_t offset = piece.to - kSharedBase;
  std::byte* const to = block.shared.get() + offset;
  if (piece.from == nullptr) {
    std::fill_n(to, kCopyBytes, std::byte{0});
  } else {
    std::memcpy(to, piece.from, kCopyBytes);
  }
  block.watch.land(writer, offset, kCopyBytes);
}

void Machine::blame(const Thread& thread, const std::string& what) {
  if (!report_.fault.empty()) return;
  report_.fault = fmt::format("thread {} of block {}: {}", thread.index, thread.block->index, what);
}

void Machine::fail(const std::string& what) {
  blame(*running_, what);
  throw Stopped{};
}

void Machine::start(int index) {
  auto block = std::make_unique<Block>();
  block->index = index;
  block->shared_bytes = launch_.shared_bytes;
  block->shared = std::make_unique<std::byte[]>(launch_.shared_bytes);
  std::fill_n(block->shared.get(), launch_.shared_bytes, kPoison);
  block->threads = std::vector<Thread>(static_cast<std::size_t>(launch_.threads));
  block->alive = block->threads.size();
  block->warps.resize(block->threads.size() / kLanes);
  block->warpgroups.resize(block->threads.size() / kWarpgroup);
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
    const bool is_last = --thread.block->alive == 0;
    if (!thread.copies.empty() || (is_last && thread.block->copies_in_flight > 0)) {
      fail("ends with copies in flight");
    }
    if (!thread.products.empty()) fail("ends with products under way");
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

void Machine::wake_all(std::vector<Thread*>& waiting) {
  for (Thread* thread : waiting) wake(*thread);
  waiting.clear();
}

void Machine::add(BulkCopy copy) {
  ++copy.thread->block->copies_in_flight;
  in_flight_.push_back(std::move(copy));
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

// Of the copies in flight, in the order of the launch.
void Machine::land_next() {
  std::size_t chosen = 0;
  if (launch_.order == Order::kReversed) chosen = in_flight_.size() - 1;
  if (launch_.order == Order::kInterleaved) chosen = lot_() % in_flight_.size();
  const BulkCopy copy = std::move(in_flight_[chosen]);
  in_flight_.erase(in_flight_.begin() + static_cast<std::ptrdiff_t>(chosen));

  Block& block = *copy.thread->block;
  --block.copies_in_flight;
  Mbarrier& state = copy.mbarrier->state;
  for (const Piece& piece : copy.pieces) put(block, piece, state.writer());
  const std::uint32_t phase = state.phase();
  if (const char* wrong = state.land(static_cast<std::int64_t>(copy.pieces.size() * kCopyBytes))) {
    blame(*copy.thread, wrong);
    stopping_ = true;
  }
  if (state.phase() != phase) wake_all(copy.mbarrier->waiting);
}

// Runs what is ready until nothing is, and lets copies land.
void Machine::work_off() {
  while (!stopping_ && ready_.size() + in_flight_.size() > 0) {
    const bool may_land = ready_.empty() || (is_interleaved() && !in_flight_.empty());
    if (may_land && lot_() % (ready_.size() + in_flight_.size()) >= ready_.size()) {
      land_next();
    } else {
      resume(*next());
    }
  }
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
  in_flight_.clear();
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
  const std::string other = conflict->other < machine().threads()
                                ? fmt::format("thread {} of block {}", conflict->other % threads,
                                              conflict->other / threads)
                                : "the copy engine";
  fail(fmt::format("{} of {}, {} byte {}", conflict->what, other, space, conflict->address));
}

// Where data may go: not over an mbarrier.
std::size_t offset_to_write(const Block& block, std::uint32_t address, std::size_t bytes) {
  const std::size_t offset = shared_offset(block, address, bytes);
  const auto behind = block.mbarriers.lower_bound(offset + bytes);
  if (behind != block.mbarriers.begin() && std::prev(behind)->first + kMbarrierBytes > offset) {
    fail("writes over an mbarrier");
  }
  return offset;
}

WatchedMbarrier& mbarrier_at(std::uint32_t address) {
  Thread& thread = self();
  const auto found =
      thread.block->mbarriers.find(shared_offset(*thread.block, address, kMbarrierBytes));
  if (found == thread.block->mbarriers.end()) fail("no mbarrier was initialised there");
  if (!found->second.state.is_known_to(thread.clock)) {
    fail("uses an mbarrier without waiting for its initialisation");
  }
  return found->second;
}

void arrive(WatchedMbarrier& mbarrier) {
  const std::uint32_t phase = mbarrier.state.phase();
  if (const char* wrong = mbarrier.state.arrive(self().clock)) fail(wrong);
  if (mbarrier.state.phase() != phase) machine().wake_all(mbarrier.waiting);
}

Barrier& count_at_barrier(int id, int threads) {
  if (id < 0 || id >= static_cast<int>(kBarrierNames.size())) fail("there are barriers 0 to 15");
  if (threads <= 0 || threads % kLanes != 0) fail("a barrier is for whole warps");
  Barrier& barrier = self().block->barriers[static_cast<std::size_t>(id)];
  if (barrier.arrived == 0) barrier.threads = threads;
  if (barrier.threads != threads) fail("two numbers of threads for one barrier");
  ++barrier.arrived;
  return barrier;
}

// Whether all have come: then they go on.
bool has_ended(Barrier& barrier) {
  if (barrier.arrived < static_cast<std::size_t>(barrier.threads)) return false;
  std::vector<Clock*> clocks;
  for (Thread* waiting : barrier.waiting) clocks.push_back(&waiting->clock);
  if (!clocks.empty()) synchronize(clocks, barrier.released);
  machine().wake_all(barrier.waiting);
  barrier = {};
  return true;
}

// The threads of this one's group come together; the last computes.
template <std::size_t kThreads>
void meet_in(std::vector<Meeting>& groups, const char* name, void* mine,
             const std::function<void(std::span<void* const, kThreads>)>& compute) {
  Thread& thread = self();
  const auto index = static_cast<std::size_t>(thread.index);
  if (index / kThreads >= groups.size()) fail(fmt::format("at {}, not in a whole group", name));
  Meeting& meeting = groups[index / kThreads];
  if (meeting.arrived == 0) meeting.name = name;
  if (meeting.name != name && std::string_view(meeting.name) != name) {
    fail(fmt::format("at {}, others of its warp at {}", name, meeting.name));
  }
  meeting.lanes[index % kThreads] = mine;
  if (++meeting.arrived < kThreads) {
    machine().wait_at(name);
    return;
  }
  compute(std::span<void* const, kThreads>(meeting.lanes.data(), kThreads));
  meeting.arrived = 0;
  const std::size_t first = index / kThreads * kThreads;
  for (std::size_t i = 0; i < kThreads; ++i) machine().wake(thread.block->threads[first + i]);
}

// ---- products of warpgroups --------------------------------------------------------------------

const float kUntouchable = std::bit_cast<float>(~std::uint32_t{0});

void expect_untouched(const float* d, std::size_t values) {
  for (std::size_t i = 0; i < values; ++i) {
    if (std::bit_cast<std::uint32_t>(d[i]) != std::bit_cast<std::uint32_t>(kUntouchable)) {
      fail("writes sums of a product under way");
    }
  }
}

// The registers of d belong to products from here on.
Sums& take_sums(Thread& thread, float* d, std::size_t values) {
  for (auto& [other, sums] : thread.sums) {
    if (other == d && sums.values.size() == values) {
      expect_untouched(d, values);
      return sums;
    }
    const std::less<> less;
    if (less(other, d + values) && less(d, other + sums.values.size())) {
      fail("two products under way with overlapping sums");
    }
  }
  Sums& sums = thread.sums[d];
  sums.values.assign(d, d + values);
  std::fill_n(d, values, kUntouchable);
  return sums;
}

// Carries out the oldest product of each lane of a warp.
void carry_out(const std::array<Thread*, kLanes>& lanes) {
  std::array<ProductLane, kLanes> operands{};
  const Product product = lanes[0]->products.front().product;
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    const Launched& launched = lanes[i]->products.front();
    const Product& mine = launched.product;
    if (!std::equal(launched.a.begin(), launched.a.end(), mine.a)) {
      fail("overwrites operands of a product under way");
    }
    expect_untouched(mine.d, mine.values);
    std::vector<float>& sums = lanes[i]->sums.at(mine.d).values;
    if (!mine.adds) std::fill(sums.begin(), sums.end(), 0.0F);
    operands[i] = {mine.a, sums.data()};
  }
  product.compute(operands, product.tokens, product.values);
  for (Thread* lane : lanes) {
    float* const d = lane->products.front().product.d;
    lane->products.pop_front();
    Sums& sums = lane->sums.at(d);
    if (--sums.users > 0) continue;
    std::copy(sums.values.begin(), sums.values.end(), d);
    lane->sums.erase(d);
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
int grid_size() { return machine().grid(); }

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
  const std::size_t offset = offset_to_write(block, address, bytes);
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
  const std::size_t offset = offset_to_write(*thread.block, shared, kCopyBytes);
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
    std::for_each(thread.copies.begin(), end,
                  [&](const Piece& piece) { put(*thread.block, piece, thread.clock); });
    thread.copies.erase(thread.copies.begin(), end);
    thread.groups.erase(thread.groups.begin());
  }
}

void barrier(int id, int threads) {
  if (machine().is_removed(Sync::kBarrier)) return;
  Barrier& barrier = count_at_barrier(id, threads);
  barrier.waiting.push_back(&self());
  if (!has_ended(barrier)) machine().wait_at(kBarrierNames[static_cast<std::size_t>(id)]);
}

void barrier_arrive(int id, int threads) {
  if (machine().is_removed(Sync::kBarrier)) return;
  Barrier& barrier = count_at_barrier(id, threads);
  self().clock.release(barrier.released);
  has_ended(barrier);
}

void barrier_of_block() { barrier(0, static_cast<int>(self().block->threads.size())); }

void warp_sync() {
  if (machine().is_removed(Sync::kWarpSync)) return;
  collective("warp_sync", self().clock, [](const auto& clocks) {
    synchronize({clocks.begin(), clocks.end()});
  });
}

void meet(const char* name, void* mine, const std::function<void(Lanes)>& compute) {
  meet_in<kLanes>(self().block->warps, name, mine, compute);
}

void init_mbarrier(std::uint32_t address, std::uint32_t count) {
  Thread& thread = self();
  Block& block = *thread.block;
  const std::size_t offset = offset_to_write(block, address, kMbarrierBytes);
  if (count == 0) fail("an mbarrier of no arrivals");
  refuse("shared", block.watch.write(thread.clock, offset, kMbarrierBytes));
  block.mbarriers.emplace(offset,
                          WatchedMbarrier{Mbarrier(thread.clock, count, machine().new_engine())});
}

void fence_mbarriers() {
  for (auto& [offset, mbarrier] : self().block->mbarriers) {
    if (mbarrier.state.maker() == self().clock.thread) mbarrier.is_fenced = true;
  }
}

void expect_bytes(std::uint32_t mbarrier, std::uint32_t bytes) {
  if (const char* wrong = mbarrier_at(mbarrier).state.expect(bytes)) fail(wrong);
}

void arrive_at_mbarrier(std::uint32_t mbarrier) { arrive(mbarrier_at(mbarrier)); }

void wait_for_mbarrier(std::uint32_t mbarrier, std::uint32_t parity) {
  if (machine().is_removed(Sync::kMbarrierWait)) return;
  if (machine().is_interleaved()) machine().give_way();
  WatchedMbarrier& watched = mbarrier_at(mbarrier);
  if (parity > 1) fail("a parity is 0 or 1");
  while (!watched.state.has_ended(parity)) {
    watched.waiting.push_back(&self());
    machine().wait_at("an mbarrier");
  }
  watched.state.acquire(self().clock);
}

void launch_bulk_copy(std::vector<Piece> pieces, std::uint32_t mbarrier) {
  Thread& thread = self();
  WatchedMbarrier& watched = mbarrier_at(mbarrier);
  if (!watched.is_fenced) fail("a copy counts on an mbarrier without a fence behind its start");
  for (const Piece& piece : pieces) {
    const std::size_t offset = offset_to_write(*thread.block, piece.to, kCopyBytes);
    const auto from = reinterpret_cast<std::uintptr_t>(piece.from);
    expect_aligned("global", from, kCopyBytes);
    if (piece.from != nullptr && machine().global_watch().was_written(from, kCopyBytes)) {
      fail("a copy of what this launch wrote");
    }
    refuse("shared", thread.block->watch.launch_copy(thread.clock, offset, kCopyBytes));
  }
  machine().add({&thread, std::move(pieces), &watched});
}

void launch_product(const Product& product) {
  Thread& thread = self();
  if (!thread.has_fenced) fail("a product without a fence since the last wait for products");
  Product mine = product;
  using All = std::span<void* const, kWarpgroup>;
  meet_in<kWarpgroup>(thread.block->warpgroups, "wgmma", &mine, [](All all) {
    const auto& first = *static_cast<const Product*>(all[0]);
    for (const void* one : all) {
      const auto& other = *static_cast<const Product*>(one);
      if (other.compute != first.compute || other.values != first.values ||
          other.tokens != first.tokens || other.adds != first.adds) {
        fail("the warps of a warpgroup differ in their product");
      }
    }
  });
  Launched launched{product, {}};
  std::copy_n(product.a, launched.a.size(), launched.a.begin());
  ++take_sums(thread, product.d, product.values).users;
  thread.products.push_back(launched);
  ++thread.uncommitted_products;
}

void fence_products() {
  if (!machine().is_removed(Sync::kProductFence)) self().has_fenced = true;
}

void commit_products() {
  self().product_groups.push_back(std::exchange(self().uncommitted_products, 0));
}

void wait_products(int pending) {
  if (machine().is_removed(Sync::kProductWait)) return;
  const auto left = static_cast<std::size_t>(pending);
  collective("wgmma_wait", self(), [left](const std::array<Thread*, kLanes>& lanes) {
    std::vector<Clock*> clocks;
    for (Thread* lane : lanes) {
      if (lane->product_groups != lanes[0]->product_groups) fail("lanes apart in their products");
      clocks.push_back(&lane->clock);
    }
    while (lanes[0]->product_groups.size() > left) {
      for (std::size_t i = lanes[0]->product_groups.front(); i > 0; --i) carry_out(lanes);
      for (Thread* lane : lanes) lane->product_groups.pop_front();
    }
    for (Thread* lane : lanes) lane->has_fenced = false;
    synchronize(clocks);
  });
}

}  // namespace w4::twin
