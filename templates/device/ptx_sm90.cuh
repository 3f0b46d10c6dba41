// The instructions that only sm_90 has, beside the cluster's in ptx.cuh: barriers that count bytes,
// the copy engine, stores to a neighbour's shared memory, and the warpgroup's matrix product. Where
// W4_HOST_TWIN_SM90 names a header, that stands in for them, as in ptx.cuh.
#pragma once

#include "ptx.cuh"

namespace w4 {

// What cuTensorMapEncodeTiled fills in; the kernel's second argument.
struct alignas(64) TensorMap {
  u64 words[16];
};

// Descriptor of tokens in shared memory: 8-token groups of 1024 bytes, 128 bytes (64 deep) a token,
// swizzled as a tensor copy with a 128-byte swizzle leaves them. `address` at a multiple of 1024.
__device__ __forceinline__ u64 wgmma_tokens(u32 address) {
  constexpr u64 kGroupBytes = 1024;
  constexpr u64 kSwizzle128 = 1;
  return static_cast<u64>((address & 0x3ffff) >> 4) | (1ULL << 16) | ((kGroupBytes >> 4) << 32) |
         (kSwizzle128 << 62);
}

// What a descriptor grows by for `bytes` further on; 16 deep are 32.
__device__ __forceinline__ constexpr u64 wgmma_distance(u32 bytes) { return bytes >> 4; }

}  // namespace w4

#if defined(W4_HOST_TWIN_SM90)
#include W4_HOST_TWIN_SM90
#else

namespace w4 {

__device__ __forceinline__ int cluster_rank() {
  int r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}

// True in one lane of the warp, and the compiler knows that it is one.
__device__ __forceinline__ bool elect_one() {
  u32 elected;
  asm volatile(
      "{\n\t.reg .pred p;\n\t"
      "elect.sync _|p, 0xffffffff;\n\t"
      "selp.u32 %0, 1, 0, p;\n\t}"
      : "=r"(elected));
  return elected != 0;
}

// ---- mbarriers --------------------------------------------------------------------------------
// 8 bytes of shared memory. A phase ends when `count` arrivals and all expected bytes have come;
// waiters name the phase by its parity, 0 for the first.

__device__ __forceinline__ void mbarrier_init(u32 address, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(count) : "memory");
}

// Makes initialised barriers known to the copy engine and to the cluster.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::
                   : "memory");
}

// One arrival that also announces `bytes`.
__device__ __forceinline__ void mbarrier_expect(u32 address, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(u32 address) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory");
}

// The hardware lets a waiter sleep a while; then it asks again.
__device__ __forceinline__ void mbarrier_wait(u32 address, u32 parity) {
  u32 done;
  do {
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(done)
        : "r"(address), "r"(parity)
        : "memory");
  } while (done == 0);
}

// As above, for bytes that other CTAs of the cluster stored.
__device__ __forceinline__ void mbarrier_wait_cluster(u32 address, u32 parity) {
  u32 done;
  do {
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(done)
        : "r"(address), "r"(parity)
        : "memory");
  } while (done == 0);
}

// Arrives at a named barrier without waiting there; for `threads` threads in all.
template <int kId, int kThreads>
__device__ __forceinline__ void barrier_arrive() {
  asm volatile("bar.arrive %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}

// ---- clusters ---------------------------------------------------------------------------------

// The two halves of cluster_barrier().
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Stores 16 bytes to the shared memory of a CTA of the cluster.
__device__ __forceinline__ void store_cluster_f32x4(u32 to, const float* v) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(to), "f"(v[0]), "f"(v[1]),
               "f"(v[2]), "f"(v[3])
               : "memory");
}

// The same; they count on its barrier.
__device__ __forceinline__ void store_cluster_f32x4(u32 to, const float* v, u32 mbarrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1,%2,%3,%4}, "
      "[%5];" ::"r"(to),
      "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(mbarrier)
      : "memory");
}

// ---- the copy engine --------------------------------------------------------------------------
// Copies land in shared memory at some time and count their bytes on an mbarrier of this CTA.

// `bytes`, both addresses: multiples of 16.
__device__ __forceinline__ void bulk_copy(u32 to, const void* from, u32 bytes, u32 mbarrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(mbarrier)
      : "memory");
}

// The box of a three-dimensional map at coordinates c0 (innermost), c1, c2.
__device__ __forceinline__ void tensor_copy_3d(u32 to, const TensorMap* map, int c0, int c1, int c2,
                                               u32 mbarrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2,%3,%4}], [%5];" ::"r"(to),
      "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(mbarrier)
      : "memory");
}

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// ---- registers (sm_90a) -----------------------------------------------------------------------
// How many each thread has from here on; all warps of a warpgroup say so together. What is asked
// for beyond what the CTA began with must have been given back by others.

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- wgmma (sm_90a) ---------------------------------------------------------------------------
// Four warps of a warpgroup multiply together: 64 rows from registers (each warp 16 of them, in the
// layout of an m16n8k16 operand), tokens from shared memory.

// A zero that the compiler does not know: accumulators that start from a known one are set where
// they are first used, among products under way, and ptxas then serialises these (C7515).
__device__ __forceinline__ float opaque_zero() {
  float r;
  asm volatile("mov.f32 %0, 0f00000000;" : "=f"(r));
  return r;
}

// Orders registers written so far before the next wgmma reads them.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most `kPending` committed groups are under way.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Its wrapper for one number of tokens names all of its registers, so the host writes it where a
// kernel needs it (templates/wgmma_text.h), as a specialisation of
//   multiply(float* d, const u32* a, u64 tokens, int add):
//   d (kTokens / 2 values: of each 8 tokens four, as m16n8k16 has them) = a * tokens + (add ? d :
//   0)
template <class Element, int kTokens>
struct Wgmma;

}  // namespace w4

#endif  // W4_HOST_TWIN_SM90
