#include "wgmma.cuh"
namespace w4 {
template <>
struct Wgmma<F16, 64> {
  __device__ __forceinline__ static void multiply(float* d, const u32* a, u64 b, int add) {
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %37, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, 0;\n\t}"
                 : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]),"+f"(d[4]),"+f"(d[5]),"+f"(d[6]),"+f"(d[7]),"+f"(d[8]),"+f"(d[9]),"+f"(d[10]),"+f"(d[11]),"+f"(d[12]),"+f"(d[13]),"+f"(d[14]),"+f"(d[15]),"+f"(d[16]),"+f"(d[17]),"+f"(d[18]),"+f"(d[19]),"+f"(d[20]),"+f"(d[21]),"+f"(d[22]),"+f"(d[23]),"+f"(d[24]),"+f"(d[25]),"+f"(d[26]),"+f"(d[27]),"+f"(d[28]),"+f"(d[29]),"+f"(d[30]),"+f"(d[31])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
};
}  // namespace w4
struct Config {
  using Element = w4::F16;
  static constexpr int kWarpgroups = 2;
  static constexpr int kFragments = 2;
  static constexpr int kTokenTile = 64;
  static constexpr int kDepthTile = 128;
  static constexpr int kStages = 4;
  static constexpr bool kAhead = false;
  static constexpr int kGroupSize = 128;
  static constexpr int kReduce = 0;
  static constexpr bool kGeglu = true;
};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 1)
w4_kernel(const __grid_constant__ w4::GemmArgs args,
          const __grid_constant__ w4::TensorMap tokens,
          const __grid_constant__ w4::TensorMap weights) {
  w4::wgmma_tiles<Config>(args, tokens, weights);
}
