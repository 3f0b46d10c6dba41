"""w4tune: INT4-weight layers for PyTorch on kernels tuned for your GPU.

    import w4tune
    w4tune.quantize_(model)            # the MLPs of a Gemma-like model, in place
    w4tune.tune(model, m=[10, 968])    # once for each GPU: measures and stores the fastest kernels

See `quantize_`, `Linear`, `GeGLU`, `GeGLUMLP`, `load_quantized_`, `DuQuantLinear`, `tune` and the
project's README.
"""

from __future__ import annotations

import importlib.metadata

from w4tune import ops
from w4tune.checkpoint import load_quantized_
from w4tune.duquant import DuQuantLinear
from w4tune.errors import W4tuneError, W4tuneWarning
from w4tune.model import Summary, patch_from_env, quantize_
from w4tune.modules import GeGLU, GeGLUMLP, Linear
from w4tune.quantizer import QuantizedWeight, quantize
from w4tune.runtime import Selection, database_path, reload, selection
from w4tune.tuning import tune

try:
    __version__ = importlib.metadata.version("w4tune")
except importlib.metadata.PackageNotFoundError:  # run from a build folder
    __version__ = "0+build"

__all__ = [
    "DuQuantLinear",
    "GeGLU",
    "GeGLUMLP",
    "Linear",
    "QuantizedWeight",
    "Selection",
    "Summary",
    "W4tuneError",
    "W4tuneWarning",
    "database_path",
    "load_quantized_",
    "ops",
    "patch_from_env",
    "quantize",
    "quantize_",
    "reload",
    "selection",
    "tune",
]
