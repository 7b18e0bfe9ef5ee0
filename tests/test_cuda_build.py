"""The CUDA kernels compile, without a warning and without a spilled register; no GPU is needed."""

from __future__ import annotations

import pytest

from tests import cuda_kernels

needs_nvcc = pytest.mark.skipif(
    cuda_kernels.nvcc() is None, reason="no nvcc to compile the CUDA kernels with"
)
PERSISTENT_CELLS = ("RnnTanh", "RnnRelu", "Lstm", "Gru")


def check(kernels: list[cuda_kernels.Kernel]) -> None:
    """None has a stack or spills, and none takes more registers than its launch may have."""
    assert kernels
    for kernel in kernels:
        assert kernel.stack == kernel.spills == 0, kernel
        assert 0 < kernel.registers <= 128 or "double" in kernel.name, kernel


@needs_nvcc
def test_the_kernels_of_one_type_compile() -> None:
    """Every cell, forward and backward, in bfloat16 for compute capability 9.0."""
    source = cuda_kernels.CSRC / "cuda" / "persistent_bfloat16.cu"
    kernels = cuda_kernels.compile_all([source], ["90"])
    check(kernels)
    for cell in PERSISTENT_CELLS:
        for way in ("forward", "backward"):
            assert f"run_{way}<{cell}, BFloat16, BFloat16>" in {kernel.name for kernel in kernels}


@needs_nvcc
@pytest.mark.slow
def test_all_kernels_compile() -> None:
    """Every file, for each architecture that is built for."""
    kernels = cuda_kernels.compile_all()
    check(kernels)
    names = {
        code: {kernel.name for kernel in kernels if kernel.architecture == code}
        for code in cuda_kernels.ARCHITECTURES
    }
    assert names["80"] == names["90"] == names["120"]


def test_what_the_assembler_prints_is_read() -> None:
    """Registers, static shared memory, the stack and spills."""
    printed = """
ptxas info    : Compiling entry function 'run<A>(B)' for 'sm_90'
ptxas info    : Function properties for run
    24 bytes stack frame, 36 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 512 bytes smem, 24 bytes cumulative stack size
"""
    assert cuda_kernels.parse(printed) == [cuda_kernels.Kernel("run<A>", "90", 128, 512, 24, 64)]
