"""Int4 checkpoints: safetensors read layer by layer, and compressed-tensors written.

    checkpoint = Checkpoint.open("model-GPTQ")
    for name in checkpoint.layers:
        weight = checkpoint.read(name)           # QuantizedWeight

`tensors` opens files and folders, `layouts` knows the conventions, `quantized` finds layers and
reads them, `writer` streams a new checkpoint to disk. All errors are W4tuneErrors of one line.
"""

from __future__ import annotations

from w4tune.formats.layouts import FORMATS, Layer
from w4tune.formats.quantized import Checkpoint, kernel_group
from w4tune.formats.tensors import TensorFiles, TensorInfo
from w4tune.formats.writer import (
    CheckpointWriter,
    compressed_tensors_config,
    compressed_tensors_weight,
)

__all__ = [
    "FORMATS",
    "Checkpoint",
    "CheckpointWriter",
    "Layer",
    "TensorFiles",
    "TensorInfo",
    "compressed_tensors_config",
    "compressed_tensors_weight",
    "kernel_group",
]
