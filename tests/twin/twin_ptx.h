// The wrappers of templates/device/ptx.cuh on the host twin; included by that file alone, in place
// of the instructions.
//
// Arithmetic is exact and rounded once: a packed operation to FP16 or BF16, an mma (16 products and
// the addend, in double) to FP32. Tensor cores truncate a little where they align products, so a
// result here is closer to the truth than theirs. Denormals count.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/half.h"
#include "tests/twin/host_twin.h"

#define __device__
#define __forceinline__ inline

namespace w4 {

inline int thread_index() { return twin::thread_index(); }
inline int block_index() { return twin::block_index(); }
inline int grid_size() { return twin::grid_size(); }
inline u32 shared_base() { return twin::kSharedBase; }

// ---- shared memory ----------------------------------------------------------------------------

template <class Value>
Value load_shared_value(u32 address) {
  Value value;
  twin::load_shared(address, &value, sizeof(value));
  return value;
}

inline U32x4 load_shared_16(u32 address) { return load_shared_value<U32x4>(address); }
inline F32x4 load_shared_f32x4(u32 address) { return load_shared_value<F32x4>(address); }
inline u16 load_shared_u16(u32 address) { return load_shared_value<u16>(address); }
inline u32 load_shared_u32(u32 address) { return load_shared_value<u32>(address); }

inline void store_shared_16(u32 address, const U32x4& value) {
  twin::store_shared(address, &value, 16);
}
inline void store_shared_f32x4(u32 address, const float* v) { twin::store_shared(address, v, 16); }
inline void store_shared_u16(u32 address, u16 value) { twin::store_shared(address, &value, 2); }
inline void store_shared_u32(u32 address, u32 value) { twin::store_shared(address, &value, 4); }

inline float load_shared_f32(u32 address) { return load_shared_value<float>(address); }
inline void store_shared_f32(u32 address, float value) { twin::store_shared(address, &value, 4); }
inline void store_shared_f32x2(u32 address, float first, float second) {
  const float pair[2] = {first, second};
  twin::store_shared(address, pair, 8);
}

// r[i] of matrix i; only the addresses of the first 8 * matrices lanes count.
void ldmatrix(std::size_t matrices, u32 address, u32* r);

inline void ldmatrix_x4(u32 address, u32& r0, u32& r1, u32& r2, u32& r3) {
  u32 r[4];
  ldmatrix(4, address, r);
  r0 = r[0];
  r1 = r[1];
  r2 = r[2];
  r3 = r[3];
}

inline void ldmatrix_x2(u32 address, u32& r0, u32& r1) {
  u32 r[2];
  ldmatrix(2, address, r);
  r0 = r[0];
  r1 = r[1];
}

// ---- global memory ----------------------------------------------------------------------------

inline void cp_async_16(u32 shared, const void* global, bool valid) {
  twin::copy_async(shared, valid ? global : nullptr);
}
inline void cp_async_commit() { twin::commit_copies(); }

template <int kPending>
void cp_async_wait() {
  twin::wait_copies(kPending);
}

inline U32x4 load_global_16(const void* address) {
  U32x4 r;
  twin::load_global_constant(address, &r, 16);
  return r;
}

inline U32x4 load_global_16_cached(const void* address) {
  U32x4 r;
  twin::load_global(address, &r, 16);
  return r;
}

inline u32 load_global_u32(const void* address) {
  u32 r;
  twin::load_global_constant(address, &r, 4);
  return r;
}

inline u16 load_global_u16(const void* address) {
  u16 r;
  twin::load_global_constant(address, &r, 2);
  return r;
}

inline F32x4 load_global_l2(const float* address) {
  F32x4 r;
  twin::load_global(address, &r, 16);
  return r;
}

inline void store_global_l2(float* address, const float* v) { twin::store_global(address, v, 16); }
inline void store_global_16(void* address, const U32x4& value) {
  twin::store_global(address, &value, 16);
}
inline void store_global_8(void* address, u32 first, u32 second) {
  const u32 both[2] = {first, second};
  twin::store_global(address, both, 8);
}
inline void store_global_4(void* address, u32 value) { twin::store_global(address, &value, 4); }
inline void store_global_8_if(bool valid, void* address, u32 first, u32 second) {
  if (valid) store_global_8(address, first, second);
}
inline void store_global_4_if(bool valid, void* address, u32 value) {
  if (valid) store_global_4(address, value);
}
inline void store_global_u16(void* address, u16 value) { twin::store_global(address, &value, 2); }

// ---- synchronisation --------------------------------------------------------------------------

inline void barrier() { twin::barrier_of_block(); }
inline void barrier_named(int id, int threads) { twin::barrier(id, threads); }
inline void warp_sync() { twin::warp_sync(); }

inline u32 atomic_increment(u32* address) { return twin::atomic_increment(address); }

// A relaxed store races with nothing.
inline void store_global_u32(u32* address, u32 value) { *address = value; }

// ---- between the lanes of a warp --------------------------------------------------------------

// Every lane receives the value of lane source(lane), or keeps its own where there is no such lane.
template <class Source>
u32 shuffle(const char* name, u32 value, Source source) {
  struct Lane {
    u32 value;
    int source;
    u32 result;
  };
  const int lane = thread_index() % twin::kLanes;
  Lane mine{value, source(lane), 0};
  twin::collective(name, mine, [](const auto& lanes) {
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      const int from = lanes[i]->source;
      const bool exists = from >= 0 && from < twin::kLanes;
      lanes[i]->result = lanes[exists ? static_cast<std::size_t>(from) : i]->value;
    }
  });
  return mine.result;
}

inline u32 shuffle(u32 value, int source) {
  return shuffle("shuffle", value, [source](int) { return source; });
}
inline u32 shuffle_xor(u32 value, int mask) {
  return shuffle("shuffle_xor", value, [mask](int lane) { return lane ^ mask; });
}
inline float shuffle_xor(float value, int mask) {
  return std::bit_cast<float>(shuffle_xor(std::bit_cast<u32>(value), mask));
}
inline u32 transpose_8x8(u32 value) {
  // Lane 4i + j receives rows 2j and 2j + 1 of column i.
  u32 result = 0;
  for (int half = 0; half < 2; ++half) {
    const u32 from = shuffle("transpose_8x8", value,
                             [half](int lane) { return (lane % 4 * 2 + half) * 4 + lane / 4 / 2; });
    const int column = thread_index() % twin::kLanes / 4;
    result |= (from >> (column % 2 * 16) & 0xffffU) << (half * 16);
  }
  return result;
}
inline u32 shuffle_down(u32 value, int delta) {
  return shuffle("shuffle_down", value, [delta](int lane) { return lane + delta; });
}
inline float shuffle_down(float value, int delta) {
  return std::bit_cast<float>(shuffle_down(std::bit_cast<u32>(value), delta));
}

// ---- clusters (sm_90) -------------------------------------------------------------------------

inline void cluster_barrier() { twin::fail("clusters are not in the twin"); }
inline u32 cluster_address(u32, int) { twin::fail("clusters are not in the twin"); }
inline F32x4 load_cluster_f32x4(u32) { twin::fail("clusters are not in the twin"); }

// ---- dependent launches (sm_90) ---------------------------------------------------------------
// One launch at a time: there is nobody to wait for.

// Hints change no result.
inline u64 evict_first_policy() { return 0; }
inline void cp_async_16_evict_first(u32 shared, const void* global, bool valid, u64) {
  cp_async_16(shared, global, valid);
}

inline void dependents_launch() {}
inline void dependency_wait() {}

// ---- arithmetic -------------------------------------------------------------------------------

inline u32 and_or(u32 a, u32 b, u32 c) { return (a & b) | c; }

inline u32 permute_bytes(u32 a, u32 b, u32 selector) {
  const auto bytes = (static_cast<u64>(b) << 32) | a;
  u32 result = 0;
  for (u32 i = 0; i < 4; ++i) {
    const u32 number = (selector >> (4 * i)) & 15;
    if (number > 7) twin::fail("permute_bytes copies no signs");
    result |= static_cast<u32>((bytes >> (8 * number)) & 0xff) << (8 * i);
  }
  return result;
}

inline float float_of_bits(u32 bits) { return std::bit_cast<float>(bits); }
inline float fma_f32(float a, float b, float c) { return std::fma(a, b, c); }
inline float exp2_f32(float x) { return std::exp2(x); }
inline float reciprocal_f32(float x) {
  return x == 0.0F ? std::copysign(INFINITY, x) : 1.0F / x;  // UBSan minds 1 / 0
}

// d = a * b + c of one warp: lane 4g + t holds
//   a  rows g, g+8 (a[0], a[1]) at depth 2t, 2t+1; the same at depth 2t+8, 2t+9 (a[2], a[3])
//   b  column g at depth 2t, 2t+1 (b[0]) and 2t+8, 2t+9 (b[1])
//   c  row g, columns 2t, 2t+1 (c[0], c[1]); row g+8 (c[2], c[3])
struct MmaLane {
  const u32* a;
  const u32* b;
  const float* c;
  float d[4];
};
template <class Element>
void multiply_fragments(const std::array<MmaLane*, twin::kLanes>& lanes);

struct F16 {
  static float to_f32(u16 bits) { return w4tune::f16_to_float(bits); }
  static u16 from_f32(float value) { return w4tune::f16_from_float(value); }
  static u32 pack2(float low, float high) {
    return static_cast<u32>(from_f32(low)) | static_cast<u32>(from_f32(high)) << 16;
  }
  static u32 sub2(u32 a, u32 b);
  static u32 mul2(u32 a, u32 b);
  static u32 fma2(u32 a, u32 b, u32 c);
  static void mma(float* d, const u32* a, const u32* b, const float* c);
};

struct BF16 {
  static float to_f32(u16 bits) { return w4tune::bf16_to_float(bits); }
  static u16 from_f32(float value) { return w4tune::bf16_from_float(value); }
  static u32 pack2(float low, float high) {
    return static_cast<u32>(from_f32(low)) | static_cast<u32>(from_f32(high)) << 16;
  }
  static u32 mul2(u32 a, u32 b);
  static u32 fma2(u32 a, u32 b, u32 c);
  static void mma(float* d, const u32* a, const u32* b, const float* c);
};

}  // namespace w4
