// The twin against hand values and against small programs with known mistakes: what it lets pass
// and what it reports is what the tests of the families stand on.
#include "tests/twin/host_twin.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "templates/device/ptx.cuh"

namespace w4 {
namespace {

using twin::Launch;
using twin::Order;
using twin::Removal;
using twin::run;
using twin::Sync;

// Each result of one warp, in lanes' order.
template <class Value, class Kernel>
std::vector<Value> per_lane(std::size_t shared_bytes, Kernel kernel) {
  std::vector<Value> values(32);
  const auto report = run({.shared_bytes = shared_bytes}, [&] {
    values[static_cast<std::size_t>(thread_index())] = kernel(thread_index());
  });
  EXPECT_EQ(report.fault, "");
  return values;
}

std::string fault_of(const Launch& launch, const std::function<void()>& kernel) {
  return run(launch, kernel).fault;
}

bool mentions(const std::string& fault, const std::string& what) {
  return fault.find(what) != std::string::npos;
}

u32 lane_address(int element, int bytes) {
  return shared_base() + static_cast<u32>(element * bytes);
}

// ---- what the wrappers mean -------------------------------------------------------------------

TEST(TwinWrappers, LdmatrixGivesLane4gPlusTElements2tAnd2tPlus1OfRowG) {
  // Matrix i, row r, element e holds 100 i + 10 r + e; rows lie in reverse order.
  struct Four {
    u32 r[4];
  };
  const auto fill = [](int lane) {
    for (int e = 0; e < 8; ++e) {
      const int value = 100 * (lane / 8) + 10 * (lane % 8) + e;
      store_shared_u16(lane_address((31 - lane) * 8 + e, 2), static_cast<u16>(value));
    }
    warp_sync();
  };
  const auto four = per_lane<Four>(512, [&](int lane) {
    fill(lane);
    Four f;
    ldmatrix_x4(lane_address(31 - lane, 16), f.r[0], f.r[1], f.r[2], f.r[3]);
    return f;
  });
  const auto two = per_lane<Four>(512, [&](int lane) {
    fill(lane);
    Four f{};
    ldmatrix_x2(lane < 16 ? lane_address(31 - lane, 16) : 0, f.r[0], f.r[1]);
    return f;
  });
  for (u32 lane = 0; lane < 32; ++lane) {
    for (u32 i = 0; i < 4; ++i) {
      const u32 first = 100 * i + 10 * (lane / 4) + 2 * (lane % 4);
      EXPECT_EQ(four[lane].r[i], first | ((first + 1) << 16)) << lane;
      if (i < 2) {
        EXPECT_EQ(two[lane].r[i], first | ((first + 1) << 16)) << lane;
      }
    }
  }
}

// One element of a, one of b, one of c at a time, found where the PTX ISA puts it.
template <class Element>
void expect_mma_fragments() {
  const u16 three = Element::from_f32(3.0F);
  const u16 five = Element::from_f32(5.0F);
  for (int row = 0; row < 16; row += 5) {
    for (int depth = 0; depth < 16; depth += 3) {
      for (int column = 0; column < 8; column += 3) {
        struct Four {
          float v[4];
        };
        const auto d = per_lane<Four>(0, [&](int lane) {
          u32 a[4] = {};
          u32 b[2] = {};
          const float c[4] = {0.5F, 0.5F, 0.5F, 0.5F};
          const int in_half = depth % 8;
          if (lane == row % 8 * 4 + in_half / 2) {
            a[row / 8 + 2 * (depth / 8)] = static_cast<u32>(three) << (16 * (depth % 2));
          }
          if (lane == column * 4 + in_half / 2) {
            b[depth / 8] = static_cast<u32>(five) << (16 * (depth % 2));
          }
          Four f;
          Element::mma(f.v, a, b, c);
          return f;
        });
        for (int lane = 0; lane < 32; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const bool here = lane == row % 8 * 4 + column / 2 && i == row / 8 * 2 + column % 2;
            ASSERT_EQ(d[static_cast<std::size_t>(lane)].v[i], here ? 15.5F : 0.5F)
                << row << ' ' << depth << ' ' << column << " lane " << lane;
          }
        }
      }
    }
  }
}

TEST(TwinWrappers, MmaFragmentsOfF16LieWhereTheIsaPutsThem) { expect_mma_fragments<F16>(); }
TEST(TwinWrappers, MmaFragmentsOfBF16LieWhereTheIsaPutsThem) { expect_mma_fragments<BF16>(); }

TEST(TwinWrappers, MmaHonoursDenormals) {
  const auto d = per_lane<float>(0, [](int) {
    const u32 smallest = 0x00010001;  // 2^-24
    const u32 a[4] = {smallest, smallest, smallest, smallest};
    const u32 one[2] = {0x3c003c00, 0x3c003c00};
    float sum[4] = {};
    F16::mma(sum, a, one, sum);
    return sum[3];
  });
  EXPECT_EQ(d[0], 0x1p-20F);
}

TEST(TwinWrappers, ShufflesMoveValuesBetweenLanes) {
  const auto swapped =
      per_lane<u32>(0, [](int lane) { return shuffle_xor(static_cast<u32>(lane), 5); });
  const auto moved =
      per_lane<float>(0, [](int lane) { return shuffle_down(static_cast<float>(lane), 3); });
  const auto picked =
      per_lane<u32>(0, [](int lane) { return shuffle(static_cast<u32>(lane), lane / 8 + 4); });
  for (u32 lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(swapped[lane], lane ^ 5);
    EXPECT_EQ(picked[lane], lane / 8 + 4);
    EXPECT_EQ(moved[lane], static_cast<float>(lane < 29 ? lane + 3 : lane));
  }
}

TEST(TwinWrappers, PackedArithmeticRoundsOnce) {
  // (1 - 2^-10)(1 + 2^-10) 2^-11 + (1 + 2^-10) lies 2^-31 below a tie, which FP32 would lose.
  EXPECT_EQ(F16::fma2(pair_of(0x3bfe), pair_of(0x1001), pair_of(0x3c01)), pair_of(0x3c01));
  EXPECT_EQ(F16::sub2(pair_of(0x6408, 0x640f), pair_of(0x6408)), pair_of(0, F16::from_f32(7.0F)));
  EXPECT_EQ(F16::mul2(pair_of(0x0001, 0x3c01), pair_of(0x3800, 0x3c01)),
            pair_of(0x0000, 0x3c02));  // half of the smallest is a tie, to even
  EXPECT_EQ(BF16::fma2(pair_of(0x4308), pair_of(0x3f80), pair_of(0xc308)), 0U);
  EXPECT_EQ(BF16::mul2(pair_of(0x3f81, 0xbf80), pair_of(0x3f81)), pair_of(0x3f82, 0xbf81));
}

TEST(TwinWrappers, TheRestOfTheArithmetic) {
  EXPECT_EQ(and_or(0x12, 0x0f, 0x640), 0x642U);
  EXPECT_EQ(permute_bytes(0x33221100, 0x77665544, 0x4341), 0x44334411U);
  EXPECT_EQ(fma_f32(2.0F, 3.0F, 4.0F), 10.0F);
  for (const float x : {-90.0F, -2.0F, -0.3F, 0.0F, 1e-3F, 0.7F, 3.0F, 90.0F}) {
    EXPECT_NEAR(tanh_f32(x), std::tanh(x), 2e-7F) << x;
  }
}

TEST(TwinWrappers, ACopyLandsAtItsWaitAndZerosWhereItIsNotValid) {
  const std::vector<u32> from(32 * 4, 7);
  struct Seen {
    u32 copied, zero;
  };
  const auto seen = per_lane<Seen>(1024, [&](int lane) {
    const u32 to = lane_address(lane, 32);
    cp_async_16(to, from.data() + 4 * lane, true);
    cp_async_commit();
    cp_async_16(to + 16, from.data(), false);
    cp_async_commit();
    cp_async_wait<1>();
    const u32 copied = load_shared_u32(to + 12);
    cp_async_wait<0>();
    return Seen{copied, load_shared_u32(to + 16)};
  });
  EXPECT_EQ(seen[31].copied, 7U);
  EXPECT_EQ(seen[31].zero, 0U);
}

// ---- what the machine reports -----------------------------------------------------------------

TEST(Twin, RunsEveryThreadOfEveryBlockOnce) {
  for (const Order order : {Order::kForward, Order::kReversed, Order::kInterleaved}) {
    std::vector<int> count(3 * 64);
    const auto report = run({.grid = 3, .threads = 64, .order = order, .seed = 1}, [&] {
      barrier();
      ++count[static_cast<std::size_t>(block_index() * 64 + thread_index())];
    });
    EXPECT_EQ(report.fault, "");
    EXPECT_EQ(report.calls[0], 1);
    EXPECT_EQ(count, std::vector<int>(3 * 64, 1));
  }
}

TEST(Twin, SharedMemoryStartsAsNaNAndEndsWhereItEnds) {
  EXPECT_EQ(per_lane<u32>(128, [](int lane) { return load_shared_u32(lane_address(lane, 4)); })[31],
            ~0U);
  EXPECT_TRUE(mentions(
      fault_of({.shared_bytes = 124}, [] { load_shared_u32(lane_address(thread_index(), 4)); }),
      "out of 124 bytes"));
  EXPECT_TRUE(mentions(fault_of({.shared_bytes = 64}, [] { load_shared_u32(0); }), "out of"));
  EXPECT_TRUE(mentions(fault_of({.shared_bytes = 64}, [] { load_shared_16(shared_base() + 8); }),
                       "misaligned shared access of 16 bytes"));
}

// Thread t writes word t, and reads word t + 1 after `between`.
template <class Between>
std::string exchange(const Launch& launch, Between between) {
  return fault_of(launch, [&] {
    const int t = thread_index();
    store_shared_u32(lane_address(t, 4), static_cast<u32>(t));
    between();
    load_shared_u32(lane_address((t + 1) % launch.threads, 4));
  });
}

TEST(Twin, AReadThatDoesNotWaitForAWriteIsARaceInEveryOrder) {
  for (const Order order : {Order::kForward, Order::kReversed, Order::kInterleaved}) {
    const Launch launch{.threads = 64, .shared_bytes = 256, .order = order, .seed = 5};
    EXPECT_EQ(exchange(launch, [] { barrier(); }), "");
    EXPECT_TRUE(mentions(exchange(launch, [] {}), "without waiting for a"));
    EXPECT_TRUE(mentions(exchange(launch, [] { warp_sync(); }), "without waiting for a"))
        << "the other warp was not waited for";
    Launch without = launch;
    without.removal = Removal{Sync::kBarrier, 0};
    EXPECT_TRUE(mentions(exchange(without, [] { barrier(); }), "without waiting for a"));
  }
  const Launch warp{.shared_bytes = 128};
  EXPECT_EQ(exchange(warp, [] { warp_sync(); }), "");
  EXPECT_NE(exchange(warp, [] { shuffle_xor(1U, 1); }), "") << "a shuffle orders no memory";
}

TEST(Twin, AWriteWaitsForReadsAndWrites) {
  const Launch launch{.threads = 64, .shared_bytes = 256};
  const auto write = [](int word) { store_shared_u32(lane_address(word, 4), 1); };
  EXPECT_TRUE(mentions(fault_of(launch, [&] { write(0); }), "without waiting for a write"));
  EXPECT_TRUE(mentions(fault_of(launch,
                                [&] {
                                  load_shared_u32(shared_base());
                                  if (thread_index() == 5) write(0);
                                }),
                       "without waiting for a read"));
  EXPECT_EQ(fault_of(launch,
                     [&] {
                       load_shared_u32(shared_base());
                       barrier();
                       if (thread_index() == 5) write(0);
                     }),
            "");
}

TEST(Twin, NeighbouringHalfWordsAreNoRace) {
  EXPECT_EQ(fault_of({.threads = 64, .shared_bytes = 128},
                     [] { store_shared_u16(lane_address(thread_index(), 2), 1); }),
            "");
}

TEST(Twin, ANamedBarrierOrdersItsThreadsAlone) {
  const Launch launch{.threads = 96, .shared_bytes = 16};
  // Warps 0 and 1 share barrier 1; warp 2 reads what warp 0 wrote.
  const auto reads_from = [&](int reader) {
    return fault_of(launch, [reader] {
      if (thread_index() == 0) store_shared_u32(shared_base(), 1);
      if (thread_index() < 64) barrier_named(1, 64);
      if (thread_index() == reader) load_shared_u32(shared_base());
    });
  };
  EXPECT_EQ(reads_from(40), "");
  EXPECT_NE(reads_from(70), "");
}

TEST(Twin, ACopyInFlightMustNotBeTouched) {
  const std::vector<u32> from(4, 7);
  const Launch launch{.threads = 64, .shared_bytes = 16};
  // Thread 0 copies and waits; everyone reads behind the barrier.
  const auto kernel = [&] {
    if (thread_index() == 0) {
      cp_async_16(shared_base(), from.data(), true);
      cp_async_commit();
    }
    cp_async_wait<0>();
    barrier();
    load_shared_u32(shared_base());
  };
  EXPECT_EQ(fault_of(launch, kernel), "");
  Launch no_wait = launch;
  no_wait.removal = Removal{Sync::kCopyWait, 0};
  EXPECT_TRUE(mentions(fault_of(no_wait, kernel), "not brought yet"));
  Launch no_barrier = launch;
  no_barrier.removal = Removal{Sync::kBarrier, 0};
  EXPECT_TRUE(mentions(fault_of(no_barrier, kernel), "without waiting for a"));
  EXPECT_TRUE(mentions(fault_of(launch,
                                [&] {
                                  if (thread_index() == 0) {
                                    cp_async_16(shared_base(), from.data(), true);
                                  }
                                }),
                       "ends with copies in flight"));
}

TEST(Twin, LanesApartAndThreadsThatWaitForEverAreReported) {
  EXPECT_TRUE(mentions(fault_of({},
                                [] {
                                  if (thread_index() < 16) {
                                    shuffle_xor(1U, 1);
                                  } else {
                                    shuffle_down(1U, 1);
                                  }
                                }),
                       "others of its warp at shuffle_"));
  EXPECT_TRUE(mentions(fault_of({},
                                [] {
                                  if (thread_index() != 3) shuffle_xor(1U, 1);
                                }),
                       "31 of block 0 at shuffle_xor, 1 ended"));
  EXPECT_TRUE(mentions(fault_of({.threads = 64},
                                [] {
                                  if (thread_index() < 32) barrier();
                                }),
                       "32 of block 0 at barrier 0, 32 ended"));
}

// Every block leaves a value; the last to arrive reads all of them.
TEST(Twin, AnAtomicHandsOverWhatTheBarrierBeforeItGathered) {
  for (const Order order : {Order::kForward, Order::kReversed, Order::kInterleaved}) {
    for (const bool is_right : {true, false}) {
      std::vector<float> partials(4 * 64 * 4);
      u32 counter = 0;
      const Launch launch{.grid = 4, .threads = 64, .shared_bytes = 4, .order = order, .seed = 9};
      const std::string fault = fault_of(launch, [&] {
        const float mine[4] = {1.0F, 2.0F, 3.0F, 4.0F};
        store_global_l2(partials.data() + (block_index() * 64 + thread_index()) * 4, mine);
        if (is_right) barrier();
        if (thread_index() == 0) store_shared_u32(shared_base(), atomic_increment(&counter));
        barrier();
        if (load_shared_u32(shared_base()) != 3) return;
        for (int block = 0; block < 4; ++block) {
          load_global_l2(partials.data() + (block * 64 + thread_index()) * 4);
        }
      });
      EXPECT_EQ(fault.empty(), is_right) << fault;
    }
  }
}

TEST(Twin, AReadOnlyLoadOfWhatWasWrittenIsReported) {
  alignas(16) u32 memory[4 * 32] = {};
  EXPECT_TRUE(mentions(fault_of({},
                                [&] {
                                  u32* const mine = memory + 4 * thread_index();
                                  store_global_16(mine, {{1, 2, 3, 4}});
                                  load_global_16(mine);
                                }),
                       "read-only"));
}

#if defined(__SANITIZE_ADDRESS__)
TEST(Twin, AddressSanitizerSeesGlobalMemory) {
  const std::vector<u32> from(4 * 31);
  const auto kernel = [&] {
    cp_async_16(lane_address(thread_index(), 16), from.data() + 4 * thread_index(), true);
    cp_async_commit();
    cp_async_wait<0>();
  };
  EXPECT_DEATH(run({.shared_bytes = 512}, kernel), "heap-buffer-overflow");
}
#endif

TEST(Twin, HasNoClusters) {
  EXPECT_TRUE(mentions(fault_of({}, [] { cluster_barrier(); }), "not in the twin"));
}

}  // namespace
}  // namespace w4
