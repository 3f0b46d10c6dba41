"""`w4tune convert`: int4 formats are rewritten exactly, floating point is quantised."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from w4tune.errors import W4tuneError
from w4tune.formats import (
    FORMATS,
    Checkpoint,
    CheckpointWriter,
    TensorInfo,
    compressed_tensors_config,
    compressed_tensors_weight,
    kernel_group,
)
from w4tune.formats.console import Progress, count_of, reasons
from w4tune.formats.writer import Planned, check_output, compressed_tensors_plan
from w4tune.model import MLP_PROJECTIONS
from w4tune.modules import unsupported
from w4tune.quantizer import GROUP_SIZES, METHODS, quantize, resolve_group_size

__all__ = ["Options", "Report", "convert", "main"]

_SCALE_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_GROUPS: dict[str, int | str] = {"32": 32, "64": 64, "128": 128, "channel": "channel"}
_ROTATED = "weights in the rotated basis of DuQuant packs: of use only with those packs' transforms"
# Not copied: weights in other files, and what described the old ones.
_WEIGHT_SUFFIXES = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".gguf",
    ".npz",
    ".h5",
    ".msgpack",
    ".onnx",
    ".index.json",
)
_OLD_CONFIGS = ("config.json", "quantize_config.json", "quant_config.json", "quant_log.csv")


class _Usage(Exception):
    """A command line that cannot be meant."""


@dataclass(frozen=True)
class Options:
    """What `convert` does. include and exclude are regular expressions, searched for in names."""

    source: str = "auto"  # auto, float, or one of FORMATS
    include: Sequence[
        str
    ] = ()  # none: all quantised layers, or MLP_PROJECTIONS of a floating point checkpoint
    exclude: Sequence[str] = ()
    group_size: int | str = 128
    method: str = "mse"
    scale_dtype: torch.dtype | None = None  # None: the weight's, FP16 for FP32
    device: str = "cpu"
    shard_bytes: int = 5_000_000_000
    force: bool = False
    progress: bool = True


@dataclass
class Report:
    """What `convert` did. Bytes are of tensors, not of files."""

    input: str
    output: str
    formats: dict[str, int] = field(default_factory=dict)  # how many layers came in which
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)  # n, k, group_size, from
    dequantized: list[str] = field(default_factory=list)  # quantised layers that were not selected
    skipped: dict[str, str] = field(default_factory=dict)  # selected, left as they are, and why
    refused_by_kernels: dict[str, str] = field(
        default_factory=dict
    )  # written, but w4tune cannot serve them
    passed_through: int = 0  # tensors
    shards: list[str] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return {**vars(self), "format": "compressed-tensors"}

    def __str__(self) -> str:
        groups = Counter(
            (layer["group_size"] if not _by_channel(layer) else 0) for layer in self.layers.values()
        )
        sizes = ", ".join(
            f"{count} with groups of {size}" if size else f"{count} with one scale for each output"
            for size, count in sorted(groups.items())
        )
        origin = " and ".join(f"{count} {kind}" for kind, count in self.formats.items())
        layers = count_of(len(self.layers), "layer")
        passed = count_of(self.passed_through, "tensor")
        lines = [
            f"{self.output}: compressed-tensors, {layers} ({origin}): {sizes}",
            f"  {self.bytes_before / 1e6:.1f} MB -> {self.bytes_after / 1e6:.1f} MB in "
            f"{count_of(len(self.shards), 'file')}, {passed} passed through, {self.seconds:.1f} s",
        ]
        if self.dequantized:
            left = count_of(len(self.dequantized), "layer")
            lines.append(f"  {left} not selected, stored as floating point")
        lines += reasons("left as they are", self.skipped)
        lines += reasons("written, but refused by w4tune's kernels", self.refused_by_kernels)
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def _by_channel(layer: dict[str, Any]) -> bool:
    """One scale for each output, and not called a group of 32, 64 or 128 as well."""
    return layer["group_size"] == layer["k"] and layer["group_size"] not in GROUP_SIZES


def convert(source: str | Path, out: str | Path, options: Options = Options()) -> Report:
    """Writes checkpoint `source` as compressed-tensors into the folder `out`.

    Memory holds one layer at a time. Raises W4tuneError of one line, and leaves nothing then.
    """
    begin = time.monotonic()
    out = Path(out).resolve()
    _check_paths(Path(source).resolve(), out, options.force)
    with Checkpoint.open(source, options.source) as checkpoint:
        report = Report(
            str(source),
            str(out),
            bytes_before=sum(info.nbytes for info in checkpoint.files.infos.values()),
        )
        work = _QuantizedWork if checkpoint.layers else _FloatWork
        _run(work(checkpoint, options, report), checkpoint, out, options, report)
    report.seconds = round(time.monotonic() - begin, 3)
    return report


def _check_paths(source: Path, out: Path, force: bool) -> None:
    folder = source if source.is_dir() else source.parent
    if out in (source, folder):
        raise W4tuneError(f"{out} is the input: give another folder for the output")
    if folder.is_relative_to(out):
        raise W4tuneError(f"{out} holds the input: give another folder for the output")
    check_output(out, force)


def _run(
    work: _QuantizedWork | _FloatWork,
    checkpoint: Checkpoint,
    out: Path,
    options: Options,
    report: Report,
) -> None:
    files = checkpoint.files
    planned: list[Planned] = []
    sources: list[
        tuple[str, int]
    ] = []  # layers, and tensors that pass through, with what they weigh
    for name in files:
        layer = work.owner(name)
        if layer is None:
            info = files[name]
            planned.append(Planned(name, info.dtype, info.shape, info.nbytes))
            sources.append((name, info.nbytes))
            report.passed_through += 1
        elif work.leads(name):
            entries = work.plan(layer)
            planned += entries
            sources.append((name, sum(entry.nbytes for entry in entries)))
    _refuse_twice(planned)
    report.bytes_after = sum(entry.nbytes for entry in planned)
    with CheckpointWriter(
        out, planned, shard_bytes=options.shard_bytes, force=options.force
    ) as writer:
        report.shards = writer.names
        with Progress("converting", report.bytes_after, enabled=options.progress) as progress:
            for name, nbytes in sources:
                layer = work.owner(name)
                if layer is None:
                    writer.copy(name, files)
                else:
                    for tensor, value in work.tensors(layer).items():
                        writer.put(tensor, value)
                progress.advance(nbytes, name if layer is None else layer)
        stay = [
            name.removesuffix(".weight")
            for name in files
            if work.owner(name) is None and name.endswith(".weight") and len(files[name].shape) >= 2
        ]
        config = {
            key: value for key, value in checkpoint.config.items() if key != "compression_config"
        }
        sizes = {
            name: None if _by_channel(layer) else layer["group_size"]
            for name, layer in report.layers.items()
        }
        config["quantization_config"] = compressed_tensors_config(
            sizes, [*stay, *report.dequantized]
        )
        writer.put_json("config.json", config)
        if files.path.is_dir():
            for file in _companions(files.path, out):
                writer.copy_file(file, str(file.relative_to(files.path)))
        writer.commit()


def _refuse_twice(planned: list[Planned]) -> None:
    for name, count in Counter(entry.name for entry in planned).items():
        if count > 1:
            raise W4tuneError(f"{name} is in the input already and would be written a second time")


def _companions(folder: Path, out: Path) -> Iterator[Path]:
    """Files that belong to a checkpoint and hold no weights: tokenizer, processor, statistics."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.resolve() == out:
            continue
        if path.is_dir():
            if not path.is_symlink():
                yield from _companions(path, out)
        elif (
            path.is_file()
            and not path.name.endswith(_WEIGHT_SUFFIXES)
            and path.name not in _OLD_CONFIGS
        ):
            yield path


class _QuantizedWork:
    """Layers that are quantised already: codes and scales are kept as they are."""

    def __init__(self, checkpoint: Checkpoint, options: Options, report: Report) -> None:
        self._checkpoint = checkpoint
        self._report = report
        self._owner: dict[str, str] = {}
        self._leader: set[str] = set()
        notes: Counter[str] = Counter()
        self._selected = {
            name
            for name in checkpoint.layers
            if _selected(name, options.include or (".*",), options.exclude)
        }
        if not self._selected:
            raise W4tuneError(
                f"none of {len(checkpoint.layers)} quantised layers is selected: see "
                "--include, --exclude"
            )
        for name in checkpoint.layers:
            # What must be refused is refused before anything is written.
            layer = checkpoint.settle(name)
            for role, tensor in layer.tensors.items():
                if role != "bias":
                    self._owner[tensor] = name
            self._leader.add(layer.tensors["codes"])
            if layer.rotated:
                notes[_ROTATED] += 1
            if name not in self._selected:
                report.dequantized.append(name)
                continue
            size = kernel_group(layer.group_size, layer.k)
            if size is None:
                raise W4tuneError(
                    f"{layer.tensors['scales']}: groups of {layer.group_size} ({layer.format}); "
                    "the kernels have 32, 64, 128 or one for each output"
                )
            if size != layer.group_size:
                notes[f"groups of {layer.group_size} written as {size}, which is exact"] += 1
            notes.update(layer.notes)
            report.layers[name] = {
                "n": layer.n,
                "k": layer.k,
                "group_size": size,
                "from": layer.format,
            }
            if (reason := unsupported(layer.n, layer.k, size)) is not None:
                report.refused_by_kernels[name] = reason
        report.formats = dict(Counter(layer["from"] for layer in report.layers.values()))
        report.notes += [f"{text} ({count_of(count, 'layer')})" for text, count in notes.items()]

    def owner(self, tensor: str) -> str | None:
        return self._owner.get(tensor)

    def leads(self, tensor: str) -> bool:
        return tensor in self._leader

    def plan(self, name: str) -> list[Planned]:
        layer = self._checkpoint.layers[name]
        if name in self._selected:
            groups = layer.k // self._report.layers[name]["group_size"]
            return compressed_tensors_plan(name, layer.n, layer.k, groups, layer.scale_dtype)
        size = layer.n * layer.k * (4 if layer.scale_dtype == "F32" else 2)
        return [Planned(_join(name, "weight"), layer.scale_dtype, (layer.n, layer.k), size)]

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        if name in self._selected:
            return compressed_tensors_weight(name, self._checkpoint.read(name))
        return {_join(name, "weight"): self._checkpoint.dequantize(name)}


class _FloatWork:
    """Weights in floating point: the selected ones are quantised."""

    def __init__(self, checkpoint: Checkpoint, options: Options, report: Report) -> None:
        self._checkpoint = checkpoint
        self._options = options
        self._layers: dict[str, TensorInfo] = {}
        include = options.include or (MLP_PROJECTIONS,)
        for tensor in checkpoint.files:
            name, _, last = tensor.rpartition(".")
            info = checkpoint.files[tensor]
            if last != "weight" or not _selected(name, include, options.exclude):
                continue
            if (reason := self._unfit(info)) is not None:
                report.skipped[name] = reason
                continue
            self._layers[tensor] = info
            n, k = info.shape
            size = resolve_group_size(options.group_size, k)
            report.layers[name] = {"n": n, "k": k, "group_size": size, "from": "float"}
        if not self._layers:
            hint = f"--include is {' '.join(include)}"
            for name, reason in report.skipped.items():
                hint = f"{name}: {reason}"
                break
            raise W4tuneError(f"{checkpoint.files.path}: no weight to quantise; {hint}")
        report.formats = {"float": len(self._layers)}

    def _unfit(self, info: TensorInfo) -> str | None:
        if not info.is_float:
            return f"{info.dtype}, not FP16, BF16 or FP32"
        if len(info.shape) != 2:
            return f"{len(info.shape)} dimensions"
        return unsupported(*info.shape, self._options.group_size)

    def owner(self, tensor: str) -> str | None:
        return tensor.rpartition(".")[0] if tensor in self._layers else None

    def leads(self, tensor: str) -> bool:
        return True

    def _scale_dtype(self, info: TensorInfo) -> str:
        if self._options.scale_dtype is not None:
            return next(
                name for name, dtype in _SCALE_DTYPES.items() if dtype == self._options.scale_dtype
            )
        return "F16" if info.dtype == "F32" else info.dtype

    def plan(self, name: str) -> list[Planned]:
        info = self._layers[_join(name, "weight")]
        n, k = info.shape
        groups = k // resolve_group_size(self._options.group_size, k)
        return compressed_tensors_plan(name, n, k, groups, self._scale_dtype(info))

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        info = self._layers[_join(name, "weight")]
        weight = self._checkpoint.files.tensor(info.name).to(self._options.device)
        dtype = _SCALE_DTYPES[self._scale_dtype(info)]
        try:
            quantized = quantize(
                weight, self._options.group_size, method=self._options.method, scale_dtype=dtype
            )
        except W4tuneError as error:
            raise W4tuneError(f"{info.name}: {error}") from None
        return compressed_tensors_weight(name, quantized)


def _join(name: str, last: str) -> str:
    return f"{name}.{last}" if name else last


def _selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return any(re.search(pattern, name) for pattern in include) and not any(
        re.search(pattern, name) for pattern in exclude
    )


# ---- Command line ----

_DESCRIPTION = """\
Writes a checkpoint as compressed-tensors (pack-quantized), which w4tune, transformers and vLLM
read.

IN is a .safetensors file, or a folder with one, with shards and their index, and with config.json.
Its format is found from config.json and the tensors: GPTQ (both versions), AWQ (gemm),
compressed-tensors, BitBLAS and the DuQuant forks' layers are rewritten code by code; FP16, BF16 and
FP32 weights are quantised. Symmetric INT4 only: asymmetric zero points and reordered inputs
(desc_act) are refused. OUT is a folder that appears when all of it is written.
"""

_EXAMPLES = """\
examples:
  w4tune convert gemma-GPTQ gemma-int4
  w4tune convert openpi/pi05_libero pi05-int4 --group-size 128
  w4tune convert model.safetensors model-int4 --include mlp --exclude vision --method maxabs
  w4tune convert bitblas.safetensors out --from bitblas-lop3 --json

exit codes: 0 ok, 1 failed, 2 usage
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Usage(message)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)B?", text)
    size = (
        float(match[1]) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[match[2].upper()]
        if match
        else 0
    )
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 500MB or 5GB")
    return int(size)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    return text


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="w4tune convert",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("input", metavar="IN", help="checkpoint: file or folder")
    add("output", metavar="OUT", help="folder to make")
    add(
        "--format",
        choices=["compressed-tensors"],
        default="compressed-tensors",
        help="of OUT (only this one is written)",
    )
    add(
        "--from",
        dest="source",
        choices=["auto", "float", *FORMATS],
        default="auto",
        metavar="FORMAT",
        help=f"of IN: auto (default), float, {', '.join(FORMATS)}",
    )
    add(
        "--include",
        metavar="REGEX",
        type=_pattern,
        action="append",
        default=[],
        help="layers to convert, searched for in their names; may be given several times. Default: "
        f"all quantised layers, or of a floating point checkpoint '{MLP_PROJECTIONS}'",
    )
    add(
        "--exclude",
        metavar="REGEX",
        type=_pattern,
        action="append",
        default=[],
        help="layers to leave: in floating point, dequantised where they are quantised",
    )
    quantising = parser.add_argument_group("quantising a floating point checkpoint")
    add = quantising.add_argument
    add("--group-size", choices=list(_GROUPS), help="inputs that share a scale (default 128)")
    add(
        "--method",
        choices=METHODS,
        help="scales of least squared error, or max|w| / 7 (default mse)",
    )
    add("--scale-dtype", choices=["fp16", "bf16"], help="default: the weight's, fp16 for FP32")
    add("--device", help="where to quantise: cpu, cuda, cuda:1 (default cuda where there is one)")
    add = parser.add_argument
    add(
        "--shard-size",
        metavar="SIZE",
        type=_bytes,
        default=5_000_000_000,
        help="largest file of OUT (default 5GB)",
    )
    add("--force", action="store_true", help="replace OUT where it is a checkpoint")
    add(
        "--json",
        action="store_true",
        help="print one JSON document on standard output, and no progress",
    )
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise _Usage(f"--device {device}: {str(error).splitlines()[0]}") from None
    scale_dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16, None: None}
    return Options(
        source=arguments.source,
        include=tuple(arguments.include),
        exclude=tuple(arguments.exclude),
        group_size=_GROUPS[arguments.group_size or "128"],
        method=arguments.method or "mse",
        scale_dtype=scale_dtypes[arguments.scale_dtype],
        device=device,
        shard_bytes=arguments.shard_size,
        force=arguments.force,
        progress=not arguments.json,
    )


def _refuse_idle_options(arguments: argparse.Namespace) -> None:
    """Options for quantising say nothing where weights are quantised already."""
    given = [
        name
        for name in ("group_size", "method", "scale_dtype", "device")
        if getattr(arguments, name)
    ]
    if not given or arguments.source == "float":
        return
    with Checkpoint.open(arguments.input, arguments.source) as checkpoint:
        if checkpoint.layers:
            kinds = ", ".join(checkpoint.formats())
            option = given[0].replace("_", "-")
            raise _Usage(
                f"--{option} is for floating point checkpoints, and {arguments.input} is "
                f"quantised ({kinds})"
            )


@contextmanager
def _stopped_cleanly() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, so that nothing half written stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 where it failed, 2 where the command line cannot be meant."""
    try:
        arguments = _parser().parse_args(argv)
        _refuse_idle_options(arguments)
        options = _options(arguments)
        with _stopped_cleanly():
            report = convert(arguments.input, arguments.output, options)
        print(json.dumps(report.json(), indent=2) if arguments.json else report, flush=True)
        return 0
    except SystemExit as end:  # --help
        return int(end.code or 0)
    except _Usage as error:
        print(f"w4tune convert: {error}. See w4tune convert --help", file=sys.stderr)
        return 2
    except W4tuneError as error:
        print(f"w4tune convert: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(
            f"w4tune convert: {error.filename or arguments.input}: {error.strerror or error}",
            file=sys.stderr,
        )
        return 1
    except torch.cuda.OutOfMemoryError:
        print("w4tune convert: the device is out of memory: try --device cpu", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"w4tune convert: interrupted; {arguments.output} was not written", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
