"""libw4tune through its C ABI (runtime/include/w4tune/w4tune.h). Standard library only."""

from __future__ import annotations

import ctypes
import os

from peers.problems import DTYPES, OPS, Problem


class W4tuneError(RuntimeError):
    """What w4tune_last_error() said."""


class _Problem(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("op", "n", "k", "group_size", "dtype")]


class Selection(ctypes.Structure):
    """w4tune_selection: valid as long as its Dispatcher."""

    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("match", ctypes.c_int),
        ("reason", ctypes.c_char_p),
        ("n", ctypes.c_int),
        ("k", ctypes.c_int),
        ("time_us", ctypes.c_float),
        ("fp16_us", ctypes.c_float),
        ("floor_us", ctypes.c_float),
    ]


class _Operands(ctypes.Structure):
    _fields_ = [
        ("x", ctypes.c_void_p),
        ("w", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("m", ctypes.c_int),
        ("ldx", ctypes.c_int64),
        ("ldy", ctypes.c_int64),
        ("dependent_launch", ctypes.c_int),
    ]


_OFFSET8 = 0  # w4tune_encoding
_POINTER = ctypes.c_void_p
# W4TUNE_ABI_VERSION of the header that the structs above repeat.
_ABI_VERSION = 2

_FUNCTIONS = {  # name: (result, arguments)
    "w4tune_open": (ctypes.c_int, (ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, _POINTER)),
    "w4tune_close": (None, (_POINTER,)),
    "w4tune_device_name": (ctypes.c_char_p, (_POINTER,)),
    "w4tune_select": (ctypes.c_int, (_POINTER, _POINTER, ctypes.c_int, _POINTER)),
    "w4tune_selection_config": (ctypes.c_char_p, (_POINTER,)),
    "w4tune_launch": (ctypes.c_int, (_POINTER, _POINTER, _POINTER, _POINTER)),
    "w4tune_packed_sizes": (ctypes.c_int, (_POINTER, _POINTER, _POINTER)),
    "w4tune_pack_weights_host": (
        ctypes.c_int,
        (_POINTER, _POINTER, _POINTER, ctypes.c_int, _POINTER, _POINTER),
    ),
    "w4tune_pack_weights_device": (
        ctypes.c_int,
        (_POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_int, _POINTER, _POINTER, _POINTER),
    ),
    "w4tune_abi_version": (ctypes.c_int, ()),
    "w4tune_last_error": (ctypes.c_char_p, ()),
    "w4tune_match_name": (ctypes.c_char_p, (ctypes.c_int,)),
}

def _problem(problem: Problem) -> _Problem:
    return _Problem(
        OPS.index(problem.op), problem.n, problem.k, problem.group, DTYPES.index(problem.dtype)
    )


class Library:
    """The shared library; OSError where it cannot be loaded."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._c = ctypes.CDLL(os.path.abspath(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(self._c, name, None)
            if function is None:
                raise OSError(f"{path} has no {name}: build the library of this checkout")
            function.restype = result
            function.argtypes = arguments
        version = self._c.w4tune_abi_version()
        if version != _ABI_VERSION:
            raise OSError(
                f"{path} has version {version} of the C ABI, this needs {_ABI_VERSION}: build the "
                "library of this checkout"
            )

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function that returns w4tune_status; raises what it says when it fails."""
        if getattr(self._c, name)(*arguments) != 0:
            raise W4tuneError(self._c.w4tune_last_error().decode())

    def packed_sizes(self, problem: Problem) -> tuple[int, int]:
        """Bytes of the packed weight and of its packed scales."""
        weight, scales = ctypes.c_size_t(), ctypes.c_size_t()
        self.call(
            "w4tune_packed_sizes",
            ctypes.byref(_problem(problem)),
            ctypes.byref(weight),
            ctypes.byref(scales),
        )
        return weight.value, scales.value

    def pack_host(self, problem: Problem, nibbles: bytes, scales: bytes) -> tuple[bytes, bytes]:
        """Packs on the CPU: nibbles [rows, k / 2] (value + 8), scales [rows, k / group]."""
        weight_bytes, scale_bytes = self.packed_sizes(problem)
        packed_w = ctypes.create_string_buffer(weight_bytes)
        packed_scales = ctypes.create_string_buffer(scale_bytes)
        self.call(
            "w4tune_pack_weights_host",
            ctypes.byref(_problem(problem)),
            nibbles,
            scales,
            _OFFSET8,
            packed_w,
            packed_scales,
        )
        return packed_w.raw, packed_scales.raw

    def open(self, path: str, device: int = -1, look_at: str | None = None) -> Dispatcher:
        """Opens a cache file; `look_at` names a GPU whose rows are loaded for looking only."""
        handle = ctypes.c_void_p()
        name = None if look_at is None else look_at.encode()
        self.call("w4tune_open", os.fsencode(path), device, name, ctypes.byref(handle))
        return Dispatcher(self, handle)

    def text(self, name: str, *arguments: object) -> str:
        """Calls a function that returns a string."""
        return getattr(self._c, name)(*arguments).decode()

    def close(self, handle: ctypes.c_void_p) -> None:
        self._c.w4tune_close(handle)


class Dispatcher:
    """One open cache file. Streams and operands are addresses (int) of the same CUDA context."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    def close(self) -> None:
        """Work that was launched must have finished."""
        self._library.close(self._handle)
        self._handle = ctypes.c_void_p()

    @property
    def device_name(self) -> str:
        return self._library.text("w4tune_device_name", self._handle)

    def select(self, problem: Problem, m: int) -> Selection:
        """The kernel for m tokens; W4tuneError with the reason where nothing serves."""
        selection = Selection()
        self._library.call(
            "w4tune_select",
            self._handle,
            ctypes.byref(_problem(problem)),
            m,
            ctypes.byref(selection),
        )
        if not selection.kernel:
            raise W4tuneError(selection.reason.decode())
        return selection

    def config(self, selection: Selection) -> str:
        return self._library.text("w4tune_selection_config", ctypes.byref(selection))

    def match(self, selection: Selection) -> str:
        return self._library.text("w4tune_match_name", selection.match)

    def pack(
        self,
        problem: Problem,
        nibbles: int,
        scales: int,
        packed_w: int,
        packed_scales: int,
        stream: int,
    ) -> None:
        """Packs on the GPU; sizes are Library.packed_sizes, addresses multiples of 16."""
        self._library.call(
            "w4tune_pack_weights_device",
            self._handle,
            ctypes.byref(_problem(problem)),
            nibbles,
            scales,
            _OFFSET8,
            packed_w,
            packed_scales,
            stream,
        )

    def launch(
        self, selection: Selection, x: int, w: int, scales: int, y: int, m: int, stream: int
    ) -> None:
        """Enqueues one product; may be captured once the stream has seen a launch outside."""
        operands = _Operands(x, w, scales, y, m, 0, 0, 0)
        self._library.call(
            "w4tune_launch",
            self._handle,
            ctypes.byref(selection),
            ctypes.byref(operands),
            stream,
        )
