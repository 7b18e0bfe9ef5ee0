"""Which torch the package is built against and asks for.

The torch that the environment has is used as it is. Only where there is none is the pinned one
asked for: a bare ``torch``, or a range, would bring whatever is newest and largest.
"""

import importlib.util
import json
import re
import subprocess
import sys
from typing import NamedTuple

PINNED = "torch==2.13.0"
OLDEST = (2, 11)
ANY_SUPPORTED = f"torch>={OLDEST[0]}.{OLDEST[1]}"

NO_TORCH = f"rnncells builds against PyTorch, and none is installed: pip install {PINNED}"

# Runs in a fresh interpreter without PYTHONPATH, because that is how pip hides the environment
# from an isolated build. The version is read as text: importing torch takes seconds.
_LOOK = """
import importlib.util, json, pathlib
spec = importlib.util.find_spec("torch")
folder = pathlib.Path(spec.origin).parent if spec and spec.origin else None
print(json.dumps(folder and [str(folder.parent), (folder / "version.py").read_text()]))
"""


class Torch(NamedTuple):
    """An installed torch: its version, and the folder to have on ``sys.path`` to import it."""

    version: str
    site: str


def installed_torch() -> Torch | None:
    """Return the torch of the environment that the build was started in, or None."""
    look = [sys.executable, "-E", "-P", "-c", _LOOK]
    found = json.loads(subprocess.run(look, check=True, capture_output=True, text=True).stdout)
    if found is None:
        return None
    site, version_file = found
    version = re.search(r"__version__ = ['\"]([^'\"]+)", version_file)
    if version is None:
        raise SystemExit(f"The torch in {site} has no version: reinstall it.")
    return Torch(version[1], site)


def refuse_if_too_old(version: str) -> None:
    """Raise SystemExit with one sentence if ``version`` is below the oldest supported torch."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < OLDEST:
        raise SystemExit(
            f"rnncells needs PyTorch {OLDEST[0]}.{OLDEST[1]} or later, and {version} is "
            f"installed: pip install '{ANY_SUPPORTED}'"
        )


def build_requirements() -> list[str]:
    """Return what an isolated build must bring: the pinned torch, only where there is none."""
    torch = installed_torch()
    if torch is None:
        return [PINNED]
    refuse_if_too_old(torch.version)
    return []


def runtime_requirement() -> str:
    """Return the wheel's requirement, such that installing it replaces no torch."""
    return PINNED if installed_torch() is None else ANY_SUPPORTED


def make_importable() -> bool:
    """Put the environment's torch within reach of an isolated build; False if there is none."""
    if importlib.util.find_spec("torch") is None and (torch := installed_torch()):
        # Last, so that the isolated build's own setuptools stays in front.
        sys.path.append(torch.site)
    return importlib.util.find_spec("torch") is not None


if __name__ == "__main__":
    print(*build_requirements())
