"""The calendar as covariates, and what lies ahead of a panel's end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import (
    Windows,
    add_calendar,
    as_panel,
    give_back,
    give_back_windows,
    look_ahead,
    stamps_ahead,
)
from rnncells.forecast.calendar import CALENDAR, calendar_of

np = pytest.importorskip("numpy")


def test_cycles_are_clocks() -> None:
    stamps = np.array(["2013-01-01T00", "2013-01-01T06", "2013-01-01T12", "2013-01-01T18"], "M8[s]")
    expected = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]], dtype=torch.float64)
    # one sine of an angle of at most 2 pi: a few units of the last place
    assert_close(calendar_of(stamps, ["hour:sin", "hour:cos"]), expected, rtol=0, atol=1e-15)


def test_values_are_pythons() -> None:
    stamps = np.array(["1969-07-20T20:17", "2000-02-29T23:59", "2024-12-31T01:30"], "M8[us]")
    for number, time in enumerate(stamps.tolist()):
        value = {name: int(np.floor(of(stamps)[number])) for name, (_, of) in CALENDAR.items()}
        day_of_year = time.timetuple().tm_yday - 1
        assert value == {
            "minute": time.minute,
            "hour": time.hour,
            "day_of_week": time.weekday(),
            "day_of_month": time.day - 1,
            "day_of_year": day_of_year,
            "month": time.month - 1,
            "quarter": (time.month - 1) // 3,
        }


def test_one_hot_and_ahead() -> None:
    panel = as_panel(torch.zeros(5), start="2024-01-01", freq="D")  # a Monday
    panel = add_calendar(panel, ["day_of_week"], "one-hot")
    assert panel.future == tuple(f"day_of_week:{day}" for day in range(7))
    assert torch.equal(panel.values[:, 1:], torch.eye(7)[:5])
    ahead = look_ahead(panel, 3)
    assert ahead.lengths.tolist() == [8]
    assert torch.equal(ahead.values[5:, 1:], torch.eye(7)[[5, 6, 0]])
    assert ahead.values[5:, 0].isnan().all()
    assert torch.equal(ahead.values[:5], panel.values)
    assert stamps_ahead(panel, 1)[0].astype("M8[D]").tolist()[0].day == 6


def test_the_zone_s_clock_is_read() -> None:
    stamps = np.array(["2024-01-01T12:00", "2024-07-01T12:00"], "M8[us]")
    names = [f"hour:{hour}" for hour in range(24)]
    hours = calendar_of(stamps, names, zone="Europe/Berlin").argmax(dim=1)
    assert hours.tolist() == [13, 14]


def test_known_covariates_as_arrays() -> None:
    panel = as_panel([torch.zeros(3), torch.zeros(2)], future=[torch.ones(3), torch.ones(2)])
    ahead = look_ahead(panel, 2, torch.tensor([[[5.0], [6.0]], [[7.0], [8.0]]]))
    assert ahead.series(0)[:, 1].tolist() == [1, 1, 1, 5, 6]
    assert ahead.series(1)[:, 1].tolist() == [1, 1, 7, 8]
    with pytest.raises(ValueError, match=r"future: expected 2 series of shape \[2, 1\]"):
        look_ahead(panel, 2, torch.zeros(2, 3, 1))


@pytest.mark.parametrize(
    ("data", "kind", "shape"),
    [
        (torch.zeros(5), torch.Tensor, (2,)),
        (np.zeros((5, 3)), np.ndarray, (2, 3)),
        (np.zeros((4, 5, 3)), np.ndarray, (4, 2, 3)),
    ],
)
def test_forecasts_come_back_as_arrays(data: Any, kind: Any, shape: tuple[int, ...]) -> None:
    panel = as_panel(data)
    forecast = torch.arange(float(len(panel) * 2 * len(panel.targets)))
    forecast = forecast.reshape(len(panel), 2, len(panel.targets))
    back = give_back(panel, forecast)
    assert type(back) is kind
    assert tuple(back.shape) == shape
    assert back.flatten().tolist() == forecast.flatten().tolist()


def test_forecasts_of_lists_and_dicts_and_their_intervals() -> None:
    panel = as_panel({"u": np.zeros(3), "v": np.zeros(4)})
    back = give_back(panel, torch.tensor([[[1.0]], [[2.0]]]))
    assert {key: value.tolist() for key, value in back.items()} == {"u": [1], "v": [2]}
    point = torch.ones(2, 1, 1)
    back = give_back(as_panel([np.zeros(3), np.zeros(4)]), point, {90: (point - 1, point + 1)})
    assert sorted(back) == ["y_hat", "y_hat-hi-90", "y_hat-lo-90"]
    assert [value.tolist() for value in back["y_hat-lo-90"]] == [[0], [0]]


def test_a_backtest_of_arrays_comes_back_as_arrays() -> None:
    for data, shape in ((np.zeros(9), (5, 2)), (np.zeros((9, 3)), (5, 2, 3))):
        panel = as_panel(data)
        windows = Windows(panel, 3, 2)
        forecast = torch.zeros(5, 2, len(panel.targets))
        back = give_back_windows(panel, windows, forecast)
        assert type(back) is np.ndarray
        assert back.shape == shape
        with pytest.raises(ValueError, match=r"forecast: expected \[windows, horizon, targets\]"):
            give_back_windows(panel, windows, forecast[1:])


def test_bad_input() -> None:
    numbers = as_panel(torch.zeros(5), start=0, freq=1)
    with pytest.raises(ValueError, match="expected stamps with dates for the calendar"):
        add_calendar(numbers, ["hour"])
    dated = as_panel(torch.zeros(5), start="2024-01-01", freq="D")
    with pytest.raises(ValueError, match=r"features: .* got 'hours' \(did you mean 'hour'\?\)"):
        add_calendar(dated, ["hours"])
    with pytest.raises(ValueError, match="encoding: expected one of 'cycle', 'one-hot'"):
        add_calendar(dated, ["hour"], "sine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got 'hour:sin' again"):
        add_calendar(add_calendar(dated, ["hour"]), ["hour"])
    with pytest.raises(ValueError, match=r"forecast: expected .* \[1, 'horizon', 1\] in 'y_hat'"):
        give_back(dated, torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match="horizon: expected an integer"):
        look_ahead(dated, 0)
