// The list of families, and what they share.
#include <fmt/format.h>

#include <array>
#include <fstream>
#include <sstream>

#include "core/check.h"
#include "core/hash.h"
#include "generated/device_sources.h"
#include "templates/bulk_pipe.h"
#include "templates/family.h"
#include "templates/gemv.h"
#include "templates/mma_pipe.h"
#include "templates/mma_reg.h"
#include "templates/mma_tile.h"
#include "templates/wgmma.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::string_view kSplit = "split_k";
constexpr std::string_view kRaster = "raster";

std::string read_text(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) {
    throw Error(ErrorCode::kNotFound, "device source " + path +
                                          " can't be read. Point --device-dir at the folder "
                                          "templates/device of the source tree.");
  }
  return text.str();
}

}  // namespace

std::span<const Family* const> families() {
  static const MmaPipe mma_pipe;
  static const MmaTile mma_tile;
  static const MmaReg mma_reg;
  static const BulkPipe bulk_pipe;
  static const Gemv gemv;
  static const WgmmaTiles wgmma;
  static const std::array<const Family*, 6> all = {&mma_pipe,  &mma_tile, &mma_reg,
                                                   &bulk_pipe, &wgmma,    &gemv};
  return all;
}

const Family* find_family(std::string_view id) {
  for (const Family* family : families()) {
    if (family->id() == id) return family;
  }
  return nullptr;
}

Candidate candidate_at(const Family& family, const Space& space, const Point& point) {
  Candidate candidate;
  candidate.config.family = family.id();
  for (std::size_t i = 0; i < point.size(); ++i) {
    const std::string& name = space.parameters()[i].name;
    if (name == kSplit) {
      candidate.schedule.split_k = point[i];
    } else if (name == kRaster) {
      candidate.schedule.raster = point[i];
    } else {
      candidate.config.parameters.emplace_back(name, point[i]);
    }
  }
  return candidate;
}

Point point_of(const Space& space, const Candidate& candidate) {
  Point point;
  for (const Parameter& parameter : space.parameters()) {
    if (parameter.name == kSplit) {
      point.push_back(candidate.schedule.split_k);
    } else if (parameter.name == kRaster) {
      point.push_back(candidate.schedule.raster);
    } else {
      point.push_back(candidate.config.at(parameter.name));
    }
  }
  return point;
}

DeviceSources device_sources_from(const std::string& device_dir) {
  DeviceSources sources;
  std::string all;
  for (const auto& file : device_sources::files()) {
    const std::string name(file.name);
    std::string text(file.text);
    // gemm_args.h is shared with the host, which was compiled with it: it is never replaced.
    if (!device_dir.empty() && name != "gemm_args.h")
      text = read_text(fmt::format("{}/{}", device_dir, name));
    if (name == "utility.cu") {
      sources.utilities = std::move(text);
      continue;
    }
    all.append(name).append(1, '\0').append(text).append(1, '\0');
    sources.headers.push_back({name, std::move(text)});
  }
  for (const Family* family : families())
    all += fmt::format("{} {}\n", family->id(), family->version());
  sources.hash = sha256_hex(all).substr(0, 16);
  return sources;
}

}  // namespace w4tune
