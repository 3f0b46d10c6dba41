"""From the JSON document of a run to Markdown. Standard library only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any

Document = dict[str, Any]

OURS = "w4tune"
FP16 = "cublas"
READ = "read"
CUT_SHORT = "tuning cut short by --peer-budget"  # in the label of such a variant
# A result so far from the float64 product, in mean |y|, is another function's.
WRONG = 0.1


def summary(time_us: list[float], clock_mhz: list[float], error: float | None) -> Document:
    """What is reported of one variant's samples."""
    q1, _, q3 = (
        statistics.quantiles(time_us, n=4, method="inclusive") if len(time_us) > 1 else time_us * 3
    )
    clocks = [mhz for mhz in clock_mhz if mhz > 0.0]
    return {
        "median_us": statistics.median(time_us),
        "q1_us": q1,
        "q3_us": q3,
        "clock_mhz": statistics.median(clocks) if clocks else None,
        "error": error,
        "samples_us": [round(us, 4) for us in time_us],
    }


def best_of(variants: list[Document]) -> Document:
    """What stands for a contestant: its fastest variant whose result is right."""
    right = [v for v in variants if v["error"] is None or v["error"] <= WRONG]
    if not right:
        raise ValueError(
            f"the result is wrong: off by {variants[0]['error']:.3g} times the mean of |y|"
        )
    return min(right, key=lambda variant: variant["median_us"])


def median_of(cell: Document, key: str) -> float | None:
    """Median in us; None where the contestant has none in this cell."""
    result = cell["results"].get(key)
    return None if result is None or "failed" in result else result["best"]["median_us"]


def best_w4_peer(cell: Document) -> tuple[str, float] | None:
    """The fastest INT4 kernel that is not ours: (key, us)."""
    others = [key for key in cell["results"] if key not in (OURS, FP16, READ)]
    timed = [(key, us) for key in others if (us := median_of(cell, key)) is not None]
    return min(timed, key=lambda entry: entry[1]) if timed else None


def geometric_mean(ratios: Iterable[float]) -> float | None:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _time(cell: Document, key: str) -> str:
    result = cell["results"].get(key)
    if result is None:
        return "–"
    if "failed" in result:
        return "failed"
    best = result["best"]
    return f"{best['median_us']:.2f} ± {(best['q3_us'] - best['q1_us']) / 2:.2f}"


def _ratio(other: float | None, ours: float | None) -> str:
    return "–" if other is None or ours is None else f"{other / ours:.2f}×"


def _error(cell: Document, key: str) -> str:
    result = cell["results"].get(key)
    if result is None or "failed" in result or result["best"]["error"] is None:
        return "–"
    return f"{result['best']['error']:.1e}"


def _heading(problem: Document) -> str:
    name = f"## {problem['op']} {problem['n']}×{problem['k']}"
    settings = f"groups of {problem['group']}, {problem['dtype']}"
    if problem["op"] == "gemm":
        return f"{name} ({settings})"
    return (
        f"{name} ({settings}): ours is gate, up and activation in one launch; peers multiply by "
        f"the same {2 * problem['n']} rows, without activation"
    )


def _by_problem(document: Document) -> list[tuple[Document, list[Document]]]:
    groups: list[tuple[Document, list[Document]]] = []
    for cell in document["cells"]:
        if not groups or groups[-1][0] != cell["problem"]:
            groups.append((cell["problem"], []))
        groups[-1][1].append(cell)
    return groups


def _summary_lines(document: Document) -> list[str]:
    cells = document["cells"]
    lines = []
    to_fp16, to_peer = [], []
    for cell in cells:
        ours, fp16, peer = median_of(cell, OURS), median_of(cell, FP16), best_w4_peer(cell)
        if ours is not None and fp16 is not None:
            to_fp16.append(fp16 / ours)
        if ours is not None and peer is not None:
            to_peer.append(peer[1] / ours)
    for name, ratios in (("cuBLASLt FP16", to_fp16), ("the best INT4 peer", to_peer)):
        mean = geometric_mean(ratios)
        if mean is not None:
            ahead = sum(ratio >= 1.0 for ratio in ratios)
            lines.append(
                f"- Against {name}: geometric mean {mean:.2f}× over {len(ratios)} cells, "
                f"{min(ratios):.2f} to {max(ratios):.2f}×; ahead in {ahead}."
            )
    best = [r["best"] for cell in cells for r in cell["results"].values() if "failed" not in r]
    clocks = [b["clock_mhz"] for b in best if b["clock_mhz"]]
    if clocks:
        lines.append(f"- SM clock, medians of cells: {min(clocks):.0f} to {max(clocks):.0f} MHz.")
    return lines


def _remarks(cells: list[Document]) -> list[str]:
    """One line for each failure, inexact match and short tuning, for all M that share it."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        for key, result in cell["results"].items():
            if "failed" in result:
                reasons.setdefault((key, result["failed"]), []).append(str(cell["m"]))
            elif key == OURS and not result["best"]["label"].startswith("exact"):
                match = result["best"]["label"].partition(":")[0]
                reasons.setdefault((key, f"not tuned at this M, match {match}"), []).append(
                    str(cell["m"])
                )
            elif CUT_SHORT in result["best"]["label"]:
                reasons.setdefault((key, CUT_SHORT), []).append(str(cell["m"]))
    return [f"- {key}, M = {', '.join(ms)}: {reason}" for (key, reason), ms in reasons.items()]


def markdown(document: Document) -> str:
    """The whole report."""
    environment, contestants = document["environment"], document["contestants"]
    lines = [
        f"# w4tune beside other kernels: {environment['gpu']}",
        "",
        f"{document['time']} · "
        + " · ".join(f"{k} {v}" for k, v in environment["versions"].items()),
        "",
        f"Protocol: {document['protocol']}. Times are medians in microseconds with half the "
        "interquartile range; ratios above 1 mean that w4tune is faster. The read line is a kernel "
        "that only reads the packed weight and its scales.",
        "",
    ]
    for contestant in contestants:
        lines.append(f"- {contestant['title']}: {contestant['note']}")
    lines += [f"- {note}" for note in environment["notes"]]
    lines += _summary_lines(document)
    if document.get("stopped"):
        lines.append(f"- Incomplete: {document['stopped']}")
    columns = [c for c in contestants if c["key"] not in (OURS, READ)]
    titles = {c["key"]: c["title"] for c in contestants}
    for problem, cells in _by_problem(document):
        lines += ["", _heading(problem), ""]
        rows = []
        for cell in cells:
            ours, peer = median_of(cell, OURS), best_w4_peer(cell)
            rows.append(
                [str(cell["m"]), _time(cell, READ), _time(cell, OURS)]
                + [_time(cell, c["key"]) for c in columns]
                + [
                    "–" if peer is None else titles[peer[0]],
                    _ratio(None if peer is None else peer[1], ours),
                    _ratio(median_of(cell, FP16), ours),
                ]
            )
        header = ["M", "read line", "w4tune"] + [c["title"] for c in columns]
        lines += _table(header + ["best INT4 peer", "over best peer", "over cuBLASLt"], rows)
        lines += ["", "max |error| ÷ mean |y|, against float64 on each one's own weight:", ""]
        judged = [OURS] + [c["key"] for c in columns]
        rows = [[str(cell["m"])] + [_error(cell, key) for key in judged] for cell in cells]
        lines += _table(["M", "w4tune"] + [c["title"] for c in columns], rows)
        remarks = _remarks(cells)
        lines += ["", *remarks] if remarks else []
    return "\n".join(lines) + "\n"
