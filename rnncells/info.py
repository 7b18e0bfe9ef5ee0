"""Tell what was built and what is in use: ``python -m rnncells.info``."""

import os
import platform
from typing import Any

import torch

from rnncells import _C, cuda


def facts() -> dict[str, Any]:
    """Return the extension's build facts and those of the environment that it runs in.

    The keys of ``rnncells._C.build_info()``, then ``cuda`` (whether the CUDA engine was built, and
    loads in the torch that is in use), ``python``, ``torch in use`` (the build may have seen
    another), ``threads`` (of torch's pool) and ``cores``.
    """
    return _C.build_info() | {
        "cuda": cuda.why_missing() is None,
        "python": platform.python_version(),
        "torch in use": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def text() -> str:
    """Return the facts as aligned lines, one fact a line."""
    shown = {name.replace("_", " "): _plain(value) for name, value in facts().items()}
    width = max(map(len, shown))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


if __name__ == "__main__":
    print(text())
