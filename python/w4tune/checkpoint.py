"""`load_quantized_`: an int4 checkpoint's layers in a model's nn.Linears, and its other tensors."""

from __future__ import annotations

import copy
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from w4tune.errors import W4tuneError
from w4tune.formats import Checkpoint, Layer, kernel_group
from w4tune.formats.console import Progress, count_of, reasons
from w4tune.modules import (
    GeGLU,
    GeGLUMLP,
    Linear,
    activation_dtype,
    is_hooked,
    unsupported,
)
from w4tune.quantizer import QuantizedWeight

__all__ = ["LoadSummary", "load_quantized_"]

_MLP = ("gate_proj", "up_proj", "down_proj")
_LINEARS = (nn.Linear, Linear)


@dataclass
class LoadSummary:
    """What `load_quantized_` did. Names of layers are those in the model.

    loaded       quantised layers that are w4tune modules now
    fused        MLPs of which gate and up are one GeGLU; their layers are in `loaded`
    not_fused    MLPs that stayed as they were, and why
    dequantized  quantised layers that stayed nn.Linear, with the checkpoint's weight, and why
    skipped      quantised layers of the checkpoint that are nowhere now, and why
    rest         other tensors that were copied into the model
    unused       other tensors of the checkpoint that were not, and why
    missing      parameters and buffers of the model that the checkpoint says nothing of
    """

    path: str
    formats: dict[str, int] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    fused: list[str] = field(default_factory=list)
    not_fused: dict[str, str] = field(default_factory=dict)
    dequantized: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0  # of the INT4 weights and their scales
    seconds: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.formats.items())
        lines = [
            f"w4tune: {count_of(len(self.loaded), 'layer')} from {self.path} ({kinds}), "
            f"{self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s"
            + (f"; {len(self.fused)} MLPs fused" if self.fused else "")
        ]
        lines += reasons("MLPs not fused", self.not_fused)
        lines += reasons("dequantised into their nn.Linear", self.dequantized)
        lines += reasons("NOT loaded", self.skipped)
        if self.rest:
            lines.append(f"  {len(self.rest)} other tensors copied")
        lines += reasons("other tensors not used", self.unused)
        if self.missing:
            more = f" and {len(self.missing) - 1} more" if len(self.missing) > 1 else ""
            lines.append(f"  MISSING from the checkpoint: {self.missing[0]}{more}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def load_quantized_(
    model: nn.Module,
    path: str | Path,
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    format: str = "auto",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    fuse_mlp: bool = True,
    rest: bool = True,
    rename: Callable[[str], str] | None = None,
    rotated: bool = False,
    verbose: bool = True,
) -> LoadSummary:
    """Puts the layers of an int4 checkpoint in place of the model's nn.Linears of their names.

    path      a .safetensors file, or a folder with shards and config.json; any of
              w4tune.formats.FORMATS
    include   regular expressions searched for in the layers' names in the model; None: all.
    exclude   likewise. A layer that is not selected, or that the kernels refuse, stays an nn.Linear
              and gets the dequantised weight (with rest=True; else it is left alone and reported)
    format    what the checkpoint is taken for; "auto" finds out
    dtype     of the activations, FP16 or BF16; None: that of the nn.Linear's weight
    device    where the layers go; None: where the nn.Linear is, the CPU for one on meta
    fuse_mlp  makes a GeGLUMLP of an MLP whose three layers are loaded, if it computes
              down(gelu_tanh(gate x) * up x)
    rest      copies the checkpoint's other tensors into the parameters and buffers of their names
              too
    rename    gives the name in the model for a name in the checkpoint
    rotated   loads a fork's layers although their weights are in the basis of DuQuant packs: the
              caller transforms activations

    Layers are read one at a time. Raises W4tuneError before the model is touched where the
    checkpoint cannot be read, has asymmetric zero points, or has no layer for the model. Prints the
    summary, unless verbose is False.
    """
    begin = time.monotonic()
    summary = LoadSummary(str(path))
    with Checkpoint.open(path, format) as checkpoint, torch.no_grad():
        if not checkpoint.layers:
            raise W4tuneError(
                f"{path} has no int4 layers: load it as usual and call w4tune.quantize_(model)"
            )
        named = rename or (lambda name: name)
        plan = _plan(
            model,
            checkpoint,
            named,
            _patterns(include),
            _patterns(exclude),
            dtype,
            rotated,
            rest,
            summary,
        )
        total = sum(layer.n * layer.k for layer in checkpoint.layers.values())
        with Progress("loading", total, enabled=verbose) as progress:
            for name, (module, dequantize) in plan.items():
                if dequantize:
                    _refill(model.get_submodule(module), checkpoint, name, device)
                else:
                    new = _layer(model.get_submodule(module), checkpoint, name, dtype, device)
                    _replace(model, module, new)
                    summary.loaded.append(module)
                    summary.bytes += new.weight_packed.nbytes + new.scales_bits.nbytes
                layer = checkpoint.layers[name]
                progress.advance(layer.n * layer.k, module)
        if fuse_mlp:
            _fuse(model, summary)
        if rest:
            _load_rest(model, checkpoint, named, plan, device, summary)
    summary.seconds = round(time.monotonic() - begin, 3)
    if verbose:
        print(summary)
    return summary


def _patterns(patterns: str | Sequence[str] | None) -> list[re.Pattern[str]] | None:
    if patterns is None:
        return None
    try:
        return [
            re.compile(pattern)
            for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        ]
    except re.error as error:
        raise W4tuneError(f"{error.pattern!r} is no regular expression: {error}") from None


# {name in the checkpoint: (name in the model, dequantise)}. Holds no module, so that each can go.
_Plan = dict[str, tuple[str, bool]]


def _plan(
    model: nn.Module,
    checkpoint: Checkpoint,
    named: Callable[[str], str],
    include: list[re.Pattern[str]] | None,
    exclude: list[re.Pattern[str]] | None,
    dtype: torch.dtype | None,
    rotated: bool,
    rest: bool,
    summary: LoadSummary,
) -> _Plan:
    modules = dict(model.named_modules())
    plan: _Plan = {}
    absent = 0
    notes: Counter[str] = Counter()
    for name in checkpoint.layers:
        module = named(name)
        found = modules.get(module)
        if found is None:
            summary.skipped[module] = "no such module in the model"
            absent += 1
            continue
        if not isinstance(found, nn.Linear):
            summary.skipped[module] = f"a {type(found).__name__} in the model, not an nn.Linear"
            continue
        layer = checkpoint.settle(name)
        if layer.rotated and not rotated:
            raise W4tuneError(
                f"{name}: weights of format {layer.format} are in the rotated basis of a DuQuant "
                "pack: quantise from the original weights with duquant_packdir, or pass "
                "rotated=True and transform activations yourself"
            )
        if (found.out_features, found.in_features) != (layer.n, layer.k):
            sizes = f"{found.out_features} x {found.in_features}"
            raise W4tuneError(
                f"{module} is {sizes} in the model and {layer.n} x {layer.k} in "
                f"{checkpoint.files.path}"
            )
        bias = checkpoint.bias(name)
        if bias is not None and found.bias is None and bool(bias.any()):
            raise W4tuneError(
                f"{module} has a bias in {checkpoint.files.path} and none in the model"
            )
        if bias is None and found.bias is not None:
            raise W4tuneError(
                f"{module} has a bias in the model and none in {checkpoint.files.path}"
            )
        reason = _why_not(module, found, layer, include, exclude, dtype)
        if reason is None:
            summary.formats[layer.format] = summary.formats.get(layer.format, 0) + 1
            notes.update(layer.notes)
            plan[name] = (module, False)
        elif rest:
            summary.dequantized[module] = reason
            plan[name] = (module, True)
        else:
            summary.skipped[module] = reason
    summary.notes += [f"{text} ({count_of(count, 'layer')})" for text, count in notes.items()]
    if absent == len(checkpoint.layers):
        first = next(iter(checkpoint.layers))
        raise W4tuneError(
            f"no int4 layer of {checkpoint.files.path} is a module of the model (first: "
            f"{named(first)}); rename maps names"
        )
    if not any(not dequantize for _, dequantize in plan.values()):
        module, reason = next(iter({**summary.dequantized, **summary.skipped}.items()))
        raise W4tuneError(f"no layer of {checkpoint.files.path} can be loaded; {module}: {reason}")
    return plan


def _why_not(
    module: str,
    linear: nn.Linear,
    layer: Layer,
    include: list[re.Pattern[str]] | None,
    exclude: list[re.Pattern[str]] | None,
    dtype: torch.dtype | None,
) -> str | None:
    if include is not None and not any(pattern.search(module) for pattern in include):
        return "not included"
    if exclude is not None and any(pattern.search(module) for pattern in exclude):
        return "excluded"
    try:
        activation_dtype(linear.weight, dtype)
    except W4tuneError as error:
        return str(error)
    if is_hooked(linear):
        return "the nn.Linear has hooks or a forward of its own, which would be lost"
    size = kernel_group(layer.group_size, layer.k)
    return unsupported(layer.n, layer.k, layer.group_size if size is None else size)


def _parent(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, last = name.rpartition(".")
    return model.get_submodule(parent), last


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    if not name:
        raise W4tuneError("the model itself is the nn.Linear: load into a module that holds it")
    parent, last = _parent(model, name)
    setattr(parent, last, new)


def _device(old: Tensor, device: torch.device | str | None) -> torch.device:
    """Where what comes instead of `old` goes."""
    if device is not None:
        return torch.device(device)
    return torch.device("cpu") if old.is_meta else old.device


def _layer(
    linear: nn.Module,
    checkpoint: Checkpoint,
    name: str,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Linear:
    """The w4tune.Linear that comes instead of an nn.Linear."""
    assert isinstance(linear, nn.Linear)
    target = _device(linear.weight, device)
    weight = checkpoint.read(name)
    weight = QuantizedWeight(weight.codes.to(target), weight.scales.to(target), weight.group_size)
    bias = checkpoint.bias(name) if linear.bias is not None else None
    layer = Linear.from_quantized(weight, bias, activation_dtype(linear.weight, dtype))
    layer.train(linear.training)
    return layer


def _refill(
    linear: nn.Module, checkpoint: Checkpoint, name: str, device: torch.device | str | None
) -> None:
    """Puts the dequantised weight into an nn.Linear, which may be on meta."""
    assert isinstance(linear, nn.Linear)
    old = linear.weight
    _set(linear, "weight", old, checkpoint.dequantize(name, old.dtype), _device(old, device))
    bias = checkpoint.bias(name)
    if bias is not None and linear.bias is not None:
        _set(linear, "bias", linear.bias, bias, _device(linear.bias, device))


def _set(owner: nn.Module, name: str, old: Tensor, value: Tensor, device: torch.device) -> Tensor:
    """Copies value into a parameter or buffer, or replaces one on meta by one with data."""
    if not old.is_meta:
        old.copy_(value)
        return old
    made: Tensor = value.to(device=device, dtype=old.dtype, copy=True)
    if isinstance(old, nn.Parameter):
        made = nn.Parameter(made, requires_grad=old.requires_grad)
    setattr(owner, name, made)
    return made


# ---- Fusing ----


def _fuse(model: nn.Module, summary: LoadSummary) -> None:
    loaded = set(summary.loaded)
    for name in [name for name, _ in model.named_modules()]:  # no modules, so that each can go
        if not any((f"{name}.{part}" if name else part) in loaded for part in _MLP):
            continue
        mlp = model.get_submodule(name)
        gate, up, down = (getattr(mlp, part, None) for part in _MLP)
        if not (isinstance(gate, _LINEARS) and isinstance(up, _LINEARS)):
            continue
        if not isinstance(down, _LINEARS):
            continue
        reason = _unlike_gemma(mlp, gate, up, down) if name else "the model itself is the MLP"
        if reason is not None:
            summary.not_fused[name] = reason
            continue
        assert isinstance(gate, Linear) and isinstance(up, Linear) and isinstance(down, Linear)
        gate_up = GeGLU.from_quantized(gate.to_quantized(), up.to_quantized(), gate.dtype)
        fused = GeGLUMLP(gate_up, down)
        fused.train(mlp.training)
        _replace(model, name, fused)
        summary.fused.append(name)


def _unlike_gemma(mlp: nn.Module, gate: nn.Module, up: nn.Module, down: nn.Module) -> str | None:
    """Why the MLP cannot be a GeGLUMLP, or None."""
    if not (isinstance(gate, Linear) and isinstance(up, Linear) and isinstance(down, Linear)):
        return "not all of gate, up and down are loaded"
    if gate.bias is not None or up.bias is not None:
        return "a bias on gate or up"
    kinds = [
        (*_size(layer), layer.dtype, layer.scale_dtype, layer.weight_packed.device)
        for layer in (gate, up)
    ]
    if kinds[0] != kinds[1]:
        return "gate and up differ in size, group, dtype or device"
    if is_hooked(mlp):
        return "it has hooks or a forward of its own, which would be lost"
    others = {key for key, _ in mlp.named_parameters() if key.rpartition(".")[0] not in _MLP}
    if others:
        return f"it has a parameter of its own, {sorted(others)[0]}"
    return _other_forward(mlp)


def _size(layer: Linear) -> tuple[int, int, int]:
    return layer.in_features, layer.out_features, layer.group_size


def _other_forward(mlp: nn.Module) -> str | None:
    """Runs the MLP's own forward over three small Linears in float64, against Gemma's."""
    width, inner = 8, 16
    random = torch.Generator().manual_seed(4)
    stand_in = copy.copy(mlp)
    stand_in._modules = dict(mlp._modules)
    small = {}
    for name, rows, columns in (
        ("gate_proj", inner, width),
        ("up_proj", inner, width),
        ("down_proj", width, inner),
    ):
        small[name] = torch.randn(rows, columns, generator=random, dtype=torch.float64)
        linear = nn.Linear(columns, rows, bias=False, dtype=torch.float64)
        linear.weight.copy_(small[name])
        stand_in._modules[name] = linear
    x = torch.randn(1, 4, width, generator=random, dtype=torch.float64)
    gated = functional.gelu(x @ small["gate_proj"].t(), approximate="tanh") * (
        x @ small["up_proj"].t()
    )
    expected = gated @ small["down_proj"].t()
    try:
        y = stand_in(x)
    except Exception as error:
        return f"its forward cannot be tried ({type(error).__name__})"
    if not isinstance(y, Tensor) or y.shape != expected.shape:
        return "its forward does not return what a Gemma MLP does"
    if not torch.allclose(y.double(), expected, rtol=1e-5, atol=1e-5):
        return "it does not compute down(gelu_tanh(gate x) * up x)"
    return None


# ---- The rest of the checkpoint ----


def _load_rest(
    model: nn.Module,
    checkpoint: Checkpoint,
    named: Callable[[str], str],
    plan: _Plan,
    device: torch.device | str | None,
    summary: LoadSummary,
) -> None:
    """Copies what is not quantised. Tied parameters are one tensor under several names."""
    done = {bias for name in plan if (bias := checkpoint.layers[name].bias) is not None}
    own = {f"{module}.{last}" for module, _ in plan.values() for last in ("weight", "bias")}
    places: dict[str, tuple[nn.Module, str, Tensor]] = {}
    holders: dict[int, list[str]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (Linear, GeGLU)):
            continue
        hidden = module._non_persistent_buffers_set
        persistent = {key: value for key, value in module._buffers.items() if key not in hidden}
        for key, value in _present({**module._parameters, **persistent}):
            name = f"{prefix}.{key}" if prefix else key
            places[name] = (module, key, value)
            holders.setdefault(id(value), []).append(name)
    filled: set[str] = {name for name in own if name in places}
    for tensor in checkpoint.others:
        if tensor in done:
            continue
        name = named(tensor)
        if name not in places:
            summary.unused[tensor] = "no such parameter or buffer in the model"
            continue
        _, _, old = places[name]
        if tuple(old.shape) != checkpoint.files[tensor].shape:
            summary.unused[tensor] = (
                f"{list(checkpoint.files[tensor].shape)}, and {list(old.shape)} in the model"
            )
            continue
        value = checkpoint.files.tensor(tensor)
        made: Tensor | None = None
        for holder in holders[id(old)]:
            owner, key, _ = places[holder]
            if made is None:
                made = _set(owner, key, old, value, _device(old, device))
            elif made is not old:
                setattr(owner, key, made)
            filled.add(holder)
        summary.rest.append(name)
    summary.missing = [name for name in places if name not in filled]


def _present(tensors: dict[str, Tensor | None]) -> Iterable[tuple[str, Tensor]]:
    return ((key, value) for key, value in tensors.items() if value is not None)
