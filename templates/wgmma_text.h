// The text of one wgmma wrapper (templates/device/ptx_sm90.cuh): inline assembly has to name each
// of its registers, so a kernel gets the one it needs instead of all.
#pragma once

#include <string>

#include "core/problem.h"

namespace w4tune {

// The specialisation of w4::Wgmma for m64n`tokens`k16; tokens: 8 to 256 in steps of 8.
std::string wgmma_text(int tokens, Dtype dtype);

}  // namespace w4tune
