"""The vocabulary: which layer is multiplied, and how the command line names it.

Standard library only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DTYPES = ("f16", "bf16")
OPS = ("gemm", "geglu")


@dataclass(frozen=True)
class Problem:
    """y [m, n] = x [m, k] * w [n, k]^T, w in INT4 with one scale for each `group` along k.

    geglu: y = gelu_tanh(x * gate^T) * (x * up^T); the weight has 2n rows, gate before up.
    """

    op: str
    n: int
    k: int
    group: int = 128
    dtype: str = "f16"

    @property
    def rows(self) -> int:
        """Rows of the weight, and width of the plain product that peers compute."""
        return 2 * self.n if self.op == "geglu" else self.n

    @property
    def name(self) -> str:
        return f"{self.op} {self.n}×{self.k}"


PI05 = (
    ("gemm", 16384, 2048),
    ("gemm", 2048, 16384),
    ("gemm", 4096, 1024),
    ("gemm", 1024, 4096),
    ("geglu", 16384, 2048),
    ("geglu", 4096, 1024),
)


def parse_shape(text: str) -> tuple[str, int, int]:
    """'4096x1024' or 'geglu:4096x1024' to (op, n, k); ValueError says what is wrong."""
    op, colon, shape = text.strip().rpartition(":")
    op = op if colon else "gemm"
    if op not in OPS:
        raise ValueError(f"'{text}': the operation must be one of {', '.join(OPS)}")
    try:
        n, k = (int(part) for part in shape.split("x"))
    except ValueError:
        raise ValueError(f"'{text}' is no shape; write NxK or geglu:NxK, e.g. 4096x1024") from None
    if n < 16 or n % 16 != 0 or k < 64 or k % 64 != 0:
        raise ValueError(f"'{text}': N must be a multiple of 16 and K of 64")
    return op, n, k


def parse_shapes(text: str) -> list[tuple[str, int, int]]:
    return [parse_shape(part) for part in text.split(",")]


def parse_tokens(text: str) -> list[int]:
    """'1,8,10' to [1, 8, 10]."""
    try:
        tokens = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"'{text}' is no list of numbers such as 1,8,10") from None
    if min(tokens) < 1:
        raise ValueError("M must be at least 1")
    return tokens


def offset8_nibbles(values: list[int]) -> bytes:
    """Values 0..15 along k to bytes as w4tune unpacks them: the low nibble is the even k."""
    return bytes(low | high << 4 for low, high in zip(values[0::2], values[1::2], strict=True))


def as_argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` for argparse, which prints the words of an ArgumentTypeError alone."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert
