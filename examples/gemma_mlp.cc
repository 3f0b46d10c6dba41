// A stack of Gemma MLPs, y = down(gelu_tanh(gate x) * (up x)), in one CUDA graph: geglu 4096x1024
// and gemm 1024x4096 as in Pi0.5's action expert, FP16, groups of 128, every layer with weights of
// its own. RMSNorm and residual are left out.
//
// main does what an engine does: selects once for each M, packs on the GPU, captures once, replays.
// worst_share checks the last replay against sums in double on exactly the weights packed.
#include <cuda_runtime.h>
#include <w4tune/dispatcher.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Halves = std::vector<std::uint16_t>;  // bits of FP16

constexpr w4tune::Problem kGateUp{.op = w4tune::Op::kGeglu, .n = 4096, .k = 1024};
constexpr w4tune::Problem kDown{.op = w4tune::Op::kGemm, .n = 1024, .k = 4096};
constexpr int kReplays = 25;

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

struct Free {
  void operator()(void* memory) const { cudaFree(memory); }
};
using Memory = std::unique_ptr<void, Free>;  // of the GPU

Memory allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "cudaMalloc");
  check(cudaMemset(memory, 0xff, bytes), "cudaMemset");  // NaN: what is never written is noticed
  return Memory(memory);
}

template <class T>
Memory upload(const std::vector<T>& host) {
  const std::size_t bytes = host.size() * sizeof(T);
  Memory memory = allocate(bytes);
  check(cudaMemcpy(memory.get(), host.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
  return memory;
}

double to_double(std::uint16_t half) {
  const int exponent = half >> 10 & 31;
  if (exponent == 31) return std::nan("");
  const int mantissa = (half & 1023) + (exponent == 0 ? 0 : 1024);
  return std::ldexp(half >> 15 == 0 ? mantissa : -mantissa, std::max(exponent, 1) - 25);
}

std::vector<double> download(const void* memory, std::size_t count) {
  Halves bits(count);
  check(cudaMemcpy(bits.data(), memory, count * 2, cudaMemcpyDeviceToHost), "cudaMemcpy");
  std::vector<double> values(count);
  std::transform(bits.begin(), bits.end(), values.begin(), to_double);
  return values;
}

// 2^exponent times 1 to 2.
std::uint16_t random_half(int exponent, std::mt19937& random) {
  return static_cast<std::uint16_t>((exponent + 15) << 10 | static_cast<int>(random() % 1024));
}

// One launch of the stack and all it needs.
struct Step {
  Step(const w4tune::Dispatcher& dispatcher, const w4tune::Problem& of,
       const w4tune::Selection& with, const void* x, int m, std::mt19937& random)
      : problem(of),
        kernel(with),
        nibbles(w4tune::packed_weight_bytes(of)),
        scales(w4tune::packed_scale_bytes(of) / 2),
        w(allocate(nibbles.size())),
        w_scales(allocate(scales.size() * 2)),
        y(allocate(static_cast<std::size_t>(m * of.n) * 2)) {
    for (auto& two : nibbles) {  // q from -7 to 7, without a mean
      two = static_cast<std::uint8_t>(0x11 + random() % 15 * 16 + random() % 15);
    }
    for (auto& scale : scales) scale = random_half(-8, random);
    const Memory unpacked = upload(nibbles);
    const Memory unpacked_scales = upload(scales);
    dispatcher.pack_weights(of, {unpacked.get(), unpacked_scales.get()}, w.get(), w_scales.get(),
                            nullptr);
    check(cudaDeviceSynchronize(), "pack_weights");
    operands = {.x = x, .w = w.get(), .scales = w_scales.get(), .y = y.get(), .m = m};
    // Nothing in the graph writes weights: a launch may read its own before the last one has ended.
    operands.dependent_launch = true;
  }

  w4tune::Problem problem;
  w4tune::Selection kernel;
  std::vector<std::uint8_t> nibbles;  // [rows, k / 2], q + 8, the even k low; geglu: gate, then up
  Halves scales;                      // [rows, k / 128]
  Memory w, w_scales, y;              // both packed, and [m, n]
  w4tune::LaunchOperands operands;
};

struct Sum {
  double value = 0.0;
  double error = 0.0;  // the most that a kernel may add, by "Error bounds" in docs/kernels.md
};

Sum multiply(const Step& step, std::size_t row, const double* x) {
  const auto k = static_cast<std::size_t>(step.problem.k);
  double sum = 0.0, magnitude = 0.0, square = 0.0;
  for (std::size_t i = row * k; i < (row + 1) * k; i += 128) {
    const double scale = to_double(step.scales[i / 128]);
    for (std::size_t at = i; at < i + 128; ++at, ++x) {
      const int q = (step.nibbles[at / 2] >> at % 2 * 4 & 15) - 8;
      const double product = *x * scale * q;
      sum += product;
      magnitude += std::abs(*x * scale) * (std::abs(q) + 24);
      square += product * product;
    }
  }
  return {sum, 0x1p-22 * magnitude + 0x1p-9 * std::sqrt(square)};
}

Sum geglu(const Sum& gate, const Sum& up) {
  const double x = gate.value;
  const double gelu = 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
  const double error = 1.13 * gate.error + 0x1p-21 * std::abs(x);
  return {gelu * up.value, error * (std::abs(up.value) + up.error) + std::abs(gelu) * up.error};
}

// The largest error as a share of its bound, for three tokens, from the very x that the GPU read.
double worst_share(const Step& step) {
  const auto n = static_cast<std::size_t>(step.problem.n);
  const auto k = static_cast<std::size_t>(step.problem.k);
  const auto tokens = static_cast<std::size_t>(step.operands.m);
  const std::vector<double> x = download(step.operands.x, tokens * k);
  const std::vector<double> y = download(step.operands.y, tokens * n);
  double worst = 0.0;
  for (const std::size_t token : {std::size_t{0}, tokens / 2, tokens - 1}) {
    const double* const from = &x[token * k];
    for (std::size_t i = 0; i < n; ++i) {
      Sum sum = multiply(step, i, from);
      if (step.problem.op == w4tune::Op::kGeglu) sum = geglu(sum, multiply(step, n + i, from));
      const double bound = 0x1p-11 * std::abs(sum.value) + 0x1p-24 + sum.error;
      const double share = std::abs(y[token * n + i] - sum.value) / bound;
      worst = std::isnan(share) ? INFINITY : std::max(worst, share);
    }
  }
  return worst;
}

w4tune::Selection select(const w4tune::Dispatcher& dispatcher, const w4tune::Problem& problem,
                         int m) {
  const std::string op = problem.op == w4tune::Op::kGeglu ? "geglu" : "gemm";
  const std::string shape = std::to_string(problem.n) + "," + std::to_string(problem.k);
  const w4tune::Selection kernel = dispatcher.select(problem, m);
  if (!kernel) {
    throw std::runtime_error(op + " " + shape + ": " + kernel.reason + ". Run: w4tune --op " + op +
                             " --shape " + shape);
  }
  std::printf("%s %s: %s, %s\n", op.c_str(), shape.c_str(), w4tune::match_name(kernel.match),
              kernel.config());
  return kernel;
}

}  // namespace

int main(int argc, char** argv) try {
  const int m = argc > 2 ? std::atoi(argv[2]) : 10;
  const int layers = argc > 3 ? std::atoi(argv[3]) : 18;
  if (argc < 2 || argc > 4 || argv[1][0] == '-' || m < 1 || m > 4096 || layers < 1) {
    return std::fputs("usage: gemma_mlp FILE [TOKENS=10 [LAYERS=18]]\n", stderr), 2;
  }
  const auto dispatcher = w4tune::Dispatcher::open(argv[1]);
  const w4tune::Selection gate_up = select(dispatcher, kGateUp, m);
  const w4tune::Selection down = select(dispatcher, kDown, m);

  std::mt19937 random(4);
  Halves input(static_cast<std::size_t>(m * kGateUp.k));
  for (auto& value : input) {
    value = random_half(-static_cast<int>(random() % 2), random);
    if (random() % 2 == 0) value |= 0x8000;  // the sign
  }
  const Memory x = upload(input);
  std::vector<Step> steps;
  for (int i = 0; i < layers; ++i) {
    // Without RMSNorm an MLP about squares the scale of its input: each 4th begins with x anew.
    const void* const from = i % 4 == 0 ? x.get() : steps.back().y.get();
    steps.emplace_back(dispatcher, kGateUp, gate_up, from, m, random);
    steps.emplace_back(dispatcher, kDown, down, steps.back().y.get(), m, random);
  }

  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  check(cudaStreamCreate(&stream), "cudaStreamCreate");
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  check(cudaEventRecordWithFlags(begin, stream, cudaEventRecordExternal), "cudaEventRecord");
  for (const Step& step : steps) dispatcher.launch(step.kernel, step.operands, stream);
  check(cudaEventRecordWithFlags(end, stream, cudaEventRecordExternal), "cudaEventRecord");
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");

  std::vector<double> times;
  for (int i = 0; i < kReplays; ++i) {
    float ms = 0.0F;
    check(cudaGraphLaunch(exec, stream), "cudaGraphLaunch");
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    times.push_back(1000.0 * static_cast<double>(ms) / layers);
  }
  std::sort(times.begin(), times.end());
  std::printf("%s, M = %d, %d layers: %.2f us a layer\n", dispatcher.device_name().c_str(), m,
              layers, times[kReplays / 2]);

  double worst = 0.0;
  for (const Step& step : steps) worst = std::max(worst, worst_share(step));
  std::printf("worst error: %.3f of its bound\n", worst);
  return worst <= 1.0 ? 0 : 1;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "gemma_mlp: %s\n", error.what()), 1;
}
