#include "tuner/operands.h"

#include <algorithm>
#include <cmath>

#include "core/half.h"
#include "core/weight_layout.h"

namespace w4tune {
namespace {

constexpr std::size_t kAlignment = 256;

// SplitMix64 (Steele, Lea, Flood 2014): fast, seedable, good enough for test data.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  // In [0, 1).
  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-24F; }
  // Near-normal with variance 1: the sum of four 16-bit uniforms, centred.
  float normal() {
    const std::uint64_t bits = next();
    float sum = 0.0F;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>((bits >> (16 * i)) & 0xffff);
    return (sum * 0x1p-16F - 2.0F) * 1.7320508F;
  }

 private:
  std::uint64_t state_;
};

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

HostOperands random_operands(const Problem& problem, int m, std::uint64_t seed, DataKind kind) {
  Random random(seed ^ (static_cast<std::uint64_t>(problem.n) << 32) ^
                static_cast<std::uint64_t>(problem.k));
  const auto rows = static_cast<std::size_t>(weight_rows(problem));
  const auto k = static_cast<std::size_t>(problem.k);
  const auto groups = static_cast<std::size_t>(num_groups(problem));
  HostOperands host;
  host.nibbles.resize(rows * k / 2);
  for (std::size_t i = 0; i < host.nibbles.size(); i += 8) {
    const std::uint64_t bits = kind == DataKind::kAllMinus8 ? 0 : random.next();
    for (std::size_t j = 0; j < std::min<std::size_t>(8, host.nibbles.size() - i); ++j) {
      host.nibbles[i + j] = static_cast<std::uint8_t>(bits >> (8 * j));
    }
  }
  // Uniform nibbles have a standard deviation of 4.6; this scale makes outputs about 1.
  const float unit = 1.0F / (4.6F * std::sqrt(static_cast<float>(problem.k)));
  host.scales.resize(rows * groups);
  for (std::size_t i = 0; i < host.scales.size(); ++i) {
    const bool zero = kind == DataKind::kZeroScales && i % 3 == 0;
    host.scales[i] = from_float(problem.dtype, zero ? 0.0F : unit * (0.5F + random.uniform()));
  }
  host.x.resize(static_cast<std::size_t>(m) * k);
  for (std::uint16_t& element : host.x) {
    float value = random.normal();
    if (kind == DataKind::kPositiveMean) value = std::abs(value) + 0.5F;
    if (kind == DataKind::kOutliers && random.next() % 100 == 0) value *= 30.0F;
    element = from_float(problem.dtype, value);
  }
  return host;
}

Operands::Operands(const Problem& problem, int max_m, std::size_t l2_bytes,
                   const Protocol& protocol, DataKind kind)
    : problem_(problem), max_m_(max_m) {
  const HostOperands host = random_operands(problem, max_m, protocol.seed, kind);
  nibbles_ = Buffer(host.nibbles.size());
  nibbles_.upload(host.nibbles.data(), host.nibbles.size());
  unpacked_scales_ = Buffer(host.scales.size() * 2);
  unpacked_scales_.upload(host.scales.data(), host.scales.size() * 2);
  x_ = Buffer(host.x.size() * 2);
  x_.upload(host.x.data(), host.x.size() * 2);

  const std::size_t weight = weight_bytes(problem);
  std::vector<std::uint32_t> packed(weight / 4);
  std::vector<std::uint16_t> packed_scales(scale_bytes(problem) / 2);
  pack_weight(problem, host.nibbles.data(), NibbleEncoding::kOffset8, host.scales.data(),
              packed.data(), packed_scales.data());
  copy_bytes_ = aligned(weight) + aligned(scale_bytes(problem));
  const double wanted = protocol.cold_factor * static_cast<double>(l2_bytes);
  copies_ = 1 + static_cast<int>(std::ceil(wanted / static_cast<double>(copy_bytes_)));
  weights_ = Buffer(copy_bytes_ * static_cast<std::size_t>(copies_));
  for (int copy = 0; copy < copies_; ++copy) {
    const std::size_t offset = copy_bytes_ * static_cast<std::size_t>(copy);
    weights_.upload(packed.data(), weight, offset);
    weights_.upload(packed_scales.data(), packed_scales.size() * 2, offset + aligned(weight));
  }
  const auto y_elements = static_cast<std::size_t>(max_m) * static_cast<std::size_t>(problem.n);
  y_ = Buffer((y_elements + 2 * kFenceElements) * 2);
}

w4::GemmArgs Operands::args(int m, int copy) const {
  const auto* base = weights_.as<char>() + copy_bytes_ * static_cast<std::size_t>(copy);
  w4::GemmArgs args{};
  args.x = x_.as<void>();
  args.w = base;
  args.scales = base + aligned(weight_bytes(problem_));
  args.y = y();
  args.ldx = problem_.k;
  args.ldy = problem_.n;
  args.m = m;
  args.n = problem_.n;
  args.k = problem_.k;
  args.split_k = 1;
  args.raster = 1;
  return args;
}

std::uint16_t* Operands::y() const { return y_.as<std::uint16_t>() + kFenceElements; }

void Operands::poison_y() const { y_.fill(0xff); }

const std::uint16_t* Operands::fence_before() const { return y_.as<std::uint16_t>(); }

const std::uint16_t* Operands::fence_after() const {
  return y() + static_cast<std::size_t>(max_m_) * static_cast<std::size_t>(problem_.n);
}

}  // namespace w4tune
