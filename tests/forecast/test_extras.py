"""The optional packages: not needed to import, and one clear sentence where they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rnncells.forecast import RecurrentNet, Windows, draw_error_by_horizon, fit, picture
from rnncells.forecast.extras import require

WITHOUT_EXTRAS = """
import sys
sys.modules |= dict.fromkeys(["lightning_fabric", "matplotlib", "tqdm"])
from rnncells.forecast.__main__ import main
sys.exit(main(["demo", "--out", sys.argv[1]]))
"""


def sentence(package: str) -> str:
    return re.escape(
        f"rnncells.forecast needs {package} for this, which is not installed: "
        "run `pip install 'rnncells[forecast]'`"
    )


def test_require_gives_the_module() -> None:
    assert require("os.path") is sys.modules["os.path"]


def test_require_names_what_installs_a_missing_package() -> None:
    with pytest.raises(ImportError, match=sentence("no_such_package_here")):
        require("no_such_package_here.part")


def test_broken_package_tells_its_own_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_package_here.py").write_text("import no_such_package_here")
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package_here'"):
        require("broken_package_here")


def test_training_without_fabric(
    monkeypatch: pytest.MonkeyPatch, net: RecurrentNet, train: Windows, validation: Windows
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=sentence("lightning_fabric")):
        fit(net, train, validation)


def test_pictures_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=sentence("matplotlib")), picture(tmp_path / "a", [1]):
        draw_error_by_horizon(None, {}, {}, title="", unit="", step="")


def test_package_imports_and_demo_answers_without_any(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(f".*: {sentence('lightning_fabric')}\n", done.stderr)
    assert not list(tmp_path.iterdir())
