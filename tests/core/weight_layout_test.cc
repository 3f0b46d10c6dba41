#include "core/weight_layout.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace w4tune {
namespace {

constexpr Problem kGemm{Op::kGemm, 32, 192, 64, Dtype::kF16};
constexpr Problem kGeglu{Op::kGeglu, 24 * 2, 128, 128, Dtype::kBF16};

struct Unpacked {
  std::vector<std::uint8_t> nibbles;
  std::vector<std::uint16_t> scales;
};

struct Packed {
  std::vector<std::uint32_t> weight;
  std::vector<std::uint16_t> scales;
};

Unpacked random_weight(const Problem& problem) {
  std::mt19937 random(7);
  Unpacked result{std::vector<std::uint8_t>(weight_bytes(problem)),
                  std::vector<std::uint16_t>(scale_bytes(problem) / 2)};
  for (auto& byte : result.nibbles) byte = static_cast<std::uint8_t>(random() & 0xff);
  for (auto& scale : result.scales) scale = static_cast<std::uint16_t>(random() & 0xffff);
  return result;
}

Packed pack(const Problem& problem, const Unpacked& weight, NibbleEncoding encoding) {
  Packed packed{std::vector<std::uint32_t>(weight_bytes(problem) / 4, 0xdeadbeef),
                std::vector<std::uint16_t>(scale_bytes(problem) / 2, 0xdead)};
  pack_weight(problem, weight.nibbles.data(), encoding, weight.scales.data(), packed.weight.data(),
              packed.scales.data());
  return packed;
}

std::uint32_t unpacked_nibble(const Problem& problem, const Unpacked& weight, int row, int depth) {
  const auto byte = weight.nibbles[static_cast<std::size_t>(row * (problem.k / 2) + depth / 2)];
  return (byte >> (4 * (depth % 2))) & 0xFU;
}

TEST(WeightLayout, EveryNibbleHasAPlaceOfItsOwn) {
  std::set<std::pair<std::size_t, int>> places;
  for (int row = 0; row < weight_rows(kGemm); ++row) {
    for (int depth = 0; depth < kGemm.k; ++depth) {
      const auto [word, shift] = nibble_position(kGemm.k, row, depth);
      EXPECT_LT(word, weight_bytes(kGemm) / 4);
      EXPECT_EQ(shift % 4, 0);
      EXPECT_LT(shift, 32);
      places.emplace(word, shift);
    }
  }
  EXPECT_EQ(places.size(), 2 * weight_bytes(kGemm));
}

TEST(WeightLayout, EveryScaleHasAPlaceOfItsOwn) {
  std::set<std::size_t> places;
  for (int row = 0; row < weight_rows(kGemm); ++row) {
    for (int group = 0; group < num_groups(kGemm); ++group) {
      places.insert(scale_position(num_groups(kGemm), row, group));
    }
  }
  EXPECT_EQ(places.size(), scale_bytes(kGemm) / 2);
  EXPECT_EQ(*places.rbegin(), scale_bytes(kGemm) / 2 - 1);
}

// The A fragment of mma.sync.m16n8k16 (PTX ISA): lane 4g + t holds, in order, the elements
// (g, 2t..2t+1), (g + 8, 2t..2t+1), (g, 2t+8..2t+9), (g + 8, 2t+8..2t+9).
TEST(WeightLayout, ALaneOwnsItsPartOfTheMmaFragment) {
  constexpr int kPairShift[4] = {0, 4, 8, 12};  // of the first of each pair; the second: + 16
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4;
    const int t = lane % 4;
    const int rows[4] = {g, g + 8, g, g + 8};
    const int depths[4] = {2 * t, 2 * t, 2 * t + 8, 2 * t + 8};
    for (int step = 0; step < 4; ++step) {
      for (int pair = 0; pair < 4; ++pair) {
        for (int second = 0; second < 2; ++second) {
          const int depth = 64 + 16 * step + depths[pair] + second;  // second block of 64
          const auto at = nibble_position(kGemm.k, 16 + rows[pair], depth);
          const auto block = static_cast<std::size_t>(1 * (kGemm.k / 64) + 1);
          EXPECT_EQ(at.word, block * 128 + static_cast<std::size_t>(4 * lane + step));
          EXPECT_EQ(at.shift, kPairShift[pair] + 16 * second);
        }
      }
    }
  }
}

TEST(WeightLayout, PackingPutsEachWeightWhereItsPositionSays) {
  for (const Problem& problem : {kGemm, kGeglu}) {
    const Unpacked weight = random_weight(problem);
    const Packed packed = pack(problem, weight, NibbleEncoding::kOffset8);
    for (int row = 0; row < weight_rows(problem); ++row) {
      const int source = source_row(problem, row);
      for (int depth = 0; depth < problem.k; ++depth) {
        const auto at = nibble_position(problem.k, row, depth);
        ASSERT_EQ((packed.weight[at.word] >> at.shift) & 0xFU,
                  unpacked_nibble(problem, weight, source, depth));
      }
      for (int group = 0; group < num_groups(problem); ++group) {
        const auto from = static_cast<std::size_t>(source * num_groups(problem) + group);
        ASSERT_EQ(packed.scales[scale_position(num_groups(problem), row, group)],
                  weight.scales[from]);
      }
    }
  }
}

TEST(WeightLayout, SignedNibblesBecomeOffsetNibbles) {
  Unpacked offset = random_weight(kGemm);
  Unpacked two_complement = offset;
  for (auto& byte : two_complement.nibbles) byte ^= 0x88;
  EXPECT_EQ(pack(kGemm, offset, NibbleEncoding::kOffset8).weight,
            pack(kGemm, two_complement, NibbleEncoding::kSigned).weight);
}

TEST(WeightLayout, GegluInterleavesGateAndUpByEightRows) {
  EXPECT_EQ(source_row(kGemm, 17), 17);
  std::set<int> seen;
  for (int row = 0; row < weight_rows(kGeglu); ++row) {
    const int source = source_row(kGeglu, row);
    const bool is_up = row % 16 >= 8;
    EXPECT_EQ(source >= kGeglu.n, is_up);
    EXPECT_EQ(source % kGeglu.n, 8 * (row / 16) + row % 8);  // gate and up of one output pair up
    seen.insert(source);
  }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(weight_rows(kGeglu)));
}

}  // namespace
}  // namespace w4tune
