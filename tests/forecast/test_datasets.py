"""The series that ships: whole, regular, small, and said where it comes from."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import pairwise

import pytest

from rnncells.forecast import load_laguardia


def test_hours_follow_each_other_without_gap_or_double() -> None:
    times = load_laguardia().times()
    assert len(times) == 8730
    assert times[0] == datetime(2013, 1, 1, 6, tzinfo=UTC)
    steps = {later - earlier for earlier, later in pairwise(times)}
    assert steps == {timedelta(hours=1)}


def test_missing_values_are_those_that_the_docstring_tells() -> None:
    series = load_laguardia()
    assert series.columns == ("temperature", "dew_point", "pressure")
    assert series.values.shape == (8730, 3)
    assert series.values.isnan().sum(dim=0).tolist() == [24, 24, 24 + 963]
    assert not series.values.isinf().any()


def test_values_are_weather() -> None:
    series = load_laguardia()
    temperature, dew_point = series.column("temperature"), series.column("dew_point")
    pressure = series.column("pressure")
    known = ~temperature.isnan()
    assert temperature[known].min() > -20
    assert temperature[known].max() < 40
    # saturated air at the most; both are rounded to a tenth of a degree
    assert (dew_point[known] <= temperature[known] + 0.1).all()
    assert pressure[~pressure.isnan()].min() > 960
    assert pressure[~pressure.isnan()].max() < 1060


def test_first_line_is_read_as_written() -> None:
    # 39.92, 26.06 °F and 1011.9 hPa in the source
    assert load_laguardia().values[0].tolist() == [4.4, -3.3, 1011.9]


def test_days_are_warmest_in_the_afternoon() -> None:
    series = load_laguardia()
    temperature, times = series.column("temperature"), series.times()
    by_hour = [temperature[[t.hour == hour for t in times]].nanmean() for hour in range(24)]
    # 14:00 to 17:00 in New York, winter and summer time
    assert by_hour.index(max(by_hour)) in range(18, 23)


def test_file_is_small_and_tells_its_origin() -> None:
    data = (files("rnncells.forecast") / "data" / "laguardia_2013.csv.gz").read_bytes()
    assert len(data) < 150_000
    head = gzip.decompress(data)[:2000].decode("ascii")
    for word in ("Origin", "public domain", "CC0", "missing", "Nothing was filled in"):
        assert word in head


def test_unknown_column_names_those_there_are() -> None:
    expected = r"name: no column 'temp'; there are 3: 'temperature', 'dew_point', 'pressure'"
    with pytest.raises(ValueError, match=expected):
        load_laguardia().column("temp")
