"""What a launch is told, without a GPU: the library's launch is recorded, tensors lie on the CPU."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest
import torch

import w4tune
from w4tune import _native, ops, runtime

N, K = 32, 128
STREAM = 77


class Recorder:
    """Stands for w4tune._native: launches are written down and answered by `match`."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.match = 0

    def launch(self, *arguments: object) -> int:
        self.calls.append(arguments)
        return self.match

    def __getattr__(self, name: str) -> object:
        return getattr(_native, name)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    device = types.SimpleNamespace(
        dispatcher="dispatcher",
        dependent=1,
        index=-1,
        reported=[],
    )
    device.report_default = lambda *layer: device.reported.append(layer)
    recorder.device = device
    monkeypatch.setitem(runtime._devices, -1, device)  # where tensors on the CPU say they are
    monkeypatch.setattr(ops, "_native", recorder)
    monkeypatch.setattr(ops, "_current_stream", lambda index: STREAM)
    monkeypatch.setattr(ops, "is_plain", lambda x: True)
    yield recorder


@pytest.fixture
def layer() -> w4tune.Linear:
    torch.manual_seed(0)
    return w4tune.Linear.from_linear(torch.nn.Linear(K, N, bias=False).half())


@torch.no_grad()
@pytest.mark.parametrize("shape", [(K,), (7, K), (1, 3, K), (2, 3, 2, K)])
def test_dense_rows_go_as_they_are(
    recorder: Recorder, layer: w4tune.Linear, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape).half()
    for _ in range(2):  # the second time from what is remembered of the shape
        recorder.calls.clear()
        y = layer(x)
        assert y.shape == (*shape[:-1], N)
        assert y.dtype == torch.float16
        problem = _native.problem(0, N, K, 128, 0)
        m = x.numel() // K
        weight, scales = layer.weight_packed.data_ptr(), layer.scales.data_ptr()
        expected = ("dispatcher", problem, x.data_ptr(), weight, scales, y.data_ptr(), m, 0, 1)
        assert recorder.calls == [(*expected, STREAM)]


@torch.no_grad()
def test_rows_apart_are_not_copied_where_the_kernels_can_read_them(
    recorder: Recorder, layer: w4tune.Linear
) -> None:
    x = torch.randn(5, K + 8).half()[:, :K]
    layer(x)
    assert recorder.calls[0][2] == x.data_ptr()
    assert recorder.calls[0][7] == K + 8


@torch.no_grad()
def test_what_the_kernels_cannot_read_is_copied(recorder: Recorder, layer: w4tune.Linear) -> None:
    base = torch.randn(4, K + 8).half()
    views = {
        "rows at odd addresses": base[:, 1 : K + 1],
        "rows a multiple of 8 does not divide": torch.randn(4, K + 4).half()[:, :K],
        "every second column": torch.randn(4, 2 * K).half()[:, ::2],
        "a row repeated": base[:1, :K].expand(4, K),
        "three dimensions": torch.randn(2, 4, K + 8).half()[..., :K],
        "contiguous at an odd address": torch.randn(4 * K + 1).half()[1:].view(4, K),
    }
    for name, x in views.items():
        recorder.calls.clear()
        layer(x)
        _, _, pointer, *_, m, ldx, _, _ = recorder.calls[0]
        assert pointer != x.data_ptr(), name
        assert pointer % 16 == 0, name
        assert (m, ldx) == (x.numel() // K, 0), name


@torch.no_grad()
def test_no_tokens_launch_nothing(recorder: Recorder, layer: w4tune.Linear) -> None:
    assert layer(torch.empty(2, 0, K).half()).shape == (2, 0, N)
    assert recorder.calls == []


@torch.no_grad()
def test_a_wrong_width_is_one_clear_line(recorder: Recorder, layer: w4tune.Linear) -> None:
    with pytest.raises(w4tune.W4tuneError, match=r"x \[2, 64\] does not end in 128"):
        layer(torch.randn(2, 64).half())
    assert recorder.calls == []


@torch.no_grad()
def test_a_default_kernel_is_reported_with_the_layers_sizes(
    recorder: Recorder, layer: w4tune.Linear
) -> None:
    recorder.match = runtime.DEFAULT
    layer(torch.randn(2, K).half())
    assert recorder.device.reported == [(ops.GEMM, N, K, 128, torch.float16)]


@torch.no_grad()
def test_shapes_are_remembered_within_a_bound(recorder: Recorder, layer: w4tune.Linear) -> None:
    kernel = layer._kernel
    for rows in range(1, 4200):
        kernel.plan(torch.Size((rows, K)))
    assert len(kernel.plans) <= 4096
    layer(torch.randn(3, K).half())
    assert recorder.calls[-1][6] == 3


def test_tune_names_what_it_lacks(layer: w4tune.Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(w4tune.W4tuneError, match="no w4tune layers"):
        w4tune.tune(torch.nn.Linear(K, N))
    with pytest.raises(w4tune.W4tuneError, match="numbers of tokens from 1"):
        w4tune.tune(layer, m=[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(w4tune.W4tuneError, match="sees no CUDA GPU"):
        w4tune.tune(layer, m=10)
