"""The package itself: versions, build facts, the choice of ISA, and what the build decides."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import rnncells
from _build_backend import toolchain, torch_choice
from rnncells import _C, cuda, info

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ISAS = ("baseline", "avx2", "avx512")


def python(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run this Python on the arguments, with the environment's variables changed."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


# Versions and facts


def test_the_version_is_the_same_everywhere() -> None:
    versions = {PROJECT["version"], rnncells.__version__, _C.build_info()["version"]}
    assert versions == {PROJECT["version"]}


def test_the_installed_version_is_the_tree_s() -> None:
    try:
        installed = metadata.version("rnncells")
    except metadata.PackageNotFoundError:
        pytest.skip("rnncells is built in place and not installed")
    assert installed == PROJECT["version"]


def test_build_info_tells_what_was_built() -> None:
    known = _C.build_info()
    assert {"version", "torch", "compiler", "isas", "isa"} <= known.keys()
    assert known["isa"] == _C.get_isa()
    assert known["isa"] in _C.supported_isas()
    assert set(_C.supported_isas()) <= set(known["isas"]) <= set(ISAS)
    built = tuple(int(part) for part in known["torch"].split(".")[:2])
    assert built >= torch_choice.OLDEST


def test_info_prints_every_fact() -> None:
    ran = python("-m", "rnncells.info")
    assert ran.returncode == 0, ran.stderr
    told = dict(re.split(r"  +", line, maxsplit=1) for line in ran.stdout.splitlines())
    assert told.keys() == {name.replace("_", " ") for name in info.facts()}
    assert told["version"] == PROJECT["version"]
    assert told["cuda"] == ("no" if cuda.why_missing() else "yes")
    assert told["torch in use"] == torch.__version__


# The choice of the ISA


# Imports rnncells once for each choice, in a process of its own; torch is imported only once.
CHOOSE = """
import json, os, sys, torch
for choice in sys.argv[1:]:
    child = os.fork()
    if not child:
        os.environ["RNNCELLS_ISA"] = choice
        try:
            import rnncells
            answer = ["used", rnncells._C.get_isa()]
        except ImportError as error:
            answer = ["refused", str(error)]
        print(json.dumps([choice, answer]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def isa_for(*choices: str) -> dict[str, tuple[str, str]]:
    """Return what importing rnncells makes of each value of RNNCELLS_ISA."""
    ran = python("-c", CHOOSE, *choices)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(answers) == len(choices), ran.stderr
    return {choice: (verdict, text) for choice, (verdict, text) in answers}


def test_the_environment_chooses_the_isa() -> None:
    widest = max(_C.supported_isas(), key=ISAS.index)
    for choice, (verdict, text) in isa_for("", "nonsense", *ISAS).items():
        if choice in ("", *_C.supported_isas()):
            assert (verdict, text) == ("used", choice or widest)
        else:
            assert verdict == "refused"
            known = ISAS if choice == "nonsense" else _C.supported_isas()
            assert all(word in text for word in ("RNNCELLS_ISA", repr(choice), *known)), text


def test_set_isa_refuses_what_the_machine_lacks() -> None:
    before = _C.get_isa()
    lacking = [isa for isa in ISAS if isa not in _C.supported_isas()]
    for isa in [*lacking, "nonsense"]:
        with pytest.raises((ValueError, RuntimeError), match=isa):
            _C.set_isa(isa)
        assert _C.get_isa() == before


# Which torch the build takes


def use_torch(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    found = None if version is None else torch_choice.Torch(version, "/site-packages")
    monkeypatch.setattr(torch_choice, "installed_torch", lambda: found)


def test_where_there_is_no_torch_the_pinned_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_torch(monkeypatch, None)
    assert torch_choice.build_requirements() == [torch_choice.PINNED]
    assert torch_choice.runtime_requirement() == torch_choice.PINNED


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0+cpu", "2.14.0a0+git1234", "3.0"])
def test_an_installed_torch_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    use_torch(monkeypatch, version)
    assert torch_choice.build_requirements() == []
    assert torch_choice.runtime_requirement() == torch_choice.ANY_SUPPORTED


@pytest.mark.parametrize("version", ["2.10.1", "1.13.1+cu117"])
def test_an_older_torch_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    use_torch(monkeypatch, version)
    with pytest.raises(SystemExit) as refused:
        torch_choice.build_requirements()
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert "2.11" in sentence
    assert version in sentence


def test_the_torch_of_this_environment_is_found() -> None:
    found = torch_choice.installed_torch()
    assert found is not None
    assert found.version == torch.__version__
    assert Path(found.site, "torch").samefile(Path(torch.__file__).parent)


@pytest.mark.parametrize(
    ("version", "answer"),
    [(None, torch_choice.PINNED), ("2.12.0", ""), ("2.9.1", "2.9.1 is installed")],
)
def test_the_choice_in_a_fresh_environment(
    tmp_path: Path, version: str | None, answer: str
) -> None:
    """The same, with a real virtual environment, from inside an isolation like pip's."""
    made = python("-m", "venv", "--without-pip", str(tmp_path / "venv"))
    assert made.returncode == 0, made.stderr
    interpreter = tmp_path / "venv" / "bin" / "python"
    if version is not None:
        (site,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
        (site / "torch").mkdir()
        (site / "torch" / "__init__.py").touch()
        (site / "torch" / "version.py").write_text(f"__version__ = '{version}'\n")
    # What pip's isolation puts in the way: a sitecustomize that hides the environment's packages.
    isolation = tmp_path / "isolation"
    isolation.mkdir()
    (isolation / "sitecustomize.py").write_text(
        "import sys\nsys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
    )
    ran = subprocess.run(
        [interpreter, "-m", "_build_backend.torch_choice"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(isolation)},
        capture_output=True,
        text=True,
    )
    assert answer in (ran.stdout + ran.stderr)
    assert bool(ran.stdout.strip()) == (version is None)
    assert (ran.returncode == 0) == (version != "2.9.1")


def test_the_pin_is_one_that_is_supported() -> None:
    torch_choice.refuse_if_too_old(torch_choice.PINNED.removeprefix("torch=="))


# Whether the machine can compile


def test_no_compiler_gives_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SystemExit, match=r"^rnncells .* no C\+\+ compiler .*\.$"):
        toolchain.choose_compiler()


def test_a_named_compiler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(SystemExit, match="no-such-compiler"):
        toolchain.choose_compiler()


def test_missing_python_headers_give_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_compiler(tmp_path, "g++")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    with pytest.raises(SystemExit, match=r"^rnncells .* Python's headers, and .*include has none"):
        toolchain.choose_compiler()


def test_a_compiler_of_any_usual_name_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_compiler(tmp_path, "clang++")
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert toolchain.choose_compiler() == os.environ["CXX"] == "clang++"


def fake_compiler(folder: Path, name: str) -> None:
    path = folder / name
    path.touch()
    path.chmod(0o755)


# The build


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of what a build reads, with nothing built in it."""
    for name in ("csrc", "rnncells", "_build_backend"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_build_without_a_compiler_ends_with_the_sentence(tree: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    ran = python("setup.py", "-q", "build_ext", "--inplace", cwd=tree, PATH=str(tree), CXX="")
    assert ran.returncode != 0
    assert ran.stderr.strip().splitlines()[-1].startswith("rnncells compiles its kernels, and no")
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_the_package_carries_its_data(tree: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    ran = python("setup.py", "-q", "build_py", "--build-lib", "packed", cwd=tree)
    assert ran.returncode == 0, ran.stderr
    packed = tree / "packed"
    wanted = [p.relative_to(tree) for p in tree.glob("rnncells/forecast/data/*")]
    wanted += [p.relative_to(tree) for p in tree.glob("rnncells/**/*.py")]
    assert Path("rnncells", "forecast", "__init__.py") in wanted
    missing = [path for path in wanted if not (packed / path).is_file()]
    assert not missing
    assert (packed / "rnncells" / "py.typed").is_file()
    assert not any(packed.glob("tests"))
    assert not any(packed.glob("bench"))


@pytest.mark.slow
def test_a_build_compiles_again_only_what_changed(tree: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    pytest.importorskip("ninja")

    registry = tree / "csrc" / "cells" / "registry.h"  # with two cells: quicker to compile
    few = {"All": "RnnTanh", "Other": "RnnOpen"}
    lists = re.compile(r"^using (\w+)Cells = CellList<[^;]*>;", re.MULTILINE)
    text, count = lists.subn(
        lambda found: f"using {found[1]}Cells = CellList<{few[found[1]]}>;", registry.read_text()
    )
    assert count == len(few)
    registry.write_text(text)

    def compiled() -> set[str]:
        ran = python("setup.py", "build_ext", "--inplace", cwd=tree)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return set(re.findall(r"^\[\d+/\d+\] .* -c \S*/(csrc/\S+)", ran.stdout, re.MULTILINE))

    sources = {
        str(path.relative_to(tree))
        for path in [*tree.glob("csrc/*.cpp"), *tree.glob("csrc/cpu/*.cpp")]
    }
    assert compiled() == sources
    assert compiled() == set()
    module = tree / "csrc" / "module.cpp"
    module.write_text(module.read_text() + "\n// changed\n")
    assert compiled() == {"csrc/module.cpp"}
    ran = python("-c", "import rnncells; print(rnncells.__file__)", cwd=tree)
    assert ran.stdout.strip() == str(tree / "rnncells" / "__init__.py"), ran.stderr
