"""The CUDA kernels compile, without a warning and without a spilled register; no GPU is needed.
And when the engine is built."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from _build_backend import cuda_choice
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
        # A layer-norm kernel's block has 128 threads: three of them fit.
        most = 65536 // (3 * 128) if "normed" in kernel.name else 128
        assert 0 < kernel.registers <= most or "double" in kernel.name, kernel


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


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a toolkit of CUDA 13.0, and is the only one that is found."""
    for name, text in (
        ("bin/nvcc", "#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.88\n"),
        ("include/cuda_runtime.h", ""),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "bin" / "nvcc").chmod(0o755)
    for name in ("FORCE_CUDA", "FORCE_CPU", "TORCH_CUDA_ARCH_LIST", "CUDA_PATH"):
        # Set and taken away, so that what choose() sets is taken away after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    return tmp_path


def test_the_engine_is_built_where_torch_and_a_toolkit_agree(
    toolkit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cuda_choice.choose("13.2") == toolkit
    assert os.environ["CUDA_HOME"] == str(toolkit)
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "8.0;9.0+PTX;12.0+PTX"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6")
    assert cuda_choice.choose("13.0") == toolkit
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "8.6"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", " ")  # as if it said nothing
    assert cuda_choice.choose("13.0") == toolkit
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == cuda_choice.ARCHITECTURES
    monkeypatch.setenv("FORCE_CPU", "yes")
    assert cuda_choice.choose("13.0") is None
    assert cuda_choice.architectures((12, 6)) == "8.0;9.0+PTX"


def test_why_the_engine_is_not_built(
    toolkit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silent on a CPU torch, told on a CUDA one, refused where it was asked for."""
    assert cuda_choice.choose(None) is None
    assert capsys.readouterr().out == ""
    assert cuda_choice.choose("12.8") is None
    assert f"CUDA 12.8, and the toolkit in {toolkit} is 13.0" in capsys.readouterr().out
    monkeypatch.setenv("CUDA_HOME", str(toolkit / "nowhere"))
    assert cuda_choice.choose("13.0") is None
    assert "no CUDA toolkit was found" in capsys.readouterr().out
    monkeypatch.setenv("FORCE_CUDA", "true")
    with pytest.raises(SystemExit, match="FORCE_CUDA=1, but no CUDA toolkit was found"):
        cuda_choice.choose("13.0")
    with pytest.raises(SystemExit, match=r"FORCE_CUDA=1, but the torch .* is not a CUDA build"):
        cuda_choice.choose(None)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FORCE_CPU", "1", "FORCE_CUDA and FORCE_CPU exclude each other"),
        ("FORCE_CPU", "maybe", "FORCE_CPU: expected 1 or 0, got 'maybe'"),
        (
            "TORCH_CUDA_ARCH_LIST",
            "7.5;8.0+PTX",
            r"names 7\.5, and the kernels need .* 8\.0 or later",
        ),
        ("TORCH_CUDA_ARCH_LIST", "8.0 7.0+PTX", r"names 7\.0\+PTX"),
    ],
)
def test_variables_that_make_no_sense(
    toolkit: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv("FORCE_CUDA", "1")
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=told):
        cuda_choice.choose("13.0")
