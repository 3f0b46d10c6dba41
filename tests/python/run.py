"""Runs the package's tests on what a build made: run.py BUILD_FOLDER [pytest arguments].

BUILD_FOLDER is where the preset `python` builds (build/python). Exit code 77, with the reason, where
PyTorch, pytest or that build is missing.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

SKIPPED = 77


def skip(reason: str) -> int:
    print(f"skipped: {reason}")
    return SKIPPED


def main(folder: Path, arguments: list[str]) -> int:
    for module in ("torch", "pytest", "safetensors", "numpy"):
        if importlib.util.find_spec(module) is None:
            return skip(
                f"{sys.executable} has no {module}; 'make test PYTHON=...' names a Python that has it"
            )
    if not (folder / "w4tune" / "_native.abi3.so").is_file():
        return skip(f"{folder} holds no package; 'make python-package' builds it")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    command += [str(Path(__file__).parent), *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
