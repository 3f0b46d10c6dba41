#include "gemv.cuh"
struct Config {
  using Element = w4::F16;
  static constexpr int kRowTile = 32;
  static constexpr int kTokenTile = 2;
  static constexpr int kDepthWarps = 8;
  static constexpr int kBlocks = 2;
  static constexpr int kAhead = 2;
  static constexpr bool kDenormals = true;
  static constexpr int kGroupSize = 128;
  static constexpr bool kGeglu = true;
};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 2)
w4_kernel(const __grid_constant__ w4::GemmArgs args) {
  w4::gemv<Config>(args);
}
