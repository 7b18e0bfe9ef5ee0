"""The baselines' published figures, on the series that are made and on those that are read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from rnncells.forecast import (
    LeastSquares,
    Windows,
    autocorrelation,
    differenced,
    generate_time_series,
    mae,
    mase,
    moving_average,
    mse,
    naive,
    read_chicago_ridership,
    read_m4,
    seasonal_naive,
    seasonal_scales,
    smape,
    trend_and_season,
)

pytest.importorskip("numpy")

DATA = Path(__file__).parents[3] / "shared" / "data"
CHICAGO, HOURLY = DATA / "cta_ridership_daily.csv", DATA / "m4_hourly_train.csv.gz"
HEAD = "service_date,day_type,bus,rail_boardings,total_rides\n"


@pytest.mark.parametrize(("steps", "naively", "line"), [(1, 0.0202, 0.00293), (10, 0.2570, 0.0155)])
def test_waves(steps: int, naively: float, line: float) -> None:
    """Table rows 7 to 9: the book's figures, to the digits printed."""
    series = generate_time_series(10_000, 50 + steps)
    assert (series.shape, series.dtype) == ((10_000, 50 + steps, 1), torch.float32)
    train, valid = series[:7000], series[7000:9000]
    truth = valid[:, 50:]
    assert mse(naive(valid[:, :50], steps), truth) == pytest.approx(naively, abs=5e-5)
    model = LeastSquares.fit(train[:, :50], train[:, 50:])
    assert mse(model(valid[:, :50]), truth) == pytest.approx(line, abs=5e-6 if steps == 1 else 5e-5)


def test_waves_are_seeded_and_leave_the_global_state_alone() -> None:
    numpy = pytest.importorskip("numpy")
    numpy.random.seed(3)
    before = numpy.random.get_state()[1].tolist()
    assert torch.equal(generate_time_series(3, 9, seed=1), generate_time_series(3, 9, seed=1))
    assert not torch.equal(generate_time_series(3, 9, seed=1), generate_time_series(3, 9, seed=2))
    assert numpy.random.get_state()[1].tolist() == before
    with pytest.raises(ValueError, match="steps: expected an integer"):
        generate_time_series(3, 0)


def test_the_course_s_series() -> None:
    """The course's figures, validated from step 1,000 on, to the digits printed."""
    series = trend_and_season()
    assert series.shape == (1461, 1)
    x, truth, *_ = Windows(series, 415, 1, start=1000).batch()
    assert len(truth) == 461
    assert mae(naive(x, 1), truth) == pytest.approx(5.94, abs=5e-3)
    assert mae(moving_average(x, 1, 30), truth) == pytest.approx(7.14, abs=5e-3)
    smoothed = differenced(x, 1, season=365, window=50, smooth=11)
    assert mae(smoothed, truth) == pytest.approx(4.57, abs=5e-3)
    train = Windows(series, 30, 1, stop=1000).batch()
    line = LeastSquares.fit(train.x, train.y)
    assert mae(line(x[:, -30:]), truth) == pytest.approx(4.99, abs=5e-3)


@pytest.mark.skipif(not CHICAGO.exists(), reason="Chicago's ridership is not at hand")
def test_chicago() -> None:
    """The book's third edition: validation windows of 56 days and one more, January to May 2019."""
    panel = read_chicago_ridership(CHICAGO)
    assert panel.columns == ("bus", "rail", "W", "A", "U")
    assert panel.lengths.tolist() == [7639]  # 62 of the rows are there twice
    assert [str(stamp)[:10] for stamp in panel.stamps()[[0, -1]]] == ["2001-01-01", "2021-11-30"]
    assert panel.series("Chicago")[0].tolist() == [297192, 126455, 0, 0, 1]
    rail = panel.roles(["rail"])
    [first], [valid], [end] = map(rail.steps_at, ("2016-01-01", "2019-01-01", "2019-06-01"))
    x, truth, *_ = Windows(rail, 56, 1, start=valid + 56, stop=end).batch()
    assert mae(seasonal_naive(x, 1, 7), truth) == pytest.approx(41_274, abs=0.5)
    train = Windows(rail.cut(first, valid), 56, 1).batch()
    ridge = LeastSquares.fit(train.x / 1e6, train.y / 1e6, ridge=1.0)
    assert 1e6 * mae(ridge(x / 1e6), truth / 1e6) == pytest.approx(36_592, abs=0.5)
    # weeks, before any network
    correlation = autocorrelation(rail.cut(first, end).column("rail"), 10)
    assert correlation[1:].argmax() == 6


@pytest.mark.skipif(not HOURLY.exists(), reason="M4's hourly series are not at hand")
def test_m4_hourly() -> None:
    panel = read_m4(HOURLY)
    assert len(panel) == 414
    assert panel.lengths.unique().tolist() == [700, 960]
    assert panel.series("H1")[:3].flatten().tolist() == [605, 586, 586]
    x, truth, *_ = Windows(panel, 24, 48, start=-48).batch()
    assert len(truth) == 414
    forecast = seasonal_naive(x, 48, 24)
    # the official test part gives 13.91 and 1.193; these are the 48 points before it
    assert smape(forecast, truth) == pytest.approx(14.57, abs=5e-3)
    scales = seasonal_scales(panel.cut(stop=-48), 24)
    assert mase(forecast, truth, scales) == pytest.approx(1.228, abs=5e-4)


def test_a_row_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "cta.csv"
    path.write_text(HEAD + "01/02/2001,W,5,6,11\n01/01/2001,U,3,4,7\n01/02/2001,W,5,6,11\n")
    panel = read_chicago_ridership(path)
    assert panel.values.tolist() == [[3, 4, 0, 0, 1], [5, 6, 1, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "expected the columns service_date, day_type, bus, rail_boardings"),
        (HEAD, "expected at least one day"),
        (HEAD + "01/01/2001,U,3,x,7\n", "line 2 of .*: could not convert string to float: 'x'"),
        (HEAD + "2001-01-01,U,3,4,7\n", "line 2 of .*2001-01-01.* does not match"),
        (HEAD + "01/01/2001,U,3,4,7\n01/01/2001,U,3,5,8\n", "line 3 of .*2001-01-01 again, with"),
        (HEAD + "01/01/2001,U,3,4,7\n01/03/2001,W,3,5,8\n", "no row for 2001-01-02"),
    ],
)
def test_another_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cta.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_chicago_ridership(path)


def test_m4_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "m4.csv.gz"
    path.write_bytes(gzip.compress(b'"V1","V2","V3","V4"\n"H1","1","2.5","3"\n"H2","4","",""\n'))
    panel = read_m4(path)
    assert panel.ids == ("H1", "H2")
    assert panel.lengths.tolist() == [3, 1]
    assert panel.column("y").tolist() == [1, 2.5, 3, 4]
    path.write_bytes(gzip.compress(b'"V1","V2","V3"\n"H1","","3"\n'))
    with pytest.raises(ValueError, match="line 2 of"):
        read_m4(path)
    path.write_bytes(gzip.compress(b'"V1"\n'))
    with pytest.raises(ValueError, match="expected a head and at least one series"):
        read_m4(path)
    with pytest.raises(FileNotFoundError):
        read_m4(tmp_path / "none.csv")
