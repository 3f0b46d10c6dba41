// What of the wrappers is more than a line: the tensor core, ldmatrix, packed arithmetic.
#include "templates/device/ptx.cuh"

namespace w4 {
namespace {

// The float towards zero of `exact`, its last bit set where anything was cut off. Rounding that
// again, to fewer bits, rounds `exact` correctly.
float rounded_to_odd(double exact) {
  auto nearest = static_cast<float>(exact);
  if (static_cast<double>(nearest) == exact || !std::isfinite(nearest)) return nearest;
  if (std::abs(static_cast<double>(nearest)) > std::abs(exact)) {
    nearest = std::nextafter(nearest, 0.0F);
  }
  return std::bit_cast<float>(std::bit_cast<u32>(nearest) | 1U);
}

// a * b + c of both halves.
template <class Element>
u32 fma_packed(u32 a, u32 b, u32 c) {
  const auto half = [](u32 pair, u32 shift) -> double {
    return Element::to_f32(static_cast<u16>(pair >> shift));
  };
  u32 result = 0;
  for (const u32 shift : {0U, 16U}) {
    const double exact = half(a, shift) * half(b, shift) + half(c, shift);
    result |= static_cast<u32>(Element::from_f32(rounded_to_odd(exact))) << shift;
  }
  return result;
}

template <class Element>
void mma_m16n8k16(const char* name, float* d, const u32* a, const u32* b, const float* c) {
  MmaLane mine{a, b, c, {}};
  twin::collective(name, mine, multiply_fragments<Element>);
  for (std::size_t i = 0; i < 4; ++i) d[i] = mine.d[i];
}

constexpr u32 kOnes = 0x3c003c00;        // FP16
constexpr u32 kMinusZeros = 0x80008000;  // keep the sign of a zero product

}  // namespace

template <class Element>
void multiply_fragments(const std::array<MmaLane*, twin::kLanes>& lanes) {
  const auto half = [](u32 pair, std::size_t i) -> double {
    return Element::to_f32(static_cast<u16>(pair >> (16 * i)));
  };
  double rows[16][16];    // (row, depth)
  double columns[8][16];  // (column, depth)
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    const std::size_t g = lane / 4;
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t depth = lane % 4 * 2 + i / 2 * 8 + i % 2;
      rows[g][depth] = half(lanes[lane]->a[i / 2 * 2], i % 2);
      rows[g + 8][depth] = half(lanes[lane]->a[i / 2 * 2 + 1], i % 2);
      columns[g][depth] = half(lanes[lane]->b[i / 2], i % 2);
    }
  }
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    for (std::size_t i = 0; i < 4; ++i) {
      const double* const row = rows[lane / 4 + i / 2 * 8];
      const double* const column = columns[lane % 4 * 2 + i % 2];
      double sum = lanes[lane]->c[i];
      for (std::size_t depth = 0; depth < 16; ++depth) sum += row[depth] * column[depth];
      lanes[lane]->d[i] = static_cast<float>(sum);
    }
  }
}

template void multiply_fragments<F16>(const std::array<MmaLane*, twin::kLanes>& lanes);
template void multiply_fragments<BF16>(const std::array<MmaLane*, twin::kLanes>& lanes);

void ldmatrix(std::size_t matrices, u32 address, u32* r) {
  struct Lane {
    u32 address;
    u32* r;
  };
  Lane mine{address, r};
  twin::collective(matrices == 4 ? "ldmatrix_x4" : "ldmatrix_x2", mine, [&](const auto& lanes) {
    for (std::size_t matrix = 0; matrix < matrices; ++matrix) {
      for (std::size_t row = 0; row < 8; ++row) {
        const u32 from = lanes[8 * matrix + row]->address;
        if (from % 16 != 0) twin::fail("ldmatrix wants rows aligned to 16 bytes");
        for (u32 t = 0; t < 4; ++t) {
          const std::size_t lane = 4 * row + t;
          twin::load_shared_as(static_cast<int>(lane), from + 4 * t, &lanes[lane]->r[matrix], 4);
        }
      }
    }
  });
}

u32 F16::sub2(u32 a, u32 b) { return fma_packed<F16>(a, kOnes, b ^ kMinusZeros); }
u32 F16::mul2(u32 a, u32 b) { return fma_packed<F16>(a, b, kMinusZeros); }
u32 F16::fma2(u32 a, u32 b, u32 c) { return fma_packed<F16>(a, b, c); }
void F16::mma(float* d, const u32* a, const u32* b, const float* c) {
  mma_m16n8k16<F16>("mma of FP16", d, a, b, c);
}

u32 BF16::mul2(u32 a, u32 b) { return fma_packed<BF16>(a, b, kMinusZeros); }
u32 BF16::fma2(u32 a, u32 b, u32 c) { return fma_packed<BF16>(a, b, c); }
void BF16::mma(float* d, const u32* a, const u32* b, const float* c) {
  mma_m16n8k16<BF16>("mma of BF16", d, a, b, c);
}

}  // namespace w4
