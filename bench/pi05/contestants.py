"""The contestants: PyTorch in BF16 and FP16, w4tune, and other ways to multiply by INT4 weights.

Each builds both stacks, offers ways to run a case, and says which weights it multiplies by, so that
it is judged against exactly those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from peers import contestants as peers
from peers.problems import Problem
from peers.protocol import Session
from pi05 import stacks
from pi05.stacks import TORCH_DTYPES, Case, MlpWeights, Shape, Size
from pi05.timing import Run

Absent = peers.Absent


@dataclass
class Setting:
    """What all contestants share."""

    size: Size
    seed: int
    group: int
    device: torch.device
    session: Session | None  # None without a GPU
    seconds_left: Callable[[], float]
    quick: bool
    inductor_graphs: bool = False  # torch.compile in Inductor's own CUDA graphs, alone
    dense: dict[str, Any] = field(default_factory=dict)  # weights that forms of PyTorch share

    def synchronize(self) -> None:
        if self.session is not None:
            torch.cuda.synchronize()


@dataclass
class Way:
    """One way in which a contestant can run a case; its fastest one stands for it."""

    label: str
    run: Run
    capturable: bool = True  # into our CUDA graph; else it is called from the host


class Contestant:
    """build() once, then ways() for each case; both may raise."""

    role = ""  # of report.py
    needs_gpu = False

    def __init__(self, setting: Setting, dtype: str) -> None:
        self.setting = setting
        self.dtype = dtype  # of x, y and what lies between them

    @property
    def torch_dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.dtype]

    def build(self) -> None:
        """Makes the weights of both stacks on the device; temporaries are gone afterwards."""
        raise NotImplementedError

    def ways(self, case: Case, x: torch.Tensor) -> Iterator[Way]:
        """Ways to run a case on x [m, width]; x stays valid as long as they are used."""
        raise NotImplementedError

    def exact(self, shape: Shape, layer: int) -> MlpWeights:
        """gate, up, down in float32, exactly as this contestant multiplies by them."""
        raise NotImplementedError

    def remarks(self, case: Case) -> list[str]:
        """What a reader of this case's row should know."""
        return []


def layered(call: Callable[..., torch.Tensor], x: torch.Tensor, operands: list[Any]) -> Run:
    """Runs `call` for each layer's operands."""
    return lambda: [call(x, *layer) for layer in operands]


class Dense(Contestant):
    """Weights in FP16 or BF16: gate and up lie together, so that all forms share them."""

    def build(self) -> None:
        dense = self.setting.dense
        if self.dtype not in dense:
            dense[self.dtype] = {
                shape.key: [self._layer(shape, i) for i in range(shape.layers)]
                for shape in self.setting.size.shapes
            }
        self._layers: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = dense[self.dtype]

    def _layer(self, shape: Shape, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """gate and up [2 * mlp, width], down [width, mlp]"""
        weights = stacks.layer_weights(shape, layer, self.setting.seed, self.setting.device)
        gate, up, down = (w.to(self.torch_dtype) for w in weights)
        return torch.cat((gate, up)), down

    def separate(self, shape: Shape) -> list[MlpWeights]:
        return [(*gate_up.chunk(2), down) for gate_up, down in self._layers[shape.key]]

    def merged(self, shape: Shape) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return self._layers[shape.key]

    def exact(self, shape: Shape, layer: int) -> MlpWeights:
        gate, up, down = self.separate(shape)[layer]
        return gate.float(), up.float(), down.float()


class Eager(Dense):
    """nn.Linear, as transformers' GemmaMLP is written."""

    role = "pytorch"

    def ways(self, case: Case, x: torch.Tensor) -> Iterator[Way]:
        mlps = [stacks.GemmaMlp(*w) for w in self.separate(case.shape)[: case.layers]]
        yield Way("eager operations", lambda: [mlp(x) for mlp in mlps])


class Compiled(Dense):
    """The same under torch.compile with its widest search of algorithms."""

    role = "pytorch"
    # Compiling a case takes about so long; none is begun with less left.
    LEAST_SECONDS = 45.0

    def ways(self, case: Case, x: torch.Tensor) -> Iterator[Way]:
        self._afford()
        weights = self.separate(case.shape)[: case.layers]
        if not self.setting.inductor_graphs:
            # One MLP is compiled, its weights being arguments, and serves all layers.
            mlp = compiled(stacks.gemma_mlp, "max-autotune-no-cudagraphs")
            yield Way("max-autotune-no-cudagraphs", layered(mlp, x, weights))
            return
        # Apart from all other graphs: while Inductor records its own it frees the workspaces of
        # cuBLAS that graphs captured before still use.
        module = compiled(stacks.Layers([stacks.GemmaMlp(*w) for w in weights]), "max-autotune")

        def run() -> list[torch.Tensor]:
            torch.compiler.cudagraph_mark_step_begin()
            return module(x)

        yield Way("max-autotune, Inductor's CUDA graph", run, capturable=False)

    def _afford(self) -> None:
        left = self.setting.seconds_left()
        if left < self.LEAST_SECONDS:
            raise RuntimeError(f"not compiled: {max(left, 0.0):.0f} s left of --budget")


class Merged(Dense):
    """Not what the model does: gate and up in one product of twice the rows, as some engines."""

    role = "merged"

    def ways(self, case: Case, x: torch.Tensor) -> Iterator[Way]:
        weights = self.merged(case.shape)[: case.layers]
        yield Way("eager operations", layered(stacks.merged_mlp, x, weights))
        if not self.setting.quick and self.setting.seconds_left() >= Compiled.LEAST_SECONDS:
            mlp = compiled(stacks.merged_mlp, "max-autotune-no-cudagraphs")
            yield Way("max-autotune-no-cudagraphs", layered(mlp, x, weights))


def compiled(function: Any, mode: str) -> Any:
    """torch.compile for one shape at a time, and as many of them as there are cases."""
    config: Any = torch._dynamo.config
    for name in ("recompile_limit", "cache_size_limit"):  # older and newer name
        if hasattr(config, name):
            setattr(config, name, 64)
    return torch.compile(function, mode=mode, dynamic=False, fullgraph=True)


class W4tune(Contestant):
    """This package: quantize_ on a model with Pi0.5's names, MLPs fused to GeGLU and down."""

    role = "ours"

    def __init__(self, setting: Setting, dtype: str) -> None:
        super().__init__(setting, dtype)
        self._package: Any = peers.imported("w4tune")
        self.quantised: dict[str, Any] = {}  # of quantize_, for the report

    def build(self) -> None:
        s = self.setting
        model, linears = stacks.make_model(s.size, self.torch_dtype, s.device, s.seed)
        s.synchronize()
        if s.session is not None:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begun = time.perf_counter()
        summary = self._package.quantize_(
            model,
            include=stacks.INCLUDE,
            exclude=stacks.EXCLUDE,
            group_size=s.group,
            verbose=False,
        )
        s.synchronize()
        seconds = time.perf_counter() - begun
        self._mlps = {shape.key: stacks.mlps_of(model, shape) for shape in s.size.shapes}
        every = [mlp for mlps in self._mlps.values() for mlp in mlps]
        fused = sum(isinstance(mlp, self._package.GeGLUMLP) for mlp in every)
        self.quantised = {
            "linears": linears,
            "mlps": len(every),
            "fused": fused,
            "seconds": seconds,
            "summary": " ".join(str(summary).split()),
        }
        if s.session is not None:
            self.quantised["extra_bytes"] = torch.cuda.max_memory_allocated() - before
        if fused != len(every):
            raise RuntimeError(f"quantize_ fused {fused} of {len(every)} MLPs: {summary}")

    def mlps(self, shape: Shape) -> list[nn.Module]:
        return self._mlps[shape.key]

    def ways(self, case: Case, x: torch.Tensor) -> Iterator[Way]:
        mlps = self.mlps(case.shape)[: case.layers]
        served = [f"{op} {self._told(s)}" for op, s in self._selections(case)]
        yield Way("; ".join(served) or "CPU", lambda: [mlp(x) for mlp in mlps])

    def exact(self, shape: Shape, layer: int) -> MlpWeights:
        mlp: Any = self.mlps(shape)[layer]
        weights = (*mlp.gate_up.to_quantized(), mlp.down_proj.to_quantized())
        gate, up, down = (weight.dequantize(torch.float32) for weight in weights)
        return gate, up, down

    def remarks(self, case: Case) -> list[str]:
        return [
            f"{op} is not tuned at this M, match {selection.match}"
            for op, selection in self._selections(case)
            if selection.match != "exact"
        ]

    def _selections(self, case: Case) -> list[tuple[str, Any]]:
        """What serves gate and up, and down; nothing without a GPU."""
        if self.setting.session is None:
            return []
        mlp: Any = self.mlps(case.shape)[0]
        return [("geglu", mlp.gate_up.match(case.m)), ("down", mlp.down_proj.match(case.m))]

    @staticmethod
    def _told(selection: Any) -> str:
        return f"{selection.match}: {selection.config}"


class Quantised(Contestant):
    """Other ways to multiply by INT4: the very weights of w4tune's FP16 layers."""

    role = "w4"

    def __init__(self, setting: Setting, dtype: str) -> None:
        super().__init__(setting, dtype)
        self._package: Any = peers.imported("w4tune")

    def build(self) -> None:
        self._layers = {
            shape.key: [self._layer(shape, i) for i in range(shape.layers)]
            for shape in self.setting.size.shapes
        }

    def quantised(self, shape: Shape, layer: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(codes uint8 [n, k / 2], scales FP16 [n, k / group]) of gate, up and down."""
        s = self.setting
        weights = stacks.layer_weights(shape, layer, s.seed, s.device)
        made = [
            self._package.quantize(w.to(torch.float16), group_size=s.group, method="mse")
            for w in weights
        ]
        return [(w.codes, w.scales.to(torch.float16)) for w in made]

    def _layer(self, shape: Shape, layer: int) -> Any:
        """One layer in the contestant's own format."""
        raise NotImplementedError

    def exact(self, shape: Shape, layer: int) -> MlpWeights:
        gate, up, down = self.quantised(shape, layer)
        return (
            stacks.dequantise(gate[0], gate[1].float()),
            stacks.dequantise(up[0], up[1].float()),
            stacks.dequantise(down[0], down[1].float()),
        )


class DequantThenMatmul(Quantised):
    """What the fork's layers do today: the memory is saved, and no speed is gained."""

    def _layer(self, shape: Shape, layer: int) -> Any:
        return self.quantised(shape, layer)

    def ways(self, case: Case, x: torch.Tensor) -> Iterator[Way]:
        layers = self._layers[case.shape.key][: case.layers]
        yield Way("eager operations", layered(stacks.dequantising_mlp, x, layers))
        if not self.setting.quick and self.setting.seconds_left() >= Compiled.LEAST_SECONDS:
            mlp = compiled(stacks.dequantising_mlp, "max-autotune-no-cudagraphs")
            yield Way("max-autotune-no-cudagraphs", layered(mlp, x, layers))

    def exact(self, shape: Shape, layer: int) -> MlpWeights:
        gate, up, down = (stacks.dequantise(*w).float() for w in self.quantised(shape, layer))
        return gate, up, down


def _merged_problem(shape: Shape, group: int) -> tuple[Problem, Problem]:
    """gate and up as one product, and down."""
    return (
        Problem("gemm", 2 * shape.mlp, shape.width, group),
        Problem("gemm", shape.width, shape.mlp, group),
    )


def _peer_weights(
    layers: list[tuple[torch.Tensor, torch.Tensor]], shape: Shape, group: int
) -> tuple[peers.Weight, peers.Weight]:
    """gate and up merged, and down, as bench/peers' contestants take them."""
    gate, up, down = layers
    both, last = _merged_problem(shape, group)
    return (
        peers.Weight(both, stacks.unpack(torch.cat((gate[0], up[0]))), torch.cat((gate[1], up[1]))),
        peers.Weight(last, stacks.unpack(down[0]), down[1]),
    )


class _Tuned(peers.GemLite):
    """One of the products, tuned as in bench/peers on copies of the first layer's weight."""

    def pack(self, weight: peers.Weight) -> tuple[torch.Tensor, ...]:
        """The weight and scales in GemLite's format."""
        self.load(weight)
        packed, self._copies = self._copies[0], []
        return packed

    def choose(self, weight: peers.Weight, x: torch.Tensor, seconds: float) -> None:
        self.load(weight)
        self.variants(x, seconds)
        best = min(self._ranked_last, key=lambda entry: entry[0])
        _, self._kind, self._tuner, self._key, self._config = best
        self._copies = []

    def variants(self, x: torch.Tensor, seconds: float) -> list[Any]:
        self._ranked_last: list[Any] = []
        return super().variants(x, seconds)

    def _ranked(self, kind: str, x: torch.Tensor, limited: bool) -> Any:
        found = super()._ranked(kind, x, limited)
        self._ranked_last += found
        return found

    def multiply(self, x: torch.Tensor, packed: tuple[torch.Tensor, ...]) -> torch.Tensor:
        self._tuner.cache[self._key] = self._config
        number = self._core.GEMLITE_MATMUL_TYPES_MAPPING[self._kind]
        return self._core.forward_functional(x, None, [*packed, *self._shared], self._meta, number)

    @property
    def told(self) -> str:
        return f"{self._kind} {self._config}"


class GemLite(Quantised):
    """GemLite at the best configuration of its own kernels, ranked on cold weights."""

    needs_gpu = True

    def __init__(self, setting: Setting, dtype: str) -> None:
        super().__init__(setting, dtype)
        assert setting.session is not None
        self._products = {
            shape.key: (_Tuned(setting.session), _Tuned(setting.session))
            for shape in setting.size.shapes
        }

    def _layer(self, shape: Shape, layer: int) -> Any:
        weights = _peer_weights(self.quantised(shape, layer), shape, self.setting.group)
        products = self._products[shape.key]
        return [product.pack(w) for product, w in zip(products, weights, strict=True)]

    def ways(self, case: Case, x: torch.Tensor) -> Iterator[Way]:
        shape = case.shape
        first, second = self._products[shape.key]
        both, last = _peer_weights(self.quantised(shape, 0), shape, self.setting.group)
        seconds = 5.0 if self.setting.quick else 20.0
        seconds = min(seconds, self.setting.seconds_left() / 10.0)
        first.choose(both, x, seconds)
        h = torch.randn(case.m, shape.mlp, device=x.device).to(x.dtype)
        second.choose(last, h, seconds)

        def mlp(x: torch.Tensor, gate_up: Any, down: Any) -> torch.Tensor:
            gate, up = first.multiply(x, gate_up).chunk(2, dim=-1)
            h = torch.nn.functional.gelu(gate, approximate="tanh") * up
            return second.multiply(h, down)

        layers = self._layers[shape.key][: case.layers]
        yield Way(f"{first.told}; {second.told}", layered(mlp, x, layers))


class BitBlas(Quantised):
    """BitBLAS tuned by itself for each M. From its documentation: never run by us."""

    needs_gpu = True

    def __init__(self, setting: Setting, dtype: str) -> None:
        super().__init__(setting, dtype)
        self._bitblas: Any = peers.imported("bitblas")
        self._matmuls: dict[tuple[Problem, int, bool], Any] = {}

    def _layer(self, shape: Shape, layer: int) -> Any:
        weights = _peer_weights(self.quantised(shape, layer), shape, self.setting.group)
        # The packed form does not depend on M, and a Matmul without tuning is enough to make it.
        made = []
        for w in weights:
            matmul = self._matmul(w.problem, 1, False)
            made.append((matmul.transform_weight(w.values.to(torch.int8) - 8), w.scales))
        return made

    def _matmul(self, problem: Problem, m: int, tuned: bool) -> Any:
        key = (problem, m, tuned)
        if key in self._matmuls:
            return self._matmuls[key]
        config = peers.bitblas_config(self._bitblas, problem, m)
        self._matmuls[key] = self._bitblas.Matmul(config=config, enable_tuning=tuned)
        return self._matmuls[key]

    def ways(self, case: Case, x: torch.Tensor) -> Iterator[Way]:
        if self.setting.seconds_left() < Compiled.LEAST_SECONDS:
            raise RuntimeError("not tuned: no time left of --budget")
        problems = _merged_problem(case.shape, self.setting.group)
        first, second = (self._matmul(problem, case.m, True) for problem in problems)

        def mlp(x: torch.Tensor, gate_up: Any, down: Any) -> torch.Tensor:
            gate, up = first(x, gate_up[0], scale=gate_up[1]).chunk(2, dim=-1)
            h = torch.nn.functional.gelu(gate, approximate="tanh") * up
            return second(h, down[0], scale=down[1])

        yield Way("tuned", layered(mlp, x, self._layers[case.shape.key][: case.layers]))


@dataclass(frozen=True)
class Family:
    """A contestant in one or both dtypes, and what the report says of it."""

    make: type[Contestant]
    title: str
    note: str
    dtypes: tuple[str, ...] = ("f16",)


_BOTH = ("bf16", "f16")
# In the order in which they are prepared: what compiles long and matters least comes last.
FAMILIES = {
    "w4tune": Family(W4tune, "w4tune", "quantize_ of this package, eager operations", _BOTH),
    "eager": Family(Eager, "nn.Linear", "the MLP as transformers writes it, eager", _BOTH),
    "compile": Family(
        Compiled,
        "torch.compile",
        "the same under max-autotune, captured into our CUDA graph or, in a run of its own "
        "(--inductor-graphs), into Inductor's",
        _BOTH,
    ),
    "dequant": Family(
        DequantThenMatmul,
        "dequantise, then matmul",
        "INT4 stored, dequantised to FP16 by torch operations, then F.linear, as the fork's layers "
        "do today; eager or max-autotune, the faster counts",
    ),
    "gemlite": Family(
        GemLite,
        "GemLite",
        "gate and up in one product, torch's activation, tuned by itself on cold weights",
    ),
    "bitblas": Family(
        BitBlas,
        "BitBLAS",
        "gate and up in one product, torch's activation, tuned by itself for each M",
    ),
    "merged": Family(
        Merged,
        "gate and up merged",
        "PyTorch, but not as the model is written: gate and up in one product of twice the rows; "
        "eager or max-autotune, the faster counts",
        _BOTH,
    ),
}
