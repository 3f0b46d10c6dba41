"""`w4tune convert` and load_quantized_, judged by readers that share nothing with them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import int4_files as files
import pytest
import torch
import w4tune
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from w4tune import W4tuneError, convert, load_quantized_
from w4tune.formats import Checkpoint, CheckpointWriter
from w4tune.formats.console import Progress
from w4tune.formats.writer import Planned

NAMES = [f"model.layers.{i}.mlp.{part}_proj" for i in (0, 1) for part in ("gate", "up", "down")]
KINDS = {
    "gptq": (files.gptq, []),
    "gptq-v2": (lambda layer, name: files.gptq(layer, name, stored_zero=8), []),
    "awq": (files.awq, []),
    "compressed-tensors": (files.compressed, []),
    "bitblas": (files.bitblas, ["--from", "bitblas"]),
    "bitblas-lop3": (files.bitblas_lop3, ["--from", "bitblas-lop3"]),
    "fork": (files.fork, []),
}


def layers(group: int = 128, dtype: torch.dtype = torch.float16) -> dict[str, files.Reference]:
    sizes = {"gate": (128, 256), "up": (128, 256), "down": (256, 128)}
    return {
        name: files.reference(*sizes[name.split(".")[-1].removesuffix("_proj")], group, dtype, seed)
        for seed, name in enumerate(NAMES)
    }


OTHERS = {
    "model.embed_tokens.weight": torch.arange(40, dtype=torch.float32).reshape(5, 8).bfloat16(),
    "model.layers.0.input_layernorm.weight": torch.linspace(-1, 1, 8),
    "model.layers.0.mlp.up_proj.bias": torch.linspace(-1, 1, 128).half(),
    "model.layers.0.self_attn.q_proj.weight": torch.ones(8, 8, dtype=torch.float16),
    "empty": torch.zeros(0, 3),
    "flags": torch.tensor([True, False, True]),
    "scalar": torch.tensor(3.5, dtype=torch.float64),
    "odd": torch.arange(3, dtype=torch.uint8),
}


def run(*arguments: object) -> int:
    return convert.main([str(argument) for argument in arguments])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What a failed command said: one line on standard error, nothing else."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith("w4tune convert: "), err
    return lines[0]


def written(path: Path) -> dict[str, Tensor]:
    """All tensors of a folder, by what its index says where it has one."""
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        assert [file.name for file in path.glob("*.safetensors")] == ["model.safetensors"]
        return load_file(path / "model.safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    tensors = {}
    for file in sorted(set(weight_map.values())):
        with safe_open(path / file, framework="pt") as stream:
            assert sorted(stream.keys()) == sorted(k for k, v in weight_map.items() if v == file)
            assert stream.metadata() == {"format": "pt"}
            tensors.update({name: stream.get_tensor(name).clone() for name in stream.keys()})
    assert {file.name for file in path.glob("*.safetensors")} == set(weight_map.values())
    return tensors


def nothing_left(folder: Path, *expected: str) -> None:
    assert sorted(os.listdir(folder)) == sorted(expected)


# ---- Int4 to int4 ----


@pytest.mark.parametrize("kind", KINDS)
def test_int4_formats_are_rewritten_exactly(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write, options = KINDS[kind]
    expected = layers()
    tensors = {k: v for name, layer in expected.items() for k, v in write(layer, name).items()}
    source = files.save(tmp_path / "in", {**tensors, **OTHERS}, {"model_type": "gemma"})
    assert run(source, tmp_path / "out", *options, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report["formats"] == {kind: 6}
    assert report["passed_through"] == len(OTHERS)
    assert report["format"] == "compressed-tensors"
    assert report["refused_by_kernels"] == {}
    assert any("rotated" in note for note in report["notes"]) == (kind == "fork")

    result = written(tmp_path / "out")
    own = {f"{n}.weight_{part}" for n in NAMES for part in ("packed", "scale", "shape")}
    assert set(result) == own | set(OTHERS)
    for name, tensor in OTHERS.items():
        assert result[name].dtype == tensor.dtype and torch.equal(result[name], tensor)
    for name, layer in expected.items():
        found = files.read_compressed(result, name)
        assert found.q == layer.q
        assert found.scales.dtype == torch.float16 and torch.equal(found.scales, layer.scales)
    assert report["bytes_after"] == sum(t.numel() * t.element_size() for t in result.values())

    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "gemma"
    (group,) = config["quantization_config"]["config_groups"].values()
    assert sorted(group["targets"]) == sorted(NAMES)
    assert group["weights"]["group_size"] == 128
    ignored = {"lm_head", "model.embed_tokens", "model.layers.0.self_attn.q_proj"}
    assert set(config["quantization_config"]["ignore"]) == ignored
    nothing_left(tmp_path, "in", "out")


def test_converting_again_changes_nothing(tmp_path: Path) -> None:
    tensors = {k: v for n, layer in layers(64).items() for k, v in files.awq(layer, n).items()}
    source = files.save(tmp_path / "in", {**tensors, **OTHERS})
    assert run(source, tmp_path / "one") == 0
    assert run(tmp_path / "one", tmp_path / "two") == 0
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_several_group_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"a": (16, 256, 128), "b": (16, 256, 256), "c": (32, 64, 32), "d": (16, 256, 128)}
    expected = {name: files.reference(*size) for name, size in sizes.items()}
    tensors = {k: v for n, layer in expected.items() for k, v in files.gptq(layer, n).items()}
    assert run(files.save(tmp_path / "in", tensors), tmp_path / "out") == 0
    assert (
        "1 with one scale for each output, 1 with groups of 32, 2 with groups of 128"
        in capsys.readouterr().out
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    groups = {
        (g["weights"]["strategy"], g["weights"]["group_size"]): g["targets"]
        for g in config["config_groups"].values()
    }
    assert groups == {("group", 128): ["a", "d"], ("channel", None): ["b"], ("group", 32): ["c"]}
    result = written(tmp_path / "out")
    for name, layer in expected.items():
        assert torch.equal(files.read_compressed(result, name).dense(), layer.dense())


def test_layers_that_are_not_selected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = layers()
    tensors = {k: v for n, layer in expected.items() for k, v in files.gptq(layer, n).items()}
    source = files.save(tmp_path / "in", tensors)
    code = run(source, tmp_path / "out", "--exclude", r"layers\.1\.", "--exclude", "up_proj")
    assert code == 0
    assert "4 layers not selected" in capsys.readouterr().out
    result = written(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    for name, layer in expected.items():
        if "layers.1." in name or "up_proj" in name:
            assert torch.equal(result[f"{name}.weight"], layer.dense(torch.float16))
            assert name in config["ignore"]
        else:
            assert torch.equal(files.read_compressed(result, name).dense(), layer.dense())
    assert run(source, tmp_path / "none", "--include", "vision") == 1
    assert "none of 6 quantised layers is selected" in one_line(capsys)


def test_sizes_the_kernels_refuse_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = files.reference(24, 160, 32)
    source = files.save(tmp_path / "in", files.gptq(layer, "a"))
    assert run(source, tmp_path / "out", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert "multiple of 16" in report["refused_by_kernels"]["a"]
    found = files.read_compressed(written(tmp_path / "out"), "a")
    assert torch.equal(found.dense(), layer.dense())


def test_refusals_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = files.gptq(files.reference(seed=1), "first")
    bad = files.gptq(files.reference(seed=2), "second", stored_zero=5)
    source = files.save(tmp_path / "in", {**good, **bad})
    assert run(source, tmp_path / "out") == 1
    line = one_line(capsys)
    assert "second.qzeros: asymmetric zero points (gptq; 5 in group 0" in line
    bad["second.qzeros"] = good["first.qzeros"].clone()
    bad["second.scales"][0, 3] = torch.nan  # found when the shard is half written
    files.save(source, {**good, **bad})
    assert run(source, tmp_path / "out") == 1
    assert "second.scales: scales that are NaN" in one_line(capsys)
    (source / "model.safetensors").write_bytes(b"12345678")
    assert run(source, tmp_path / "out") == 1
    assert "not a whole safetensors file" in one_line(capsys)
    nothing_left(tmp_path, "in")


# ---- Floating point to int4 ----


def dense(group: int = 128, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(7)
    return {
        f"{name}.weight": (torch.randn(layer.n, layer.k, generator=random) * 0.02).to(dtype)
        for name, layer in layers(group).items()
    }


@pytest.mark.parametrize(
    ("group", "method", "dtype"),
    [
        ("128", "mse", torch.bfloat16),
        ("32", "maxabs", torch.float16),
        ("channel", "mse", torch.float32),
    ],
)
def test_floating_point_is_quantised(
    tmp_path: Path,
    group: str,
    method: str,
    dtype: torch.dtype,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = dense(dtype=dtype)
    source = files.save(tmp_path / "in", {**weights, **OTHERS})
    arguments = ["--group-size", group, "--method", method, "--device", "cpu", "--json"]
    assert run(source, tmp_path / "out", *arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["formats"] == {"float": 6}
    result = written(tmp_path / "out")
    stored = torch.float16 if dtype == torch.float32 else dtype
    for name in NAMES:
        weight = weights[f"{name}.weight"].float()
        found = files.read_compressed(result, name)
        assert found.scales.dtype == stored
        size = weight.shape[1] if group == "channel" else int(group)
        assert found.groups == weight.shape[1] // size
        scale = found.scales.float().repeat_interleave(size, dim=1)
        q = torch.tensor(found.q)
        assert torch.equal(q, torch.clamp(torch.round(weight / scale), -8, 7).long())
        if method == "maxabs":
            largest = weight.reshape(len(weight), -1, size).abs().amax(2)
            assert torch.equal(found.scales, (largest / 7).to(stored))
        assert name + ".weight" not in result
    for name, tensor in OTHERS.items():
        assert torch.equal(result[name], tensor)


def test_what_of_floating_point_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {
        "a.up_proj.weight": torch.randn(16, 128),
        "b.up_proj.weight": torch.randn(24, 128),  # n
        "c.up_proj.weight": torch.randn(16, 192),  # no multiple of the group
        "d.up_proj.weight": torch.zeros(16, 128, dtype=torch.int8),
        "e.up_proj.weight": torch.randn(2, 16, 128),
        "f.up_proj.bias": torch.randn(16),
        "g.other.weight": torch.randn(16, 128),
    }
    source = files.save(tmp_path / "in", weights)
    assert run(source, tmp_path / "out", "--json", "--device", "cpu") == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["layers"]) == ["a.up_proj"]
    assert sorted(report["skipped"]) == ["b.up_proj", "c.up_proj", "d.up_proj", "e.up_proj"]
    for name, reason in [("b", "16"), ("c", "128"), ("d", "I8"), ("e", "3 dimensions")]:
        assert reason in report["skipped"][f"{name}.up_proj"]
    result = written(tmp_path / "out")
    assert torch.equal(result["c.up_proj.weight"], weights["c.up_proj.weight"])

    code = run(source, tmp_path / "two", "--include", "^g", "--include", "^a", "--device", "cpu")
    assert code == 0
    assert "2 layers (2 float)" in capsys.readouterr().out
    assert run(source, tmp_path / "three", "--include", "nothing") == 1
    assert "no weight to quantise; --include is nothing" in one_line(capsys)
    assert run(source, tmp_path / "three", "--include", "^b") == 1
    assert "no weight to quantise; b.up_proj: 24 x 128" in one_line(capsys)
    nothing_left(tmp_path, "in", "out", "two")


def test_a_weight_with_nan_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = dense()
    weights[f"{NAMES[3]}.weight"][5, 6] = torch.nan
    assert run(files.save(tmp_path / "in", weights), tmp_path / "out", "--device", "cpu") == 1
    assert f"{NAMES[3]}.weight: " in one_line(capsys)
    nothing_left(tmp_path, "in")


# ---- The output ----


def test_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = layers()
    shards = [
        {k: v for name in part for k, v in files.gptq(expected[name], name).items()}
        for part in (NAMES[:2], NAMES[2:])
    ]
    shards[1].update(OTHERS)
    source = files.save_shards(tmp_path / "in", shards)
    assert run(source, tmp_path / "out", "--shard-size", "40kB") == 0
    result = written(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    for name, layer in expected.items():
        assert torch.equal(files.read_compressed(result, name).dense(), layer.dense())
    for name, tensor in OTHERS.items():
        assert torch.equal(result[name], tensor)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    size = sum(tensor.numel() * tensor.element_size() for tensor in result.values())
    assert index["metadata"]["total_size"] == size
    assert run(tmp_path / "out", tmp_path / "again") == 0
    assert set(written(tmp_path / "again")) == set(result)
    assert capsys.readouterr().err == ""


def test_tensors_are_aligned(tmp_path: Path) -> None:
    source = files.save(tmp_path / "in", {**files.gptq(files.reference(), "a"), **OTHERS})
    assert run(source, tmp_path / "out") == 0
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    widths = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % widths.get(entry["dtype"], 1) == 0


def test_companions_are_copied(tmp_path: Path) -> None:
    source = files.save(tmp_path / "in", files.gptq(files.reference(), "a"), {"x": 1})
    for name in ("tokenizer.json", "assets/stats/norm.json", "notes.md"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    for name in ("pytorch_model.bin", ".hidden", "quantize_config.json", "assets/old.safetensors"):
        (source / name).write_text('{"bits": 4}')
    assert run(source, tmp_path / "out") == 0
    copied = {
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert copied == {
        *("model.safetensors", "config.json", "tokenizer.json", "notes.md"),
        "assets/stats/norm.json",
    }
    assert (
        tmp_path / "out" / "assets" / "stats" / "norm.json"
    ).read_text() == "assets/stats/norm.json"
    assert run(source / "model.safetensors", tmp_path / "single") == 0
    assert sorted(os.listdir(tmp_path / "single")) == ["config.json", "model.safetensors"]


def test_an_output_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = files.save(tmp_path / "in", files.gptq(files.reference(), "a"))
    out = tmp_path / "out"
    out.mkdir()
    assert run(source, out) == 0  # an empty folder is no output
    before = (out / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert run(source, out) == 1
    assert "out exists: give another folder, or --force" in one_line(capsys)
    (out / "old.txt").write_text("old")
    files.save(source, files.gptq(files.reference(seed=9), "a"))
    assert run(source, out, "--force") == 0
    assert (out / "model.safetensors").read_bytes() != before
    assert not (out / "old.txt").exists()
    nothing_left(tmp_path, "in", "out")


def test_force_fails_without_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = files.gptq(files.reference(), "a")
    source = files.save(tmp_path / "in", tensors)
    assert run(source, tmp_path / "out") == 0
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    tensors["a.scales"][0, 0] = torch.inf
    files.save(source, tensors)
    capsys.readouterr()
    assert run(source, tmp_path / "out", "--force") == 1
    assert "a.scales" in one_line(capsys)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    nothing_left(tmp_path, "in", "out")


def test_force_replaces_checkpoints_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = files.save(tmp_path / "home" / "in", files.gptq(files.reference(), "a"))
    valuable = tmp_path / "valuable"
    valuable.mkdir()
    (valuable / "thesis.txt").write_text("x")
    assert run(source, valuable, "--force") == 1
    assert "not a checkpoint" in one_line(capsys)
    for path in (source, tmp_path / "home", tmp_path):
        assert run(source, path, "--force") == 1
        assert "give another folder" in one_line(capsys)
    assert run(source / "model.safetensors", source, "--force") == 1
    assert "is the input" in one_line(capsys)
    assert run(source, source / "model.safetensors", "--force") == 1
    assert "is a file" in one_line(capsys)
    current = files.save(tmp_path / "current", files.gptq(files.reference(), "a"))
    monkeypatch.chdir(current)
    assert run(source, ".", "--force") == 1
    assert "working folder" in one_line(capsys)
    assert (valuable / "thesis.txt").exists() and (source / "model.safetensors").exists()


def test_no_room_on_the_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    source = files.save(tmp_path / "in", files.gptq(files.reference(), "a"))
    full = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert run(source, tmp_path / "out") == 1
    assert "GB are needed and 0.0 GB are free" in one_line(capsys)
    nothing_left(tmp_path, "in")


def test_a_disk_that_fills_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writing fails half-way: here by a limit on the size of files, in a process of its own."""
    source = files.save(tmp_path / "in", {"a.up_proj.weight": torch.randn(512, 1024)})
    code = (
        "import resource, signal, sys\n"
        "from w4tune import convert\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.exit(convert.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-B", "-c", code, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"w4tune convert: .*out cannot be written: .+\n", done.stderr), done.stderr
    nothing_left(tmp_path, "in")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    source = files.save(tmp_path / "in", {"a.up_proj.weight": torch.randn(64, 1024)})
    code = (
        "import sys, time\n"
        "from w4tune import convert\n"
        "slow = convert.quantize\n"
        "convert.quantize = lambda *a, **k: (print('busy', flush=True), time.sleep(60))\n"
        "sys.exit(convert.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-B", "-c", code, str(source), str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "busy\n"
        assert len(os.listdir(tmp_path)) == 2  # the hidden folder
        process.send_signal(number)
        assert process.wait(timeout=30) == 1
        assert re.fullmatch(
            r"w4tune convert: interrupted; .*out was not written\n", process.stderr.read()
        )
    nothing_left(tmp_path, "in")


def test_the_writer_holds_callers_to_the_plan(tmp_path: Path) -> None:
    plan = [Planned("a", "F32", (2, 3), 24), Planned("b", "I32", (4,), 16)]
    with pytest.raises(W4tuneError, match="b was planned and never written"):
        with CheckpointWriter(tmp_path / "out", plan) as writer:
            writer.put("a", torch.ones(2, 3))
            writer.commit()
    for tensor in (torch.ones(3, 2), torch.ones(2, 3).half(), torch.ones(2, 3).double()):
        with pytest.raises(W4tuneError, match="was planned, not"):
            with CheckpointWriter(tmp_path / "out", plan) as writer:
                writer.put("a", tensor)
    nothing_left(tmp_path)
    with CheckpointWriter(tmp_path / "out", plan) as writer:
        writer.put("b", torch.arange(4, dtype=torch.int32))
        writer.put("a", torch.arange(6.0).reshape(3, 2).t())  # not contiguous
        writer.commit()
    result = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(result["a"], torch.arange(6.0).reshape(3, 2).t())
    assert torch.equal(result["b"], torch.arange(4, dtype=torch.int32))


def test_memory_holds_one_layer(tmp_path: Path) -> None:
    """Of 24 layers of 4 MB in FP16, 1 MB in INT4: the peak must not grow with their number."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc/self/status")
    code = (
        "import re, sys, threading\n"
        "from w4tune import convert\n"
        "def anonymous():\n"
        "    text = open('/proc/self/status').read()\n"
        "    return int(re.search(r'RssAnon:\\s+(\\d+)', text)[1])\n"
        "start = peak = anonymous()\n"
        "done = threading.Event()\n"
        "def watch():\n"
        "    global peak\n"
        "    while not done.wait(0.002):\n"
        "        peak = max(peak, anonymous())\n"
        "watcher = threading.Thread(target=watch)\n"
        "watcher.start()\n"
        "assert convert.main(sys.argv[1:]) == 0\n"
        "done.set()\n"
        "watcher.join()\n"
        "print(peak - start)\n"
    )
    peaks = {}
    for count in (4, 24):
        weights = {f"l{i}.up_proj.weight": torch.randn(1024, 2048).half() for i in range(count)}
        source = files.save(tmp_path / f"in{count}", weights)
        arguments = [str(source), str(tmp_path / f"out{count}"), "--method", "maxabs"]
        command = [sys.executable, "-B", "-c", code, *arguments, "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout.split()[-1]) / 1000
    assert peaks[24] - peaks[4] < 10, f"anonymous memory, MB: {peaks}"


# ---- Command line ----


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["in"],
        ["in", "out", "more"],
        ["in", "out", "--format", "gguf"],
        ["in", "out", "--from", "exl2"],
        ["in", "out", "--include", "("],
        ["in", "out", "--group-size", "100"],
        ["in", "out", "--shard-size", "many"],
        ["in", "out", "--shard-size", "0"],
        ["in", "out", "--from", "float", "--device", "abacus"],
        ["in", "out", "--forc"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert one_line(capsys).endswith("See w4tune convert --help")


def test_options_that_do_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = files.save(tmp_path / "in", files.gptq(files.reference(), "a"))
    for option in (["--group-size", "64"], ["--method", "mse"], ["--scale-dtype", "bf16"]):
        assert run(source, tmp_path / "out", *option) == 2
        assert f"{option[0]} is for floating point checkpoints" in one_line(capsys)
    nothing_left(tmp_path, "in")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert "examples:" in text and "exit codes: 0 ok, 1 failed, 2 usage" in text
    for option in ("--from", "--include", "--exclude", "--json", "--force", "--format"):
        assert option in text
    assert max(map(len, text.splitlines())) <= 100


def test_text_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {k: v for n, layer in layers().items() for k, v in files.gptq(layer, n).items()}
    assert run(files.save(tmp_path / "in", {**tensors, **OTHERS}), tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "compressed-tensors, 6 layers (6 gptq): 6 with groups of 128" in out
    assert "8 tensors passed through" in out


def test_progress_of_slow_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with Progress("converting", 100, stream) as progress:
        for step in range(10):
            progress.advance(10, f"layer {step}")
            clock[0] += 0.05
        assert stream.getvalue() == ""  # quick work says nothing
    with Progress("converting", 100, stream) as progress:
        for step in range(10):
            clock[0] += 2.0
            progress.advance(10, f"layer {step}")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "converting:  10%, about 18 s left  layer 0"
    assert 3 <= len(lines) <= 5


# ---- Read by others ----


def test_compressed_tensors_reads_it(tmp_path: Path) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    expected = {"a": files.reference(32, 256, 64), "b": files.reference(16, 128, 128)}
    tensors = {k: v for n, layer in expected.items() for k, v in files.gptq(layer, n).items()}
    assert run(files.save(tmp_path / "in", tensors), tmp_path / "out") == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    parsed = quantization.QuantizationConfig.model_validate(config)
    compressor = compressors.BaseCompressor.get_value_from_registry(parsed.format)
    result = written(tmp_path / "out")
    for scheme in parsed.config_groups.values():
        for name in scheme.targets:
            state = {
                key.removeprefix(name + "."): tensor
                for key, tensor in result.items()
                if key.startswith(name + ".")
            }
            state["weight_scale"] = state["weight_scale"].float()
            weight = compressor.decompress(state, scheme)["weight"]
            assert torch.equal(weight.float(), expected[name].dense())


def tiny_gemma(dtype: torch.dtype = torch.float32, layer_count: int = 2) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GemmaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layer_count,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        hidden_activation="gelu_pytorch_tanh",
    )
    torch.manual_seed(3)
    return transformers.GemmaForCausalLM(config).eval().to(dtype)


def test_transformers_reads_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    model = tiny_gemma()
    model.save_pretrained(tmp_path / "in")
    assert run(tmp_path / "in", tmp_path / "out", "--device", "cpu", "--group-size", "64") == 0
    result = written(tmp_path / "out")
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and ".mlp." in name:
                module.weight.copy_(files.read_compressed(result, name).dense())
    try:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", dtype=torch.float32
        )
    except ImportError as error:
        pytest.skip(f"transformers needs more to load compressed-tensors: {error}")
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        expected, found = model(tokens).logits, loaded.eval()(tokens).logits
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


# ---- load_quantized_ ----


class Mlp(nn.Module):
    def __init__(self, tanh: bool = True) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(256, 128, bias=False)
        self.up_proj = nn.Linear(256, 128, bias=False)
        self.down_proj = nn.Linear(128, 256, bias=False)
        self.act_fn = nn.GELU(approximate="tanh" if tanh else "none")

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Model(nn.Module):
    def __init__(self, tanh: bool = True) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(nn.Module() for _ in range(2))
        for block in self.model.layers:
            block.mlp = Mlp(tanh)
        self.norm = nn.LayerNorm(256)
        self.register_buffer("steps", torch.zeros(3))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


def int4(path: Path, write=files.gptq, extra: dict[str, Tensor] | None = None) -> Path:
    tensors = {k: v for n, layer in layers().items() for k, v in write(layer, n).items()}
    return files.save(path, {**tensors, **(extra or {})})


REST = {
    "norm.weight": torch.linspace(0, 1, 256),
    "norm.bias": torch.linspace(1, 2, 256),
    "steps": torch.ones(3),
}


def forward_of(expected: dict[str, files.Reference], index: int, x: Tensor) -> Tensor:
    """In float64, from the conventions' weights."""
    gate, up, down = (expected[NAMES[3 * index + part]].dense(torch.float64) for part in range(3))
    gated = nn.functional.gelu(x.double() @ gate.t(), approximate="tanh") * (x.double() @ up.t())
    return gated @ down.t()


@pytest.mark.parametrize("write", [files.gptq, files.awq, files.compressed])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("meta", [False, True])
def test_loads_layers_and_rest(tmp_path: Path, write, dtype: torch.dtype, meta: bool) -> None:
    path = int4(tmp_path, write, REST)
    with torch.device("meta" if meta else "cpu"):
        model = Model().to(dtype)
    summary = load_quantized_(model, path, verbose=False)
    assert sorted(summary.loaded) == sorted(NAMES)
    assert summary.fused == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert sorted(summary.rest) == sorted(REST)
    assert not (summary.skipped or summary.dequantized or summary.unused or summary.missing)
    assert not any(p.is_meta for p in model.parameters())
    assert torch.equal(model.norm.weight, REST["norm.weight"].to(dtype))
    assert torch.equal(model.steps, torch.ones(3, dtype=dtype))
    expected = layers()
    for index in (0, 1):
        mlp = model.model.layers[index].mlp
        assert isinstance(mlp, w4tune.GeGLUMLP)
        gate, up = mlp.gate_up.to_quantized()
        down = mlp.down_proj.to_quantized()
        for part, weight in zip(("gate", "up", "down"), (gate, up, down), strict=True):
            name = f"model.layers.{index}.mlp.{part}_proj"
            assert weight.signed().tolist() == expected[name].q
            assert torch.equal(weight.scales, expected[name].scales)
        x = torch.randn(3, 256, generator=torch.Generator().manual_seed(index)).to(dtype)
        wanted = forward_of(expected, index, x)
        error = (mlp(x).double() - wanted).abs().max() / wanted.abs().max()
        assert error < (0.02 if dtype == torch.bfloat16 else 0.003)


def test_weights_go_as_others_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more floating point weights are alive than layers are still to be replaced."""
    model = Model().half()
    weights = [weakref.ref(model.get_submodule(name).weight) for name in NAMES]
    alive = []
    read = Checkpoint.read

    def counted(checkpoint: Checkpoint, name: str) -> w4tune.QuantizedWeight:
        alive.append(sum(weight() is not None for weight in weights))
        return read(checkpoint, name)

    monkeypatch.setattr(Checkpoint, "read", counted)
    load_quantized_(model, int4(tmp_path), verbose=False)
    assert alive == [6, 5, 4, 3, 2, 1]
    assert not any(weight() is not None for weight in weights)


def test_what_is_not_loaded_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = {"norm.weight": torch.ones(5), "unknown": torch.ones(2), "steps": torch.ones(3)}
    path = int4(tmp_path, extra=extra)
    model = Model().half()
    model.model.layers[1].mlp.up_proj = nn.Identity()
    model.head = nn.Linear(4, 4)
    summary = load_quantized_(model, path, exclude=r"layers\.0.*down")
    assert summary.skipped == {NAMES[4]: "a Identity in the model, not an nn.Linear"}
    assert summary.dequantized == {NAMES[2]: "excluded"}
    assert set(summary.unused) == {"norm.weight", "unknown"}
    assert summary.missing == ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    assert summary.not_fused["model.layers.0.mlp"] == "not all of gate, up and down are loaded"
    down = model.model.layers[0].mlp.down_proj
    assert type(down) is nn.Linear
    assert torch.equal(down.weight, layers()[NAMES[2]].dense(torch.float16))
    printed = capsys.readouterr().out
    for text in ("4 layers from", "excluded", "NOT loaded", "MISSING", "[5], and [256]"):
        assert text in printed


def test_without_rest_nothing_else_is_touched(tmp_path: Path) -> None:
    path = int4(tmp_path, extra=REST)
    model = Model().half()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summary = load_quantized_(model, path, include="gate", rest=False, verbose=False)
    assert len(summary.loaded) == 2 and summary.fused == []
    assert set(summary.skipped.values()) == {"not included"} and not summary.rest
    after = model.state_dict()
    for name, tensor in before.items():
        if "gate" not in name:
            assert torch.equal(after[name], tensor)


@pytest.mark.parametrize("change", ["erf", "order", "bias", "hook", "parameter"])
def test_other_mlps_are_not_fused(tmp_path: Path, change: str) -> None:
    path = int4(tmp_path)
    if change == "bias":
        bias = {f"{NAMES[3 * i]}.bias": torch.ones(128).half() for i in (0, 1)}
        path = int4(tmp_path, extra=bias)
    model = Model(tanh=change != "erf")
    for block in model.model.layers:
        if change == "order":
            block.mlp.__class__ = type(
                "Swapped",
                (Mlp,),
                {"forward": lambda m, x: m.down_proj(m.gate_proj(x) * m.act_fn(m.up_proj(x)))},
            )
        elif change == "bias":
            block.mlp.gate_proj = nn.Linear(256, 128)
        elif change == "hook":
            block.mlp.register_forward_hook(lambda *_: None)
        elif change == "parameter":
            block.mlp.scale = nn.Parameter(torch.ones(1))
    summary = load_quantized_(model.half(), path, verbose=False)
    assert len(summary.loaded) == 6 and summary.fused == []
    assert len(summary.not_fused) == 2
    assert isinstance(model.model.layers[0].mlp.down_proj, w4tune.Linear)
    x = torch.randn(2, 256).half()
    assert model.model.layers[0].mlp(x).shape == (2, 256)


def test_faults_leave_the_model_alone(tmp_path: Path) -> None:
    def fails(path: Path, text: str, model: nn.Module | None = None, **options) -> None:
        model = Model().half() if model is None else model
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(W4tuneError, match=text) as caught:
            load_quantized_(model, path, verbose=False, **options)
        assert "\n" not in str(caught.value)
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)

    fails(tmp_path / "nowhere", "no such file")
    last = NAMES[-1]
    asymmetric = files.gptq(layers()[last], last, stored_zero=3)
    fails(int4(tmp_path / "a", extra=asymmetric), f"{last}.qzeros: asymmetric")
    path = int4(tmp_path / "b", extra=REST)
    fails(path, "is a module of the model .first: x.model", rename=lambda name: "x." + name)
    fails(path, "activations must be FP16 or BF16", Model())
    fails(path, "not included", include="^nothing")
    fails(path, "is no regular expression", include="(")
    model = Model().half()
    model.model.layers[1].mlp.down_proj = nn.Linear(64, 256, bias=False).half()
    fails(path, "256 x 64 in the model and 256 x 128 in", model)
    biased = {f"{last}.bias": torch.ones(256).half()}
    fails(int4(tmp_path / "c", extra=biased), f"{last} has a bias in")
    model = Model().half()
    model.model.layers[1].mlp.down_proj = nn.Linear(128, 256).half()
    fails(path, f"{last} has a bias in the model and none", model)
    fails(int4(tmp_path / "d", files.fork), "rotated basis of a DuQuant pack")
    fails(files.save(tmp_path / "e", dense()), "no int4 layers")


def test_biases(tmp_path: Path) -> None:
    """GPTQ files hold biases of zeros where there was none."""
    bias = torch.linspace(-1, 1, 256).half()
    zero = torch.zeros(256).half()
    path = int4(tmp_path, extra={f"{NAMES[2]}.bias": bias, f"{NAMES[5]}.bias": zero})
    model = Model().half()
    model.model.layers[0].mlp.down_proj = nn.Linear(128, 256).half()
    summary = load_quantized_(model, path, verbose=False)
    assert len(summary.loaded) == 6 and not summary.unused
    assert torch.equal(model.model.layers[0].mlp.down_proj.bias, bias)
    assert model.model.layers[1].mlp.down_proj.bias is None


def test_rotated_layers_on_request(tmp_path: Path) -> None:
    model = Model().half()
    path = int4(tmp_path, files.fork)
    summary = load_quantized_(model, path, rotated=True, verbose=False)
    assert len(summary.loaded) == 6 and summary.formats == {"fork": 6}


def test_dtype_and_rename(tmp_path: Path) -> None:
    path = int4(tmp_path, extra=REST)
    model = nn.Module()
    model.policy = Model()  # FP32
    summary = load_quantized_(
        model, path, dtype=torch.bfloat16, rename=lambda name: "policy." + name, verbose=False
    )
    assert len(summary.fused) == 2
    assert model.policy.model.layers[0].mlp.gate_up.dtype == torch.bfloat16
    assert model.policy.norm.weight.dtype == torch.float32
    assert torch.equal(model.policy.norm.weight, REST["norm.weight"])


def test_tied_parameters_on_meta(tmp_path: Path) -> None:
    class Tied(Model):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(8, 256)
            self.head = nn.Linear(256, 8, bias=False)
            self.head.weight = self.embed.weight

    table = torch.randn(8, 256).half()
    with torch.device("meta"):
        model = Tied().half()
    path = int4(tmp_path, extra={**REST, "embed.weight": table})
    summary = load_quantized_(model, path, verbose=False)
    assert summary.missing == []
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight, table)


def test_layers_the_kernels_refuse_are_dequantised(tmp_path: Path) -> None:
    layer, odd = files.reference(32, 128, 128), files.reference(24, 64, 16)
    model = nn.Sequential(nn.Linear(128, 32, bias=False), nn.Linear(64, 24, bias=False)).half()
    path = files.save(tmp_path, {**files.gptq(layer, "0"), **files.gptq(odd, "1")})
    summary = load_quantized_(model, path, verbose=False)
    assert summary.loaded == ["0"] and list(summary.dequantized) == ["1"]
    assert torch.equal(model[1].weight, odd.dense(torch.float16))


def test_what_convert_writes_loads(tmp_path: Path) -> None:
    model = tiny_gemma(torch.bfloat16)
    model.save_pretrained(tmp_path / "in")
    arguments = [tmp_path / "in", tmp_path / "out", "--device", "cpu", "--method", "maxabs"]
    assert run(*arguments, "--group-size", "64") == 0
    loaded = tiny_gemma(torch.bfloat16)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.fill_(7)
    summary = load_quantized_(loaded, tmp_path / "out", verbose=False)
    assert len(summary.loaded) == 6 and len(summary.fused) == 2
    assert summary.missing == [] and summary.unused == {} and summary.skipped == {}
    w4tune.quantize_(model, group_size=64, method="maxabs", verbose=False)
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)
