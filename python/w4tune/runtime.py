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
import struct
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
    config: the kernel as text, "" when refused.
    time_us, fp16_us: the kernel and cuBLASLt FP16 where it was tuned, in one run; 0: not measured.
    floor_us: the lower bound by bandwidth and matrix rate there; 0: unknown.
    dequantised: the layer is faster through `dequantize` and PyTorch's FP16 or BF16 matmul, and
        takes that way.
    """

    match: str
    config: str
    reason: str
    time_us: float
    fp16_us: float
    floor_us: float
    dequantised: bool = False


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
            values = _native.select(self.dispatcher, problem, m)
            found = Selection(*values, dequantised=self._prefers_dequantised(values, problem, m))
            self._selections[key] = found
        return found

    def _prefers_dequantised(self, values: tuple, problem: bytes, m: int) -> bool:
        """Whether PyTorch's matmul on the dequantised weight is faster, dequantising included.

        Beside the product it reads the packed weight and writes 16 bits each, and for geglu reads
        gate and up and writes y, at about 85 % of the memory's bandwidth. Where nothing was
        measured it is a guess: from 256 tokens on that is spread over enough of them.
        """
        match, _, _, time_us, fp16_us, _ = values
        if match == "refused" or m < FEW_TOKENS:
            return False
        if fp16_us <= 0.0:
            return m >= 256
        op, n, k = struct.unpack_from("=3i", problem)
        rows = n if op == 0 else 2 * n
        moved = 2.5 * rows * k + (6 * m * n if op == 1 else 0)
        bandwidth = 0.85e3 * _native.dram_gbps(self.dispatcher)  # bytes in a microsecond
        return bandwidth > 0 and fp16_us + moved / bandwidth < time_us

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


FEW_TOKENS = 65
"""From here on FP16's own matmul may be faster, and a launch looks at what was measured."""

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
