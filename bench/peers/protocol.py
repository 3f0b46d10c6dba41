"""How a time is taken: the protocol of w4tune's own measurements (tuner/protocol.h), on torch.

Cold weights: launches walk through copies of the weight that total more than three times the L2. A
sample is one replay of a CUDA graph of at least 24 launches and 300 us, timed by events inside the
graph. Contestants are sampled in turns. Everything runs on one stream, graphs never overlap.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

COLD_FACTOR = 3.0
MIN_LAUNCHES = 24
MIN_GRAPH_US = 300.0

# Enqueues one product with this copy of the weight on the current stream; gives y [m, rows or n].
Launch = Callable[[int], torch.Tensor]


@dataclass
class Variant:
    """One way in which a contestant can compute a cell; its fastest one stands for it."""

    label: str
    launch: Launch
    copies: int
    out: torch.Tensor | None = None  # the y that launch writes, where it is always the same


@dataclass
class Samples:
    time_us: list[float] = field(default_factory=list)
    clock_mhz: list[float] = field(default_factory=list)  # 0 where it could not be read


def cold_copies(copy_bytes: int, l2_bytes: int) -> int:
    """Copies whose total exceeds COLD_FACTOR times the L2 even without the one in use."""
    return 1 + math.ceil(COLD_FACTOR * l2_bytes / copy_bytes)


def one_line(error: BaseException) -> str:
    """What an exception says, fit for one line of a report."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


class Session:
    """The GPU, its one stream, and the kernels that the protocol itself needs.

    The stream becomes torch's current one: operands are made, kernels launched and graphs captured
    and replayed on it alone.

    Python's garbage collector is off while a session lives: a graph or event that it frees while
    another is captured breaks that capture, and in a forked child the child. Call collect() between
    cells.
    """

    def __init__(self) -> None:
        gc.disable()
        self.stream = torch.cuda.Stream()
        torch.cuda.set_stream(self.stream)
        self.device = torch.cuda.current_device()
        self.properties = torch.cuda.get_device_properties(self.device)
        self.l2_bytes: int = self.properties.L2_cache_size
        self.notes: list[str] = []
        self._readings = torch.zeros(2, 3, dtype=torch.int64, device="cuda")
        self._sink = torch.zeros(1, dtype=torch.int32, device="cuda")
        self._clock = self._compile("peers_clock", "no SM clock")
        self._read = self._compile("peers_read", "no read line")
        self._events_in_graph = self._probe_events()
        self._flush: torch.Tensor | None = None

    @staticmethod
    def collect() -> None:
        """Frees what was dropped in cycles; nothing may be captured meanwhile."""
        gc.collect()
        torch.cuda.empty_cache()

    def _compile(self, kernel: str, without: str) -> Callable[..., None] | None:
        """Compiles one kernel of kernels.cu with torch's NVRTC and tries it."""
        try:
            source = (Path(__file__).parent / "kernels.cu").read_text()
            compiled = torch.cuda._compile_kernel(source, kernel)
            some = torch.zeros(1024, dtype=torch.int32, device="cuda")
            if kernel == "peers_clock":
                compiled(grid=(1, 1, 1), block=(1, 1, 1), args=[self._readings])
            else:
                compiled(grid=(1, 1, 1), block=(256, 1, 1), args=[some, 128, some, 8, self._sink])
            torch.cuda.synchronize()
        except Exception as error:  # a private API: whatever it does, times can be had without it
            self.notes.append(f"{without}: torch.cuda._compile_kernel failed ({one_line(error)})")
            return None
        return compiled

    def _probe_events(self) -> bool:
        """Whether events can be recorded inside a graph (torch's `external` events)."""
        try:
            some = torch.zeros(1 << 20, device="cuda")
            some.add_(1.0)
            begin, end = self.external_event(), self.external_event()
            graph = torch.cuda.CUDAGraph()
            with self.capture(graph):
                begin.record()
                some.add_(1.0)
                end.record()
            graph.replay()
            self.stream.synchronize()
            if begin.elapsed_time(end) > 0.0:
                return True
            reason = "they read zero"
        except Exception as error:
            reason = one_line(error)
        self.notes.append(
            f"events around the graphs, not inside ({reason}): times include its start"
        )
        return False

    def capture(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
        return torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local")

    @staticmethod
    def external_event() -> torch.cuda.Event:
        return torch.cuda.Event(enable_timing=True, external=True)

    @property
    def events_in_graph(self) -> bool:
        return self._events_in_graph

    def read_line(self, weight_bytes: int, scale_bytes: int) -> Variant | None:
        """A kernel that only reads as many bytes as a packed weight and its scales have."""
        if self._read is None:
            return None
        read, sink = self._read, self._sink
        copies = cold_copies(weight_bytes + scale_bytes, self.l2_bytes)
        weights = [_random_bytes(weight_bytes) for _ in range(copies)]
        scales = [_random_bytes(scale_bytes) for _ in range(copies)]
        chunks, scale_chunks = weight_bytes // 16, scale_bytes // 16
        blocks = min(math.ceil(chunks / 256), 1024)

        def launch(copy: int) -> torch.Tensor:
            arguments = [weights[copy], chunks, scales[copy], scale_chunks, sink]
            read(grid=(blocks, 1, 1), block=(256, 1, 1), args=arguments)
            return sink

        return Variant("16-byte loads, 4 in flight a thread", launch, copies)

    def record_clock(self, slot: int) -> None:
        """Captured outside of what is timed: puts the reading of a clock into slot 0 or 1."""
        if self._clock is not None:
            self._clock(grid=(1, 1, 1), block=(1, 1, 1), args=[self._readings[slot]])

    def clock_mhz(self) -> float:
        """Mean SM clock between the two readings; 0 where they cannot be compared."""
        if self._clock is None:
            return 0.0
        (cycles_0, time_0, sm_0), (cycles_1, time_1, sm_1) = self._readings.tolist()
        if sm_0 != sm_1 or sm_0 == 0 or time_1 <= time_0 or cycles_1 <= cycles_0:
            return 0.0
        return 1e3 * (cycles_1 - cycles_0) / (time_1 - time_0)

    def cold_time_us(self, call: Callable[[], object], repeats: int = 6) -> float:
        """Median time of a call that always uses the same operands, each time with a flushed L2.

        For tuners that rank configurations; times of the report come from MeasuredGraph.
        """
        if self._flush is None:
            words = int(COLD_FACTOR * self.l2_bytes) // 4
            self._flush = torch.empty(words, dtype=torch.int32, device="cuda")
        flush = self._flush
        call()  # compiles, loads; raises where the kernel does not fit
        self.stream.synchronize()
        if not self._events_in_graph:
            return self._eager_time_us(call, flush, repeats)
        events = [(self.external_event(), self.external_event()) for _ in range(repeats)]
        graph = torch.cuda.CUDAGraph()
        with self.capture(graph):
            for begin, end in events:
                flush.zero_()
                begin.record()
                call()
                end.record()
        graph.replay()
        self.stream.synchronize()
        times = sorted(begin.elapsed_time(end) * 1e3 for begin, end in events)
        return times[len(times) // 2]

    @staticmethod
    def _eager_time_us(call: Callable[[], object], flush: torch.Tensor, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            flush.zero_()
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3)
        return sorted(times)[len(times) // 2]


def _random_bytes(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count,), dtype=torch.uint8, device="cuda")


class MeasuredGraph:
    """A captured graph of whole rounds through a variant's copies."""

    def __init__(self, session: Session, variant: Variant) -> None:
        self.variant = variant
        self._session = session
        # Outside of a capture first: first calls load kernels and take workspaces.
        for copy in range(variant.copies):
            variant.launch(copy)
        session.stream.synchronize()
        self._capture(MIN_LAUNCHES)
        self.sample()
        estimate_us = max(self.sample()[0], 0.1)
        if estimate_us * self.launches < MIN_GRAPH_US:
            self._capture(math.ceil(1.05 * MIN_GRAPH_US / estimate_us))

    def _capture(self, least_launches: int) -> None:
        session, copies = self._session, self.variant.copies
        self.launches = math.ceil(least_launches / copies) * copies
        inside = session.events_in_graph
        self._begin = session.external_event() if inside else None
        self._end = session.external_event() if inside else None
        self._graph = torch.cuda.CUDAGraph()
        with session.capture(self._graph):
            session.record_clock(0)
            if self._begin is not None:
                self._begin.record()
            for i in range(self.launches):
                self.variant.launch(i % copies)
            if self._end is not None:
                self._end.record()
            session.record_clock(1)

    def sample(self) -> tuple[float, float]:
        """One replay: microseconds a launch, and the SM clock in MHz."""
        time_us = replay_us(self._session, self._graph, self._begin, self._end)
        return time_us / self.launches, self._session.clock_mhz()


def replay_us(
    session: Session,
    graph: torch.cuda.CUDAGraph,
    begin: torch.cuda.Event | None,
    end: torch.cuda.Event | None,
) -> float:
    """Microseconds of one replay: by the events captured in the graph, else by two around it."""
    if begin is None or end is None:
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
    else:
        graph.replay()
    session.stream.synchronize()
    return begin.elapsed_time(end) * 1e3


def sample_in_turns(graphs: Sequence[MeasuredGraph], rounds: int) -> list[Samples]:
    """One sample of each graph a round, so that drifts of the clock meet all of them."""
    samples = [Samples() for _ in graphs]
    for _ in range(rounds):
        for graph, taken in zip(graphs, samples, strict=True):
            time_us, clock_mhz = graph.sample()
            taken.time_us.append(time_us)
            taken.clock_mhz.append(clock_mhz)
    return samples


def output_of(session: Session, variant: Variant) -> torch.Tensor:
    """y of the last copy; what the kernel does not write is NaN where y is the variant's own."""
    if variant.out is not None:
        variant.out.fill_(float("nan"))
    y = variant.launch(variant.copies - 1)
    session.stream.synchronize()
    return y


def relative_error(y: torch.Tensor, reference: torch.Tensor) -> float:
    """max |y - reference| / mean |reference|; NaN where y has one."""
    difference = (y.double() - reference).abs().max()
    return float(difference / reference.abs().mean())
