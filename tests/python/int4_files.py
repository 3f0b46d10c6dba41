"""Int4 checkpoints written from the conventions, for tests: loops over nibbles, nothing of w4tune.

Every writer takes a Reference, the weight as plain numbers, and returns {name: tensor} of one
layer.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import random
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Reference:
    """q[output][input] in -8..7 and scales [outputs, groups]; w = q * scale."""

    q: list[list[int]]
    scales: Tensor

    @property
    def n(self) -> int:
        return len(self.q)

    @property
    def k(self) -> int:
        return len(self.q[0])

    @property
    def groups(self) -> int:
        return self.scales.shape[1]

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [n, k]; products are exact in float32."""
        group = self.k // self.groups
        scales = self.scales.float().tolist()
        rows = [
            [q * scales[row][column // group] for column, q in enumerate(values)]
            for row, values in enumerate(self.q)
        ]
        return torch.tensor(rows, dtype=torch.float32).to(dtype)


def reference(
    n: int = 32,
    k: int = 256,
    group: int = 128,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
) -> Reference:
    """Random codes, -8 and 7 among them, and random scales."""
    draw = random.Random(f"{n} {k} {group} {seed}")
    q = [[draw.randrange(-8, 8) for _ in range(k)] for _ in range(n)]
    scales = [[draw.uniform(1e-3, 2e-2) for _ in range(k // group)] for _ in range(n)]
    return Reference(q, torch.tensor(scales).to(dtype))


def words(rows: list[list[int]]) -> Tensor:
    """int32 tensor of unsigned 32-bit numbers."""
    signed = [[value - (1 << 32) if value >> 31 else value for value in row] for row in rows]
    return torch.tensor(signed, dtype=torch.int32)


def packed_zeros(groups: int, n: int, zero: int) -> Tensor:
    """int32 [groups, n / 8] with the same nibble everywhere, so in any order."""
    return words([[sum(zero << 4 * i for i in range(8))] * (n // 8) for _ in range(groups)])


def gptq(
    layer: Reference, name: str, *, stored_zero: int = 7, g_idx: bool = True
) -> dict[str, Tensor]:
    qweight = [
        [
            sum((layer.q[column][8 * row + j] + 8) << 4 * j for j in range(8))
            for column in range(layer.n)
        ]
        for row in range(layer.k // 8)
    ]
    tensors = {
        f"{name}.qweight": words(qweight),
        f"{name}.qzeros": packed_zeros(layer.groups, layer.n, stored_zero),
        f"{name}.scales": layer.scales.t().contiguous(),
    }
    if g_idx:
        group = layer.k // layer.groups
        index = [column // group for column in range(layer.k)]
        tensors[f"{name}.g_idx"] = torch.tensor(index, dtype=torch.int32)
    return tensors


def awq(layer: Reference, name: str, *, zero: int = 8) -> dict[str, Tensor]:
    qweight = [
        [
            sum((layer.q[8 * word + AWQ_ORDER[i]][row] + 8) << 4 * i for i in range(8))
            for word in range(layer.n // 8)
        ]
        for row in range(layer.k)
    ]
    return {
        f"{name}.qweight": words(qweight),
        f"{name}.qzeros": packed_zeros(layer.groups, layer.n, zero),
        f"{name}.scales": layer.scales.t().contiguous(),
    }


def compressed(layer: Reference, name: str) -> dict[str, Tensor]:
    packed = []
    for values in layer.q:
        row = []
        for start in range(0, layer.k, 8):
            row.append(sum((q + 8) << 4 * j for j, q in enumerate(values[start : start + 8])))
        packed.append(row)
    return {
        f"{name}.weight_packed": words(packed),
        f"{name}.weight_scale": layer.scales.clone(),
        f"{name}.weight_shape": torch.tensor([layer.n, layer.k], dtype=torch.int64),
    }


def _bytes(rows: list[list[int]], dtype: torch.dtype) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8).view(dtype)


def _pairs(values: list[int]) -> list[int]:
    return [values[2 * i] | values[2 * i + 1] << 4 for i in range(len(values) // 2)]


def bitblas(layer: Reference, name: str, *, zeros: float | None = 8.0) -> dict[str, Tensor]:
    tensors = {
        f"{name}.qweight": _bytes([_pairs([q + 8 for q in row]) for row in layer.q], torch.int8),
        f"{name}.scales": layer.scales.clone(),
    }
    if zeros is not None:
        tensors[f"{name}.zeros"] = torch.full_like(layer.scales, zeros)
    return tensors


def bitblas_lop3(layer: Reference, name: str) -> dict[str, Tensor]:
    """Element e of each 8 goes to the bits from (e % 2) * 16 + (e // 2) * 4 on of their word."""
    rows = []
    for values in layer.q:
        row = []
        for start in range(0, layer.k, 8):
            word = 0
            for e in range(8):
                word |= (values[start + e] + 8) << ((e % 2) * 16 + (e // 2) * 4)
            row += list(word.to_bytes(4, "little"))
        rows.append(row)
    return {**bitblas(layer, name), f"{name}.qweight": _bytes(rows, torch.int8)}


def fork(layer: Reference, name: str) -> dict[str, Tensor]:
    scales = layer.scales[:, 0].clone() if layer.groups == 1 else layer.scales.clone()
    return {
        f"{name}._qweight_packed": _bytes(
            [_pairs([q + 8 for q in row]) for row in layer.q], torch.uint8
        ),
        f"{name}._w_scales": scales,
    }


def fork_converter(layer: Reference, name: str) -> dict[str, Tensor]:
    """What the fork's DuQuantToBitBLASConverter returns: two's complement, zeros of 0."""
    return {
        f"{name}.qweight": _bytes([_pairs([q & 15 for q in row]) for row in layer.q], torch.int8),
        f"{name}.scales": layer.scales.clone(),
        f"{name}.zeros": torch.zeros_like(layer.scales),
    }


def read_compressed(tensors: Mapping[str, Tensor], name: str) -> Reference:
    """Reads a pack-quantized layer, for what w4tune wrote."""
    n, k = tensors[f"{name}.weight_shape"].tolist()
    q = [
        [((row[column // 8] & 0xFFFFFFFF) >> 4 * (column % 8) & 15) - 8 for column in range(k)]
        for row in tensors[f"{name}.weight_packed"].tolist()
    ]
    assert len(q) == n
    return Reference(q, tensors[f"{name}.weight_scale"])


def save(
    path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
) -> Path:
    """A folder with model.safetensors and perhaps config.json."""
    path.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path / "model.safetensors", metadata={"format": "pt"})
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def save_shards(path: Path, shards: list[Mapping[str, Tensor]]) -> Path:
    """A folder with as many files and their index."""
    path.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for index, tensors in enumerate(shards):
        file = f"model-{index + 1:05}-of-{len(shards):05}.safetensors"
        save_file(dict(tensors), path / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, file))
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (path / "model.safetensors.index.json").write_text(text)
    return path


def library(module: str) -> types.ModuleType:
    """Imports one module of a format's library without its packages' __init__, which want GPUs and
    old versions of others; skips the test where the library is not installed."""
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{top} is not installed")
    location = Path(spec.submodule_search_locations[0])
    added = []
    parts = module.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(location.joinpath(*parts[1:depth]))]
            sys.modules[name] = package
            added.append(name)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module} cannot be imported: {error}")
    finally:
        for name in added:
            sys.modules.pop(name, None)
