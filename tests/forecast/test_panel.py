"""Panels: series in one buffer, columns in their roles, from arrays and tensors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncells.forecast import Panel, as_panel, panel_from_arrays

np = pytest.importorskip("numpy")


def two() -> Panel:
    """Series a of four steps and b of two: a target, a past and a future column, in hours."""
    return panel_from_arrays(
        {"a": torch.arange(4.0), "b": torch.arange(10.0, 12)},
        past={"a": torch.arange(4.0) * 2, "b": torch.zeros(2)},
        future={"a": torch.ones(4), "b": torch.ones(2)},
        static=[[1.0, 2.0], [3.0, 4.0]],
        start=["2020-01-01", "2020-01-02T12:00"],
        freq="h",
    )


def test_series_lie_one_after_another() -> None:
    panel = two()
    assert len(panel) == 2
    assert panel.columns == ("y", "past0", "future0")
    assert panel.offsets.tolist() == [0, 4, 6]
    assert panel.lengths.tolist() == [4, 2]
    assert panel.series("b").tolist() == [[10, 0, 1], [11, 0, 1]]
    assert panel.column("past0").tolist() == [0, 2, 4, 6, 0, 0]
    assert panel.static is not None
    assert panel.static.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("data", "form", "flat", "shape", "ids"),
    [
        (torch.zeros(5), "one", True, [5, 1], (0,)),
        (torch.zeros(5, 2), "one", False, [5, 2], (0,)),
        (np.zeros((3, 4, 2)), "many", False, [12, 2], (0, 1, 2)),
        ([np.zeros(3), np.zeros(2)], "list", True, [5, 1], (0, 1)),
        ({"x": [1, 2, 3]}, "dict", True, [3, 1], ("x",)),
        ([1.0, 2.0], "one", True, [2, 1], (0,)),
    ],
)
def test_forms_of_arrays(data: Any, form: str, flat: bool, shape: list[int], ids: Any) -> None:
    panel = as_panel(data)
    assert (panel.origin.form, panel.origin.flat) == (form, flat)
    assert list(panel.values.shape) == shape
    assert panel.ids == ids


def test_a_tensor_is_not_copied_and_a_panel_is_itself() -> None:
    series = torch.zeros(5)
    panel = as_panel(series)
    assert panel.values.data_ptr() == series.data_ptr()
    assert as_panel(panel) is panel
    assert as_panel(np.zeros(3, np.float32)).values.dtype == torch.float32
    assert as_panel([1, 2]).values.dtype == torch.float64


def test_stamps_and_cuts() -> None:
    panel = two()
    assert panel.stamps("b").astype(str).tolist() == [
        "2020-01-02T12:00:00.000000",
        "2020-01-02T13:00:00.000000",
    ]
    assert panel.times("a")[-1] == datetime(2020, 1, 1, 3, tzinfo=UTC)
    assert panel.steps_at("2020-01-01T02:30") == (3, 0)
    assert panel.steps_at(datetime(2020, 1, 2, 13, tzinfo=UTC)) == (4, 1)
    cut = panel.cut(start=[1, 0], stop=-1)
    assert cut.column("y").tolist() == [1, 2, 10]
    assert cut.times("a")[0] == datetime(2020, 1, 1, 1, tzinfo=UTC)


def test_numbered_steps_are_stamps_too() -> None:
    panel = panel_from_arrays(torch.zeros(3), start=7, freq=2)
    assert panel.stamps().tolist() == [7, 9, 11]
    assert panel.steps_at(9) == (1,)
    with pytest.raises(ValueError, match="expected stamps with dates, got plain numbers"):
        panel.times()


def test_select_and_roles() -> None:
    panel = two().select(["b"])
    assert (panel.ids, panel.lengths.tolist()) == (("b",), [2])
    assert panel.static is not None
    assert panel.static.tolist() == [[3, 4]]
    assert panel.times()[0] == datetime(2020, 1, 2, 12, tzinfo=UTC)
    changed = two().roles(["past0"], past=["y"])
    assert changed.columns == ("past0", "y")
    assert changed.series("a")[3].tolist() == [6, 3]


def test_thousands_of_series_are_found_at_once() -> None:
    panel = as_panel(torch.zeros(5000, 2, 1))
    assert [panel.series(one).shape[0] for one in panel.ids] == [2] * 5000


def test_a_panel_says_what_it_holds() -> None:
    assert repr(two()) == (
        "Panel(2 series; 2 to 4 steps; every h; targets y; past past0; future future0)"
    )
    assert repr(as_panel(torch.zeros(3, 2))) == "Panel(1 series; 3 to 3 steps; targets y0, y1)"


def test_dtype_is_changed_in_all() -> None:
    panel = two().to(torch.float64)
    assert panel.static is not None
    assert (panel.values.dtype, panel.static.dtype) == (torch.float64, torch.float64)
    assert panel.column("y").tolist() == two().column("y").tolist()


def bad_panel(**changes: Any) -> Panel:
    fields: dict[str, Any] = {
        "values": torch.zeros(3, 1),
        "offsets": torch.tensor([0, 3]),
        "ids": ("a",),
    }
    return Panel(**(fields | changes))


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: as_panel("abc"), TypeError, "data: expected an array or a tensor of numbers"),
        (lambda: as_panel([]), ValueError, "data: expected at least one series, got none"),
        (lambda: as_panel(torch.zeros(0)), ValueError, "at least one time step"),
        (lambda: as_panel(torch.zeros(2, 2, 2, 2)), ValueError, r"got shape \[2, 2, 2, 2\]"),
        (lambda: as_panel(np.array([True])), TypeError, "expected real numbers"),
        (
            lambda: as_panel([[1.0, np.inf]]),
            ValueError,
            r"data\[0\]: .* an infinity at",
        ),
        (
            lambda: as_panel([torch.zeros(3, 1), torch.zeros(3, 2)]),
            ValueError,
            r"data\[1\]: expected 1 features",
        ),
        (
            lambda: as_panel(torch.zeros(3), past=torch.zeros(2)),
            ValueError,
            r"past: expected series as long as data's \(3\), got 2",
        ),
        (lambda: as_panel(torch.zeros(3), start=0), ValueError, "both or none"),
        (lambda: as_panel(torch.zeros(3), start=[0, 1], freq=1), ValueError, "start: expected one"),
        (lambda: as_panel(torch.zeros(3), ids=["a", "b"]), ValueError, "got 2 ids"),
        (lambda: as_panel([[1.0], [2.0]], ids=["a", "a"]), ValueError, "got 'a' again"),
        (lambda: as_panel(two(), freq="h"), TypeError, "no further options, got freq"),
        (lambda: two().series("c"), ValueError, "id: no series 'c'; there are 2: 'a', 'b'"),
        (lambda: two().select([]), ValueError, "ids: expected at least one"),
        (lambda: two().roles(["past1"]), ValueError, r"did you mean 'past0'\?"),
        (lambda: two().roles(["y"], past=["y"]), ValueError, "no name twice, got 'y' again"),
        (lambda: two().cut(stop=0), ValueError, "got none of 'a'"),
        (lambda: two().cut(stop=[1]), ValueError, "stop: expected one step for each of 2 series"),
        (
            lambda: as_panel(torch.zeros(3)).stamps(),
            ValueError,
            "stamps, got none",
        ),
        (lambda: bad_panel(targets=("a", "b")), ValueError, "expected 1 names"),
        (lambda: bad_panel(offsets=torch.tensor([0, 2])), ValueError, "ids: expected one for each"),
        (lambda: bad_panel(static=torch.zeros(2, 1)), ValueError, "static: expected a row"),
        (lambda: bad_panel(values=torch.zeros(3, 1, dtype=torch.int64)), TypeError, "floating"),
    ],
)
def test_bad_input(act: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        act()


def test_missing_values_are_kept() -> None:
    values: Tensor = as_panel([1.0, np.nan, 3.0]).values
    assert values.isnan().flatten().tolist() == [False, True, False]
