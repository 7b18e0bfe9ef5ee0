"""Compiles the CUDA engine for an emulated machine on the CPU: the checks of tests/emulation, and
the operators of csrc/cuda_glue, whose card is torch's memory on the CPU.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
CUDA = ROOT / "csrc" / "cuda"
GLUE = ROOT / "csrc" / "cuda_glue"
# Reads the device: there is none.
DEVICE_ONLY = {"device.cu"}
FLAGS = (
    *("-O1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
    *(f"-I{ROOT / 'csrc'}", f"-I{TESTS}"),
)
# Torch's stable ABI alone is used; its own headers leave parameters unused.
TORCH = Path(torch.__file__).parent
TORCH_FLAGS = ("-Wno-unused-parameter", "-DRNNCELLS_EMULATED", f"-isystem{TORCH / 'include'}")


def run(*command: str | Path) -> str:
    """Run a command, and fail with what it printed if it does."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=900
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{printed[-10000:]}"
    return printed


def build(folder: Path) -> None:
    """Compile the checks and the operators: every .cu file as plain C++, on the primitives' host
    version."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the emulation with")

    def compiled(source: Path, *flags: str) -> Path:
        target = folder / f"{source.name}.o"
        run(compiler, "-x", "c++", *(flags or ("-std=c++17",)), *FLAGS, "-c", source, "-o", target)
        return target

    engine = [path for path in sorted(CUDA.glob("*.c*")) if path.suffix in (".cu", ".cpp")]
    engine = [path for path in engine if path.name not in DEVICE_ONLY]
    checks = sorted((TESTS / "emulation").glob("*_check.cpp"), reverse=True)
    glue = [GLUE / "operators.cpp", TESTS / "emulation" / "torch_operators.cpp"]
    host = [GLUE / "kernels.cpp", ROOT / "csrc" / "variant_text.cpp"]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        # The longest to compile first.
        objects = list(pool.map(compiled, [*checks, *engine, *host]))
        operators = list(pool.map(lambda path: compiled(path, "-std=c++20", *TORCH_FLAGS), glue))
    parts = objects[len(checks) : -len(host)]
    for check, own in zip(checks, objects, strict=False):
        run(compiler, own, *parts, "-o", folder / check.stem)
    library = (f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10")
    common = (*operators, *parts, *objects[-len(host) :])
    run(compiler, "-shared", *common, *library, "-o", folder / "operators.so")


def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the checks and operators.so, compiled once for all of xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "emulation"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            build(folder)
            (folder / "done").touch()
    return folder
