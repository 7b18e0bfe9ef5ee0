"""The CUDA engine's kernels, their very source, run on an emulated machine on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import emulated
from tests.emulated import run

TYPES = ["float32", "tf32", "float64", "float16", "bfloat16"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the checks."""
    return emulated.built(tmp_path_factory)


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
