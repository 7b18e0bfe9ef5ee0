"""The estimator: what comes in is held against what it can take, and told with its place."""

from __future__ import annotations

import json
from datetime import date
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells.forecast import Forecaster, as_panel, look_ahead
from tests.forecast.commands import SHORT, hours, refused, rows_of, write
from tests.forecast.forecasters import CONTEXT, HORIZON, SMALL, frame_of, pick, waves

pytest.importorskip("lightning_fabric")
np = pytest.importorskip("numpy")


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    """Fitted on two series."""
    return Forecaster(**SMALL).fit(waves(2))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_stamp_twice_in_covariates_known_ahead(library: str) -> None:
    y = waves(2)
    panel = as_panel(frame_of(library, y, x=y.flatten().double().numpy()), future=["x"])
    ahead = frame_of(library, y[:, :HORIZON], first=60, x=np.arange(2.0 * HORIZON))
    assert look_ahead(panel, HORIZON, ahead).series("b")[-1, 1] == 2 * HORIZON - 1
    frames = pytest.importorskip(library)
    twice = frames.concat([ahead, pick(ahead, np.arange(2 * HORIZON) == 4)])
    match = (
        r"future: expected each time stamp once in a series, got 2024-01-03 13:00:00 at row 4 of "
        r"series 'b' and again at row 6"
    )
    with pytest.raises(ValueError, match=match):
        look_ahead(panel, HORIZON, twice)


def test_a_stamp_twice_in_the_file_of_what_is_known_ahead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = ("unique_id", "ds", "y", "x")
    path = write(tmp_path / "y.csv", [[*row, 1] for row in rows_of(waves(1))], head)
    ahead = [["a", stamp, 2] for stamp in hours(60, HORIZON)]
    twice = write(tmp_path / "ahead.csv", [*ahead, ahead[1]], ("unique_id", "ds", "x"))
    told = refused(capsys, 1, "forecast", path, *SHORT, "--future", "x", "--ahead", twice)
    assert "--ahead: ds: expected each time stamp once" in told
    assert "2024-01-03 13:00:00 at row 3 of series 'a' and again at row 5" in told


def test_values_known_ahead_that_are_missing_or_unknown(fitted: Forecaster) -> None:
    y = waves(2)
    model = Forecaster(**SMALL, missing="mask").fit(as_panel(y, future=y))
    ahead = torch.ones(2, HORIZON, 1)
    ahead[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"future: .* NaN of 'future0' at step 2 ahead of"):
        model.predict(future=ahead)
    with pytest.raises(ValueError, match="future: expected none, because the series have no"):
        fitted.predict(future=ahead)


def unequal() -> list[Tensor]:
    return [waves(1, 40)[0], waves(1, CONTEXT + HORIZON - 1)[0], waves(1, 5)[0], waves(1, 40)[0]]


def test_a_backtest_refuses_or_tells_short_series() -> None:
    y = waves(4, 40)
    model = Forecaster(**SMALL).fit(y)
    with pytest.raises(ValueError, match=r"y: no cut-off .* in 1 of 4 series: 1 \(14 steps\); sho"):
        model.backtest([*unequal()[:2], *y[2:]])
    with pytest.raises(ValueError, match=r"y: expected at least context = 12 .* got 5 of 2"):
        model.score(unequal())
    with pytest.raises(ValueError, match="short: expected one of"):
        model.backtest(y, short="leave")  # type: ignore[arg-type]
    short = r"in 2 of 4 series: 1 \(14 steps\), 2 \(5 steps\); they are left out"
    with pytest.warns(UserWarning, match=short):
        found = model.backtest(unequal(), short="skip")
    assert model.left_out == (1, 2)
    assert len(found) == 2 * (40 - CONTEXT - HORIZON + 1)
    with pytest.warns(UserWarning, match=short):
        score = model.score(unequal(), short="skip")
    assert score < 0
    model.score(y)
    assert not model.left_out


def test_a_series_without_a_cutoff_behind_the_start() -> None:
    y = waves(2, 40)
    model = Forecaster(**SMALL).fit(y)
    with pytest.raises(ValueError, match=r"in 1 of 2 series: 1 \(30 steps\)"):
        model.backtest([y[0], y[1, :30]], start=30)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_series_with_a_step_of_its_own_is_refused(library: str) -> None:
    y = waves(2, 96)
    frame = frame_of(library, y)
    number, step = np.repeat([0, 1], 96), np.tile(np.arange(96), 2)
    daily = pick(frame, (number == 0) | (step % 24 == 0))
    match = r"ds: mixed frequencies: expected time stamps 'h' apart, got most of series 'b' 'D' apa"
    with pytest.raises(ValueError, match=match):
        Forecaster(**SMALL, missing="mask").fit(daily)
    model = Forecaster(**SMALL, missing="mask").fit(frame)
    with pytest.raises(ValueError, match=match):
        model.predict(daily)
    # single steps that are missing by chance are none of that
    torch.manual_seed(1)
    model.predict(pick(frame, (step == 0) | (step == 95) | (torch.rand(192) < 0.5).numpy()))


class Colour(StrEnum):
    RED = "red"


class Shade(str, Enum):  # noqa: UP042 - its str() is another than its value
    DARK = "dark"


def test_ids_become_what_can_be_saved(tmp_path: Path) -> None:
    ids: list[Any] = [np.int64(7), np.str_("b"), Colour.RED, Shade.DARK, "e", 8]
    model = Forecaster(**SMALL).fit(as_panel(waves(6), ids=ids))
    assert [type(one) for one in model.fitted.ids] == [int, str, str, str, str, int]
    assert model.fitted.ids == (7, "b", "red", "dark", "e", 8)
    model.save(tmp_path)
    assert json.loads((tmp_path / "forecaster.json").read_text())["ids"] == list(model.fitted.ids)
    other = Forecaster.load(tmp_path)
    panel = as_panel(waves(6), ids=ids)
    assert torch.equal(other.predict(panel), model.predict(panel))


@pytest.mark.parametrize("one", [("a", 1), date(2024, 1, 1), 1.5, None, True, b"a"])
def test_ids_that_cannot_be_saved_are_refused(one: Any) -> None:
    with pytest.raises(TypeError, match=r"ids: expected text or whole numbers, .* got ") as caught:
        Forecaster(**SMALL).fit({one: waves(1)[0]})
    assert f"{one!r}, {type(one).__name__}" in str(caught.value)


def test_missing_values_are_told_with_their_place(fitted: Forecaster) -> None:
    y = waves(2)
    y[1, 50] = torch.nan
    place = r"expected all values, got a NaN at time step {} of series 1, column 'y'; a forecaster "
    calls: dict[str, Any] = {"fit": Forecaster(**SMALL).fit, "predict": fitted.predict}
    for call in (*calls.values(), fitted.backtest, fitted.score):
        with pytest.raises(ValueError, match="y: " + place.format(50)) as caught:
            call(y)
        assert "missing='mask'" in str(caught.value)
        assert "skip" not in str(caught.value)
    before = fitted.predict()
    with pytest.raises(ValueError, match="points: " + place.format(2)):
        fitted.update(y[:, 48:53])
    assert torch.equal(fitted.predict(), before)
    early = waves(2)
    early[0, 10] = torch.nan  # long before the context
    assert torch.equal(fitted.predict(early), fitted.predict(waves(2)))


@pytest.mark.parametrize("levels", [80, "80", ["80"], [True], [None]])
def test_levels_that_are_none(fitted: Forecaster, levels: Any) -> None:
    match = r"levels: expected a sequence of per cent, such as \[80, 95\], got "
    with pytest.raises(TypeError, match=match):
        fitted.predict(levels=levels)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"horizn": 3}, r"no parameter 'horizn' \(did you mean 'horizon'\?\)"),
        ({"training": 5}, "training: expected a dict of options by name, got 5"),
        ({"network": [1]}, r"network: expected a dict of options by name, got \[1\]"),
        ({"network": {"gated": True}}, "network: expected options of RecurrentNet, got 'gated'"),
        ({"dropout": "much"}, "dropout: expected a number from 0 to 1, got 'much'"),
    ],
)
def test_parameters_of_a_wrong_kind(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(TypeError, match=match):
        Forecaster(**SMALL | wrong).fit(waves(1))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"training": {"shedule": "step"}}, r"training: no .*'shedule' \(did you mean 'schedule'"),
        ({"training": {"epochs": 3}}, "training: no setting that is left to it, 'epochs'"),
        ({"dropout": 2}, "dropout: expected a number from 0 to 1, got 2"),
    ],
)
def test_parameters_of_a_wrong_value(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Forecaster(**SMALL | wrong).fit(waves(1))


def test_a_forecast_that_is_not_finite_is_an_error() -> None:
    model = Forecaster(**SMALL, head="point", scaler="window standard").fit(waves(2))
    huge = waves(2).double()
    huge[1] *= 1e200  # finite, and its square is not
    with pytest.raises(
        FloatingPointError, match=r"forecast: expected finite values.* series 1 from"
    ):
        model.predict(huge)


def test_a_blank_id_and_too_much_dropout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(waves(2))
    path = write(tmp_path / "y.csv", rows)
    told = refused(capsys, 2, "forecast", path, *SHORT, "--dropout", "2")
    assert "--dropout: expected a number from 0 to 1, got 2.0" in told
    rows[7][0] = " "
    told = refused(capsys, 1, "forecast", write(tmp_path / "blank.csv", rows), *SHORT)
    assert "unique_id: expected an id in each row, got none at row 9" in told


def test_json_that_is_nested_too_deeply_is_refused(fitted: Forecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    for depth in (500, 100_000):
        text = '{"format": "rnncells forecaster", "version": 1, "ids": ' + "[" * depth + "]" * depth
        (tmp_path / "forecaster.json").write_text(text + "}")
        with pytest.raises(ValueError, match=r"nested too deeply|was changed after it was saved"):
            Forecaster.load(tmp_path)
