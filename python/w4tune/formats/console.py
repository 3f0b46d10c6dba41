"""What is said while work goes on, and how reasons are listed."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TextIO

__all__ = ["Progress", "count_of", "reasons"]

_AFTER_S = 1.0  # silent before
_TERMINAL_S = 0.2  # between two states of the line on a terminal
_LOG_S = 5.0  # between two lines elsewhere


class Progress(AbstractContextManager["Progress"]):
    """A line on standard error for work that takes longer than a second.

    total and what advance() adds are in any one unit. On a terminal one line is rewritten and in
    the end erased.
    """

    def __init__(
        self, what: str, total: int, stream: TextIO | None = None, enabled: bool = True
    ) -> None:
        self._what = what
        self._total = max(total, 1)
        self._done = 0
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._enabled = enabled
        self._begin = time.monotonic()
        self._next = self._begin + _AFTER_S
        self._shown = False

    def advance(self, amount: int, label: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if not self._enabled or now < self._next:
            return
        self._next = now + (_TERMINAL_S if self._terminal else _LOG_S)
        share = min(1.0, self._done / self._total)
        left = (now - self._begin) * (1 - share) / share if share > 0 else 0.0
        text = f"{self._what}: {share:4.0%}, about {left:.0f} s left  {label}"
        self._stream.write(f"\r\x1b[K{text[:100]}" if self._terminal else text + "\n")
        self._stream.flush()
        self._shown = True

    def __exit__(self, *_: object) -> None:
        if self._shown and self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def count_of(count: int, what: str) -> str:
    """As in 1 layer, 2 layers."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def reasons(what: str, why: Mapping[str, str]) -> list[str]:
    """Lines that count names and give each reason once, with the first name it holds for."""
    if not why:
        return []
    names: dict[str, list[str]] = {}
    for name, reason in why.items():
        names.setdefault(reason, []).append(name)
    lines = [f"  {len(why)} {what}:"]
    for reason, whose in names.items():
        more = f" and {len(whose) - 1} more" if len(whose) > 1 else ""
        lines.append(f"    {whose[0] or 'the root'}{more}: {reason}")
    return lines
