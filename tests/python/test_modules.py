"""Linear, GeGLU and GeGLUMLP: against float64 on the dequantised weight, and as modules."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as functional
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from w4tune.errors import W4tuneError
from w4tune.modules import GeGLU, GeGLUMLP, Linear
from w4tune.quantizer import QuantizedWeight, quantize

HALVES = (torch.float16, torch.bfloat16)
OTHER = {torch.float16: torch.bfloat16, torch.bfloat16: torch.float16}
UNIT_ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
N, K = 64, 256


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.randn(*shape, generator=generator(seed)).to(dtype)


def random_linear(
    k: int = K, n: int = N, bias: bool = False, dtype: torch.dtype = torch.float16, seed: int = 0
) -> nn.Linear:
    linear = nn.Linear(k, n, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(random(n, k, seed=seed, dtype=torch.float32) / k**0.5)
        if bias:
            linear.bias.copy_(random(n, seed=seed + 1, dtype=torch.float32))
    return linear.to(dtype)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = x.detach().double() @ weight.double().T
    return y if bias is None else y + bias.detach().double()


def reference_geglu(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    g = reference(x, gate)
    return (
        0.5 * g * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (g + 0.044715 * g**3))) * reference(x, up)
    )


def assert_close(y: Tensor, expected: Tensor, bias: Tensor | None = None) -> None:
    """Within the rounding of the product to y's dtype, and of its sum with the bias.

    The weight of `expected` is rounded to the dtype already, and what FP32 sums add is little.
    """
    assert y.shape == expected.shape
    error = (y.detach().double() - expected).abs()
    bound = 1.01 * UNIT_ROUNDOFF[y.dtype] * expected.abs() + 1e-5
    if bias is not None:
        bound = 2 * bound + UNIT_ROUNDOFF[y.dtype] * bias.detach().double().abs()
    assert (error <= bound).all()


def linear_and_weight(
    dtype: torch.dtype = torch.float16, group: int | str = 128, bias: bool = False
):
    linear = random_linear(bias=bias, dtype=dtype)
    weight = quantize(linear.weight, group, scale_dtype=dtype).dequantize(dtype)
    return Linear.from_linear(linear, group), weight, linear.bias


def geglu_and_weights(dtype: torch.dtype = torch.float16, group: int | str = 128):
    gate, up = (random_linear(dtype=dtype, seed=seed) for seed in (3, 4))
    weights = [
        quantize(part.weight, group, scale_dtype=dtype).dequantize(dtype) for part in (gate, up)
    ]
    return GeGLU.from_linears(gate, up, group), *weights


# ---- forward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("group", [32, 64, 128, "channel"])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_multiplies_by_the_quantised_weight(dtype, group, bias):
    layer, weight, added = linear_and_weight(dtype, group, bias)
    x = random(5, K, seed=10, dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    assert_close(y, reference(x, weight, added), added)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("group", [32, 64, 128, "channel"])
def test_geglu_is_gate_and_up_with_the_tanh_form(dtype, group):
    layer, gate, up = geglu_and_weights(dtype, group)
    x = random(5, K, seed=11, dtype=dtype) * 2
    assert_close(layer(x), reference_geglu(x, gate, up))


def test_mlp_is_down_of_geglu():
    gate, up, down = random_linear(seed=5), random_linear(seed=6), random_linear(N, K)
    mlp = GeGLUMLP.from_linears(gate, up, down, 64)
    gate, up, down = (quantize(w.weight, 64).dequantize(torch.float16) for w in (gate, up, down))
    x = random(3, K, seed=12)
    hidden = mlp.gate_up(x)
    assert_close(hidden, reference_geglu(x, gate, up))
    assert_close(mlp(x), reference(hidden, down))


@pytest.mark.parametrize("shape", [(K,), (1, K), (0, K), (2, 0, K), (2, 3, K), (2, 1, 3, K)])
def test_any_leading_dimensions(shape):
    layer, weight, added = linear_and_weight(bias=True)
    geglu, gate, up = geglu_and_weights()
    x = random(*shape, seed=13)
    assert_close(layer(x), reference(x, weight, added), added)
    assert_close(geglu(x), reference_geglu(x, gate, up))


@pytest.mark.parametrize(
    "strided",
    [
        lambda: random(K, 6, seed=14).T,
        lambda: random(6, 2 * K, seed=14)[:, ::2],
        lambda: random(6, K + 1, seed=14)[:, 1:],
        lambda: random(4, 3, K, seed=14).transpose(0, 1),
        lambda: random(1, K, seed=14).expand(5, K),
        lambda: random(9, K, seed=14)[::2],
    ],
)
def test_strided_input(strided: Callable[[], Tensor]):
    layer, weight, _ = linear_and_weight()
    x = strided()
    assert torch.equal(layer(x), layer(x.contiguous()))
    assert_close(layer(x), reference(x, weight))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bad", [torch.float32, "other"])
def test_wrong_dtype_of_x_names_both(dtype, bad):
    bad = OTHER[dtype] if bad == "other" else bad
    geglu = geglu_and_weights(dtype)[0]
    for layer in (
        linear_and_weight(dtype)[0],
        geglu,
        GeGLUMLP(geglu, Linear(N, 32, group_size=64, dtype=dtype)),
    ):
        with pytest.raises(W4tuneError) as error:
            layer(random(2, K, seed=15, dtype=bad))
        name = "GeGLU" if layer is geglu or isinstance(layer, GeGLUMLP) else "Linear"
        message = str(error.value)
        assert message.startswith(f"w4tune.{name} 256 -> 64 takes {dtype}, and x is {bad}.")
        assert "\n" not in message
        assert "float32" not in message.split(". ")[1]  # no layer can be cast to it


def test_wrong_width_of_x_is_refused():
    with pytest.raises(W4tuneError, match="256"):
        linear_and_weight()[0](random(2, K - 64, seed=16))


# ---- making one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "group", "message"),
    [
        (K, 24, 128, "multiple of 16"),
        (K, 8, 128, "multiple of 16"),
        (96, 32, 32, "of 64"),
        (64, 32, 128, "k = 64 is no multiple of group_size 128"),
        (320, 32, 128, "k = 320"),
        (K, 32, 16, "group_size 16"),
    ],
)
def test_sizes_without_a_kernel_are_refused(k, n, group, message):
    linear = random_linear(k, n)
    for make in (
        lambda: Linear.from_linear(linear, group),
        lambda: GeGLU.from_linears(linear, linear, group),
        lambda: Linear(k, n, group_size=group),
    ):
        with pytest.raises(W4tuneError, match=message) as error:
            make()
        assert "\n" not in str(error.value)


def test_fp32_weights_need_a_dtype():
    linear = random_linear(dtype=torch.float32)
    with pytest.raises(W4tuneError, match=r"float32.*dtype=torch\.float16"):
        Linear.from_linear(linear)
    layer = Linear.from_linear(linear, dtype=torch.bfloat16)
    assert layer.dtype == layer.scale_dtype == torch.bfloat16
    x = random(2, K, seed=17, dtype=torch.bfloat16)
    weight = quantize(linear.weight, scale_dtype=torch.bfloat16).dequantize(torch.bfloat16)
    assert_close(layer(x), reference(x, weight))


def test_geglu_refuses_what_it_cannot_fuse():
    with pytest.raises(W4tuneError, match="bias"):
        GeGLU.from_linears(random_linear(bias=True), random_linear())
    half = quantize(random_linear().weight)
    with pytest.raises(W4tuneError, match="differ"):
        GeGLU.from_quantized(half, quantize(random_linear().weight, 64))
    with pytest.raises(W4tuneError, match="differ"):
        GeGLU.from_quantized(half, quantize(random_linear(n=48).weight))
    with pytest.raises(W4tuneError, match="as many"):
        GeGLUMLP(GeGLU(K, N), Linear(K, N))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("group", [32, 128, "channel"])
def test_to_quantized_gives_back_what_from_quantized_took(dtype, group):
    gate, up = (
        quantize(random(N, K, seed=seed) * 1e-3, group, scale_dtype=dtype) for seed in (18, 19)
    )
    pairs = [(gate, Linear.from_quantized(gate).to_quantized())]
    pairs += zip((gate, up), GeGLU.from_quantized(gate, up).to_quantized(), strict=True)
    for before, after in pairs:
        assert torch.equal(before.codes, after.codes)
        assert torch.equal(before.scales, after.scales)
        assert before.group_size == after.group_size


def test_fp32_scales_are_rounded_to_the_dtype():
    weight = quantize(random(N, K, seed=20), 64, scale_dtype=torch.float32)
    with pytest.raises(W4tuneError, match="float32"):
        Linear.from_quantized(weight)
    layer = Linear.from_quantized(weight, dtype=torch.float16)
    assert layer.scale_dtype == torch.float16
    assert torch.equal(layer.to_quantized().scales, weight.scales.half())


@pytest.mark.parametrize("scale_dtype", HALVES)
def test_scales_of_the_other_dtype_are_kept(scale_dtype):
    weight = quantize(random(N, K, seed=21), 64, scale_dtype=scale_dtype)
    layer = Linear.from_quantized(weight, dtype=OTHER[scale_dtype])
    assert layer.dtype == OTHER[scale_dtype] and layer.scales.dtype == OTHER[scale_dtype]
    assert torch.equal(layer.to_quantized().scales, weight.scales)
    x = random(2, K, seed=22, dtype=layer.dtype)
    rounded = QuantizedWeight(weight.codes, weight.scales.to(layer.dtype), 64)
    assert_close(layer(x), reference(x, rounded.dequantize(layer.dtype)))
    geglu = GeGLU.from_quantized(weight, weight, dtype=OTHER[scale_dtype])
    assert geglu.scales.dtype == OTHER[scale_dtype]
    assert torch.equal(geglu.to_quantized()[1].scales, weight.scales)


def test_parts_do_not_share_memory_with_the_linear():
    linear = random_linear(bias=True)
    layer = Linear.from_linear(linear)
    before = layer(random(2, K, seed=23))
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
    assert torch.equal(layer(random(2, K, seed=23)), before)


def test_new_layers_are_zero_until_loaded():
    x = random(2, K, seed=24)
    assert (Linear(K, N, bias=True)(x) == 0).all()
    assert (GeGLU(K, N)(x) == 0).all()


# ---- dtypes --------------------------------------------------------------------------------------


def floating_state(layer: nn.Module) -> list[str]:
    return [name for name, tensor in layer.state_dict().items() if tensor.is_floating_point()]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", ["to", "half", "bfloat16", "type"])
def test_casting_to_and_fro_leaves_scales_exact(dtype, method):
    layer, _, _ = linear_and_weight(dtype, bias=True)
    x = random(3, K, seed=25, dtype=dtype)
    before, bits = layer(x), layer.scales_bits.clone()
    other = OTHER[dtype]

    def cast(to: torch.dtype) -> None:
        if method == "to":
            layer.to(to)
        elif method == "type":
            layer.type(to)
        else:
            (layer.half if to == torch.float16 else layer.bfloat16)()

    cast(other)
    assert layer.dtype == other and layer.scales.dtype == other and layer.bias.dtype == other
    assert layer.scale_dtype == dtype
    assert layer.weight_packed.dtype == torch.uint8 and layer.format.dtype == torch.int32
    rounded = layer.to_quantized()
    weight = QuantizedWeight(rounded.codes, rounded.scales.to(other), 128).dequantize(other)
    assert_close(layer(x.to(other)), reference(x.to(other), weight, layer.bias), layer.bias)
    cast(dtype)
    assert torch.equal(layer.scales_bits, bits)
    assert layer.scales.data_ptr() == layer.scales_bits.data_ptr()  # no copy is left
    layer.bias.data.copy_(linear_and_weight(dtype, bias=True)[2])
    assert torch.equal(layer(x), before)


def test_no_floating_tensor_is_in_the_state():
    assert floating_state(linear_and_weight()[0]) == []
    assert floating_state(linear_and_weight()[0].bfloat16()) == []
    assert floating_state(geglu_and_weights()[0]) == []
    assert floating_state(linear_and_weight(bias=True)[0]) == ["bias"]


def test_float_leaves_the_layer_in_its_dtype():
    layer, weight, bias = linear_and_weight(torch.bfloat16, bias=True)
    layer.float()
    assert layer.dtype == torch.bfloat16 and layer.bias.dtype == torch.float32
    x = random(2, K, seed=26, dtype=torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16
    assert_close(layer(x), reference(x, weight, bias), bias)
    with pytest.raises(W4tuneError, match=r"bfloat16.*float32"):
        layer(x.float())


def test_a_cast_that_changes_nothing_leaves_scales_where_they_are():
    layer = linear_and_weight()[0].bfloat16()
    where = layer.scales.data_ptr()
    layer.to(torch.bfloat16)
    layer.to("cpu")
    assert layer.scales.data_ptr() == where


def test_a_scale_too_large_for_fp16_is_not_cast():
    weight = quantize(random(N, K, seed=27, dtype=torch.float32) * 1e8, scale_dtype=torch.bfloat16)
    layer = Linear.from_quantized(weight)
    with pytest.raises(W4tuneError, match="FP16"):
        layer.half()
    assert layer.dtype == torch.bfloat16 and layer.scales.dtype == torch.bfloat16
    assert torch.equal(layer.to_quantized().scales, weight.scales)


# ---- .weight -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
def test_weight_answers_what_model_code_asks(dtype):
    layer, dequantised, _ = linear_and_weight(dtype)
    weight = layer.weight
    assert weight.dtype == dtype and weight.device == torch.device("cpu")
    assert weight.shape == (N, K) == weight.size()
    assert weight.size(0) == N and weight.size(-1) == K
    assert (weight.ndim, weight.dim(), weight.numel()) == (2, 2, N * K)
    assert weight.requires_grad is False
    assert not isinstance(weight, Tensor)
    assert torch.equal(weight.dequantize(), dequantised)
    layer.to(OTHER[dtype])
    assert layer.weight.dtype == OTHER[dtype]


def test_weight_has_nothing_else():
    with pytest.raises(AttributeError, match=r"no tensor: it has no 'data'"):
        _ = linear_and_weight()[0].weight.data
    with pytest.raises(TypeError):
        functional.linear(random(1, K, seed=0), linear_and_weight()[0].weight)


def test_projections_of_an_mlp_answer_for_their_half():
    geglu, gate, up = geglu_and_weights(torch.bfloat16)
    mlp = GeGLUMLP(geglu, Linear(N, K, group_size=N))
    for projection, weight in ((mlp.gate_proj, gate), (mlp.up_proj, up)):
        assert projection.weight.dtype == torch.bfloat16
        assert projection.weight.shape == (N, K)
        assert projection.weight.device == torch.device("cpu")
        assert (projection.in_features, projection.out_features) == (K, N)
        assert projection.bias is None
        assert torch.equal(projection.weight.dequantize(), weight)
    assert geglu.weight.shape == (2 * N, K)
    with pytest.raises(W4tuneError, match="fused"):
        mlp.up_proj(random(1, K, seed=0))
    assert [name for name, _ in mlp.named_modules()] == ["", "gate_up", "down_proj"]


# ---- copies and state dicts ----------------------------------------------------------------------


class Pair(nn.Module):
    """A Linear with bias and a GeGLU within a model, of one dtype."""

    def __init__(self, dtype: torch.dtype = torch.float16, empty: bool = False, group: int = 128):
        super().__init__()
        self.norm = nn.LayerNorm(K, dtype=dtype)
        if empty:
            self.linear = Linear(K, N, bias=True, group_size=group, dtype=dtype)
            self.geglu = GeGLU(K, N, group_size=group, dtype=dtype)
        else:
            self.linear = linear_and_weight(dtype, group, bias=True)[0]
            self.geglu = geglu_and_weights(dtype, group)[0]

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.linear(x) + self.geglu(x)


def assert_same(found: nn.Module, expected: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    x = random(3, K, seed=30, dtype=dtype)
    assert torch.equal(found(x), expected(x))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_round_trip(dtype, assign):
    model, empty = Pair(dtype), Pair(dtype, empty=True)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert "linear.weight_packed" in state and "geglu.scales_bits" in state
    assert not any(name.endswith(".scales") for name in state)
    result = empty.load_state_dict(state, assign=assign)
    assert result.missing_keys == [] and result.unexpected_keys == []
    assert_same(empty, model, dtype)
    for layer in (empty.linear, empty.geglu):
        assert layer.scales.data_ptr() == layer.scales_bits.data_ptr()
        taken = layer.scales_bits.data_ptr() in {tensor.data_ptr() for tensor in state.values()}
        assert taken == assign


@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_into_a_cast_model(assign):
    model, empty = Pair(), Pair(empty=True).bfloat16()
    empty.load_state_dict(copy.deepcopy(model.state_dict()), assign=assign)
    assert empty.linear.dtype == torch.bfloat16
    assert_same(empty.linear.bfloat16(), model.linear.bfloat16(), torch.bfloat16)
    assert torch.equal(empty.geglu.half().scales_bits, model.geglu.scales_bits)


def test_meta_model_takes_a_state_dict():
    model = Pair()
    with torch.device("meta"):
        empty = Pair(empty=True)
    assert empty.linear.weight_packed.is_meta and empty.linear.scales.is_meta
    empty.load_state_dict(model.state_dict(), assign=True)
    assert_same(empty, model)
    empty = Pair(empty=True).to("meta")
    assert empty.linear.scales.is_meta
    assert empty.linear.bfloat16().scales.is_meta
    empty = empty.half().to_empty(device="cpu")
    empty.load_state_dict(model.state_dict())
    assert_same(empty, model)


def test_safetensors_round_trip(tmp_path):
    model = Pair(torch.bfloat16)
    save_model(model, str(tmp_path / "model.safetensors"))
    empty = Pair(torch.bfloat16, empty=True)
    missing, unexpected = load_model(empty, str(tmp_path / "model.safetensors"))
    assert not missing and not unexpected
    assert_same(empty, model, torch.bfloat16)
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    empty = Pair(torch.bfloat16, empty=True)
    empty.load_state_dict(load_file(tmp_path / "state.safetensors"), assign=True)
    assert_same(empty, model, torch.bfloat16)


@pytest.mark.parametrize("cast", [False, True])
def test_copies(cast):
    dtype = torch.bfloat16 if cast else torch.float16
    model = Pair().to(dtype)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ]
    for twin in copies:
        assert_same(twin, model, dtype)
        assert twin.linear.scales_bits.data_ptr() != model.linear.scales_bits.data_ptr()
        alone = twin.linear.scales.data_ptr() != twin.linear.scales_bits.data_ptr()
        assert alone == cast
        assert torch.equal(twin.half().linear.scales_bits, model.linear.scales_bits)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Linear(K, N, group_size=64), ("groups of 64", "groups of 128")),
        (Linear(K, 48), ("48 x 256", "64 x 256")),
        (Linear(K, N, dtype=torch.bfloat16), ("bfloat16 scales", "float16 scales")),
        (GeGLU(K, 32), ("geglu 32 x 256", "gemm 64 x 256")),
        (Linear(K, N, group_size="channel"), ("one scale for each output", "groups of 128")),
    ],
)
@pytest.mark.parametrize("assign", [False, True])
def test_state_of_another_format_is_one_line(other, words, assign):
    holder = nn.ModuleDict({"mlp": Linear(K, N)})
    before = holder["mlp"].weight_packed
    state = {f"mlp.{name}": tensor for name, tensor in other.state_dict().items()}
    with pytest.raises(RuntimeError) as error:
        holder.load_state_dict(state, assign=assign)
    _, *lines = str(error.value).split("\n")
    assert len(lines) == 1 and "'mlp'" in lines[0]
    assert all(word in lines[0] for word in words)
    assert holder["mlp"].weight_packed is before


def test_state_of_a_later_version_is_refused():
    layer = Linear(K, N)
    state = layer.state_dict()
    state["format"] = torch.tensor([2, 0, N, K, 128, 0], dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"unknown format \[2, .*known: version 1"):
        layer.load_state_dict(state)


def test_state_that_is_not_quantised_is_one_line():
    with pytest.raises(RuntimeError, match=r"not quantised.*before quantize_") as error:
        linear_and_weight()[0].load_state_dict(random_linear().state_dict())
    assert len(str(error.value).split("\n")) == 2


def test_repr_says_what_it_is():
    assert "group_size=128, dtype=float16, bias=True" in repr(linear_and_weight(bias=True)[0])
    text = repr(linear_and_weight(group="channel")[0].bfloat16())
    assert "group_size=channel, dtype=bfloat16, scales=float16" in text
    assert "in_features=256, out_features=64" in repr(geglu_and_weights()[0])


def test_match_needs_a_gpu():
    with pytest.raises(W4tuneError, match="cpu"):
        linear_and_weight()[0].match(10)


# ---- torch.compile -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
def test_compile_has_no_graph_break(dtype):
    model = Pair(dtype)
    down = Linear.from_linear(random_linear(N, N, dtype=dtype), "channel")
    mlp = GeGLUMLP(model.geglu, down)

    def block(x: Tensor) -> Tensor:  # as OpenPI's gemma_pytorch.py casts for the MLP
        if mlp.up_proj.weight.dtype == torch.bfloat16:
            x = x.to(torch.bfloat16)
        if model.linear.weight.shape[0] == N and mlp.down_proj.weight.size(1) == N:
            x = x.to(mlp.gate_proj.weight.dtype)
        return mlp(x).sum(dim=-1, keepdim=True) + model(x)

    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for m in (1, 4, 7):
            x = random(m, K, seed=31, dtype=torch.float32)
            assert torch.equal(compiled(x), block(x))


def test_a_cast_is_seen_by_a_compiled_layer():
    layer = linear_and_weight(bias=True)[0]
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = random(3, K, seed=32)
    assert torch.equal(compiled(x), layer(x))
    layer.bfloat16()
    assert torch.equal(compiled(x.bfloat16()), layer(x.bfloat16()))


@pytest.mark.parametrize("dtype", HALVES)
def test_scales_are_a_buffer_outside_the_state(dtype):
    """torch.compile copies what is neither parameter nor buffer before each replay of a graph."""
    layer = linear_and_weight()[0].to(dtype)
    assert dict(layer.named_buffers())["scales"] is layer.scales
    assert set(layer.state_dict()) == {"weight_packed", "scales_bits", "format"}


def test_export_has_the_op():
    layer = linear_and_weight(bias=True)[0]
    x = random(3, K, seed=33)
    program = torch.export.export(layer, (x,))
    assert any("w4tune.gemm" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(x), layer(x))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES)
def test_gpu_gives_what_the_cpu_gives(dtype):
    model = Pair(dtype)
    x = random(10, K, seed=34, dtype=dtype)
    expected = model(x)
    on_gpu = copy.deepcopy(model).cuda()
    assert on_gpu.linear.scales.is_cuda and on_gpu.linear.weight.device.type == "cuda"
    y = on_gpu(x.cuda()).cpu()
    spread = 16 * UNIT_ROUNDOFF[dtype] * expected.abs().float().mean()
    assert (
        (y.float() - expected.float()).abs() <= 4 * UNIT_ROUNDOFF[dtype] * expected.abs() + spread
    ).all()
    assert on_gpu.linear.match(10).match in ("default", "same_arch", "predicted", "exact")
    back = on_gpu.cpu()
    assert torch.equal(back(x), expected)
