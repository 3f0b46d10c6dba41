#include "mma_pipe.cuh"
struct Config {
  using Element = w4::F16;
  static constexpr int kRowTile = 128;
  static constexpr int kTokenTile = 16;
  static constexpr int kDepthTile = 128;
  static constexpr int kStages = 4;
  static constexpr int kRowWarps = 4;
  static constexpr int kTokenWarps = 1;
  static constexpr int kDepthWarps = 2;
  static constexpr int kDequant = 1;
  static constexpr int kReduce = 0;
  static constexpr bool kEvictFirst = false;
  static constexpr int kGroupSize = 128;
  static constexpr bool kGeglu = false;
};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 1)
w4_kernel(const __grid_constant__ w4::GemmArgs args) {
  w4::mma_pipe<Config>(args);
}
