"""The conventions of int4 checkpoints: K inputs, N outputs, G groups along K, little-endian words.

gptq                qweight int32 [K/8, N]: nibble j of word r is the code of input 8r + j. scales
                    [G, N]. qzeros int32 [G, N/8], lowest nibble first, holding the zero - 1: 7
                    where symmetric. g_idx int32 [K], the group of each input; ascending here, or
                    refused.
gptq-v2             the same, but qzeros hold the zero itself, 8 where symmetric.
awq                 qweight int32 [K, N/8]: nibble i of word c is the code of output 8c + (0 2 4 6 1
                    3 5 7)[i]. scales [G, N], qzeros int32 [G, N/8] in that order. The "gemm"
                    version only.
compressed-tensors  weight_packed int32 [N, ceil(K/8)], lowest nibble first along K, holding q + 8
                    ("pack-quantized"). weight_scale [N, G] or [1], weight_shape, perhaps
                    weight_zero_point int32 [ceil(N/8), G] and weight_g_idx.
bitblas             qweight int8 [N, K/2], low nibble first along K. scales [N, G]; zeros none, or
                    [N, G] of 8 or of 8 * scale, or int8 [G, N/2] of nibbles. BitBLAS calls this
                    general_compress.
bitblas-lop3        the same, each 8 codes along K in the order 0 2 4 6 1 3 5 7 from the lowest
                    nibble on.
fork                qweight or _qweight_packed uint8 or int8 [N, K/2], low nibble first along K,
                    holding q + 8, or q in two's complement where zeros are 0. scales or _w_scales
                    [N] or [N, G]. OpenPI's DuQuant forks write it, always in the rotated basis of
                    the layer's pack.

Codes become uint8 [N, K/2], low nibble = even k, nibble = q + 8, as QuantizedWeight has them. A
zero other than the symmetric one is refused: the kernels have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from w4tune.errors import W4tuneError
from w4tune.formats.tensors import TensorFiles, TensorInfo

__all__ = [
    "FORMATS",
    "Declared",
    "Layer",
    "declared_in",
    "find_layer",
    "read_codes",
    "read_scales",
    "settle",
]

FORMATS = ("gptq", "gptq-v2", "awq", "compressed-tensors", "bitblas", "bitblas-lop3", "fork")

# Names that make a layer of the tensors under one module, and what may lie beside them.
_ANCHORS = ("weight_packed", "qweight", "_qweight_packed", "qweight_packed")
_SCALES = ("scales", "weight_scale", "_w_scales")
_ZEROS = ("qzeros", "zeros", "weight_zero_point")
_INDICES = ("g_idx", "weight_g_idx")
_ROLES = {
    **dict.fromkeys(_ANCHORS, "codes"),
    **dict.fromkeys(_SCALES, "scales"),
    **dict.fromkeys(_ZEROS, "zeros"),
    **dict.fromkeys(_INDICES, "g_idx"),
    "weight_shape": "shape",
    "bias": "bias",
}
_INTERLEAVED = (0, 2, 4, 6, 1, 3, 5, 7)  # what AWQ's and LOP3's nibbles hold, from the lowest on
_PLACE = [_INTERLEAVED.index(element) for element in range(8)]  # the nibble that holds an element
_CHUNK = 1 << 22  # nibbles that are taken apart at a time
_SYMMETRIC = 8


@dataclass(frozen=True)
class Declared:
    """What quantization_config says. None: nothing."""

    method: str | None = None
    layout: str | None = None  # GPTQ's checkpoint_format, AWQ's version, compressed-tensors' format
    bits: int | None = None
    group_sizes: frozenset[int] = frozenset()  # -1: one for each output
    symmetric: bool | None = None
    desc_act: bool = False


@dataclass(frozen=True)
class Layer:
    """A quantised layer of a checkpoint, found from headers alone.

    group_size is that of the file (k: one scale for each output). `tensors` names its tensors by
    role: codes and scales, perhaps zeros, g_idx, shape and bias; the bias is not quantised. notes
    say what was assumed.
    """

    name: str
    format: str
    n: int
    k: int
    group_size: int
    tensors: Mapping[str, str]
    scale_dtype: str = "F16"
    zero: int | None = None  # what the zeros have to hold, once settled
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> int:
        return self.k // self.group_size

    @property
    def bias(self) -> str | None:
        return self.tensors.get("bias")

    @property
    def rotated(self) -> bool:
        """The weight is in the basis of a DuQuant pack, and of no use without its transforms."""
        return self.format == "fork"


def declared_in(config: Mapping[str, Any]) -> Declared:
    """Reads a quantization_config, GPTQ's quantize_config.json or AWQ's quant_config.json."""
    method = _lower(config.get("quant_method"))
    sizes: set[int] = set()
    bits = config.get("bits", config.get("w_bit"))
    symmetric = config.get("sym")
    layout = _lower(
        config.get("checkpoint_format") or config.get("version") or config.get("format")
    )
    size = config.get("group_size", config.get("q_group_size"))
    if isinstance(size, int):
        sizes.add(size)
    if "zero_point" in config and symmetric is None:
        symmetric = not config["zero_point"]
        method = method or "awq"
    if isinstance(groups := config.get("config_groups"), Mapping):
        method = method or "compressed-tensors"
        layout = _lower(config.get("format"))
        for scheme in groups.values():
            weights = scheme.get("weights") if isinstance(scheme, Mapping) else None
            if isinstance(weights, Mapping):
                size = weights.get("group_size")
                sizes.add(size if isinstance(size, int) else -1)
    return Declared(
        method=method,
        layout=layout,
        bits=bits if isinstance(bits, int) else None,
        group_sizes=frozenset(sizes),
        symmetric=symmetric if isinstance(symmetric, bool) else None,
        desc_act=config.get("desc_act") is True,
    )


def _lower(value: object) -> str | None:
    return value.lower() if isinstance(value, str) else None


# ---- Finding layers: headers only ----


def role_of(tensor: str) -> tuple[str, str] | None:
    """(module, role) of a tensor's name, where it may belong to a quantised layer."""
    module, _, last = tensor.rpartition(".")
    role = _ROLES.get(last)
    return None if role is None else (module, role)


def find_layer(
    name: str, parts: Mapping[str, TensorInfo], declared: Declared, wanted: str, files: TensorFiles
) -> Layer | None:
    """The layer that the tensors of one module make, by role; None where they make none.

    wanted is a format or "auto". W4tuneError where they are a layer that cannot be read.
    """
    codes = parts.get("codes")
    if codes is None:
        return None
    where = name or codes.name
    scales = parts.get("scales")
    if _last(codes) == "weight_packed" and codes.dtype == "U8":
        raise W4tuneError(
            f"{codes}: a state dict of w4tune's own modules: load it with load_state_dict"
        )
    if scales is None:
        raise W4tuneError(f"{where}: {codes} has no scales beside it: the checkpoint is incomplete")
    if not scales.is_float:
        raise W4tuneError(f"{scales}: scales are FP16, BF16 or FP32")
    if len(codes.shape) != 2:
        raise W4tuneError(f"{codes}: int4 weights have two dimensions here{_ladder(codes)}")
    if 0 in codes.shape:
        raise W4tuneError(f"{codes}: an empty weight")
    kind = _identify(codes, scales, declared) if wanted == "auto" else wanted
    words = "I32" if kind in _WORDS else None
    if (codes.dtype != words) if words else codes.dtype not in ("I8", "U8"):
        raise W4tuneError(f"{codes}: {kind} has its codes in {'int32' if words else 'bytes'}")
    return _FINDERS[kind](name, kind, parts, declared, files)


def _last(info: TensorInfo) -> str:
    return info.name.rpartition(".")[2]


def _ladder(codes: TensorInfo) -> str:
    return (
        "; BitBLAS's ladder layout (propagate_b) is not read" if codes.dtype in ("I8", "U8") else ""
    )


_WORDS = ("gptq", "gptq-v2", "awq", "compressed-tensors")


def _identify(codes: TensorInfo, scales: TensorInfo, declared: Declared) -> str:
    if _last(codes) == "weight_packed":
        return "compressed-tensors"
    if codes.dtype == "U8" or codes.name.endswith("qweight_packed"):
        return "fork"
    if codes.dtype == "I8":
        if declared.layout == "bitblas":  # fast decoding is BitBLAS's rule for all but BF16
            return "bitblas" if scales.dtype == "BF16" else "bitblas-lop3"
        raise W4tuneError(
            f"{codes}: bytes of BitBLAS do not tell their order: give bitblas-lop3 (fast "
            "decoding, BitBLAS's choice for "
            "FP16) or bitblas (general_compress) as the format"
        )
    if codes.dtype != "I32":
        raise W4tuneError(f"{codes}: codes of int4 formats are in int32, int8 or uint8")
    if len(scales.shape) == 2 and codes.shape[1] * 8 == scales.shape[1]:
        return "awq"
    if len(scales.shape) == 2 and codes.shape[1] == scales.shape[1]:
        v2 = declared.layout == "gptq_v2"
        return "gptq-v2" if v2 else "gptq"
    if codes.shape[0] == scales.shape[0]:
        raise W4tuneError(
            f"{codes}: looks like AWQ's gemv version, which is not read: convert it to gemm"
        )
    raise W4tuneError(
        f"{codes} and {scales} fit neither GPTQ ([K/8, N] and [G, N]) nor AWQ ([K, N/8] and [G, N])"
    )


def _group_size(
    where: str, kind: str, k: int, groups: int, declared: Declared, by_index: bool
) -> int:
    if groups < 1 or k % groups:
        raise W4tuneError(
            f"{where}: {groups} groups do not divide {k} inputs ({kind}); a last, smaller "
            "group is not read"
        )
    size = k // groups
    sizes = {
        k if declared_size in (-1, 0) else declared_size for declared_size in declared.group_sizes
    }
    if (
        sizes
        and size not in sizes
        and not by_index
        and not (groups == 1 and any(s >= k for s in sizes))
    ):
        text = ", ".join(map(str, sorted(sizes)))
        raise W4tuneError(
            f"{where}: {groups} groups over {k} inputs, but the configuration says groups of "
            f"{text} ({kind})"
        )
    return size


def _expect(info: TensorInfo, shape: tuple[int, ...], dtypes: tuple[str, ...], kind: str) -> None:
    if info.shape != shape or info.dtype not in dtypes:
        raise W4tuneError(f"{info}: {kind} has {' or '.join(dtypes)} {list(shape)} here")


def _names(parts: Mapping[str, TensorInfo]) -> dict[str, str]:
    return {role: info.name for role, info in parts.items()}


def _find_gptq(
    name: str, kind: str, parts: Mapping[str, TensorInfo], declared: Declared, _: TensorFiles
) -> Layer:
    codes, scales = parts["codes"], parts["scales"]
    where = name or codes.name
    k, n = codes.shape[0] * 8, codes.shape[1]
    if len(scales.shape) != 2 or scales.shape[1] != n:
        raise W4tuneError(f"{scales}: {kind} has [groups, {n}] here")
    groups = scales.shape[0]
    if "zeros" not in parts:
        raise W4tuneError(
            f"{where}: no qzeros beside {codes} ({kind}): the checkpoint is incomplete"
        )
    if n % 8:
        raise W4tuneError(f"{codes}: {n} outputs are no multiple of 8, which {kind} packs zeros by")
    _expect(parts["zeros"], (groups, n // 8), ("I32",), kind)
    parts = dict(parts)
    index = parts.get("g_idx")
    if index is not None and index.shape == (0,):
        del parts["g_idx"]
        index = None
    if index is not None:
        _expect(index, (k,), ("I32", "I64"), kind)
    elif declared.desc_act:
        raise W4tuneError(
            f"{where}: desc_act without a g_idx ({kind}): the order of the inputs is unknown"
        )
    size = _group_size(where, kind, k, groups, declared, index is not None)
    return Layer(name, kind, n, k, size, _names(parts), scales.dtype)


def _find_awq(
    name: str, kind: str, parts: Mapping[str, TensorInfo], declared: Declared, _: TensorFiles
) -> Layer:
    codes, scales = parts["codes"], parts["scales"]
    where = name or codes.name
    k, n = codes.shape[0], codes.shape[1] * 8
    if len(scales.shape) != 2 or scales.shape[1] != n:
        raise W4tuneError(f"{scales}: {kind} has [groups, {n}] here")
    groups = scales.shape[0]
    if "zeros" not in parts:
        raise W4tuneError(
            f"{where}: no qzeros beside {codes} ({kind}): the checkpoint is incomplete"
        )
    _expect(parts["zeros"], (groups, n // 8), ("I32",), kind)
    if k % 2:
        raise W4tuneError(f"{codes}: an odd number of inputs, {k}")
    size = _group_size(where, kind, k, groups, declared, False)
    return Layer(name, kind, n, k, size, _names(parts), scales.dtype)


def _find_compressed(
    name: str, kind: str, parts: Mapping[str, TensorInfo], declared: Declared, files: TensorFiles
) -> Layer:
    codes, scales = parts["codes"], parts["scales"]
    where = name or codes.name
    n, words = codes.shape
    k = words * 8
    notes: tuple[str, ...] = ()
    if (shape := parts.get("shape")) is not None:
        if shape.dtype not in ("I64", "I32") or shape.shape != (2,):
            raise W4tuneError(f"{shape}: weight_shape is two integers")
        rows, k = (int(value) for value in files.tensor(shape.name))
        if rows != n or k < 1 or (k + 7) // 8 != words:
            raise W4tuneError(
                f"{codes}: not {rows} x {k} codes of 4 bits, as {shape.name} would have it "
                "(other bits are not read)"
            )
    else:
        notes = (f"no weight_shape: {k} inputs taken from weight_packed",)
    if k % 2:
        raise W4tuneError(f"{codes}: an odd number of inputs, {k}")
    if scales.shape in ((), (1,), (1, 1)):
        groups = 1  # one scale for all
    elif len(scales.shape) == 2 and scales.shape[0] == n:
        groups = scales.shape[1]
    else:
        raise W4tuneError(f"{scales}: {kind} has [{n}, groups] here, or one scale for all")
    parts = dict(parts)
    if (zeros := parts.get("zeros")) is not None:
        packed, plain = ((n + 7) // 8, groups), (n, groups)
        if not (zeros.dtype == "I32" and zeros.shape == packed) and not (
            zeros.dtype == "I8" and zeros.shape == plain
        ):
            raise W4tuneError(f"{zeros}: {kind} has I32 {list(packed)} here")
    if (index := parts.get("g_idx")) is not None:
        if index.shape == (0,):
            del parts["g_idx"]
        else:
            _expect(index, (k,), ("I32", "I64"), kind)
    size = _group_size(where, kind, k, groups, declared, "g_idx" in parts)
    return Layer(name, kind, n, k, size, _names(parts), scales.dtype, notes=notes)


def _find_bytes(
    name: str, kind: str, parts: Mapping[str, TensorInfo], declared: Declared, _: TensorFiles
) -> Layer:
    codes, scales = parts["codes"], parts["scales"]
    where = name or codes.name
    n, k = codes.shape[0], codes.shape[1] * 2
    if not scales.shape or scales.shape[0] != n or len(scales.shape) > 2:
        raise W4tuneError(f"{scales}: {kind} has [{n}] or [{n}, groups] here")
    groups = scales.shape[1] if len(scales.shape) == 2 else 1
    if kind == "bitblas-lop3" and k % 8:
        raise W4tuneError(f"{codes}: {k} inputs are no multiple of the 8 that {kind} interleaves")
    parts = dict(parts)
    if (zeros := parts.get("zeros")) is not None:
        if 0 in zeros.shape:
            del parts["zeros"]
        elif zeros.is_float:
            if zeros.shape not in ((n, groups), (n,)[: 1 if groups == 1 else 0]):
                raise W4tuneError(f"{zeros}: {kind} has [{n}, {groups}] here")
        else:
            _expect(zeros, (groups, n // 2), ("I8", "U8"), kind)
    size = _group_size(where, kind, k, groups, declared, False)
    return Layer(name, kind, n, k, size, _names(parts), scales.dtype)


_FINDERS: dict[str, Callable[..., Layer]] = {
    "gptq": _find_gptq,
    "gptq-v2": _find_gptq,
    "awq": _find_awq,
    "compressed-tensors": _find_compressed,
    "bitblas": _find_bytes,
    "bitblas-lop3": _find_bytes,
    "fork": _find_bytes,
}


# ---- Zeros and order: small tensors ----


def settle(layer: Layer, declared: Declared, files: TensorFiles) -> Layer:
    """Reads the layer's zeros and group indices, and refuses what the kernels cannot express."""
    if "g_idx" in layer.tensors:
        _check_index(layer, files)
    if "zeros" not in layer.tensors:
        return replace(layer, zero=_SYMMETRIC)
    zeros = files.tensor(layer.tensors["zeros"])
    if layer.format in ("gptq", "gptq-v2"):
        return _settle_gptq(layer, declared, _nibbles(zeros))
    if layer.format == "awq":
        return _refuse_unless(layer, _in_order(_nibbles(zeros)), _SYMMETRIC)
    if layer.format == "compressed-tensors":
        if zeros.dtype == torch.int8:
            return _refuse_unless(layer, zeros.t() + _SYMMETRIC, _SYMMETRIC)
        nibbles = _nibbles(zeros.t().contiguous())[:, : layer.n]
        return _refuse_unless(layer, nibbles, _SYMMETRIC)
    if not zeros.is_floating_point():
        return _refuse_unless(layer, _nibbles(zeros), _SYMMETRIC)
    zeros = zeros.reshape(layer.n, layer.groups).t().float()
    scaled = read_scales(layer, files).t().float() * _SYMMETRIC
    if layer.format != "fork" and bool((zeros == scaled).all()):  # zeros_mode "rescale"
        return replace(layer, zero=_SYMMETRIC)
    if layer.format == "fork" and bool((zeros == 0).all()):
        return replace(layer, zero=0, notes=(*layer.notes, "zeros of 0: codes in two's complement"))
    return _refuse_unless(layer, zeros, _SYMMETRIC)


def _settle_gptq(layer: Layer, declared: Declared, stored: Tensor) -> Layer:
    """GPTQ's versions differ by 1 in what they store, and files say the one and hold the other."""
    low, high = int(stored.min()), int(stored.max())
    says = 8 if layer.format == "gptq-v2" else 7
    if low == high == says:
        return replace(layer, zero=says)
    certain = declared.layout in ("gptq", "gptq_v2") and declared.symmetric is False
    if low == high and low in (7, 8) and not certain:
        kind = "gptq-v2" if low == 8 else "gptq"
        note = f"qzeros of {low}, {kind}'s zero, though the configuration says {layer.format}"
        notes = (*layer.notes, note) if declared.layout in ("gptq", "gptq_v2") else layer.notes
        return replace(layer, format=kind, zero=low, notes=notes)
    return _refuse_unless(layer, stored, says)


def _refuse_unless(layer: Layer, zeros: Tensor, symmetric: int) -> Layer:
    """zeros [groups, n]."""
    wrong = (zeros != symmetric).nonzero()
    if len(wrong):
        group, output = (int(value) for value in wrong[0])
        value = float(zeros[group, output])
        raise W4tuneError(
            f"{layer.tensors['zeros']}: asymmetric zero points ({layer.format}; {value:g} in "
            f"group {group} of output "
            f"{output}, symmetric is {symmetric}), which the kernels do not have: quantise the "
            "model symmetrically"
        )
    return replace(layer, zero=symmetric)


def _check_index(layer: Layer, files: TensorFiles) -> None:
    index = files.tensor(layer.tensors["g_idx"]).to(torch.int64)
    if bool((index == -1).all()):
        return  # compressed-tensors' word for "not set"
    expected = torch.arange(layer.k, dtype=torch.int64) // layer.group_size
    if bool((index == expected).all()):
        return
    name = layer.tensors["g_idx"]
    if bool((index.diff() >= 0).all()):
        raise W4tuneError(
            f"{name}: groups of unequal size ({layer.format}), which the kernels do not have"
        )
    raise W4tuneError(
        f"{name}: the inputs are reordered (desc_act, {layer.format}), which the kernels do "
        "not follow: "
        "quantise the model with desc_act=False"
    )


# ---- Reading ----


def read_codes(layer: Layer, files: TensorFiles) -> Tensor:
    """uint8 [n, k / 2], low nibble = even k, nibble = q + 8, contiguous."""
    packed = files.tensor(layer.tensors["codes"]).contiguous()
    if layer.format in ("gptq", "gptq-v2"):
        # Byte b of word (r, output) holds inputs 8r + 2b and 8r + 2b + 1.
        words = packed.view(torch.uint8).reshape(layer.k // 8, layer.n, 4)
        return words.permute(1, 0, 2).reshape(layer.n, layer.k // 2).contiguous()
    if layer.format == "compressed-tensors":
        return packed.view(torch.uint8)[:, : layer.k // 2].contiguous().clone()
    if layer.format == "awq":
        codes = torch.empty(layer.n, layer.k // 2, dtype=torch.uint8)
        step = max(2, _CHUNK // layer.n // 2 * 2)
        for first in range(0, layer.k, step):
            rows = _in_order(_nibbles(packed[first : first + step]))  # [inputs, n]
            codes[:, first // 2 : (first + rows.shape[0]) // 2] = (rows[0::2] | rows[1::2] << 4).t()
        return codes
    packed = packed.view(torch.uint8)
    if layer.format == "bitblas-lop3":
        codes = torch.empty_like(packed)
        step = max(1, _CHUNK // layer.k)
        for first in range(0, layer.n, step):
            rows = _in_order(_nibbles(packed[first : first + step]))
            codes[first : first + step] = rows[:, 0::2] | rows[:, 1::2] << 4
        return codes
    return packed ^ 0x88 if layer.zero == 0 else packed.clone()


def read_scales(layer: Layer, files: TensorFiles) -> Tensor:
    """[n, groups] in the file's dtype, contiguous and finite."""
    name = layer.tensors["scales"]
    scales = files.tensor(name)
    if not bool(torch.isfinite(scales).all()):
        raise W4tuneError(f"{name}: scales that are NaN or infinite ({layer.format})")
    if layer.format in ("gptq", "gptq-v2", "awq"):
        return scales.t().contiguous()
    if scales.numel() == 1 and layer.n * layer.groups > 1:
        return scales.reshape(1, 1).repeat(layer.n, 1)
    return scales.reshape(layer.n, layer.groups).clone()


def _nibbles(packed: Tensor) -> Tensor:
    """uint8 [rows, 2 * bytes of a row]: every nibble, the lowest of each byte or word first."""
    packed = packed.contiguous().view(torch.uint8)
    return torch.stack((packed & 15, packed >> 4), dim=-1).reshape(packed.shape[0], -1)


def _in_order(nibbles: Tensor) -> Tensor:
    """Takes the interleaving 0 2 4 6 1 3 5 7 out of each 8 columns."""
    rows = nibbles.reshape(nibbles.shape[0], -1, 8)
    return rows[:, :, _PLACE].reshape(nibbles.shape[0], -1)
