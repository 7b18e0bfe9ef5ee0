"""Everything of the CUDA engine but its running: ``make cuda-check``.

Compiles every kernel with nvcc and prints what each takes; then, in a virtual environment of its
own with a CUDA build of torch (2.11.0, or what ``RNNCELLS_CUDA_TORCH`` asks of pip), builds
``rnncells._C`` and ``rnncells._C_cuda`` in a copy of the tree, and runs the quick tests there,
those of the CPU and those of CUDA that need no GPU. What stands since the last time that all passed
is not done again. What cannot be had here (nvcc, that torch) is a visible skip.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from _build_backend import cuda_choice
from tests import cuda_kernels

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv-cuda"
PYTHON = VENV / "bin" / "python"
PLACE = ROOT / "build" / "cuda-check"
TREE = PLACE / "tree"
TORCH = os.environ.get("RNNCELLS_CUDA_TORCH", "torch==2.11.0")
PARTS = ("csrc", "rnncells", "tests", "bench", "examples", "_build_backend")
ENGINE = ("csrc", "_build_backend", "setup.py")
LEFT_OUT = {"__pycache__", ".so", ".pyc"}


def say(text: str) -> None:
    print(f"cuda-check: {text}", flush=True)


def run(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> int:
    """Run a command, seen by the caller, and return its status."""
    return subprocess.run([str(part) for part in command], cwd=cwd, env=env).returncode


def sources(*parts: str) -> Iterator[Path]:
    """The files of these folders, and these files."""
    for part in parts:
        path = ROOT / part
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            if file.is_file() and not LEFT_OUT & {file.suffix, *file.parts}:
                yield file


def digest(*parts: str, more: str = "") -> str:
    """Of the contents of these files and folders."""
    total = hashlib.sha256(more.encode())
    for file in sources(*parts):
        total.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return total.hexdigest()


def stands(name: str, value: str) -> bool:
    """Whether what `name` stands for last passed with this very value."""
    stamp = PLACE / name
    return stamp.is_file() and stamp.read_text() == value


def passed(name: str, value: str) -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / name).write_text(value)


# --- the kernels


def compiler() -> str:
    """Which nvcc this is; nothing where there is none."""
    found = cuda_kernels.nvcc()
    if found is None:
        return ""
    told = subprocess.run([found, "--version"], capture_output=True, text=True)
    return f"{found}\n{told.stdout}"


def check_kernels() -> bool:
    """Compile them all, warnings being errors, and print their table. False: a kernel spills."""
    if cuda_kernels.nvcc() is None:
        say("SKIPPED: no nvcc on the PATH, the kernels were not compiled")
        return True
    now = digest("csrc", "tests/cuda_kernels.py", more=compiler())
    table = PLACE / "kernels.txt"
    if stands("kernels", now) and table.is_file():
        print(table.read_text())
        return True
    kernels = cuda_kernels.compile_all()
    text = cuda_kernels.table(kernels)
    print(text, flush=True)
    spilled = [kernel for kernel in kernels if kernel.spills or kernel.stack]
    for kernel in spilled:
        say(f"registers spilled: {kernel}")
    if not spilled:
        passed("kernels", now)
        table.write_text(text)
    return not spilled


# --- the environment


def requirements() -> list[str]:
    """What building and the quick tests need besides torch."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    return ["setuptools>=77", "ninja", "numpy", *extras["test"], *extras["forecast"]]


def base_python() -> str:
    """Python 3.12 where it is (a command of that name may find none), or else this one."""
    found = shutil.which("python3.12")
    if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
        return found
    return sys.executable


def make_environment() -> str | None:
    """Make .venv-cuda, once; None, or why it cannot be had."""
    wanted = "\n".join([TORCH, *requirements()])
    if not (stands("environment", wanted) and PYTHON.is_file()):
        say(f"making {VENV.name} with {TORCH} (minutes and 5 GB, the first time)")
        base = base_python()
        if run(base, "-m", "venv", "--clear", VENV) != 0:
            return f"{base} makes no virtual environment"
        pip = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "-qq")
        if run(*pip, TORCH) != 0:
            return f"{TORCH} cannot be installed"
        if run(*pip, *requirements()) != 0:
            return "what the tests need cannot be installed"
        passed("environment", wanted)
    told = subprocess.run(
        [PYTHON, "-c", "import torch; print(torch.version.cuda)"], capture_output=True, text=True
    )
    version = told.stdout.strip()
    return None if version not in ("", "None") else f"the {TORCH} of here is no CUDA build"


# --- the build, and the tests


def copy_tree() -> None:
    """Bring the copy up to date; files that did not change keep their times, for ninja."""
    tops = [path.name for path in ROOT.iterdir() if path.is_file() and path.name[0] != "."]
    wanted = {file.relative_to(ROOT) for file in sources(*PARTS, *tops)}
    for name in wanted:
        source, target = ROOT / name, TREE / name
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for part in PARTS:
        for file in sorted((TREE / part).rglob("*")):
            name = file.relative_to(TREE)
            if file.is_file() and name not in wanted and not LEFT_OUT & {file.suffix, *file.parts}:
                file.unlink()


def build() -> bool:
    """Compile and link both extensions; False if that fails."""
    environment = (PLACE / "environment").read_text()
    now = digest(*ENGINE, more=f"{compiler()}\n{environment}")
    if stands("build", now) and len(list((TREE / "rnncells").glob("_C*.so"))) == 2:
        return True
    say("compiling both extensions against it (log: build/cuda-check/build.log)")
    with (PLACE / "build.log").open("w") as log:
        done = subprocess.run(
            [PYTHON, "setup.py", "build_ext", "--inplace"],
            cwd=TREE,
            env=os.environ | {"FORCE_CUDA": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0:
        lines = (PLACE / "build.log").read_text().splitlines()
        print("\n".join(lines[-40:]))
        return False
    passed("build", now)
    return True


def check_package() -> bool:
    """Import it, and run the quick tests there; False if one fails."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    here = {"cwd": TREE, "env": environment}
    engine = "import rnncells.cuda as c, sys; sys.exit(c.why_missing())"
    if run(PYTHON, "-c", engine, **here) != 0:  # type: ignore[arg-type]
        return False
    now = digest(*PARTS, "setup.py", "pyproject.toml")
    some = sys.argv[1:]  # which say nothing of the others
    if stands("tests", now) and not some:
        say("the tests passed on these very files")
        return True
    pytest = (PYTHON, "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", *some)
    if run(*pytest, **here) != 0:  # type: ignore[arg-type]
        return False
    if not some:
        passed("tests", now)
    return True


def main() -> None:
    """Do all of it; exit with 1 if anything failed."""
    kernels = check_kernels()
    if cuda_choice.toolkit() is None:
        say("SKIPPED: no CUDA toolkit, rnncells._C_cuda was not built")
        sys.exit(not kernels)
    missing = make_environment()
    if missing is not None:
        say(f"SKIPPED: {missing}; rnncells._C_cuda was not built")
        sys.exit(not kernels)
    copy_tree()
    good = build() and check_package()
    say("passed" if kernels and good else "FAILED")
    sys.exit(not (kernels and good))


if __name__ == "__main__":
    main()
