"""``rnncells forecast``: what the estimator gives, from a file to a file."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from rnncells.forecast import Forecaster, QuantileHead, as_panel
from rnncells.forecast.command import main
from tests.forecast.commands import (
    SHORT,
    direct,
    hours,
    numbers,
    read,
    refused,
    rows_of,
    run,
    run_json,
    write,
)
from tests.forecast.forecasters import CONTEXT, HORIZON, waves

pytest.importorskip("lightning_fabric")
pytest.importorskip("numpy")

ROOT = Path(__file__).parents[2]
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def two(tmp_path: Path) -> str:
    """A file with two series."""
    return write(tmp_path / "two.csv", rows_of(waves(2)))


def test_the_numbers_are_the_estimator_s(two: str, capsys: Capsys) -> None:
    found = read(run(capsys, "forecast", two, *SHORT, "--levels", "80,95"))
    expected = Forecaster(**direct()).fit(waves(2).double()).predict(levels=[80, 95])
    assert list(found[0]) == ["unique_id", "ds", *expected]
    for name, part in expected.items():
        assert torch.equal(numbers(found, name), part.flatten())
    assert [row["unique_id"] for row in found] == ["a"] * HORIZON + ["b"] * HORIZON
    assert [row["ds"] for row in found] == hours(60, HORIZON) * 2


def test_one_series_in_json_with_options(tmp_path: Path, capsys: Capsys) -> None:
    y = waves(1)[0].double()
    path = write(tmp_path / "one.csv", [row[1:] for row in rows_of(y[None])], ("when", "load"))
    given = ["--time", "when", "--target", "load", "--cell", "lstm", "--mode", "seq2vec"]
    given += ["--scaler", "window-standard", "--calendar", "hour,day_of_week", "--seed", "3"]
    found = run_json(capsys, "forecast", path, *SHORT, *given)
    options = direct(cell="lstm", mode="seq2vec", scaler="window standard", seed=3)
    panel = as_panel(y, start="2024-01-01", freq="h", targets=["load"])
    expected = Forecaster(**options, calendar=("hour", "day_of_week")).fit(panel).predict()
    assert torch.equal(numbers(found["forecast"], "y_hat"), expected.flatten())
    assert list(found["forecast"][0]) == ["when", "y_hat"]
    assert (found["frequency"], found["season"], found["series"]) == ("h", 24, 1)
    assert found["parameters"]["scaler"] == "window standard"
    assert len(found["training"]["train_loss"]) == 1


@pytest.mark.parametrize("model", ["encoder-decoder", "wavenet", "linear"])
def test_models_by_name(model: str, two: str, capsys: Capsys) -> None:
    found = read(run(capsys, "forecast", two, *SHORT, "--model", model))
    expected = Forecaster(**direct(model=model.replace("-", " "))).fit(waves(2).double()).predict()
    assert torch.equal(numbers(found, "y_hat"), expected.flatten())


def test_several_targets(tmp_path: Path, capsys: Capsys) -> None:
    y = torch.cat([waves(1), waves(2)[1:]], dim=2).double()
    rows = [[stamp, *values] for stamp, values in zip(hours(0, 60), y[0].tolist(), strict=True)]
    path = write(tmp_path / "wide.csv", rows, ("ds", "u", "v"))
    found = read(run(capsys, "forecast", path, *SHORT, "--target", "u,v", "--levels", "80"))
    expected = Forecaster(**direct()).fit(y[0]).predict(levels=[80])
    for number, target in enumerate("uv"):
        assert torch.equal(numbers(found, f"y_hat_{target}"), expected["y_hat"][:, number])
        low = numbers(found, f"y_hat_{target}-lo-80")
        assert torch.equal(low, expected["y_hat-lo-80"][:, number])


def test_covariates(tmp_path: Path, capsys: Capsys) -> None:
    y = waves(2).double()
    price, wind = y.cos(), y.abs()
    extra = torch.cat([price, wind], dim=2).flatten(0, 1).tolist()
    rows = [
        [*row, *more, len(row[0]) + ord(row[0])]
        for row, more in zip(rows_of(y), extra, strict=True)
    ]
    path = write(tmp_path / "more.csv", rows, ("unique_id", "ds", "y", "price", "wind", "size"))
    known = [[one, stamp, 0.5] for one in "ba" for stamp in hours(59, HORIZON + 4)]
    ahead = write(tmp_path / "ahead.csv", known, ("unique_id", "ds", "price"))
    roles = ["--past", "wind", "--future", "price", "--static", "size"]
    found = read(run(capsys, "forecast", path, *SHORT, *roles, "--ahead", ahead))
    static = torch.tensor([[98.0], [99.0]]).double()
    panel = as_panel(y, past=wind, future=price, static=static)
    future = torch.full((2, HORIZON, 1), 0.5)
    expected = Forecaster(**direct()).fit(panel).predict(future=future)
    assert torch.equal(numbers(found, "y_hat"), expected.flatten())

    words = ["forecast", path, *SHORT, *roles]
    assert "--ahead: expected a file with price for the next 3 steps" in refused(capsys, 2, *words)
    short = write(tmp_path / "short.csv", known[:-4], ("unique_id", "ds", "price"))
    told = refused(capsys, 1, *words, "--ahead", short)
    assert "price of each of the next 3 steps of 'a', got none for 2024-01-03 14:00:00" in told


def test_saved_and_loaded(two: str, tmp_path: Path, capsys: Capsys) -> None:
    folder, out = tmp_path / "models" / "m", tmp_path / "out.csv"
    words = ["forecast", two, *SHORT, "--levels", "80"]
    first = run(capsys, *words, "--save", folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "forecaster.json",
        "forecaster.safetensors",
    ]
    loaded = ["forecast", two, "--load", folder, "--levels", "80"]
    assert run(capsys, *loaded) == first
    assert run(capsys, *loaded, "--out", out) == ""
    assert out.read_text() == first
    shorter = read(run(capsys, *loaded, "--horizon", "2"))
    assert [row["y_hat"] for row in shorter] == [
        row["y_hat"] for row in read(first) if row["ds"] != hours(60, HORIZON)[-1]
    ]
    told = refused(capsys, 2, *loaded, "--epochs", "3")
    assert "--epochs: belongs to fitting" in told
    assert "fitted for 3 steps" in refused(capsys, 1, *loaded, "--horizon", "9")

    other = write(tmp_path / "other.csv", rows_of(waves(3)))
    told = refused(capsys, 1, "forecast", other, "--load", folder)
    assert "no series seen in fit, 'c'" in told
    found = read(run(capsys, "forecast", other, "--load", folder, "--unseen", "scale"))
    assert len(found) == 3 * HORIZON
    (folder / "forecaster.json").write_text("{}")
    assert "another file" in refused(capsys, 1, *loaded)


def test_levels_widen_the_head(two: str, capsys: Capsys) -> None:
    found = read(run(capsys, "forecast", two, *SHORT, "--levels", "80,99"))
    levels = (0.005, 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, 0.995)
    model = Forecaster(**direct(head=QuantileHead(levels))).fit(waves(2).double())
    assert torch.equal(
        numbers(found, "y_hat-hi-99"), model.predict(levels=[99])["y_hat-hi-99"].flatten()
    )
    told = refused(capsys, 2, "forecast", two, *SHORT, "--head", "point", "--levels", "80")
    assert "--levels: head 'point' tells no intervals" in told


def test_pictures(two: str, tmp_path: Path, capsys: Capsys) -> None:
    pytest.importorskip("matplotlib")
    paths = [tmp_path / "plot.png", tmp_path / "look.png"]
    out = run(
        capsys, "forecast", two, *SHORT, "--levels", "80", "--plot", paths[0], "--look", paths[1]
    )
    assert len(read(out)) == 2 * HORIZON
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "the following arguments are required: --horizon"),
        (["--horizon", "0"], "expected a whole number of at least 1, got '0'"),
        (["--horizon", "3", "--cell", "gro"], "invalid choice: 'gro'"),
        (["--horizon", "3", "--levels", "80,180"], "expected per cent between 0 and 100"),
        (["--horizon", "3", "--mode", "one-step"], "--horizon: mode 'one step' forecasts 1 step"),
        (["--horizon", "3", "--model", "dense", "--mode", "seq2seq"], "--mode: model 'dense'"),
        (["--horizon", "3", "--learning-rate", "-1"], "--learning-rate: expected a finite number"),
        (["--horizon", "3", "--calendar", "hours"], "did you mean 'hour'"),
        (["--horizon", "3", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["--horizon", "3", "--target", "y,,z"], "expected names, each once"),
        (["--horizon", "3", "--past", "y"], "column 'y' has two roles"),
    ],
)
def test_wrong_use(words: list[str], match: str, two: str, capsys: Capsys) -> None:
    assert match in refused(capsys, 2, "forecast", two, *words)


def test_outputs_are_tried_before_the_training(
    two: str, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(Forecaster, "fit", train)
    nowhere = tmp_path / "nowhere" / "out"
    for option in ("--out", "--plot", "--look"):
        told = refused(capsys, 1, "forecast", two, *SHORT, option, nowhere)
        assert told == f"rnncells forecast: {nowhere}: cannot be written, its folder is not there"
        told = refused(capsys, 1, "forecast", two, *SHORT, option, tmp_path)
        assert told.endswith("expected a file to write, got a folder")
    told = refused(capsys, 1, "forecast", two, *SHORT, "--save", f"{two}/model")
    assert told.endswith(f"{two}: expected a folder to write into, got a file")


def test_without_matplotlib(
    two: str, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = refused(capsys, 1, "forecast", two, *SHORT, "--plot", tmp_path / "p.png")
    assert "needs matplotlib" in told
    assert "pip install 'rnncells[forecast]'" in told


def test_a_training_that_diverges_is_told(two: str, capsys: Capsys) -> None:
    told = refused(capsys, 1, "forecast", two, *SHORT, "--learning-rate", "1e38")
    assert "training diverged in epoch 0" in told


def test_an_interruption_is_no_traceback(
    two: str, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Forecaster, "fit", interrupt)
    assert refused(capsys, 130, "forecast", two, *SHORT) == "rnncells forecast: interrupted"


def test_help_tells_the_exit_status(capsys: Capsys) -> None:
    for words in (["--help"], ["forecast", "--help"], ["impute", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(words)
        assert "exit status:\n  0    fine\n  1    the data" in capsys.readouterr().out


def test_the_program_itself(two: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"rnncells": "rnncells.forecast.command:main"}
    done = subprocess.run(
        [sys.executable, "-m", "rnncells", "forecast", "-", *SHORT],
        input=Path(two).read_text(),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read(done.stdout)) == 2 * HORIZON
    assert CONTEXT < 60
