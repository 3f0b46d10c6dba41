"""DuQuant packs: rotations found for a layer beforehand, and the layer that computes with them.

A pack is the file `<folder>/<layer name>.npz` that OpenPI's DuQuant fork writes. It holds no
weights: a permutation P of the inputs and two block diagonal orthogonal matrices. From them and the
layer's weight W [n, k] follow

    W_t = R_out (W P) R_in        x' = (x P) R_in        y' = x' Q(W_t)^T        y = y' R_out

so y is x W^T but for the quantisation Q. (x P)[i] = x[permutation[i]]; blocks follow one another
along the diagonal, the last one smaller where the size is no multiple of the block.

Each layer has its own pack, the gate and the up projection of one MLP too. They want their input in
different bases and so cannot share a launch: there is no GeGLU over packs, such an MLP runs as
three DuQuantLinear.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from w4tune.errors import W4tuneError
from w4tune.modules import (
    Linear,
    WeightView,
    activation_dtype,
    dtype_error,
    keeping_integers,
    require_supported,
)
from w4tune.ops import MAX_ROTATION_BLOCK
from w4tune.quantizer import quantize
from w4tune.runtime import Selection

__all__ = [
    "DEFAULT_GROUP_SIZE",
    "DuQuantLinear",
    "Pack",
    "load_pack",
    "make_pack",
    "pack_path",
    "rotated_weight",
    "save_pack",
]

_rotate = torch.ops.w4tune.rotate.default

DEFAULT_GROUP_SIZE = 128  # why: results/duquant_groups.md
ROW_ROTATIONS = ("restore", "0")

# Largest |R^T R - I| of a block that passes as orthogonal. SVDs in float32 are off by some 1e-6.
ORTHOGONALITY = 1e-3
# Smallest max |w| of a row that a scale is made from; the fork's.
_LEAST_MAGNITUDE = 1e-8
# float64 elements of a weight that are rotated at a time.
_CHUNK = 1 << 23


@dataclass(frozen=True)
class Pack:
    """A pack, checked.

    weight_scale    float32 [n], max |W P R_in| / 7 of each row; not used: the weight gives scales
    permutation     int64 [k], or None: inputs stay where they are
    input_blocks    R_in: {block id: float32 [B, B]}, ids left out are the identity; None: all are
    output_blocks   R_out: likewise over the n outputs
    meta            the file's JSON as it stands
    path            the file it was read from, for messages
    """

    weight_scale: np.ndarray
    permutation: np.ndarray | None
    input_blocks: Mapping[int, np.ndarray] | None
    output_blocks: Mapping[int, np.ndarray] | None
    in_features: int
    out_features: int
    block_size: int
    block_out_size: int
    meta: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    def stacked_input_blocks(self) -> Tensor | None:
        """R_in as float32 [ceil(k / B), B, B], B = min(block_size, k); None without R_in.

        Ids left out are identities; what reaches beyond k is zero.
        """
        return _stacked(self.input_blocks, self.in_features, self.block_size)

    def stacked_output_blocks(self) -> Tensor | None:
        """R_out as float32 [ceil(n / B), B, B], B = min(block_out_size, n), likewise."""
        return _stacked(self.output_blocks, self.out_features, self.block_out_size)


def pack_path(packdir: str | os.PathLike[str], layer_name: str) -> Path:
    """Where the pack of a layer lies: <packdir>/<qualified name>.npz.

    In the name "_" stands for what is not A-Z a-z 0-9 _ . - and "." for "..".
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", layer_name).replace("..", ".")
    return Path(packdir) / f"{name}.npz"


def load_pack(path: str | os.PathLike[str]) -> Pack:
    """Reads and checks a pack; never unpickles.

    Raises W4tuneError, in one line, for a file that is missing, cut short or no pack; missing keys;
    wrong types and shapes; a perm that is no permutation; block ids out of range or twice; blocks
    that are not orthogonal.
    """
    path = os.fspath(path)
    try:
        arrays = _read(path)
    except FileNotFoundError:
        raise W4tuneError(
            f"no DuQuant pack at {path}. Check the folder and the layer's name, or write one with "
            "w4tune.duquant.make_pack."
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise W4tuneError(
            f"{path} is no readable DuQuant pack (.npz without pickles): {reason}"
        ) from None
    try:
        return _checked(arrays, path)
    except _Fault as fault:
        raise W4tuneError(f"DuQuant pack {path}: {fault}. Write it anew.") from None


def save_pack(pack: Pack, path: str | os.PathLike[str]) -> None:
    """Writes the file that the fork's save_pack writes: the same keys, types and shapes.

    Makes missing folders; an older file is replaced whole.
    """
    entries: dict[str, Any] = {
        "weight_scale": pack.weight_scale.astype(np.float32),
        "meta": json.dumps(dict(pack.meta)),
    }
    if pack.permutation is not None:
        entries["perm"] = pack.permutation.astype(np.int64)
    for side, blocks in (("in", pack.input_blocks), ("out", pack.output_blocks)):
        if blocks:
            entries.update(
                (f"R{side}_{b}", block.astype(np.float32)) for b, block in blocks.items()
            )
            entries[f"R_{side}_blocks"] = np.array(sorted(blocks), dtype=np.int64)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            np.savez(file, **entries)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def make_pack(
    weight: Tensor,
    block_size: int = 64,
    *,
    block_out_size: int | None = None,
    permute: bool = True,
    smoothing: float = 0.15,
    path: str | os.PathLike[str] | None = None,
) -> Pack:
    """The pack that the fork defines for weight [n, k]; also written to `path`, where given.

    permutation    columns in falling order of energy e_j = mean_i W_ij^2, taken from both ends in
                   turn: the first, the last, the second, ...; `smoothing` (0..1) draws the energies
                   towards their mean first
    R_in[b]        left singular vectors of W[:, permutation[block b]]^T
    R_out[b]       left singular vectors of W[block b, :], of W itself
    weight_scale   max |W P R_in| / 7 of each row

    block_out_size is block_size unless given. The SVDs run in float32 on the weight's device. Signs
    of singular vectors and bases of (nearly) equal singular values differ between libraries: each
    choice is a valid pack.
    """
    if weight.ndim != 2 or weight.numel() == 0:
        raise W4tuneError(
            f"make_pack: weight must be [n, k] with something in it, not {list(weight.shape)}"
        )
    if block_out_size is None:
        block_out_size = block_size
    if block_size < 1 or block_out_size < 1:
        raise W4tuneError(
            f"make_pack: block sizes must be positive, not {block_size} and {block_out_size}"
        )
    if not 0.0 <= smoothing <= 1.0:
        raise W4tuneError(f"make_pack: smoothing must lie in 0..1, not {smoothing}")
    w = weight.detach().float()
    if not bool(torch.isfinite(w).all()):
        raise W4tuneError("make_pack: weight has NaN or Inf")
    n, k = w.shape
    permutation = _zigzag(_smoothed_energy(w, smoothing)) if permute else None
    columns = w if permutation is None else w[:, torch.from_numpy(permutation).to(w.device)]
    meta = {
        "in_features": k,
        "out_features": n,
        "block_size": block_size,
        "block_out_size": block_out_size,
        "enable_permute": permute,
        "lambda_smooth": float(smoothing),
    }
    pack = Pack(
        weight_scale=np.ones(n, np.float32),
        permutation=permutation,
        input_blocks=dict(
            enumerate(_principal_axes(c.T) for c in columns.split(block_size, dim=1))
        ),
        output_blocks=dict(enumerate(_principal_axes(r) for r in w.split(block_out_size, dim=0))),
        in_features=k,
        out_features=n,
        block_size=block_size,
        block_out_size=block_out_size,
        meta=meta,
    )
    largest = (
        rotated_weight(w, pack, row_rotation="0").abs().amax(dim=1).clamp_min(_LEAST_MAGNITUDE)
    )
    pack = replace(pack, weight_scale=(largest / 7).cpu().numpy())
    if path is not None:
        save_pack(pack, path)
        pack = replace(pack, path=os.fspath(path))
    return pack


def rotated_weight(weight: Tensor, pack: Pack, row_rotation: str = "restore") -> Tensor:
    """W_t = R_out (W P) R_in of weight [n, k], as float32 [n, k] on the weight's device.

    Without R_out for row_rotation "0". Summed in float64, some rows at a time: TF32, where the
    program allows it for float32 products, would cost digits. Raises W4tuneError where pack and
    weight differ in size.
    """
    _check_row_rotation(row_rotation)
    if tuple(weight.shape) != (pack.out_features, pack.in_features):
        raise W4tuneError(
            f"DuQuant pack {pack.path or '(in memory)'} is for a weight "
            f"{[pack.out_features, pack.in_features]}, the layer's is {list(weight.shape)}. "
            "Take the pack of this layer."
        )
    n, k = weight.shape
    device = weight.device
    permutation = (
        None if pack.permutation is None else torch.from_numpy(pack.permutation).to(device)
    )
    r_in = pack.stacked_input_blocks()
    r_in = None if r_in is None else r_in.to(device, torch.float64)
    r_out = pack.stacked_output_blocks() if row_rotation == "restore" else None
    size = pack.block_out_size
    rotated = torch.empty(n, k, dtype=torch.float32, device=device)
    step = max(1, _CHUNK // k // size) * size  # whole blocks of rows
    for start in range(0, n, step):
        rows = weight[start : start + step].detach().to(torch.float64)
        if permutation is not None:
            rows = rows.index_select(1, permutation)
        if r_in is not None:
            rows = _times_blocks(rows, r_in)
        if r_out is not None:
            blocks = r_out[start // size : -(-(start + rows.shape[0]) // size)].to(
                device, torch.float64
            )
            rows = _times_blocks(rows.T, blocks.transpose(1, 2)).T  # (R w)^T = w^T R^T
        rotated[start : start + step] = rows
    return rotated


class DuQuantLinear(nn.Module):
    """y = restore(gemm(rotate(x))) + bias: an INT4 Linear over W_t and the pack's transforms.

    x [..., k] in the module's dtype (FP16 or BF16) to y [..., n]. Three launches: permutation and
    R_in, the product, R_out; one or two where the pack lacks a side. Rotations are FP16 whatever
    the dtype, sums FP32. A gate and an up projection with packs are two of these: no GeGLU fuses
    them.

    Buffers, none of floating type, so .to(dtype) of a model leaves them as they are:
      permutation         int32 [k]
      input_blocks_bits   int16 [ceil(k / B), B, B], FP16 bit patterns of R_in
      output_blocks_bits  int16 [ceil(n / B), B, B], of R_out
    each None where the pack has none; `linear` is the w4tune.Linear. Rounding the rotations to FP16
    changes y by some 3e-4 of its size, INT4 by some 1e-1.
    """

    permutation: Tensor | None
    input_blocks_bits: Tensor | None
    output_blocks_bits: Tensor | None

    def __init__(
        self,
        linear: Linear,
        *,
        permutation: Tensor | None = None,
        input_blocks: Tensor | None = None,
        output_blocks: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        """Puts the parts together; from_linear makes them.

        linear       over the rotated weight, without bias
        permutation  integers [k]
        blocks       [count, B, B] of any floating type, as Pack.stacked_*_blocks gives them
        bias         [n], in the original basis
        """
        super().__init__()
        self.linear = linear
        device = linear.weight.device
        if permutation is not None:
            permutation = permutation.to(device, torch.int32).contiguous()
        self.register_buffer("permutation", permutation)
        self.register_buffer("input_blocks_bits", _half_bits(input_blocks, device))
        self.register_buffer("output_blocks_bits", _half_bits(output_blocks, device))
        if bias is not None:
            copy = bias.detach().to(device, linear.dtype, copy=True)
            bias = nn.Parameter(copy, requires_grad=False)
        self.register_parameter("bias", bias)

    @classmethod
    @torch.no_grad()
    def from_linear(
        cls,
        linear: nn.Linear,
        pack: Pack | str | os.PathLike[str],
        group_size: int | str = DEFAULT_GROUP_SIZE,
        *,
        row_rotation: str = "restore",
        method: str = "mse",
        dtype: torch.dtype | None = None,
    ) -> DuQuantLinear:
        """Rotates linear.weight [n, k] and quantises it, where it is.

        pack          a Pack, or the file of one
        group_size    32, 64, 128, or k or "channel": one scale for each output, as the fork has it
        row_rotation  "restore": R_out on the weight, undone on the output; "0": R_out left out, a
                      launch less. The fork's "propagate" hands a rotated output on, which nothing
                      after it undoes: refused.
        method, dtype as in w4tune.Linear.from_linear
        """
        _check_row_rotation(row_rotation)
        require_supported(cls, linear.out_features, linear.in_features, group_size)
        dtype = activation_dtype(linear.weight, dtype)
        if not isinstance(pack, Pack):
            pack = load_pack(pack)
        weight = rotated_weight(linear.weight, pack, row_rotation)
        return cls(
            Linear.from_quantized(quantize(weight, group_size, method=method, scale_dtype=dtype)),
            permutation=None if pack.permutation is None else torch.from_numpy(pack.permutation),
            input_blocks=pack.stacked_input_blocks(),
            output_blocks=pack.stacked_output_blocks() if row_rotation == "restore" else None,
            bias=linear.bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        linear = self.linear
        if x.dtype != linear.dtype:
            raise dtype_error(self, x)
        buffers = self._buffers
        permutation = buffers["permutation"]
        bits = buffers["input_blocks_bits"]
        if bits is not None:
            x = _rotate(x, permutation, _half(bits))
        elif permutation is not None:
            x = x.index_select(-1, permutation)
        y = linear(x)
        bits = buffers["output_blocks_bits"]
        if bits is not None:
            y = _rotate(y, None, _half(bits))
        bias = self._parameters["bias"]
        return y if bias is None else y.add_(bias)

    def dequantize(self) -> Tensor:
        """The weight [n, k] of the whole forward, in the original basis and the layer's dtype.

        R_out^T Q(W_t) R_in^T P^T, with the rotations as rounded to FP16; a new tensor.
        """
        weight = self.linear.dequantize().to(torch.float64)
        if self.output_blocks_bits is not None:
            weight = _times_blocks(weight.T, _half(self.output_blocks_bits).double()).T
        if self.input_blocks_bits is not None:
            weight = _times_blocks(weight, _half(self.input_blocks_bits).double().transpose(1, 2))
        if self.permutation is not None:
            weight = torch.empty_like(weight).index_copy_(1, self.permutation.long(), weight)
        return weight.to(self.dtype)

    @property
    def weight(self) -> WeightView:
        """As in Linear; its dequantize() is this layer's, in the original basis."""
        return WeightView(self, slice(0, self.out_features))

    @property
    def weight_packed(self) -> Tensor:
        """The packed weight, in the rotated basis: linear.weight_packed."""
        return self.linear.weight_packed

    @property
    def in_features(self) -> int:
        return self.linear.in_features

    @property
    def out_features(self) -> int:
        return self.linear.out_features

    @property
    def group_size(self) -> int:
        return self.linear.group_size

    @property
    def dtype(self) -> torch.dtype:
        return self.linear.dtype

    def match(self, m: int) -> Selection:
        """What serves the product of `m` rows: see w4tune.Selection."""
        return self.linear.match(m)

    def extra_repr(self) -> str:
        def side(bits: Tensor | None) -> str:
            return "none" if bits is None else f"{bits.shape[0]} x {bits.shape[1]}"

        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"permutation={self.permutation is not None}, R_in={side(self.input_blocks_bits)}, "
            f"R_out={side(self.output_blocks_bits)}, bias={self.bias is not None}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DuQuantLinear:
        super()._apply(keeping_integers(fn), recurse)
        return self


class _Fault(Exception):
    """What is wrong within a pack."""


def _read(path: str) -> dict[str, np.ndarray]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise ValueError("it holds one bare array")
    with loaded:
        return {key: loaded[key] for key in loaded.files}


def _checked(arrays: Mapping[str, np.ndarray], path: str) -> Pack:
    meta = _meta(arrays)
    k = _size(meta, "in_features")
    n = _size(meta, "out_features")
    scale = _entry(arrays, "weight_scale")
    if scale.dtype.kind != "f" or scale.shape != (n,):
        raise _Fault(f"weight_scale must be float [{n}], it is {scale.dtype} {list(scale.shape)}")
    if not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise _Fault("weight_scale has NaN, Inf or negative values")
    block_size = _size(meta, "block_size")
    block_out_size = _size(meta, "block_out_size")
    return Pack(
        weight_scale=scale.astype(np.float32),
        permutation=_permutation(arrays["perm"], k) if "perm" in arrays else None,
        input_blocks=_blocks(arrays, "R_in_blocks", "Rin", k, block_size),
        output_blocks=_blocks(arrays, "R_out_blocks", "Rout", n, block_out_size),
        in_features=k,
        out_features=n,
        block_size=block_size,
        block_out_size=block_out_size,
        meta=meta,
        path=path,
    )


def _entry(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        raise _Fault(f"key '{key}' is missing")
    return arrays[key]


def _meta(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    entry = _entry(arrays, "meta")
    if entry.shape != () or entry.dtype.kind not in "US":
        raise _Fault(f"meta must be one string, it is {entry.dtype} {list(entry.shape)}")
    try:
        meta = json.loads(entry.item())
    except ValueError as error:
        raise _Fault(f"meta is no JSON ({error})") from None
    if not isinstance(meta, dict):
        raise _Fault("meta must be a JSON object")
    return meta


def _size(meta: Mapping[str, Any], key: str) -> int:
    if key not in meta:
        raise _Fault(f"meta lacks '{key}'")
    value = meta[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _Fault(f"meta '{key}' must be a positive integer, it is {value!r}")
    return value


def _permutation(perm: np.ndarray, k: int) -> np.ndarray:
    if perm.dtype.kind not in "iu" or perm.shape != (k,):
        raise _Fault(f"perm must be integers [{k}], it is {perm.dtype} {list(perm.shape)}")
    outside = perm[(perm < 0) | (perm >= k)]
    if outside.size:
        raise _Fault(f"perm has {outside[0]}, outside 0..{k - 1}")
    counts = np.bincount(perm.astype(np.int64), minlength=k)
    if (counts != 1).any():
        raise _Fault(f"perm is no permutation: {np.argmax(counts)} is in it {counts.max()} times")
    return perm.astype(np.int64)


def _blocks(
    arrays: Mapping[str, np.ndarray], list_key: str, prefix: str, features: int, size: int
) -> dict[int, np.ndarray] | None:
    if list_key not in arrays:
        return None
    ids = arrays[list_key]
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise _Fault(f"{list_key} must be a list of integers, it is {ids.dtype} {list(ids.shape)}")
    count = -(-features // size)
    blocks: dict[int, np.ndarray] = {}
    for b in ids.tolist():
        if not 0 <= b < count:
            raise _Fault(
                f"{list_key} has {b}, outside 0..{count - 1} "
                f"({features} features in blocks of {size})"
            )
        if b in blocks:
            raise _Fault(f"{list_key} has {b} twice")
        name = f"{prefix}_{b}"
        block = _entry(arrays, name)
        width = min(size, features - b * size)
        if block.dtype.kind != "f" or block.shape != (width, width):
            raise _Fault(
                f"{name} must be float [{width}, {width}], it is {block.dtype} {list(block.shape)}"
            )
        wide = block.astype(np.float64)
        off = float(np.abs(wide.T @ wide - np.eye(width)).max())
        if not off <= ORTHOGONALITY:  # NaN too
            raise _Fault(
                f"{name} is not orthogonal: |R^T R - I| reaches {off:.3g}, "
                f"more than {ORTHOGONALITY:g}"
            )
        blocks[b] = block.astype(np.float32)
    return blocks or None


def _check_row_rotation(row_rotation: str) -> None:
    if row_rotation not in ROW_ROTATIONS:
        raise W4tuneError(
            f"row_rotation is {row_rotation!r}. Use 'restore' or '0'; an output left rotated "
            "('propagate') is not supported."
        )


def _stacked(blocks: Mapping[int, np.ndarray] | None, features: int, size: int) -> Tensor | None:
    if not blocks:
        return None
    size = min(size, features)
    count = -(-features // size)
    stack = torch.zeros(count, size, size)
    for b in range(count):
        width = min(size, features - b * size)
        stack[b, :width, :width] = torch.from_numpy(blocks[b]) if b in blocks else torch.eye(width)
    return stack


def _times_blocks(x: Tensor, blocks: Tensor) -> Tensor:
    """x [m, features] times the block diagonal of blocks [count, B, B]; cut off at features."""
    m, features = x.shape
    count, size, _ = blocks.shape
    padded = nn.functional.pad(x, (0, count * size - features))
    product = torch.bmm(padded.reshape(m, count, size).transpose(0, 1), blocks)
    return product.transpose(0, 1).reshape(m, count * size)[:, :features]


def _half(bits: Tensor) -> Tensor:
    return bits.view(torch.float16)


def _half_bits(blocks: Tensor | None, device: torch.device) -> Tensor | None:
    if blocks is None:
        return None
    if blocks.shape[-1] > MAX_ROTATION_BLOCK:
        raise W4tuneError(
            f"rotation blocks of {blocks.shape[-1]} are more than the kernel takes. Use packs with "
            f"blocks up to {MAX_ROTATION_BLOCK}."
        )
    return blocks.to(device, torch.float16).contiguous().view(torch.int16)


def _smoothed_energy(w: Tensor, smoothing: float) -> np.ndarray:
    """Mean square of each column of float32 w, drawn towards their mean.

    In NumPy, as the fork does it: sums rounded otherwise could order columns otherwise.
    """
    energy = np.mean(w.cpu().numpy() ** 2, axis=0)
    return (
        (1.0 - smoothing) * energy + smoothing * float(energy.mean()) if smoothing > 0.0 else energy
    )


def _zigzag(energy: np.ndarray) -> np.ndarray:
    """Indices by falling energy, taken from both ends in turn."""
    order = np.argsort(-energy)
    zigzag = np.empty(order.size, dtype=np.int64)
    half = -(-order.size // 2)
    zigzag[0::2] = order[:half]
    zigzag[1::2] = order[half:][::-1]
    return zigzag


def _principal_axes(matrix: Tensor) -> np.ndarray:
    """U [B, B] of the SVD of matrix [B, many]."""
    wide = matrix.shape[1] >= matrix.shape[0]
    u, _, _ = torch.linalg.svd(matrix, full_matrices=not wide)
    return u.cpu().numpy()
