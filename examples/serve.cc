// Multiplies with a tuned kernel: y [m, n] = x [m, k] * dequant(w [n, k])^T, all in FP16.
#include <cuda_runtime.h>
#include <w4tune/dispatcher.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

template <class T>
T* on_gpu(const std::vector<T>& host) {
  void* device = nullptr;
  cudaMalloc(&device, host.size() * sizeof(T));
  cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice);
  return static_cast<T*>(device);
}

int main(int argc, char** argv) try {
  constexpr int n = 4096, k = 1024, m = 10;
  const auto dispatcher = w4tune::Dispatcher::open(argc > 1 ? argv[1] : "w4tune.db");
  const w4tune::Problem problem{.n = n, .k = k};  // groups of 128

  const auto* nibbles = on_gpu(std::vector<std::uint8_t>(n * k / 2, 0xa9));      // +1, +2, ...
  const auto* scales = on_gpu(std::vector<std::uint16_t>(n * k / 128, 0x1400));  // 2^-10
  auto* w = on_gpu(std::vector<char>(w4tune::packed_weight_bytes(problem)));
  auto* w_scales = on_gpu(std::vector<char>(w4tune::packed_scale_bytes(problem)));
  dispatcher.pack_weights(problem, {nibbles, scales}, w, w_scales, nullptr);

  const auto* x = on_gpu(std::vector<std::uint16_t>(m * k, 0x3c00));  // 1.0
  std::vector<std::uint16_t> y(m * n);
  auto* y_gpu = on_gpu(y);
  const w4tune::Selection kernel = dispatcher.select(problem, m);
  dispatcher.launch(kernel, {x, w, w_scales, y_gpu, m}, nullptr);
  if (cudaMemcpy(y.data(), y_gpu, y.size() * 2, cudaMemcpyDeviceToHost) != cudaSuccess) return 1;
  unsigned checksum = 0;
  for (const std::uint16_t bits : y) checksum += bits;  // 1.5 everywhere: 40960 * 0x3e00
  std::printf("%s (%s): %#x\n", kernel.config(), w4tune::match_name(kernel.match), checksum);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 1;
}
