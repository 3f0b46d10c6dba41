"""Writes a checkpoint: streamed safetensors in a folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from w4tune.errors import W4tuneError
from w4tune.formats.tensors import TensorFiles
from w4tune.quantizer import QuantizedWeight

__all__ = [
    "CheckpointWriter",
    "Planned",
    "compressed_tensors_config",
    "compressed_tensors_plan",
    "compressed_tensors_weight",
]

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = {"64": 8, "32": 4, "16": 2}  # by the bits in a dtype's name
_RESERVE = 1 << 24  # bytes left free on the disk


# ---- compressed-tensors, pack-quantized ----


def compressed_tensors_plan(
    name: str, n: int, k: int, groups: int, scale_dtype: str
) -> list[Planned]:
    """The tensors of one layer of n outputs and k inputs, before they exist."""
    prefix = name + "." if name else ""
    scale_bytes = 4 if scale_dtype == "F32" else 2
    words = (k + 7) // 8
    return [
        Planned(prefix + "weight_packed", "I32", (n, words), n * words * 4),
        Planned(prefix + "weight_scale", scale_dtype, (n, groups), n * groups * scale_bytes),
        Planned(prefix + "weight_shape", "I64", (2,), 16),
    ]


def compressed_tensors_weight(name: str, weight: QuantizedWeight) -> dict[str, Tensor]:
    """A layer's weight_packed, int32 [n, ceil(k / 8)] of q + 8, weight_scale and weight_shape."""
    prefix = name + "." if name else ""
    codes = weight.codes.cpu().contiguous()
    if codes.shape[1] % 4:
        codes = functional.pad(codes, (0, -codes.shape[1] % 4)).contiguous()
    return {
        prefix + "weight_packed": codes.view(torch.int32),
        prefix + "weight_scale": weight.scales.cpu().contiguous(),
        prefix + "weight_shape": torch.tensor([weight.n, weight.k], dtype=torch.int64),
    }


def compressed_tensors_config(
    group_sizes: Mapping[str, int | None], ignore: Iterable[str]
) -> dict[str, Any]:
    """quantization_config of config.json. group_sizes: of each layer, None for one scale an output.

    Layers are named one by one, and so are the modules that stay in floating point: then no reader
    has to know which modules of a model are Linears.
    """
    groups: dict[str, Any] = {}
    for index, size in enumerate(sorted(set(group_sizes.values()), key=lambda size: size or 0)):
        groups[f"group_{index}"] = {
            "targets": [name for name, of in group_sizes.items() if of == size],
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group" if size else "channel",
                "group_size": size,
                "dynamic": False,
            },
            "input_activations": None,
            "output_activations": None,
        }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": sorted({"lm_head", *ignore} - group_sizes.keys()),
    }


# ---- Writing ----


@dataclass(frozen=True)
class Planned:
    """A tensor to be written. dtype is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class CheckpointWriter(AbstractContextManager["CheckpointWriter"]):
    """Makes the folder `out` of the planned tensors, which may come in any order and one at a time.

    All is written to a hidden folder beside `out`, which gets its name in `commit()`; without a
    commit it is removed. An existing `out` is refused, or with force replaced at the very end, if
    it is empty or a checkpoint. A tensor goes to its place in its shard at once, so memory holds
    one of them.
    """

    def __init__(
        self,
        out: str | Path,
        planned: Sequence[Planned],
        *,
        shard_bytes: int = 5_000_000_000,
        force: bool = False,
    ) -> None:
        self.out = Path(out).resolve()
        self.force = force
        self.total_bytes = sum(entry.nbytes for entry in planned)
        self._shards = _into_shards(planned, shard_bytes)
        self._files: list[BufferedRandom] = []
        self._place: dict[str, tuple[BufferedRandom, int, Planned]] = {}
        self._folder: Path | None = None
        check_output(self.out, force)

    def __enter__(self) -> CheckpointWriter:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.out.parent).free
            if free < self.total_bytes + _RESERVE:
                raise W4tuneError(
                    f"{self.out.parent}: {self.total_bytes / 1e9:.1f} GB are needed and "
                    f"{free / 1e9:.1f} GB are free"
                )
            folder = tempfile.mkdtemp(
                prefix=f".{self.out.name}.", suffix=".partial", dir=self.out.parent
            )
            self._folder = Path(folder)
            umask = os.umask(0)
            os.umask(umask)
            self._folder.chmod(0o777 & ~umask)
            self._start()
        except OSError as error:
            self._discard()
            raise _cannot_write(self.out, error) from None
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    @property
    def names(self) -> list[str]:
        """Names of the shards."""
        if len(self._shards) == 1:
            return ["model.safetensors"]
        count = len(self._shards)
        return [f"model-{index + 1:05}-of-{count:05}.safetensors" for index in range(count)]

    def put(self, name: str, tensor: Tensor) -> None:
        """Writes a tensor, which must be as planned."""
        entry = self._place[name][2]
        dtype = _NAMES.get(tensor.dtype)
        if dtype != entry.dtype or tuple(tensor.shape) != entry.shape:
            raise W4tuneError(
                f"{name}: {entry.dtype} {list(entry.shape)} was planned, not {dtype} "
                f"{list(tensor.shape)}"
            )
        if tensor.numel():
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            self._write(name, [data.data])
        else:
            self._write(name, [])

    def copy(self, name: str, source: TensorFiles) -> None:
        """Writes a tensor as it is in another checkpoint, byte by byte."""
        self._write(name, source.chunks(name))

    def copy_file(self, source: Path, name: str) -> None:
        """Copies a file that belongs to the checkpoint; name may have folders in it."""
        assert self._folder is not None
        target = self._folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        except OSError as error:
            raise _cannot_write(self.out, error) from None

    def put_json(self, name: str, value: Mapping[str, Any]) -> None:
        assert self._folder is not None
        try:
            (self._folder / name).write_text(
                json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise _cannot_write(self.out, error) from None

    def commit(self) -> None:
        """Ends writing; `out` is there afterwards."""
        assert self._folder is not None
        if self._place:
            raise W4tuneError(
                f"{next(iter(self._place))} was planned and never written"
            )  # a fault of the caller
        if len(self._shards) > 1:
            shards = zip(self.names, self._shards, strict=True)
            weight_map = {entry.name: name for name, shard in shards for entry in shard}
            index = {
                "metadata": {"total_size": self.total_bytes},
                "weight_map": dict(sorted(weight_map.items())),
            }
            self.put_json("model.safetensors.index.json", index)
        try:
            for file in self._files:
                file.flush()
                os.fsync(file.fileno())
                file.close()
            check_output(self.out, self.force)
            self._replace()
        except OSError as error:
            raise _cannot_write(self.out, error) from None

    def _start(self) -> None:
        assert self._folder is not None
        for name, shard in zip(self.names, self._shards, strict=True):
            ordered = sorted(shard, key=lambda entry: (-_alignment(entry.dtype), entry.name))
            header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
            end = 0
            offsets = []
            for entry in ordered:
                offsets.append(end)
                header[entry.name] = {
                    "dtype": entry.dtype,
                    "shape": list(entry.shape),
                    "data_offsets": [end, end + entry.nbytes],
                }
                end += entry.nbytes
            text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            file = (self._folder / name).open("w+b")
            self._files.append(file)
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
            for entry, offset in zip(ordered, offsets, strict=True):
                self._place[entry.name] = (file, 8 + len(text) + offset, entry)

    def _write(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        file, offset, entry = self._place[name]
        size = 0
        try:
            file.seek(offset)
            for piece in pieces:
                size += len(piece)
                file.write(piece)
        except OSError as error:
            raise _cannot_write(self.out, error) from None
        if size != entry.nbytes:
            raise W4tuneError(f"{name}: {size} bytes where {entry.nbytes} were planned")
        del self._place[name]

    def _replace(self) -> None:
        assert self._folder is not None
        if not self.out.exists():
            self._folder.rename(self.out)
            self._folder = None
            return
        old = Path(
            tempfile.mkdtemp(prefix=f".{self.out.name}.", suffix=".old", dir=self.out.parent)
        )
        self.out.rename(old)  # onto an empty folder
        try:
            self._folder.rename(self.out)
        except BaseException:
            if not self.out.exists():
                old.rename(self.out)
            raise
        self._folder = None
        shutil.rmtree(old, ignore_errors=True)

    def _discard(self) -> None:
        for file in self._files:
            with suppress(OSError):  # a full disk refuses what is still buffered
                file.close()
        self._files.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def check_output(out: Path, force: bool) -> None:
    """W4tuneError where `out` must not be written."""
    if not out.exists():
        return
    if not out.is_dir():
        raise W4tuneError(f"{out} is a file; the output is a folder")
    entries = list(out.iterdir())
    if not entries:
        return
    if not force:
        raise W4tuneError(f"{out} exists: give another folder, or --force to replace it")
    if Path.cwd().is_relative_to(out):
        raise W4tuneError(f"{out} is the working folder or above it: not replaced")
    if not any(entry.suffix == ".safetensors" for entry in entries):
        raise W4tuneError(
            f"{out} holds files but no .safetensors: not a checkpoint, so --force does not "
            "replace it"
        )


def _into_shards(planned: Sequence[Planned], shard_bytes: int) -> list[list[Planned]]:
    shards: list[list[Planned]] = [[]]
    size = 0
    for entry in planned:
        if shards[-1] and size + entry.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.nbytes
    return shards


def _alignment(dtype: str) -> int:
    return next((size for bits, size in _ALIGNMENT.items() if dtype.endswith(bits)), 1)


def _cannot_write(out: Path, error: OSError) -> W4tuneError:
    return W4tuneError(f"{out} cannot be written: {error.strerror or error}")
