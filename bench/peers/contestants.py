"""The contestants: w4tune's winners, cuBLAS FP16, tinygemm, GemLite and BitBLAS.

Every contestant multiplies by the same quantised weight, packed in its own format before anything
is timed, and is judged against a float64 product on exactly the weight that it was given.
"""

from __future__ import annotations

import importlib
import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from peers.c_api import Dispatcher, Library
from peers.problems import Problem
from peers.protocol import Session, Variant, cold_copies, one_line
from peers.report import CUT_SHORT

TORCH_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


class Absent(RuntimeError):
    """A contestant cannot take part at all, and why."""


@dataclass
class Weight:
    """A random quantised layer: w = (values - 8) * scale."""

    problem: Problem
    values: torch.Tensor  # [rows, k], uint8, 0..15
    scales: torch.Tensor  # [rows, k / group], the problem's dtype

    @staticmethod
    def random(problem: Problem, seed: int) -> Weight:
        """Scales such that y has a standard deviation of about 1 for x of 1."""
        generator = torch.Generator(device="cuda").manual_seed(seed)
        shape = (problem.rows, problem.k)
        values = torch.randint(0, 16, shape, dtype=torch.uint8, device="cuda", generator=generator)
        scale_shape = (problem.rows, problem.k // problem.group)
        spread = 0.5 + torch.rand(scale_shape, device="cuda", generator=generator)
        scales = (spread / (4.8 * math.sqrt(problem.k))).to(TORCH_DTYPES[problem.dtype])
        return Weight(problem, values, scales)

    def exact(self, scales: torch.Tensor | None = None) -> torch.Tensor:
        """Dequantised in float64 [rows, k], with other scales where a format rounds them."""
        scales = self.scales if scales is None else scales
        groups = self.values.double().sub_(8.0).view(*scales.shape, self.problem.group)
        return groups.mul_(scales.double().unsqueeze(-1)).view(self.values.shape)

    def nibbles(self) -> torch.Tensor:
        """[rows, k / 2] bytes; the low nibble is the even k (problems.offset8_nibbles)."""
        return (self.values[:, 0::2] | self.values[:, 1::2] << 4).contiguous()


def tinygemm_operands(
    values: torch.Tensor, scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What aten._convert_weight_to_int4pack and aten._weight_int4pack_mm take.

    values [rows, k] 0..15 become [rows, k / 2] bytes, the *high* nibble the even k. tinygemm's
    w = (value - 8) * scale + zero, so zeros are 0: [k / group, rows, 2] of (scale, zero), BF16.
    """
    packed = (values[:, 0::2] << 4 | values[:, 1::2]).contiguous()
    bf16 = scales.to(torch.bfloat16)
    pairs = torch.stack((bf16, torch.zeros_like(bf16)), dim=2)
    return packed, pairs.transpose(0, 1).contiguous()


def clones(tensors: tuple[torch.Tensor, ...], session: Session) -> list[tuple[torch.Tensor, ...]]:
    """As many copies of a packed weight as cold launches need."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return [tuple(t.clone() for t in tensors) for _ in range(cold_copies(size, session.l2_bytes))]


def imported(name: str) -> Any:
    """A module; Absent with the reason where it is not there or does not import."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Absent(f"not installed ({error})") from error
    except Exception as error:  # packages look at the GPU and at each other when imported
        raise Absent(f"cannot be imported ({one_line(error)})") from error


class Contestant:
    """load() once for a problem, then variants() for each M; both may raise."""

    key = ""
    title = ""
    note = ""  # for the report: what was compared

    def load(self, weight: Weight) -> None:
        """Packs the weight; what was packed before may go."""
        raise NotImplementedError

    def variants(self, x: torch.Tensor, seconds: float) -> list[Variant]:
        """Ways to compute x [m, k] times the loaded weight; tuning may take so many seconds."""
        raise NotImplementedError

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        """The product in float64 [m, rows] on exactly this contestant's weight and x."""
        raise NotImplementedError

    def unload(self) -> None:
        """Frees what load() made."""
        raise NotImplementedError


class W4tune(Contestant):
    """Our winners, through the C ABI, launched plainly (no dependent launch)."""

    key = "w4tune"
    title = "w4tune"

    def __init__(self, session: Session, library: str, database: str) -> None:
        self._session = session
        try:
            self._library = Library(library)
            self._dispatcher: Dispatcher = self._library.open(database, session.device)
        except (OSError, RuntimeError, AttributeError) as error:
            raise Absent(str(error)) from error
        self.note = f"{os.path.basename(database)}, rows of {self._dispatcher.device_name}"

    def load(self, weight: Weight) -> None:
        weight_bytes, scale_bytes = self._library.packed_sizes(weight.problem)
        packed = torch.empty(weight_bytes, dtype=torch.uint8, device="cuda")
        scales = torch.empty(scale_bytes, dtype=torch.uint8, device="cuda")
        nibbles = weight.nibbles()
        self._dispatcher.pack(
            weight.problem,
            nibbles.data_ptr(),
            weight.scales.data_ptr(),
            packed.data_ptr(),
            scales.data_ptr(),
            self._session.stream.cuda_stream,
        )
        torch.cuda.synchronize()
        self._weight = weight
        self._copies = clones((packed, scales), self._session)

    def variants(self, x: torch.Tensor, seconds: float) -> list[Variant]:
        problem, m = self._weight.problem, x.shape[0]
        selection = self._dispatcher.select(problem, m)
        y = torch.empty(m, problem.n, dtype=x.dtype, device="cuda")
        stream = self._session.stream.cuda_stream

        def launch(copy: int) -> torch.Tensor:
            w, scales = self._copies[copy]
            self._dispatcher.launch(
                selection, x.data_ptr(), w.data_ptr(), scales.data_ptr(), y.data_ptr(), m, stream
            )
            return y

        label = f"{self._dispatcher.match(selection)}: {self._dispatcher.config(selection)}"
        return [Variant(label, launch, len(self._copies), y)]

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        product = x.double() @ self._weight.exact().t()
        if self._weight.problem.op == "gemm":
            return product
        gate, up = product.chunk(2, dim=1)
        return torch.nn.functional.gelu(gate, approximate="tanh") * up

    def unload(self) -> None:
        self._copies = []


class CuBlas(Contestant):
    """torch.mm on the weight dequantised to FP16 (BF16): the algorithm is torch's choice."""

    key = "cublas"
    title = "cuBLASLt FP16"
    note = (
        "torch.mm with out= on the dequantised weight, the faster of torch's cuBLAS and cuBLASLt "
        "back ends; the algorithm is the library's first choice, no search"
    )

    def __init__(self, session: Session) -> None:
        self._session = session

    def load(self, weight: Weight) -> None:
        dense = weight.exact().to(weight.scales.dtype)
        self._copies = clones((dense,), self._session)

    def variants(self, x: torch.Tensor, seconds: float) -> list[Variant]:
        rows = self._copies[0][0].shape[0]
        y = torch.empty(x.shape[0], rows, dtype=x.dtype, device="cuda")

        def launcher(library: str) -> Callable[[int], torch.Tensor]:
            def launch(copy: int) -> torch.Tensor:
                torch.backends.cuda.preferred_blas_library(library)
                try:
                    return torch.mm(x, self._copies[copy][0].t(), out=y)
                finally:
                    torch.backends.cuda.preferred_blas_library("default")

            return launch

        libraries = ("cublas", "cublaslt")
        return [Variant(name, launcher(name), len(self._copies), y) for name in libraries]

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        return x.double() @ self._copies[0][0].double().t()

    def unload(self) -> None:
        self._copies = []


class TinyGemm(Contestant):
    """PyTorch's own INT4 kernel, aten._weight_int4pack_mm."""

    key = "tinygemm"
    title = "tinygemm"
    note = "BF16 whatever the cell's dtype; inner_k_tiles 2, 4 and 8 tried, the fastest counts"

    def __init__(self, session: Session) -> None:
        self._session = session

    def load(self, weight: Weight) -> None:
        packed, pairs = tinygemm_operands(weight.values, weight.scales)
        self._weight = weight
        self._copies: dict[int, list[tuple[torch.Tensor, ...]]] = {}
        for inner_k_tiles in (2, 4, 8):
            if weight.problem.k % (16 * inner_k_tiles) == 0:
                tiles = torch.ops.aten._convert_weight_to_int4pack(packed, inner_k_tiles)
                self._copies[inner_k_tiles] = clones((tiles, pairs), self._session)

    def variants(self, x: torch.Tensor, seconds: float) -> list[Variant]:
        group = self._weight.problem.group
        x_bf16 = x.to(torch.bfloat16)

        def launcher(copies: list[tuple[torch.Tensor, ...]]) -> Callable[[int], torch.Tensor]:
            def launch(copy: int) -> torch.Tensor:
                tiles, pairs = copies[copy]
                return torch.ops.aten._weight_int4pack_mm(x_bf16, tiles, group, pairs)

            return launch

        return [
            Variant(f"inner_k_tiles={inner}", launcher(copies), len(copies))
            for inner, copies in self._copies.items()
        ]

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        exact = self._weight.exact(self._weight.scales.to(torch.bfloat16))
        return x.to(torch.bfloat16).double() @ exact.t()

    def unload(self) -> None:
        self._copies = {}


class ForkPool(Executor):
    """Compiles in forked processes, several at a time, because Triton holds Python's lock.

    A child only fills Triton's cache on disk and touches no GPU; then the parent runs the same
    function, which finds what it needs there, or fails again and says why.
    """

    _PATIENCE_S = 60.0

    def __init__(self, processes: int) -> None:
        # Forking beside threads is what this is: children that hang are ended and done without.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        self._threads = ThreadPoolExecutor(processes)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._threads.submit(self._run, lambda: fn(*args, **kwargs))

    @classmethod
    def _run(cls, fn: Callable[[], Any]) -> Any:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                fn()
                code = 0
            finally:
                os._exit(code)
        deadline = time.monotonic() + cls._PATIENCE_S
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.005)
        return fn()


class GemLite(Contestant):
    """GemLite's Triton kernels, at the best of what its own autotuner tries.

    For each of its kernels that serves this M, its own list of configurations ("fast" autotuning)
    is compiled in parallel and ranked on a flushed L2; the best three of all are measured. When the
    seconds for a cell are spent after its default kernel, the others are left out; when those of
    the whole run are spent, only configurations that won before (or the first four) are tried.
    """

    key = "gemlite"
    title = "GemLite"
    _FINALISTS = 3

    def __init__(self, session: Session) -> None:
        self._session = session
        gemlite = imported("gemlite")
        self._core: Any = imported("gemlite.core")
        self._gemlite: Any = gemlite
        gemlite.reset_config()  # shipped configurations would stand in for tuning
        self._pool = ForkPool(max(2, (os.cpu_count() or 4) - 1))
        self._winners: dict[str, list[dict[str, object]]] = {}
        self.note = (
            f"{gemlite.__version__}: its own configurations of its own kernels, ranked on cold "
            f"weights, the best {self._FINALISTS} measured, the fastest counts"
        )

    def load(self, weight: Weight) -> None:
        problem = weight.problem
        dtype = getattr(self._gemlite.DType, {"f16": "FP16", "bf16": "BF16"}[problem.dtype])
        layer = self._gemlite.GemLiteLinear(
            4,
            group_size=problem.group,
            in_features=problem.k,
            out_features=problem.rows,
            input_dtype=dtype,
            output_dtype=dtype,
            scaled_activations=False,
        )
        layer.pack(weight.values, weight.scales, 8, None)
        w_q, scales, zeros, meta_scale = (t.detach() for t in layer.get_tensor_args())
        self._shared = [zeros, meta_scale]
        self._meta = layer.get_meta_args()
        self._weight = weight
        self._copies = clones((w_q, scales), self._session)

    def variants(self, x: torch.Tensor, seconds: float) -> list[Variant]:
        deadline = time.monotonic() + seconds
        found: list[tuple[float, str, Any, Any, Any]] = []
        failures: list[str] = []
        is_short = seconds <= 0.0
        for kind in self._kinds(x.shape[0]):
            if found and time.monotonic() >= deadline:
                is_short = True
                break
            try:
                found += self._ranked(kind, x, limited=seconds <= 0.0)
            except Exception as error:
                torch.cuda.synchronize()  # raises where the context is lost
                failures.append(f"{kind}: {error}")
        if not found:
            raise RuntimeError("; ".join(failures) or "no kernel of GemLite serves this M")
        found.sort(key=lambda entry: entry[0])
        self._winners.setdefault(found[0][1], []).append(found[0][4].all_kwargs())
        tried = f"{len(found)} tried" + (f", {CUT_SHORT}" if is_short else "")
        return [
            Variant(
                f"{kind} {config} ({tried})",
                self._launcher(kind, x, tuner, key, config),
                len(self._copies),
            )
            for _, kind, tuner, key, config in found[: self._FINALISTS]
        ]

    @staticmethod
    def _kinds(m: int) -> tuple[str, ...]:
        """Kernels of GemLite that can serve m tokens, its own default first."""
        if m <= 4:
            return "GEMV_REVSPLITK", "GEMV_SPLITK", "GEMV", "GEMM_SPLITK"
        return ("GEMM_SPLITK", "GEMM") if m < 64 else ("GEMM", "GEMM_SPLITK")

    def _call(self, kind: str, x: torch.Tensor, copy: int) -> torch.Tensor:
        number = self._core.GEMLITE_MATMUL_TYPES_MAPPING[kind]
        arguments = [*self._copies[copy], *self._shared]
        return self._core.forward_functional(x, None, arguments, self._meta, number)

    def _launcher(
        self, kind: str, x: torch.Tensor, tuner: Any, key: Any, config: Any
    ) -> Callable[[int], torch.Tensor]:
        def launch(copy: int) -> torch.Tensor:
            tuner.cache[key] = config
            return self._call(kind, x, copy)

        return launch

    def _ranked(
        self, kind: str, x: torch.Tensor, limited: bool
    ) -> list[tuple[float, str, Any, Any, Any]]:
        """(cold us, kernel, its autotuner, the autotuner's key, configuration), unsorted."""
        tuner = self._core.GEMLITE_TRITON_MAPPING[kind].kernel[0]  # of INT weights
        tuner.cache.clear()
        with self._in_our_hands(tuner, kind, limited):
            self._call(kind, x, 0)
        (key,) = tuner.cache
        timings = {c: t[0] for c, t in tuner.configs_timings.items() if math.isfinite(t[0])}
        if not timings:
            raise RuntimeError("none of its configurations runs")
        return [(us, kind, tuner, key, config) for config, us in timings.items()]

    @contextmanager
    def _in_our_hands(self, tuner: Any, kind: str, limited: bool) -> Iterator[None]:
        """Lets Triton's autotuner compile in parallel and time on a flushed L2, for a while."""
        prune, run = tuner.early_config_prune, type(tuner).run

        def limited_prune(configs: Any, nargs: Any, **arguments: Any) -> list[Any]:
            offered = list(prune(configs, nargs, **arguments))
            if not limited:
                return offered
            known = [c for c in offered if c.all_kwargs() in self._winners.get(kind, [])]
            return known or offered[:4]

        def parallel_run(*args: Any, **kwargs: Any) -> Any:
            self._compile_all(tuner, args, kwargs)
            return run(tuner, *args, **kwargs)

        def bench(call: Callable[[], object], quantiles: object = None) -> list[float]:
            try:
                return [self._session.cold_time_us(call)] * 3
            except Exception:  # this configuration does not compile or fit
                torch.cuda.synchronize()
                return [math.inf] * 3

        tuner.early_config_prune, tuner.run, tuner.do_bench = limited_prune, parallel_run, bench
        try:
            yield
        finally:
            tuner.early_config_prune = prune
            del tuner.run, tuner.do_bench

    def _compile_all(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Fills Triton's caches; without it the autotuner compiles one after another."""
        import triton

        if not hasattr(triton, "AsyncCompileMode"):
            return
        arguments = {name: value for name, value in kwargs.items() if name != "warmup"}
        with triton.AsyncCompileMode(self._pool, ignore_errors=True):
            tuner.warmup(*args, **arguments)

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        return x.double() @ self._weight.exact().t()

    def unload(self) -> None:
        self._copies = []


def bitblas_config(bitblas: Any, problem: Problem, m: int) -> Any:
    """BitBLAS's name for FP16 x [m, k] times a symmetric INT4 weight, summed in FP32."""
    return bitblas.MatmulConfig(
        M=m,
        N=problem.rows,
        K=problem.k,
        A_dtype="float16",
        W_dtype="int4",
        accum_dtype="float32",
        out_dtype="float16",
        layout="nt",
        with_bias=False,
        group_size=problem.group,
        with_scaling=True,
        with_zeros=False,
    )


class BitBlas(Contestant):
    """BitBLAS (TVM) at the best of its own tuning. From its documentation: never run by us."""

    key = "bitblas"
    title = "BitBLAS"
    note = "tuned by itself for each M, FP32 accumulation"

    def __init__(self, session: Session) -> None:
        self._session = session
        self._bitblas: Any = imported("bitblas")

    def load(self, weight: Weight) -> None:
        self._weight = weight

    def variants(self, x: torch.Tensor, seconds: float) -> list[Variant]:
        problem = self._weight.problem
        if seconds <= 0.0:
            raise RuntimeError("the seconds for tuning are spent (--peer-budget)")
        if problem.dtype != "f16":
            raise RuntimeError("compared for f16 only")
        config = bitblas_config(self._bitblas, problem, x.shape[0])
        multiply = self._bitblas.Matmul(config=config, enable_tuning=True)
        packed = multiply.transform_weight(self._weight.values.to(torch.int8) - 8)
        copies = clones((packed, self._weight.scales), self._session)
        y = torch.empty(x.shape[0], problem.rows, dtype=x.dtype, device="cuda")

        def launch(copy: int) -> torch.Tensor:
            w, scales = copies[copy]
            multiply(x, w, scale=scales, output=y)
            return y

        return [Variant("tuned", launch, len(copies), y)]

    def reference(self, x: torch.Tensor) -> torch.Tensor:
        return x.double() @ self._weight.exact().t()

    def unload(self) -> None:
        pass


PEERS: dict[str, Callable[[Session], Contestant]] = {
    peer.key: peer for peer in (CuBlas, TinyGemm, GemLite, BitBlas)
}
