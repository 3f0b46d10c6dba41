"""A checkpoint and its quantised layers."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from w4tune.errors import W4tuneError
from w4tune.formats import layouts
from w4tune.formats.layouts import FORMATS, Declared, Layer
from w4tune.formats.tensors import TensorFiles, TensorInfo, read_json
from w4tune.quantizer import GROUP_SIZES, QuantizedWeight

__all__ = ["Checkpoint", "kernel_group"]

_CHUNK = 1 << 22  # weights that are dequantised at a time
_READ_METHODS = (None, "gptq", "awq", "compressed-tensors", "bitblas")
_READ_LAYOUTS = {
    "gptq": (None, "gptq", "gptq_v2", "bitblas"),
    "awq": (None, "gemm", "bitblas"),
    "compressed-tensors": (None, "pack-quantized"),
    "bitblas": (None, "bitblas"),
}


class Checkpoint(AbstractContextManager["Checkpoint"]):
    """A path with tensors, its configuration, and the quantised layers in it.

    layers  by name, the module they belong to, in the order of the files
    others  names of the tensors that belong to no quantised layer, biases of quantised layers among
            them
    config  config.json, empty where there is none
    """

    def __init__(self, files: TensorFiles, format: str = "auto") -> None:
        if format not in ("auto", "float", *FORMATS):
            raise W4tuneError(f"format {format!r}: known are auto, float, {', '.join(FORMATS)}")
        self.files = files
        config = files.folder / "config.json"
        self.config: dict[str, Any] = read_json(config) if config.is_file() else {}
        self.declared, self._said_by = self._declaration()
        self.layers: dict[str, Layer] = {}
        if format != "float":
            self._find(format)
        owned = {tensor for layer in self.layers.values() for tensor in layer.tensors.values()}
        owned -= {layer.bias for layer in self.layers.values() if layer.bias}
        self.others = [name for name in files if name not in owned]

    @classmethod
    def open(cls, path: str | Path, format: str = "auto") -> Checkpoint:
        """format: "auto" finds out, "float" looks for none; one of FORMATS is believed."""
        return cls(TensorFiles(path), format)

    def _declaration(self) -> tuple[Declared, str]:
        quantization = self.config.get("quantization_config")
        if isinstance(quantization, dict):
            return layouts.declared_in(quantization), "config.json"
        for name, method in (("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
            file = self.files.folder / name
            if file.is_file():
                declared = layouts.declared_in(read_json(file))
                return replace(declared, method=declared.method or method), name
        return Declared(), ""

    def _find(self, format: str) -> None:
        declared, said = self.declared, self._said_by
        if format == "auto":
            if declared.method not in _READ_METHODS:
                raise W4tuneError(
                    f"{said}: quant_method {declared.method} is not read; known are "
                    f"{', '.join(FORMATS)}"
                )
            if declared.layout not in _READ_LAYOUTS.get(declared.method or "", (declared.layout,)):
                raise W4tuneError(
                    f"{said}: the layout {declared.layout} of {declared.method} is not read"
                )
            if declared.bits not in (None, 4):
                raise W4tuneError(
                    f"{said}: weights of {declared.bits} bits ({declared.method}); only 4 are read"
                )
        modules: dict[str, dict[str, TensorInfo]] = {}
        twice: dict[str, str] = {}
        for name in self.files:
            if (place := layouts.role_of(name)) is not None:
                module, role = place
                parts = modules.setdefault(module, {})
                if role in parts:
                    twice[module] = (
                        f"{parts[role].name} and {name} are both the {role} of one layer"
                    )
                parts[role] = self.files[name]
        for module, parts in modules.items():
            if "codes" in parts and module in twice:
                raise W4tuneError(twice[module])
            layer = layouts.find_layer(module, parts, declared, format, self.files)
            if layer is not None:
                self.layers[module] = layer
        wanted = declared.method if format == "auto" else format
        if not self.layers and wanted is not None:
            by = f"{said} says {wanted}" if format == "auto" else f"{wanted} was asked for"
            raise W4tuneError(
                f"{self.files.path}: {by}, but no tensor holds int4 weights (qweight, "
                "weight_packed)"
            )

    def formats(self) -> dict[str, int]:
        """How many layers there are of each format."""
        return dict(Counter(layer.format for layer in self.layers.values()))

    def settle(self, name: str) -> Layer:
        """Checks what small tensors tell, zeros and the order of inputs, and keeps the result."""
        layer = self.layers[name]
        if layer.zero is None:
            layer = self.layers[name] = layouts.settle(layer, self.declared, self.files)
        return layer

    def read(self, name: str) -> QuantizedWeight:
        """The layer's weight, on the CPU. Groups of a multiple of 32 are split, which is exact."""
        layer = self.settle(name)
        codes = layouts.read_codes(layer, self.files)
        scales = layouts.read_scales(layer, self.files)
        size = kernel_group(layer.group_size, layer.k)
        if size is None:
            raise W4tuneError(
                f"{name or layer.tensors['codes']}: groups of {layer.group_size} ({layer.format}); "
                "the kernels have 32, 64, 128 or one for each output"
            )
        if size != layer.group_size:
            scales = scales.repeat_interleave(layer.group_size // size, dim=1)
        return QuantizedWeight(codes, scales, size)

    def dequantize(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The layer's weight [n, k] in dtype, or that of its scales; any group size."""
        layer = self.settle(name)
        codes = layouts.read_codes(layer, self.files)
        scales = layouts.read_scales(layer, self.files)
        weight = torch.empty(layer.n, layer.k, dtype=dtype or scales.dtype)
        step = max(1, _CHUNK // layer.k)
        for first in range(0, layer.n, step):
            rows = codes[first : first + step]
            q = (
                torch.stack((rows & 15, rows >> 4), dim=-1)
                .reshape(len(rows), layer.groups, -1)
                .float()
                - 8
            )
            weight[first : first + step] = (
                q * scales[first : first + step, :, None].float()
            ).reshape(len(rows), -1)
        return weight

    def bias(self, name: str) -> Tensor | None:
        tensor = self.layers[name].bias
        return None if tensor is None else self.files.tensor(tensor)

    def close(self) -> None:
        self.files.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def kernel_group(group_size: int, k: int) -> int | None:
    """The group size that expresses this one: itself, a divisor that the kernels have, or None."""
    if group_size == k or group_size in GROUP_SIZES:
        return group_size
    return next(
        (size for size in sorted(GROUP_SIZES, reverse=True) if group_size % size == 0), None
    )
