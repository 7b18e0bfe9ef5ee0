"""Grids of time: names read and written, stamps placed, frequencies found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncells.forecast.timegrid import Frequency, infer_frequency

np = pytest.importorskip("numpy")

NAMES = ["s", "15min", "h", "6h", "D", "W", "2W", "B", "2B", "MS", "ME", "QS", "QE", "YS", "YE", 1]


def ticks(*texts: str) -> Any:
    return np.array(texts, "M8[us]").astype(np.int64)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_and_written(name: str | int) -> None:
    assert Frequency.parse(name).name == name


def test_names_have_a_short_form() -> None:
    assert Frequency.parse("M") == Frequency.parse("MS")
    assert Frequency.parse("7D") == Frequency.parse("W")
    assert Frequency.parse("60min").name == "h"


@pytest.mark.parametrize("name", ["", "hour", "0h", "-1D", "1.5h", "H", 0, -1, True, None])
def test_unknown_names_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="freq: expected a frequency such as 'h'"):
        Frequency.parse(name)


@pytest.mark.parametrize(
    ("name", "stamps"),
    [
        ("h", ("2020-02-28T23", "2020-02-29T00", "2020-02-29T01")),
        ("B", ("2020-02-27T18:30", "2020-02-28T18:30", "2020-03-02T18:30")),
        ("MS", ("2019-12-05T06", "2020-01-05T06", "2020-02-05T06")),
        ("ME", ("2020-01-31", "2020-02-29", "2020-03-31")),
        ("QE", ("2019-12-31", "2020-03-31", "2020-06-30")),
        ("YS", ("2019-01-01", "2020-01-01", "2021-01-01")),
    ],
)
def test_stamps_of_the_calendar(name: str, stamps: tuple[str, ...]) -> None:
    expected = ticks(*stamps)
    frequency = Frequency.parse(name)
    assert frequency.stamps(int(expected[0]), range(3)).tolist() == expected.tolist()
    assert infer_frequency([expected], numbers=False) == frequency


@settings(max_examples=60)
@given(
    name=st.sampled_from(NAMES),
    start=st.datetimes(min_value=np.datetime64("1990-01-01", "s").item()),
    place=st.integers(0, 400),
)
def test_positions_undo_stamps(name: str | int, start: Any, place: int) -> None:
    frequency = Frequency.parse(name)
    start = start.replace(day=min(start.day, 28))  # a day that each month has
    if "E" in str(name):
        start = start.replace(month=12, day=31)
    first = int(np.datetime64(start, "us").astype(np.int64))
    first = int(frequency.stamps(first, 0))  # a weekend is no business day
    there = frequency.stamps(first, [place, place + 1])
    assert there[0] < there[1]
    assert frequency.positions(first, there).tolist() == [place, place + 1]
    off = frequency.positions(first, [int(there[0]) + 1]).tolist()
    assert off == [place + 1 if name == 1 else -1]


def test_stamps_before_the_start_are_off_the_grid() -> None:
    assert Frequency.parse(2).positions(10, [8, 10, 11, 14]).tolist() == [-1, 0, -1, 2]


def test_frequency_is_the_one_that_most_rows_keep() -> None:
    with_gap = ticks("2020-01-01T00", "2020-01-01T01", "2020-01-01T04", "2020-01-01T05")
    assert infer_frequency([with_gap], numbers=False).name == "h"
    assert infer_frequency([np.array([5, 10, 15, 30])], numbers=True).name == 5


def test_days_are_business_days_only_where_weekends_lack() -> None:
    days = np.arange("2020-01-06", "2020-01-25", dtype="M8[D]").astype("M8[us]").astype(np.int64)
    assert infer_frequency([days], numbers=False).name == "D"
    assert infer_frequency([days[:4]], numbers=False).name == "D"
    weekdays = days[np.arange(len(days)) % 7 < 5]
    assert infer_frequency([weekdays], numbers=False).name == "B"


def test_single_stamps_have_no_frequency() -> None:
    with pytest.raises(ValueError, match="freq: expected a frequency, because no series has two"):
        infer_frequency([np.array([1]), np.array([2])], numbers=True)
