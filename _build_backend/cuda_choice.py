"""Whether the CUDA engine is built, by which toolkit, and for which GPUs.

It is where torch is a CUDA build and a toolkit of the same major version is there, a GPU or not.
``FORCE_CPU=1`` leaves it out, ``FORCE_CUDA=1`` refuses to leave it out, ``TORCH_CUDA_ARCH_LIST``
names other GPUs, of compute capability 8.0 or later; PTX of 9.0 or later is what has clusters.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

# Machine code for the A100, the H100 and H200, and the consumer cards of 2025; PTX for later ones.
ARCHITECTURES = "8.0;9.0+PTX;12.0+PTX"
FIRST_WITH_120 = (12, 8)
OLDEST = 80
NO, YES = ("", "0", "false", "no", "off"), ("1", "true", "yes", "on")


def toolkit() -> Path | None:
    """Return the folder of a toolkit with headers and nvcc, or None."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc")
    found = [Path(nvcc).resolve().parents[1]] if nvcc else []
    candidates = [Path(named)] if named else [*found, Path("/usr/local/cuda")]
    return next((c for c in candidates if _is_toolkit(c)), None)


def _is_toolkit(folder: Path) -> bool:
    return (folder / "bin" / "nvcc").is_file() and (folder / "include/cuda_runtime.h").is_file()


def release(folder: Path) -> tuple[int, int]:
    """Return a toolkit's version."""
    command = [str(folder / "bin" / "nvcc"), "--version"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+)\.(\d+)", printed)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def choose(torch_cuda: str | None) -> Path | None:
    """Return the toolkit to build the CUDA engine with, named in CUDA_HOME from now on, or None.

    Args:
        torch_cuda: ``torch.version.cuda``.

    Raises:
        SystemExit: FORCE_CUDA asks for the engine, and it cannot be built, or one of the variables
            makes no sense.
    """
    forced, left_out = _asked("FORCE_CUDA"), _asked("FORCE_CPU")
    if forced and left_out:
        raise SystemExit("rnncells: FORCE_CUDA and FORCE_CPU exclude each other.")
    if left_out:
        return None
    folder = toolkit()
    if torch_cuda is None:
        reason = "the torch that is installed is not a CUDA build"
    elif folder is None:
        reason = "no CUDA toolkit was found (CUDA_HOME, nvcc on the PATH, /usr/local/cuda)"
    elif release(folder)[0] != int(torch_cuda.split(".")[0]):
        have = ".".join(map(str, release(folder)))
        reason = f"torch is built for CUDA {torch_cuda}, and the toolkit in {folder} is {have}"
    else:
        os.environ["CUDA_HOME"] = str(folder)
        if not os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip():
            os.environ["TORCH_CUDA_ARCH_LIST"] = architectures(release(folder))
        _check_architectures(os.environ["TORCH_CUDA_ARCH_LIST"])
        return folder
    if forced:
        raise SystemExit(f"rnncells: FORCE_CUDA=1, but {reason}.")
    if torch_cuda is not None:
        print(f"rnncells: built without its CUDA engine: {reason}")
    return None


def _asked(name: str) -> bool:
    value = os.environ.get(name, "").lower()
    if value not in NO + YES:
        raise SystemExit(f"rnncells: {name}: expected 1 or 0, got {value!r}.")
    return value in YES


def _check_architectures(names: str) -> None:
    for name in re.split(r"[;\s]+", names.strip()):
        found = re.fullmatch(r"(\d+)\.(\d)[af]?(\+PTX)?", name)
        if found and int(found[1] + found[2]) < OLDEST:
            raise SystemExit(
                f"rnncells: TORCH_CUDA_ARCH_LIST names {name}, and the kernels need compute "
                "capability 8.0 or later (asynchronous copies)."
            )


def architectures(toolkit_release: tuple[int, int]) -> str:
    """Return what is built for where TORCH_CUDA_ARCH_LIST says nothing."""
    if toolkit_release >= FIRST_WITH_120:
        return ARCHITECTURES
    return ARCHITECTURES.rpartition(";")[0]
