"""Int4 formats read from files that the tests write, and the formats' own libraries."""

from __future__ import annotations

import json
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path

import int4_files as files
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from w4tune import W4tuneError
from w4tune.formats import Checkpoint

LAYER = "model.layers.0.mlp.up_proj"


def read(path: Path, name: str = LAYER, format: str = "auto"):
    with Checkpoint.open(path, format) as checkpoint:
        return checkpoint.read(name)


def refusal(path: Path, format: str = "auto") -> str:
    """The one line with which reading every layer of the path is refused."""
    with pytest.raises(W4tuneError) as caught, Checkpoint.open(path, format) as checkpoint:
        for name in checkpoint.layers:
            checkpoint.read(name)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def expect_same(weight, layer: files.Reference) -> None:
    assert weight.signed().tolist() == layer.q
    assert (weight.n, weight.k) == (layer.n, layer.k)
    assert torch.equal(weight.dequantize(), layer.dense())


WRITERS: dict[str, tuple[Callable[..., dict[str, Tensor]], str, str]] = {
    # writer, format asked for, format found
    "gptq": (files.gptq, "auto", "gptq"),
    "gptq-v2": (lambda layer, name: files.gptq(layer, name, stored_zero=8), "auto", "gptq-v2"),
    "gptq without g_idx": (
        lambda layer, name: files.gptq(layer, name, g_idx=False),
        "auto",
        "gptq",
    ),
    "awq": (files.awq, "auto", "awq"),
    "compressed-tensors": (files.compressed, "auto", "compressed-tensors"),
    "bitblas": (files.bitblas, "bitblas", "bitblas"),
    "bitblas without zeros": (
        lambda layer, name: files.bitblas(layer, name, zeros=None),
        "bitblas",
        "bitblas",
    ),
    "bitblas-lop3": (files.bitblas_lop3, "bitblas-lop3", "bitblas-lop3"),
    "fork": (files.fork, "auto", "fork"),
    "fork's converter": (files.fork_converter, "fork", "fork"),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("n", "k", "group", "dtype"),
    [
        (32, 256, 128, torch.float16),
        (16, 192, 64, torch.bfloat16),
        (48, 64, 32, torch.float32),
        (16, 128, 128, torch.float16),
        (32, 192, 192, torch.bfloat16),
    ],
)
def test_reads_every_format(
    tmp_path: Path, kind: str, n: int, k: int, group: int, dtype: torch.dtype
) -> None:
    write, asked, found = WRITERS[kind]
    layer = files.reference(n, k, group, dtype)
    other = torch.randn(7, 5)
    path = files.save(tmp_path, {**write(layer, LAYER), "model.norm.weight": other})
    with Checkpoint.open(path, asked) as checkpoint:
        assert list(checkpoint.layers) == [LAYER]
        weight = checkpoint.read(LAYER)
        expect_same(weight, layer)
        assert weight.group_size == group
        assert weight.scales.dtype == dtype
        assert torch.equal(checkpoint.dequantize(LAYER, torch.float32), layer.dense())
        assert checkpoint.formats() == {found: 1}
        assert checkpoint.others == ["model.norm.weight"]
        assert torch.equal(checkpoint.files.tensor("model.norm.weight"), other)


def test_takes_the_bytes_of_awq_and_lop3_apart_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from w4tune.formats import layouts

    monkeypatch.setattr(layouts, "_CHUNK", 1000)
    layer = files.reference(32, 320, 64)
    expect_same(read(files.save(tmp_path / "a", files.awq(layer, LAYER))), layer)
    path = files.save(tmp_path / "b", files.bitblas_lop3(layer, LAYER))
    expect_same(read(path, format="bitblas-lop3"), layer)


def test_a_sentence_of_nibbles(tmp_path: Path) -> None:
    """One hand-made word of each order: input or output i of 8 has the code i."""
    by_input = {
        "a.qweight": torch.full((8, 16), 0x76543210, dtype=torch.int32),
        "a.qzeros": torch.full((1, 2), 0x77777777, dtype=torch.int32),
        "a.scales": torch.ones(1, 16),
    }
    q = read(files.save(tmp_path / "gptq", by_input), "a").signed()
    assert q[3, :8].tolist() == [-8, -7, -6, -5, -4, -3, -2, -1]
    by_output = {
        "a.qweight": torch.full((64, 2), 0x75316420, dtype=torch.int32),
        "a.qzeros": torch.full((1, 2), -0x77777778, dtype=torch.int32),  # 0x88888888
        "a.scales": torch.ones(1, 16),
    }
    q = read(files.save(tmp_path / "awq", by_output), "a").signed()
    assert q[:8, 5].tolist() == [-8, -7, -6, -5, -4, -3, -2, -1]


# ---- Files that the formats' own libraries made ----


def test_reads_what_compressed_tensors_compresses(tmp_path: Path) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    compressor = compressors.BaseCompressor.get_value_from_registry("pack-quantized")
    for k, group in [(256, 128), (192, 32), (192, None)]:
        layer = files.reference(32, k, group or k, torch.bfloat16)
        weights = quantization.QuantizationArgs(
            num_bits=4,
            type="int",
            symmetric=True,
            strategy="group" if group else "channel",
            group_size=group,
        )
        scheme = quantization.QuantizationScheme(targets=["Linear"], weights=weights)
        state = {"weight": layer.dense(torch.float32), "weight_scale": layer.scales.float()}
        made = compressor.compress(state, scheme)
        tensors = {f"{LAYER}.{name}": tensor for name, tensor in made.items()}
        tensors[f"{LAYER}.weight_scale"] = layer.scales
        weight = read(files.save(tmp_path / f"{k} {group}", tensors))
        expect_same(weight, layer)
        assert weight.group_size == (group or k)


def test_refuses_what_compressed_tensors_compresses_asymmetrically(tmp_path: Path) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    compressor = compressors.BaseCompressor.get_value_from_registry("pack-quantized")
    weights = quantization.QuantizationArgs(
        num_bits=4, type="int", symmetric=False, strategy="group", group_size=128
    )
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=weights)
    layer = files.reference()
    for value, fits in [(0, True), (3, False)]:
        zero = torch.zeros(layer.n, layer.groups, dtype=torch.int8)
        zero[5, 1] = value
        made = compressor.compress(
            {
                "weight": layer.dense(),
                "weight_scale": layer.scales.float(),
                "weight_zero_point": zero,
            },
            scheme,
        )
        path = files.save(tmp_path / str(value), {f"{LAYER}.{name}": t for name, t in made.items()})
        if fits:
            expect_same(read(path), layer)
        else:
            message = refusal(path)
            assert (
                f"{LAYER}.weight_zero_point: asymmetric zero points (compressed-tensors" in message
            )
            assert "11 in group 1 of output 5" in message


def _linear(layer: files.Reference) -> nn.Linear:
    linear = nn.Linear(layer.k, layer.n, bias=False, dtype=torch.float16)
    linear.weight.data = layer.dense(torch.float16)
    return linear


@pytest.mark.parametrize("version", [1, 2])
def test_reads_what_autogptq_packs(tmp_path: Path, version: int) -> None:
    module = files.library("auto_gptq.nn_modules.qlinear.qlinear_cuda_old")
    layer = files.reference(64, 256, 128)
    packed = module.QuantLinear(4, 128, layer.k, layer.n, bias=False)
    zeros = torch.full((layer.n, layer.groups), 8.0, dtype=torch.float16)
    packed.pack(_linear(layer), layer.scales.clone(), zeros, None)
    tensors = {f"{LAYER}.{name}": tensor for name, tensor in packed.state_dict().items()}
    assert set(tensors) == {f"{LAYER}.{name}" for name in ("qweight", "qzeros", "scales", "g_idx")}
    if version == 2:
        tensors[f"{LAYER}.qzeros"] += 0x11111111
    path = files.save(tmp_path, tensors)
    expect_same(read(path), layer)
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.settle(LAYER).format == ("gptq" if version == 1 else "gptq-v2")


def test_reads_what_autoawq_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = types.ModuleType("awq.utils.utils")
    helpers.get_best_device = lambda: "cpu"
    monkeypatch.setitem(sys.modules, "awq.utils.utils", helpers)
    module = files.library("awq.modules.linear.gemm")
    layer = files.reference(64, 256, 128)
    for zero, fits in [(8, True), (7, False)]:
        zeros = torch.full((layer.groups, layer.n), float(zero), dtype=torch.float16)
        packed = module.WQLinear_GEMM.from_linear(
            _linear(layer), 4, 128, scales=layer.scales.t().contiguous(), zeros=zeros
        )
        tensors = {f"{LAYER}.{name}": tensor for name, tensor in packed.state_dict().items()}
        path = files.save(tmp_path / str(zero), tensors)
        if fits:
            expect_same(read(path), layer)
        else:
            assert "asymmetric zero points (awq; 7 in group 0 of output 0" in refusal(path)


@pytest.mark.parametrize("format", ["bitblas", "bitblas-lop3"])
def test_reads_what_bitblas_compresses(tmp_path: Path, format: str) -> None:
    module = files.library("bitblas.quantization.utils")
    layer = files.reference(32, 256, 128)
    packed = module.general_compress(torch.tensor(layer.q, dtype=torch.int8).add(8).numpy())
    if format == "bitblas-lop3":
        packed = module.interleave_weight(packed, nbits=4, target_dtype="float16")
    tensors = {f"{LAYER}.qweight": torch.from_numpy(packed), f"{LAYER}.scales": layer.scales}
    expect_same(read(files.save(tmp_path, tensors), format=format), layer)


# ---- What is found out ----


def test_splits_groups_the_kernels_do_not_have(tmp_path: Path) -> None:
    for k, group, split in [(512, 256, 128), (192, 96, 32), (384, 192, 64)]:
        layer = files.reference(16, k, group)
        weight = read(files.save(tmp_path / f"{group}", files.compressed(layer, LAYER)))
        expect_same(weight, layer)
        assert weight.group_size == split


def test_refuses_groups_that_cannot_be_split(tmp_path: Path) -> None:
    layer = files.reference(16, 128, 16)
    message = refusal(files.save(tmp_path, files.gptq(layer, LAYER)))
    assert LAYER in message and "groups of 16 (gptq)" in message


def test_one_scale_for_all(tmp_path: Path) -> None:
    layer = files.reference(16, 64, 64)
    tensors = files.compressed(layer, LAYER)
    tensors[f"{LAYER}.weight_scale"] = torch.tensor([0.25], dtype=torch.bfloat16)
    weight = read(files.save(tmp_path, tensors))
    assert torch.equal(weight.dequantize(), torch.tensor(layer.q) * 0.25)


def test_odd_number_of_words(tmp_path: Path) -> None:
    """k = 4 mod 8: half of the last word is padding."""
    layer = files.reference(16, 68, 68)
    expect_same(read(files.save(tmp_path, files.compressed(layer, LAYER))), layer)


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}


@pytest.mark.parametrize(
    ("declared", "stored", "found"),
    [
        ({"sym": True}, 7, "gptq"),
        ({"sym": True, "checkpoint_format": "gptq"}, 7, "gptq"),
        ({"sym": True, "checkpoint_format": "gptq"}, 8, "gptq-v2"),  # files like that are about
        ({"sym": True, "checkpoint_format": "gptq_v2"}, 8, "gptq-v2"),
        ({"sym": False, "checkpoint_format": "gptq_v2"}, 8, "gptq-v2"),
        ({"sym": False, "checkpoint_format": "gptq"}, 7, "gptq"),
        ({"sym": False, "checkpoint_format": "gptq"}, 8, None),  # a zero of 9
        ({"sym": False, "checkpoint_format": "gptq_v2"}, 7, None),
        ({"sym": True}, 6, None),
    ],
)
def test_stored_zero_of_gptq(
    tmp_path: Path, declared: dict, stored: int, found: str | None
) -> None:
    layer = files.reference()
    config = {"quantization_config": {**GPTQ, **declared}}
    path = files.save(tmp_path, files.gptq(layer, LAYER, stored_zero=stored), config)
    if found is None:
        message = refusal(path)
        assert f"{LAYER}.qzeros: asymmetric zero points (gptq" in message
        assert f"{stored} in group 0 of output 0" in message
        return
    expect_same(read(path), layer)
    with Checkpoint.open(path) as checkpoint:
        settled = checkpoint.settle(LAYER)
    assert (settled.format, settled.zero) == (found, stored)
    assert bool(settled.notes) == (declared.get("checkpoint_format") == "gptq" and stored == 8)


def test_one_zero_among_many_is_found(tmp_path: Path) -> None:
    layer = files.reference(64, 256, 64)
    for write, zero in [(files.gptq, 7), (files.awq, 8)]:
        tensors = write(layer, LAYER)
        tensors[f"{LAYER}.qzeros"][2, 5] ^= 1 << 12  # nibble 3 of word 5
        output = 40 + (3 if write is files.gptq else files.AWQ_ORDER[3])
        message = refusal(files.save(tmp_path / write.__name__, tensors))
        assert f"{LAYER}.qzeros" in message
        assert f"{zero ^ 1} in group 2 of output {output}, symmetric is {zero}" in message


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json"])
def test_other_configurations(tmp_path: Path, name: str) -> None:
    layer = files.reference()
    write, declared = {
        "quantize_config.json": (files.gptq, {"bits": 4, "group_size": 128, "sym": True}),
        "quant_config.json": (
            files.awq,
            {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"},
        ),
    }[name]
    path = files.save(tmp_path, write(layer, LAYER))
    (path / name).write_text(json.dumps(declared))
    expect_same(read(path), layer)
    bits = "bits" if "bits" in declared else "w_bit"
    (path / name).write_text(json.dumps({**declared, bits: 8}))
    assert f"{name}: weights of 8 bits" in refusal(path)


def test_order_of_the_inputs(tmp_path: Path) -> None:
    layer = files.reference(32, 256, 128)
    tensors = files.gptq(layer, LAYER)
    index = tensors[f"{LAYER}.g_idx"]
    tensors[f"{LAYER}.g_idx"] = index[
        torch.randperm(256, generator=torch.Generator().manual_seed(1))
    ]
    message = refusal(files.save(tmp_path / "a", tensors))
    assert f"{LAYER}.g_idx" in message and "desc_act" in message
    tensors[f"{LAYER}.g_idx"] = (torch.arange(256) >= 100).int()
    assert "groups of unequal size" in refusal(files.save(tmp_path / "b", tensors))
    tensors[f"{LAYER}.g_idx"] = torch.zeros(0, dtype=torch.int32)
    expect_same(read(files.save(tmp_path / "c", tensors)), layer)
    config = {"quantization_config": {**GPTQ, "desc_act": True}}
    assert "desc_act without a g_idx" in refusal(files.save(tmp_path / "d", tensors, config))
    tensors[f"{LAYER}.g_idx"] = index  # desc_act that changed no order
    expect_same(read(files.save(tmp_path / "e", tensors, config)), layer)


def test_order_of_the_inputs_in_compressed_tensors(tmp_path: Path) -> None:
    layer = files.reference(32, 256, 128)
    tensors = files.compressed(layer, LAYER)
    for name, index, fits in [
        ("in order", torch.arange(256) // 128, True),
        ("not set", torch.full((256,), -1), True),
        ("reordered", (torch.arange(256) // 128).flip(0), False),
    ]:
        path = files.save(tmp_path / name, {**tensors, f"{LAYER}.weight_g_idx": index.int()})
        if fits:
            expect_same(read(path), layer)
        else:
            assert "reordered" in refusal(path)


def test_bitblas_does_not_tell_its_order(tmp_path: Path) -> None:
    layer = files.reference()
    path = files.save(tmp_path / "a", files.bitblas_lop3(layer, LAYER))
    message = refusal(path)
    assert "bitblas-lop3" in message and f"{LAYER}.qweight" in message
    config = {"quantization_config": {**GPTQ, "checkpoint_format": "bitblas", "sym": True}}
    expect_same(read(files.save(tmp_path / "b", files.bitblas_lop3(layer, LAYER), config)), layer)
    layer = files.reference(dtype=torch.bfloat16)  # no fast decoding of BF16
    expect_same(read(files.save(tmp_path / "c", files.bitblas(layer, LAYER), config)), layer)


def test_zeros_of_bitblas(tmp_path: Path) -> None:
    layer = files.reference(32, 256, 128)
    tensors = files.bitblas(layer, LAYER)
    rescaled = {**tensors, f"{LAYER}.zeros": layer.scales * 8}
    expect_same(read(files.save(tmp_path / "a", rescaled), format="bitblas"), layer)
    rescaled[f"{LAYER}.zeros"][3, 1] += 0.5
    assert "asymmetric" in refusal(files.save(tmp_path / "a", rescaled), format="bitblas")
    packed = {**tensors, f"{LAYER}.zeros": torch.full((2, 16), 0x88 - 256, dtype=torch.int8)}
    expect_same(read(files.save(tmp_path / "b", packed), format="bitblas"), layer)
    packed[f"{LAYER}.zeros"][1, 3] = 0x78
    message = refusal(files.save(tmp_path / "c", packed), format="bitblas")
    assert "7 in group 1 of output 7" in message
    wrong = {**tensors, f"{LAYER}.zeros": torch.zeros_like(layer.scales)}
    assert "asymmetric" in refusal(files.save(tmp_path / "d", wrong), format="bitblas")
    empty = {**tensors, f"{LAYER}.zeros": torch.zeros(0)}
    expect_same(read(files.save(tmp_path / "e", empty), format="bitblas"), layer)


def test_biases_are_no_part_of_the_weight(tmp_path: Path) -> None:
    layer = files.reference()
    bias = torch.randn(layer.n).half()
    path = files.save(tmp_path, {**files.awq(layer, LAYER), f"{LAYER}.bias": bias})
    with Checkpoint.open(path) as checkpoint:
        assert torch.equal(checkpoint.bias(LAYER), bias)
        assert checkpoint.others == [f"{LAYER}.bias"]


def test_formats_may_be_mixed(tmp_path: Path) -> None:
    layers = {f"layers.{i}": files.reference(seed=i) for i in range(3)}
    writers = (files.gptq, files.awq, files.compressed)
    shards = [
        write(layer, name) for write, (name, layer) in zip(writers, layers.items(), strict=True)
    ]
    with Checkpoint.open(files.save_shards(tmp_path, shards)) as checkpoint:
        for name, layer in layers.items():
            expect_same(checkpoint.read(name), layer)
        assert checkpoint.formats() == {"gptq": 1, "awq": 1, "compressed-tensors": 1}


# ---- Files and folders ----


def test_a_layer_may_lie_in_two_shards(tmp_path: Path) -> None:
    layer = files.reference()
    tensors = files.gptq(layer, LAYER)
    first = {name: tensors[name] for name in list(tensors)[:2]}
    second = {name: tensors[name] for name in list(tensors)[2:]}
    path = files.save_shards(tmp_path, [first, second])
    expect_same(read(path), layer)
    expect_same(read(path / "model.safetensors.index.json"), layer)
    (path / "model.safetensors.index.json").unlink()
    expect_same(read(path), layer)  # all the files there are
    assert "no scales beside it" in refusal(path / "model-00001-of-00002.safetensors")


def test_faults_of_an_index(tmp_path: Path) -> None:
    tensors = files.gptq(files.reference(), LAYER)
    path = files.save_shards(tmp_path, [tensors, {"a": torch.ones(1)}])
    index = path / "model.safetensors.index.json"
    good = json.loads(index.read_text())

    index.write_text(
        json.dumps({"weight_map": {**good["weight_map"], "b": "model-00002-of-00002.safetensors"}})
    )
    assert "has b in model-00002-of-00002.safetensors, which does not hold it" in refusal(path)
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    assert "not the name of a file beside the index" in refusal(path)
    index.write_text(json.dumps({"weight_map": {"a": 3}}))
    assert "not the name of a file" in refusal(path)
    index.write_text("{}")
    assert "no weight_map" in refusal(path)
    index.write_text('{"weight_map": ')
    assert "not readable as JSON" in refusal(path)
    index.write_text("[]")
    assert "a JSON object is expected" in refusal(path)
    index.write_text(json.dumps(good))
    (path / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors named by" in refusal(path)
    index.unlink()
    (path / "again.safetensors").write_bytes(
        (path / "model-00001-of-00002.safetensors").read_bytes()
    )
    assert "is in both" in refusal(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "nowhere")
    assert "holds no .safetensors" in refusal(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert "pytorch_model.bin is of another kind" in refusal(tmp_path)
    file = tmp_path / "model.safetensors"
    for content in [
        b"",
        b"1234",
        struct.pack("<Q", 100),
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 8) + b'{"a": 3}',
        struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    ]:
        file.write_bytes(content)
        message = refusal(tmp_path)
        assert "model.safetensors: not a whole safetensors file" in message
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "Git LFS pointer" in refusal(tmp_path)
    save_file({}, file)
    assert "holds no tensors" in refusal(tmp_path)


def test_truncated_files(tmp_path: Path) -> None:
    path = files.save(tmp_path, files.gptq(files.reference(), LAYER))
    file = path / "model.safetensors"
    whole = file.read_bytes()
    for size in [len(whole) - 1, len(whole) // 2, 200, 9]:
        file.write_bytes(whole[:size])
        assert "not a whole safetensors file" in refusal(path)
    file.write_bytes(whole + b"0")
    assert "not a whole safetensors file" in refusal(path)


def test_corrupt_config(tmp_path: Path) -> None:
    path = files.save(tmp_path, files.gptq(files.reference(), LAYER))
    (path / "config.json").write_text("{")
    assert "config.json: not readable as JSON" in refusal(path)


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ({"quant_method": "fp8"}, "quant_method fp8 is not read"),
        (
            {"quant_method": "gptq", "checkpoint_format": "marlin"},
            "layout marlin of gptq is not read",
        ),
        ({"quant_method": "awq", "version": "gemv"}, "layout gemv of awq is not read"),
        ({"quant_method": "gptq", "bits": 3}, "weights of 3 bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, "groups of 64"),
        (
            {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {}},
            "layout int-quantized",
        ),
    ],
)
def test_configurations_that_are_not_read(tmp_path: Path, declared: dict, line: str) -> None:
    tensors = files.gptq(files.reference(), LAYER, g_idx=False)
    assert line in refusal(files.save(tmp_path, tensors, {"quantization_config": declared}))


def test_configuration_without_layers(tmp_path: Path) -> None:
    path = files.save(tmp_path, {"a.weight": torch.ones(2, 2)}, {"quantization_config": GPTQ})
    assert "says gptq, but no tensor holds int4 weights" in refusal(path)
    assert "awq was asked for" in refusal(path, "awq")
    with Checkpoint.open(path, "float") as checkpoint:
        assert not checkpoint.layers


def _changed(write: Callable[..., dict[str, Tensor]], change: Callable[[dict[str, Tensor]], None]):
    tensors = write(files.reference(), "a")
    change(tensors)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _to(name: str, value: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.update({name: value(tensors[name])})


def _without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    ("write", "change", "format", "line"),
    [
        (files.gptq, _without("a.scales"), "auto", "a.qweight I32 [32, 32] has no scales"),
        (files.gptq, _without("a.qzeros"), "auto", "no qzeros beside a.qweight"),
        (files.awq, _without("a.qzeros"), "auto", "no qzeros beside a.qweight"),
        (files.compressed, _without("a.weight_scale"), "auto", "has no scales"),
        (files.gptq, _to("a.qweight", lambda t: t.long()), "auto", "a.qweight I64 [32, 32]"),
        (files.gptq, _to("a.qweight", lambda t: t.half()), "gptq", "gptq has its codes in int32"),
        (files.gptq, _to("a.qweight", lambda t: t[:, :20]), "auto", "fit neither GPTQ"),
        (files.gptq, _to("a.qweight", lambda t: t[0]), "auto", "two dimensions"),
        (files.gptq, _to("a.qweight", lambda t: t[:0]), "auto", "empty weight"),
        (files.gptq, _to("a.qweight", lambda t: t[:31]), "auto", "a.g_idx I32 [256]"),
        (files.gptq, _to("a.scales", lambda t: t.int()), "auto", "scales are FP16, BF16 or FP32"),
        (files.gptq, _to("a.scales", lambda t: t[:, :24]), "auto", "fit neither"),
        (files.gptq, _to("a.scales", lambda t: t[:1]), "auto", "a.qzeros I32 [2, 4]"),
        (files.gptq, _to("a.scales", lambda t: t * torch.inf), "auto", "NaN or infinite (gptq)"),
        (files.gptq, _to("a.qzeros", lambda t: t.short()), "auto", "a.qzeros I16 [2, 4]"),
        (files.gptq, _to("a.g_idx", lambda t: t.float()), "auto", "a.g_idx F32 [256]"),
        (files.awq, _to("a.qweight", lambda t: t[:255]), "auto", "odd number of inputs"),
        (files.awq, _to("a.qweight", lambda t: t[:250]), "awq", "configuration says"),
        (files.awq, _to("a.qweight", lambda t: t[:254]), "awq", "configuration says"),
        (files.gptq, _to("a.scales", lambda t: t.t()), "auto", "AWQ's gemv version"),
        (files.compressed, _to("a.weight_packed", lambda t: t[:, :16]), "auto", "not 32 x 256"),
        (
            files.compressed,
            _to("a.weight_packed", lambda t: t.repeat(1, 2)),
            "auto",
            "not 32 x 256",
        ),
        (
            files.compressed,
            _to("a.weight_packed", lambda t: t.view(torch.int8)),
            "auto",
            "in int32",
        ),
        (
            files.compressed,
            _to("a.weight_packed", lambda t: t.view(torch.uint8)),
            "auto",
            "w4tune's",
        ),
        (files.compressed, _to("a.weight_shape", lambda t: t.float()), "auto", "two integers"),
        (files.compressed, _to("a.weight_shape", lambda t: t - 1), "auto", "not 31 x 255"),
        (files.compressed, _to("a.weight_scale", lambda t: t[:31]), "auto", "[32, groups]"),
        (files.bitblas, _to("a.scales", lambda t: t[:31]), "bitblas", "a.scales F16 [31, 2]"),
        (files.bitblas, _to("a.qweight", lambda t: t.view(2, 16, 8, 16)), "bitblas", "ladder"),
        (files.bitblas, _to("a.qweight", lambda t: t[:, :125]), "bitblas-lop3", "interleaves"),
        (files.bitblas, _to("a.zeros", lambda t: t[:, :1]), "bitblas", "a.zeros F16 [32, 1]"),
        (files.gptq, lambda t: None, "bitblas", "bitblas has its codes in bytes"),
        (files.bitblas, lambda t: None, "gptq", "gptq has its codes in int32"),
    ],
)
def test_wrong_tensors(
    tmp_path: Path,
    write: Callable[..., dict[str, Tensor]],
    change: Callable[[dict[str, Tensor]], None],
    format: str,
    line: str,
) -> None:
    config = {"quantization_config": {**GPTQ, "quant_method": None}} if "says" in line else None
    assert line in refusal(files.save(tmp_path, _changed(write, change), config), format)


def test_last_group_that_is_smaller(tmp_path: Path) -> None:
    """k = 192 in groups of 128: two groups, which 2 divides, but not in halves."""
    layer = files.reference(16, 192, 96)
    config = {"quantization_config": GPTQ}
    tensors = files.gptq(layer, LAYER, g_idx=False)
    assert "groups of 128" in refusal(files.save(tmp_path / "a", tensors, config))
    index = torch.arange(192, dtype=torch.int32) // 128
    tensors[f"{LAYER}.g_idx"] = index
    assert "groups of unequal size" in refusal(files.save(tmp_path / "b", tensors, config))
    tensors = files.compressed(files.reference(16, 136, 8), LAYER)
    tensors[f"{LAYER}.weight_scale"] = tensors[f"{LAYER}.weight_scale"][:, :2].contiguous()[:, :2]
    tensors[f"{LAYER}.weight_scale"] = torch.ones(16, 5)
    assert "5 groups do not divide 136 inputs" in refusal(files.save(tmp_path / "c", tensors))


def test_unknown_format(tmp_path: Path) -> None:
    path = files.save(tmp_path, files.gptq(files.reference(), LAYER))
    assert "known are auto, float, gptq" in refusal(path, "exl2")


def test_two_weights_of_one_module(tmp_path: Path) -> None:
    layer = files.reference()
    path = files.save(tmp_path, {**files.gptq(layer, "a"), **files.compressed(layer, "a")})
    assert "of one layer" in refusal(path)


def test_reading_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    """What is read must not share the mapped file's memory."""
    layer = files.reference()
    for kind, (write, asked, _) in WRITERS.items():
        path = files.save(tmp_path / kind, write(layer, LAYER))
        before = load_file(path / "model.safetensors")
        weight = read(path, format=asked)
        weight.codes.zero_()
        weight.scales.zero_()
        after = load_file(path / "model.safetensors")
        assert all(torch.equal(before[name], after[name]) for name in before)
        expect_same(read(path, format=asked), layer)
