"""Compiles the CUDA kernels with nvcc, and reads what the assembler says of each.

``python -m tests.cuda_kernels`` prints a table: registers, shared memory and spills. It needs nvcc,
and neither a GPU nor torch.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).parents[1] / "csrc"
SOURCES = sorted((CSRC / "cuda").glob("*.cu"))
ARCHITECTURES = ("80", "90", "120")
# Where to fuse is written in the code: the same bits in every kernel.
FLAGS = (
    *("-std=c++17", "-O3", "-fmad=false", "--expt-relaxed-constexpr", f"-I{CSRC}"),
    *("-Werror", "all-warnings", "-Xptxas", "-v,-warn-spills,-warn-lmem-usage"),
)


@dataclass(frozen=True)
class Kernel:
    """What one kernel takes of a multiprocessor, on one architecture."""

    name: str
    architecture: str
    registers: int
    static_shared: int  # bytes; what a launch asks for comes on top
    stack: int  # bytes of a thread
    spills: int  # bytes of a thread, stored and loaded


def nvcc() -> str | None:
    """The compiler's path, or None."""
    return shutil.which("nvcc")


def compile_one(source: Path, architecture: str, folder: Path) -> str:
    """Compile a file for one architecture; return what was printed.

    Raises:
        RuntimeError: it did not compile, with a warning or spilled registers at the least.
    """
    target = folder / f"{source.stem}.{architecture}.o"
    code = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    command = [nvcc() or "nvcc", *FLAGS, code, "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    printed = done.stdout + done.stderr
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{printed}")
    return printed


def demangled(text: str) -> str:
    """The text with C++ names as they are written, where there is a tool for it."""
    tool = shutil.which("c++filt")
    if tool is None:
        return text
    return subprocess.run([tool], input=text, capture_output=True, text=True, check=True).stdout


def parse(printed: str) -> list[Kernel]:
    """The kernels in what the assembler printed."""
    kernels = []
    for part in demangled(printed).split("Compiling entry function '")[1:]:
        name, architecture = re.match(r"(.*)' for 'sm_(\d+)'", part).groups()  # type: ignore[union-attr]

        def number(pattern: str, text: str = part) -> int:
            found = re.search(pattern, text)
            return int(found[1]) if found else 0

        kernels.append(
            Kernel(
                short(name),
                architecture,
                number(r"Used (\d+) registers"),
                number(r"(\d+) bytes smem"),
                number(r"(\d+) bytes stack frame"),
                number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
            )
        )
    return kernels


def short(name: str) -> str:
    """A kernel's name without namespaces, return type and arguments."""
    name = name.replace("rnncells::", "").replace("gpu::", "").removeprefix("void ")
    return name[: name.rindex("(")] if "(" in name else name


def compile_all(
    sources: Iterable[Path] = SOURCES, architectures: Iterable[str] = ARCHITECTURES
) -> list[Kernel]:
    """Compile each file for each architecture, on two processors."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        jobs = [(source, code) for source in sources for code in architectures]
        printed = pool.map(lambda job: compile_one(job[0], job[1], Path(folder)), jobs)
        return [kernel for text in printed for kernel in parse(text)]


def table(kernels: Iterable[Kernel]) -> str:
    """The kernels in lines."""
    lines = [f"{'kernel':58} {'sm':>4} {'registers':>9} {'static':>7} {'stack':>6} {'spills':>6}"]
    lines += [
        f"{k.name:58} {k.architecture:>4} {k.registers:9} {k.static_shared:7} {k.stack:6} "
        f"{k.spills:6}"
        for k in sorted(kernels, key=lambda kernel: (kernel.name, int(kernel.architecture)))
    ]
    lines.append(
        "static: bytes of shared memory; the persistent kernels' is dynamic, by the layer's size: "
        "csrc/cuda/plan.cpp takes no more than the device's block has."
    )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    if nvcc() is None:
        sys.exit("no nvcc on the PATH: the CUDA kernels were not compiled")
    print(table(compile_all()))


if __name__ == "__main__":
    main()
