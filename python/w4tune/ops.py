"""The operators: `torch.ops.w4tune.gemm`, `geglu` and `rotate`, and what prepares their weights.

Each has a CUDA, a CPU and a fake implementation, allocates through PyTorch, runs on the current
stream, never synchronises, and so works in CUDA graphs and under torch.compile. Inference only:
they have no gradient. On the CPU they dequantise and multiply in FP32: right, and slow.

A packed weight is two tensors: weight, uint8 [rows, k / 2] in layout L0 (core/weight_layout.h; the
shape is nominal, a row of it is no row of the weight), and scales, FP16 or BF16 [rows, k / group],
in the dtype of the activations. rows is n, or 2n for geglu.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as functional
from torch import Tensor

from w4tune import _native, runtime
from w4tune.errors import W4tuneError
from w4tune.runtime import DEFAULT, DTYPES, OPS, problem_of

GEMM, GEGLU = 0, 1
MAX_ROTATION_BLOCK = 256

_library = torch.library.Library("w4tune", "DEF")
_library.define("gemm(Tensor x, Tensor weight, Tensor scales) -> Tensor")
_library.define("geglu(Tensor x, Tensor weight, Tensor scales) -> Tensor")
_library.define("rotate(Tensor x, Tensor? permutation, Tensor blocks) -> Tensor")

_current_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)
_devices = runtime._devices
_dispatch_modes = torch._C._len_torch_dispatch_stack


class _Layer:
    """The constants of one kind of layer: what a launch needs beside its tensors."""

    __slots__ = ("dtype", "group_size", "k", "n", "op", "plans", "problem", "rows")

    def __init__(self, op: int, rows: int, half: int, groups: int, dtype: torch.dtype) -> None:
        self.op = op
        self.rows = rows
        self.n = rows if op == GEMM else rows // 2
        self.k = 2 * half
        self.dtype = dtype
        if groups < 1 or self.k % groups != 0:
            raise W4tuneError(
                f"{OPS[op]}: scales [{rows}, {groups}] do not divide a depth of {self.k}. Pass "
                "scales of shape [rows, k / group]."
            )
        self.group_size = self.k // groups
        self.problem = problem_of(op, self.n, self.k, self.group_size, dtype)
        self.plans: dict[torch.Size, tuple[int, tuple[int, ...]]] = {}

    def plan(self, shape: torch.Size) -> tuple[int, tuple[int, ...]]:
        """The number of tokens of an x of this shape, and the shape of its y; remembered."""
        if len(shape) < 1 or shape[-1] != self.k:
            raise W4tuneError(
                f"{OPS[self.op]}: x {list(shape)} does not end in {self.k}, the depth of the layer. "
                "Pass [..., k]."
            )
        if len(self.plans) >= 4096:  # who has so many shapes does not miss the first ones
            self.plans.clear()
        found = self.plans[shape] = (math.prod(shape[:-1]), (*shape[:-1], self.n))
        return found


_layers: dict[tuple, _Layer] = {}


def _layer_of(op: int, x: Tensor, weight: Tensor, scales: Tensor) -> _Layer:
    """Checks what does not change from call to call only when it is seen first."""
    key = (op, weight.shape, scales.shape, scales.dtype, x.dtype, weight.dtype, x.shape[-1])
    found = _layers.get(key)
    if found is None:
        found = _layers[key] = _checked_layer(op, x, weight, scales)
    return found


def _checked_layer(op: int, x: Tensor, weight: Tensor, scales: Tensor) -> _Layer:
    name = OPS[op]
    if weight.dtype != torch.uint8 or weight.dim() != 2:
        raise W4tuneError(
            f"{name}: weight is {weight.dtype} {list(weight.shape)}. Pass what w4tune.ops.pack "
            "made: uint8 [rows, k / 2]."
        )
    if scales.dim() != 2 or scales.shape[0] != weight.shape[0]:
        raise W4tuneError(
            f"{name}: scales {list(scales.shape)} do not fit a weight of {weight.shape[0]} rows. "
            "Pass what w4tune.ops.pack made: [rows, k / group]."
        )
    if x.dtype != scales.dtype:
        raise W4tuneError(
            f"{name}: x is {x.dtype} and the scales are {scales.dtype}. Convert one of them."
        )
    layer = _Layer(op, weight.shape[0], weight.shape[1], scales.shape[1], scales.dtype)
    layer.plan(x.shape)
    return layer


def layer_of(op: int, weight: Tensor, scales: Tensor) -> _Layer:
    """What `launch` wants for a weight; W4tuneError for one that no kernel serves."""
    return _checked_layer(op, scales.new_empty((0, 2 * weight.shape[-1])), weight, scales)


def _dense(x: Tensor, k: int) -> tuple[Tensor, int]:
    """x that is not contiguous or not aligned as rows that the kernels read, and the distance between
    them (0: k); copies if it must.

    The kernels want 16-byte aligned rows of adjacent elements.
    """
    if x.dim() == 2 and x.stride(1) == 1 and x.data_ptr() % 16 == 0:
        stride = x.stride(0)
        if stride % 8 == 0 and stride >= k:
            return x, stride
    return x.clone(memory_format=torch.contiguous_format), 0


def launch(layer: _Layer, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """The product of a CUDA tensor x [..., k] whose dtype and width are the layer's."""
    index = x.get_device()
    if weight.get_device() != index:
        raise W4tuneError(
            f"{OPS[layer.op]}: x is on {x.device} and the layer on {weight.device}. Move one of them."
        )
    device = _devices.get(index)
    if device is None:
        device = runtime.device(index)
    plan = layer.plans.get(x.shape)
    if plan is None:
        plan = layer.plan(x.shape)
    m, shape = plan
    y = x.new_empty(shape)
    if m == 0:
        return y
    pointer = x.data_ptr()
    ldx = 0
    if pointer % 16 != 0 or not x.is_contiguous():
        x, ldx = _dense(x, layer.k)
        pointer = x.data_ptr()
    match = _native.launch(
        device.dispatcher,
        layer.problem,
        pointer,
        weight.data_ptr(),
        scales.data_ptr(),
        y.data_ptr(),
        m,
        ldx,
        device.dependent,
        _current_stream(index),
    )
    if match == DEFAULT:
        device.report_default(layer.op, layer.n, layer.k, layer.group_size, layer.dtype)
    return y


def _on_cuda(op: int, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    if scales.device != weight.device:
        raise W4tuneError(
            f"{OPS[op]}: the weight is on {weight.device} and its scales on {scales.device}. Move "
            "one of them."
        )
    return launch(_layer_of(op, x, weight, scales), x, weight, scales)


def _on_cpu(op: int, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    layer = _layer_of(op, x, weight, scales)
    w = dequantize(OPS[op], weight, scales).float()
    h = functional.linear(x.float(), w)
    if op == GEGLU:
        gate, up = h[..., : layer.n], h[..., layer.n :]
        h = functional.gelu(gate, approximate="tanh") * up
    return h.to(x.dtype)


for _op in (GEMM, GEGLU):
    _library.impl(OPS[_op], functools.partial(_on_cuda, _op), "CUDA")
    _library.impl(OPS[_op], functools.partial(_on_cpu, _op), "CPU")


@torch.library.register_fake("w4tune::gemm", lib=_library)
def _(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@torch.library.register_fake("w4tune::geglu", lib=_library)
def _(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0] // 2))


def _refuse_gradient(ctx: object, gradient: Tensor) -> tuple[None, None, None]:
    raise W4tuneError(
        "a w4tune layer has no gradient: it is for inference. Run the model under torch.no_grad() or "
        "torch.inference_mode(), or train the model it was made from."
    )


# ---- DuQuant's rotation of activations ----------------------------------------------------------


def _check_rotation(x: Tensor, permutation: Tensor | None, blocks: Tensor) -> int:
    """The size of a block."""
    width = x.shape[-1]
    size = blocks.shape[-1]
    if (
        blocks.dtype != torch.float16
        or blocks.dim() != 3
        or blocks.shape[1] != size
        or blocks.shape[0] != -(-width // max(size, 1))
        or not 1 <= size <= MAX_ROTATION_BLOCK
    ):
        raise W4tuneError(
            f"rotate: blocks {blocks.dtype} {list(blocks.shape)} do not fit x {list(x.shape)}. Pass "
            f"FP16 [ceil(width / B), B, B] with B up to {MAX_ROTATION_BLOCK}."
        )
    if permutation is not None and (
        permutation.dtype != torch.int32 or permutation.shape != (width,)
    ):
        raise W4tuneError(
            f"rotate: permutation {permutation.dtype} {list(permutation.shape)} does not fit x "
            f"{list(x.shape)}. Pass int32 [{width}]."
        )
    if x.dtype not in DTYPES:
        raise W4tuneError(f"rotate: x is {x.dtype}. Use torch.float16 or torch.bfloat16.")
    return size


def _rotate_cuda(x: Tensor, permutation: Tensor | None, blocks: Tensor) -> Tensor:
    size = _check_rotation(x, permutation, blocks)
    width = x.shape[-1]
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    if y.numel() == 0:
        return y
    index = x.get_device()
    device = runtime.device(index)
    ldx = 0
    if not x.is_contiguous():
        if x.dim() == 2 and x.stride(1) == 1 and x.stride(0) >= width:
            ldx = x.stride(0)
        else:
            x = x.contiguous()
    _native.rotate(
        device.dispatcher,
        DTYPES.index(x.dtype),
        x.data_ptr(),
        0 if permutation is None else permutation.data_ptr(),
        blocks.contiguous().data_ptr(),
        y.data_ptr(),
        y.numel() // width,
        width,
        size,
        ldx,
        _current_stream(index),
    )
    return y


def _rotate_cpu(x: Tensor, permutation: Tensor | None, blocks: Tensor) -> Tensor:
    size = _check_rotation(x, permutation, blocks)
    width = x.shape[-1]
    rows = x.float() if permutation is None else x.float()[..., permutation.long()]
    padded = functional.pad(rows, (0, blocks.shape[0] * size - width))
    parts = padded.reshape(*x.shape[:-1], blocks.shape[0], size)
    turned = torch.einsum("...bi,bij->...bj", parts, blocks.float())
    return turned.flatten(-2)[..., :width].to(x.dtype).contiguous()


_library.impl("rotate", _rotate_cuda, "CUDA")
_library.impl("rotate", _rotate_cpu, "CPU")


@torch.library.register_fake("w4tune::rotate", lib=_library)
def _(x: Tensor, permutation: Tensor | None, blocks: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


for _name in (*OPS, "rotate"):
    torch.library.register_autograd(f"w4tune::{_name}", _refuse_gradient, lib=_library)


# ---- weights --------------------------------------------------------------------------------------


def _dispatcher_of(tensor: Tensor) -> tuple[object | None, int]:
    """The dispatcher and stream that work on a tensor, (None, 0) on the CPU."""
    if tensor.device.type == "cpu":
        return None, 0
    if tensor.device.type != "cuda":
        raise W4tuneError(f"a tensor is on {tensor.device}. Use cpu or cuda.")
    index = tensor.get_device()
    return runtime.device(index).dispatcher, _current_stream(index)


def pack(op: str, codes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Packs a weight into layout L0, on the device it is on.

    codes: uint8 [rows, k / 2], the low nibble is the even k, a nibble is q + 8.
    scales: FP16 or BF16 [rows, k / group].
    For op "geglu" rows are 2n: gate, then up. Returns weight and scales of the same shapes.
    """
    kind = OPS.index(op)
    layer = layer_of(kind, codes, scales)
    codes, scales = codes.contiguous(), scales.contiguous()
    if codes.device != scales.device:
        raise W4tuneError(
            f"pack: codes are on {codes.device} and scales on {scales.device}. Move one of them."
        )
    weight = torch.empty_like(codes)
    packed_scales = torch.empty_like(scales)
    dispatcher, stream = _dispatcher_of(codes)
    _native.pack(
        dispatcher,
        layer.problem,
        codes.data_ptr(),
        scales.data_ptr(),
        weight.data_ptr(),
        packed_scales.data_ptr(),
        stream,
    )
    return weight, packed_scales


def dequantize(op: str, weight: Tensor, scales: Tensor) -> Tensor:
    """The weight back from its packed form: [rows, k] in scales' dtype, geglu's gate before up.

    Each element is q * scale, rounded once.
    """
    kind = OPS.index(op)
    layer = layer_of(kind, weight, scales)
    weight, scales = weight.contiguous(), scales.contiguous()
    w = torch.empty((layer.rows, layer.k), dtype=scales.dtype, device=weight.device)
    dispatcher, stream = _dispatcher_of(weight)
    _native.dequantize(
        dispatcher, layer.problem, weight.data_ptr(), scales.data_ptr(), w.data_ptr(), stream
    )
    return w


# ---- the eager way --------------------------------------------------------------------------------


def is_plain(x: Tensor) -> bool:
    """Whether a call may go straight to the kernel: a plain CUDA tensor that nothing watches.

    Tracing, dispatch modes, subclasses and gradients take the registered operator.
    """
    return type(x) is Tensor and x.is_cuda and not x.requires_grad and _dispatch_modes() == 0
