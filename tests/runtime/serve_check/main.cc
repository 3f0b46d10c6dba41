// w4tune_serve_check FILE: serves every problem of a cache file at ragged M from 1 to 1100 and
// compares with a reference in double. Links libw4tune alone and opens the driver itself, as an
// engine would. Prints the worst error of each problem as a share of its bound; exit code 1 when
// one is above it.

#include <cuda.h>
#include <dlfcn.h>
#include <w4tune/dispatcher.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using w4tune::Dtype;
using w4tune::Problem;

constexpr int kMostTokens = 1100;

void require(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  throw std::runtime_error(std::string(call) + " failed: " + std::to_string(result));
}

// What this program needs of libcuda.
class Cuda {
 public:
  Cuda() {
    CUdevice device = 0;
    CUcontext context = nullptr;
    require(find<decltype(&::cuInit)>("cuInit")(0), "cuInit");
    require(find<decltype(&::cuDeviceGet)>("cuDeviceGet")(&device, 0), "cuDeviceGet");
    require(
        find<decltype(&::cuDevicePrimaryCtxRetain)>("cuDevicePrimaryCtxRetain")(&context, device),
        "cuDevicePrimaryCtxRetain");
    require(find<decltype(&::cuCtxSetCurrent)>("cuCtxSetCurrent")(context), "cuCtxSetCurrent");
  }

  // Lives until the program ends.
  [[nodiscard]] void* allocate(std::size_t bytes) const {
    CUdeviceptr address = 0;
    require(find<decltype(&::cuMemAlloc)>("cuMemAlloc_v2")(&address, bytes), "cuMemAlloc");
    return reinterpret_cast<void*>(address);
  }

  template <class T>
  [[nodiscard]] void* upload(const std::vector<T>& host) const {
    void* const device = allocate(host.size() * sizeof(T));
    require(find<decltype(&::cuMemcpyHtoD)>("cuMemcpyHtoD_v2")(address_of(device), host.data(),
                                                               host.size() * sizeof(T)),
            "cuMemcpyHtoD");
    return device;
  }

  void poison(void* device, std::size_t bytes) const {
    require(find<decltype(&::cuMemsetD8)>("cuMemsetD8_v2")(address_of(device), 0xff, bytes),
            "cuMemsetD8");
  }

  void download(std::vector<std::uint16_t>& host, const void* device, std::size_t count) const {
    require(find<decltype(&::cuMemcpyDtoH)>("cuMemcpyDtoH_v2")(host.data(), address_of(device),
                                                               count * 2),
            "cuMemcpyDtoH");
  }

 private:
  static CUdeviceptr address_of(const void* pointer) {
    return reinterpret_cast<CUdeviceptr>(pointer);
  }

  // cuda.h lends the types alone: nothing of libcuda is linked.
  template <class Function>
  [[nodiscard]] Function find(const char* name) const {
    void* const symbol = library_ == nullptr ? nullptr : ::dlsym(library_, name);
    if (symbol == nullptr) throw std::runtime_error(std::string("libcuda has no ") + name);
    return reinterpret_cast<Function>(symbol);
  }

  void* library_ = ::dlopen("libcuda.so.1", RTLD_NOW);
};

double to_double(Dtype dtype, std::uint16_t bits) {
  const int mantissa_bits = dtype == Dtype::kF16 ? 10 : 7;
  const int bias = dtype == Dtype::kF16 ? 15 : 127;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int exponent = (bits & 0x7fff) >> mantissa_bits;
  const double sign = bits >= 0x8000 ? -1.0 : 1.0;
  if (exponent == 2 * bias + 1) return std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

// Random bits of numbers from 2^(exponent - 2) to 2^(exponent + 1).
std::uint16_t random_bits(Dtype dtype, int exponent, bool is_signed, std::mt19937& random) {
  const int mantissa_bits = dtype == Dtype::kF16 ? 10 : 7;
  const int bias = dtype == Dtype::kF16 ? 15 : 127;
  const auto draw = [&](unsigned limit) { return static_cast<unsigned>(random() % limit); };
  const unsigned mantissa = draw(1U << mantissa_bits);
  const unsigned biased = static_cast<unsigned>(exponent + bias) - draw(3);
  const unsigned sign = is_signed ? draw(2) << 15 : 0U;
  return static_cast<std::uint16_t>(sign | biased << mantissa_bits | mantissa);
}

// Operands on the host, and the reference with its bounds.
struct Layer {
  explicit Layer(const Problem& problem)
      : n(static_cast<std::size_t>(problem.n)),
        rows(problem.op == w4tune::Op::kGeglu ? 2 * n : n),
        k(static_cast<std::size_t>(problem.k)),
        group(static_cast<std::size_t>(problem.group_size)),
        nibbles(rows * k / 2),
        scales(rows * k / group),
        x(kMostTokens * k),
        y(kMostTokens * n),
        bound(kMostTokens * n) {
    std::mt19937 random(11);
    for (auto& byte : nibbles) byte = static_cast<std::uint8_t>(random());
    for (auto& scale : scales) scale = random_bits(problem.dtype, -6, false, random);
    for (auto& value : x) value = random_bits(problem.dtype, 0, true, random);
    // The unit roundoff; each weight is rounded after its scale, the sum in FP32, the output once.
    const double u = problem.dtype == Dtype::kF16 ? 0x1p-11 : 0x1p-8;
    const std::vector<Bounded> sums = multiply(problem.dtype, u);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const Bounded* const of_token = sums.data() + i / n * rows;
      const Bounded& sum = of_token[i % n];
      const Bounded result = rows == n ? sum : geglu(sum, of_token[n + i % n]);
      y[i] = result.value;
      bound[i] = u * std::abs(result.value) + result.error + 0x1p-24;
    }
  }

  // A value and the error that computing it in FP32 may make.
  struct Bounded {
    double value = 0.0;
    double error = 0.0;
  };

  // gelu_tanh(gate) * up; GELU rises by 1.13 at most, and is itself approximated.
  static Bounded geglu(const Bounded& gate, const Bounded& up) {
    const double x = gate.value;
    const double gelu =
        0.5 * x * (1.0 + std::tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    const double gelu_error = 1.13 * gate.error + 0x1p-21 * std::abs(x);
    return {gelu * up.value,
            gelu_error * (std::abs(up.value) + up.error) + std::abs(gelu) * up.error};
  }

  // [kMostTokens, rows]
  [[nodiscard]] std::vector<Bounded> multiply(Dtype dtype, double u) const {
    std::vector<Bounded> sums(kMostTokens * rows);
    std::vector<double> x_values(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) x_values[i] = to_double(dtype, x[i]);
    std::vector<double> w(k);
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t d = 0; d < k; ++d) {
        const int nibble = (nibbles[(row * k + d) / 2] >> (4 * (d % 2))) & 15;
        w[d] = (nibble - 8) * to_double(dtype, scales[(row * k + d) / group]);
      }
      for (std::size_t token = 0; token < kMostTokens; ++token) {
        double sum = 0.0;
        double sum_abs = 0.0;
        double sum_sq = 0.0;
        for (std::size_t d = 0; d < k; ++d) {
          const double term = x_values[token * k + d] * w[d];
          sum += term;
          sum_abs += std::abs(term);
          sum_sq += term * term;
        }
        sums[token * rows + row] = {sum, 4.0 * u * std::sqrt(sum_sq) + 0x1p-22 * sum_abs};
      }
    }
    return sums;
  }

  std::size_t n;     // width of y
  std::size_t rows;  // of the weight
  std::size_t k;
  std::size_t group;
  std::vector<std::uint8_t> nibbles;
  std::vector<std::uint16_t> scales;
  std::vector<std::uint16_t> x;
  std::vector<double> y;
  std::vector<double> bound;
};

// Every M up to 130, then every 37th, and the last.
std::vector<int> ragged_tokens() {
  std::vector<int> tokens;
  for (int m = 1; m < kMostTokens; m += m < 130 ? 1 : 37) tokens.push_back(m);
  tokens.push_back(kMostTokens);
  return tokens;
}

double worst_share(const w4tune::Dispatcher& dispatcher, const Problem& problem, const Cuda& cuda) {
  const Layer layer(problem);
  void* const w = cuda.allocate(w4tune::packed_weight_bytes(problem));
  void* const scales = cuda.allocate(w4tune::packed_scale_bytes(problem));
  dispatcher.pack_weights(problem,
                          {.nibbles = cuda.upload(layer.nibbles),
                           .scales = cuda.upload(layer.scales),
                           .encoding = w4tune::NibbleEncoding::kOffset8},
                          w, scales, nullptr);
  const void* const x = cuda.upload(layer.x);
  std::vector<std::uint16_t> y(kMostTokens * layer.n);
  void* const y_device = cuda.allocate(y.size() * 2);
  double worst = 0.0;
  for (const int m : ragged_tokens()) {
    const std::size_t count = static_cast<std::size_t>(m) * layer.n;
    cuda.poison(y_device, y.size() * 2);
    dispatcher.launch(dispatcher.select(problem, m),
                      {.x = x, .w = w, .scales = scales, .y = y_device, .m = m, .ldx = 0, .ldy = 0},
                      nullptr);
    cuda.download(y, y_device, y.size());
    for (std::size_t i = 0; i < count; ++i) {
      const double share = std::abs(to_double(problem.dtype, y[i]) - layer.y[i]) / layer.bound[i];
      worst = std::max(worst, std::isnan(share) ? std::numeric_limits<double>::infinity() : share);
    }
    for (std::size_t i = count; i < y.size(); ++i) {
      if (y[i] != 0xffff) throw std::runtime_error("written beyond m = " + std::to_string(m));
    }
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 2) throw std::runtime_error("usage: w4tune_serve_check FILE");
    const Cuda cuda;
    const auto dispatcher = w4tune::Dispatcher::open(argv[1]);
    std::set<Problem> problems;
    for (const auto& interval : dispatcher.intervals()) problems.insert(interval.problem);
    bool is_right = !problems.empty();
    for (const Problem& problem : problems) {
      const double worst = worst_share(dispatcher, problem, cuda);
      std::printf("%s n %d, k %d, group %d: worst error %.3f of the bound\n",
                  problem.op == w4tune::Op::kGeglu ? "geglu" : "gemm", problem.n, problem.k,
                  problem.group_size, worst);
      is_right = is_right && worst <= 1.0;
    }
    return is_right ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
