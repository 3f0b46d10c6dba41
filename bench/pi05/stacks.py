"""What is multiplied: Pi0.5's two stacks of MLPs, their weights, and the float32 reference.

Every layer of a stack gets the same x, as if a norm came before it: standard normal, [m, width]. A
plain chain y = mlp(mlp(x)) cannot be had in 16 bits. GeGLU is quadratic in small x, so each layer
about doubles the logarithm of each token's norm, and 18 layers turn its natural spread of 2 % into
overflow. Norms between the layers would add kernels that are nobody's matter here. The layers run
one after another on one stream all the same, and everybody leaves the norms out alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

TORCH_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}
# Half a unit in the last place, relative.
UNIT_ROUNDOFF = {"f16": 2.0**-11, "bf16": 2.0**-8}

# What the fork's run_quantvla_w4fp16.sh gives as OPENPI_BITBLAS_INCLUDE and _EXCLUDE.
INCLUDE = (
    r"(.*language_model.*(gate_proj|up_proj|down_proj).*|"
    r".*gemma_expert.*(gate_proj|up_proj|down_proj).*)"
)
EXCLUDE = (
    r"(?:^|\.)(norm|ln|layernorm|emb|embed|vision_tower|multi_modal_projector|lm_head)(?:\.|$)"
)

# gate [mlp, width], up [mlp, width], down [width, mlp]
MlpWeights = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """One stack: `layers` MLPs of width -> mlp -> width; its qualified name in Pi0.5."""

    key: str
    title: str
    width: int
    mlp: int
    layers: int
    path: str

    @property
    def weights(self) -> int:
        """Weights of the whole stack."""
        return 3 * self.width * self.mlp * self.layers


@dataclass(frozen=True)
class Size:
    """The two stacks, and how many tokens the prefix has."""

    lm: Shape
    expert: Shape
    image_tokens: int  # of one camera
    prompt_tokens: int

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        return self.lm, self.expert

    def prefix_tokens(self, cameras: int) -> int:
        return cameras * self.image_tokens + self.prompt_tokens


_LM_PATH = "paligemma_with_expert.paligemma.model.language_model"
_EXPERT_PATH = "paligemma_with_expert.gemma_expert.model"

SIZES = {
    "pi05": Size(
        Shape("lm", "language model", 2048, 16384, 18, _LM_PATH),
        Shape("expert", "action expert", 1024, 4096, 18, _EXPERT_PATH),
        image_tokens=256,
        prompt_tokens=200,
    ),
    # For trying the program without a GPU.
    "tiny": Size(
        Shape("lm", "language model", 128, 256, 3, _LM_PATH),
        Shape("expert", "action expert", 128, 128, 3, _EXPERT_PATH),
        image_tokens=8,
        prompt_tokens=5,
    ),
}


@dataclass(frozen=True)
class Case:
    """The first `layers` layers of a stack at m tokens."""

    shape: Shape
    m: int
    layers: int


def layer_weights(shape: Shape, layer: int, seed: int, device: torch.device) -> MlpWeights:
    """Random weights of one layer in bfloat16, the same for every caller with this seed.

    Normal, with magnitudes of input channels spread log-normally (0.3), as trained layers have
    them; scaled so that y of a standard normal x has a standard deviation of about 1 (the mean
    square of gelu(g) * u is 0.43 for standard normal g and u).
    """
    number = (seed * 1000 + layer) * 2 + (shape.key == "expert")
    generator = torch.Generator(device).manual_seed(number)

    def draw(n: int, k: int, gain: float) -> torch.Tensor:
        w = torch.randn(n, k, device=device, generator=generator)
        channels = torch.exp(0.3 * torch.randn(k, device=device, generator=generator))
        channels *= gain / (channels.square().mean().sqrt() * math.sqrt(k))
        return w.mul_(channels).to(torch.bfloat16)

    gate, up = draw(shape.mlp, shape.width, 1.0), draw(shape.mlp, shape.width, 1.0)
    return gate, up, draw(shape.width, shape.mlp, 1.5)


def gemma_mlp(
    x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """down(gelu_tanh(gate x) * up x), as transformers' GemmaMLP."""
    return F.linear(F.gelu(F.linear(x, gate), approximate="tanh") * F.linear(x, up), down)


def merged_mlp(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """The same with gate and up in one product of twice the rows; gate_up is [2 * mlp, width]."""
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.gelu(gate, approximate="tanh") * up, down)


class GemmaMlp(nn.Module):
    """transformers' GemmaMLP, over weights that exist already."""

    def __init__(self, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        self.gate_proj = _linear(gate)
        self.up_proj = _linear(up)
        self.down_proj = _linear(down)
        self.act_fn = nn.GELU(approximate="tanh")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Layers(nn.Module):
    """MLPs that get the same x; one y for each."""

    def __init__(self, mlps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(mlps)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [mlp(x) for mlp in self.mlps]


def _linear(weight: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear


def make_model(
    size: Size, dtype: torch.dtype, device: torch.device, seed: int
) -> tuple[nn.Module, int]:
    """Both stacks under their names in Pi0.5, and the number of nn.Linear in them."""
    root = nn.Module()
    linears = 0
    for shape in size.shapes:
        layers = nn.ModuleList()
        for layer in range(shape.layers):
            block = nn.Module()
            block.mlp = GemmaMlp(*(w.to(dtype) for w in layer_weights(shape, layer, seed, device)))
            layers.append(block)
            linears += 3
        _put(root, f"{shape.path}.layers", layers)
    return root, linears


def mlps_of(model: nn.Module, shape: Shape) -> list[nn.Module]:
    """The stack's MLPs as they are now, replaced or not."""
    return [block.mlp for block in model.get_submodule(f"{shape.path}.layers")]


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    root.add_module(name, module)


def reference(x: torch.Tensor, weights: MlpWeights) -> torch.Tensor:
    """y in float32, nothing rounded on the way; weights are float32."""
    return gemma_mlp(x.float(), *weights)


def error_of(
    ys: Sequence[torch.Tensor], x: torch.Tensor, weights: Callable[[int], MlpWeights]
) -> float:
    """Largest ||y - reference|| / ||reference|| of all layers; NaN where a y has one."""
    worst = 0.0
    for layer, y in enumerate(ys):
        expected = reference(x, weights(layer))
        error = float((y.float() - expected).norm() / expected.norm())
        if math.isnan(error):
            return error
        worst = max(worst, error)
    return worst


def unpack(codes: torch.Tensor) -> torch.Tensor:
    """uint8 [n, k / 2], the low nibble being the even k, to uint8 [n, k] of 0..15."""
    return torch.stack((codes & 15, codes >> 4), dim=-1).view(codes.shape[0], -1)


def dequantise(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """(code - 8) * scale in the scales' dtype, by torch operations, as layers do it that store
    INT4 and multiply by a stock matmul. codes uint8 [n, k / 2], scales [n, k / group]."""
    values = unpack(codes).to(scales.dtype) - 8
    groups = values.view(*scales.shape, -1) * scales.unsqueeze(-1)
    return groups.view(codes.shape[0], -1)


def dequantising_mlp(
    x: torch.Tensor,
    gate: tuple[torch.Tensor, torch.Tensor],
    up: tuple[torch.Tensor, torch.Tensor],
    down: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """gemma_mlp over (codes, scales): each weight is dequantised whole, then multiplied."""
    return gemma_mlp(x, dequantise(*gate), dequantise(*up), dequantise(*down))
