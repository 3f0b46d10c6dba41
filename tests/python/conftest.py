"""Shared by the package's tests: the marker `gpu`, and a cache that is nobody's."""

from __future__ import annotations

import os

import pytest
import torch

# Before w4tune opens a GPU: tests see their own cache or none, never the user's.
os.environ.pop("W4TUNE_DB", None)
os.environ.pop("W4TUNE_STRICT", None)
os.environ["XDG_CACHE_HOME"] = os.environ.get("W4TUNE_TEST_CACHE", "/nonexistent")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA GPU; skipped with the reason without one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA GPU is visible to PyTorch")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
