"""`tune`: the tuner for what a model needs, from Python."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from w4tune import cli, runtime
from w4tune.errors import W4tuneError
from w4tune.modules import GeGLU, Linear
from w4tune.runtime import DTYPES

PI05_TOKENS = (10, 15, 16, 50, 968)
"""Rows per call of Pi0.5's MLPs: the action expert's horizons and the language model's prefix."""


def _problems(model: nn.Module) -> list[dict[str, object]]:
    """The distinct problems of a model's layers, as a plan writes them."""
    found: dict[tuple, dict[str, object]] = {}
    for module in model.modules():
        if not isinstance(module, (Linear, GeGLU)):
            continue
        op = "geglu" if isinstance(module, GeGLU) else "gemm"
        n, k, group = module.out_features, module.in_features, module.group_size
        text = "f16" if module.dtype == DTYPES[0] else "bf16"
        found[(op, n, k, group, text)] = {
            "op": op,
            "n": n,
            "k": k,
            "group": group,
            "dtype": text,
        }
    return [found[key] for key in sorted(found)]


def tune(
    model: nn.Module,
    m: int | Iterable[int] = PI05_TOKENS,
    *,
    budget: str | None = None,
    device: int | None = None,
    arguments: Sequence[str] = (),
) -> None:
    """Tunes the kernels of a model's w4tune layers on this GPU and uses them from the next call on.

    Runs the tuner that the package carries as a process beside this one, so its progress appears
    on stderr and an error of a candidate cannot harm this process. What was tuned before, by
    whoever, is not measured again. Winners go to `database_path()`. CUDA graphs that were captured
    before keep the kernels they have and stay valid.

    m: the numbers of tokens (rows per call) to tune for.
    budget: wall-clock limit such as "5m"; what it leaves out is named, and served by defaults.
    device: CUDA ordinal; the current device by default.
    arguments: more options of `w4tune tune`.

    W4tuneError: no such layers, a bad m, or the tuner failed (its own line says why).
    """
    tokens = sorted({m} if isinstance(m, int) else set(m))
    if not tokens or any(not isinstance(token, int) or token < 1 for token in tokens):
        raise W4tuneError(f"tune: m = {tokens} must be numbers of tokens from 1.")
    problems = _problems(model)
    if not problems:
        raise W4tuneError(
            "tune: the model has no w4tune layers. Call w4tune.quantize_ on it first."
        )
    if not torch.cuda.is_available():
        raise W4tuneError(
            "tune: PyTorch sees no CUDA GPU. Tune on the machine that is to serve; 'w4tune --gpu a40' "
            "predicts for one that is elsewhere."
        )
    index = torch.cuda.current_device() if device is None else device
    path = runtime.database_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        plan.write_text(
            json.dumps({"workloads": [{**problem, "m": tokens} for problem in problems]})
        )
        command = [str(cli.tool_path()), "tune", "--gpu", "auto", "--plan", str(plan)]
        command += ["--db", str(path), *arguments]
        if budget is not None:
            command += ["--budget", budget]
        if torch.cuda.get_device_capability(index) >= (9, 0) and runtime.device(index).dependent:
            command.append("--dependent")
        environment = cli.tool_environment()
        environment["CUDA_VISIBLE_DEVICES"] = _visible(environment, index)
        result = subprocess.run(command, env=environment, check=False)
    runtime.reload()
    if result.returncode == 4:
        print("w4tune: some workloads are untuned; default kernels serve them.")
    elif result.returncode != 0:
        raise W4tuneError(
            f"tune: the tuner ended with exit code {result.returncode}; its last line says why. "
            "'w4tune doctor' looks for what is missing."
        )


def _visible(environment: dict[str, str], index: int) -> str:
    """CUDA_VISIBLE_DEVICES under which device 0 is this process's device `index`."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",")[index].strip() if listed else str(index)
