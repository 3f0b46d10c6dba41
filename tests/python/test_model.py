"""quantize_ and patch_from_env on Gemma models of transformers, small and with random weights."""

from __future__ import annotations

import copy
import gc
import re
import weakref

import pytest
import torch
from torch import Tensor, nn
from w4tune import duquant, tuning
from w4tune import model as model_module
from w4tune.errors import W4tuneError, W4tuneWarning
from w4tune.model import patch_from_env, quantize_
from w4tune.modules import GeGLU, GeGLUMLP, Linear
from w4tune.quantizer import quantize

HIDDEN, WIDE = 128, 192
FORK_INCLUDE = (
    r"(.*language_model.*(gate_proj|up_proj|down_proj).*"
    r"|.*gemma_expert.*(gate_proj|up_proj|down_proj).*)"
)
FORK_EXCLUDE = (
    r"(?:^|\.)(norm|ln|layernorm|emb|embed|vision_tower|multi_modal_projector|lm_head)(?:\.|$)"
)
PARTS = ("gate_proj", "up_proj", "down_proj")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch) -> None:
    for name in ("ENABLE", "INCLUDE", "EXCLUDE", "GROUP_SIZE", "DUQUANT_PACKDIR", "DEBUG"):
        monkeypatch.delenv(f"W4TUNE_{name}", raising=False)
        monkeypatch.delenv(f"OPENPI_BITBLAS_{name}", raising=False)
    for name in ("WBITS", "ENABLE_TUNING", "OPT_M", "SCOPE"):
        monkeypatch.delenv(f"OPENPI_BITBLAS_{name}", raising=False)


class MLP(nn.Module):
    """As Gemma's, for tests that vary it."""

    def __init__(self, bias: bool = False, hidden: int = HIDDEN, wide: int = WIDE) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, wide, bias=bias)
        self.up_proj = nn.Linear(hidden, wide, bias=bias)
        self.down_proj = nn.Linear(wide, hidden, bias=bias)
        self.act_fn: nn.Module = nn.GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Stack(nn.Module):
    """`count` MLPs as layers.0, layers.1, ... with residuals."""

    def __init__(self, *mlps: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(mlps)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def stack(count: int = 2, dtype: torch.dtype = torch.float16, **arguments) -> Stack:
    torch.manual_seed(0)
    return Stack(*(MLP(**arguments) for _ in range(count))).to(dtype)


def gemma(layers: int = 2, dtype: torch.dtype = torch.bfloat16, **changes):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    options = {
        "vocab_size": 96,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 64,
        "hidden_act": "gelu_pytorch_tanh",
        "attn_implementation": "eager",
        **changes,
    }
    model = transformers.GemmaForCausalLM(transformers.GemmaConfig(**options))
    return model.eval().to(dtype)


def pi05(layers: int = 18, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """OpenPI's names: two Gemmas in `layers` layers and a vision tower beside them."""

    def nest(path: str, inner: nn.Module) -> nn.Module:
        for name in reversed(path.split(".")):
            outer = nn.Module()
            outer.add_module(name, inner)
            inner = outer
        return inner

    torch.manual_seed(2)
    model = nest("paligemma_with_expert.paligemma.model.language_model.layers", nn.ModuleList())
    paligemma = model.paligemma_with_expert.paligemma
    expert = nest("model.layers", nn.ModuleList())
    model.paligemma_with_expert.add_module("gemma_expert", expert)
    for where in (paligemma.model.language_model.layers, expert.model.layers):
        for _ in range(layers):
            layer = nn.Module()
            layer.self_attn = nn.Module()
            layer.self_attn.q_proj = nn.Linear(64, 64, bias=False)
            layer.mlp = MLP(hidden=64, wide=64)
            where.append(layer)
    paligemma.model.vision_tower = nest("mlp.up_proj", nn.Linear(64, 64))
    paligemma.add_module("lm_head", nn.Linear(64, 64, bias=False))
    model.add_module("action_in_proj", nn.Linear(32, 64))
    return model.to(dtype)


def dequantised_twin(model: nn.Module, group: int | str, include: str = r"_proj$") -> nn.Module:
    """A copy whose selected Linears hold the quantised weights, in the model's dtype."""
    twin = copy.deepcopy(model)
    for name, module in twin.named_modules():
        if isinstance(module, nn.Linear) and re.search(include, name):
            weight = module.weight.data
            module.weight.data = quantize(weight, group, scale_dtype=weight.dtype).dequantize(
                weight.dtype
            )
    return twin


def linears(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


# ---- whole models --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fuse", [True, False])
def test_gemma_with_int4_mlps_is_gemma_with_the_quantised_weights(dtype, fuse):
    model = gemma(dtype=dtype)
    twin = dequantised_twin(model, 64, r"mlp\.\w+_proj$").float()
    summary = quantize_(model, group_size=64, fuse_mlp=fuse, verbose=False)
    assert len(summary.selected) == len(summary.replaced) == 6
    assert len(summary.modules) == (4 if fuse else 6)
    assert summary.skipped == {} and summary.not_fused == {}
    kinds = [type(layer.mlp) for layer in model.model.layers]
    assert all((kind is GeGLUMLP) == fuse for kind in kinds)
    tokens = torch.randint(0, 96, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found, expected = model(tokens).logits.float(), twin(tokens).logits
        plain = gemma(dtype=dtype).float()(tokens).logits
    unit = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-11
    error = (found - expected).abs().max()
    assert error <= 8 * unit * expected.abs().max()
    assert error < 0.5 * (plain - expected).abs().max()  # and it is the quantised model


def test_attention_is_quantised_where_asked():
    model = gemma(dtype=torch.float16)
    summary = quantize_(model, include=r"self_attn|mlp", group_size=64, verbose=False)
    assert len(summary.replaced) == 14
    assert type(model.model.layers[1].self_attn.q_proj) is Linear
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        found = model(tokens).logits.float()
        expected = dequantised_twin(gemma(dtype=torch.float16), 64).float()(tokens).logits
    assert (found - expected).abs().max() <= 2e-2 * expected.abs().max()


def test_generation_and_casts_of_the_model():
    model = gemma(dtype=torch.bfloat16)
    quantize_(model, group_size=32, verbose=False)
    bits = model.model.layers[0].mlp.down_proj.scales_bits.clone()
    tokens = torch.arange(4)[None]
    before = model.generate(tokens, max_new_tokens=4, do_sample=False)
    model.half()
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.float16
    model.to(torch.bfloat16)
    assert torch.equal(model.model.layers[0].mlp.down_proj.scales_bits, bits)
    assert torch.equal(model.generate(tokens, max_new_tokens=4, do_sample=False), before)


def test_compiled_gemma_layer_has_no_graph_break():
    model = gemma(dtype=torch.bfloat16)
    quantize_(model, group_size=64, verbose=False)
    layer = model.model.layers[0]

    def block(x: Tensor) -> Tensor:
        h = layer.post_attention_layernorm(x)
        if layer.mlp.up_proj.weight.dtype == torch.bfloat16:
            h = h.to(torch.bfloat16)
        return x + layer.mlp(h)

    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for m in (3, 5):
            x = torch.randn(1, m, HIDDEN, generator=torch.Generator().manual_seed(m)).bfloat16()
            assert torch.equal(compiled(x), block(x))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_gemma_gives_the_same(backend):
    model = gemma(dtype=torch.float16)
    quantize_(model, group_size=64, verbose=False)
    tokens = torch.arange(6)[None]
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        found, expected = compiled(tokens).logits, model(tokens).logits
    assert (found - expected).abs().max() <= 2e-3 * expected.abs().max()


def test_pi05_by_the_forks_expressions():
    model = pi05()
    summary = quantize_(model, FORK_INCLUDE, FORK_EXCLUDE, group_size=64, verbose=False)
    assert len(summary.replaced) == len(summary.selected) == 108
    assert len(summary.modules) == 72
    assert sum(isinstance(module, GeGLU) for module in model.modules()) == 36
    assert sum(isinstance(module, Linear) for module in model.modules()) == 36
    left = linears(model)
    assert len(left) == 36 + 3  # q_proj, the vision tower, lm_head, action_in_proj
    state = model.state_dict()
    prefix = "paligemma_with_expert.gemma_expert.model.layers.17.mlp"
    assert f"{prefix}.gate_up.weight_packed" in state and f"{prefix}.down_proj.format" in state
    another = pi05()
    quantize_(another, FORK_INCLUDE, FORK_EXCLUDE, group_size=64, verbose=False)
    another.load_state_dict(state)  # strict


# ---- selecting -----------------------------------------------------------------------------------


def test_include_and_exclude_are_searched_for_in_names():
    model = stack(3)
    summary = quantize_(
        model, [r"layers\.0", r"^layers\.2\.up"], "gate", group_size=64, verbose=False
    )
    names = ["layers.0.up_proj", "layers.0.down_proj", "layers.2.up_proj"]
    assert summary.selected == summary.replaced == summary.modules == names
    assert set(linears(model)) == {f"layers.{i}.{part}" for i in range(3) for part in PARTS} - set(
        names
    )
    assert type(model.layers[0]) is MLP  # not all three: nothing to fuse


def test_nothing_selected_is_said_even_when_quiet(capsys):
    with pytest.warns(
        W4tuneWarning, match=r"'no such'.*6 nn\.Linear, such as 'layers\.1\.gate_proj'"
    ):
        summary = quantize_(stack(), "no such", verbose=False)
    assert summary.selected == [] and summary.replaced == []
    assert capsys.readouterr().out == ""


def test_nothing_replaced_is_said_with_the_reason():
    with pytest.warns(W4tuneWarning, match=r"layers\.0\.gate_proj: .*float32"):
        summary = quantize_(stack(dtype=torch.float32), verbose=False)
    assert len(summary.skipped) == 6 and "0 of 6" in str(summary)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include": "(gate"}, r"include '\(gate' is no regular expression"),
        ({"exclude": ["ok", "*"]}, r"exclude '\*' is no regular expression"),
        ({"group_size": 100}, "group_size 100"),
        ({"method": "best"}, "'best'"),
        ({"dtype": torch.float32}, "float32"),
        ({"duquant_packdir": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_arguments_that_make_no_sense_change_nothing(arguments, message):
    model = stack()
    with pytest.raises(W4tuneError, match=message) as error:
        quantize_(model, **arguments)
    assert "\n" not in str(error.value)
    assert len(linears(model)) == 6


def test_a_single_linear_is_no_model():
    with pytest.raises(W4tuneError, match="from_linear"):
        quantize_(nn.Linear(64, 64))


def test_what_is_not_supported_stays_with_its_reason():
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    torch.manual_seed(4)
    model = nn.ModuleDict(
        {
            "fine": nn.Linear(128, 64),
            "narrow": nn.Linear(128, 24),
            "shallow": nn.Linear(96, 64),
            "group": nn.Linear(192, 64),
            "other": Scaled(128, 64),
            "tied": nn.Linear(128, 64),
            "embedding": nn.Embedding(64, 128),
            "hooked": nn.Linear(128, 64),
            "meta": nn.Linear(128, 64, device="meta"),
        }
    ).half()
    model["full"] = nn.Linear(128, 64)
    model["broken"] = nn.Linear(128, 64).half()
    model["tied"].weight = model["embedding"].weight
    model["hooked"].register_forward_hook(lambda module, arguments, output: output + 1)
    model["again"] = model["same"] = nn.Linear(128, 64).half()
    with torch.no_grad():
        model["broken"].weight[3, 5] = torch.nan
    with pytest.warns(W4tuneWarning, match="broken stays as it was: .*NaN"):
        summary = quantize_(model, ".", verbose=False)
    assert summary.replaced == ["fine"]
    words = {
        "narrow": "multiple of 16",
        "shallow": "of 64",
        "group": "no multiple of group_size 128",
        "other": "Scaled",
        "tied": "shared with embedding.weight",
        "hooked": "hooks",
        "meta": "meta device",
        "full": "float32",
        "broken": "NaN",
        "again": "shared with same.weight",
    }
    assert set(summary.skipped) == set(words)
    for name, word in words.items():
        assert word in summary.skipped[name]
        assert name in str(summary) and "\n" not in summary.skipped[name]
        assert isinstance(model[name], nn.Linear)


# ---- fusing --------------------------------------------------------------------------------------


class Clamped(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-0.01, 0.01)


class Swapped(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))


class Doubled(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.05


class NeedsMask(MLP):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x) * mask


def with_activation(activation: nn.Module) -> MLP:
    mlp = MLP()
    mlp.act_fn = activation
    return mlp


def with_hook() -> MLP:
    mlp = MLP()
    mlp.register_forward_pre_hook(lambda module, arguments: None)
    return mlp


def with_tiny_weights() -> MLP:
    """So small that its gelu is x / 2, and gate and up the same, unless the token is scaled."""
    mlp = Swapped()
    with torch.no_grad():
        mlp.gate_proj.weight.mul_(1e-3)
        mlp.up_proj.weight.mul_(1e-3)
    return mlp


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: with_activation(nn.GELU()), "not GELU in the tanh form"),
        (lambda: with_activation(nn.SiLU()), "not GELU in the tanh form"),
        (lambda: MLP(bias=True), "bias"),
        (Clamped, "forward is not"),
        (Swapped, "forward is not"),
        (with_tiny_weights, "forward is not"),
        (Doubled, "forward is not"),
        (NeedsMask, "cannot be compared: TypeError"),
        (with_hook, "hooks"),
    ],
)
def test_other_mlps_are_not_fused(make, reason, dtype):
    torch.manual_seed(5)
    model = Stack(MLP(), make()).to(dtype)
    summary = quantize_(model, group_size=64, verbose=False)
    assert list(summary.not_fused) == ["layers.1"]
    assert reason in summary.not_fused["layers.1"] and "\n" not in summary.not_fused["layers.1"]
    assert reason in str(summary)
    assert type(model.layers[0]) is GeGLUMLP and isinstance(model.layers[1], MLP)
    assert len(summary.replaced) == 6 and len(summary.modules) == 5
    assert type(model.layers[1].up_proj) is Linear


def test_unfused_mlp_with_bias_computes_the_same():
    model = stack(1, bias=True)
    twin = dequantised_twin(model, 64).float()
    quantize_(model, group_size=64, verbose=False)
    x = torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(6)).half()
    expected = twin(x.float())
    assert (model(x).float() - expected).abs().max() <= 4e-3 * expected.abs().max()


def test_bias_of_down_alone_is_fused():
    model = stack(1)
    model.layers[0].down_proj.bias = nn.Parameter(torch.randn(HIDDEN).half())
    twin = dequantised_twin(model, 64).float()
    summary = quantize_(model, group_size=64, verbose=False)
    assert len(summary.modules) == 2
    x = torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(7)).half()
    expected = twin(x.float())
    assert (model(x).float() - expected).abs().max() <= 4e-3 * expected.abs().max()


def test_an_mlp_as_the_model_is_quantised_in_parts():
    model = stack(1).layers[0]
    summary = quantize_(model, group_size=64, verbose=False)
    assert summary.replaced == list(PARTS) and "model itself" in summary.not_fused[""]


def test_the_trial_leaves_the_random_state_alone():
    model = stack(1)
    torch.manual_seed(8)
    expected = torch.rand(3)
    torch.manual_seed(8)
    quantize_(model, group_size=64, verbose=False)
    assert torch.equal(torch.rand(3), expected)


# ---- memory and report ---------------------------------------------------------------------------


def test_weights_go_one_by_one(monkeypatch):
    """At the n-th layer, the weights of those before it are gone."""
    model = stack(3)
    old = [weakref.ref(mlp.down_proj.weight) for mlp in model.layers]
    alive: list[int] = []
    original = model_module.GeGLUMLP.from_linears

    def watched(*arguments, **options):
        gc.collect()
        alive.append(sum(reference() is not None for reference in old))
        return original(*arguments, **options)

    monkeypatch.setattr(model_module.GeGLUMLP, "from_linears", watched)
    quantize_(model, group_size=64, verbose=False)
    assert alive == [3, 2, 1]
    assert all(reference() is None for reference in old)


def test_bytes_are_counted():
    model = stack(1, bias=True)
    summary = quantize_(model, group_size=64, verbose=False)
    weights, outputs = 3 * HIDDEN * WIDE, 2 * WIDE + HIDDEN
    assert summary.bytes_before == 2 * (weights + outputs)
    packed = weights // 2 + 2 * weights // 64 + 2 * outputs
    assert summary.bytes_after == packed + 3 * 6 * 4  # the record `format` of each
    assert f"{100 * summary.bytes_after / summary.bytes_before:.1f} %" in str(summary)


def test_summary_is_printed_once(capsys):
    summary = quantize_(stack(), exclude=r"1\.gate", group_size=64)
    printed = capsys.readouterr().out
    assert printed == f"{summary}\n"
    assert "5 of 5 selected Linears are INT4 now, in 4 modules (groups of 64, mse scales" in printed
    quantize_(stack(), group_size=64, verbose=False)
    assert capsys.readouterr().out == ""


def test_summary_groups_what_has_one_reason():
    model = stack(4, wide=104)
    model.fine = nn.Linear(128, 64).half()
    text = str(quantize_(model, ".", group_size=64, verbose=False))
    assert "layers.0.gate_proj, layers.0.up_proj, layers.1.gate_proj and 5 more: 104 x 128" in text
    assert len(text.split("\n")) == 4


def test_progress_comes_after_a_second(monkeypatch, capsys):
    now = iter(range(100))
    monkeypatch.setattr(model_module.time, "monotonic", lambda: 0.4 * next(now))
    quantize_(stack(6), group_size=64)
    lines = capsys.readouterr().out.split("\n")
    progress = [line for line in lines if re.match(r"w4tune: \d+ of 18 Linears, \d+ s", line)]
    assert 1 <= len(progress) <= 3


def test_dtype_and_mode_of_the_new_layers():
    model = stack(1, dtype=torch.float32).eval()
    summary = quantize_(model, group_size=64, dtype=torch.bfloat16, verbose=False)
    assert len(summary.replaced) == 3
    mlp = model.layers[0]
    assert mlp.down_proj.dtype == mlp.gate_up.dtype == torch.bfloat16
    assert not mlp.training and not mlp.gate_up.training
    assert mlp(torch.ones(2, HIDDEN, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_device_of_work_is_not_where_layers_stay():
    model = stack(1, bias=True)
    expected = stack(1, bias=True)
    quantize_(expected, group_size=64, verbose=False)
    quantize_(model, group_size=64, device="cpu", verbose=False)
    x = torch.ones(2, HIDDEN).half()
    assert torch.equal(model(x), expected(x))


@pytest.mark.gpu
def test_quantised_on_the_gpu_for_the_cpu():
    model = stack(1, bias=True)
    quantize_(model, group_size=64, device="cuda", verbose=False)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    x = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(9)).half()
    expected = model(x)
    found = model.cuda()(x.cuda()).cpu()
    assert (found - expected).abs().max() <= 1e-2 * expected.abs().max()


# ---- DuQuant packs -------------------------------------------------------------------------------


def test_packs_choose_and_rotate(tmp_path):
    model = stack(2)
    for part in PARTS:
        weight = getattr(model.layers[0], part).weight.float()
        path = duquant.pack_path(tmp_path, f"layers.0.{part}")
        duquant.make_pack(weight, path=path)
    plain = copy.deepcopy(model)
    summary = quantize_(model, duquant_packdir=tmp_path, group_size=64, verbose=False)
    assert summary.selected == summary.replaced == [f"layers.0.{part}" for part in PARTS]
    assert "DuQuant" in summary.not_fused["layers.0"]
    assert type(model.layers[0].down_proj) is duquant.DuQuantLinear
    x = torch.randn(6, HIDDEN, generator=torch.Generator().manual_seed(10)).half()
    error = (model(x) - plain(x)).norm() / plain(x).norm()
    assert 0.0 < error < 0.1

    model = copy.deepcopy(plain)
    summary = quantize_(model, "_proj$", duquant_packdir=tmp_path, group_size=64, verbose=False)
    assert len(summary.selected) == 6 and len(summary.replaced) == 3
    assert "no DuQuant pack" in summary.skipped["layers.1.up_proj"]


def test_a_damaged_pack_leaves_its_layer(tmp_path):
    model = stack(1)
    duquant.pack_path(tmp_path, "layers.0.up_proj").write_bytes(b"not a zip")
    with pytest.warns(W4tuneWarning) as warned:
        summary = quantize_(model, duquant_packdir=tmp_path, verbose=False)
    said = [str(warning.message) for warning in warned]
    assert "layers.0.up_proj stays as it was" in said[0] and "replaced nothing" in said[1]
    assert list(summary.skipped) == ["layers.0.up_proj"]
    assert type(model.layers[0].up_proj) is nn.Linear


# ---- the environment -----------------------------------------------------------------------------


def set_environment(monkeypatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"W4TUNE_ENABLE": "0"},
        {"W4TUNE_ENABLE": "", "OPENPI_BITBLAS_ENABLE": "False"},
        {"W4TUNE_ENABLE": "off", "OPENPI_BITBLAS_ENABLE": "1"},
        {"W4TUNE_INCLUDE": ".", "OPENPI_BITBLAS_WBITS": "8"},
    ],
)
def test_switched_off_does_nothing(monkeypatch, capsys, values):
    set_environment(monkeypatch, **values)
    model = stack()
    assert patch_from_env(model) is None
    assert len(linears(model)) == 6 and capsys.readouterr().out == ""


@pytest.mark.parametrize("prefix", ["W4TUNE", "OPENPI_BITBLAS"])
def test_either_family_of_names(monkeypatch, capsys, prefix):
    set_environment(
        monkeypatch,
        **{
            f"{prefix}_ENABLE": "1",
            f"{prefix}_INCLUDE": r"layers\.[01]",
            f"{prefix}_EXCLUDE": r"layers\.1\.down",
            f"{prefix}_GROUP_SIZE": "32",
            f"{prefix}_DEBUG": "true",
        },
    )
    model = stack(3)
    summary = patch_from_env(model)
    assert len(summary.replaced) == 5 and summary.group_size == 32
    assert model.layers[0].gate_up.group_size == 32
    out = capsys.readouterr().out
    assert str(summary) in out and "  layers.1.up_proj: Linear(in_features=128" in out


def test_w4tune_names_win(monkeypatch):
    set_environment(
        monkeypatch,
        OPENPI_BITBLAS_ENABLE="0",
        OPENPI_BITBLAS_INCLUDE="layers.0",
        OPENPI_BITBLAS_EXCLUDE="up",
        OPENPI_BITBLAS_GROUP_SIZE="nonsense",
        OPENPI_BITBLAS_DUQUANT_PACKDIR="/no/such/folder",
        W4TUNE_ENABLE="1",
        W4TUNE_INCLUDE="layers.1",
        W4TUNE_EXCLUDE="down",
        W4TUNE_GROUP_SIZE="channel",
        W4TUNE_DUQUANT_PACKDIR="",
    )
    with pytest.raises(W4tuneError, match="/no/such/folder"):  # empty is not set
        patch_from_env(stack())
    monkeypatch.delenv("OPENPI_BITBLAS_DUQUANT_PACKDIR")
    summary = patch_from_env(stack())
    assert summary.replaced == ["layers.1.gate_proj", "layers.1.up_proj"]
    assert summary.group_size == "channel" and "one scale for each output" in str(summary)


def test_the_forks_launch_script(monkeypatch):
    set_environment(
        monkeypatch,
        OPENPI_BITBLAS_ENABLE="1",
        OPENPI_BITBLAS_WBITS="4",
        OPENPI_BITBLAS_GROUP_SIZE="64",
        OPENPI_BITBLAS_ENABLE_TUNING="0",
        OPENPI_BITBLAS_OPT_M="1,16,32,64",
        OPENPI_BITBLAS_SCOPE="",
        OPENPI_BITBLAS_INCLUDE=FORK_INCLUDE,
        OPENPI_BITBLAS_EXCLUDE=FORK_EXCLUDE,
        OPENPI_BITBLAS_DEBUG="0",
        OPENPI_BITBLAS_PROFILE="0",
    )
    summary = patch_from_env(pi05(layers=2))
    assert len(summary.replaced) == 12 and len(summary.modules) == 8


def test_the_forks_defaults(monkeypatch):
    set_environment(monkeypatch, OPENPI_BITBLAS_ENABLE="1", OPENPI_BITBLAS_GROUP_SIZE="64")
    model = pi05(layers=1)
    summary = patch_from_env(model)  # the vision tower's up_proj falls to the fork's exclude
    assert len(summary.replaced) == 6
    monkeypatch.setenv("OPENPI_BITBLAS_SCOPE", "paligemma_with_expert.gemma")
    summary = patch_from_env(pi05(layers=1))
    assert [name.split(".")[1] for name in summary.replaced] == ["gemma_expert"] * 3
    monkeypatch.delenv("OPENPI_BITBLAS_SCOPE")
    monkeypatch.setenv("W4TUNE_ENABLE", "1")
    assert len(patch_from_env(pi05(layers=1)).replaced) == 7


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENPI_BITBLAS_WBITS", "8", "4 bits only"),
        ("OPENPI_BITBLAS_WBITS", "four", "'four'"),
        ("W4TUNE_GROUP_SIZE", "12x", "'12x'"),
        ("W4TUNE_GROUP_SIZE", "256", "32, 64, 128 or channel"),
        ("OPENPI_BITBLAS_GROUP_SIZE", "0", "'0'"),
        ("OPENPI_BITBLAS_OPT_M", "1,,2", "'1,,2'"),
        ("OPENPI_BITBLAS_OPT_M", "0,16", "from 1"),
        ("W4TUNE_DEBUG", "maybe", "0 or 1"),
        ("OPENPI_BITBLAS_ENABLE_TUNING", "2", "0 or 1"),
        ("W4TUNE_INCLUDE", "(", "no regular expression"),
        ("W4TUNE_DUQUANT_PACKDIR", "/no/such/folder", "no folder"),
    ],
)
def test_values_that_make_no_sense_name_the_variable(monkeypatch, name, value, words):
    set_environment(monkeypatch, W4TUNE_ENABLE="1", **{name: value})
    model = stack()
    with pytest.raises(W4tuneError, match=re.escape(words)) as error:
        patch_from_env(model)
    assert value in str(error.value) and "\n" not in str(error.value)
    assert len(linears(model)) == 6


@pytest.mark.parametrize("tokens", [None, "1, 16,32"])
def test_tuning_is_asked_for_these_tokens(monkeypatch, tokens):
    calls: list[tuple[nn.Module, list[int]]] = []
    monkeypatch.setattr(tuning, "tune", lambda model, m: calls.append((model, list(m))))
    set_environment(monkeypatch, W4TUNE_ENABLE="1", W4TUNE_GROUP_SIZE="64")
    patch_from_env(stack())
    assert calls == []
    monkeypatch.setenv("OPENPI_BITBLAS_ENABLE_TUNING", "1")
    if tokens is not None:
        monkeypatch.setenv("OPENPI_BITBLAS_OPT_M", tokens)
    model = stack()
    patch_from_env(model)
    assert calls == [(model, [10, 15, 16, 50, 968] if tokens is None else [1, 16, 32])]
