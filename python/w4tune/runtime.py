"""Dispatchers: which kernels serve on which GPU, and where they come from.

Two files lie under every GPU's dispatcher. Above, the user's cache, which `w4tune` tunes: the file
that `W4TUNE_DB` names, else `$XDG_CACHE_HOME/w4tune/w4tune.db` (`~/.cache/w4tune/w4tune.db`). Below,
`defaults.db` of this package: kernels that serve any layer, correct and not tuned. A layer that the
default kernels serve is reported once; with `W4TUNE_STRICT=1` it is an error.

Everything here is safe from any thread. The environment is read at import (strictness) and when a
GPU is first used (the file), never in a layer's forward.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from w4tune import _native
from w4tune.errors import W4tuneError, W4tuneWarning

OPS = ("gemm", "geglu")  # in the order of w4tune_op
DTYPES = (torch.float16, torch.bfloat16)  # in the order of w4tune_dtype
MATCHES = ("exact", "interpolated_m", "same_arch", "predicted", "default", "refused")
DEFAULT = MATCHES.index("default")

_DEFAULTS = Path(__file__).absolute().parent / "defaults.db"


def _flag(name: str) -> bool:
    """A switch of the environment: unset, empty, 0, false, no and off mean no."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


_strict = _flag("W4TUNE_STRICT")
_dependent_wanted = "W4TUNE_DEPENDENT_LAUNCH" not in os.environ or _flag("W4TUNE_DEPENDENT_LAUNCH")


def database_path() -> Path:
    """The user's cache file, there or not."""
    named = os.environ.get("W4TUNE_DB")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "w4tune" / "w4tune.db"


@dataclass(frozen=True)
class Selection:
    """What serves one number of tokens.

    match: "exact" (measured at this M), "interpolated_m" (measured on this GPU, another M),
        "same_arch" (measured on another GPU of the architecture), "predicted" (by the cost model),
        "default" (a built-in kernel, not tuned) or "refused", with the reason.
    config: what serves as text, "" when refused.
    time_us, fp16_us: that and cuBLASLt FP16 where it was tuned, in one run; 0: not measured.
    floor_us: the lower bound by bandwidth and matrix rate there; 0: unknown.
    scratch_bytes: above 0 where it is faster to dequantise slices of the weight into a scratch of so
        many bytes, which the library keeps for each stream, and to multiply them by cuBLASLt.
    """

    match: str
    config: str
    reason: str
    time_us: float
    fp16_us: float
    floor_us: float
    scratch_bytes: int


@functools.lru_cache(maxsize=None)
def problem_of(op: int, n: int, k: int, group_size: int, dtype: torch.dtype) -> bytes:
    """The problem as the library takes it; W4tuneError for sizes or a dtype that no kernel has."""
    if dtype not in DTYPES:
        raise W4tuneError(
            f"{OPS[op]} n={n} k={k}: {dtype} activations are not served. Use torch.float16 or "
            "torch.bfloat16."
        )
    problem = _native.problem(op, n, k, group_size, DTYPES.index(dtype))
    _native.packed_sizes(problem)
    return problem


class Device:
    """One GPU's dispatcher, and what was said about it."""

    def __init__(self, index: int) -> None:
        self.index = index
        # Dependent launches (compute capability 9.0, see LaunchOperands in w4tune/dispatcher.h):
        # the weight of a layer must not be written by work that still runs when the layer is
        # called, other than what comes just before it.
        capable = torch.cuda.get_device_capability(index) >= (9, 0)
        self.dependent = 1 if capable and _dependent_wanted else 0
        self._reported: set[tuple[object, ...]] = set()
        self._selections: dict[tuple[bytes, int], Selection] = {}
        self.dispatcher = self._open()

    def _open(self) -> object:
        path = database_path()
        if not _DEFAULTS.is_file():
            raise W4tuneError(
                f"'{_DEFAULTS}' is missing: the package is damaged. Install w4tune again."
            )
        exists = path.is_file()
        dispatcher = _native.open(path if exists else None, _DEFAULTS, self.index)
        if not exists:
            self._absent = f"there is no cache '{path}'"
        elif _native.device_name(dispatcher):
            self._absent = f"the cache '{path}' has no kernel for it"
        else:
            self._absent = f"the cache '{path}' has nothing for this GPU"
        return dispatcher

    def reload(self) -> None:
        """Opens the file anew. What is launched or captured keeps the kernels it has."""
        self.dispatcher = self._open()
        self._selections.clear()
        self._reported.clear()

    def select(self, problem: bytes, m: int) -> Selection:
        """What serves; remembered."""
        key = (problem, m)
        found = self._selections.get(key)
        if found is None:
            found = self._selections[key] = Selection(
                *_native.select(self.dispatcher, problem, m)
            )
        return found

    def report_default(self, op: int, n: int, k: int, group_size: int, dtype: torch.dtype) -> None:
        """Says once for each layer's sizes that a default kernel serves it; an error if strict."""
        key = (op, n, k, group_size, dtype)
        if key in self._reported and not _strict:
            return
        self._reported.add(key)
        group = "channel" if group_size == k else group_size
        text = "f16" if dtype == torch.float16 else "bf16"
        message = (
            f"w4tune: {OPS[op]} n={n} k={k} group={group} {text} is served by a default kernel on "
            f"{torch.cuda.get_device_name(self.index)}: {self._absent}. It is right, not fast. "
            f"Tune it: w4tune --gpu auto{' --dependent' if self.dependent else ''} "
            f"--op {OPS[op]} --shape {n},{k} --group {group} --dtype {text}"
        )
        if _strict:
            raise W4tuneError(f"{message} (W4TUNE_STRICT is set)")
        warnings.warn(message, W4tuneWarning, stacklevel=2)



_lock = threading.Lock()
_devices: dict[int, Device] = {}


def device(index: int) -> Device:
    """The dispatcher of a CUDA device, opened at first use (not while a graph is captured)."""
    found = _devices.get(index)
    if found is not None:
        return found
    with _lock:
        if index not in _devices:
            torch.cuda.init()
            with torch.cuda.device(index):
                torch.cuda.current_stream()  # the context that PyTorch uses is current
                _devices[index] = Device(index)
        return _devices[index]


def reload() -> None:
    """Opens the cache file anew on every GPU in use: after tuning. CUDA graphs stay valid."""
    with _lock:
        for opened in _devices.values():
            opened.reload()


def selection(
    where: torch.device | int | str,
    op: str,
    n: int,
    k: int,
    group_size: int,
    dtype: torch.dtype,
    m: int,
) -> Selection:
    """What serves `m` tokens of a layer on a CUDA device; see `Selection`."""
    index = where if isinstance(where, int) else torch.device(where).index
    if index is None:
        index = torch.cuda.current_device()
    return device(index).select(problem_of(OPS.index(op), n, k, group_size, dtype), m)
