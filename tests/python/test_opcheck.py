"""torch.ops.w4tune on the CPU: what PyTorch demands of an operator, and right results.

The references unpack codes by themselves; nothing of w4tune's own arithmetic is used by them. The
same demands on a GPU are in test_gpu_model.py.
"""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
w4tune = pytest.importorskip("w4tune", reason="w4tune is not built")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from w4tune import ops  # noqa: E402

DTYPES = (torch.float16, torch.bfloat16)
# Half a unit in the last place.
UNIT_ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def draw_weight(
    rows: int, k: int, group: int, dtype: torch.dtype, seed: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """codes uint8 [rows, k / 2], scales [rows, k / group], and the weight in float64 [rows, k]."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(-8, 8, (rows, k), generator=generator)
    scales = (0.5 + torch.rand(rows, k // group, generator=generator)) / (4.8 * math.sqrt(k))
    scales = scales.to(dtype)
    nibbles = q + 8
    codes = (nibbles[:, 0::2] + 16 * nibbles[:, 1::2]).to(torch.uint8)
    weight = q.double() * scales.double().repeat_interleave(group, dim=1)
    return codes, scales, weight


def draw_x(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def expected(op: str, x: Tensor, weight: Tensor) -> Tensor:
    """The product in float64, geglu with its activation; weight rows: gate, then up."""
    product = x.double() @ weight.t()
    if op == "gemm":
        return product
    gate, up = product.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def assert_close(op: str, y: Tensor, x: Tensor, weight: Tensor) -> None:
    """Within what rounding y, and on the CPU each weight, to the dtype can do.

    With u the unit roundoff, a product of weights that were rounded once is off by at most
    E = u sum |x w|, and y by u |y| more. GELU's slope is at most 1.13, so geglu is off by
    1.13 E_gate (|up| + E_up) + |gelu(gate)| E_up + u |y|. FP32 sums add 2^-22 sum |x w| at most.
    """
    assert y.dtype == x.dtype and y.shape[:-1] == x.shape[:-1]
    u = UNIT_ROUNDOFF[x.dtype]
    reference = expected(op, x, weight)
    spread = (u + 2.0**-22) * (x.double().abs() @ weight.abs().t())
    bound = spread
    if op == "geglu":
        gate, up = (x.double() @ weight.t()).chunk(2, dim=-1)
        of_gate, of_up = spread.chunk(2, dim=-1)
        gelu = F.gelu(gate, approximate="tanh").abs()
        bound = 1.13 * of_gate * (up.abs() + of_up) + gelu * of_up + 2.0**-21 * gelu * up.abs()
    bound = bound + u * reference.abs() + 2.0**-24
    excess = ((y.double() - reference).abs() / bound).max() if y.numel() else 0.0
    assert excess <= 1.0, f"{excess:.3g} times the bound"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize("op", ["gemm", "geglu"])
def test_opcheck_and_result_of_a_product(op: str, group: int, dtype: torch.dtype) -> None:
    rows, k = (48, 256) if op == "gemm" else (96, 256)
    codes, scales, weight = draw_weight(rows, k, group, dtype)
    packed = ops.pack(op, codes, scales)
    call = getattr(torch.ops.w4tune, op)
    x = draw_x((5, k), dtype)
    torch.library.opcheck(call.default, (x, *packed))
    assert_close(op, call(x, *packed), x, weight)


@pytest.mark.parametrize("op", ["gemm", "geglu"])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (0, 64), (2, 3, 64), (2, 0, 3, 64)])
def test_any_leading_dimensions(op: str, shape: tuple[int, ...]) -> None:
    codes, scales, weight = draw_weight(32, 64, 32, torch.float16)
    packed = ops.pack(op, codes, scales)
    call = getattr(torch.ops.w4tune, op)
    x = draw_x(shape, torch.float16)
    y = call(x, *packed)
    assert y.shape == (*shape[:-1], 32 if op == "gemm" else 16)
    assert_close(op, y, x, weight)
    if len(shape) > 1:
        torch.library.opcheck(call.default, (x, *packed))


def views(x: Tensor) -> list[Tensor]:
    """Tensors of x's values and shape [2, 3, k] that do not lie as one contiguous piece."""
    b, t, k = x.shape
    columns = torch.full((b, t, 2 * k), float("nan"), dtype=x.dtype, device=x.device)
    columns[..., ::2] = x
    rows = torch.full((b, t, k + 8), float("nan"), dtype=x.dtype, device=x.device)
    rows[..., :k] = x
    shifted = torch.full((b, t, k + 1), float("nan"), dtype=x.dtype, device=x.device)
    shifted[..., 1:] = x
    return [
        columns[..., ::2],
        rows[..., :k],
        shifted[..., 1:],
        x.transpose(0, 1).contiguous().transpose(0, 1),
        x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        x[:1, :1].expand(b, t, k),
    ]


@pytest.mark.parametrize("op", ["gemm", "geglu"])
def test_x_that_is_not_contiguous(op: str) -> None:
    codes, scales, _ = draw_weight(32, 128, 128, torch.bfloat16)
    packed = ops.pack(op, codes, scales)
    call = getattr(torch.ops.w4tune, op)
    for x in views(draw_x((2, 3, 128), torch.bfloat16)):
        assert not x.is_contiguous()
        assert torch.equal(call(x, *packed), call(x.contiguous(), *packed))
        torch.library.opcheck(call.default, (x, *packed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "width, block, permuted", [(128, 64, True), (100, 16, True), (64, 64, False)]
)
def test_opcheck_and_result_of_rotate(
    dtype: torch.dtype, width: int, block: int, permuted: bool
) -> None:
    generator = torch.Generator().manual_seed(3)
    count = -(-width // block)
    blocks = torch.randn(count, block, block, generator=generator) / math.sqrt(block)
    blocks = blocks.to(torch.float16)
    permutation = torch.randperm(width, generator=generator).to(torch.int32) if permuted else None
    x = draw_x((2, 3, width), dtype)
    torch.library.opcheck(torch.ops.w4tune.rotate.default, (x, permutation, blocks))
    y = torch.ops.w4tune.rotate(x, permutation, blocks)
    order = range(width) if permutation is None else permutation.tolist()
    dense = torch.zeros(width, width, dtype=torch.float64)  # y = x @ dense
    for i, source in enumerate(order):
        b, row = divmod(i, block)
        end = min((b + 1) * block, width)
        dense[source, b * block : end] = blocks[b, row, : end - b * block].double()
    reference = x.double() @ dense
    bound = UNIT_ROUNDOFF[dtype] * reference.abs() + 2.0**-20 * (x.double().abs() @ dense.abs())
    assert bool(((y.double() - reference).abs() <= bound + 2.0**-24).all())


@pytest.mark.filterwarnings("ignore:.*autograd kernel was not registered")
def test_a_backward_pass_gives_no_wrong_gradient() -> None:
    """Inference only: an error, no gradient, or on the CPU the right one; never another."""
    codes, scales, weight = draw_weight(16, 64, 64, torch.float16)
    x = draw_x((2, 64), torch.float16).requires_grad_()
    y = torch.ops.w4tune.gemm(x, *ops.pack("gemm", codes, scales))
    if y.requires_grad:
        try:
            y.float().sum().backward()
        except RuntimeError:
            pass
    if x.grad is not None:
        right = weight.sum(dim=0).expand(2, -1)
        assert torch.allclose(x.grad.double(), right, rtol=2.0**-9, atol=2.0**-9)


def gemma_like() -> nn.Module:
    """A GeGLUMLP of 64 -> 128 -> 64 in bfloat16."""
    generator = torch.Generator().manual_seed(4)

    def linear(n: int, k: int) -> nn.Linear:
        made = nn.Linear(k, n, bias=False, dtype=torch.bfloat16)
        w = torch.randn(n, k, generator=generator) / math.sqrt(k)
        made.weight = nn.Parameter(w.to(torch.bfloat16), requires_grad=False)
        return made

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj = linear(128, 64)
            self.up_proj = linear(128, 64)
            self.down_proj = linear(64, 128)
            self.act_fn = nn.GELU(approximate="tanh")

        def forward(self, x: Tensor) -> Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))

    holder = nn.Module()
    holder.mlp = Mlp()
    w4tune.quantize_(holder, group_size=64, verbose=False)
    assert type(holder.mlp).__name__ == "GeGLUMLP"
    return holder.mlp


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_modules_compile_as_one_graph(backend: str) -> None:
    mlp = gemma_like()
    x = draw_x((2, 3, 64), torch.bfloat16)
    with torch.no_grad():
        for module, given in (
            (mlp, x),
            (mlp.gate_up, x),
            (mlp.down_proj, draw_x((7, 128), torch.bfloat16)),
        ):
            torch._dynamo.reset()
            compiled = torch.compile(module, backend=backend, fullgraph=True)
            assert torch.equal(compiled(given), module(given))


def test_a_compiled_module_takes_any_number_of_tokens_without_a_graph_for_each() -> None:
    mlp = gemma_like()
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(mlp, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for tokens in (4, 7, 33, 100):
            x = draw_x((tokens, 64), torch.bfloat16, seed=tokens)
            assert torch.equal(compiled(x), mlp(x))
    assert counter.frame_count == 1


def test_code_that_reads_the_weight_of_a_module_compiles() -> None:
    """OpenPI converts hidden states to `layer.mlp.up_proj.weight.dtype` before the MLP."""
    mlp = gemma_like()
    torch._dynamo.reset()

    def forward(x: Tensor) -> Tensor:
        return mlp(x.to(mlp.up_proj.weight.dtype))

    with torch.no_grad():
        x = torch.randn(3, 64, generator=torch.Generator().manual_seed(5))
        compiled = torch.compile(forward, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(x), mlp(x.to(torch.bfloat16)))


def test_compile_follows_a_module_to_another_dtype() -> None:
    mlp = gemma_like()
    torch._dynamo.reset()
    compiled = torch.compile(mlp, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
            mlp.to(dtype)
            x = draw_x((3, 64), dtype)
            y = compiled(x)
            assert y.dtype == dtype
            assert torch.equal(y, mlp(x))


def test_a_module_exports() -> None:
    mlp = gemma_like()
    x = draw_x((3, 64), torch.bfloat16)
    with torch.no_grad():
        program = torch.export.export(mlp, (x,))
        assert torch.equal(program.module()(x), mlp(x))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"w4tune.gemm.default", "w4tune.geglu.default"} <= called
