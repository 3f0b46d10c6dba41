"""python bench/peers: times w4tune's winners beside other W4A16 kernels on the GPU that is here."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # so that `peers` is this folder

from peers import problems, report  # noqa: E402

if TYPE_CHECKING:
    import torch

    from peers.contestants import Contestant
    from peers.protocol import Session, Variant

OK, FAILED, USAGE, NO_DEVICE, INCOMPLETE = range(5)
PEER_KEYS = ("cublas", "tinygemm", "gemlite", "bitblas")
REPOSITORY = Path(__file__).resolve().parents[2]

EXAMPLES = """examples:
  python bench/peers                                   Pi0.5's six problems at seven M
  python bench/peers --m 1,10,16,50 --peer-budget 40   a shorter run
  python bench/peers --shapes geglu:4096x1024 --m 10 --md /dev/stdout
  python bench/peers --db pi05.db --lib ./libw4tune.so --peers cublas,tinygemm

exit codes: 0 ok, 1 failed, 2 usage, 3 no usable device, 4 cells without w4tune, or interrupted
"""


def default_database() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(home) / "w4tune" / "w4tune.db")


def default_library() -> str:
    builds = [
        REPOSITORY / "build" / name / "runtime" / "libw4tune.so" for name in ("library", "release")
    ]
    return str(next((path for path in builds if path.exists()), builds[0]))


def _peers(text: str) -> list[str]:
    keys = [key for key in text.split(",") if key]
    unknown = [key for key in keys if key not in PEER_KEYS]
    if unknown:
        raise ValueError(f"unknown peer '{unknown[0]}'; there are {', '.join(PEER_KEYS)}")
    return keys


def _samples(text: str) -> int:
    if not text.isdecimal() or int(text) < 3:
        raise ValueError(f"'{text}': at least 3 samples make a median with quartiles")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0.0:
        raise ValueError(f"'{text}' is no number of seconds")
    return seconds


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python bench/peers",
        description="Times w4tune's winners beside cuBLAS FP16, PyTorch's tinygemm, GemLite and "
        "BitBLAS by one protocol, interleaved in one process. Needs PyTorch with CUDA; GemLite and "
        "BitBLAS take part where they are installed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--db", default=default_database(), metavar="FILE", help="w4tune's cache file or export")
    add("--lib", default=default_library(), metavar="FILE", help="libw4tune.so")
    add(
        "--shapes",
        type=problems.as_argument(problems.parse_shapes),
        default=list(problems.PI05),
        metavar="LIST",
        help="NxK or geglu:NxK, separated by commas (default: Pi0.5's six)",
    )
    add(
        "--m",
        type=problems.as_argument(problems.parse_tokens),
        default=[1, 8, 10, 16, 32, 50, 64],
        metavar="LIST",
        help="numbers of tokens (default: 1,8,10,16,32,50,64)",
    )
    add("--dtype", choices=problems.DTYPES, default="f16", help="of x, y and the scales")
    add("--group", type=int, choices=(32, 64, 128), default=128, help="weights along K a scale")
    add(
        "--peers",
        type=problems.as_argument(_peers),
        default=list(PEER_KEYS),
        metavar="LIST",
        help=f"which of {','.join(PEER_KEYS)} (default: all)",
    )
    add(
        "--samples",
        type=problems.as_argument(_samples),
        default=25,
        metavar="N",
        help="rounds (default: 25)",
    )
    add(
        "--peer-budget",
        type=problems.as_argument(_seconds),
        default=300.0,
        metavar="SECONDS",
        help="for the tuning of each peer that tunes, over the whole run (default: 300)",
    )
    add("--seed", type=int, default=1, metavar="N", help="of the operands (default: 1)")
    add("--out", default="peers.json", metavar="FILE", help="JSON report (default: peers.json)")
    add("--md", default="peers.md", metavar="FILE", help="Markdown report (default: peers.md)")
    return parser


class Budget:
    """Seconds for one peer's tuning, shared evenly by the cells that are left."""

    def __init__(self, seconds: float, cells: int) -> None:
        self._left, self._cells = seconds, cells

    def share(self) -> float:
        return max(self._left, 0.0) / max(self._cells, 1)

    def spend(self, seconds: float) -> None:
        self._left -= seconds
        self._cells -= 1


class Run:
    """One run: the contestants, and the document that grows with every cell."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from peers import contestants, protocol

        self.arguments = arguments
        self.protocol = protocol
        self.session: Session = protocol.Session()
        self.contestants: list[Contestant] = []
        self.described: list[report.Document] = []
        self.cells: list[report.Document] = []
        total = len(arguments.shapes) * len(arguments.m)
        self.budgets: dict[str, Budget] = {}
        makers: dict[str, Any] = {
            report.OURS: lambda session: contestants.W4tune(session, arguments.lib, arguments.db)
        } | {key: contestants.PEERS[key] for key in arguments.peers}
        for key, make in makers.items():
            self.budgets[key] = Budget(arguments.peer_budget, total)
            title = contestants.PEERS[key].title if key in contestants.PEERS else "w4tune"
            say(f"{title}: starting")
            try:
                contestant = make(self.session)
            except contestants.Absent as error:
                if key == report.OURS:
                    raise
                say(f"{title}: {error}")
                self.described.append({"key": key, "title": title, "note": str(error)})
                continue
            self.contestants.append(contestant)
            self.described.append({"key": key, "title": title, "note": contestant.note})
        self.random_weight = contestants.Weight.random
        self.dtype = contestants.TORCH_DTYPES[arguments.dtype]

    def document(self, stopped: str | None) -> report.Document:
        import torch

        versions = {"torch": torch.__version__, "CUDA": torch.version.cuda, "driver": driver()}
        p = self.protocol
        return {
            "tool": "w4tune bench/peers",
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "environment": {
                "gpu": self.session.properties.name,
                "l2_bytes": self.session.l2_bytes,
                "versions": versions,
                "notes": self.session.notes,
                "command": sys.argv[1:],
            },
            "protocol": f"cold weights > {p.COLD_FACTOR:g}x L2, graphs of >= {p.MIN_LAUNCHES} "
            f"launches and >= {p.MIN_GRAPH_US:g} us, medians of {self.arguments.samples} samples, "
            f"contestants in turns, random operands (seed {self.arguments.seed})",
            "contestants": self.described,
            "cells": self.cells,
            "stopped": stopped,
        }

    def measure(self) -> None:
        a = self.arguments
        for op, n, k in a.shapes:
            self.measure_problem(problems.Problem(op, n, k, a.group, a.dtype))

    def measure_problem(self, problem: problems.Problem) -> None:
        import torch

        say(f"{problem.name}: packing")
        weight = self.random_weight(problem, self.arguments.seed)
        failed: dict[str, str] = {}
        for contestant in self.contestants:
            try:
                contestant.load(weight)
                torch.cuda.synchronize()
            except Exception as error:
                failed[contestant.key] = self.survived(error)
        scale_bytes = weight.scales.numel() * weight.scales.element_size()
        read = self.session.read_line(weight.values.numel() // 2, scale_bytes)
        generator = torch.Generator(device="cuda").manual_seed(self.arguments.seed + 1)
        for m in self.arguments.m:
            self.session.collect()
            begun = time.monotonic()
            x = torch.randn(m, problem.k, device="cuda", generator=generator).to(self.dtype)
            self.cells.append(self.measure_cell(problem, x, read, failed))
            done, total = len(self.cells), len(self.arguments.shapes) * len(self.arguments.m)
            took = time.monotonic() - begun
            told = self.told(self.cells[-1])
            say(f"[{done}/{total}] {problem.name}, M = {m}: {told} ({took:.1f} s)")
        for contestant in self.contestants:
            contestant.unload()
        self.session.collect()

    def measure_cell(
        self,
        problem: problems.Problem,
        x: torch.Tensor,
        read: Variant | None,
        failed_to_load: dict[str, str],
    ) -> report.Document:
        """One M of one problem: every contestant's variants, sampled in turns."""
        results: dict[str, report.Document] = {}
        entries: list[tuple[str, Any, float | None]] = []  # contestant, graph, error
        if read is not None:
            try:
                entries.append((report.READ, self.protocol.MeasuredGraph(self.session, read), None))
            except Exception as error:
                results[report.READ] = {"failed": self.survived(error)}
        for contestant in self.contestants:
            if contestant.key in failed_to_load:
                results[contestant.key] = {"failed": failed_to_load[contestant.key]}
                continue
            budget = self.budgets[contestant.key]
            begun = time.monotonic()
            try:
                variants = contestant.variants(x, budget.share())
                reference = contestant.reference(x)
            except Exception as error:
                results[contestant.key] = {"failed": self.survived(error)}
                continue
            finally:
                budget.spend(time.monotonic() - begun)
            for variant in variants:
                try:
                    y = self.protocol.output_of(self.session, variant)
                    error_of = self.protocol.relative_error(y, reference)
                    graph = self.protocol.MeasuredGraph(self.session, variant)
                except Exception as error:
                    # Stands only where no other variant of this contestant runs.
                    results[contestant.key] = {"failed": self.survived(error)}
                    continue
                entries.append((contestant.key, graph, error_of))
        samples = self.protocol.sample_in_turns([e[1] for e in entries], self.arguments.samples)
        by_key: dict[str, list[report.Document]] = {}
        for (key, graph, error_of), taken in zip(entries, samples, strict=True):
            row = report.summary(taken.time_us, taken.clock_mhz, error_of)
            row |= {"label": graph.variant.label, "launches": graph.launches}
            by_key.setdefault(key, []).append(row)
        for key, rows in by_key.items():
            try:
                results[key] = {"best": report.best_of(rows), "variants": rows}
            except ValueError as error:
                results[key] = {"failed": str(error), "variants": rows}
        described = {
            "op": problem.op,
            "n": problem.n,
            "k": problem.k,
            "group": problem.group,
            "dtype": problem.dtype,
        }
        return {"problem": described, "m": x.shape[0], "results": results}

    def survived(self, error: Exception) -> str:
        """The reason in one line; raises where the GPU's context is lost with it."""
        import torch

        reason = self.protocol.one_line(error)
        try:
            torch.cuda.synchronize()
        except Exception as lost:
            raise RuntimeError(f"the CUDA context is lost after: {reason}") from lost
        return reason

    @staticmethod
    def told(cell: report.Document) -> str:
        parts = []
        for key in cell["results"]:
            median = report.median_of(cell, key)
            parts.append(f"{key} {'failed' if median is None else f'{median:.2f}'}")
        return ", ".join(parts)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def driver() -> str:
    """The driver's version as nvidia-smi's library tells it; 'unknown' without pynvml."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:
        return "unknown"


def write(run: Run, arguments: argparse.Namespace, stopped: str | None) -> None:
    document = run.document(stopped)
    for path, text in (
        (arguments.out, json.dumps(document, ensure_ascii=False, indent=1) + "\n"),
        (arguments.md, report.markdown(document)),
    ):
        Path(path).write_text(text, encoding="utf-8")
        say(f"wrote {path}")


def main(argv: list[str]) -> int:
    arguments = make_parser().parse_args(argv)
    for option, path in (("--db", arguments.db), ("--lib", arguments.lib)):
        if not Path(path).is_file():
            say(f"{option}: there is no file {path}")
            return USAGE
    for op, n, k in arguments.shapes:
        if k % arguments.group != 0:
            say(f"--group: {arguments.group} does not divide K of {op} {n}x{k}")
            return USAGE
    try:
        import torch
    except ImportError as error:
        say(f"PyTorch is needed: {error}")
        return NO_DEVICE
    if not torch.cuda.is_available():
        say(f"PyTorch {torch.__version__} sees no CUDA device")
        return NO_DEVICE
    from peers.contestants import Absent

    code = OK
    with torch.no_grad():
        try:
            run = Run(arguments)
        except Absent as error:
            say(f"w4tune: {error}")
            return FAILED
        stopped = None
        try:
            run.measure()
        except KeyboardInterrupt:
            stopped, code = "interrupted", INCOMPLETE
        except Exception as error:
            stopped, code = run.protocol.one_line(error), FAILED
            say(f"stopped: {stopped}")
    try:
        write(run, arguments, stopped)
    except OSError as error:
        say(f"cannot write the report: {error}")
        return FAILED
    if code == OK and any(report.median_of(cell, report.OURS) is None for cell in run.cells):
        code = INCOMPLETE
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
