"""Times Pi0.5's MLP stacks: w4tune beside PyTorch in BF16 and FP16 and other INT4 ways."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.problems import DTYPES, as_argument, parse_tokens
from pi05 import report

if TYPE_CHECKING:
    import torch

    from pi05.contestants import Contestant, Way
    from pi05.stacks import Case
    from pi05.timing import Run

OK, FAILED, USAGE, NO_DEVICE, INCOMPLETE = range(5)
FAMILIES = ("w4tune", "eager", "compile", "dequant", "gemlite", "bitblas", "merged")
CAMERAS = 3  # what OpenPI's policies send, absent ones as black images

DESCRIPTION = """\
Times the MLPs of one inference of Pi0.5 as they follow each other: 18 layers of the language model
once, on a prefix of 968 tokens, and 18 layers of the action expert ten times, on 10 or 50 tokens.
Each stack is one CUDA graph, each layer's weights are its own, so they come from DRAM. Norms,
residuals and attention are left out for everybody. Every result is compared with float32 on exactly
the weights that it was computed from.
"""

EXAMPLES = """examples:
  python bench/pi05_mlp.py                                everything; most of it is compilation
  python bench/pi05_mlp.py --quick                        short rounds, the likeliest ways only
  python bench/pi05_mlp.py --skip-dead-layer --cameras 2  and what two mistakes of real code cost
  python bench/pi05_mlp.py --db pi05.db --contestants w4tune,eager --m 10
  python bench/pi05_mlp.py --device cpu --size tiny       tries the program; times mean nothing

W4TUNE_DB (or --db) names the cache that w4tune serves from: tune it first, for both dtypes, with
`w4tune --db pi05.db` and `w4tune --db pi05.db --dtype bf16`, or `--dependent` for chains.

exit codes: 0 ok, 1 failed, 2 usage, 3 no usable device, 4 results are missing, or interrupted
"""


def _some_of(known: tuple[str, ...], what: str) -> Any:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ValueError(f"'{text}': {what} are {', '.join(known)}")
        return names

    return as_argument(parse)


def _at_least(least: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"'{text}': must be a number from {least} on")
        return int(text)

    return as_argument(parse)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python bench/pi05_mlp.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--m",
        type=as_argument(parse_tokens),
        default=[10, 50],
        metavar="LIST",
        help="tokens of the action expert (default: 10,50)",
    )
    add("--steps", type=_at_least(1), default=10, metavar="N", help="denoising steps (default: 10)")
    add(
        "--cameras",
        type=int,
        choices=(1, 2, 3),
        default=CAMERAS,
        help="measure the language model also with so many cameras instead of 3, two meaning "
        "M = 712 instead of 968, and report what the padded ones cost",
    )
    add(
        "--skip-dead-layer",
        action="store_true",
        help="measure the language model also without its last layer, whose MLP output nothing "
        "reads, and report what that layer costs",
    )
    add(
        "--contestants",
        type=_some_of(FAMILIES, "contestants"),
        default=list(FAMILIES),
        metavar="LIST",
        help=f"which of {','.join(FAMILIES)} (default: all)",
    )
    add(
        "--dtypes",
        type=_some_of(DTYPES, "dtypes"),
        default=list(DTYPES),
        metavar="LIST",
        help="f16, bf16 or both (default: both)",
    )
    add("--group", type=int, choices=(32, 64, 128), default=128, help="weights along K a scale")
    add("--db", metavar="FILE", help="w4tune's cache file or export (default: as W4TUNE_DB says)")
    add("--samples", type=_at_least(3), metavar="N", help="rounds (default: 25; 9 with --quick)")
    add(
        "--budget",
        type=_at_least(1),
        metavar="SECONDS",
        help="no compilation or tuning of others is begun when fewer than 45 s of these are left "
        "(default: 540; 150 with --quick)",
    )
    add("--quick", action="store_true", help="fewer rounds, only the likeliest ways of each")
    add(
        "--inductor-graphs",
        action="store_true",
        help="measure torch.compile in Inductor's own CUDA graphs: alone, since recording them "
        "breaks other graphs of the process that use cuBLAS",
    )
    add("--no-overhead", action="store_true", help="leave the host time of eager calls out")
    add("--seed", type=_at_least(0), default=1, metavar="N", help="of weights and x (default: 1)")
    add(
        "--out",
        default="pi05_mlp",
        metavar="STEM",
        help="writes STEM.json and STEM.md (default: pi05_mlp)",
    )
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the program")
    add("--size", choices=("pi05", "tiny"), default="pi05", help="tiny: to try the program")
    return parser


class Benchmark:
    """One run: contestants with their weights on the device, and the document that grows."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        import torch

        from peers import protocol
        from pi05 import contestants, stacks, timing

        self.arguments = arguments
        self.begun = time.monotonic()
        self.torch, self.protocol, self.stacks, self.timing = torch, protocol, stacks, timing
        on_gpu = arguments.device == "cuda"
        self.session = protocol.Session() if on_gpu else None
        ordinal = torch.cuda.current_device() if on_gpu else None
        self.device = torch.device(arguments.device, ordinal)
        self.size = stacks.SIZES[arguments.size]
        self.setting = contestants.Setting(
            size=self.size,
            seed=arguments.seed,
            group=arguments.group,
            device=self.device,
            session=self.session,
            seconds_left=self.seconds_left,
            quick=arguments.quick,
            inductor_graphs=arguments.inductor_graphs,
        )
        self.contestants: dict[str, Contestant] = {}
        self.described: list[report.Document] = []
        self.cells: list[report.Document] = []
        self.overhead: list[report.Document] = []
        self.overhead_protocol = ""
        # The fastest right way of each contestant in each case, for the whole inference.
        self.chosen: dict[tuple[str, Case, bool], Run] = {}

    def seconds_left(self) -> float:
        return float(self.arguments.budget) - (time.monotonic() - self.begun)

    # ---- preparing -------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes the contestants and their weights; who cannot take part is described as absent."""
        from pi05.contestants import FAMILIES as families

        for name in self.arguments.contestants:
            family = families[name]
            for dtype in family.dtypes:
                if dtype not in self.arguments.dtypes:
                    continue
                described: report.Document = {
                    "key": f"{name}-{dtype}",
                    "title": f"{family.title}, {'FP16' if dtype == 'f16' else 'BF16'}",
                    "role": family.make.role,
                    "dtype": dtype,
                    "note": family.note,
                }
                self.described.append(described)
                self._prepare(family.make, dtype, described)

    def _prepare(self, make: type[Contestant], dtype: str, described: report.Document) -> None:
        from pi05.contestants import Absent

        key, title = described["key"], described["title"]
        before, begun = self._allocated(), time.monotonic()
        try:
            if make.needs_gpu and self.session is None:
                raise Absent("needs a GPU")
            contestant = make(self.setting, dtype)
            contestant.build()
            self.setting.synchronize()
        except Absent as error:
            if make.role == report.OURS:
                raise
            described["absent"] = str(error)
            say(f"{title}: absent, {error}")
            return
        except Exception as error:
            described["absent"] = self.survived(error)
            say(f"{title}: absent, {described['absent']}")
            return
        self._collect()
        after = self._allocated()
        if after > before:  # else they share what another built
            described["weight_bytes"] = after - before
        self.contestants[key] = contestant
        size = f", {(after - before) / 1e6:.0f} MB" if after > before else ""
        say(f"{title}: ready in {time.monotonic() - begun:.1f} s{size}")

    def _allocated(self) -> int:
        return 0 if self.session is None else self.torch.cuda.memory_allocated()

    def _collect(self) -> None:
        if self.session is not None:
            self.session.collect()

    # ---- measuring -------------------------------------------------------------------------------

    def measure(self) -> None:
        from pi05.stacks import Case

        a, lm, expert = self.arguments, self.size.lm, self.size.expert
        tokens = self.size.prefix_tokens
        whole = Case(lm, tokens(CAMERAS), lm.layers)
        steps = [Case(expert, m, expert.layers) for m in a.m]
        for case in steps:
            title = f"Action expert, {case.layers} layers, M = {case.m}"
            self.measure_case("expert", case, title, "denoising step", a.steps)
        title = f"Language model, {whole.layers} layers, M = {whole.m}"
        self.measure_case("lm", whole, title, "prefix", 1)
        for case in steps:
            self.measure_inference(whole, case)
        fewer = Case(lm, tokens(a.cameras), lm.layers)
        if a.cameras != CAMERAS:
            self.measure_mistake(fewer, f"{a.cameras} cameras instead of {CAMERAS}")
        if a.skip_dead_layer:
            self.measure_mistake(Case(lm, whole.m, lm.layers - 1), "the last layer's MLP left out")
        if a.skip_dead_layer and a.cameras != CAMERAS:
            self.measure_mistake(Case(lm, fewer.m, lm.layers - 1), "both")
        if not a.no_overhead:
            self.measure_overhead()

    def measure_mistake(self, case: Case, mistake: str) -> None:
        title = f"Language model, {case.layers} layers, M = {case.m} ({mistake})"
        self.measure_case("lm without", case, title, "prefix", 1, {"mistake": mistake})

    def measure_case(
        self,
        kind: str,
        case: Case,
        title: str,
        unit: str,
        repeats: int,
        more: report.Document | None = None,
    ) -> None:
        """One stack, `repeats` times in one graph; times are of one of them."""
        entries, results = [], {}
        xs: dict[str, torch.Tensor] = {}
        for key, contestant in self.contestants.items():
            x = xs.setdefault(contestant.dtype, self._x(case, contestant.dtype))
            begun = time.monotonic()
            results[key], found = self._ways_of(contestant, case, x, repeats)
            entries += [(key, *entry) for entry in found]
            if time.monotonic() - begun > 5.0:
                say(f"  {key}: prepared in {time.monotonic() - begun:.0f} s")
        rows = self._sampled(entries, repeats)
        for key, way, error, row in rows:
            row |= {"label": way.label, "error": error}
            results[key].setdefault("ways", []).append(row)
        for key, result in results.items():
            self._settle(key, result)
            for capturable in (True, False):
                ways = [(r, w) for k, w, _, r in rows if k == key and w.capturable is capturable]
                right = [e for e in ways if report.is_right(e[0], self.contestants[key].dtype)]
                if right:
                    best = min(right, key=lambda entry: entry[0]["median_us"])
                    self.chosen[(key, case, capturable)] = best[1].run
        self._add(kind, title, unit, results, more)

    def measure_inference(self, lm: Case, expert: Case) -> None:
        """The language model once and the expert `steps` times, in one graph."""
        steps = self.arguments.steps
        title = f"Whole inference: prefix of {lm.m} once, M = {expert.m} {steps} times"
        results: dict[str, report.Document] = {}
        entries = []
        for key in self.contestants:
            results[key] = {}
            for capturable in (True, False):
                first = self.chosen.get((key, lm, capturable))
                then = self.chosen.get((key, expert, capturable))
                if first is None or then is None:
                    continue
                label = "one graph of its fastest ways" if capturable else "its own graphs"
                try:
                    timed = self.timing.make_timed(
                        self.session, [first] + [then] * steps, capturable
                    )
                except Exception as error:
                    results[key]["failed"] = self.survived(error)
                    continue
                entries.append((key, label, timed))
        samples = self.protocol.sample_in_turns([e[2] for e in entries], self.arguments.samples)
        for (key, label, _), taken in zip(entries, samples, strict=True):
            row = report.summary(taken.time_us, taken.clock_mhz) | {"label": label}
            results[key].setdefault("ways", []).append(row)
        for result in results.values():
            if result.get("ways"):
                result.pop("failed", None)
                result["best"] = min(result["ways"], key=lambda row: row["median_us"])
            else:
                result.setdefault("failed", "no right result in both stacks")
        self._add("inference", title, "inference", results)

    def _x(self, case: Case, dtype: str) -> torch.Tensor:
        generator = self.torch.Generator(self.device).manual_seed(self.arguments.seed + case.m)
        shape = (case.m, case.shape.width)
        x = self.torch.randn(shape, device=self.device, generator=generator)
        return x.to(self.stacks.TORCH_DTYPES[dtype])

    def _ways_of(
        self, contestant: Contestant, case: Case, x: torch.Tensor, repeats: int
    ) -> tuple[report.Document, list[tuple[Way, Any, float]]]:
        """A contestant's result as far as it goes, and (way, timed, error) for each that runs."""
        result: report.Document = {}
        found: list[tuple[Way, Any, float]] = []
        try:
            ways = contestant.ways(case, x)
            while True:
                way = next(ways, None)
                if way is None:
                    break
                runs = [way.run] * repeats
                timed = self.timing.make_timed(self.session, runs, way.capturable)
                error = self.stacks.error_of(
                    timed.outputs, x, lambda layer: contestant.exact(case.shape, layer)
                )
                timed.outputs = []
                found.append((way, timed, error))
            result["remarks"] = contestant.remarks(case)
        except Exception as error:
            reason = self.survived(error)
            if found:
                result["remarks"] = [f"not all ways: {reason}"]
            else:
                result["failed"] = reason
        return result, found

    def _sampled(
        self, entries: list[tuple[str, Way, Any, float]], repeats: int
    ) -> list[tuple[str, Way, float, report.Document]]:
        timed = [entry[2] for entry in entries]
        samples = self.protocol.sample_in_turns(timed, self.arguments.samples)
        rows = []
        for (key, way, _, error), taken in zip(entries, samples, strict=True):
            times = [us / repeats for us in taken.time_us]
            rows.append((key, way, error, report.summary(times, taken.clock_mhz)))
        return rows

    def _settle(self, key: str, result: report.Document) -> None:
        if not result.get("ways"):
            result.setdefault("failed", "nothing ran")
            return
        try:
            result["best"] = report.best_of(result["ways"], self.contestants[key].dtype)
        except ValueError as error:
            result["failed"] = str(error)

    def _add(
        self,
        kind: str,
        title: str,
        unit: str,
        results: report.Document,
        more: report.Document | None = None,
    ) -> None:
        cell = {"kind": kind, "title": title, "unit": unit, "results": results} | (more or {})
        self.cells.append(cell)
        told = ", ".join(
            f"{key} {row['median_us']:.1f}" if (row := report.best(cell, key)) else f"{key} failed"
            for key in results
        )
        say(f"{title}, us per {unit}: {told} ({self.seconds_left():.0f} s left)")
        self.write("not finished")
        self._collect()

    # ---- what a call costs the host --------------------------------------------------------------

    def measure_overhead(self) -> None:
        torch, timing = self.torch, self.timing
        batches, calls = (30, 100) if self.arguments.quick else (100, 200)
        ours = next((c for c in self.contestants.values() if c.role == report.OURS), None)
        shape = self.size.expert
        dtype = torch.bfloat16 if ours is None else ours.torch_dtype
        x = torch.randn(1, shape.width, device=self.device).to(dtype)
        h = torch.randn(1, shape.mlp, device=self.device).to(dtype)
        linear = torch.nn.Linear(shape.mlp, shape.width, bias=False).to(self.device, dtype)

        class Empty(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x

        empty = Empty()
        weight = linear.weight
        timed: list[tuple[str, Any, bool]] = [
            ("an empty nn.Module", lambda: empty(h), False),
            ("F.linear", lambda: torch.nn.functional.linear(h, weight), False),
            ("nn.Linear", lambda: linear(h), False),
        ]
        if ours is not None:
            mlp: Any = ours.mlps(shape)[0]  # type: ignore[attr-defined]
            gate_up, down = mlp.gate_up, mlp.down_proj
            timed += [
                ("w4tune.Linear", lambda: down(h), True),
                ("w4tune.GeGLU", lambda: gate_up(x), True),
                ("w4tune.GeGLUMLP (two launches)", lambda: mlp(x), False),
            ]
        loop = timing.loop_time_us(calls)
        self.overhead_protocol = (
            f"Medians of {batches} batches of {calls} calls at M = 1 of the expert's sizes, "
            f"{'BF16' if dtype == torch.bfloat16 else 'FP16'}, in inference mode; the device is "
            "idle when a batch begins and its queue takes a whole batch, so the host never waits "
            f"for it. A lambda and the loop are counted too: {loop:.2f} us."
        )
        with torch.inference_mode():
            for label, call, is_ours in timed:
                times = timing.host_time_us(call, self.setting.synchronize, batches, calls)
                row = report.summary(times, [])
                del row["samples_us"]
                self.overhead.append(row | {"label": label, "is_ours": is_ours})
                say(f"host time of {label}: {row['median_us']:.2f} us")

    # ---- the report ------------------------------------------------------------------------------

    def survived(self, error: Exception) -> str:
        """The reason in one line; raises where the GPU's context is lost with it."""
        reason = self.protocol.one_line(error)
        try:
            self.setting.synchronize()
        except Exception as lost:
            raise RuntimeError(f"the CUDA context is lost after: {reason}") from lost
        return reason

    def document(self, stopped: str | None) -> report.Document:
        torch, a = self.torch, self.arguments
        versions = {"torch": torch.__version__, "CUDA": torch.version.cuda}
        notes = ["The host's clock on a CPU: times mean nothing here."]
        if self.session is not None:
            notes = list(self.session.notes)
        quantised = []
        for described in self.described:
            contestant = self.contestants.get(described["key"])
            if described["role"] == report.OURS and contestant is not None:
                done = contestant.quantised  # type: ignore[attr-defined]
                quantised.append(done | {"title": described["title"]})
        return {
            "tool": "w4tune bench/pi05_mlp.py",
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "environment": {
                "device": "CPU" if self.session is None else self.session.properties.name,
                "versions": versions,
                "notes": notes,
                "command": sys.argv[1:],
            },
            "protocol": (
                f"Each layer of a stack has weights of its own and the same random x; a sample is "
                f"one CUDA graph of the whole sequence (the expert's {a.steps} denoising steps in "
                f"one), events inside; what brings its own graphs is called by the host, events "
                f"around; contestants in turns, {a.samples} rounds; groups of "
                f"{a.group}, seed {a.seed}. No norm, residual or attention. The error is the "
                "largest |y - r| / |r| (2-norm) of the layers, r in FP32 on exactly the weights of "
                "that row."
            ),
            "fp16_bytes": sum(2 * shape.weights for shape in self.size.shapes),
            "contestants": self.described,
            "cells": self.cells,
            "quantised": quantised,
            "overhead": self.overhead,
            "overhead_protocol": self.overhead_protocol,
            "stopped": stopped,
        }

    def write(self, stopped: str | None) -> None:
        document = self.document(stopped)
        text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
        Path(f"{self.arguments.out}.json").write_text(text, encoding="utf-8")
        markdown = report.markdown(document)
        Path(f"{self.arguments.out}.md").write_text(markdown, encoding="utf-8")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    arguments = make_parser().parse_args(argv)
    if arguments.budget is None:
        arguments.budget = 150 if arguments.quick else 540
    if arguments.inductor_graphs and arguments.contestants != ["compile"]:
        say("--inductor-graphs goes with --contestants compile alone")
        return USAGE
    if arguments.samples is None:
        arguments.samples = 9 if arguments.quick else 25
    if arguments.db is not None:
        if not Path(arguments.db).is_file():
            say(f"--db: there is no file {arguments.db}")
            return USAGE
        os.environ["W4TUNE_DB"] = arguments.db
    folder = Path(arguments.out).resolve().parent
    if not folder.is_dir():
        say(f"--out: there is no folder {folder}")
        return USAGE
    try:
        import torch
    except ImportError as error:
        say(f"PyTorch is needed: {error}")
        return NO_DEVICE
    if arguments.device == "cuda" and not torch.cuda.is_available():
        say(f"PyTorch {torch.__version__} sees no CUDA device")
        return NO_DEVICE
    from pi05.contestants import Absent

    code, stopped = OK, None
    with torch.no_grad():
        benchmark = Benchmark(arguments)
        try:
            benchmark.prepare()
            benchmark.measure()
        except KeyboardInterrupt:
            stopped, code = "interrupted", INCOMPLETE
        except Absent as error:
            say(f"w4tune: {error}")
            return FAILED
        except Exception as error:
            stopped, code = benchmark.protocol.one_line(error), FAILED
            say(f"stopped: {stopped}")
        benchmark.write(stopped)
    for ending in ("json", "md"):
        say(f"wrote {arguments.out}.{ending}")
    ours = report.keys_of(benchmark.document(stopped), report.OURS)
    missing = [key for cell in benchmark.cells for key in ours if report.best(cell, key) is None]
    return INCOMPLETE if code == OK and missing else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
