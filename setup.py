"""Builds the extensions ``rnncells._C`` and, for a CUDA build of torch, ``rnncells._C_cuda``;
everything that is not compiled is in pyproject.toml."""

import os
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

from _build_backend import cuda_choice, toolchain, torch_choice

ROOT = Path(__file__).parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

# No -ffast-math: NaN and infinity must flow as in torch.nn. No -march: the vector width is chosen
# at run time. No -std: torch's build passes the one that its headers need.
FLAGS = [
    "-O3",
    "-ffp-contract=off",  # where to fuse is written in the code: the same bits in every instance
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",  # torch's own headers have some
    "-Wno-psabi",  # wide vectors are passed between inlined functions only
]


def paths(pattern: str) -> list[str]:
    """Return the files under the root that match, relative to it and in a fixed order."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


EXTENSION: dict[str, Any] = {
    "name": "rnncells._C",
    "sources": paths("csrc/*.cpp") + paths("csrc/cpu/*.cpp"),
    "depends": paths("csrc/**/*.h"),
    "include_dirs": [str(ROOT / "csrc")],
    "define_macros": [("RNNCELLS_VERSION", f'"{VERSION}"')],
    "extra_compile_args": FLAGS,
}

# -fmad=false: where to fuse is written in the code, as above.
NVCC_FLAGS = ["-O3", "-fmad=false", "--expt-relaxed-constexpr", "-Xcompiler=-fvisibility=hidden"]

CUDA_EXTENSION: dict[str, Any] = {
    "name": "rnncells._C_cuda",
    "sources": paths("csrc/cuda/*.cu")
    + paths("csrc/cuda/*.cpp")
    + paths("csrc/cuda_glue/*.cpp")
    + ["csrc/variant_text.cpp"],
    "depends": paths("csrc/**/*.h") + paths("csrc/**/*.cuh"),
    "include_dirs": [str(ROOT / "csrc")],
    "extra_compile_args": {"cxx": FLAGS, "nvcc": NVCC_FLAGS},
}


def without_torch() -> dict[str, Any]:
    """Return what setup() needs where there is no torch: all but compiling works."""

    class NoTorch(build_ext):
        def run(self) -> None:
            raise SystemExit(torch_choice.NO_TORCH)

    return {"ext_modules": [Extension(**EXTENSION)], "cmdclass": {"build_ext": NoTorch}}


def with_torch() -> dict[str, Any]:
    """Return what setup() needs to compile against the torch that can be imported."""
    import torch

    with_cuda = cuda_choice.choose(torch.version.cuda) is not None
    # Only now, since this reads CUDA_HOME.
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    class Build(BuildExtension):
        def finalize_options(self) -> None:
            super().finalize_options()
            # An editable install would build in temporary folders, and so from nothing each time.
            if self.inplace:
                kept = Path("build", f"inplace-{sysconfig.get_config_var('SOABI')}")
                self.build_temp, self.build_lib = str(kept / "objects"), str(kept / "lib")

        def run(self) -> None:
            torch_choice.refuse_if_too_old(torch.__version__)
            toolchain.choose_compiler()
            super().run()

    # torch calls ninja by name, and a virtual environment that is not activated is not on PATH.
    os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")
    modules = [CppExtension(**EXTENSION)]
    if with_cuda:
        modules.append(CUDAExtension(**CUDA_EXTENSION))
    return {"ext_modules": modules, "cmdclass": {"build_ext": Build}}


setup(
    install_requires=[torch_choice.runtime_requirement(), "numpy"],
    **(with_torch() if torch_choice.make_importable() else without_torch()),
)
