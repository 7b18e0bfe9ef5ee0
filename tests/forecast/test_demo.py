"""The demo: its job without leaks, and one short run from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import Score, Training, load_laguardia
from rnncells.forecast.__main__ import main
from rnncells.forecast.demo import DemoSettings, run_demo
from rnncells.forecast.demo.compare import Comparison
from rnncells.forecast.demo.report import summarise
from rnncells.forecast.demo.task import Part, Task

PARTS: tuple[Part, ...] = ("train", "validation", "test")
SHORT = DemoSettings(
    context=24, stride=12, hidden_size=8, training=Training(epochs=2, learning_rate=1e-2)
)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task(load_laguardia(), DemoSettings())


def test_parts_follow_each_other_and_share_no_target(task: Task) -> None:
    seen: set[int] = set()
    for part in PARTS:
        windows = task.windows(part)
        start, stop = task.spans[part]
        assert windows.origins.min() >= start
        assert windows.origins.max() + windows.horizon <= stop
        targets = set((windows.origins.unsqueeze(1) + torch.arange(24)).flatten().tolist())
        assert not targets & seen
        seen |= targets
    assert [task.spans[part][0] for part in PARTS[1:]] == [
        task.spans[part][1] for part in PARTS[:2]
    ]


def test_scaler_and_training_windows_know_nothing_of_later_parts(task: Task) -> None:
    series = load_laguardia()
    first = task.spans["train"][1]
    values = series.values.clone()
    values[first:] += 1000
    changed = Task(replace(series, values=values), DemoSettings())
    assert torch.equal(changed.scaler.location, task.scaler.location)
    assert torch.equal(changed.scaler.scale, task.scaler.scale)
    assert changed.mase_scale == task.mase_scale
    before, after = (t.windows("train", every_step=True).batch() for t in (task, changed))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_windows_hold_only_temperatures_that_were_observed(task: Task) -> None:
    for part in PARTS:
        windows = task.windows(part)
        steps = windows.origins.unsqueeze(1) + torch.arange(-windows.context, windows.horizon)
        assert not task.temperature[steps].isnan().any()


def test_degrees_undo_the_scaling(task: Task) -> None:
    windows = task.windows("test")
    truth = Comparison(task).truth
    # the targets were rounded to float32: half a unit of 2^-23, times a scale of about 10 degrees
    assert_close(task.degrees(windows.batch()[1]), truth, rtol=0, atol=4 * 10 * 2**-24)


def test_twins_start_from_the_same_weights(task: Task) -> None:
    twins = Comparison(task)._twins("lstm")
    ours, torchs = (twins[name].state_dict() for name in ("rnncells", "torch.nn"))
    assert list(ours) == list(torchs)
    assert all(torch.equal(ours[name], torchs[name]) for name in ours)


def test_baselines_alone(task: Task) -> None:
    comparison = Comparison(task)
    comparison.run_baselines()
    errors = {score.model: score.mae for score in comparison.scores}
    temperature, origins = task.temperature, comparison.test.origins
    ahead = origins.unsqueeze(1) + torch.arange(24)
    by_hand = {
        "naive": (temperature[origins - 1].unsqueeze(1) - temperature[ahead]).abs().mean().item(),
        "seasonal naive": (temperature[ahead - 24] - temperature[ahead]).abs().mean().item(),
    }
    # a scaler's round trip in float64
    for model, error in by_hand.items():
        assert errors[model] == pytest.approx(error, rel=1e-12)
    assert errors["least squares"] < min(by_hand.values())


def test_summary_says_who_won(task: Task) -> None:
    comparison = Comparison(task)
    comparison.scores = [
        Score("naive", "", 0.1, 0.1, 1.0),  # not asked
        Score("least squares", "", 2.0, 3.0, 1.0),
        Score("LSTM", "rnncells", 2.5, 3.5, 1.0, 1.0),
        Score("LSTM", "torch.nn", 1.5, 4.0, 1.0, 1.5),
        *(
            Score(model, layers, 9.0, 9.0, 1.0, 1.0)
            for model in ("GRU", "SimpleRNN")
            for layers in ("rnncells", "torch.nn")
        ),
    ]
    lines = summarise(comparison).splitlines()
    assert (
        "By MAE, a network (LSTM on torch.nn) beat the least-squares line: 1.500 against 2.000 °C"
    ) in lines
    assert (
        "By RMSE, the least-squares line beat every network (the best: LSTM on rnncells): "
        "3.000 against 3.500 °C"
    ) in lines
    assert (
        "Training time of this one run in one thread, torch.nn's layers over ours: "
        "LSTM 1.5x, GRU 1.0x, SimpleRNN 1.0x"
    ) in lines
    assert "(one run on a machine that may have been busy is no benchmark)" in lines


def test_short_demo_from_end_to_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightning_fabric")
    pytest.importorskip("matplotlib")
    torch.set_num_threads(2)
    comparisons = []
    for folder in (tmp_path / "a" / "b", tmp_path / "again"):
        comparisons.append(run_demo(folder, SHORT))
        shown = capfd.readouterr()
        assert shown.err == ""
        assert str(folder / "forecast.png") in shown.out
        table = (folder / "scores.txt").read_text(encoding="utf-8")
        assert table.rstrip() in shown.out
        assert (folder / "forecast.png").read_bytes().startswith(b"\x89PNG")
        record = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        assert record["threads"] == 1
        assert len(record["scores"]) == 9
        assert "one run" in table
        for score in record["scores"]:
            assert f"{score['mae']:.3f}" in table
    assert torch.get_num_threads() == 2
    first, again = comparisons
    models = [(score.model, score.layers) for score in first.scores]
    networks = [
        (m, layer) for m in ("LSTM", "GRU", "SimpleRNN") for layer in ("rnncells", "torch.nn")
    ]
    assert models == [("naive", ""), ("seasonal naive", ""), ("least squares", ""), *networks]
    # the same numbers on each run, seconds aside
    assert [replace(s, seconds=None) for s in first.scores] == [
        replace(s, seconds=None) for s in again.scores
    ]
    errors = {(score.model, score.layers): score.mae for score in first.scores}
    for model in ("LSTM", "GRU", "SimpleRNN"):
        # two short epochs are enough to leave the last value's forecast behind
        assert errors[model, "rnncells"] < errors["naive", ""] < errors["seasonal naive", ""]
        # 14 steps amplify rounding of 1e-6 a little; a thousandth of a degree is far above it
        assert errors[model, "rnncells"] == pytest.approx(errors[model, "torch.nn"], abs=1e-3)


def test_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []
    monkeypatch.setattr("rnncells.forecast.demo.run_demo", called.append)
    assert main(["demo"]) == 0
    assert main(["demo", "--out", "elsewhere"]) == 0
    assert called == ["demo-output", "elsewhere"]
    with pytest.raises(SystemExit, match="2"):
        main(["dance"])
    assert "invalid choice: 'dance'" in capsys.readouterr().err


def test_folder_that_cannot_be_made_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning_fabric")
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file" / "out")]) == 1
    assert "Not a directory" in capsys.readouterr().err
