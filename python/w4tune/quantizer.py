"""Weights to INT4: symmetric, one scale for each group of a row, and the unpacked form they take.

w ~ q * s with q in -8..7 and no zero point. Nothing here knows a kernel: sizes that no kernel
serves are quantised all the same, and refused where a layer is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from w4tune.errors import W4tuneError

GROUP_SIZES = (32, 64, 128)
METHODS = ("mse", "maxabs")
SCALE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

MSE_FACTORS = tuple(1.0 - step / 40 for step in range(33))
"""What "mse" multiplies max|W| / 7 by, for each group: 1.0, 0.975, ... 0.2.

On normal weights the best factor is about 0.85 for groups of 128 and 0.6 for a row of 2048; heavy
tails want less. Halving the step lowers the error by less than 1 %.
"""

# Elements that are worked on at a time: 64 MB a buffer on a GPU, what stays in a cache on a CPU.
_CHUNK = {"cpu": 1 << 18}
_GPU_CHUNK = 1 << 24


def resolve_group_size(group_size: int | str, k: int) -> int:
    """32, 64, 128 or k, from that or "channel" or -1; W4tuneError for others and what k lacks."""
    if group_size in ("channel", -1) or group_size == k:
        return k
    if group_size not in GROUP_SIZES:
        raise W4tuneError(
            f"group_size {group_size!r} is not served. Use 32, 64, 128 or 'channel' (one scale for "
            "each output)."
        )
    if k % group_size != 0:
        raise W4tuneError(
            f"k = {k} is no multiple of group_size {group_size}. Use a smaller group, or 'channel'."
        )
    return int(group_size)


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight [n, k] in INT4, packed for no kernel: w[i, j] ~ q[i, j] * scales[i, j // group].

    codes: uint8 [n, k / 2]; the low nibble is the even k, a nibble is q + 8 with q in -8..7.
    scales: float32, float16 or bfloat16 [n, k / group_size], on the device of codes.
    group_size: 32, 64, 128, or k for one scale for each output.
    """

    codes: Tensor
    scales: Tensor
    group_size: int

    def __post_init__(self) -> None:
        if self.codes.dtype != torch.uint8 or self.codes.dim() != 2:
            raise W4tuneError(
                f"codes are {self.codes.dtype} {list(self.codes.shape)}. Pass uint8 [n, k / 2]."
            )
        resolve_group_size(self.group_size, self.k)
        expected = (self.n, self.k // self.group_size)
        if self.scales.dtype not in SCALE_DTYPES or self.scales.shape != expected:
            raise W4tuneError(
                f"scales are {self.scales.dtype} {list(self.scales.shape)}. Pass float32, float16 "
                f"or bfloat16 {list(expected)} for a weight of {self.n} x {self.k}."
            )

    @property
    def n(self) -> int:
        return self.codes.shape[0]

    @property
    def k(self) -> int:
        return 2 * self.codes.shape[1]

    def signed(self) -> Tensor:
        """q: int8 [n, k], -8..7."""
        pairs = torch.stack((self.codes & 15, self.codes >> 4), dim=-1)
        return pairs.view(self.n, self.k).to(torch.int8).sub_(8)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """q * scale, [n, k], computed in float32 and rounded once to dtype."""
        groups = self.signed().float().view(self.n, -1, self.group_size)
        return groups.mul_(self.scales.float().unsqueeze(-1)).view(self.n, self.k).to(dtype)

    @staticmethod
    def from_signed(q: Tensor, scales: Tensor, group_size: int) -> QuantizedWeight:
        """From q, int8 [n, k] in -8..7; k is even."""
        if q.dtype != torch.int8 or q.dim() != 2 or q.shape[1] % 2 != 0:
            raise W4tuneError(f"q is {q.dtype} {list(q.shape)}. Pass int8 [n, k] with an even k.")
        if q.numel() > 0 and (int(q.min()) < -8 or int(q.max()) > 7):
            raise W4tuneError(f"q reaches from {int(q.min())} to {int(q.max())}. Pass -8..7.")
        return QuantizedWeight(_codes(q), scales, group_size)


def _codes(q: Tensor) -> Tensor:
    """[n, k] of -8..7 in any dtype to uint8 [n, k / 2]."""
    nibbles = (q + 8).to(torch.uint8)
    return nibbles[:, 0::2] | nibbles[:, 1::2] << 4


def quantize(
    weight: Tensor,
    group_size: int | str = 128,
    *,
    method: str = "mse",
    scale_dtype: torch.dtype = torch.float16,
) -> QuantizedWeight:
    """Quantises weight [n, k], of any floating dtype, on the device it is on.

    q = clamp(round(W / s), -8, 7) with s already rounded to scale_dtype, in which it is returned.
    method "maxabs": s = max|W| / 7 of the group. "mse": the s of the least squared error among
        max|W| / 7 * f for f in MSE_FACTORS (the larger s of two equally good ones).
    A group of zeros has the scale 1. A scale too small for scale_dtype is raised to the smallest it
    takes (float16: 2^-24), so none is 0.

    Works on some rows at a time. W4tuneError: NaN or Inf in weight; a scale too large for
    scale_dtype; a group size that does not divide k; a shape or dtype that is no weight's.
    """
    if method not in METHODS:
        raise W4tuneError(f"method {method!r} is unknown. Use 'mse' or 'maxabs'.")
    if scale_dtype not in SCALE_DTYPES:
        raise W4tuneError(
            f"scale_dtype {scale_dtype} is not served. Use float16, bfloat16 or float32."
        )
    plausible = weight.is_floating_point() and weight.dim() == 2 and weight.numel() > 0
    if not plausible or weight.shape[1] % 2 != 0:
        raise W4tuneError(
            f"weight is {weight.dtype} {list(weight.shape)}. Pass floating [n, k] with an even k."
        )
    if weight.is_meta:
        raise W4tuneError("weight is on the meta device, without data. Load it before quantising.")
    n, k = weight.shape
    group = resolve_group_size(group_size, k)
    factors = MSE_FACTORS if method == "mse" else MSE_FACTORS[:1]

    weight = weight.detach()
    codes = torch.empty((n, k // 2), dtype=torch.uint8, device=weight.device)
    scales = torch.empty((n, k // group), dtype=scale_dtype, device=weight.device)
    # One wait for the GPU in all: what makes it fail is looked at in the end.
    largest = torch.zeros((), dtype=torch.float32, device=weight.device)
    step = max(1, _CHUNK.get(weight.device.type, _GPU_CHUNK) // k)
    for start in range(0, n, step):
        rows = slice(start, min(n, start + step))
        w = weight[rows].float().reshape(-1, k // group, group)
        magnitude = w.abs().amax(dim=2)
        largest = torch.maximum(largest, magnitude.amax())  # NaN stays NaN
        best = _best_scale(w, magnitude, factors, scale_dtype)
        scales[rows] = best
        q = (w / best.float().unsqueeze(-1)).round_().clamp_(-8, 7)
        codes[rows] = _codes(q.view(-1, k))
    _check_range(float(largest), n, k, scale_dtype)
    return QuantizedWeight(codes, scales, group)


def _best_scale(
    w: Tensor, magnitude: Tensor, factors: tuple[float, ...], dtype: torch.dtype
) -> Tensor:
    """For groups w [rows, groups, size] and their max|w| [rows, groups]: the scales, in dtype."""
    smallest = _smallest_scale(dtype)
    base = magnitude / torch.full((), 7.0, device=w.device)  # a Python 7 is * (1 / 7) on a GPU
    best = error = None
    for factor in factors:
        scale = (base * factor).clamp_(min=smallest)
        scale = torch.where(magnitude == 0, 1.0, scale).to(dtype)
        if len(factors) == 1:
            return scale
        wide = scale.float().unsqueeze(-1)
        difference = (w / wide).round_().clamp_(-8, 7).mul_(wide).sub_(w)
        squares = difference.square_().sum(dim=2)
        if best is None:
            best, error = scale, squares
        else:
            better = squares < error
            best = torch.where(better, scale, best)
            error = torch.where(better, squares, error)
    assert best is not None
    return best


def _smallest_scale(dtype: torch.dtype) -> float:
    # Below float32's own normal numbers, GPUs and CPUs disagree about what a quotient is.
    return 2.0**-24 if dtype == torch.float16 else torch.finfo(torch.float32).tiny


def _check_range(largest: float, n: int, k: int, scale_dtype: torch.dtype) -> None:
    if not largest < float("inf"):
        raise W4tuneError(f"the weight of {n} x {k} has NaN or Inf. Check what was loaded.")
    if largest / 7 > torch.finfo(scale_dtype).max:
        raise W4tuneError(
            f"the weight of {n} x {k} reaches {largest:.3g}, too much for a scale in "
            f"{scale_dtype}. Pass scale_dtype=torch.bfloat16."
        )
