"""Long frames of pandas and polars, in and back; each fault is told with its row."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
import torch

from rnncells.forecast import (
    Windows,
    as_panel,
    give_back,
    give_back_windows,
    look_ahead,
    panel_from_frame,
)

pytest.importorskip("numpy")

NAN = float("nan")
HOURS = [datetime(2020, 1, 1, hour) for hour in range(4)]
LONG: dict[str, list[Any]] = {
    "unique_id": ["b", "a", "b", "a", "b"],
    "ds": [HOURS[0], HOURS[1], HOURS[2], HOURS[2], HOURS[1]],
    "y": [1.0, 10.0, 3.0, NAN, 2.0],
    "price": [1, 2, 3, 4, 5],
    "size": [7, 8, 7, 8, 7],
}


@pytest.fixture(params=["pandas", "polars"])
def library(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def frame(library: Any, **changes: list[Any]) -> Any:
    return library.DataFrame(LONG | changes)


def test_rows_come_in_any_order(library: Any) -> None:
    panel = as_panel(frame(library), future=["price"], static=["size"])
    assert panel.ids == ("b", "a")
    assert panel.lengths.tolist() == [3, 2]
    assert panel.columns == ("y", "price")
    assert panel.series("b").tolist() == [[1, 1], [2, 5], [3, 3]]
    assert panel.column("y").isnan().tolist() == [False, False, False, False, True]
    assert panel.static is not None
    assert panel.static.tolist() == [[7], [8]]
    assert panel.frequency is not None
    assert panel.frequency.name == "h"
    assert panel.times("a")[0].hour == 1


def test_forecasts_come_back_as_frames(library: Any) -> None:
    panel = as_panel(frame(library))
    point = torch.tensor([[[4.0], [5.0]], [[12.0], [13.0]]])
    back = give_back(panel, point, {80: (point - 1, point + 1), 97.5: (point - 2, point + 2)})
    assert type(back) is library.DataFrame
    names = ["y_hat", "y_hat-lo-80", "y_hat-hi-80", "y_hat-lo-97.5", "y_hat-hi-97.5"]
    assert list(back.columns) == ["unique_id", "ds", *names]
    assert list(back["unique_id"]) == ["b", "b", "a", "a"]
    assert [stamp.hour for stamp in back["ds"]] == [3, 4, 3, 4]
    assert list(back["y_hat-hi-80"]) == [5, 6, 13, 14]


def test_other_names_and_several_targets(library: Any) -> None:
    renamed = {"shop": LONG["unique_id"], "day": LONG["ds"], "u": LONG["price"], "v": LONG["size"]}
    panel = as_panel(library.DataFrame(renamed), id="shop", time="day", target=["u", "v"])
    back = give_back(panel, torch.zeros(2, 1, 2), {80: (torch.zeros(2, 1, 2),) * 2}, name="GRU")
    assert list(back.columns) == ["shop", "day"] + [
        f"GRU_{target}{side}" for target in "uv" for side in ("", "-lo-80", "-hi-80")
    ]


def test_a_frame_without_ids_is_one_series(library: Any) -> None:
    panel = as_panel(library.DataFrame({"ds": [3, 4, 5], "y": [1, 2, 3]}))
    assert panel.ids == ("y",)
    back = give_back(panel, torch.zeros(1, 2, 1))
    assert list(back.columns) == ["ds", "y_hat"]
    assert list(back["ds"]) == [6, 7]
    with pytest.raises(ValueError, match=r"got 3 at row 0 .*; if there are several series, id="):
        as_panel(library.DataFrame({"ds": [3, 3], "y": [1, 2]}))


def test_dates_and_texts_are_stamps(library: Any) -> None:
    for days in ([date(2020, 1, 31), date(2020, 2, 29)], ["2020-01-31", "2020-02-29"]):
        panel = as_panel(library.DataFrame({"ds": days, "y": [1, 2]}))
        assert panel.frequency is not None
        assert panel.frequency.name == "ME"
        [ahead] = give_back(panel, torch.zeros(1, 1, 1))["ds"]
        assert (ahead.month, ahead.day) == (3, 31)


def test_a_time_zone_comes_back(library: Any) -> None:
    plain = frame(library)
    if library.__name__ == "pandas":
        plain["ds"] = plain["ds"].dt.tz_localize("Europe/Berlin")
    else:
        plain = plain.with_columns(library.col("ds").dt.replace_time_zone("Europe/Berlin"))
    panel = as_panel(plain)
    assert panel.times("b")[0].isoformat() == "2019-12-31T23:00:00+00:00"
    back = give_back(panel, torch.zeros(2, 1, 1))
    assert {stamp.isoformat() for stamp in back["ds"]} == {"2020-01-01T03:00:00+01:00"}


def test_empty_cells_are_missing_values(library: Any) -> None:
    panel = as_panel(frame(library, price=[None, 2, 3, 4, 5]), past=["price"])
    assert panel.column("price").isnan().tolist() == [True, False, False, False, False]


def test_gaps_are_told_or_marked(library: Any) -> None:
    stamps = [HOURS[0], HOURS[0], HOURS[3], HOURS[1], HOURS[1]]
    message = (
        r"ds: expected no gap in time stamps 'h' apart, got 1 missing before 2020-01-01 03:00:00 "
        r"at row 2 of series 'b' \(1 in all\); say gaps='mask'"
    )
    with pytest.raises(ValueError, match=message):
        as_panel(frame(library, ds=stamps))
    panel = as_panel(frame(library, ds=stamps), gaps="mask")
    assert panel.series("b").flatten().isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"ds": [HOURS[0], HOURS[1], HOURS[2], HOURS[2], HOURS[2]]},
            {},
            "ds: expected each time stamp once in a series, got 2020-01-01 02:00:00 at row 2 of "
            "series 'b' and again at row 4",
        ),
        (
            {"ds": [HOURS[0], HOURS[1], HOURS[2], datetime(2020, 1, 1, 1, 20), HOURS[1]]},
            {},
            "ds: mixed frequencies: expected time stamps 'h' apart, from 2020-01-01 01:00:00 on, "
            "got 2020-01-01 01:20:00 at row 3 of series 'a'",
        ),
        (
            {
                "unique_id": ["b", "a", "b", "b", "b"],
                "ds": [datetime(2020, 1, 1 + day) for day in (0, 0, 1, 2, 3)],
            },
            {"freq": "h"},
            "mixed frequencies: expected time stamps 'h' apart, got 24 times that from row 0 of",
        ),
        ({}, {"freq": "2h"}, "mixed frequencies: expected time stamps '2h' apart"),
        ({}, {"freq": 1}, "freq: expected one that fits the stamps in 'ds', got 1"),
        ({}, {"target": "yy"}, r"no column 'yy' \(did you mean 'y'\?\); there are 5: 'unique_id'"),
        ({}, {"time": "date"}, "time: no column 'date'"),
        ({}, {"id": "shop"}, "id: no column 'shop'"),
        ({}, {"gaps": "fill"}, "gaps: expected one of 'error', 'mask'"),
        ({}, {"static": ["price"]}, "static: expected one value of 'price' in each series, got 5"),
        ({"y": [1.0, 2.0, float("inf"), 4.0, 5.0]}, {}, "y: .* an infinity at row 2"),
        ({"unique_id": ["a", "b", None, "a", "b"]}, {}, "unique_id: .* got (None|nan) at row 2"),
        ({"ds": ["2020-01-01", "01/02/2020", "3", "4", "5"]}, {}, "got '01/02/2020' at row 1"),
        ({"ds": [HOURS[0], None, HOURS[1], HOURS[2], HOURS[3]]}, {}, "row 1 has none"),
    ],
)
def test_faults_are_told_with_the_row(
    library: Any, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        as_panel(frame(library, **changes), **options)


def test_what_is_no_frame_or_no_number(library: Any) -> None:
    with pytest.raises(TypeError, match="price: expected a column of numbers"):
        as_panel(frame(library, price=["x"] * 5), past=["price"])
    with pytest.raises(ValueError, match="frame: expected at least one row"):
        as_panel(frame(library)[:0])
    with pytest.raises(TypeError, match="expected pandas' or polars' DataFrame, got list"):
        panel_from_frame([])


def test_future_covariates_are_matched_by_series_and_stamp(library: Any) -> None:
    panel = as_panel(frame(library), future=["price"])
    known = {
        "unique_id": ["a", "b", "a", "b", "b"],
        "ds": [datetime(2020, 1, 1, hour) for hour in (3, 4, 4, 3, 5)],
        "price": [33, 44, 34, 43, 45],
    }
    ahead = look_ahead(panel, 2, library.DataFrame(known))
    assert ahead.series("b")[-2:, 1].tolist() == [43, 44]
    assert ahead.series("a")[-2:, 1].tolist() == [33, 34]
    assert ahead.series("a")[-2:, 0].isnan().all()
    with pytest.raises(ValueError, match="next 3 steps, series 'a' has none for 2020-01-01T05:00"):
        look_ahead(panel, 3, library.DataFrame(known))
    with pytest.raises(ValueError, match="future: expected values of price for the next 2 steps"):
        look_ahead(panel, 2)
    with pytest.raises(ValueError, match=r"future: no column 'price' \(did you mean 'prices'\?\)"):
        look_ahead(panel, 2, library.DataFrame(known | {"prices": known.pop("price")}))


def test_a_backtest_comes_back_as_a_frame(library: Any) -> None:
    panel = as_panel(frame(library, y=[1.0, 10.0, 3.0, 11.0, 2.0]))
    windows = Windows(panel, 1, 1)
    point = torch.tensor([[[2.5]], [[3.5]], [[11.5]]])
    back = give_back_windows(panel, windows, point, {80: (point - 1, point + 1)}, name="GRU")
    names = ["unique_id", "ds", "cutoff", "y", "GRU", "GRU-lo-80", "GRU-hi-80"]
    assert list(back.columns) == names
    assert list(back["unique_id"]) == ["b", "b", "a"]
    assert [stamp.hour for stamp in back["ds"]] == [1, 2, 2]
    assert [stamp.hour for stamp in back["cutoff"]] == [0, 1, 1]
    assert list(back["y"]) == [2, 3, 11]
    assert list(back["GRU-lo-80"]) == [1.5, 2.5, 10.5]


def test_a_column_is_an_array(library: Any) -> None:
    panel = as_panel(frame(library)["price"])
    assert panel.values.flatten().tolist() == [1, 2, 3, 4, 5]
    assert panel.origin.kind == "numpy"
