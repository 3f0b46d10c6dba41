"""quantize and QuantizedWeight, against loops over NumPy float32 and float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from w4tune import quantizer
from w4tune.errors import W4tuneError
from w4tune.quantizer import MSE_FACTORS, QuantizedWeight, quantize

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SCALES = (torch.float16, torch.bfloat16, torch.float32)


def random_weight(n: int, k: int, seed: int = 0, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(n, 1, generator=generator) * 0.1 + 0.001
    return (torch.randn(n, k, generator=generator) * spread).to(dtype)


def nearest(w: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """clamp(round(w / scale), -8, 7), ties to even, of float32 [groups, size] and [groups]."""
    return np.clip(np.rint(w.astype(np.float32) / scale[:, None].astype(np.float32)), -8, 7)


def nibbles(codes: torch.Tensor) -> np.ndarray:
    """q [n, k] by the definition of codes, one nibble at a time."""
    n, half = codes.shape
    q = np.empty((n, 2 * half), dtype=np.int64)
    for row, listed in enumerate(codes.tolist()):
        for j, byte in enumerate(listed):
            q[row, 2 * j] = byte % 16 - 8
            q[row, 2 * j + 1] = byte // 16 - 8
    return q


@pytest.mark.parametrize("group", [32, 64, 128, "channel"])
@pytest.mark.parametrize("method", ["mse", "maxabs"])
@pytest.mark.parametrize("scale_dtype", SCALES)
def test_codes_are_nearest_with_the_scales_returned(group, method, scale_dtype):
    w = random_weight(24, 256)
    quantized = quantize(w, group, method=method, scale_dtype=scale_dtype)
    size = 256 if group == "channel" else group
    assert (quantized.n, quantized.k, quantized.group_size) == (24, 256, size)
    assert quantized.scales.dtype == scale_dtype
    assert quantized.scales.shape == (24, 256 // size)
    scales = quantized.scales.float().numpy().reshape(-1)
    expected = nearest(w.numpy().reshape(-1, size), scales).reshape(24, 256)
    assert np.array_equal(nibbles(quantized.codes), expected)


@pytest.mark.parametrize("scale_dtype", SCALES)
def test_maxabs_scale_is_a_seventh_of_the_largest(scale_dtype):
    w = random_weight(16, 128, seed=1)
    scales = quantize(w, 64, method="maxabs", scale_dtype=scale_dtype).scales
    expected = (w.view(16, 2, 64).abs().amax(dim=2) / 7).to(scale_dtype)
    assert torch.equal(scales, expected)


def test_mse_takes_the_best_of_its_grid():
    w = random_weight(8, 128, seed=2)
    scales = quantize(w, 64, scale_dtype=torch.float16).scales.view(-1).double().numpy()
    for group, scale in zip(w.view(-1, 64).numpy(), scales, strict=True):
        candidates = []
        for factor in MSE_FACTORS:
            s = np.float16(np.float32(np.abs(group).max()) / np.float32(7) * np.float32(factor))
            q = nearest(group[None, :], np.array([s]))[0]
            candidates.append((((q * float(s) - group.astype(np.float64)) ** 2).sum(), float(s)))
        chosen = next(error for error, s in candidates if s == scale)
        assert chosen <= min(candidates)[0] * (1 + 1e-5)  # sums in float32 may swap equals


@pytest.mark.parametrize("group", [32, 128, "channel"])
def test_mse_is_no_worse_than_maxabs_in_any_group(group):
    w = random_weight(64, 256, seed=3)
    size = 256 if group == "channel" else group
    errors = {}
    for method in ("mse", "maxabs"):
        difference = quantize(w, group, method=method).dequantize() - w
        errors[method] = difference.view(-1, size).square().sum(dim=1)
    assert (errors["mse"] <= errors["maxabs"] * (1 + 1e-5)).all()
    assert errors["mse"].sum() < 0.95 * errors["maxabs"].sum()


def test_normal_weights_lose_what_theory_says():
    """The best uniform quantiser of 16 levels for a normal variable has an error of 0.01154."""
    w = torch.randn(64, 4096, generator=torch.Generator().manual_seed(4))
    difference = quantize(w, "channel").dequantize() - w
    relative = float(difference.square().sum() / w.square().sum())
    assert 0.0112 < relative < 0.0125


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_floating_dtype_is_quantised_as_its_values_in_float32(dtype):
    w = random_weight(16, 128, seed=5, dtype=dtype)
    expected = quantize(w.float(), 64)
    found = quantize(w, 64)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scales, expected.scales)


@pytest.mark.parametrize("method", ["mse", "maxabs"])
def test_groups_of_zeros(method):
    w = random_weight(16, 128, seed=6)
    w[3, :64] = 0
    w[5] = 0
    quantized = quantize(w, 64, method=method)
    assert torch.isfinite(quantized.scales.float()).all()
    assert float(quantized.scales[3, 0]) == 1.0
    assert (quantized.signed()[5] == 0).all()
    assert (quantized.dequantize()[3, :64] == 0).all()


@pytest.mark.parametrize("scale_dtype", SCALES)
@pytest.mark.parametrize("magnitude", [1e-6, 3e-8, 1e-30, 1e-42])
def test_tiny_weights_have_scales_above_zero(scale_dtype, magnitude):
    w = torch.randn(16, 64, generator=torch.Generator().manual_seed(7)) * magnitude
    quantized = quantize(w, 64, scale_dtype=scale_dtype)
    assert (quantized.scales.float() > 0).all()
    back = quantized.dequantize()
    assert torch.isfinite(back).all()
    # A scale of 2^-24 at most doubles what is far below it.
    assert ((back - w).abs() <= w.abs().max() / 2 + 2.0**-25).all()


def test_q_reaches_both_ends():
    w = torch.zeros(16, 64)
    w[:, 0] = -8.0
    w[:, 1] = 7.0
    q = quantize(w, 64, method="mse").signed()
    assert int(q.min()) == -8 and int(q.max()) == 7  # 7/8 of the maxabs scale, exact


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_inf_are_refused(bad, dtype):
    w = random_weight(32, 128, dtype=dtype)
    w[17, 93] = bad
    with pytest.raises(W4tuneError, match=r"32 x 128 has NaN or Inf") as error:
        quantize(w)
    assert "\n" not in str(error.value)


def test_scales_too_large_for_fp16_are_refused_and_bf16_takes_them():
    w = random_weight(16, 128) * 1e8
    with pytest.raises(W4tuneError, match="bfloat16"):
        quantize(w, scale_dtype=torch.float16)
    scales = quantize(w, scale_dtype=torch.bfloat16).scales
    assert torch.isfinite(scales.float()).all()


@pytest.mark.parametrize(
    ("weight", "arguments", "message"),
    [
        (torch.zeros(16, 64), {"group_size": 48}, "group_size 48"),
        (torch.zeros(16, 64), {"group_size": 0}, "group_size 0"),
        (torch.zeros(16, 64), {"group_size": 128}, "k = 64 is no multiple"),
        (torch.zeros(16, 64), {"method": "rtn"}, "'rtn'"),
        (torch.zeros(16, 64), {"scale_dtype": torch.int8}, "int8"),
        (torch.zeros(16, 64, dtype=torch.int8), {}, "int8"),
        (torch.zeros(64), {}, r"\[64\]"),
        (torch.zeros(4, 33), {"group_size": 33}, "even"),
        (torch.zeros(0, 64), {}, r"\[0, 64\]"),
        (torch.zeros(16, 64, device="meta"), {"group_size": 64}, "meta"),
    ],
)
def test_bad_arguments_are_named(weight, arguments, message):
    with pytest.raises(W4tuneError, match=message) as error:
        quantize(weight, **arguments)
    assert "\n" not in str(error.value)


def test_channel_has_three_names():
    w = random_weight(16, 192, seed=8)
    for group in ("channel", -1, 192):
        quantized = quantize(w, group)
        assert quantized.group_size == 192
        assert quantized.scales.shape == (16, 1)


def test_chunks_do_not_show(monkeypatch):
    w = random_weight(37, 128, seed=9)
    whole = quantize(w)
    monkeypatch.setattr(quantizer, "_CHUNK", {"cpu": 5 * 128 + 3})
    parts = quantize(w)
    assert torch.equal(parts.codes, whole.codes)
    assert torch.equal(parts.scales, whole.scales)


def test_strided_weights_and_gradients():
    w = random_weight(128, 64, seed=10).requires_grad_()
    transposed = quantize(w.T, 64)
    plain = quantize(w.detach().T.contiguous(), 64)
    assert torch.equal(transposed.codes, plain.codes)
    assert not transposed.scales.requires_grad


def test_dequantize_rounds_once():
    q = torch.randint(
        -8, 8, (16, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(11)
    )
    scales = random_weight(16, 2, seed=12).abs().to(torch.float16)
    quantized = QuantizedWeight.from_signed(q, scales, 32)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        found = quantized.dequantize(dtype)
        assert found.dtype == dtype
        for row, column in ((0, 0), (7, 31), (7, 32), (15, 63)):
            exact = Fraction(int(q[row, column])) * Fraction(float(scales[row, column // 32]))
            assert found[row, column] == torch.tensor(float(exact), dtype=torch.float64).to(dtype)


def test_signed_and_from_signed_are_inverse():
    q = torch.randint(-8, 8, (8, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(13))
    quantized = QuantizedWeight.from_signed(q, torch.ones(8, 2), 32)
    assert np.array_equal(nibbles(quantized.codes), q.numpy())
    assert torch.equal(quantized.signed(), q)
    assert quantized.signed().dtype == torch.int8


def test_quantized_weight_refuses_what_does_not_fit():
    codes, scales = torch.zeros(8, 32, dtype=torch.uint8), torch.ones(8, 2)
    with pytest.raises(W4tuneError, match="uint8"):
        QuantizedWeight(codes.int(), scales, 32)
    with pytest.raises(W4tuneError, match=r"\[8, 2\]"):
        QuantizedWeight(codes, torch.ones(8, 1), 32)
    with pytest.raises(W4tuneError, match="float"):
        QuantizedWeight(codes, scales.int(), 32)
    with pytest.raises(W4tuneError, match="group_size 16"):
        QuantizedWeight(codes, torch.ones(8, 4), 16)
    with pytest.raises(W4tuneError, match="-9"):
        QuantizedWeight.from_signed(torch.full((8, 64), -9, dtype=torch.int8), scales, 32)
    with pytest.raises(W4tuneError, match="int8"):
        QuantizedWeight.from_signed(torch.zeros(8, 64), scales, 32)


@pytest.mark.gpu
def test_gpu_quantises_like_the_cpu():
    w = random_weight(256, 512, seed=14)
    on_cpu, on_gpu = quantize(w), quantize(w.cuda())
    assert on_gpu.codes.is_cuda and on_gpu.scales.is_cuda
    same = (on_gpu.scales.cpu() == on_cpu.scales).float().mean()
    assert same > 0.99  # two scales of equal error may be swapped by the order of a sum
    back = nearest(w.view(-1, 128).numpy(), on_gpu.scales.float().cpu().numpy().reshape(-1))
    assert np.array_equal(on_gpu.signed().cpu().numpy(), back.reshape(256, 512))
