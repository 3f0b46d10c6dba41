"""Tests of bench/peers that need no GPU. They run with the standard library alone:

    python3 -m unittest discover -s tests/peers -p '*_test.py'

What needs PyTorch, or a libw4tune.so that plain Python can load (W4TUNE_LIB), is skipped without.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

from peers import c_api, problems, report  # noqa: E402

try:
    import torch
except ImportError:
    torch = None

LIBRARY = os.environ.get("W4TUNE_LIB", "")


def result(median_us: float, error: float | None = 1e-3, label: str = "exact: k") -> dict:
    row = report.summary([median_us - 0.1, median_us, median_us + 0.1], [1800.0] * 3, error)
    return {"best": row | {"label": label}, "variants": []}


def document(cells: list[dict], stopped: str | None = None) -> dict:
    titles = {"w4tune": "w4tune", "cublas": "cuBLASLt FP16", "tinygemm": "tinygemm"}
    described = [{"key": key, "title": title, "note": "-"} for key, title in titles.items()]
    described.append({"key": "bitblas", "title": "BitBLAS", "note": "not installed"})
    return {
        "time": "2026-01-01T00:00:00+00:00",
        "environment": {"gpu": "NVIDIA H200", "versions": {"torch": "2"}, "notes": ["a note"]},
        "protocol": "p",
        "contestants": described,
        "cells": cells,
        "stopped": stopped,
    }


def cell(m: int, results: dict, op: str = "gemm") -> dict:
    problem = {"op": op, "n": 4096, "k": 1024, "group": 128, "dtype": "f16"}
    return {"problem": problem, "m": m, "results": results}


class Report(unittest.TestCase):
    def test_shows_times_ratios_and_errors_of_a_cell(self) -> None:
        results = {
            "read": result(2.0, None),
            "w4tune": result(4.0, 2e-3),
            "cublas": result(8.0),
            "tinygemm": result(6.0),
        }
        text = report.markdown(document([cell(10, results)]))
        self.assertIn(
            "| 10 | 2.00 ± 0.05 | 4.00 ± 0.05 | 8.00 ± 0.05 | 6.00 ± 0.05 | – | tinygemm "
            "| 1.50× | 2.00× |",
            text,
        )
        self.assertIn("| 10 | 2.0e-03 | 1.0e-03 | 1.0e-03 | – |", text)
        self.assertIn("- BitBLAS: not installed", text)
        self.assertIn("geometric mean 2.00× over 1 cells", text)
        self.assertIn("1800 to 1800 MHz", text)

    def test_says_what_failed_once_for_several_m(self) -> None:
        cells = [
            cell(m, {"w4tune": {"failed": "no kernel"}, "cublas": result(5.0)}) for m in (1, 8)
        ]
        text = report.markdown(document(cells, stopped="interrupted"))
        self.assertIn("- w4tune, M = 1, 8: no kernel", text)
        self.assertIn("| 1 | – | failed | 5.00 ± 0.05 | – | – | – | – | – |", text)
        self.assertIn("Incomplete: interrupted", text)

    def test_says_when_ours_was_not_tuned_at_this_m_and_a_peers_tuning_was_short(self) -> None:
        label = f"GEMM x ({report.CUT_SHORT})"
        results = {
            "w4tune": result(4.0, label="interpolated_m: k"),
            "tinygemm": result(6.0, label=label),
        }
        text = report.markdown(document([cell(9, results)]))
        self.assertIn("- w4tune, M = 9: not tuned at this M, match interpolated_m", text)
        self.assertIn(f"- tinygemm, M = 9: {report.CUT_SHORT}", text)

    def test_a_geglu_heading_says_what_peers_compute(self) -> None:
        text = report.markdown(document([cell(1, {"w4tune": result(4.0)}, op="geglu")]))
        self.assertIn("peers multiply by the same 8192 rows, without activation", text)

    def test_the_fastest_right_variant_stands_for_a_contestant(self) -> None:
        rows = [
            {"median_us": 1.0, "error": 0.9},
            {"median_us": 3.0, "error": 1e-3},
            {"median_us": 2.0, "error": 1e-3},
        ]
        self.assertEqual(report.best_of(rows)["median_us"], 2.0)
        with self.assertRaisesRegex(ValueError, "wrong"):
            report.best_of([{"median_us": 1.0, "error": float("nan")}])

    def test_summary_ignores_clocks_that_could_not_be_read(self) -> None:
        row = report.summary([3.0, 1.0, 2.0, 4.0, 5.0], [0.0, 0.0, 1700.0, 0.0, 0.0], 0.0)
        self.assertEqual((row["median_us"], row["q1_us"], row["q3_us"]), (3.0, 2.0, 4.0))
        self.assertEqual(row["clock_mhz"], 1700.0)


class Arguments(unittest.TestCase):
    def test_shapes_and_tokens(self) -> None:
        self.assertEqual(
            problems.parse_shapes("4096x1024,geglu:256x512"),
            [("gemm", 4096, 1024), ("geglu", 256, 512)],
        )
        self.assertEqual(problems.parse_tokens("1,8"), [1, 8])
        for bad in ("4096", "axb", "conv:16x64", "8x64", "16x32"):
            with self.assertRaises(ValueError, msg=bad):
                problems.parse_shape(bad)
        for bad in ("0", "", "1;2"):
            with self.assertRaises(ValueError, msg=bad):
                problems.parse_tokens(bad)

    def run_cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(BENCH / "peers"), *arguments], capture_output=True, text=True
        )

    def test_help_has_examples(self) -> None:
        done = self.run_cli("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("exit codes", done.stdout)

    def test_usage_errors_exit_with_2_and_say_why(self) -> None:
        for arguments, words in (
            (("--m", "0"), "M must be at least 1"),
            (("--peers", "marlin"), "unknown peer 'marlin'"),
            (("--samples", "1"), "at least 3 samples"),
            (("--peer-budget", "-1"), "no number of seconds"),
            (("--db", "/nowhere.db"), "there is no file /nowhere.db"),
        ):
            done = self.run_cli(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(words, done.stderr)

    def test_a_group_must_divide_k(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            done = self.run_cli("--db", file.name, "--lib", file.name, "--shapes", "16x64")
        self.assertEqual(done.returncode, 2)
        self.assertIn("128 does not divide K of gemm 16x64", done.stderr)


class CApi(unittest.TestCase):
    def test_structures_have_the_layout_of_the_header(self) -> None:
        self.assertEqual(ctypes.sizeof(c_api._Problem), 20)
        self.assertEqual(ctypes.sizeof(c_api.Selection), 48)
        self.assertEqual(ctypes.sizeof(c_api._Operands), 64)
        self.assertEqual(c_api._Operands.ldx.offset, 40)

    def test_every_function_is_in_the_header(self) -> None:
        header = (BENCH.parent / "runtime/include/w4tune/w4tune.h").read_text()
        for name in c_api._FUNCTIONS:
            self.assertIn(f" {name}(", header.replace("*", " "), name)

    @unittest.skipUnless(LIBRARY, "W4TUNE_LIB names no libw4tune.so")
    def test_the_library_packs_and_explains(self) -> None:
        library = c_api.Library(LIBRARY)
        problem = problems.Problem("gemm", 16, 64, 64)
        self.assertEqual(library.packed_sizes(problem), (512, 32))
        row = problems.offset8_nibbles([8 + k % 8 for k in range(64)])
        packed, scales = library.pack_host(problem, row * 16, bytes(range(32)))
        # Layout L0 moves nibbles about: as many of each as before.
        count = [sum(byte >> 4 == u for byte in packed) for u in range(16)]
        self.assertEqual(count, [0] * 8 + [64] * 8)
        self.assertEqual(scales, bytes(range(32)))
        with self.assertRaisesRegex(c_api.W4tuneError, "multiple of 16"):
            library.packed_sizes(problems.Problem("gemm", 15, 64, 64))
        with self.assertRaises(c_api.W4tuneError):
            library.open("/nowhere.db", look_at="a40")

    def test_nibbles_put_the_even_k_low(self) -> None:
        self.assertEqual(problems.offset8_nibbles([1, 2, 15, 0]), bytes([0x21, 0x0F]))


@unittest.skipUnless(torch, "PyTorch is not installed")
class Operands(unittest.TestCase):
    def setUp(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            from peers import contestants
        self.contestants = contestants
        generator = torch.Generator().manual_seed(1)
        self.problem = problems.Problem("gemm", 16, 128, 64)
        values = torch.randint(0, 16, (16, 128), dtype=torch.uint8, generator=generator)
        scales = torch.rand(16, 2, generator=generator).to(torch.float16)
        self.weight = contestants.Weight(self.problem, values, scales)

    def test_tinygemm_operands_dequantise_to_the_same_numbers(self) -> None:
        packed, pairs = self.contestants.tinygemm_operands(self.weight.values, self.weight.scales)
        values = torch.stack((packed >> 4, packed & 15), dim=2).view(16, 128)
        scale, zero = pairs[:, :, 0].t().double(), pairs[:, :, 1].t().double()
        wide = (values.double() - 8).view(16, 2, 64) * scale[:, :, None] + zero[:, :, None]
        exact = self.weight.exact(self.weight.scales.to(torch.bfloat16))
        self.assertTrue(torch.equal(wide.view(16, 128), exact))

    def test_our_nibbles_are_those_of_the_plain_packing(self) -> None:
        nibbles = self.weight.nibbles()
        expected = problems.offset8_nibbles(self.weight.values[3].tolist())
        self.assertEqual(bytes(nibbles[3].tolist()), expected)


if __name__ == "__main__":
    unittest.main()
