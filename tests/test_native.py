"""The compiled parts alone: the engine under the sanitizers, and the sources for other machines."""

import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rnncells import _C

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
NATIVE = Path(__file__).parent / "native"
GPU_TARGETS = ("80", "90", "120")


def run(*command: str | Path, seconds: float = 1200) -> str:
    """Run a command, and fail with what it printed if it does."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=seconds
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{printed}"
    return printed


@pytest.mark.slow
def test_the_engine_under_sanitizers(tmp_path: Path) -> None:
    """Every cell and ISA against scalar loops over the same headers, every buffer exactly sized.

    The checks for null and misaligned pointers are left out: they triple the time to compile, and
    the address sanitizer finds the accesses that matter.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to build with the sanitizers")
    flags = [
        *("-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"),
        *("-fsanitize=address,undefined", "-fno-sanitize=null,alignment,vptr"),
        *("-fno-sanitize-recover=all", f"-I{CSRC}"),
    ]
    sources = [*sorted((CSRC / "cpu").glob("*.cpp")), NATIVE / "engine_check.cpp"]
    objects = [tmp_path / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(2) as pool:
        jobs = zip(sources, objects, strict=True)
        list(pool.map(lambda job: run(compiler, *flags, "-c", job[0], "-o", job[1]), jobs))
    program = tmp_path / "engine_check"
    run(compiler, *flags, *objects, "-pthread", "-o", program)
    for isa in _C.supported_isas():
        assert "0 failures" in run(program, isa)


def test_cells_compile_for_cuda(tmp_path: Path) -> None:
    """Every cell, forward and adjoint, as code of a CUDA thread; warnings and spills are errors."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc to compile for CUDA with")
    targets = [f"-gencode=arch=compute_{t},code=sm_{t}" for t in GPU_TARGETS]
    printed = run(
        *(compiler, "-std=c++17", "-O3", f"-I{CSRC}", "-Werror", "all-warnings"),
        *("-Xptxas", "-v,-warn-spills,-warn-lmem-usage", *targets),
        *("-c", NATIVE / "cells_on_device.cu", "-o", tmp_path / "cells.o"),
    )
    # One kernel in float and one in double, for each target.
    assert printed.count("registers") == 2 * len(GPU_TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["engine_baseline", "isa"])
def test_the_engine_compiles_for_arm64(name: str, tmp_path: Path) -> None:
    """Compiled by clang for aarch64, never run."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no ziglang to compile for aarch64 with")
    run(
        *(sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-gnu", "-std=c++17"),
        *("-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", f"-I{CSRC}"),
        *("-c", CSRC / "cpu" / f"{name}.cpp", "-o", tmp_path / f"{name}.o"),
    )
