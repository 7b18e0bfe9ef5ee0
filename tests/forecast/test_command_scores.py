"""``rnncells backtest`` and ``leaderboard``: scores that can be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells.forecast import Forecaster, LeastSquares, seasonal_scales
from rnncells.forecast.arrays import as_panel
from rnncells.forecast.command.leaderboard import NETWORKS
from rnncells.forecast.command.scoring import baselines
from tests.forecast.commands import SHORT, direct, read, refused, rows_of, run, run_json, write
from tests.forecast.forecasters import CONTEXT, HORIZON, waves

pytest.importorskip("lightning_fabric")
pytest.importorskip("numpy")

Capsys = pytest.CaptureFixture[str]
TEST, SEASON = 14, 6
WORDS = [*SHORT, "--test", TEST, "--season", SEASON]


@pytest.fixture
def noisy() -> Tensor:
    """[2, 60, 1], float64: waves with noise, so that no two models score alike."""
    torch.manual_seed(4)
    return waves(2).double() + 0.3 * torch.randn(2, 60, 1, dtype=torch.float64)


@pytest.fixture
def path(noisy: Tensor, tmp_path: Path) -> str:
    """A file with them."""
    return write(tmp_path / "two.csv", rows_of(noisy))


def truth_of(y: Tensor, step: int = 1) -> Tensor:
    """[cut-offs, horizon] of all series."""
    cutoffs = range(len(y[0]) - TEST, len(y[0]) - HORIZON + 1, step)
    return torch.stack([one[at : at + HORIZON, 0] for one in y for at in cutoffs])


def by_model(found: dict[str, Any]) -> dict[str, Any]:
    """The scores by their names."""
    return {score["model"]: score for score in found["scores"]}


def test_a_backtest_by_hand(noisy: Tensor, path: str, capsys: Capsys) -> None:
    found = run_json(capsys, "backtest", path, *WORDS, "--levels", "80", "--step", "2")
    train = noisy[:, :-TEST]
    model = Forecaster(**direct()).fit(train)
    parts = model.backtest(noisy, start=-TEST, stride=2, levels=[80])
    truth = truth_of(noisy, 2)
    assert found["cutoffs"] == len(truth) == 2 * 6
    error = parts["y_hat"].squeeze(2) - truth
    score = by_model(found)["gru"]
    assert score["mae"] == pytest.approx(error.abs().mean().item(), rel=1e-12)
    assert score["rmse"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-12)
    size = truth.abs() + (truth + error).abs()
    assert score["smape"] == pytest.approx((200 * error.abs() / size).mean().item(), rel=1e-12)
    scale = seasonal_scales(as_panel(train), SEASON).flatten().repeat_interleave(6)[:, None]
    assert score["mase"] == pytest.approx((error.abs() / scale).mean().item(), rel=1e-12)
    low, high = (parts[f"y_hat-{side}-80"].squeeze(2) for side in ("lo", "hi"))
    inside = ((low <= truth) & (truth <= high)).double()
    assert score["coverage"] == pytest.approx(inside.mean().item())
    assert score["by_step"]["mae"] == pytest.approx(error.abs().mean(0).tolist(), rel=1e-12)
    assert score["by_step"]["coverage"] == pytest.approx(inside.mean(0).tolist())

    last = torch.stack([y[at - 1, 0] for y in noisy for at in range(46, 58, 2)])
    naive = by_model(found)["naive"]
    assert naive["mae"] == pytest.approx((last[:, None] - truth).abs().mean().item(), rel=1e-12)
    assert naive["coverage"] is None
    names = ["gru", "naive", "seasonal naive", "differenced", "moving average"]
    assert list(by_model(found)) == names


def test_a_backtest_s_table_and_files(path: str, tmp_path: Path, capsys: Capsys) -> None:
    pytest.importorskip("matplotlib")
    out, plot = tmp_path / "out.csv", tmp_path / "out.png"
    text = run(capsys, "backtest", path, *WORDS, "--out", out, "--plot", plot)
    scores, ahead = text.split("\n\n")
    assert scores.split("\n")[0].split() == [
        *["model", "MAE", "RMSE", "MASE", "sMAPE", "in", "80", "%", "seconds"]
    ]
    assert len(scores.split("\n")) == 2 + 5
    assert ahead.split("\n")[0].split() == ["model", "MAE", "at", "step", "1", "2", "3"]
    rows = read(out.read_text())
    assert [row["step"] for row in rows] == ["1", "2", "3"] * 5
    assert plot.read_bytes()[:4] == b"\x89PNG"
    found = by_model(run_json(capsys, "backtest", path, *WORDS))
    assert [float(row["mae"]) for row in rows[:3]] == found["gru"]["by_step"]["mae"]


def test_a_backtest_of_a_saved_model(path: str, tmp_path: Path, capsys: Capsys) -> None:
    folder = tmp_path / "m"
    run(capsys, "forecast", path, *SHORT, "--save", folder)
    words = ["backtest", path, "--load", folder, "--test", TEST, "--season", SEASON]
    found = run_json(capsys, *words)
    assert "--horizon: belongs to fitting" in refused(capsys, 2, *words, "--horizon", "3")
    model = Forecaster.load(folder)
    expected = model.backtest(read_panel(path), start=-TEST).squeeze(2)
    truth = truth_of(torch.stack(list(read_panel(path).values.view(2, 60, 1))))
    error = (torch.as_tensor(expected) - truth).abs().mean().item()
    assert by_model(found)["gru"]["mae"] == pytest.approx(error, rel=1e-12)


def read_panel(path: str) -> Any:
    """The file's series under their ids."""
    rows = read(Path(path).read_text())
    values = torch.tensor([float(row["y"]) for row in rows], dtype=torch.float64).view(2, 60, 1)
    return as_panel(values, ids=["a", "b"], start="2024-01-01", freq="h")


def test_a_leaderboard(noisy: Tensor, path: str, tmp_path: Path, capsys: Capsys) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "p.png"
    found = run_json(capsys, "leaderboard", path, *WORDS, "--plot", plot)
    scores = by_model(found)
    plain = {"naive", "seasonal naive", "differenced", "moving average", "least squares"}
    assert set(scores) == set(NETWORKS) | plain
    mase = [score["mase"] for score in found["scores"]]
    assert mase == sorted(mase)
    assert all(score["seconds"] >= 0 for score in scores.values())
    assert all((score["coverage"] is None) == (name in plain) for name, score in scores.items())
    truth = truth_of(noisy)
    for name in ("lstm", "wavenet", "encoder-decoder", "linear"):
        model = Forecaster(**direct(**NETWORKS[name])).fit(noisy[:, :-TEST])
        error = model.backtest(noisy, start=-TEST).squeeze(2) - truth
        assert scores[name]["mae"] == pytest.approx(error.abs().mean().item(), rel=1e-12)
    assert scores["least squares"]["mae"] == pytest.approx(line_by_hand(noisy), rel=1e-5)
    assert plot.read_bytes()[:4] == b"\x89PNG"


def line_by_hand(y: Tensor) -> float:
    """The MAE of the exact line on windows scaled as the networks' are."""
    model = Forecaster(**direct()).fit(y[:, :-TEST])
    scaler = model.fitted.scaler
    scaled = (y - scaler.location[:, None]) / scaler.scale[:, None]
    origins = range(CONTEXT, 60 - TEST - HORIZON + 1)
    x = torch.stack([one[at - CONTEXT : at] for one in scaled for at in origins]).float()
    due = torch.stack([one[at : at + HORIZON] for one in scaled for at in origins]).float()
    line = LeastSquares.fit(x, due)
    held = range(60 - TEST, 60 - HORIZON + 1)
    last = torch.stack([one[at - CONTEXT : at] for one in scaled for at in held]).float()
    found = line(last).unflatten(0, (2, -1))
    back = found * scaler.scale[:, None, None] + scaler.location[:, None, None]
    return (back.flatten(0, 1).squeeze(2) - truth_of(y)).abs().mean().item()


def test_a_leaderboard_of_some_models_on_several_targets(tmp_path: Path, capsys: Capsys) -> None:
    y = torch.cat([waves(1), 100 * waves(2)[1:]], dim=2)[0].double()
    rows = [[step, *values] for step, values in enumerate(y.tolist())]
    path = write(tmp_path / "wide.csv", rows, ("ds", "u", "v"))
    words = ["leaderboard", path, *WORDS, "--target", "u,v", "--models", "dense,gru"]
    words += ["--missing", "mask"]
    text = run(capsys, *words)
    lines = text.split("\n\n")[0].split("\n")[2:]
    targets = [line.split()[-7 if "dense" in line or "gru" in line else -6] for line in lines]
    assert targets == ["u"] * 7 + ["v"] * 7
    told = refused(capsys, 2, *words[:2], *SHORT, "--models", "dense,gur")
    assert "--models: expected some of simple-rnn, lstm" in told


def test_missing_values_are_left_out_of_the_scores(
    noisy: Tensor, tmp_path: Path, capsys: Capsys
) -> None:
    y = noisy.clone()
    y[0, 50] = torch.nan
    y[1, 33:36] = torch.nan  # the first context begins in there
    rows = [[*row[:2], "" if row[2] != row[2] else row[2]] for row in rows_of(y)]
    path = write(tmp_path / "gaps.csv", rows)
    found = by_model(run_json(capsys, "backtest", path, *WORDS, "--missing", "mask"))
    truth = truth_of(y)
    last = torch.stack([one[at - 1, 0] for one in y for at in range(46, 58)])
    last[5] = y[0, 49, 0]  # where the last value is missing, the one before it counts
    error = (last[:, None] - truth).abs().nanmean().item()
    assert found["naive"]["mae"] == pytest.approx(error, rel=1e-12)
    assert all(score["mae"] is not None for score in found.values())


def test_a_season_too_long_and_a_constant_series_are_told(tmp_path: Path, capsys: Capsys) -> None:
    from rnncells.forecast.command import main

    path = write(tmp_path / "flat.csv", rows_of(torch.full((1, 60, 1), 5.0)))
    words = ["backtest", path, *SHORT, "--test", "6", "--season", "13"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "warning: a season of 13 steps is longer than the context: no seasonal naive" in err
    assert "warning: no MASE: series: expected a change from season to season" in err
    assert out.split("\n")[0].split()[3] == "MASE"


def test_baselines_need_what_they_look_at() -> None:
    past = torch.arange(24.0).view(2, 12, 1)
    assert set(baselines(past, 3, 1)) == {"naive", "moving average"}
    assert set(baselines(past, 3, 13)) == {"naive", "moving average"}
    assert set(baselines(past, 3, 12)) == {"naive", "moving average", "seasonal naive"}
    found = baselines(past, 3, 6)
    assert found["seasonal naive"][0].flatten().tolist() == [6, 7, 8]
    assert found["differenced"][0].flatten().tolist() == [12, 13, 14]
    assert found["moving average"][0].flatten().tolist() == [8.5] * 3
