// What every family is put through on the host twin. A family's test lists its kernels, with
// `dequant` among their parameters, and calls these within a TEST.
#pragma once

#include <span>
#include <vector>

#include "tests/twin/gemm_on_twin.h"

namespace w4tune {

// Several row tiles, the last a ragged one where the layout allows it; one token, a whole tile and
// a ragged second one; both walks of the tiles.
void expect_within_bounds_at_ragged_m(std::span<const TwinKernel> kernels);

// A split of 3, with shares of different depths where there are whole steps of the depth tile.
void expect_same_bits_whoever_arrives_last(std::span<const TwinKernel> kernels);

// A launch that begins early brings its data in another order.
void expect_same_bits_of_a_dependent_launch(std::span<const TwinKernel> kernels);

void expect_within_bounds_on_hostile_data(std::span<const TwinKernel> kernels);

// Which of the calls of `kind` in a thread, from number `first` on (below 0: from the end), can be
// left out of a launch of m tokens without a fault or a wrong result.
std::vector<int> unnoticed(const GemmOnTwin& gemm, int m, TwinLaunch launch, w4::twin::Sync kind,
                           int first = 0);

}  // namespace w4tune
