"""The command `w4tune`: `convert` is Python, every other command is the tool that the wheel carries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CONVERT_LINE = "  convert                     Turn an INT4 (or FP16) checkpoint into another format"


def tool_path() -> Path:
    """The tuner's executable."""
    return Path(__file__).absolute().parent / "bin" / "w4tune"


def tool_environment() -> dict[str, str]:
    """The environment with PyTorch's NVRTC and cuBLASLt where the tool finds them, after any that
    the user's LD_LIBRARY_PATH names."""
    folders = [os.environ["LD_LIBRARY_PATH"]] if os.environ.get("LD_LIBRARY_PATH") else []
    for root in {Path(entry) / "nvidia" for entry in sys.path if entry}:
        folders += sorted(str(path) for path in root.glob("*/lib") if path.is_dir())
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(folders)}


def main() -> int:
    """Runs one command; the exit code is the tool's (see its --help)."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["convert"]:
        from w4tune import convert

        return convert.main(arguments[1:])
    tool = tool_path()
    if not os.access(tool, os.X_OK):
        print(f"w4tune: '{tool}' is missing. Install the package again.", file=sys.stderr)
        return 1
    if arguments[:1] in (["--help"], ["-h"]):
        print(f"Besides the commands below:\n{_CONVERT_LINE}\n", flush=True)
    os.execve(tool, [str(tool), *arguments], tool_environment())


if __name__ == "__main__":
    sys.exit(main())
