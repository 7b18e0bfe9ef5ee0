"""The CUDA engine's kernels, their very source, run on an emulated machine on the CPU."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
CUDA = ROOT / "csrc" / "cuda"
TYPES = ["float32", "tf32", "float64", "float16", "bfloat16"]
# Reads the device: there is none.
DEVICE_ONLY = {"device.cu"}


def run(*command: str | Path) -> str:
    """Run a command, and fail with what it printed if it does."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=900
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{printed[-10000:]}"
    return printed


def build(folder: Path) -> None:
    """Compile the checks: every .cu file as plain C++, on the emulated primitives."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the emulation with")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}", f"-I{TESTS}"]

    def compiled(source: Path) -> Path:
        target = folder / f"{source.name}.o"
        run(compiler, *flags, "-x", "c++", "-c", source, "-o", target)
        return target

    engine = [path for path in sorted(CUDA.glob("*.c*")) if path.suffix in (".cu", ".cpp")]
    engine = [path for path in engine if path.name not in DEVICE_ONLY]
    checks = sorted((TESTS / "emulation").glob("*_check.cpp"), reverse=True)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        objects = list(pool.map(compiled, [*checks, *engine]))  # the longest to compile first
    for check, own in zip(checks, objects, strict=False):
        run(compiler, own, *objects[len(checks) :], "-o", folder / check.stem)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the checks, compiled once for all of xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "emulation"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            build(folder)
            (folder / "done").touch()
    return folder


def test_the_emulated_machine_finds_each_kind_of_fault(programs: Path) -> None:
    """And its primitives do what the hardware's do."""
    assert " 0 failures" in run(programs / "fault_check")


def test_the_choice_of_a_kernel(programs: Path) -> None:
    """Named cases; and every plan covers its layer and fits its device."""
    assert " 0 failures" in run(programs / "choose_check")


@pytest.mark.parametrize("dtype", TYPES)
def test_kernels(programs: Path, dtype: str) -> None:
    """Every kernel and cell against scalar loops in float64, forward and through time."""
    assert " 0 failures" in run(programs / "kernel_check", dtype, "quick")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
def test_kernels_on_the_full_grid(programs: Path, dtype: str) -> None:
    """More sizes, splits and flags."""
    assert " 0 failures" in run(programs / "kernel_check", dtype, "full")
