"""The layers: `Linear`, `GeGLU` and the MLP made of them, with INT4 weights for tuned kernels.

What a layer stores has no floating type, so that .to(dtype) of a model leaves it exact: the packed
weight, the bit patterns of its scales, and a record of what they are. The dtype of a layer is that
of its activations, FP16 or BF16; .to(dtype) changes it, to and fro without loss. Inference only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from w4tune import ops, runtime
from w4tune.errors import W4tuneError
from w4tune.quantizer import QuantizedWeight, quantize, resolve_group_size
from w4tune.runtime import DTYPES, OPS, Selection

FORMAT_VERSION = 1

_is_compiling = torch.compiler.is_compiling
_OPERATORS = (torch.ops.w4tune.gemm.default, torch.ops.w4tune.geglu.default)  # by index in OPS


def unsupported(n: int, k: int, group_size: int | str) -> str | None:
    """Why no kernel serves n outputs of depth k in these groups; None where one does."""
    if n < 16 or n % 16 != 0 or k < 64 or k % 64 != 0:
        return f"{n} x {k} (out x in): the kernels need out to be a multiple of 16 and in of 64"
    try:
        resolve_group_size(group_size, k)
    except W4tuneError as error:
        return f"{n} x {k} (out x in): {error}"
    return None


def require_supported(layer: type, n: int, k: int, group_size: int | str) -> None:
    """W4tuneError, in the name of the layer's class, where no kernel serves it."""
    reason = unsupported(n, k, group_size)
    if reason is not None:
        raise W4tuneError(f"w4tune.{layer.__name__}: {reason}")


def is_hooked(module: nn.Module) -> bool:
    """Whether a call does more than the class's forward: what a replacement would lose."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(module) or any(getattr(module, name, None) for name in hooks)


def activation_dtype(weight: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype a layer made of `weight` takes: `dtype`, else the weight's own."""
    found = weight.dtype if dtype is None else dtype
    if found not in DTYPES:
        which = "the weight's dtype" if dtype is None else "dtype"
        raise W4tuneError(
            f"{which} is {found}, and activations must be FP16 or BF16. Pass dtype=torch.float16 "
            "or torch.bfloat16, whichever the layer's input has."
        )
    return found


def keeping_integers(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The `fn` of an _apply, but for tensors of no floating type, which .type(dtype) casts as well."""

    def keep(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        kept = tensor.is_floating_point() or result.dtype == tensor.dtype
        return result if kept else tensor.to(result.device)

    return keep


class WeightView:
    """What `layer.weight` is: it answers what model code asks of a weight, and holds no tensor.

    dtype (of the activations), shape [out, in], device, ndim, requires_grad (False), size(), dim(),
    numel() and dequantize(), which makes the weight [out, in] that the kernels multiply by.
    """

    # No __slots__, here and in Projection: Dynamo before 2.5 reads none.
    requires_grad = False
    ndim = 2

    def __init__(self, layer: _Layer, rows: slice) -> None:
        self._layer = layer
        self._rows = rows

    @property
    def dtype(self) -> torch.dtype:
        return self._layer.dtype

    @property
    def device(self) -> torch.device:
        return self._layer.weight_packed.device

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self._rows.stop - self._rows.start, self._layer.in_features))

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return 2

    def numel(self) -> int:
        return self.shape.numel()

    def dequantize(self) -> Tensor:
        return self._layer.dequantize()[self._rows]

    def __repr__(self) -> str:
        return f"<INT4 weight {list(self.shape)} of a w4tune layer in {self.dtype}>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the weight of a w4tune layer is INT4 and no tensor: it has no '{name}'. Use "
            "weight.dequantize() for a copy."
        )


class _Layer(nn.Module):
    """What Linear and GeGLU share: a packed weight of `rows` rows and its scales.

    Buffers: weight_packed uint8 [rows, in / 2] and scales_bits int16 [rows, in / group], the bit
    patterns of scales in scale_dtype, both in layout L0; format int32 [6]: version, op, n, k,
    group, scale dtype. Beside them `scales`, in the dtype of the activations, is in no state dict:
    a view of scales_bits where that is scale_dtype, else a rounded copy.
    """

    _op: int  # index in OPS

    def __init__(
        self,
        in_features: int,
        out_features: int,
        group_size: int | str = 128,
        *,
        dtype: torch.dtype = torch.float16,
        scale_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """dtype: of the activations. scale_dtype: what the scales are stored in, else dtype."""
        super().__init__()
        require_supported(type(self), out_features, in_features, group_size)
        scale_dtype = dtype if scale_dtype is None else scale_dtype
        if dtype not in DTYPES or scale_dtype not in DTYPES:
            raise W4tuneError(
                f"w4tune.{type(self).__name__}: dtype {dtype} with scales in {scale_dtype} is not "
                "served. Use torch.float16 or torch.bfloat16."
            )
        self.in_features = in_features
        self.out_features = out_features
        self.group_size = resolve_group_size(group_size, in_features)
        self.dtype = dtype
        self.scale_dtype = scale_dtype
        rows = self._rows
        self.register_buffer(
            "weight_packed", torch.zeros((rows, in_features // 2), dtype=torch.uint8, device=device)
        )
        groups = in_features // self.group_size
        self.register_buffer(
            "scales_bits", torch.zeros((rows, groups), dtype=torch.int16, device=device)
        )
        self.register_buffer(
            "format", torch.tensor(self._format(), dtype=torch.int32, device=device)
        )
        self.register_buffer("scales", None, persistent=False)
        self._derive_scales()

    @property
    def _rows(self) -> int:
        return 2 * self.out_features if OPS[self._op] == "geglu" else self.out_features

    def _format(self) -> list[int]:
        scale = DTYPES.index(self.scale_dtype)
        sizes = [self.out_features, self.in_features, self.group_size]
        return [FORMAT_VERSION, self._op, *sizes, scale]

    @property
    def weight(self) -> WeightView:
        return WeightView(self, slice(0, self._rows))

    def dequantize(self) -> Tensor:
        """The weight that forward multiplies by: [rows, in] in the layer's dtype, a new tensor."""
        return ops.dequantize(OPS[self._op], self.weight_packed, self.scales)

    def match(self, m: int) -> Selection:
        """What serves `m` rows of input on the GPU the layer is on: see w4tune.Selection."""
        device = self.weight_packed.device
        if device.type != "cuda":
            raise W4tuneError(
                f"match: the layer is on {device}. Move it to the GPU it is to run on."
            )
        return runtime.selection(
            device,
            OPS[self._op],
            self.out_features,
            self.in_features,
            self.group_size,
            self.dtype,
            m,
        )

    def extra_repr(self) -> str:
        group = "channel" if self.group_size == self.in_features else self.group_size
        text = f"in_features={self.in_features}, out_features={self.out_features}, "
        text += f"group_size={group}, dtype={str(self.dtype).removeprefix('torch.')}"
        if self.scale_dtype != self.dtype:
            text += f", scales={str(self.scale_dtype).removeprefix('torch.')}"
        return text

    # ---- the weight in and out ------------------------------------------------------------------

    def _fill(self, codes: Tensor, scales: Tensor) -> None:
        """Takes unpacked codes [rows, in / 2] and scales [rows, groups], and their device."""
        weight, packed = ops.pack(OPS[self._op], codes, scales.to(self.scale_dtype))
        self.weight_packed = weight
        self.scales_bits = packed.view(torch.int16)
        self.format = torch.tensor(self._format(), dtype=torch.int32, device=weight.device)
        self._derive_scales()

    def _unpacked(self) -> QuantizedWeight:
        """All rows, unpacked, exactly as they were quantised."""
        exact = self.scales_bits.view(self.scale_dtype)
        # Scales of 1 leave q, and a weight of nothing but q = 1 leaves the scales.
        q = ops.dequantize(OPS[self._op], self.weight_packed, torch.ones_like(exact))
        ones = torch.full_like(self.weight_packed, 0x99)
        scales = ops.dequantize(OPS[self._op], ones, exact)[:, :: self.group_size]
        return QuantizedWeight.from_signed(q.to(torch.int8), scales.contiguous(), self.group_size)

    # ---- the product ----------------------------------------------------------------------------

    def _product(self, x: Tensor) -> Tensor:
        if x.dtype != self.dtype:
            raise dtype_error(self, x)
        weight, scales = self._buffers["weight_packed"], self._buffers["scales"]
        if not _is_compiling() and ops.is_plain(x):
            return ops.launch(self._kernel, x, weight, scales)
        return _OPERATORS[self._op](x, weight, scales)

    # ---- dtypes and devices ---------------------------------------------------------------------

    def _derive_scales(self) -> None:
        exact = self._buffers["scales_bits"].view(self.scale_dtype)
        self._buffers["scales"] = exact if self.dtype == self.scale_dtype else exact.to(self.dtype)
        self._settle()

    def _settle(self) -> None:
        """What follows a change of the weight: the constants of a launch, and a wait for the copies.

        A dependent launch may read the weight before the kernel ahead of it has ended, so nothing
        that writes it may be under way.
        """
        weight, scales = self._buffers["weight_packed"], self._buffers["scales"]
        self._kernel = ops.layer_of(self._op, weight, scales)
        if weight.is_cuda and not torch.cuda.is_current_stream_capturing():
            torch.cuda.current_stream(weight.device).synchronize()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Layer:
        bits = self._buffers["scales_bits"]
        scales = self._buffers["scales"]
        wanted = fn(torch.empty(0, dtype=self.dtype, device=bits.device)).dtype
        if wanted not in DTYPES:  # .float(): the activations have to stay what they were
            wanted = self.dtype
        if wanted != self.dtype and wanted == torch.float16:
            self._check_fp16()

        self._buffers["scales"] = None
        try:
            super()._apply(keeping_integers(fn), recurse)
        finally:
            if self._buffers["scales_bits"] is bits and wanted == self.dtype:
                self._buffers["scales"] = scales  # where they were: a CUDA graph may read them
            else:
                self.dtype = wanted
                self._derive_scales()
        return self

    def _check_fp16(self) -> None:
        bits = self._buffers["scales_bits"]
        if self.scale_dtype == torch.float16 or bits.is_meta or bits.numel() == 0:
            return
        largest = float(bits.view(self.scale_dtype).amax())
        if largest > torch.finfo(torch.float16).max:
            raise W4tuneError(
                f"{self!r}: a scale of {largest:.3g} is too large for FP16. Leave it in BF16."
            )

    # ---- copies and state dicts -----------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        # torch.save takes no two views of one storage in two dtypes.
        state = dict(super().__getstate__())
        del state["_kernel"]
        state["_buffers"] = {**state["_buffers"], "scales": None}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._derive_scales()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        where = f"'{prefix.removesuffix('.')}'" if prefix else "the module"
        stored = state_dict.get(prefix + "format")
        if stored is not None and stored.tolist() != self._format():
            error_msgs.append(
                f"{where} is {_described(self._format())}, and the state dict holds "
                f"{_described(stored.tolist())}. Build the module as the stored one was."
            )
            return
        if strict and stored is None and prefix + "weight" in state_dict:
            error_msgs.append(
                f"{where} holds an INT4 weight, and the state dict one that is not quantised. Load "
                "it before quantize_ or from_linear."
            )
            return
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
        scales = self._buffers["scales"]
        bits = self._buffers["scales_bits"]
        if self.dtype != self.scale_dtype and scales.device == bits.device:
            scales.copy_(bits.view(self.scale_dtype))  # in place: a CUDA graph may read them
            self._settle()
        else:
            self._derive_scales()


def _described(record: list[int]) -> str:
    """A `format` in words."""
    if len(record) != 6 or record[0] != FORMAT_VERSION or record[1] not in (0, 1):
        return f"of an unknown format {record} (known: version {FORMAT_VERSION})"
    _, op, n, k, group, scale = record
    groups = "one scale for each output" if group == k else f"groups of {group}"
    name = ("float16", "bfloat16")[scale] if scale in (0, 1) else "unknown"
    return f"{OPS[op]} {n} x {k} (out x in) in {groups} with {name} scales"


def dtype_error(layer: nn.Module, x: Tensor) -> W4tuneError:
    """For an x of another dtype than the layer's."""
    remedy = f"Cast x, or the layer with .to({x.dtype})" if x.dtype in DTYPES else "Cast x"
    return W4tuneError(
        f"w4tune.{type(layer).__name__} {layer.in_features} -> {layer.out_features} takes "
        f"{layer.dtype}, and x is {x.dtype}. {remedy}."
    )


def _stored_dtype(weight: QuantizedWeight, dtype: torch.dtype) -> torch.dtype:
    """What a layer of `dtype` keeps the scales in: as they are, or rounded where they are FP32."""
    return weight.scales.dtype if weight.scales.dtype in DTYPES else dtype


def _check_method_input(linear: nn.Linear) -> None:
    if not isinstance(linear, nn.Linear):
        raise W4tuneError(f"from_linear takes an nn.Linear, not a {type(linear).__name__}.")


class Linear(_Layer):
    """y = x w^T (+ bias) with an INT4 weight: nn.Linear for inference.

    x [..., in_features], of any leading dimensions and strides, in the layer's dtype, FP16 or BF16;
    y [..., out_features] likewise, summed in FP32. out_features is a multiple of 16, in_features of
    64 and of the group. A new Linear holds zeros, for a state dict to fill; from_linear and
    from_quantized make one of a weight.
    """

    _op = ops.GEMM

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        group_size: int | str = 128,
        *,
        dtype: torch.dtype = torch.float16,
        scale_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """dtype: of the activations. scale_dtype: what the scales are stored in, else dtype."""
        super().__init__(
            in_features,
            out_features,
            group_size,
            dtype=dtype,
            scale_dtype=scale_dtype,
            device=device,
        )
        parameter = None
        if bias:
            zeros = torch.zeros(out_features, dtype=dtype, device=device)
            parameter = nn.Parameter(zeros, requires_grad=False)
        self.register_parameter("bias", parameter)

    @classmethod
    @torch.no_grad()
    def from_linear(
        cls,
        linear: nn.Linear,
        group_size: int | str = 128,
        *,
        method: str = "mse",
        dtype: torch.dtype | None = None,
    ) -> Linear:
        """Quantises linear.weight where it is; see w4tune.quantize for group_size and method.

        dtype: of the activations and the scales; the weight's own where None.
        """
        _check_method_input(linear)
        require_supported(cls, linear.out_features, linear.in_features, group_size)
        dtype = activation_dtype(linear.weight, dtype)
        weight = quantize(linear.weight, group_size, method=method, scale_dtype=dtype)
        return cls.from_quantized(weight, linear.bias, dtype)

    @classmethod
    @torch.no_grad()
    def from_quantized(
        cls,
        weight: QuantizedWeight,
        bias: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Linear:
        """dtype: of the activations; that of weight.scales where None.

        Scales in FP16 or BF16 are kept as they are, FP32 ones rounded to dtype.
        """
        dtype = activation_dtype(weight.scales, dtype)
        layer = cls(
            weight.k,
            weight.n,
            group_size=weight.group_size,
            dtype=dtype,
            scale_dtype=_stored_dtype(weight, dtype),
            device="meta",
        )
        layer._fill(weight.codes, weight.scales)
        if bias is not None:
            copy = bias.detach().to(weight.codes.device, dtype, copy=True)
            layer.bias = nn.Parameter(copy, requires_grad=False)
        return layer

    def to_quantized(self) -> QuantizedWeight:
        """The weight unpacked: codes and scales exactly as from_quantized took them."""
        return self._unpacked()

    def forward(self, x: Tensor) -> Tensor:
        y = self._product(x)
        bias = self._parameters["bias"]
        return y if bias is None else y.add_(bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bias={self.bias is not None}"


class GeGLU(_Layer):
    """y = gelu_tanh(x gate^T) * (x up^T) in one launch, gate and up with INT4 weights.

    x [..., in_features] to y [..., out_features] as in Linear. weight has 2 * out_features rows,
    the gate's before the up's.
    """

    _op = ops.GEGLU

    @classmethod
    @torch.no_grad()
    def from_linears(
        cls,
        gate: nn.Linear,
        up: nn.Linear,
        group_size: int | str = 128,
        *,
        method: str = "mse",
        dtype: torch.dtype | None = None,
    ) -> GeGLU:
        """Quantises the weights of two Linears without bias; as Linear.from_linear."""
        for linear in (gate, up):
            _check_method_input(linear)
            require_supported(cls, linear.out_features, linear.in_features, group_size)
            if linear.bias is not None:
                raise W4tuneError("GeGLU: the kernels add no bias. Use two w4tune.Linear instead.")
        dtype = activation_dtype(gate.weight, dtype)
        halves = [
            quantize(linear.weight, group_size, method=method, scale_dtype=dtype)
            for linear in (gate, up)
        ]
        return cls.from_quantized(*halves, dtype=dtype)

    @classmethod
    @torch.no_grad()
    def from_quantized(
        cls, gate: QuantizedWeight, up: QuantizedWeight, dtype: torch.dtype | None = None
    ) -> GeGLU:
        """Two weights of one shape, group size, scale dtype and device; dtype as in Linear."""
        kinds = [(q.n, q.k, q.group_size, q.scales.dtype, q.codes.device) for q in (gate, up)]
        if kinds[0] != kinds[1]:
            raise W4tuneError(
                f"GeGLU: gate and up differ (n, k, group, scales, device): {kinds[0]} and "
                f"{kinds[1]}. Quantise them alike."
            )
        dtype = activation_dtype(gate.scales, dtype)
        layer = cls(
            gate.k,
            gate.n,
            gate.group_size,
            dtype=dtype,
            scale_dtype=_stored_dtype(gate, dtype),
            device="meta",
        )
        layer._fill(torch.cat((gate.codes, up.codes)), torch.cat((gate.scales, up.scales)))
        return layer

    def to_quantized(self) -> tuple[QuantizedWeight, QuantizedWeight]:
        """Gate and up unpacked: codes and scales exactly as from_quantized took them."""
        both = self._unpacked()
        n = self.out_features
        return (
            QuantizedWeight(both.codes[:n], both.scales[:n], both.group_size),
            QuantizedWeight(both.codes[n:], both.scales[n:], both.group_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


class Projection:
    """What `mlp.gate_proj` and `mlp.up_proj` are: one half of a GeGLU, to be asked, not called."""

    bias = None

    def __init__(self, layer: GeGLU, rows: slice) -> None:
        self._layer = layer
        self._rows = rows

    @property
    def in_features(self) -> int:
        return self._layer.in_features

    @property
    def out_features(self) -> int:
        return self._layer.out_features

    @property
    def weight(self) -> WeightView:
        return WeightView(self._layer, self._rows)

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        raise W4tuneError(
            "gate and up run fused and not alone: call the MLP, or quantise with fuse_mlp=False."
        )


class GeGLUMLP(nn.Module):
    """down_proj(gelu_tanh(gate x) * up x): a Gemma MLP in two launches.

    gate_up: the GeGLU; down_proj: the Linear. gate_proj and up_proj answer for the halves of
    gate_up what model code asks of them: weight.dtype, .shape and .device, in_features and
    out_features.
    """

    def __init__(self, gate_up: GeGLU, down_proj: Linear) -> None:
        super().__init__()
        if down_proj.in_features != gate_up.out_features:
            raise W4tuneError(
                f"GeGLUMLP: gate and up have {gate_up.out_features} outputs and down_proj "
                f"{down_proj.in_features} inputs. They must be as many."
            )
        self.gate_up = gate_up
        self.down_proj = down_proj

    @classmethod
    def from_linears(
        cls,
        gate: nn.Linear,
        up: nn.Linear,
        down: nn.Linear,
        group_size: int | str = 128,
        *,
        method: str = "mse",
        dtype: torch.dtype | None = None,
    ) -> GeGLUMLP:
        """Quantises three Linears, gate and up without bias; as Linear.from_linear."""
        return cls(
            GeGLU.from_linears(gate, up, group_size, method=method, dtype=dtype),
            Linear.from_linear(down, group_size, method=method, dtype=dtype),
        )

    @property
    def gate_proj(self) -> Projection:
        return Projection(self.gate_up, slice(0, self.gate_up.out_features))

    @property
    def up_proj(self) -> Projection:
        n = self.gate_up.out_features
        return Projection(self.gate_up, slice(n, 2 * n))

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.gate_up(x))
