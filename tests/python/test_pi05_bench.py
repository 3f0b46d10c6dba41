"""bench/pi05_mlp.py without a GPU: its report, its arguments, and a whole run of a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
w4tune = pytest.importorskip("w4tune", reason="w4tune is not built")

import pi05_mlp  # noqa: E402
from pi05 import contestants, report, stacks, timing  # noqa: E402

U = report.UNIT_ROUNDOFF


def way(times: list[float], error: float | None = 1e-4, label: str = "a way") -> report.Document:
    return report.summary(times, [1800.0] * len(times)) | {"label": label, "error": error}


def result(times: list[float], dtype: str = "f16", error: float = 1e-4) -> report.Document:
    row = way(times, error)
    return {"ways": [row], "best": report.best_of([row], dtype)}


def document(cells: list[report.Document], **more: object) -> report.Document:
    described = [
        ("w4tune-f16", "w4tune, FP16", report.OURS, "f16"),
        ("eager-f16", "nn.Linear, FP16", report.PYTORCH, "f16"),
        ("eager-bf16", "nn.Linear, BF16", report.PYTORCH, "bf16"),
        ("merged-f16", "gate and up merged, FP16", report.MERGED, "f16"),
    ]
    return {
        "time": "2026-01-01T00:00:00+00:00",
        "protocol": "p.",
        "environment": {"device": "NVIDIA H200", "versions": {"torch": "2"}, "notes": []},
        "fp16_bytes": 1000,
        "contestants": [
            {"key": key, "title": title, "role": role, "dtype": dtype, "note": "n"}
            for key, title, role, dtype in described
        ],
        "cells": cells,
        "stopped": None,
    } | more


def cell(kind: str, results: report.Document, **more: object) -> report.Document:
    return {"kind": kind, "title": f"a cell of {kind}", "unit": "step", "results": results} | more


def test_ratios_are_of_the_rounds_and_against_the_best_pytorch() -> None:
    results = {
        "w4tune-f16": result([10.0, 20.0, 40.0]),
        "eager-f16": result([25.0, 50.0, 100.0]),  # 2.5 in each round, whatever the clock did
        "eager-bf16": result([30.0, 60.0, 120.0], "bf16"),
        "merged-f16": result([5.0, 10.0, 20.0]),
    }
    text = report.markdown(document([cell("expert", results)]))
    assert "| w4tune, FP16 | 20.00 ± 7.50 | 2.50× (2.50 to 2.50) | 1.0e-04 | a way |" in text
    assert "| nn.Linear, FP16 | 50.00 ± 18.75 | 1 (the best of PyTorch) | 1.0e-04 |" in text
    assert "| gate and up merged, FP16 | 10.00 ± 3.75 | 5.00× (5.00 to 5.00) |" in text
    assert "| 2.50× (2.50 to 2.50) | yes | w4tune, FP16 beside nn.Linear, FP16 |" in text


@pytest.mark.parametrize(
    "kind, ours, met", [("expert", 51.0, "**no**"), ("lm", 105.0, "yes"), ("lm", 106.0, "**no**")]
)
def test_says_whether_what_was_asked_for_is_met(kind: str, ours: float, met: str) -> None:
    results = {"w4tune-f16": result([ours] * 3), "eager-f16": result([100.0] * 3)}
    text = report.markdown(document([cell(kind, results)]))
    row = next(line for line in text.splitlines() if line.startswith(f"| a cell of {kind} |"))
    assert f"| {met} |" in row


def test_weights_calls_and_quantising_are_held_to_their_targets() -> None:
    whole = document(
        [],
        overhead=[way([4.0, 4.5, 5.5]) | {"label": "w4tune.Linear", "is_ours": True}],
        overhead_protocol="o",
        quantised=[
            {"title": "w4tune, FP16", "linears": 108, "mlps": 36, "fused": 36}
            | {"seconds": 25.0, "summary": "s", "extra_bytes": 2e6}
        ],
    )
    whole["contestants"][0]["weight_bytes"] = 258
    text = report.markdown(whole)
    assert "| weights | at most 27% of FP16's bytes | 25.80% | yes | w4tune, FP16 |" in text
    assert "| quantize_ | under 20 s for 108 Linears | 25.00 s | **no** | w4tune, FP16 |" in text
    assert "| at most 5 us a call on the host | 4.50 us | yes | w4tune.Linear |" in text
    assert "108 Linears, 36 of 36 MLPs fused | 25.00 | 2 | s |" in text


def test_a_wrong_or_missing_result_stands_for_nobody() -> None:
    fast_and_wrong = way([1.0] * 3, 9.0 * U["f16"], "wrong")
    slow_and_right = way([3.0] * 3, 1.0 * U["f16"], "right")
    assert report.best_of([fast_and_wrong, slow_and_right], "f16")["label"] == "right"
    for bad in (float("nan"), 9.0 * U["f16"]):
        with pytest.raises(ValueError, match="wrong"):
            report.best_of([way([1.0] * 3, bad)], "f16")
    results = {
        "w4tune-f16": {"ways": [fast_and_wrong, slow_and_right], "best": slow_and_right},
        "eager-f16": {"failed": "out of memory"},
    }
    text = report.markdown(document([cell("lm", results)], stopped="interrupted"))
    assert "- w4tune, FP16: wrong result, not counted: wrong" in text
    assert "- nn.Linear, FP16: out of memory" in text
    assert "- Incomplete: interrupted" in text


def test_mistakes_are_set_against_the_language_model_as_openpi_runs_it() -> None:
    cells = [
        cell("lm", {"w4tune-f16": result([200.0] * 3)}),
        cell("lm without", {"w4tune-f16": result([150.0] * 3)}, mistake="2 cameras"),
    ]
    text = report.markdown(document(cells))
    assert "| w4tune, FP16 | 2 cameras | 200.0 | 150.0 | 50.0 (25.0%) |" in text


def test_pi05_is_what_openpi_computes() -> None:
    size = stacks.SIZES["pi05"]
    assert (size.prefix_tokens(3), size.prefix_tokens(2)) == (968, 712)
    dimensions = [(s.width, s.mlp, s.layers) for s in size.shapes]
    assert dimensions == [(2048, 16384, 18), (1024, 4096, 18)]
    assert [s.weights for s in size.shapes] == [1811939328, 226492416]


def test_weights_differ_by_layer_and_seed_and_repeat() -> None:
    shape, device = stacks.SIZES["tiny"].lm, torch.device("cpu")
    first = stacks.layer_weights(shape, 0, 1, device)
    assert all(map(torch.equal, first, stacks.layer_weights(shape, 0, 1, device)))
    for other in ((1, 1), (0, 2)):
        assert not torch.equal(first[0], stacks.layer_weights(shape, *other, device)[0])
    assert not torch.equal(first[0], first[1])
    x = torch.randn(64, shape.width)
    y = stacks.reference(x, tuple(w.float() for w in first))
    assert 0.5 < float(y.std()) < 2.0


def test_forms_of_the_mlp_agree() -> None:
    shape, device = stacks.SIZES["tiny"].lm, torch.device("cpu")
    gate, up, down = (w.float() for w in stacks.layer_weights(shape, 0, 1, device))
    x = torch.randn(5, shape.width)
    y = stacks.reference(x, (gate, up, down))
    for other in (
        stacks.merged_mlp(x, torch.cat((gate, up)), down),
        stacks.GemmaMlp(gate, up, down)(x),
    ):
        assert torch.allclose(other, y, rtol=1e-5, atol=1e-5)
    assert stacks.error_of([y], x, lambda _: (gate, up, down)) < 1e-6
    assert stacks.error_of([y], x, lambda _: (up, gate, down)) > 0.1
    y[2, 3] = float("nan")
    unwritten = stacks.error_of([y], x, lambda _: (gate, up, down))
    assert not report.is_right(way([1.0], unwritten), "f16")


def test_dequantising_is_the_quantisers_own() -> None:
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(1))
    quantised = w4tune.quantize(weight, group_size=64)
    ours = stacks.dequantise(quantised.codes, quantised.scales.float())
    assert torch.equal(ours, quantised.dequantize())


def test_host_time_leaves_out_the_wait_for_the_device() -> None:
    waited: list[int] = []
    times = timing.host_time_us(lambda: None, lambda: waited.append(1), batches=4, calls=50)
    assert len(times) == 4
    assert len(waited) == 5  # once after the warm-up, and between batches
    assert all(0.0 < us < 1000.0 for us in times)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--m", "0"], "M must be at least 1"),
        (["--contestants", "marlin"], "'marlin': contestants are w4tune, eager"),
        (["--dtypes", "f32"], "'f32': dtypes are f16, bf16"),
        (["--samples", "2"], "'2': must be a number from 3 on"),
        (["--budget", "x"], "'x': must be a number from 1 on"),
    ],
)
def test_usage_errors_say_why(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        pi05_mlp.main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pi05_mlp.main(["--db", "/nowhere.db"]) == 2
    assert pi05_mlp.main(["--out", "/nowhere/report"]) == 2
    told = capsys.readouterr().err
    assert "--db: there is no file /nowhere.db" in told
    assert "--out: there is no folder /nowhere" in told


def test_every_family_has_an_entry() -> None:
    assert tuple(contestants.FAMILIES) == pi05_mlp.FAMILIES
    roles = {family.make.role for family in contestants.FAMILIES.values()}
    assert roles == {report.OURS, report.PYTORCH, report.MERGED, report.W4}


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stem = tmp_path / "report"
    arguments = "--device cpu --size tiny --quick --samples 3 --steps 2 --m 5 --cameras 2"
    families = "w4tune,eager,dequant,gemlite,merged"
    code = pi05_mlp.main(
        [*arguments.split(), "--skip-dead-layer", "--contestants", families, "--out", str(stem)]
    )
    assert code == pi05_mlp.OK, capsys.readouterr().err
    whole = json.loads(Path(f"{stem}.json").read_text())
    assert whole["stopped"] is None
    kinds = [c["kind"] for c in whole["cells"]]
    assert kinds == ["expert", "lm", "inference", "lm without", "lm without", "lm without"]
    keys = {c["key"]: c for c in whole["contestants"]}
    assert keys["gemlite-f16"]["absent"] == "needs a GPU"
    for c in whole["cells"]:
        present = set(keys) - {"gemlite-f16"}
        assert set(c["results"]) == present
        for key in present:
            row = c["results"][key]["best"]
            assert len(row["samples_us"]) == 3
            if c["kind"] != "inference":
                assert row["error"] <= 2.0 * U[keys[key]["dtype"]], (c["title"], key)
    assert [done["fused"] for done in whole["quantised"]] == [6, 6]
    labels = {call["label"] for call in whole["overhead"]}
    assert {"an empty nn.Module", "F.linear", "w4tune.Linear", "w4tune.GeGLU"} <= labels
    text = Path(f"{stem}.md").read_text()
    assert "## What it must show" in text
    assert "## Two expensive mistakes of real code" in text
    assert "GemLite, FP16: absent: needs a GPU" in text
