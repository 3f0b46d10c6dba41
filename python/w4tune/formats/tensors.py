"""Tensors of a safetensors checkpoint: one file, or a folder with shards and their index."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from w4tune.errors import W4tuneError

__all__ = ["TensorFiles", "TensorInfo", "read_json"]

_SINGLE = "model.safetensors"
_INDEX = ".safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs"
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".npz")
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. begin and end: offsets in the file. dtype: safetensors' name (F16)."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    @property
    def is_float(self) -> bool:
        """FP16, BF16 or FP32."""
        return self.dtype in ("F16", "BF16", "F32")

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


class TensorFiles(AbstractContextManager["TensorFiles"]):
    """The tensors of a path, by name, in the order of their files.

    A folder is read as transformers does: `model.safetensors`, else the shards that
    `*.safetensors.index.json` names, else every `*.safetensors` in it. A tensor is read when it is
    asked for, and a caller that drops it frees it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._open: dict[Path, Any] = {}
        self.infos: dict[str, TensorInfo] = {}
        files, index = _files_of(self.path)
        for file in files:
            for info in _header(file):
                if index is not None and index.get(info.name) != file.name:
                    continue  # a tensor that the index leaves out, or has from another shard
                if info.name in self.infos:
                    raise W4tuneError(
                        f"{info.name} is in both {self.infos[info.name].file.name} and "
                        f"{file.name} of {self.path}: "
                        "leave one, or add the index that says which counts"
                    )
                self.infos[info.name] = info
        for name, shard in (index or {}).items():
            if name not in self.infos:
                raise W4tuneError(
                    f"{self.path}: the index has {name} in {shard}, which does not hold it: "
                    "the checkpoint is incomplete"
                )
        self.files = files
        if not self.infos:
            raise W4tuneError(f"{self.path} holds no tensors")

    @property
    def folder(self) -> Path:
        """Where config.json is looked for."""
        return self.path if self.path.is_dir() else self.path.parent

    def __contains__(self, name: object) -> bool:
        return name in self.infos

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __getitem__(self, name: str) -> TensorInfo:
        return self.infos[name]

    def tensor(self, name: str) -> Tensor:
        """The tensor on the CPU. It may share the mapped file: copy it before writing into it."""
        info = self.infos[name]
        try:
            if info.file not in self._open:
                self._open[info.file] = safe_open(str(info.file), framework="pt", device="cpu")
            tensor: Tensor = self._open[info.file].get_tensor(name)
            return tensor
        except (SafetensorError, OSError, ValueError, AttributeError, RuntimeError) as error:
            raise W4tuneError(
                f"{info.file}: {info} cannot be read ({_first_line(error)})"
            ) from None

    def chunks(self, name: str) -> Iterator[bytes]:
        """The tensor's bytes as they are stored, in pieces of 16 MiB at most."""
        info = self.infos[name]
        try:
            with info.file.open("rb") as stream:
                stream.seek(info.begin)
                left = info.nbytes
                while left > 0:
                    piece = stream.read(min(left, _CHUNK_BYTES))
                    if not piece:
                        raise W4tuneError(
                            f"{info.file}: {info} ends early: the file was changed while it "
                            "was read"
                        )
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise W4tuneError(
                f"{info.file}: {info} cannot be read ({_first_line(error)})"
            ) from None

    def close(self) -> None:
        self._open.clear()

    def __exit__(self, *_: object) -> None:
        self.close()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or one line that says why not."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise W4tuneError(f"{path}: not readable as JSON ({_first_line(error)})") from None
    if not isinstance(value, dict):
        raise W4tuneError(f"{path}: a JSON object is expected, not {type(value).__name__}")
    return value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _files_of(path: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Files in their order and, where an index says so, {tensor: name of its file}."""
    if path.is_file():
        if path.name.endswith(_INDEX):
            return _indexed(path)
        return [path], None
    if not path.is_dir():
        raise W4tuneError(f"{path}: no such file or folder")
    if (path / _SINGLE).is_file():
        return [path / _SINGLE], None
    indices = sorted(path.glob("*" + _INDEX))
    preferred = path / ("model" + _INDEX)
    if preferred in indices or len(indices) == 1:
        return _indexed(preferred if preferred in indices else indices[0])
    if len(indices) > 1:
        names = ", ".join(index.name for index in indices)
        raise W4tuneError(f"{path} has several indices ({names}): give the one that is meant")
    files = sorted(file for file in path.glob("*.safetensors") if file.is_file())
    if files:
        return files, None
    others = sorted(file.name for file in path.iterdir() if file.suffix in _OTHER_WEIGHTS)
    hint = f"; {others[0]} is of another kind, save it as safetensors first" if others else ""
    raise W4tuneError(f"{path} holds no .safetensors file{hint}")


def _indexed(index: Path) -> tuple[list[Path], dict[str, str]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise W4tuneError(f"{index}: no weight_map that names tensors and their files")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
            raise W4tuneError(
                f"{index}: {name} is in {shard!r}, which is not the name of a file beside the index"
            )
    files = [index.parent / shard for shard in sorted(set(weight_map.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise W4tuneError(
            f"{index.parent}: {missing[0]}{more} named by {index.name} is missing: fetch it again"
        )
    return files, weight_map


def _header(file: Path) -> list[TensorInfo]:
    """What the file holds, in the order of its offsets. safetensors itself checks it first."""
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise W4tuneError(f"{file} is a Git LFS pointer and not the weights: run git lfs pull")
        with safe_open(str(file), framework="pt", device="cpu"):
            pass  # a header that does not fit the file is refused here
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
    except (SafetensorError, OSError, ValueError, struct.error, RuntimeError) as error:
        raise W4tuneError(
            f"{file}: not a whole safetensors file ({_first_line(error)}): fetch or save it again"
        ) from None
    infos = [
        TensorInfo(
            name=name,
            file=file,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            begin=8 + size + entry["data_offsets"][0],
            end=8 + size + entry["data_offsets"][1],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    ]
    return sorted(infos, key=lambda info: (info.begin, info.name))
