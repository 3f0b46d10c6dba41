"""DuQuant packs: the file, the rotated weight, the layer.

References are loops over NumPy float64, written from the definition W_t = R_out (W P) R_in,
x' = (x P) R_in, y = y' R_out; they use nothing of w4tune.duquant.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from w4tune import duquant
from w4tune.duquant import DuQuantLinear, load_pack, make_pack, pack_path, rotated_weight, save_pack
from w4tune.errors import W4tuneError

Blocks = dict[int, np.ndarray]
UNIT_ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


# ---- an independent writer and an independent reference ----


def orthogonal(size: int, rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return q.astype(np.float32)


def random_blocks(features: int, size: int, rng: np.random.Generator) -> Blocks:
    return {
        b: orthogonal(min(size, features - b * size), rng)
        for b in range((features + size - 1) // size)
    }


def entries(
    n: int, k: int, block: int, block_out: int, *, seed: int = 0, permute: bool = True
) -> dict[str, Any]:
    """What the fork's save_pack hands to np.savez, for random rotations."""
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {
        "weight_scale": rng.uniform(0.1, 1.0, n).astype(np.float32),
        "meta": json.dumps(
            {
                "in_features": k,
                "out_features": n,
                "block_size": block,
                "block_out_size": block_out,
                "enable_permute": permute,
                "lambda_smooth": 0.15,
            }
        ),
    }
    if permute:
        data["perm"] = rng.permutation(k).astype(np.int64)
    for side, features, size in (("in", k, block), ("out", n, block_out)):
        blocks = random_blocks(features, size, rng)
        data |= {f"R{side}_{b}": r for b, r in blocks.items()}
        data[f"R_{side}_blocks"] = np.array(sorted(blocks), dtype=np.int64)
    return data


def write(path: Path, data: dict[str, Any]) -> Path:
    np.savez(path, **data)
    return path


def transforms(data: dict[str, Any]) -> tuple[np.ndarray | None, Blocks, Blocks, int, int]:
    meta = json.loads(data["meta"])
    r_in = {int(b): data[f"Rin_{b}"] for b in data.get("R_in_blocks", [])}
    r_out = {int(b): data[f"Rout_{b}"] for b in data.get("R_out_blocks", [])}
    return data.get("perm"), r_in, r_out, meta["block_size"], meta["block_out_size"]


def reference_rotate(
    x: np.ndarray, perm: np.ndarray | None, blocks: Blocks, size: int
) -> np.ndarray:
    """[m, k]: y[t, b size + j] = sum_i x[t, perm[b size + i]] R[b][i, j]."""
    m, k = x.shape
    moved = np.empty((m, k))
    for i in range(k):
        moved[:, i] = x[:, i if perm is None else perm[i]]
    y = moved.copy()
    for b, r in blocks.items():
        width = r.shape[0]
        for j in range(width):
            y[:, b * size + j] = 0.0
            for i in range(width):
                y[:, b * size + j] += moved[:, b * size + i] * float(r[i, j])
    return y


def reference_weight(
    w: np.ndarray, data: dict[str, Any], row_rotation: str = "restore"
) -> np.ndarray:
    perm, r_in, r_out, size, size_out = transforms(data)
    rotated = reference_rotate(w.astype(np.float64), perm, r_in, size)
    result = rotated.copy()
    if row_rotation == "restore":
        for b, r in r_out.items():
            for i in range(r.shape[0]):
                result[b * size_out + i] = 0.0
                for j in range(r.shape[0]):
                    result[b * size_out + i] += float(r[i, j]) * rotated[b * size_out + j]
    return result


def as_half(blocks: Blocks) -> Blocks:
    return {b: r.astype(np.float16).astype(np.float64) for b, r in blocks.items()}


def relative(error: np.ndarray, size: np.ndarray) -> float:
    return float(np.linalg.norm(error) / np.linalg.norm(size))


def weight(n: int, k: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp(0.5 * torch.randn(k, generator=generator))
    return torch.randn(n, k, generator=generator) * spread / k**0.5


def linear(
    n: int, k: int, *, bias: bool = False, dtype: torch.dtype = torch.float16, seed: int = 1
) -> torch.nn.Linear:
    layer = torch.nn.Linear(k, n, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(weight(n, k, seed))
        if bias:
            layer.bias.copy_(torch.linspace(-2.0, 2.0, n))
    return layer.to(dtype)


def tokens(m: int, k: int, dtype: torch.dtype, seed: int = 2) -> torch.Tensor:
    return torch.randn(m, k, generator=torch.Generator().manual_seed(seed)).to(dtype)


def without(data: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in keys}


def keep_blocks(data: dict[str, Any], side: str, ids: list[int]) -> dict[str, Any]:
    dropped = [f"R{side}_{b}" for b in data[f"R_{side}_blocks"] if b not in ids]
    return without(data, *dropped) | {f"R_{side}_blocks": np.array(ids, dtype=np.int64)}


N, K, B, B_OUT = 96, 192, 64, 32
FULL = entries(N, K, B, B_OUT)
NO_R_IN = without(FULL, "R_in_blocks")
NO_R_OUT = without(FULL, "R_out_blocks")
PACKS = {
    "full": FULL,
    "no perm": without(FULL, "perm"),
    "no R_in": NO_R_IN,
    "no R_out": NO_R_OUT,
    "perm only": without(NO_R_IN, "R_out_blocks"),
    "R_out only": without(NO_R_IN, "perm"),
    "nothing": without(NO_R_IN, "perm", "R_out_blocks"),
    "blocks missing": keep_blocks(keep_blocks(FULL, "in", [0, 2]), "out", [1]),
    "no block listed": keep_blocks(keep_blocks(FULL, "in", []), "out", []),
    "last blocks smaller": entries(N, K, 80, 64),
    "last block missing": keep_blocks(entries(N, K, 80, 64), "in", [0, 1]),
    "blocks of 16": entries(N, K, 16, 16),
    "one block": entries(N, K, 256, 128),
}
every_pack = pytest.mark.parametrize("data", PACKS.values(), ids=PACKS.keys())


# ---- files ----


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (
            "paligemma_with_expert.paligemma.model.language_model.layers.0.mlp.gate_proj",
            "paligemma_with_expert.paligemma.model.language_model.layers.0.mlp.gate_proj.npz",
        ),
        ("a/b c:d-e_f", "a_b_c_d-e_f.npz"),
        ("../up", "._up.npz"),
        ("a...b....c", "a..b..c.npz"),
        ("größe", "gr__e.npz"),
    ],
)
def test_path_of_a_layer(name: str, file: str) -> None:
    assert pack_path("packs", name) == Path("packs") / file


@every_pack
def test_load_returns_what_was_written(data: dict[str, Any], tmp_path: Path) -> None:
    pack = load_pack(write(tmp_path / "layer.npz", data))
    meta = json.loads(data["meta"])
    perm, r_in, r_out, size, size_out = transforms(data)
    assert pack.meta == meta
    assert (pack.in_features, pack.out_features) == (K, N)
    assert (pack.block_size, pack.block_out_size) == (size, size_out)
    np.testing.assert_array_equal(pack.weight_scale, data["weight_scale"])
    assert (pack.permutation is None) == (perm is None)
    if perm is not None:
        np.testing.assert_array_equal(pack.permutation, perm)
    for blocks, expected in ((pack.input_blocks, r_in), (pack.output_blocks, r_out)):
        assert set(blocks or {}) == set(expected)
        for b, r in expected.items():
            np.testing.assert_array_equal(blocks[b], r)


@every_pack
def test_save_writes_the_same_entries(data: dict[str, Any], tmp_path: Path) -> None:
    save_pack(load_pack(write(tmp_path / "theirs.npz", data)), tmp_path / "new" / "ours.npz")
    theirs = np.load(tmp_path / "theirs.npz", allow_pickle=False)
    ours = np.load(tmp_path / "new" / "ours.npz", allow_pickle=False)
    listed = {f"Rin_{b}" for b in theirs.get("R_in_blocks", [])} | {
        f"Rout_{b}" for b in theirs.get("R_out_blocks", [])
    }
    used = {key for key in theirs.files if key in listed or key in ("weight_scale", "meta", "perm")}
    used |= {
        key for key in ("R_in_blocks", "R_out_blocks") if key in theirs.files and theirs[key].size
    }
    assert set(ours.files) == used
    for key in used:
        assert (ours[key].dtype, ours[key].shape) == (theirs[key].dtype, theirs[key].shape)
        np.testing.assert_array_equal(ours[key], theirs[key])
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["ours.npz"]


def changed(**items: Any) -> dict[str, Any]:
    return FULL | items


def meta_with(**items: Any) -> dict[str, Any]:
    return FULL | {"meta": json.dumps(json.loads(FULL["meta"]) | items)}


def meta_without(key: str) -> dict[str, Any]:
    return FULL | {"meta": json.dumps(without(json.loads(FULL["meta"]), key))}


def with_element(key: str, index: Any, value: Any) -> dict[str, Any]:
    array = FULL[key].copy()
    array[index] = value
    return FULL | {key: array}


BAD = {
    "no weight_scale": (without(FULL, "weight_scale"), "key 'weight_scale' is missing"),
    "no meta": (without(FULL, "meta"), "key 'meta' is missing"),
    "listed block missing": (without(FULL, "Rin_1"), "key 'Rin_1' is missing"),
    "listed output block missing": (without(FULL, "Rout_2"), "key 'Rout_2' is missing"),
    "meta no string": (changed(meta=np.zeros(3)), "meta must be one string"),
    "meta no JSON": (changed(meta="{"), "meta is no JSON"),
    "meta no object": (changed(meta="[1]"), "meta must be a JSON object"),
    "meta without block_size": (meta_without("block_size"), "meta lacks 'block_size'"),
    "meta without in_features": (meta_without("in_features"), "meta lacks 'in_features'"),
    "block_size 0": (meta_with(block_size=0), "'block_size' must be a positive integer, it is 0"),
    "block_out_size true": (
        meta_with(block_out_size=True),
        "'block_out_size' must be a positive integer",
    ),
    "block_size 64.0": (
        meta_with(block_size=64.0),
        "'block_size' must be a positive integer, it is 64.0",
    ),
    "scale of another length": (
        changed(weight_scale=np.ones(N + 1, np.float32)),
        r"weight_scale must be float \[96\]",
    ),
    "scale of integers": (changed(weight_scale=np.ones(N, np.int64)), "weight_scale must be float"),
    "scale NaN": (with_element("weight_scale", 3, np.nan), "weight_scale has NaN"),
    "scale negative": (
        with_element("weight_scale", 3, -1.0),
        "weight_scale has NaN, Inf or negative",
    ),
    "perm too short": (
        changed(perm=np.arange(K - 1)),
        r"perm must be integers \[192\], it is int64 \[191\]",
    ),
    "perm of floats": (changed(perm=np.arange(K, dtype=np.float32)), "perm must be integers"),
    "perm beyond": (with_element("perm", 7, K), "perm has 192, outside 0..191"),
    "perm negative": (with_element("perm", 7, -1), "perm has -1, outside"),
    "perm twice": (
        changed(perm=np.r_[5, np.arange(1, K)]),
        "perm is no permutation: 5 is in it 2 times",
    ),
    "ids of floats": (
        changed(R_in_blocks=np.arange(3.0)),
        "R_in_blocks must be a list of integers",
    ),
    "ids 2-d": (changed(R_in_blocks=np.arange(3)[None]), "R_in_blocks must be a list of integers"),
    "id beyond": (
        changed(R_in_blocks=np.arange(4)),
        r"R_in_blocks has 3, outside 0..2 \(192 features in blocks of 64\)",
    ),
    "id negative": (changed(R_out_blocks=np.array([-1])), "R_out_blocks has -1, outside 0..2"),
    "id twice": (changed(R_in_blocks=np.array([0, 1, 1])), "R_in_blocks has 1 twice"),
    "block of another size": (
        changed(Rin_0=np.eye(32, dtype=np.float32)),
        r"Rin_0 must be float \[64, 64\]",
    ),
    "block not square": (
        changed(Rin_0=np.eye(64, 32, dtype=np.float32)),
        r"Rin_0 must be float \[64, 64\]",
    ),
    "block of integers": (changed(Rin_0=np.eye(64, dtype=np.int64)), "Rin_0 must be float"),
    "block not orthogonal": (
        changed(Rout_1=FULL["Rout_1"] * 1.001),
        r"Rout_1 is not orthogonal: .* 0\.002",
    ),
    "block singular": (changed(Rin_2=np.zeros((64, 64), np.float32)), "Rin_2 is not orthogonal"),
    "block NaN": (with_element("Rin_0", (1, 2), np.nan), "Rin_0 is not orthogonal"),
    "blocks of another block_size": (meta_with(block_size=16), r"Rin_0 must be float \[16, 16\]"),
    "objects": (
        changed(perm=np.array([None] * K, dtype=object)),
        "no readable DuQuant pack .*pickle",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_bad_pack_gives_one_line(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "layer.npz", data)
    with pytest.raises(W4tuneError, match=message) as caught:
        load_pack(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_float32_noise_passes_as_orthogonal(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-1e-5, 1e-5, (64, 64)).astype(np.float32)
    load_pack(write(tmp_path / "layer.npz", FULL | {"Rin_0": FULL["Rin_0"] + noise}))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(W4tuneError, match=r"^no DuQuant pack at .*layer\.npz\. .*make_pack\.$"):
        load_pack(tmp_path / "layer.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip file at all", "npy", "cut short", "folder"])
def test_what_is_no_pack(content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "layer.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    elif content == "cut short":
        write(path, FULL)
        path.write_bytes(path.read_bytes()[:-1000])
    elif content == "folder":
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(W4tuneError, match="is no readable DuQuant pack") as caught:
        load_pack(path)
    assert "\n" not in str(caught.value)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_never_unpickles(tmp_path: Path) -> None:
    path = write(
        tmp_path / "layer.npz",
        FULL | {"extra": np.array([Trap(tmp_path / "sprung")], dtype=object)},
    )
    with pytest.raises(W4tuneError):
        load_pack(path)
    assert not (tmp_path / "sprung").exists()


# ---- the rotated weight ----


@pytest.mark.parametrize("row_rotation", ["restore", "0"])
@every_pack
def test_rotated_weight(data: dict[str, Any], row_rotation: str, tmp_path: Path) -> None:
    w = weight(N, K)
    rotated = rotated_weight(w, load_pack(write(tmp_path / "layer.npz", data)), row_rotation)
    expected = reference_weight(w.numpy(), data, row_rotation)
    assert (rotated.dtype, rotated.shape) == (torch.float32, w.shape)
    assert np.abs(rotated.numpy() - expected).max() <= 2.0**-23 * np.abs(expected).max()


@every_pack
def test_identity_before_quantising(data: dict[str, Any], tmp_path: Path) -> None:
    """restore(x' W_t^T) = x W^T, with the package's W_t between the reference's transforms."""
    w = weight(N, K)
    x = tokens(5, K, torch.float32).double().numpy()
    perm, r_in, r_out, size, size_out = transforms(data)
    truth = x @ w.double().numpy().T
    rotated = rotated_weight(w, load_pack(write(tmp_path / "layer.npz", data))).double().numpy()
    for w_t in (reference_weight(w.numpy(), data), rotated):
        y = reference_rotate(reference_rotate(x, perm, r_in, size) @ w_t.T, None, r_out, size_out)
        assert relative(y - truth, truth) < 1e-6


def test_rotation_in_chunks_of_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pack = load_pack(write(tmp_path / "layer.npz", PACKS["last blocks smaller"]))
    whole = rotated_weight(weight(N, K), pack)
    monkeypatch.setattr(duquant, "_CHUNK", 1)  # one block of rows at a time
    assert torch.equal(rotated_weight(weight(N, K), pack), whole)


def test_weight_of_another_size(tmp_path: Path) -> None:
    pack = load_pack(write(tmp_path / "layer.npz", FULL))
    message = r"layer\.npz is for a weight \[96, 192\], the layer's is \[96, 128\]"
    with pytest.raises(W4tuneError, match=message):
        rotated_weight(weight(96, 128), pack)
    with pytest.raises(W4tuneError, match=message):
        DuQuantLinear.from_linear(linear(96, 128), pack, 64)


# ---- making packs ----


def loop_zigzag(energy: np.ndarray) -> list[int]:
    order = sorted(range(len(energy)), key=lambda j: -energy[j])
    taken = []
    while order:
        taken.append(order.pop(0))
        if order:
            taken.append(order.pop())
    return taken


@pytest.mark.parametrize(
    ("n", "k", "block", "block_out"),
    [(96, 192, 64, 32), (48, 81, 16, 80), (8, 65, 64, 3), (3, 1, 2, 2)],
)
def test_made_pack_is_what_the_fork_defines(n: int, k: int, block: int, block_out: int) -> None:
    w = weight(n, k)
    pack = make_pack(w, block, block_out_size=block_out)
    wide = w.double().numpy()
    assert pack.permutation.tolist() == loop_zigzag((wide**2).mean(axis=0))
    permuted = wide[:, pack.permutation]
    for blocks, matrices in (
        (pack.input_blocks, [permuted[:, s : s + block].T for s in range(0, k, block)]),
        (pack.output_blocks, [wide[s : s + block_out] for s in range(0, n, block_out)]),
    ):
        assert sorted(blocks) == list(range(len(matrices)))
        for b, matrix in enumerate(matrices):
            # Left singular vectors: they make the Gram matrix diagonal, falling.
            gram = blocks[b].T.astype(np.float64) @ matrix @ matrix.T @ blocks[b]
            diagonal = np.diag(gram)
            tolerance = 1e-5 * diagonal.max()
            assert np.abs(gram - np.diag(diagonal)).max() < tolerance
            assert (np.diff(diagonal) < tolerance).all()
            assert np.abs(blocks[b].T @ blocks[b] - np.eye(len(matrix))).max() < 1e-5
    rotated = reference_rotate(wide, pack.permutation, dict(pack.input_blocks), block)
    np.testing.assert_allclose(pack.weight_scale, np.abs(rotated).max(axis=1) / 7, rtol=1e-6)


def test_made_file(tmp_path: Path) -> None:
    w = weight(48, 80)
    path = tmp_path / "layer.npz"
    pack = make_pack(w, 32, block_out_size=16, smoothing=0.25, path=path)
    with np.load(path, allow_pickle=False) as file:
        kinds = {
            key: (file[key].dtype.str[1:], file[key].shape) for key in file.files if key != "meta"
        }
        assert file["meta"].shape == ()
        assert file["meta"].dtype.kind == "U"
        assert json.loads(file["meta"].item()) == {
            "in_features": 80,
            "out_features": 48,
            "block_size": 32,
            "block_out_size": 16,
            "enable_permute": True,
            "lambda_smooth": 0.25,
        }
        assert file["R_in_blocks"].tolist() == [0, 1, 2]
        assert file["R_out_blocks"].tolist() == [0, 1, 2]
    assert kinds == {
        "weight_scale": ("f4", (48,)),
        "perm": ("i8", (80,)),
        "R_in_blocks": ("i8", (3,)),
        "Rin_0": ("f4", (32, 32)),
        "Rin_1": ("f4", (32, 32)),
        "Rin_2": ("f4", (16, 16)),
        "R_out_blocks": ("i8", (3,)),
        "Rout_0": ("f4", (16, 16)),
        "Rout_1": ("f4", (16, 16)),
        "Rout_2": ("f4", (16, 16)),
    }
    loaded = load_pack(path)
    assert torch.equal(rotated_weight(w, loaded), rotated_weight(w, pack))


def test_made_without_permutation() -> None:
    pack = make_pack(weight(16, 64), 16, permute=False)
    assert pack.permutation is None
    assert pack.meta["enable_permute"] is False


def test_made_from_nothing_but_zeros_and_from_bfloat16() -> None:
    pack = make_pack(torch.zeros(16, 64), 16)
    assert sorted(pack.permutation.tolist()) == list(range(64))
    np.testing.assert_allclose(pack.weight_scale, 1e-8 / 7, rtol=1e-6)
    w = weight(16, 64).bfloat16()
    np.testing.assert_array_equal(
        make_pack(w, 16).weight_scale, make_pack(w.float(), 16).weight_scale
    )


@pytest.mark.parametrize(
    ("w", "arguments", "message"),
    [
        (torch.ones(4), {}, r"weight must be \[n, k\]"),
        (torch.ones(0, 4), {}, "something in it"),
        (torch.full((4, 4), float("nan")), {}, "NaN or Inf"),
        (torch.ones(4, 4), {"block_size": 0}, "block sizes must be positive, not 0 and 0"),
        (torch.ones(4, 4), {"block_out_size": -1}, "block sizes must be positive"),
        (torch.ones(4, 4), {"smoothing": 1.5}, "smoothing must lie in 0..1"),
    ],
)
def test_what_make_pack_refuses(w: torch.Tensor, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(W4tuneError, match=message):
        make_pack(w, **arguments)


# ---- the layer ----


def layer_of(
    data: dict[str, Any], tmp_path: Path, group_size: int | str = 64, **arguments: Any
) -> DuQuantLinear:
    bias = arguments.pop("bias", False)
    dtype = arguments.pop("dtype", torch.float16)
    path = write(tmp_path / "layer.npz", data)
    return DuQuantLinear.from_linear(
        linear(N, K, bias=bias, dtype=dtype), path, group_size, **arguments
    )


def reference_forward(layer: DuQuantLinear, x: torch.Tensor, data: dict[str, Any]) -> np.ndarray:
    """float64, from the layer's quantised weight and the pack's rotations in FP16."""
    perm, r_in, r_out, size, size_out = transforms(data)
    quantised = layer.linear.weight.dequantize().double().cpu().numpy()
    y = reference_rotate(x.double().cpu().numpy(), perm, as_half(r_in), size) @ quantised.T
    return reference_rotate(y, None, as_half(r_out), size_out)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_pack
def test_forward(data: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    layer = layer_of(data, tmp_path, dtype=dtype)
    x = tokens(7, K, dtype)
    y = layer(x)
    assert (y.dtype, y.shape) == (dtype, (7, N))
    expected = reference_forward(layer, x, data)
    # x', the dequantised weight, y' and y are rounded once each.
    assert relative(y.double().numpy() - expected, expected) < 2.5 * UNIT_ROUNDOFF[dtype]
    effective = layer.weight.dequantize()
    assert (effective.dtype, effective.shape) == (dtype, (N, K))
    y = x.double().numpy() @ effective.double().numpy().T
    assert relative(y - expected, expected) < UNIT_ROUNDOFF[dtype]


@pytest.mark.parametrize("group_size", [32, 64, "channel"])
@every_pack
def test_error_of_quantising_is_at_most_half_a_step(
    data: dict[str, Any], group_size: int | str, tmp_path: Path
) -> None:
    layer = layer_of(data, tmp_path, group_size, method="maxabs")
    x = tokens(7, K, torch.float16)
    perm, r_in, r_out, size, size_out = transforms(data)
    w = linear(N, K).weight.detach().double().numpy()
    width = K if group_size == "channel" else int(group_size)
    steps = np.abs(reference_weight(w, data)).reshape(N, -1, width).max(axis=2) / 7 * (1 + 2.0**-10)
    half = np.repeat(steps, width, axis=1) / 2
    rotated_x = reference_rotate(x.double().numpy(), perm, r_in, size)
    bound = reference_rotate(
        np.abs(rotated_x) @ half.T, None, {b: np.abs(r) for b, r in r_out.items()}, size_out
    )
    truth = x.double().numpy() @ w.T
    error = layer(x).double().numpy() - truth
    assert (np.abs(error) <= bound + 2.0**-9 * np.abs(truth).max()).all()
    assert relative(error, truth) < 0.3


@every_pack
def test_row_rotation_0_leaves_r_out_out(data: dict[str, Any], tmp_path: Path) -> None:
    layer = layer_of(data, tmp_path, row_rotation="0")
    assert layer.output_blocks_bits is None
    x = tokens(3, K, torch.float16)
    expected = reference_forward(layer, x, without(data, "R_out_blocks"))
    assert relative(layer(x).double().numpy() - expected, expected) < 2.5 * 2.0**-11
    w_t = reference_weight(linear(N, K).weight.detach().numpy(), data, "0")
    assert relative(layer.linear.weight.dequantize().double().numpy() - w_t, w_t) < 0.2


@pytest.mark.parametrize("row_rotation", ["propagate", "", "1", 0])
def test_other_row_rotations_are_refused(row_rotation: Any, tmp_path: Path) -> None:
    with pytest.raises(W4tuneError, match=r"^row_rotation is .*Use 'restore' or '0'"):
        layer_of(FULL, tmp_path, row_rotation=row_rotation)


def test_bias_is_added_in_the_original_basis(tmp_path: Path) -> None:
    plain, biased = layer_of(FULL, tmp_path), layer_of(FULL, tmp_path, bias=True)
    x = tokens(3, K, torch.float16)
    assert torch.equal(biased(x), plain(x) + linear(N, K, bias=True).bias)
    zero = torch.zeros(1, K, dtype=torch.float16)
    assert torch.equal(biased(zero)[0], linear(N, K, bias=True).bias)


def test_leading_dimensions_and_strides(tmp_path: Path) -> None:
    layer = layer_of(FULL, tmp_path, bias=True)
    x = tokens(12, K, torch.float16)
    y = layer(x)
    assert torch.equal(layer(x.reshape(2, 3, 2, K)), y.reshape(2, 3, 2, N))
    assert torch.equal(layer(x[0]), y[0])
    assert layer(x[:0]).shape == (0, N)
    assert torch.equal(layer(torch.empty(K, 12, dtype=torch.float16).copy_(x.T).T), y)
    assert torch.equal(layer(torch.stack([x, x], dim=-1)[..., 0]), y)


def test_attributes(tmp_path: Path) -> None:
    layer = layer_of(FULL, tmp_path, bias=True)
    assert (layer.in_features, layer.out_features, layer.group_size) == (K, N, 64)
    assert layer.weight.dtype == torch.float16
    assert tuple(layer.weight.shape) == (N, K)
    assert "R_in=3 x 64, R_out=3 x 32" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_input_of_another_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    message = rf"DuQuantLinear 192 -> 96 takes torch\.float16, and x is {dtype}\."
    with pytest.raises(W4tuneError, match=message):
        layer_of(FULL, tmp_path)(tokens(3, K, dtype))


def test_float32_layers_need_a_dtype(tmp_path: Path) -> None:
    pack = load_pack(write(tmp_path / "layer.npz", FULL))
    wide = linear(N, K, bias=True, dtype=torch.float32)
    with pytest.raises(W4tuneError, match=r"weight's dtype is torch\.float32"):
        DuQuantLinear.from_linear(wide, pack, 64)
    layer = DuQuantLinear.from_linear(wide, pack, 64, dtype=torch.bfloat16)
    assert layer.dtype == layer.bias.dtype == torch.bfloat16
    assert not layer.bias.requires_grad


def test_sizes_that_no_kernel_serves(tmp_path: Path) -> None:
    with pytest.raises(
        W4tuneError, match=r"DuQuantLinear: 96 x 192 .*no multiple of group_size 128"
    ):
        layer_of(FULL, tmp_path, 128)


def test_default_group_size(tmp_path: Path) -> None:
    data = entries(N, 256, 64, 32)
    layer = DuQuantLinear.from_linear(linear(N, 256), write(tmp_path / "layer.npz", data))
    assert layer.group_size == duquant.DEFAULT_GROUP_SIZE


def test_blocks_too_large_for_the_kernel(tmp_path: Path) -> None:
    data = without(entries(16, 320, 320, 16), "R_out_blocks")
    with pytest.raises(W4tuneError, match="rotation blocks of 320 are more than the kernel takes"):
        DuQuantLinear.from_linear(linear(16, 320), write(tmp_path / "layer.npz", data), 64)


def test_pack_as_object_or_as_file(tmp_path: Path) -> None:
    by_file = layer_of(FULL, tmp_path)
    by_object = DuQuantLinear.from_linear(linear(N, K), load_pack(tmp_path / "layer.npz"), 64)
    x = tokens(3, K, torch.float16)
    assert torch.equal(by_file(x), by_object(x))


def test_gate_and_up_with_packs_of_their_own(tmp_path: Path) -> None:
    """Each pack is another basis of the same x: one's transform does not serve the other."""
    gate, up = entries(N, K, B, B_OUT, seed=3), entries(N, K, B, B_OUT, seed=4)
    layers = [
        DuQuantLinear.from_linear(linear(N, K), write(tmp_path / f"{i}.npz", d), 64)
        for i, d in enumerate((gate, up))
    ]
    x = tokens(3, K, torch.float16)
    truth = x.double().numpy() @ linear(N, K).weight.detach().double().numpy().T
    for layer in layers:
        assert relative(layer(x).double().numpy() - truth, truth) < 0.15
    mixed = DuQuantLinear(layers[0].linear, permutation=torch.from_numpy(up["perm"]))
    assert relative(mixed(x).double().numpy() - truth, truth) > 0.5


def test_bfloat16_and_back_changes_no_bit(tmp_path: Path) -> None:
    layer = layer_of(FULL, tmp_path, bias=True)
    before = {name: t.clone() for name, t in layer.state_dict().items() if name != "bias"}
    assert not any(tensor.is_floating_point() for tensor in before.values())
    x = tokens(5, K, torch.float16)
    y = layer(x)
    layer.to(torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    for name, tensor in before.items():
        assert torch.equal(layer.get_buffer(name), tensor), name
    coarse = layer(x.bfloat16())
    assert coarse.dtype == torch.bfloat16
    expected = reference_forward(layer, x.bfloat16(), FULL) + layer.bias.double().detach().numpy()
    assert relative(coarse.double().detach().numpy() - expected, expected) < 3 * 2.0**-8
    layer.type(torch.float16)
    for name, tensor in before.items():
        assert torch.equal(layer.get_buffer(name), tensor), name
    layer.bias.data = linear(N, K, bias=True).bias.data  # the one thing that BF16 rounded
    assert torch.equal(layer(x), y)


def test_state_dict_round_trip(tmp_path: Path) -> None:
    source = layer_of(FULL, tmp_path, bias=True)
    target = layer_of(entries(N, K, B, B_OUT, seed=9), tmp_path, bias=True)
    x = tokens(5, K, torch.float16)
    assert not torch.equal(source(x), target(x))
    target.load_state_dict(source.state_dict())
    assert torch.equal(source(x), target(x))
    other = layer_of(entries(N, K, B, B_OUT, seed=9), tmp_path, bias=True)
    other.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(source(x), other(x))


def test_state_dict_through_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    source = layer_of(FULL, tmp_path)
    safetensors.save_file(source.state_dict(), tmp_path / "layer.safetensors")
    target = layer_of(entries(N, K, B, B_OUT, seed=9), tmp_path)
    target.load_state_dict(safetensors.load_file(tmp_path / "layer.safetensors"))
    x = tokens(5, K, torch.float16)
    assert torch.equal(source(x), target(x))


@pytest.mark.parametrize("other", ["no perm", "no R_out", "blocks of 16"])
def test_state_dict_of_another_structure_is_refused(other: str, tmp_path: Path) -> None:
    target = layer_of(PACKS[other], tmp_path)
    with pytest.raises(RuntimeError, match=r"Unexpected key|size mismatch"):
        target.load_state_dict(layer_of(FULL, tmp_path).state_dict())


def test_deepcopy_and_pickle(tmp_path: Path) -> None:
    layer = layer_of(FULL, tmp_path, bias=True)
    x = tokens(5, K, torch.float16)
    y = layer(x)
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(clone(x), y)
        clone.permutation.zero_()
        assert torch.equal(layer(x), y)


def test_compiles_whole(tmp_path: Path) -> None:
    layer = layer_of(FULL, tmp_path, bias=True)
    x = tokens(5, K, torch.float16)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), layer(x))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_pack
def test_on_the_gpu(data: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    layer = layer_of(data, tmp_path, dtype=dtype, bias=True).cuda()
    for m in (1, 10, 50):
        x = tokens(m, K, dtype).cuda()
        expected = reference_forward(layer, x, data) + layer.bias.double().detach().cpu().numpy()
        y = layer(x).double().detach().cpu().numpy()
        assert relative(y - expected, expected) < 3 * UNIT_ROUNDOFF[dtype]


@pytest.mark.gpu
def test_quantised_on_the_gpu_is_what_the_cpu_gives(tmp_path: Path) -> None:
    path = write(tmp_path / "layer.npz", FULL)
    there = DuQuantLinear.from_linear(linear(N, K).cuda(), path, 64)
    here = DuQuantLinear.from_linear(linear(N, K), path, 64)
    x = tokens(5, K, torch.float16)
    error = (there(x.cuda()).cpu().double() - here(x).double()).detach().numpy()
    assert relative(error, here(x).double().detach().numpy()) < 0.01
