// The wrappers that no kernel here uses compile for every architecture that has them: an
// instruction is only looked at where it is used.
#include <gtest/gtest.h>

#include <string>

#include "gpu/nvrtc.h"
#include "tuner/compiler.h"

namespace w4tune {
namespace {

constexpr const char* kSource = R"(#include "ptx.cuh"
extern "C" __global__ void w4_kernel(w4::U32x4* memory, float* floats) {
  const w4::u32 at = w4::shared_base() + 16 * w4::thread_index();
  const w4::U32x4 a = w4::load_global_16(memory);
  w4::U32x4 b = w4::load_global_16_cached(memory + 1);
  w4::store_shared_16(at, a);
  w4::warp_sync();
  w4::barrier_named(1, 64);
  b.v[0] = w4::shuffle_xor(a.v[0], 1) + w4::shuffle_down(a.v[1], 2);
  b.v[1] = w4::permute_bytes(a.v[2], a.v[3], 0x4341);
  w4::store_global_16(memory + 2, b);
  const float x = w4::shuffle_xor(floats[0], 1) + w4::shuffle_down(floats[1], 2);
  floats[2] = w4::tanh_f32(w4::fma_f32(x, x, x));
}
)";

constexpr const char* kSm90Source = R"(#include "ptx_sm90.cuh"
extern "C" __global__ void w4_kernel(w4::U32x4* memory) {
  if (w4::cluster_rank() == 0) w4::mbarrier_init(w4::shared_base(), 1);
  w4::cluster_barrier();
  w4::mbarrier_wait_cluster(w4::cluster_address(w4::shared_base(), 1), 0);
}
)";

TEST(PtxWrappers, OfSm90CompileThere) {
  const DeviceSources sources = device_sources_from("");
  const Compilation compilation = Nvrtc::get().compile(kSm90Source, sources.headers, "sm_90a");
  EXPECT_TRUE(compilation.ok()) << compilation.log;
}

TEST(PtxWrappers, CompileForEveryArchitecture) {
  const DeviceSources sources = device_sources_from("");
  for (const char* arch : {"sm_80", "sm_86", "sm_90a"}) {
    const Compilation compilation = Nvrtc::get().compile(kSource, sources.headers, arch);
    EXPECT_TRUE(compilation.ok()) << arch << ": " << compilation.log;
  }
}

}  // namespace
}  // namespace w4tune
