// The wrappers of templates/device/ptx_sm90.cuh on the host twin; included by that file alone, in
// place of the instructions. Clusters are not in the twin.
//
// A wgmma sums as the twin's mma does: 16 products and the addend exactly, rounded once to FP32.
#pragma once

#include <array>
#include <cstddef>

#include "tests/twin/host_twin.h"

namespace w4 {

// True in one lane, the last to come: nobody may count on another.
bool elect_one();

// ---- mbarriers --------------------------------------------------------------------------------

inline void mbarrier_init(u32 address, u32 count) { twin::init_mbarrier(address, count); }
inline void mbarrier_init_fence() { twin::fence_mbarriers(); }
inline void mbarrier_arrive(u32 address) { twin::arrive_at_mbarrier(address); }
inline void mbarrier_expect(u32 address, u32 bytes) {
  twin::expect_bytes(address, bytes);
  twin::arrive_at_mbarrier(address);
}
inline void mbarrier_wait(u32 address, u32 parity) { twin::wait_for_mbarrier(address, parity); }

template <int kId, int kThreads>
void barrier_arrive() {
  twin::barrier_arrive(kId, kThreads);
}

// ---- clusters ---------------------------------------------------------------------------------

inline int cluster_rank() { twin::fail("clusters are not in the twin"); }
inline void cluster_arrive() { twin::fail("clusters are not in the twin"); }
inline void cluster_wait() { twin::fail("clusters are not in the twin"); }
inline void mbarrier_wait_cluster(u32, u32) { twin::fail("clusters are not in the twin"); }
inline void store_cluster_f32x4(u32, const float*) { twin::fail("clusters are not in the twin"); }
inline void store_cluster_f32x4(u32, const float*, u32) {
  twin::fail("clusters are not in the twin");
}

// ---- the copy engine --------------------------------------------------------------------------

// In place of cuTensorMapEncodeTiled, for 16-bit elements and a swizzle of 128 bytes: sizes and box
// in elements, innermost first; strides of the outer two dimensions in bytes.
struct TiledMap {
  const void* data;
  std::array<u64, 3> sizes;
  std::array<u64, 2> stride_bytes;
  std::array<u64, 3> box;
};
TensorMap encode_tensor_map(const TiledMap& map);

void bulk_copy(u32 to, const void* from, u32 bytes, u32 mbarrier);
void tensor_copy_3d(u32 to, const TensorMap* map, int c0, int c1, int c2, u32 mbarrier);
inline void prefetch_tensor_map(const TensorMap*) {}

// ---- registers --------------------------------------------------------------------------------

template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void give_registers() {}

// ---- wgmma ------------------------------------------------------------------------------------

inline float opaque_zero() { return 0.0F; }
inline void wgmma_fence() { twin::fence_products(); }
inline void wgmma_commit() { twin::commit_products(); }

template <int kPending>
void wgmma_wait() {
  twin::wait_products(kPending);
}

template <class Element>
void launch_wgmma(std::size_t tokens, float* d, const u32* a, u64 b, int add);

template <class Element, int kTokens>
struct Wgmma {
  static_assert(kTokens % 8 == 0 && kTokens >= 8 && kTokens <= 256, "as the instruction has them");
  static void multiply(float* d, const u32* a, u64 b, int add) {
    launch_wgmma<Element>(kTokens, d, a, b, add);
  }
};

}  // namespace w4
