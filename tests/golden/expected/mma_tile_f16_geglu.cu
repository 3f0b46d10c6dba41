#include "mma_tile.cuh"
struct Config {
  using Element = w4::F16;
  static constexpr int kRowTile = 128;
  static constexpr int kWarpRows = 32;
  static constexpr int kTokenTile = 88;
  static constexpr int kDepthTile = 64;
  static constexpr int kStages = 4;
  static constexpr bool kEvictFirst = false;
  static constexpr int kGroupSize = 128;
  static constexpr bool kGeglu = true;
};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 2)
w4_kernel(const __grid_constant__ w4::GemmArgs args) {
  w4::mma_tile<Config>(args);
}
