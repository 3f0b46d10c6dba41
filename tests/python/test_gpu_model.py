"""Pi0.5's two Gemmas, quantised: the whole model against the same weights in FP32.

Everything runs twice: on the CPU with a small model, and on a GPU with Pi0.5's two configurations.
What only a GPU has (streams, graphs, its allocator) is tested there alone.

Bounds. u is the unit roundoff of the activations' dtype (2^-11 FP16, 2^-8 BF16).

- One launch, each output: docs/kernels.md, "Error bounds", with the largest c (24) and the term of
  D0, because which kernel serves is not known here. Where a layer is served by PyTorch's matmul on
  the dequantised weight (and on the CPU), each weight is rounded once more, which that D0 term
  covers statistically (a sum of K roundings of at most u each beside 4 u sqrt(sum of squares)), and
  gate and up are rounded to the dtype before the activation: u |gate| and u |up| are added.
- One MLP, relative 2-norm over all tokens: roundings to nearest are off by 0.4 u, root mean square.
  h has those of gate, up and the product, y its own, weights at most one each: below 2 u.
- The model, relative 2-norm of the last hidden state: each of the L layers adds two rounded sums to
  the residual stream (0.4 u each), and two block outputs whose own error is at most about 3 u of
  themselves; with random weights a block's output is smaller than the stream. Independent, they
  add up to less than u sqrt(L (2 * 0.16 + 2 * 9)) = 4.3 u sqrt(L), 0.071 for BF16 and L = 18. That
  leaves room; so the same model in PyTorch's own BF16, with the same dequantised weights rounded
  to BF16, is measured too, and the error must be at most 1.5 times its error.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
w4tune = pytest.importorskip("w4tune", reason="w4tune is not built")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from w4tune import ops  # noqa: E402

UNIT_ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}

# OPENPI_BITBLAS_INCLUDE and _EXCLUDE of the fork's examples/libero/run_quantvla_w4fp16.sh
INCLUDE = (
    r"(.*language_model.*(gate_proj|up_proj|down_proj).*|"
    r".*gemma_expert.*(gate_proj|up_proj|down_proj).*)"
)
EXCLUDE = (
    r"(?:^|\.)(norm|ln|layernorm|emb|embed|vision_tower|multi_modal_projector|lm_head)(?:\.|$)"
)
LM_PATH = "paligemma_with_expert.paligemma.model.language_model"
EXPERT_PATH = "paligemma_with_expert.gemma_expert.model"
VISION_PATH = "paligemma_with_expert.paligemma.model.vision_tower"


@dataclass(frozen=True)
class Scale:
    """Sizes of the two Gemmas, and the tokens they are run on."""

    device: str
    lm: dict[str, int]
    expert: dict[str, int]
    prefix: int
    suffix: int

    def layers(self, path: str) -> int:
        return (self.lm if path == LM_PATH else self.expert)["num_hidden_layers"]

    def tokens(self, path: str) -> int:
        return self.prefix if path == LM_PATH else self.suffix


def sizes(width: int, mlp: int, layers: int, head: int) -> dict[str, int]:
    """As GemmaConfig names them."""
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "head_dim": head,
    }


PI05 = Scale(
    device="cuda",
    lm=sizes(2048, 16384, layers=18, head=256),
    expert=sizes(1024, 4096, layers=18, head=256),
    prefix=968,
    suffix=50,
)
SMALL = Scale(
    device="cpu",
    lm=sizes(256, 512, layers=3, head=32),
    expert=sizes(128, 256, layers=2, head=32),
    prefix=29,
    suffix=5,
)


def config_of(given: dict[str, int]) -> transformers.GemmaConfig:
    """gemma_2b's and gemma_300m's common part: 8 heads, one for keys and values, tanh-GELU."""
    # transformers before 5 reads hidden_activation, later ones hidden_act.
    return transformers.GemmaConfig(
        **given,
        num_attention_heads=8,
        num_key_value_heads=1,
        hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh",
        vocab_size=64,
        attn_implementation="sdpa",
        use_cache=False,
    )


class VisionMlp(nn.Module):
    """Stands for SigLIP: its Linears match neither expression, and 4304 is no multiple of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(1152, 4304)
        self.up_proj = nn.Linear(1152, 128)


def put(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    root.add_module(name, module)


def make_model(scale: Scale, seed: int = 0) -> nn.Module:
    """The Gemmas under their names in OpenPI, random weights in BF16."""
    torch.manual_seed(seed)
    root = nn.Module()
    with torch.device(scale.device):
        put(root, LM_PATH, transformers.GemmaModel(config_of(scale.lm)))
        expert = transformers.GemmaForCausalLM(config_of(scale.expert))
        put(root, EXPERT_PATH.rpartition(".")[0], expert)
        put(root, VISION_PATH, VisionMlp())
    return root.to(torch.bfloat16).eval().requires_grad_(False)


def embeddings(scale: Scale, path: str, dtype: torch.dtype, seed: int = 7) -> Tensor:
    generator = torch.Generator(scale.device).manual_seed(seed)
    width = (scale.lm if path == LM_PATH else scale.expert)["hidden_size"]
    shape = (1, scale.tokens(path), width)
    x = torch.randn(shape, device=scale.device, generator=generator)
    return x.to(torch.bfloat16).to(dtype)


def run_gemma(root: nn.Module, path: str, x: Tensor) -> Tensor:
    """The last hidden state [1, tokens, width] of embeddings x."""
    return root.get_submodule(path)(inputs_embeds=x, use_cache=False).last_hidden_state


def mlps_of(root: nn.Module, path: str) -> list[nn.Module]:
    return [layer.mlp for layer in root.get_submodule(path).layers]


def exact_weight(op: str, layer: nn.Module) -> Tensor:
    """float64 [rows, k]: q * scale, not rounded, with scales as the kernel reads them.

    Packing only moves nibbles about, so a weight of nothing but 9s (q = 1) shows the scales.
    """
    q = ops.dequantize(op, layer.weight_packed, torch.ones_like(layer.scales))
    ones = torch.full_like(layer.weight_packed, 0x99)
    return q.double() * ops.dequantize(op, ones, layer.scales).double()


def exact_mlp(mlp: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """gate, up and down in float64."""
    gate, up = exact_weight("geglu", mlp.gate_up).chunk(2)
    return gate, up, exact_weight("gemm", mlp.down_proj)


def with_exact_weights(original: nn.Module, quantised: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The original model in dtype, with the quantised model's MLP weights, rounded once to it."""
    root = copy.deepcopy(original).to(dtype)
    for path in (LM_PATH, EXPERT_PATH):
        for plain, ours in zip(mlps_of(root, path), mlps_of(quantised, path), strict=True):
            gate, up, down = exact_mlp(ours)
            plain.gate_proj.weight.copy_(gate)
            plain.up_proj.weight.copy_(up)
            plain.down_proj.weight.copy_(down)
    return root


def relative(y: Tensor, reference: Tensor) -> float:
    return float((y.double() - reference.double()).norm() / reference.double().norm())


def linears_of(root: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in root.named_modules() if isinstance(m, nn.Linear)}


def allocated(scale: Scale) -> int:
    if scale.device == "cpu":
        return 0
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


@dataclass
class Models:
    scale: Scale
    original: nn.Module  # BF16
    quantised: nn.Module
    summary: object
    selected: list[str]  # names of the Linears that had to be replaced
    grown: int  # bytes that the quantised model's MLPs take on the GPU


ON_GPU = pytest.param(PI05, id="pi05-gpu", marks=pytest.mark.gpu)


@pytest.fixture(scope="module", params=[pytest.param(SMALL, id="small-cpu"), ON_GPU])
def models(request: pytest.FixtureRequest) -> Iterator[Models]:
    scale = request.param
    with torch.no_grad():
        original = make_model(scale)
        quantised = copy.deepcopy(original)
        names = [
            f"{path}.layers.{i}.mlp.{projection}"
            for path in (LM_PATH, EXPERT_PATH)
            for i in range(scale.layers(path))
            for projection in ("gate_proj", "up_proj", "down_proj")
        ]
        linears = linears_of(quantised)
        released = sum(2 * linears[name].weight.numel() for name in names)
        del linears
        before = allocated(scale)
        summary = w4tune.quantize_(quantised, include=INCLUDE, exclude=EXCLUDE, verbose=False)
        grown = allocated(scale) - (before - released)
        yield Models(scale, original, quantised, summary, names, grown)
    if scale.device == "cuda":
        torch.cuda.empty_cache()


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def count(value: object) -> int:
    return value if isinstance(value, int) else len(value)  # type: ignore[arg-type]


PATHS = pytest.mark.parametrize("path", [LM_PATH, EXPERT_PATH], ids=["lm", "expert"])


# ---- what was replaced ---------------------------------------------------------------------------


def test_the_forks_expressions_replace_every_mlp_linear(models: Models) -> None:
    scale, quantised = models.scale, models.quantised
    layers = scale.layers(LM_PATH) + scale.layers(EXPERT_PATH)
    summary = models.summary
    assert count(summary.selected) == 3 * layers
    assert count(summary.replaced) == 3 * layers
    assert count(summary.modules) == 2 * layers
    if scale is PI05:
        assert (3 * layers, 2 * layers) == (108, 72)
    ours = [m for m in quantised.modules() if isinstance(m, (w4tune.Linear, w4tune.GeGLU))]
    assert len(ours) == 2 * layers
    for path in (LM_PATH, EXPERT_PATH):
        assert all(isinstance(mlp, w4tune.GeGLUMLP) for mlp in mlps_of(quantised, path))


def test_nothing_else_is_touched(models: Models) -> None:
    before, after = linears_of(models.original), linears_of(models.quantised)
    assert set(before) - set(after) == set(models.selected)
    for name, linear in after.items():
        assert torch.equal(linear.weight, before[name].weight), name


def test_replaced_weights_take_at_most_27_percent_of_fp16(models: Models) -> None:
    linears = linears_of(models.original)
    fp16 = sum(2 * linears[name].weight.numel() for name in models.selected)
    buffers = sum(
        buffer.numel() * buffer.element_size()
        for path in (LM_PATH, EXPERT_PATH)
        for mlp in mlps_of(models.quantised, path)
        for buffer in mlp.state_dict().values()
    )
    assert buffers <= 0.27 * fp16
    assert models.summary.bytes_before == fp16
    assert abs(models.summary.bytes_after - buffers) <= 0.01 * fp16
    if models.scale.device == "cuda":
        assert models.grown <= 0.27 * fp16, f"{models.grown / fp16:.2%} by memory_allocated"


def test_model_code_can_ask_for_the_weights(models: Models) -> None:
    shape = (models.scale.lm["intermediate_size"], models.scale.lm["hidden_size"])
    for mlp in mlps_of(models.quantised, LM_PATH)[:2]:
        for projection in (mlp.gate_proj, mlp.up_proj):
            assert projection.weight.dtype == torch.bfloat16
            assert tuple(projection.weight.shape) == shape
            assert projection.weight.device.type == models.scale.device
        assert mlp.down_proj.weight.dtype == torch.bfloat16
        assert tuple(mlp.down_proj.weight.shape) == shape[::-1]


def test_quantised_weights_are_near_the_original_ones(models: Models) -> None:
    """Normal weights in 4 bits and groups of 128: a relative error of about 0.11."""
    for path in (LM_PATH, EXPERT_PATH):
        plain, ours = mlps_of(models.original, path)[-1], mlps_of(models.quantised, path)[-1]
        named = (plain.gate_proj, plain.up_proj, plain.down_proj)
        for linear, weight in zip(named, exact_mlp(ours), strict=True):
            assert relative(weight, linear.weight) < 0.14


# ---- results -------------------------------------------------------------------------------------


def spread_of(x: Tensor, weight: Tensor, u: float) -> tuple[Tensor, Tensor]:
    """x @ weight^T in float64, and E: what FP32 sums and a rounding of each weight may add."""
    product = x @ weight.t()
    absolute = x.abs() @ weight.abs().t()
    # 24 sum |x s| of docs/kernels.md: |x s| is at most |x| times the row's largest scale, and that
    # at most the row's largest weight over 1; a row of normal weights reaches |q| = 4 at least.
    largest = weight.abs().amax(dim=1) / 4.0
    offsets = 24.0 * x.abs().sum(dim=-1, keepdim=True) * largest
    squares = (x.square() @ weight.square().t()).sqrt()
    return product, 2.0**-22 * (absolute + offsets) + 4.0 * u * squares


def excess_of_geglu(h: Tensor, x: Tensor, gate_weight: Tensor, up_weight: Tensor) -> float:
    """The largest error of h [rows, n] in units of its bound."""
    u = UNIT_ROUNDOFF[h.dtype]
    gate, of_gate = spread_of(x.double(), gate_weight, u)
    up, of_up = spread_of(x.double(), up_weight, u)
    of_gate, of_up = of_gate + u * gate.abs(), of_up + u * up.abs()
    gelu = F.gelu(gate, approximate="tanh")
    reference = gelu * up
    bound = (1.13 * of_gate + 2.0**-21 * gate.abs()) * (up.abs() + of_up) + gelu.abs() * of_up
    bound += u * reference.abs() + 2.0**-24
    return float(((h.double() - reference).abs() / bound).max())


def excess_of_gemm(y: Tensor, x: Tensor, weight: Tensor) -> float:
    u = UNIT_ROUNDOFF[y.dtype]
    reference, spread = spread_of(x.double(), weight, u)
    bound = u * reference.abs() + 2.0**-24 + spread
    return float(((y.double() - reference).abs() / bound).max())


def some_rows(tokens: int, at_most: int = 48) -> Tensor:
    """First and last ones and a spread between: float64 of all 968 would take an A40 minutes."""
    return torch.linspace(0, tokens - 1, min(tokens, at_most)).round().long()


def mlp_inputs(root: nn.Module, path: str, x: Tensor) -> list[Tensor]:
    """What each MLP of a model gets in a forward pass: [tokens, width]."""
    inputs: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0].detach().flatten(0, -2).clone())

    hooks = [mlp.register_forward_pre_hook(record) for mlp in mlps_of(root, path)]
    run_gemma(root, path, x)
    for hook in hooks:
        hook.remove()
    return inputs


@PATHS
def test_each_mlp_is_within_its_bounds(models: Models, path: str) -> None:
    """Every layer on the inputs that it has in the model: each launch, then the MLP as a whole."""
    x = embeddings(models.scale, path, torch.bfloat16)
    mlps = mlps_of(models.quantised, path)
    inputs = mlp_inputs(models.quantised, path, x)
    assert len(inputs) == len(mlps)
    u = UNIT_ROUNDOFF[torch.bfloat16]
    for index, (mlp, given) in enumerate(zip(mlps, inputs, strict=True)):
        gate, up, down = exact_mlp(mlp)
        h = mlp.gate_up(given)
        y = mlp.down_proj(h)
        rows = some_rows(len(given)).to(given.device)
        excess = excess_of_geglu(h[rows], given[rows], gate, up)
        assert excess <= 1.0, f"layer {index}: gate and up at {excess:.3g} times the bound"
        excess = excess_of_gemm(y[rows], h[rows], down)
        assert excess <= 1.0, f"layer {index}: down at {excess:.3g} times the bound"
        assert torch.equal(mlp(given), y)
        wide = given.float()
        hidden = F.gelu(wide @ gate.float().t(), approximate="tanh") * (wide @ up.float().t())
        error = relative(y, hidden @ down.float().t())
        assert error <= 2.0 * u, f"layer {index}: {error:.3g}"


@PATHS
def test_fp16_activations_are_within_their_bounds(models: Models, path: str) -> None:
    """The same weights after .to(float16): scales were BF16, and FP16 holds them here."""
    mlp = copy.deepcopy(mlps_of(models.quantised, path)[0]).to(torch.float16)
    width = mlp.gate_up.in_features
    x = torch.randn(models.scale.tokens(path), width, device=models.scale.device).half()
    gate, up, down = exact_mlp(mlp)
    h = mlp.gate_up(x)
    rows = some_rows(len(x)).to(x.device)
    assert h.dtype == torch.float16
    assert excess_of_geglu(h[rows], x[rows], gate, up) <= 1.0
    assert excess_of_gemm(mlp.down_proj(h)[rows], h[rows], down) <= 1.0
    back = copy.deepcopy(mlp).to(torch.bfloat16)
    original = mlps_of(models.quantised, path)[0].state_dict()
    for name, value in back.state_dict().items():
        assert torch.equal(value, original[name]), name


@PATHS
def test_the_model_is_within_its_bounds(models: Models, path: str) -> None:
    bf16 = embeddings(models.scale, path, torch.bfloat16)
    ours = run_gemma(models.quantised, path, bf16)
    exact = with_exact_weights(models.original, models.quantised, torch.float32)
    reference = run_gemma(exact, path, bf16.float())
    del exact
    plain = with_exact_weights(models.original, models.quantised, torch.bfloat16)
    torchs = relative(run_gemma(plain, path, bf16), reference)
    error = relative(ours, reference)
    u = UNIT_ROUNDOFF[torch.bfloat16]
    assert torch.isfinite(ours).all()
    assert error <= 4.3 * u * math.sqrt(models.scale.layers(path)), f"{error:.3g}"
    assert error <= 1.5 * torchs, f"{error:.3g}, PyTorch's own BF16 {torchs:.3g}"


# ---- torch.compile and CUDA graphs ---------------------------------------------------------------


def bound_of_model(scale: Scale, path: str) -> float:
    return 4.3 * UNIT_ROUNDOFF[torch.bfloat16] * math.sqrt(scale.layers(path))


@PATHS
def test_compiled_mlps_give_the_same_bits(models: Models, path: str) -> None:
    """One graph without a break; between the two launches there is nothing to be fused."""
    torch._dynamo.reset()
    backend = "inductor" if models.scale.device == "cuda" else "aot_eager"
    x = embeddings(models.scale, path, torch.bfloat16)
    for mlp in mlps_of(models.quantised, path)[:3]:
        compiled = torch.compile(mlp, fullgraph=True, backend=backend)
        assert torch.equal(compiled(x), mlp(x))


@PATHS
def test_a_compiled_model_gives_the_same_results(models: Models, path: str) -> None:
    """aot_eager runs the same operations, so the same bits; Inductor fuses what is around them."""
    torch._dynamo.reset()
    x = embeddings(models.scale, path, torch.bfloat16)
    eager = run_gemma(models.quantised, path, x)
    gemma = models.quantised.get_submodule(path)

    def forward(x: Tensor) -> Tensor:
        return gemma(inputs_embeds=x, use_cache=False).last_hidden_state

    compiled = torch.compile(forward, backend="aot_eager")
    assert relative(compiled(x), eager) <= 1e-3
    if models.scale.device == "cuda":
        torch._dynamo.reset()
        compiled = torch.compile(forward)
        assert relative(compiled(x), eager) <= bound_of_model(models.scale, path)


@pytest.mark.gpu
@pytest.mark.parametrize("permuted", [True, False])
@pytest.mark.parametrize("width, block", [(1024, 64), (100, 16), (4096, 16)])
def test_opcheck_and_result_of_rotate(width: int, block: int, permuted: bool) -> None:
    blocks = torch.randn(-(-width // block), block, block, device="cuda") / math.sqrt(block)
    blocks = blocks.half()
    permutation = torch.randperm(width, device="cuda").int() if permuted else None
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.randn(50, width, device="cuda").to(dtype)
        torch.library.opcheck(torch.ops.w4tune.rotate.default, (x, permutation, blocks))
        y = torch.ops.w4tune.rotate(x, permutation, blocks)
        moved = x.double() if permutation is None else x.double()[:, permutation.long()]
        padded = F.pad(moved, (0, len(blocks) * block - width)).view(50, -1, block)
        both = [
            torch.einsum("tbi,bij->tbj", a, b).flatten(1)[:, :width]
            for a, b in ((padded, blocks.double()), (padded.abs(), blocks.double().abs()))
        ]
        bound = UNIT_ROUNDOFF[dtype] * both[0].abs() + 2.0**-20 * both[1] + 2.0**-24
        assert bool(((y.double() - both[0]).abs() <= bound).all())


@pytest.mark.parametrize("models", [ON_GPU], indirect=True, scope="module")
class TestOnGpu:
    """Streams, graphs and memory."""

    @staticmethod
    def captured(call: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A graph of call() and its output, which is NaN until the graph is replayed."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = call()
        y.fill_(float("nan"))
        return graph, y

    @PATHS
    def test_a_graph_of_all_mlps_gives_the_same_bits(self, models: Models, path: str) -> None:
        mlps = mlps_of(models.quantised, path)
        x = embeddings(models.scale, path, torch.bfloat16)
        graph, y = self.captured(lambda: torch.stack([mlp(x) for mlp in mlps]))
        for seed in (7, 8):
            x.copy_(embeddings(models.scale, path, torch.bfloat16, seed))
            y.fill_(float("nan"))
            graph.replay()
            assert torch.equal(y, torch.stack([mlp(x) for mlp in mlps]))

    @PATHS
    def test_a_graph_of_the_model_gives_the_same_results(self, models: Models, path: str) -> None:
        x = embeddings(models.scale, path, torch.bfloat16)
        graph, y = self.captured(lambda: run_gemma(models.quantised, path, x))
        x.copy_(embeddings(models.scale, path, torch.bfloat16, 9))
        graph.replay()
        eager = run_gemma(models.quantised, path, x)
        error = relative(y, eager)
        assert error <= bound_of_model(models.scale, path), f"{error:.3g}"

    def test_inductors_cuda_graphs_give_the_same_bits(self, models: Models) -> None:
        torch._dynamo.reset()
        mlps = mlps_of(models.quantised, EXPERT_PATH)
        compiled = torch.compile(
            lambda x: [mlp(x) for mlp in mlps], mode="reduce-overhead", fullgraph=True
        )
        for seed in range(4):  # warm-up, recording, replays
            x = embeddings(models.scale, EXPERT_PATH, torch.bfloat16, seed)
            torch.compiler.cudagraph_mark_step_begin()
            for y, mlp in zip(compiled(x), mlps, strict=True):
                assert torch.equal(y, mlp(x))

    @pytest.mark.parametrize("tokens", [1, 10, 50, 968])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_opcheck(self, models: Models, dtype: torch.dtype, tokens: int) -> None:
        mlp = copy.deepcopy(mlps_of(models.quantised, EXPERT_PATH)[0]).to(dtype)
        x = torch.randn(tokens, mlp.gate_up.in_features, device="cuda").to(dtype)
        h = mlp.gate_up(x)
        for op, layer, given in (("geglu", mlp.gate_up, x), ("gemm", mlp.down_proj, h)):
            call = getattr(torch.ops.w4tune, op).default
            torch.library.opcheck(call, (given, layer.weight_packed, layer.scales))

    @pytest.mark.parametrize("tokens", [10, 968])
    def test_x_that_is_not_contiguous(self, models: Models, tokens: int) -> None:
        mlp = mlps_of(models.quantised, EXPERT_PATH)[0]
        k = mlp.gate_up.in_features
        x = torch.randn(2, tokens, k, device="cuda").bfloat16()
        wide = torch.full((2, tokens, 2 * k), float("nan"), device="cuda").bfloat16()
        wide[..., ::2] = x
        padded = torch.full((2, tokens, k + 8), float("nan"), device="cuda").bfloat16()
        padded[..., :k] = x
        shifted = torch.full((2, tokens, k + 1), float("nan"), device="cuda").bfloat16()
        shifted[..., 1:] = x
        expected = mlp(x)
        views = {
            "every second column": wide[..., ::2],
            "padded rows": padded[..., :k],
            "rows that begin at odd addresses": shifted[..., 1:],
            "transposed": x.transpose(0, 1).contiguous().transpose(0, 1),
            "columns first": x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        }
        for name, view in views.items():
            assert not view.is_contiguous(), name
            assert torch.equal(mlp(view), expected), name
        assert torch.equal(mlp(padded[0, :, :k]), mlp(x[0]))  # rows apart, and nothing copied
        assert mlp(x[:, :0]).shape == (2, 0, k)

    def test_two_threads_on_two_streams(self, models: Models) -> None:
        """Each thread has a stream, inputs and layers order of its own; workspaces must not mix."""
        mlps = mlps_of(models.quantised, EXPERT_PATH)
        shapes = {0: 10, 1: 50}
        inputs = {
            i: torch.randn(tokens, mlps[0].gate_up.in_features, device="cuda").bfloat16()
            for i, tokens in shapes.items()
        }
        expected = {i: [mlp(x) for mlp in mlps] for i, x in inputs.items()}
        torch.cuda.synchronize()
        wrong: dict[int, object] = {}
        gate = threading.Barrier(2)

        def work(i: int) -> None:
            try:
                stream = torch.cuda.Stream()
                with torch.cuda.stream(stream), torch.no_grad():
                    gate.wait(60.0)
                    bad = torch.zeros((), dtype=torch.int64, device="cuda")
                    order = list(range(len(mlps)))[:: 1 if i == 0 else -1]
                    for _ in range(50):
                        for layer in order:
                            bad += (mlps[layer](inputs[i]) != expected[i][layer]).sum()
                    stream.synchronize()
                    wrong[i] = int(bad)
            except Exception as error:
                wrong[i] = error

        threads = [threading.Thread(target=work, args=(i,)) for i in shapes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300.0)
        assert wrong == {0: 0, 1: 0}

    def test_a_call_neither_synchronises_nor_allocates_outside_of_pytorch(
        self, models: Models
    ) -> None:
        mlp = mlps_of(models.quantised, EXPERT_PATH)[0]
        x = embeddings(models.scale, EXPERT_PATH, torch.bfloat16)
        mlp(x)
        torch.cuda.synchronize()
        free = torch.cuda.mem_get_info()[0]
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(20):
                mlp(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        # PyTorch's allocator may have reserved a segment or two of 2 MB, and no more.
        assert free - torch.cuda.mem_get_info()[0] <= 8 << 20

    def test_a_graph_captured_before_tuning_stays_valid(
        self, models: Models, tmp_path: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("W4TUNE_DB", f"{tmp_path}/graph.db")
        mlp = mlps_of(models.quantised, EXPERT_PATH)[0]
        x = embeddings(models.scale, EXPERT_PATH, torch.bfloat16)[0, :10].contiguous()
        graph, y = self.captured(lambda: mlp(x))
        graph.replay()
        before = y.clone()
        try:
            w4tune.tune(mlp, m=[10], budget="90s")
            assert mlp.down_proj.match(10).match == "exact"
            y.fill_(float("nan"))
            graph.replay()
            assert torch.equal(y, before)
            x.copy_(torch.randn_like(x))
            graph.replay()
            # Another kernel sums in another order: both are within the bounds of one MLP.
            assert relative(y, mlp(x)) <= 4.0 * UNIT_ROUNDOFF[torch.bfloat16]
        finally:
            monkeypatch.undo()
            w4tune.reload()
