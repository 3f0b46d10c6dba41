#include "bulk_pipe.cuh"
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
