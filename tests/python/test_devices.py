"""Several GPUs in one process, whichever is current."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import w4tune

TWO = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA GPUs")


def layers() -> list[w4tune.GeGLUMLP]:
    """The same MLP on each of two GPUs, and its twin on the CPU last."""
    torch.manual_seed(3)
    gate, up = (nn.Linear(512, 1024, bias=False).half() for _ in range(2))
    down = nn.Linear(1024, 512, bias=False).half()
    mlp = w4tune.GeGLUMLP.from_linears(gate, up, down)
    state = mlp.state_dict()
    copies = []
    for device in ("cuda:0", "cuda:1"):
        copy = w4tune.GeGLUMLP.from_linears(gate, up, down).to(device)
        copy.load_state_dict(state)
        copies.append(copy)
    return [*copies, mlp]


@pytest.mark.gpu
@TWO
@torch.no_grad()
def test_each_gpu_gives_what_the_cpu_gives_whichever_is_current() -> None:
    first, second, on_cpu = layers()
    x = torch.randn(10, 512).half()
    expected = on_cpu(x).double()
    for current in (0, 1):
        with torch.cuda.device(current):
            for i, mlp in enumerate((first, second)):
                y = mlp(x.to(f"cuda:{i}"))
                assert y.device == torch.device("cuda", i)
                error = (y.cpu().double() - expected).norm() / expected.norm()
                assert error <= 4 * 2.0**-11, f"cuda:{i} with cuda:{current} current: {error:.3g}"
    assert torch.cuda.current_device() == 0


@pytest.mark.gpu
@TWO
def test_a_thread_for_each_gpu() -> None:
    first, second, _ = layers()
    x = torch.randn(10, 512).half()
    wrong: dict[int, object] = {}

    def work(i: int, mlp: nn.Module) -> None:
        try:
            with torch.no_grad(), torch.cuda.device(i), torch.cuda.stream(torch.cuda.Stream(i)):
                mine = x.to(f"cuda:{i}")
                expected = mlp(mine)
                wrong[i] = int(sum((mlp(mine) != expected).sum() for _ in range(200)))
        except Exception as error:
            wrong[i] = error

    threads = [threading.Thread(target=work, args=(i, m)) for i, m in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120.0)
    assert wrong == {0: 0, 1: 0}


@pytest.mark.gpu
@TWO
def test_x_on_another_gpu_than_the_layer_is_one_clear_line() -> None:
    first, _, _ = layers()
    with torch.no_grad(), pytest.raises(w4tune.W4tuneError, match=r"x is on cuda:1.*cuda:0"):
        first(torch.randn(1, 512, device="cuda:1").half())
