// The only door to the hardware: one wrapper per instruction, named after what it does.
//
// Nothing of the toolkit is included, so NVRTC needs no include path, and a kernel written over
// these wrappers can be given another meaning of them: where W4_HOST_TWIN names a header, that
// stands in for the instructions, and the kernels run without a GPU (tests/twin). Shared memory is
// addressed by 32-bit byte offsets (the .shared window); registers hold packed pairs of FP16 or
// BF16 as u32, the lower half first.
#pragma once

namespace w4 {

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

struct alignas(16) U32x4 {
  u32 v[4];
};
struct alignas(16) F32x4 {
  float v[4];
};

}  // namespace w4

#if defined(W4_HOST_TWIN)
#include W4_HOST_TWIN
#else

namespace w4 {

// ---- where am I -------------------------------------------------------------------------------

__device__ __forceinline__ int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int block_index() { return static_cast<int>(blockIdx.x); }
__device__ __forceinline__ int grid_size() { return static_cast<int>(gridDim.x); }

// Byte offset of dynamic shared memory within the .shared window; a multiple of 1024, what the
// swizzle of a tensor copy counts from.
__device__ __forceinline__ u32 shared_base() {
  extern __shared__ __align__(1024) unsigned char w4_shared[];
  return static_cast<u32>(__cvta_generic_to_shared(w4_shared));
}

// ---- shared memory ----------------------------------------------------------------------------

__device__ __forceinline__ U32x4 load_shared_16(u32 address) {
  U32x4 r;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.v[0]), "=r"(r.v[1]), "=r"(r.v[2]), "=r"(r.v[3])
               : "r"(address));
  return r;
}

__device__ __forceinline__ F32x4 load_shared_f32x4(u32 address) {
  F32x4 r;
  asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(r.v[0]), "=f"(r.v[1]), "=f"(r.v[2]), "=f"(r.v[3])
               : "r"(address));
  return r;
}

__device__ __forceinline__ void store_shared_16(u32 address, const U32x4& value) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(value.v[0]),
               "r"(value.v[1]), "r"(value.v[2]), "r"(value.v[3])
               : "memory");
}

__device__ __forceinline__ void store_shared_f32x4(u32 address, const float* v) {
  asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(address), "f"(v[0]), "f"(v[1]),
               "f"(v[2]), "f"(v[3])
               : "memory");
}

__device__ __forceinline__ u16 load_shared_u16(u32 address) {
  u16 r;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(r) : "r"(address));
  return r;
}

__device__ __forceinline__ void store_shared_u16(u32 address, u16 value) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(value) : "memory");
}

__device__ __forceinline__ u32 load_shared_u32(u32 address) {
  u32 r;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(address));
  return r;
}

__device__ __forceinline__ void store_shared_u32(u32 address, u32 value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

__device__ __forceinline__ float load_shared_f32(u32 address) {
  float r;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(r) : "r"(address));
  return r;
}

__device__ __forceinline__ void store_shared_f32(u32 address, float value) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}

__device__ __forceinline__ void store_shared_f32x2(u32 address, float first, float second) {
  asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(address), "f"(first), "f"(second)
               : "memory");
}

// Four (or two) 8x8 matrices of 16-bit elements: lane 8*i + r gives the address of row r of matrix
// i and receives, of each matrix, elements 2t and 2t+1 of row g (lane = 4g + t).
__device__ __forceinline__ void ldmatrix_x4(u32 address, u32& r0, u32& r1, u32& r2, u32& r3) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3)
               : "r"(address));
}

__device__ __forceinline__ void ldmatrix_x2(u32 address, u32& r0, u32& r1) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r0), "=r"(r1)
               : "r"(address));
}

// ---- global memory ----------------------------------------------------------------------------

// Requests 16 bytes from global into shared memory past L1; zeros land where `valid` is false (the
// address is then not read, but must still be a global address).
__device__ __forceinline__ void cp_async_16(u32 shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `kPending` of this thread's committed groups are still on their way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// What the launch only reads and one CTA alone wants, such as weights: through the read-only path,
// leaving nothing in L1.
__device__ __forceinline__ U32x4 load_global_16(const void* address) {
  U32x4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.v[0]), "=r"(r.v[1]), "=r"(r.v[2]), "=r"(r.v[3])
               : "l"(address));
  return r;
}

// What several warps of a CTA want, such as activations: kept in L1.
__device__ __forceinline__ U32x4 load_global_16_cached(const void* address) {
  U32x4 r;
  asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.v[0]), "=r"(r.v[1]), "=r"(r.v[2]), "=r"(r.v[3])
               : "l"(address)
               : "memory");
  return r;
}

// Partials live in L2: no stale line of L1 may answer.
__device__ __forceinline__ F32x4 load_global_l2(const float* address) {
  F32x4 r;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(r.v[0]), "=f"(r.v[1]), "=f"(r.v[2]), "=f"(r.v[3])
               : "l"(address)
               : "memory");
  return r;
}

__device__ __forceinline__ void store_global_l2(float* address, const float* v) {
  asm volatile("st.global.cg.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(address), "f"(v[0]), "f"(v[1]),
               "f"(v[2]), "f"(v[3])
               : "memory");
}

__device__ __forceinline__ void store_global_16(void* address, const U32x4& value) {
  asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(address), "r"(value.v[0]),
               "r"(value.v[1]), "r"(value.v[2]), "r"(value.v[3])
               : "memory");
}

__device__ __forceinline__ void store_global_8(void* address, u32 first, u32 second) {
  asm volatile("st.global.v2.u32 [%0], {%1,%2};" ::"l"(address), "r"(first), "r"(second)
               : "memory");
}

__device__ __forceinline__ void store_global_4(void* address, u32 value) {
  asm volatile("st.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// Predicated, so that no branch keeps what stands around them apart.
__device__ __forceinline__ void store_global_8_if(bool valid, void* address, u32 first,
                                                  u32 second) {
  asm volatile(
      "{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %0, 0;\n\t@p st.global.v2.u32 [%1], {%2,%3};\n\t}" ::
          "r"(static_cast<u32>(valid)),
      "l"(address), "r"(first), "r"(second)
      : "memory");
}
__device__ __forceinline__ void store_global_4_if(bool valid, void* address, u32 value) {
  asm volatile(
      "{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %0, 0;\n\t@p st.global.u32 [%1], %2;\n\t}" ::"r"(
          static_cast<u32>(valid)),
      "l"(address), "r"(value)
      : "memory");
}

__device__ __forceinline__ u32 load_global_u32(const void* address) {
  u32 r;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(r) : "l"(address));
  return r;
}

__device__ __forceinline__ u16 load_global_u16(const void* address) {
  u16 r;
  asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(r) : "l"(address));
  return r;
}

__device__ __forceinline__ void store_global_u16(void* address, u16 value) {
  asm volatile("st.global.u16 [%0], %1;" ::"l"(address), "h"(value) : "memory");
}

// ---- synchronisation --------------------------------------------------------------------------

__device__ __forceinline__ void barrier() { asm volatile("bar.sync 0;" ::: "memory"); }

// Barrier `id` (1..15) of `threads` threads of the CTA, a multiple of 32.
__device__ __forceinline__ void barrier_named(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Orders the memory accesses of a warp's lanes.
__device__ __forceinline__ void warp_sync() {
  asm volatile("bar.warp.sync 0xffffffff;" ::: "memory");
}

// Adds one and returns the value before, ordering the memory accesses around it GPU-wide.
__device__ __forceinline__ u32 atomic_increment(u32* address) {
  u32 r;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(r) : "l"(address) : "memory");
  return r;
}

__device__ __forceinline__ void store_global_u32(u32* address, u32 value) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// ---- between the lanes of a warp --------------------------------------------------------------

// The value of lane `source`.
__device__ __forceinline__ u32 shuffle(u32 value, int source) {
  u32 r;
  asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"(value), "r"(source));
  return r;
}

// The value of lane `lane ^ mask`.
__device__ __forceinline__ u32 shuffle_xor(u32 value, int mask) {
  u32 r;
  asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;"
               : "=r"(r)
               : "r"(value), "r"(mask));
  return r;
}

__device__ __forceinline__ float shuffle_xor(float value, int mask) {
  return __uint_as_float(shuffle_xor(__float_as_uint(value), mask));
}

// An 8 x 8 matrix of 16-bit values, of which lane 4i + j holds columns 2j, 2j + 1 of row i,
// transposed.
__device__ __forceinline__ u32 transpose_8x8(u32 value) {
  u32 r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(value));
  return r;
}

// The value of lane `lane + delta`; the last `delta` lanes keep their own.
__device__ __forceinline__ u32 shuffle_down(u32 value, int delta) {
  u32 r;
  asm volatile("shfl.sync.down.b32 %0, %1, %2, 0x1f, 0xffffffff;"
               : "=r"(r)
               : "r"(value), "r"(delta));
  return r;
}

__device__ __forceinline__ float shuffle_down(float value, int delta) {
  return __uint_as_float(shuffle_down(__float_as_uint(value), delta));
}

// ---- clusters (sm_90) -------------------------------------------------------------------------

// Waits for all threads of the cluster; what they wrote to shared memory before is then visible.
__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}

// Address, within the cluster's shared memory, of `shared` in the CTA of rank `rank`.
__device__ __forceinline__ u32 cluster_address(u32 shared, int rank) {
  u32 r;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(shared), "r"(rank));
  return r;
}

__device__ __forceinline__ F32x4 load_cluster_f32x4(u32 address) {
  F32x4 r;
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(r.v[0]), "=f"(r.v[1]), "=f"(r.v[2]), "=f"(r.v[3])
               : "r"(address)
               : "memory");
  return r;
}

// ---- dependent launches (sm_90; elsewhere a kernel begins when the one before has ended) --------

// Lets the next kernel of the stream begin, if it was launched to begin early.
__device__ __forceinline__ void dependents_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits until the kernel before has ended and what it wrote can be read. A kernel that was launched
// to begin early reads and writes nothing but its own constants before.
__device__ __forceinline__ void dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- arithmetic -------------------------------------------------------------------------------

// (a & b) | c in one instruction.
__device__ __forceinline__ u32 and_or(u32 a, u32 b, u32 c) {
  u32 r;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}

// Four bytes of the eight in a (0..3) and b (4..7): nibble i of `selector`, below 8, is the number
// of byte i of the result.
__device__ __forceinline__ u32 permute_bytes(u32 a, u32 b, u32 selector) {
  u32 r;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
  return r;
}

// The float of these bits.
__device__ __forceinline__ float float_of_bits(u32 bits) { return __uint_as_float(bits); }

__device__ __forceinline__ float fma_f32(float a, float b, float c) {
  float r;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
}

// FP16 and BF16 differ in their instructions only.
struct F16 {
  __device__ __forceinline__ static u32 sub2(u32 a, u32 b) {
    u32 r;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
  }
  __device__ __forceinline__ static u32 mul2(u32 a, u32 b) {
    u32 r;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
  }
  __device__ __forceinline__ static u32 fma2(u32 a, u32 b, u32 c) {
    u32 r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
  }
  __device__ __forceinline__ static float to_f32(u16 bits) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(bits));
    return r;
  }
  __device__ __forceinline__ static u16 from_f32(float value) {
    u16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(value));
    return r;
  }
  __device__ __forceinline__ static u32 pack2(float low, float high) {
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
  }
  // d = a * b + c, with a 16x16 (rows x depth), b 16x8 (depth x tokens), FP32 accumulation.
  __device__ __forceinline__ static void mma(float* d, const u32* a, const u32* b, const float* c) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
          "f"(c[2]), "f"(c[3]));
  }
};

struct BF16 {
  // sm_80 has no bf16x2 add, subtract or multiply; the fused form serves for all.
  __device__ __forceinline__ static u32 fma2(u32 a, u32 b, u32 c) {
    u32 r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
  }
  __device__ __forceinline__ static u32 mul2(u32 a, u32 b) {
    return fma2(a, b, 0x80008000u);  // -0.0 keeps the sign of a zero product
  }
  __device__ __forceinline__ static float to_f32(u16 bits) {
    return __uint_as_float(static_cast<u32>(bits) << 16);
  }
  __device__ __forceinline__ static u16 from_f32(float value) {
    u16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(value));
    return r;
  }
  __device__ __forceinline__ static u32 pack2(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
  }
  __device__ __forceinline__ static void mma(float* d, const u32* a, const u32* b, const float* c) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
          "f"(c[2]), "f"(c[3]));
  }
};

// 2^x, relative error at most 2^-22; 0 below 2^-126.
__device__ __forceinline__ float exp2_f32(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// 1 / x, relative error at most 2^-23; 0 for infinity and where the result is below 2^-126.
__device__ __forceinline__ float reciprocal_f32(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// An L2 policy: lines it fetches are the first to go. ptxas 13.0 turns its use in cp.async into an
// illegal instruction for sm_90 (docs/kernels.md): for older architectures only.
__device__ __forceinline__ u64 evict_first_policy() {
  u64 r;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(r));
  return r;
}

// cp_async_16 under an L2 policy.
__device__ __forceinline__ void cp_async_16_evict_first(u32 shared, const void* global, bool valid,
                                                        u64 policy) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(shared),
               "l"(global), "r"(bytes), "l"(policy)
               : "memory");
}

}  // namespace w4

#endif  // W4_HOST_TWIN

namespace w4 {

// ---- made of the above ------------------------------------------------------------------------

// The same 16-bit value in both halves.
__device__ __forceinline__ u32 pair_of(u16 value) {
  return static_cast<u32>(value) | (static_cast<u32>(value) << 16);
}

// Two 16-bit values, the first in the lower half.
__device__ __forceinline__ u32 pair_of(u16 low, u16 high) {
  return static_cast<u32>(low) | (static_cast<u32>(high) << 16);
}

// Within 2e-7 everywhere; +-1 for large x, because exp2 ends in infinity and zero.
__device__ __forceinline__ float tanh_f32(float x) {
  constexpr float kTwoLog2E = 2.88539008F;
  return fma_f32(-2.0F, reciprocal_f32(1.0F + exp2_f32(kTwoLog2E * x)), 1.0F);
}

}  // namespace w4
