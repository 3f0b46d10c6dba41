#include "bulk_pipe.cuh"
namespace w4 {
template <>
struct Wgmma<F16, 32> {
  __device__ __forceinline__ static void multiply(float* d, const u32* a, u64 b, int add) {
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %21, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, p, 1, 1, 0;\n\t}"
                 : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]),"+f"(d[4]),"+f"(d[5]),"+f"(d[6]),"+f"(d[7]),"+f"(d[8]),"+f"(d[9]),"+f"(d[10]),"+f"(d[11]),"+f"(d[12]),"+f"(d[13]),"+f"(d[14]),"+f"(d[15])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }
};
}  // namespace w4
struct Config {
  using Element = w4::F16;
  static constexpr int kRowWarps = 4;
  static constexpr int kWarpRows = 16;
  static constexpr int kDepthWarps = 1;
  static constexpr int kRowTile = 64;
  static constexpr int kTokenTile = 32;
  static constexpr int kDepthTile = 256;
  static constexpr int kStages = 3;
  static constexpr int kAhead = 0;
  static constexpr int kMath = 1;
  static constexpr int kDequant = 1;
  static constexpr int kReduce = 0;
  static constexpr int kGroupSize = 128;
  static constexpr bool kGeglu = true;
};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 1)
w4_kernel(const __grid_constant__ w4::GemmArgs args,
          const __grid_constant__ w4::TensorMap tokens) {
  w4::bulk_pipe<Config>(args, tokens);
}
