"""How a time is taken: one CUDA graph of a whole sequence, events inside, contestants in turns.

Built on bench/peers/protocol.py (its stream, clock probe and events). Where there is no GPU, calls
are timed by the host's clock, to try the program.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from peers.protocol import Session, replay_us

# Enqueues a stack on the current stream; gives one y for each layer.
Run = Callable[[], list[torch.Tensor]]


class Timed(Protocol):
    """A sequence of runs that can be timed again and again."""

    outputs: list[torch.Tensor]  # of the last run of the sequence

    def sample(self) -> tuple[float, float]:
        """One pass: microseconds of the whole sequence, and the SM clock in MHz (0: unknown)."""
        ...


class SequenceGraph:
    """The whole sequence in one CUDA graph."""

    def __init__(self, session: Session, runs: Sequence[Run]) -> None:
        self._session = session
        # Outside of a capture first: first calls load kernels, tune and take workspaces.
        for run in dict.fromkeys(runs):
            for _ in range(2):
                run()
        session.stream.synchronize()
        inside = session.events_in_graph
        self._begin = session.external_event() if inside else None
        self._end = session.external_event() if inside else None
        self._graph = torch.cuda.CUDAGraph()
        self.outputs: list[torch.Tensor] = []
        with session.capture(self._graph):
            session.record_clock(0)
            if self._begin is not None:
                self._begin.record()
            for run in runs:
                self.outputs = []  # before the next run, so that its memory serves again
                self.outputs = run()
            if self._end is not None:
                self._end.record()
            session.record_clock(1)
        for y in self.outputs:
            y.fill_(float("nan"))  # what a replay does not write is seen by whoever compares
        self.sample()

    def sample(self) -> tuple[float, float]:
        time_us = replay_us(self._session, self._graph, self._begin, self._end)
        return time_us, self._session.clock_mhz()


class SequenceCalls:
    """Calls one after another, for what brings its own graphs; events before and after them."""

    def __init__(self, session: Session, runs: Sequence[Run]) -> None:
        self._session, self._runs = session, list(runs)
        for _ in range(3):  # Inductor's graphs: warm-up, recording, first replay
            for run in dict.fromkeys(runs):
                run()
        session.stream.synchronize()
        self.outputs: list[torch.Tensor] = [y.clone() for y in runs[-1]()]
        session.stream.synchronize()

    def sample(self) -> tuple[float, float]:
        begin, end = _event(), _event()
        self._session.record_clock(0)
        begin.record()
        for run in self._runs:
            run()
        end.record()
        self._session.record_clock(1)
        self._session.stream.synchronize()
        return begin.elapsed_time(end) * 1e3, self._session.clock_mhz()


class SequenceOnHost:
    """Without a GPU: the host's clock around the calls."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = list(runs)
        self.outputs = self._runs[-1]()

    def sample(self) -> tuple[float, float]:
        begun = time.perf_counter()
        for run in self._runs:
            run()
        return (time.perf_counter() - begun) * 1e6, 0.0


def make_timed(session: Session | None, runs: Sequence[Run], capturable: bool) -> Timed:
    if session is None:
        return SequenceOnHost(runs)
    return SequenceGraph(session, runs) if capturable else SequenceCalls(session, runs)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def host_time_us(
    call: Callable[[], object], synchronize: Callable[[], None], batches: int, calls: int
) -> list[float]:
    """Host time of one call in microseconds, for each batch of calls.

    The device is idle when a batch begins and `calls` launches fit its queue (1024 deep), so the
    host never waits for it, however slow the kernels are.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(3):
            call()
        synchronize()
        times = []
        for _ in range(batches):
            begun = time.perf_counter_ns()
            for _ in range(calls):
                call()
            times.append((time.perf_counter_ns() - begun) / calls / 1e3)
            synchronize()
    finally:
        if was_enabled:
            gc.enable()
    return times


def loop_time_us(calls: int) -> float:
    """What the loop of host_time_us itself costs, per call."""
    return statistics.median(host_time_us(_nothing, _nothing, 20, calls))


def _nothing() -> None:
    return None
