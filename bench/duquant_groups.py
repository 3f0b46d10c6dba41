"""How to group scales on weights rotated by DuQuant packs: relative error of y after quantising.

    python bench/duquant_groups.py                      Pi0.5's shapes, some minutes on one core
    python bench/duquant_groups.py --shapes 4096x1024 --rows 1024 --blocks 64
    python bench/duquant_groups.py --device cuda --rows 0

Prints Markdown tables, errors in per cent. Needs the w4tune package, NumPy and PyTorch; no GPU.
Weights and inputs are synthetic: `make_weight` and `make_input` say how they are made.

Packs are computed from the whole weight; the error is measured on its first `--rows` rows (all
with 0), which are like the others. It is |x (W - Q(W))^T| / |x W^T| in float32: of the weights'
quantisation alone, without rounding of activations. R_out is orthogonal, so undoing it would change
neither length.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor
from w4tune.duquant import make_pack, rotated_weight
from w4tune.quantizer import quantize

SHAPES = "16384x2048,2048x16384,4096x1024,1024x4096"
KINDS = ("iid", "spread", "outliers", "correlated")
RANK = 64
TOKENS = 256
FORK_CANDIDATES = (0.5, 0.75, 1.0, 1.25, 1.5)


def make_weight(kind: str, n: int, k: int, generator: torch.Generator) -> Tensor:
    """A weight [n, k] of one kind, each with what the one before has:

    - `iid`: Gaussian, all columns alike.
    - `spread`: elements times exp(0.25 N), for heavier tails; rows times exp(0.25 N), columns times
      exp(0.25 N).
    - `outliers`: 0.5 % of the columns four times as large.
    - `correlated`: before rows and columns are scaled, a product of rank 64 is added whose singular
      values fall as 1 / sqrt(i) and which makes up one third of the energy.
    """
    weight = _normal(generator, n, k)
    if kind != "iid":
        weight.mul_(_normal(generator, n, k).mul_(0.25).exp_())
        if kind == "correlated":
            left = _normal(generator, n, RANK) / torch.arange(1, RANK + 1).sqrt()
            common = left @ _normal(generator, RANK, k)
            weight.add_(common, alpha=float(weight.norm() / common.norm()) / math.sqrt(2.0))
        columns = torch.exp(0.25 * _normal(generator, k))
        if kind != "spread":
            columns[torch.randperm(k, generator=generator)[: k // 200]] *= 4.0
        weight.mul_(columns).mul_(torch.exp(0.25 * _normal(generator, n, 1)))
    return weight / math.sqrt(k)


def make_input(n: int, k: int, generator: torch.Generator) -> Tensor:
    """256 tokens: Gaussian times exp(0.5 N) for each channel, 1 % of the channels eight times as
    large again, chosen independently of the weight's. For a down projection (k > n) times GELU
    (tanh) of a Gaussian.
    """
    x = _normal(generator, TOKENS, k) * torch.exp(0.5 * _normal(generator, k))
    x[:, torch.randperm(k, generator=generator)[: k // 100]] *= 8.0
    if k > n:
        x *= torch.nn.functional.gelu(_normal(generator, TOKENS, k), approximate="tanh")
    return x


def _normal(generator: torch.Generator, *size: int) -> Tensor:
    return torch.randn(*size, generator=generator)


def fork_channel(weight: Tensor) -> Tensor:
    """Weight [n, k] by the fork's rule: one scale a row, the best of max / 7 / candidate."""
    base = (weight.abs().amax(dim=1, keepdim=True) / 7).clamp_min(1e-8)
    best, least = weight, torch.full_like(base, math.inf)
    for candidate in FORK_CANDIDATES:
        scale = base / candidate
        values = (weight / scale).round_().clamp_(-8, 7).mul_(scale)
        error = (values - weight).square().mean(dim=1, keepdim=True)
        best = torch.where(error < least, values, best)
        least = torch.minimum(error, least)
    return best


def _with_quantize(group: int | str, method: str) -> Callable[[Tensor], Tensor]:
    return lambda weight: quantize(weight, group, method=method).dequantize(torch.float32)


SCHEMES: dict[str, Callable[[Tensor], Tensor]] = {
    f"{group} {method}": _with_quantize(group, method)
    for method, group in itertools.product(("mse", "maxabs"), (128, 64, 32, "channel"))
}
SCHEMES["channel fork"] = fork_channel


def bases(
    weight: Tensor, x: Tensor, blocks: Iterable[int], rows: int
) -> Iterable[tuple[str, Tensor, Tensor]]:
    """(name, rows of the weight, input) in each basis; all have the same product but for R_out."""
    yield "as it is", weight[:rows], x
    for i, block in enumerate(blocks):
        pack = make_pack(weight, block)
        if i == 0:
            order = torch.from_numpy(pack.permutation).to(weight.device)
            yield "P", weight[:rows, order], x[:, order]
        # (x P) R_in, as if x were rows of W.
        rotated_x = rotated_weight(x, replace(pack, out_features=x.shape[0]), "0")
        yield f"P, R_in ({block})", rotated_weight(weight, pack, "0")[:rows], rotated_x
        yield f"P, R_in, R_out ({block})", rotated_weight(weight, pack)[:rows], rotated_x


def measure(
    kind: str, n: int, k: int, blocks: list[int], rows: int, device: str, seed: int
) -> dict[str, list[float]]:
    """{basis: relative error for each scheme}."""
    generator = torch.Generator().manual_seed(seed)
    weight = make_weight(kind, n, k, generator).to(device)
    x = make_input(n, k, generator).to(device)
    errors = {}
    for name, w, inputs in bases(weight, x, blocks, min(rows, n) if rows else n):
        length = (inputs @ w.T).norm()
        errors[name] = [
            float((inputs @ (scheme(w) - w).T).norm() / length) for scheme in SCHEMES.values()
        ]
    return errors


def table(errors: dict[str, list[float]]) -> str:
    lines = [
        "| basis | " + " | ".join(SCHEMES) + " |",
        "|---|" + "---|" * len(SCHEMES),
    ]
    lines += [
        f"| {name} | " + " | ".join(f"{100 * e:.2f}" for e in row) + " |"
        for name, row in errors.items()
    ]
    return "\n".join(lines)


def geometric_mean(tables: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {
        name: [
            math.exp(sum(math.log(t[name][i]) for t in tables) / len(tables))
            for i in range(len(SCHEMES))
        ]
        for name in tables[0]
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", default=SHAPES, help="NxK,... (default: %(default)s)")
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help="kinds of weights (default: %(default)s)"
    )
    parser.add_argument(
        "--blocks", default="64,16", help="sizes of rotation blocks (default: %(default)s)"
    )
    parser.add_argument(
        "--rows", type=int, default=256, help="rows measured, 0 for all (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shapes = [tuple(int(part) for part in shape.split("x")) for shape in args.shapes.split(",")]
    blocks = [int(block) for block in args.blocks.split(",")]

    details = []
    for kind in args.kinds.split(","):
        tables = []
        for n, k in shapes:
            start = time.monotonic()
            tables.append(measure(kind, n, k, blocks, args.rows, args.device, args.seed))
            print(f"{kind} {n}x{k}: {time.monotonic() - start:.0f} s", file=sys.stderr)
            details.append(f"### {kind}, {n}×{k}\n\n{table(tables[-1])}\n")
        print(
            f"### {kind}, geometric mean of {len(shapes)} shapes\n\n"
            f"{table(geometric_mean(tables))}\n",
            flush=True,
        )
    print("\n".join(details))
    return 0


if __name__ == "__main__":
    sys.exit(main())
