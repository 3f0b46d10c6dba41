"""`quantize_` replaces the Linears of a model in place; `patch_from_env` does as variables say."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn

from w4tune.errors import W4tuneError, W4tuneWarning
from w4tune.modules import GeGLUMLP, Linear, activation_dtype, is_hooked, unsupported
from w4tune.quantizer import GROUP_SIZES, METHODS
from w4tune.runtime import DTYPES

MLP_PROJECTIONS = r"(^|\.)(gate|up|down)_proj$"
"""The default of `include`: what Gemma, Llama and their kin call the Linears of an MLP."""

FORK_EXCLUDE = r"(?:^|\.)(norm|ln|layernorm|emb|embed|vision_tower)(?:\.|$)"
"""What OPENPI_BITBLAS_EXCLUDE is where it is not set."""


# ---- what was done -----------------------------------------------------------------------------


@dataclass
class Summary:
    """What quantize_ did. Names are qualified names in the model; str() is what it prints.

    selected: the Linears that include and exclude chose.
    replaced: those of them that are INT4 now.
    modules: the w4tune modules that came instead: two for a fused MLP, else one for each Linear.
    skipped: those that stay as they were, each with the reason.
    not_fused: MLPs whose Linears were replaced one by one, each with the reason.
    bytes_before, bytes_after: weights, scales and biases of what was replaced.
    """

    group_size: int | str
    method: str
    selected: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    not_fused: dict[str, str] = field(default_factory=dict)
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        groups = "one scale for each output"
        if isinstance(self.group_size, int) and self.group_size > 0:
            groups = f"groups of {self.group_size}"
        lines = [
            f"w4tune: {len(self.replaced)} of {len(self.selected)} selected Linears are INT4 now, "
            f"in {len(self.modules)} modules ({groups}, {self.method} scales, {self.seconds:.1f} s)"
        ]
        if self.replaced:
            share = 100 * self.bytes_after / self.bytes_before
            lines.append(
                f"  their weights: {_bytes(self.bytes_before)} before, {_bytes(self.bytes_after)} "
                f"after ({share:.1f} %)"
            )
        lines += _grouped("skipped", self.skipped)
        lines += _grouped("not fused", self.not_fused)
        return "\n".join(lines)


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def _grouped(what: str, reasons: Mapping[str, str]) -> list[str]:
    """A line for each reason, with the first names that it holds for."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    lines = []
    for reason, whose in names.items():
        more = f" and {len(whose) - 3} more" if len(whose) > 3 else ""
        lines.append(f"  {what}: {', '.join(whose[:3])}{more}: {reason}")
    return lines


# ---- selecting ---------------------------------------------------------------------------------


Patterns = str | Iterable[str] | None


def _compiled(what: str, patterns: Patterns) -> list[re.Pattern[str]]:
    listed = [patterns] if isinstance(patterns, str) else list(patterns or ())
    compiled = []
    for pattern in listed:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise W4tuneError(
                f"{what} '{pattern}' is no regular expression: {error}. Correct it."
            ) from None
    return compiled


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """For each parameter, by id, all the names under which the model has it."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return owners


def _obstacle(
    name: str,
    linear: nn.Linear,
    owners: Mapping[int, list[str]],
    group_size: int | str,
    dtype: torch.dtype | None,
) -> str | None:
    """Why a selected Linear has to stay as it is; None where nothing speaks against it."""
    if type(linear) is not nn.Linear:
        return f"it is a {type(linear).__name__}, whose forward may differ from nn.Linear's"
    if is_hooked(linear):
        return "it has hooks or a forward of its own, which would be lost"
    if linear.weight.is_meta:
        return "its weight is on the meta device, without data"
    others = [other for other in owners[id(linear.weight)] if other != f"{name}.weight"]
    if others:
        return f"its weight is shared with {others[0]}"
    try:
        activation_dtype(linear.weight, dtype)
    except W4tuneError as error:
        return str(error)
    return unsupported(linear.out_features, linear.in_features, group_size)


# ---- fusing ------------------------------------------------------------------------------------

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
_PACKS_APART = "DuQuant packs turn the inputs of gate and up differently"


def _parts(mlp: nn.Module) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return mlp.gate_proj, mlp.up_proj, mlp.down_proj


def _unlike_gemma(name: str, mlp: nn.Module) -> str | None:
    """Why an MLP of three projections and act_fn is not down(gelu_tanh(gate x) * up x)."""
    gate, up, down = _parts(mlp)
    if not name:
        return "it is the model itself, which quantize_ cannot replace"
    if is_hooked(mlp):
        return "it has hooks or a forward of its own, which would be lost"
    if gate.bias is not None or up.bias is not None:
        return "gate or up has a bias"
    if (gate.in_features, gate.out_features) != (up.in_features, up.out_features):
        return "gate and up differ in size"
    if gate.out_features != down.in_features or gate.weight.dtype != up.weight.dtype:
        return "its projections do not fit together"
    if gate.weight.device != up.weight.device or gate.weight.device != down.weight.device:
        return "its projections are on several devices"
    try:
        # In FP32, where the two forms of GELU differ by more than rounding.
        points = torch.linspace(-6.0, 6.0, 193, device=gate.weight.device)
        expected = functional.gelu(points, approximate="tanh")
        if not torch.allclose(mlp.act_fn(points), expected, rtol=1e-5, atol=1e-5):
            return "its activation is not GELU in the tanh form"
        generator = torch.Generator().manual_seed(0)
        token = torch.randn(1, 1, gate.in_features, generator=generator)
        x = token.to(gate.weight)
        # Gates of about 1.5: where the activation is far from linear and from zero.
        spread = gate(x).float().square().mean().sqrt()
        x = x * (1.5 / spread.clamp_min(1e-6)).to(x.dtype)
        expected = down(functional.gelu(gate(x), approximate="tanh") * up(x)).float()
        found = mlp(x).float()
    except Exception as error:  # whatever it computes, it is no Gemma MLP
        return f"its forward cannot be compared: {type(error).__name__}: {error}".split("\n")[0]
    # A few roundings of 2^-8 (BF16) lie between two ways to compute the same.
    difference = (found - expected).abs().max() if found.shape == expected.shape else torch.inf
    if not difference <= 0.02 * expected.abs().max():
        return "its forward is not down(gelu_tanh(gate x) * up x)"
    return None


# ---- replacing ---------------------------------------------------------------------------------


def _bytes_of(module: nn.Module) -> int:
    """Of a module's parameters and buffers; two views of the same bytes count once."""
    tensors = (*module.parameters(), *module.buffers())
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def _on(linear: nn.Linear, device: torch.device | str | None) -> nn.Linear:
    """The Linear on `device`, itself left where it is."""
    if device is None or linear.weight.device == torch.device(device):
        return linear
    moved = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    moved.weight = nn.Parameter(linear.weight.detach().to(device), requires_grad=False)
    if linear.bias is not None:
        moved.bias = nn.Parameter(linear.bias.detach().to(device), requires_grad=False)
    return moved


class _Progress:
    """A line at most every two seconds, once the work has taken one."""

    def __init__(self, total: int, shown: bool) -> None:
        self._total = total
        self._shown = shown
        self._start = time.monotonic()
        self._next = self._start + 1.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def report(self, done: int) -> None:
        now = time.monotonic()
        if self._shown and now >= self._next and done < self._total:
            self._next = now + 2.0
            print(f"w4tune: {done} of {self._total} Linears, {self.seconds:.0f} s", flush=True)


@torch.no_grad()
def quantize_(
    model: nn.Module,
    include: Patterns = None,
    exclude: Patterns = None,
    group_size: int | str = 128,
    fuse_mlp: bool = True,
    method: str = "mse",
    dtype: torch.dtype | None = None,
    duquant_packdir: str | os.PathLike[str] | None = None,
    verbose: bool = True,
    device: torch.device | str | None = None,
) -> Summary:
    """Replaces Linears of a model by INT4 layers, in place, and says what it did.

    include, exclude: regular expressions, one or several, searched for in the qualified names of
        the model's nn.Linear. A name is selected if one of include is found in it and none of
        exclude. Default: gate_proj, up_proj and down_proj; with duquant_packdir, what has a pack.
    group_size: 32, 64, 128 or "channel".
    fuse_mlp: an MLP whose gate_proj, up_proj and down_proj are all selected becomes a GeGLUMLP, if
        it computes down(gelu_tanh(gate x) * up x), which is tried. Not with DuQuant packs.
    method: "mse" or "maxabs", see w4tune.quantize.
    dtype: of the activations; each weight's own by default.
    duquant_packdir: a folder of DuQuant packs: a selected Linear becomes a DuQuantLinear, and is
        skipped where it has no pack.
    verbose: print progress, after a second, and the summary.
    device: where to quantise, for example "cuda" for a model in host memory. The new layers go
        where the old ones were.

    One layer after the other, and the old weight goes before the next comes, so no more memory is
    needed than for the model and a few copies of its largest layer. What is not supported is
    skipped, with the reason in the Summary; if nothing is replaced, a W4tuneWarning says so.
    W4tuneError: an argument that makes no sense; nothing has been replaced then.
    """
    if method not in METHODS:
        raise W4tuneError(f"quantize_: method {method!r} is unknown. Use 'mse' or 'maxabs'.")
    if group_size not in (*GROUP_SIZES, "channel", -1):
        raise W4tuneError(
            f"quantize_: group_size {group_size!r} is not served. Use 32, 64, 128 or 'channel'."
        )
    if dtype is not None and dtype not in DTYPES:
        raise W4tuneError(
            f"quantize_: dtype {dtype} is not served. Use torch.float16 or torch.bfloat16."
        )
    if isinstance(model, nn.Linear):
        raise W4tuneError(
            "quantize_ replaces layers within a model, and this is one layer. Use "
            "w4tune.Linear.from_linear."
        )
    packdir = None if duquant_packdir is None else Path(duquant_packdir)
    if packdir is not None and not packdir.is_dir():
        raise W4tuneError(f"quantize_: duquant_packdir '{packdir}' is no folder. Correct the path.")
    summary = Summary(group_size, method)
    plan = _plan(model, summary, include, exclude, fuse_mlp, dtype, packdir)
    progress = _Progress(len(summary.selected), verbose)
    for name, count in plan:
        try:
            new = _replacement(model, name, summary, dtype, packdir, device)
        except W4tuneError as error:
            members = [name] if count == 1 else [f"{name}.{part}" for part in _PROJECTIONS]
            summary.skipped.update(dict.fromkeys(members, str(error)))
            warnings.warn(f"w4tune: {name} stays as it was: {error}", W4tuneWarning, stacklevel=3)
            continue
        _put(model, name, new, summary)
        del new
        progress.report(len(summary.replaced))
    summary.seconds = progress.seconds
    if verbose:
        print(summary, flush=True)
    if not summary.replaced:
        warnings.warn(_nothing(model, summary, include, exclude), W4tuneWarning, stacklevel=3)
    return summary


def _plan(
    model: nn.Module,
    summary: Summary,
    include: Patterns,
    exclude: Patterns,
    fuse_mlp: bool,
    dtype: torch.dtype | None,
    packdir: Path | None,
) -> list[tuple[str, int]]:
    """Names of what to replace, in the model's order, with the Linears in it: 1, or 3 for an MLP.

    Fills in summary.selected, .skipped and .not_fused. Holds no module, so that each can go.
    """
    wanted = _wanted(include, packdir)
    unwanted = _compiled("exclude", exclude)
    owners = _owners(model)
    able: set[str] = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or not wanted(name):
            continue
        if any(pattern.search(name) for pattern in unwanted):
            continue
        summary.selected.append(name)
        reason = _obstacle(name, module, owners, summary.group_size, dtype)
        if reason is None and packdir is not None:
            reason = _no_pack(name, packdir)
        if reason is None:
            able.add(name)
        else:
            summary.skipped[name] = reason

    fused: set[str] = set()
    plan: list[tuple[str, int]] = []
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        members = [f"{prefix}{part}" for part in _PROJECTIONS]
        if name in able and name not in fused:
            plan.append((name, 1))
        elif fuse_mlp and hasattr(module, "act_fn") and able.issuperset(members):
            reason = _unlike_gemma(name, module) if packdir is None else _PACKS_APART
            if reason is None:
                plan.append((name, 3))
                fused.update(members)
            else:
                summary.not_fused[name] = reason
    return plan


def _wanted(include: Patterns, packdir: Path | None) -> Callable[[str], bool]:
    if include is None and packdir is not None:
        return lambda name: _no_pack(name, packdir) is None
    patterns = _compiled("include", MLP_PROJECTIONS if include is None else include)
    return lambda name: any(pattern.search(name) for pattern in patterns)


def _no_pack(name: str, packdir: Path) -> str | None:
    from w4tune import duquant

    path = duquant.pack_path(packdir, name)
    return None if path.is_file() else f"there is no DuQuant pack '{path}'"


def _replacement(
    model: nn.Module,
    name: str,
    summary: Summary,
    dtype: torch.dtype | None,
    packdir: Path | None,
    device: torch.device | str | None,
) -> nn.Module:
    old = model.get_submodule(name)
    options = {"method": summary.method, "dtype": dtype}
    if not isinstance(old, nn.Linear):
        home = old.gate_proj.weight.device
        parts = (_on(part, device) for part in _parts(old))
        new: nn.Module = GeGLUMLP.from_linears(*parts, summary.group_size, **options)
    elif packdir is None:
        home = old.weight.device
        new = Linear.from_linear(_on(old, device), summary.group_size, **options)
    else:
        from w4tune import duquant

        home = old.weight.device
        pack = duquant.load_pack(duquant.pack_path(packdir, name))
        new = duquant.DuQuantLinear.from_linear(
            _on(old, device), pack, summary.group_size, **options
        )
    return new.to(home).train(old.training)


def _put(model: nn.Module, name: str, new: nn.Module, summary: Summary) -> None:
    """Puts a module in the place of that of this name, and writes it down."""
    parent, _, attribute = name.rpartition(".")
    holder = model.get_submodule(parent)
    old = holder.get_submodule(attribute)
    if isinstance(old, nn.Linear):
        summary.replaced.append(name)
        summary.modules.append(name)
        summary.bytes_before += _bytes_of(old)
    else:
        summary.replaced += [f"{name}.{part}" for part in _PROJECTIONS]
        summary.modules += [f"{name}.gate_up", f"{name}.down_proj"]
        summary.bytes_before += sum(_bytes_of(part) for part in _parts(old))
    summary.bytes_after += _bytes_of(new)
    setattr(holder, attribute, new)


def _nothing(model: nn.Module, summary: Summary, include: Patterns, exclude: Patterns) -> str:
    """What to say when nothing was replaced."""
    if summary.selected:
        name, reason = next(iter(summary.skipped.items()))
        return f"quantize_ replaced nothing: {name}: {reason} (the Summary names all)"
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    have = f"The model has {len(names)} nn.Linear"
    if names:
        have += f", such as '{names[len(names) // 2]}'"
    asked = "the default (gate|up|down)_proj" if include is None else repr(include)
    return f"quantize_ selected nothing: include is {asked}, exclude {exclude!r}. {have}."


# ---- the environment ---------------------------------------------------------------------------


def _variable(*names: str) -> tuple[str, str] | None:
    """The first of the variables that is set and not empty: its name and value."""
    for name in names:
        value = os.environ.get(name, "").strip()
        if value:
            return name, value
    return None


def _switch(*names: str) -> bool:
    found = _variable(*names)
    if found is None:
        return False
    name, value = found
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    if value.lower() in ("0", "false", "no", "off"):
        return False
    raise W4tuneError(f"{name} is '{value}'. Set it to 0 or 1.")


def _text(*names: str) -> str | None:
    found = _variable(*names)
    return None if found is None else found[1]


def _group_size() -> int | str:
    found = _variable("W4TUNE_GROUP_SIZE", "OPENPI_BITBLAS_GROUP_SIZE")
    if found is None:
        return 128
    name, value = found
    if value in ("channel", "-1"):
        return "channel"
    if value not in ("32", "64", "128"):
        raise W4tuneError(f"{name} is '{value}'. Set it to 32, 64, 128 or channel.")
    return int(value)


def _tokens() -> list[int] | None:
    found = _variable("OPENPI_BITBLAS_OPT_M")
    if found is None:
        return None
    name, value = found
    try:
        tokens = [int(part) for part in value.split(",")]
    except ValueError:
        tokens = []
    if not tokens or min(tokens) < 1:
        raise W4tuneError(f"{name} is '{value}'. Set it to numbers from 1, such as 10,50,968.")
    return tokens


def patch_from_env(model: nn.Module) -> Summary | None:
    """quantize_ as the environment says; None, and nothing done, unless it is switched on.

    W4TUNE_ENABLE                1: do it
    W4TUNE_INCLUDE, _EXCLUDE     regular expressions, as of quantize_
    W4TUNE_GROUP_SIZE            32, 64, 128 (default) or channel
    W4TUNE_DUQUANT_PACKDIR       folder of DuQuant packs
    W4TUNE_DEBUG                 1: print the name of each layer as well
    W4TUNE_DB                    the cache of tuned kernels (read when a GPU is first used)

    OPENPI_BITBLAS_ENABLE, _INCLUDE, _EXCLUDE, _GROUP_SIZE, _DUQUANT_PACKDIR and _DEBUG, as OpenPI's
    DuQuant fork names them, mean the same where the W4TUNE_ one is not set. Of the fork's others,
    _WBITS must be 4, _SCOPE is a prefix that names must have, and _ENABLE_TUNING=1 tunes for the
    numbers of tokens in _OPT_M, by default those of Pi0.5. Unlike the fork it uses the group size
    it is told (the fork always had one scale for each output) and quantises without packs too.
    Where W4TUNE_ENABLE is not set, the default of exclude is the fork's.

    An empty variable counts as not set. W4tuneError: a value that makes no sense.
    """
    if not _switch("W4TUNE_ENABLE", "OPENPI_BITBLAS_ENABLE"):
        return None
    bits = _variable("OPENPI_BITBLAS_WBITS")
    if bits is not None and bits[1] != "4":
        raise W4tuneError(f"{bits[0]} is '{bits[1]}', and w4tune has 4 bits only. Set it to 4.")
    exclude = [_text("W4TUNE_EXCLUDE", "OPENPI_BITBLAS_EXCLUDE")]
    if exclude == [None] and _variable("W4TUNE_ENABLE") is None:
        exclude = [FORK_EXCLUDE]
    scope = _text("OPENPI_BITBLAS_SCOPE")
    if scope is not None:
        exclude.append(f"^(?!{re.escape(scope)})")
    debug = _switch("W4TUNE_DEBUG", "OPENPI_BITBLAS_DEBUG")
    tuning = _switch("OPENPI_BITBLAS_ENABLE_TUNING")
    tokens = _tokens()
    summary = quantize_(
        model,
        include=_text("W4TUNE_INCLUDE", "OPENPI_BITBLAS_INCLUDE"),
        exclude=[pattern for pattern in exclude if pattern is not None],
        group_size=_group_size(),
        duquant_packdir=_text("W4TUNE_DUQUANT_PACKDIR", "OPENPI_BITBLAS_DUQUANT_PACKDIR"),
    )
    if debug:
        for name in summary.modules:
            print(f"  {name}: {model.get_submodule(name)!r}")
    if tuning and summary.replaced:
        from w4tune import tuning as tuner

        tuner.tune(model, m=tuner.PI05_TOKENS if tokens is None else tokens)
    return summary
