"""From the JSON document of a run to Markdown. Standard library only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

Document = dict[str, Any]

# What a contestant stands for.
OURS, PYTORCH, MERGED, W4 = "ours", "pytorch", "merged", "w4"

# What issue 4 asks for.
EXPERT_SPEEDUP = 2.0
LM_SLOWDOWN = 1.05
WEIGHT_SHARE = 0.27
QUANTIZE_SECONDS = 20.0
CALL_US = 5.0

# ||y - reference|| / ||reference|| of a right result stays below so many units of roundoff. A
# rounding to nearest is off by 0.4 of the unit roundoff u, root mean square. Gate (times GELU's
# slope), up, GELU and product round h by about 0.4 u * sqrt(1.3 + 1 + 1 + 1), y rounds once more
# and weights that are rounded when they are dequantised add the same for each product: in all
# 1.0 to 1.5 u. Sums of a split that are rounded on the way may double it.
RIGHT_WITHIN = 8.0
UNIT_ROUNDOFF = {"f16": 2.0**-11, "bf16": 2.0**-8}


def summary(time_us: list[float], clock_mhz: list[float]) -> Document:
    """What is reported of one way's samples."""
    q1, q2, q3 = quartiles(time_us)
    clocks = [mhz for mhz in clock_mhz if mhz > 0.0]
    return {
        "median_us": q2,
        "q1_us": q1,
        "q3_us": q3,
        "clock_mhz": statistics.median(clocks) if clocks else None,
        "error": None,
        "samples_us": [round(us, 4) for us in time_us],
    }


def is_right(row: Document, dtype: str) -> bool:
    """Whether a way's result is that of its weights; NaN is not."""
    return row["error"] <= RIGHT_WITHIN * UNIT_ROUNDOFF[dtype]


def best_of(rows: list[Document], dtype: str) -> Document:
    """What stands for a contestant: its fastest way whose result is right."""
    right = [row for row in rows if is_right(row, dtype)]
    if not right:
        limit = RIGHT_WITHIN * UNIT_ROUNDOFF[dtype]
        raise ValueError(f"the result is wrong: off by {rows[0]['error']:.2g}, limit {limit:.2g}")
    return min(right, key=lambda row: row["median_us"])


def best(cell: Document, key: str) -> Document | None:
    """The row that stands for a contestant; None where it has none in this cell."""
    return cell["results"].get(key, {}).get("best")


def fastest(cell: Document, keys: Iterable[str]) -> tuple[str, Document] | None:
    rows = [(key, row) for key in keys if (row := best(cell, key)) is not None]
    return min(rows, key=lambda entry: entry[1]["median_us"]) if rows else None


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    q1, q2, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, q2, q3


def ratio(other: Document, ours: Document) -> tuple[float, float, float]:
    """How many times ours is as fast: quartiles over rounds, each of samples taken in turns."""
    pairs = zip(other["samples_us"], ours["samples_us"], strict=True)
    return quartiles([theirs / mine for theirs, mine in pairs])


def keys_of(document: Document, *roles: str) -> list[str]:
    return [c["key"] for c in document["contestants"] if c["role"] in roles]


def markdown(document: Document) -> str:
    """The whole report."""
    environment = document["environment"]
    versions = " · ".join(f"{k} {v}" for k, v in environment["versions"].items())
    lines = [
        f"# Pi0.5's MLP stacks: {environment['device']}",
        "",
        f"{document['time']} · {versions}",
        "",
        f"{document['protocol']} Times are medians in microseconds with half the interquartile "
        "range. Ratios are medians of the rounds' own ratios with their quartiles; above 1 means "
        "that the row is faster.",
        "",
    ]
    for contestant in document["contestants"]:
        absent = contestant.get("absent")
        lines.append(
            f"- {contestant['title']}: " + (f"absent: {absent}" if absent else contestant["note"])
        )
    lines += [f"- {note}" for note in environment["notes"]]
    clocks = [
        result["best"]["clock_mhz"]
        for cell in document["cells"]
        for result in cell["results"].values()
        if result.get("best") and result["best"]["clock_mhz"]
    ]
    if clocks:
        lines.append(f"- SM clock, medians of rows: {min(clocks):.0f} to {max(clocks):.0f} MHz")
    if document.get("stopped"):
        lines.append(f"- Incomplete: {document['stopped']}")
    lines += _targets(document)
    for cell in document["cells"]:
        lines += _cell(document, cell)
    lines += _mistakes(document)
    lines += _weights(document)
    lines += _quantising(document)
    lines += _overhead(document)
    return "\n".join(lines) + "\n"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows]]


def _time(row: Document) -> str:
    return f"{row['median_us']:.2f} ± {(row['q3_us'] - row['q1_us']) / 2:.2f}"


def _ratio(other: Document, ours: Document) -> str:
    q1, q2, q3 = ratio(other, ours)
    return f"{q2:.2f}× ({q1:.2f} to {q3:.2f})"


def _title(document: Document, key: str) -> str:
    return next(c["title"] for c in document["contestants"] if c["key"] == key)


def _cell(document: Document, cell: Document) -> list[str]:
    rival = fastest(cell, keys_of(document, PYTORCH))
    rows, remarks = [], []
    for contestant in document["contestants"]:
        key, result = contestant["key"], cell["results"].get(contestant["key"])
        if result is None:
            continue
        if "failed" in result:
            remarks.append(f"- {contestant['title']}: {result['failed']}")
            continue
        row = result["best"]
        over = "–"
        if rival is not None:
            over = "1 (the best of PyTorch)" if rival[0] == key else _ratio(rival[1], row)
        error = "–" if row["error"] is None else f"{row['error']:.1e}"
        rows.append([contestant["title"], _time(row), over, error, row["label"]])
        remarks += [f"- {contestant['title']}: {remark}" for remark in result.get("remarks", [])]
        remarks += [
            f"- {contestant['title']}: wrong result, not counted: {way['label']}"
            for way in result["ways"]
            if way["error"] is not None and not is_right(way, contestant["dtype"])
        ]
    lines = ["", f"## {cell['title']}", ""]
    header = ["", f"us per {cell['unit']}", "over the best of PyTorch", "error", "way"]
    return lines + _table(header, rows) + (["", *remarks] if remarks else [])


def _targets(document: Document) -> list[str]:
    """What the issue asks for, beside what was measured."""
    rows = []
    for cell in document["cells"]:
        ours = fastest(cell, keys_of(document, OURS))
        rival = fastest(cell, keys_of(document, PYTORCH))
        if ours is None or rival is None or cell["kind"] not in ("lm", "expert"):
            continue
        if cell["kind"] == "expert":
            q1, q2, q3 = ratio(rival[1], ours[1])
            wanted, met = f"at least {EXPERT_SPEEDUP:.1f}× as fast", q2 >= EXPERT_SPEEDUP
            found = f"{q2:.2f}× ({q1:.2f} to {q3:.2f})"
        else:
            q1, q2, q3 = ratio(ours[1], rival[1])
            wanted, met = f"at most {LM_SLOWDOWN:.2f} × the time", q2 <= LM_SLOWDOWN
            found = f"{q2:.3f} × ({q1:.3f} to {q3:.3f})"
        versus = f"{_title(document, ours[0])} beside {_title(document, rival[0])}"
        rows.append([cell["title"], wanted, found, "yes" if met else "**no**", versus])
    for contestant in document["contestants"]:
        if contestant["role"] == OURS and contestant.get("weight_bytes"):
            share = contestant["weight_bytes"] / document["fp16_bytes"]
            met = "yes" if share <= WEIGHT_SHARE else "**no**"
            wanted = f"at most {WEIGHT_SHARE:.0%} of FP16's bytes"
            rows.append(["weights", wanted, f"{share:.2%}", met, contestant["title"]])
    for done in document.get("quantised", []):
        met = "yes" if done["seconds"] < QUANTIZE_SECONDS else "**no**"
        wanted = f"under {QUANTIZE_SECONDS:.0f} s for {done['linears']} Linears"
        rows.append(["quantize_", wanted, f"{done['seconds']:.2f} s", met, done["title"]])
    for call in document.get("overhead", []):
        if call.get("is_ours"):
            met = "yes" if call["median_us"] <= CALL_US else "**no**"
            wanted = f"at most {CALL_US:.0f} us a call on the host"
            rows.append(["eager call", wanted, f"{call['median_us']:.2f} us", met, call["label"]])
    if not rows:
        return []
    header = ["", "wanted", "measured", "met", "by"]
    return ["", "## What it must show", "", *_table(header, rows)]


def _mistakes(document: Document) -> list[str]:
    """What a dead layer and a padded camera cost, where they were measured."""
    cells = {cell["mistake"]: cell for cell in document["cells"] if "mistake" in cell}
    base = next((cell for cell in document["cells"] if cell["kind"] == "lm"), None)
    if not cells or base is None:
        return []
    rows = []
    for contestant in document["contestants"]:
        if contestant["role"] not in (OURS, PYTORCH):
            continue
        before = best(base, contestant["key"])
        for name, cell in cells.items():
            after = best(cell, contestant["key"])
            if before is None or after is None:
                continue
            saved = before["median_us"] - after["median_us"]
            share = saved / before["median_us"]
            times = [f"{before['median_us']:.1f}", f"{after['median_us']:.1f}"]
            rows.append([contestant["title"], name, *times, f"{saved:.1f} ({share:.1%})"])
    header = ["", "without the mistake", "us as OpenPI runs it", "us without", "it costs"]
    return [
        "",
        "## Two expensive mistakes of real code",
        "",
        "The prefix pass is run for its keys and values alone, so nothing reads what the last "
        "layer's MLP gives (`--skip-dead-layer`). An absent camera is sent through the model as a "
        "black image, masked out of the attention but computed (`--cameras 2`).",
        "",
        *_table(header, rows),
    ]


def _weights(document: Document) -> list[str]:
    fp16 = document["fp16_bytes"]
    rows = [
        [c["title"], f"{c['weight_bytes'] / 1e6:.1f}", f"{c['weight_bytes'] / fp16:.2%}"]
        for c in document["contestants"]
        if c.get("weight_bytes")
    ]
    if not rows:
        return []
    return [
        "",
        "## Weights of both stacks",
        "",
        "Growth of `torch.cuda.memory_allocated`; FP16 is two bytes for each weight.",
        "",
        *_table(["", "MB", "of FP16"], rows),
    ]


def _quantising(document: Document) -> list[str]:
    done = document.get("quantised", [])
    if not done:
        return []
    rows = []
    for each in done:
        extra = f"{each['extra_bytes'] / 1e6:.0f}" if "extra_bytes" in each else "–"
        modules = f"{each['linears']} Linears, {each['fused']} of {each['mlps']} MLPs fused"
        rows.append([each["title"], modules, f"{each['seconds']:.2f}", extra, each["summary"]])
    header = ["", "replaced", "s", "MB above the model at the peak", "its summary"]
    return ["", "## quantize_", "", *_table(header, rows)]


def _overhead(document: Document) -> list[str]:
    calls = document.get("overhead", [])
    if not calls:
        return []
    rows = [
        [call["label"], f"{call['median_us']:.2f}", f"{call['q1_us']:.2f} to {call['q3_us']:.2f}"]
        for call in calls
    ]
    return [
        "",
        "## Host time of an eager call",
        "",
        document["overhead_protocol"],
        "",
        *_table(["", "us", "quartiles"], rows),
    ]
