// What of the wrappers of sm_90 is more than a line: the copy engine's boxes, the warpgroup's
// product.
#include "templates/device/ptx_sm90.cuh"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

namespace w4 {
namespace {

constexpr u32 kPiece = 16;          // bytes
constexpr u32 kSwizzleRow = 128;    // bytes
constexpr u32 kSwizzleAtom = 1024;  // eight rows; what the hardware's pattern repeats after
constexpr u64 kElementBytes = 2;
constexpr u64 kMapMark = 0x7774696e206d6170;  // in an encoded map

// Where the byte at `address` lies: its piece moves within the row, by the row's number.
u32 swizzled(u32 address) {
  return address ^ (address / kSwizzleRow % (kSwizzleAtom / kSwizzleRow) * kPiece);
}

TiledMap decode(const TensorMap& map) {
  const u64* const w = map.words;
  if (w[9] != kMapMark) twin::fail("no tensor map");
  return {std::bit_cast<const void*>(w[0]), {w[1], w[2], w[3]}, {w[4], w[5]}, {w[6], w[7], w[8]}};
}

// The half of token `token` (0: 8 deep, 1: the next 8) that a wgmma with descriptor `b` reads.
u32 token_address(u64 b, std::size_t token, u32 half) {
  const u32 start = static_cast<u32>(b & 0x3fff) << 4;
  const auto row = static_cast<u32>(token) * kSwizzleRow;  // groups of 8 follow one another
  return swizzled(start + row + half * kPiece);
}

void check_descriptor(u64 b) {
  constexpr u64 kAddress = 0x3fff;
  const u64 start = (b & kAddress) << 4;
  if ((b & ~kAddress) != wgmma_tokens(0)) twin::fail("not a descriptor of wgmma_tokens");
  if (start % kSwizzleAtom >= kSwizzleRow || start % (2 * kPiece) != 0) {
    twin::fail("tokens of a wgmma lie at multiples of 1024, and 32 bytes further for 16 deep");
  }
}

template <class Element>
void multiply_tokens(const std::array<twin::ProductLane, twin::kLanes>& lanes, std::uint64_t b,
                     std::size_t values) {
  for (std::size_t first = 0; first < values; first += 4) {  // 8 tokens
    std::array<std::array<u32, 2>, twin::kLanes> tokens;     // b of m16n8k16
    std::array<MmaLane, twin::kLanes> fragments;
    std::array<MmaLane*, twin::kLanes> warp;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      for (u32 half = 0; half < 2; ++half) {
        const u32 from = token_address(b, first * 2 + i / 4, half) + static_cast<u32>(i % 4) * 4;
        twin::load_shared_as(static_cast<int>(i), from, &tokens[i][half], 4);
      }
      fragments[i] = {lanes[i].a, tokens[i].data(), lanes[i].sums + first, {}};
      warp[i] = &fragments[i];
    }
    multiply_fragments<Element>(warp);
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      for (std::size_t j = 0; j < 4; ++j) lanes[i].sums[first + j] = fragments[i].d[j];
    }
  }
}

}  // namespace

bool elect_one() {
  bool elected = false;
  bool* last = &elected;
  twin::collective("elect_one", elected, [last](const auto&) { *last = true; });
  return elected;
}

TensorMap encode_tensor_map(const TiledMap& map) {
  TensorMap encoded{};
  const u64 words[] = {
      std::bit_cast<u64>(map.data), map.sizes[0], map.sizes[1], map.sizes[2], map.stride_bytes[0],
      map.stride_bytes[1],          map.box[0],   map.box[1],   map.box[2],   kMapMark};
  std::copy(std::begin(words), std::end(words), encoded.words);
  return encoded;
}

void bulk_copy(u32 to, const void* from, u32 bytes, u32 mbarrier) {
  if (bytes % kPiece != 0) twin::fail("a bulk copy of no whole 16 bytes");
  std::vector<twin::Piece> pieces;
  for (u32 at = 0; at < bytes; at += kPiece) {
    pieces.push_back({to + at, static_cast<const char*>(from) + at});
  }
  twin::launch_bulk_copy(std::move(pieces), mbarrier);
}

void tensor_copy_3d(u32 to, const TensorMap* map, int c0, int c1, int c2, u32 mbarrier) {
  const TiledMap m = decode(*map);
  if (to % kSwizzleAtom != 0) twin::fail("a tensor copy to no multiple of 1024");
  if (m.box[0] * kElementBytes != kSwizzleRow || m.sizes[0] != m.box[0] || c0 != 0) {
    twin::fail("the twin's tensor copies bring rows of 128 bytes, whole");
  }
  std::vector<twin::Piece> pieces;
  u32 at = to;
  for (u64 outer = 0; outer < m.box[2]; ++outer) {
    for (u64 row = 0; row < m.box[1]; ++row) {
      // Negative coordinates are beyond all sizes, too.
      const u64 i = static_cast<u64>(static_cast<long long>(c1)) + row;
      const u64 j = static_cast<u64>(static_cast<long long>(c2)) + outer;
      const bool exists = i < m.sizes[1] && j < m.sizes[2];
      const char* const from =
          exists ? static_cast<const char*>(m.data) + i * m.stride_bytes[0] + j * m.stride_bytes[1]
                 : nullptr;
      for (u32 piece = 0; piece < kSwizzleRow; piece += kPiece, at += kPiece) {
        pieces.push_back({swizzled(at), exists ? from + piece : nullptr});
      }
    }
  }
  twin::launch_bulk_copy(std::move(pieces), mbarrier);
}

template <class Element>
void launch_wgmma(std::size_t tokens, float* d, const u32* a, u64 b, int add) {
  check_descriptor(b);
  // Tokens may be read from here on, until the product has been waited for.
  const auto lane = static_cast<std::size_t>(thread_index() % twin::kLanes);
  for (std::size_t token = lane; token < tokens; token += twin::kLanes) {
    load_shared_16(token_address(b, token, 0));
    load_shared_16(token_address(b, token, 1));
  }
  twin::launch_product({multiply_tokens<Element>, d, tokens / 2, a, b, add != 0});
}

template void launch_wgmma<F16>(std::size_t tokens, float* d, const u32* a, u64 b, int add);
template void launch_wgmma<BF16>(std::size_t tokens, float* d, const u32* a, u64 b, int add);

}  // namespace w4
