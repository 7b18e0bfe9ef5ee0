"""Windows against cases worked out by hand, and no look at another part of the series."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torch.utils.data import DataLoader

from rnncells.forecast import Windows

NAN = float("nan")


def numbered(steps: int) -> Tensor:
    """Feature 0 counts the steps, feature 1 counts them in hundreds."""
    step = torch.arange(float(steps))
    return torch.stack([step, 100 * step], dim=1)


def test_context_and_horizon_by_hand() -> None:
    windows = Windows(numbered(6), context=3, horizon=2)
    x, y, *_ = windows.batch()
    assert windows.origins.tolist() == [3, 4]
    assert x.tolist() == [[[0, 0], [1, 100], [2, 200]], [[1, 100], [2, 200], [3, 300]]]
    assert y.tolist() == [[[3], [4]], [[4], [5]]]


def test_targets_are_chosen_columns() -> None:
    y = Windows(numbered(5), 3, 1, targets=(1, 0)).batch([0]).y
    assert y.tolist() == [[[300, 3]]]


def test_every_step_holds_the_forecast_due_after_each_step() -> None:
    x, y, *_ = Windows(numbered(6), 3, 2, every_step=True).batch([1])
    assert x[0, :, 0].tolist() == [1, 2, 3]
    assert y.shape == (1, 3, 2, 1)
    assert y[0, :, :, 0].tolist() == [[2, 3], [3, 4], [4, 5]]


def test_last_entry_of_every_step_is_the_plain_target() -> None:
    plain, every = (Windows(numbered(20), 5, 3, every_step=flag) for flag in (False, True))
    assert torch.equal(plain.batch()[1], every.batch()[1][:, -1])


def test_stride_spaces_the_origins() -> None:
    assert Windows(numbered(12), 3, 2, stride=4).origins.tolist() == [3, 7]


def test_shortest_series_gives_one_window() -> None:
    assert len(Windows(numbered(5), 3, 2)) == 1


def test_items_and_loader_agree_with_batch() -> None:
    windows = Windows(numbered(12), 3, 2)
    x, y, *_ = windows.batch()
    assert torch.equal(windows[2][0], x[2])
    assert torch.equal(windows[2][1], y[2])
    loader: Any = DataLoader(windows, batch_size=3, collate_fn=lambda batch: batch)
    assert torch.equal(torch.cat([part[0] for part in loader]), x)
    assert torch.equal(torch.cat([part[1] for part in loader]), y)


def test_series_is_not_copied() -> None:
    series = numbered(10)
    windows = Windows(series, 3, 2)
    series[0, 0] = -1
    assert windows.batch([0])[0][0, 0, 0] == -1


def test_spans_share_no_target_and_leave_none_out() -> None:
    series = numbered(40)
    spans = [(0, 20), (20, 30), (30, 40)]
    targets = [
        set(Windows(series, 5, 3, start=a, stop=b).batch()[1].flatten().tolist()) for a, b in spans
    ]
    assert targets[0] == set(range(5, 20))  # the first steps have no whole context
    assert targets[1] == set(range(20, 30))
    assert targets[2] == set(range(30, 40))


def test_training_span_never_reads_what_comes_after_it() -> None:
    series = numbered(40)
    changed = series.clone()
    changed[20:] = 1e6
    for every_step in (False, True):
        before, after = (
            Windows(values, 5, 3, stop=20, every_step=every_step).batch()
            for values in (series, changed)
        )
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])


def test_context_ends_before_its_horizon() -> None:
    x, y, *_ = Windows(numbered(30), 5, 3, start=10).batch()
    assert torch.equal(x[:, -1, 0] + 1, y[:, 0, 0])


def test_skip_leaves_out_each_window_that_touches_a_gap() -> None:
    series = numbered(12)
    series[5, 0] = NAN
    windows = Windows(series, 2, 2, missing="skip")
    # a window at o reads steps o - 2 to o + 1
    assert windows.origins.tolist() == [2, 3, 8, 9, 10]
    assert not windows.batch()[0].isnan().any()


def test_skip_minds_a_covariate_in_the_context_only() -> None:
    series = numbered(12)
    series[5, 1] = NAN  # the target is feature 0
    assert Windows(series, 2, 2, missing="skip").origins.tolist() == [2, 3, 4, 5, 8, 9, 10]


@settings(max_examples=60)
@given(
    steps=st.integers(1, 30),
    context=st.integers(1, 8),
    horizon=st.integers(1, 6),
    stride=st.integers(1, 5),
    span=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    gaps=st.sets(st.integers(0, 29), max_size=4),
)
def test_windows_are_those_of_the_definition(
    steps: int, context: int, horizon: int, stride: int, span: tuple[int, int], gaps: set[int]
) -> None:
    start, stop = min(span), min(max(span), steps)
    series = numbered(steps)
    series[[gap for gap in gaps if gap < steps], 0] = NAN
    expected = [
        o
        for o in range(max(start, context), stop - horizon + 1, stride)
        if not gaps & set(range(o - context, o + horizon))
    ]
    options: dict[str, Any] = {"start": start, "stop": stop, "stride": stride, "missing": "skip"}
    if start >= stop or not expected:
        with pytest.raises(ValueError, match=r"start, stop|series|expected"):
            Windows(series, context, horizon, **options)
        return
    windows = Windows(series, context, horizon, **options)
    assert windows.origins.tolist() == expected
    x, y, *_ = windows.batch()
    for row, origin in enumerate(expected):
        assert_close(x[row], series[origin - context : origin], rtol=0, atol=0)
        assert_close(y[row], series[origin : origin + horizon, :1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("series", "options", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "series: expected a tensor, got list"),
        (torch.ones(9, 2, dtype=torch.int64), {}, TypeError, "expected a floating-point dtype"),
        (torch.ones(9), {}, ValueError, r"expected rank 2, \[time, features\], got shape \[9\]"),
        (torch.ones(0, 2), {}, ValueError, "at least one time step"),
        (torch.ones(4, 2), {}, ValueError, r"context \+ horizon = 3 \+ 2 time steps, got 4"),
        (torch.tensor([[1.0], [NAN]] * 5), {}, ValueError, "a NaN at time step 1, feature 0"),
        (
            torch.tensor([[1.0], [float("inf")]] * 5),
            {"missing": "skip"},
            ValueError,
            "an infinity at time step 1",
        ),
        (torch.full((9, 2), NAN), {"missing": "skip"}, ValueError, "at least one window"),
        (
            torch.ones(9, 2),
            {"missing": "fill"},
            ValueError,
            "missing: expected one of 'error', 'skip'",
        ),
        (torch.ones(9, 2), {"targets": (2,)}, ValueError, "column numbers from 0 to 1"),
        (torch.ones(9, 2), {"targets": ()}, ValueError, "targets: expected"),
        (torch.ones(9, 2), {"targets": 1}, TypeError, r"such as \(0,\), got 1"),
        (torch.ones(9, 2), {"targets": "1"}, TypeError, "targets: expected a sequence"),
        (torch.ones(9, 2), {"targets": (0.5,)}, TypeError, "targets: expected a sequence"),
        (torch.ones(9, 2), {"context": True}, ValueError, "context: expected an integer"),
        (torch.ones(9, 2), {"stride": 0}, ValueError, "stride: expected an integer"),
        (torch.ones(9, 2), {"context": 0}, ValueError, "context: expected an integer"),
        (torch.ones(9, 2), {"horizon": 1.5}, ValueError, "horizon: expected an integer"),
        (torch.ones(9, 2), {"start": 5, "stop": 5}, ValueError, "0 <= start < stop <= 9"),
        (torch.ones(9, 2), {"stop": 10}, ValueError, "0 <= start < stop <= 9, got 0, 10"),
        (torch.ones(9, 2), {"start": 8}, ValueError, "at least one window"),
    ],
)
def test_bad_input(series: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Windows(series, **{"context": 3, "horizon": 2, **options})


def test_numpys_integers_are_integers() -> None:
    numpy = pytest.importorskip("numpy")
    four = numpy.int64(4)
    windows = Windows(numbered(30), four, four, [numpy.int64(1)], start=four, stride=four)
    plain = Windows(numbered(30), 4, 4, [1], start=4, stride=4)
    assert windows.origins.tolist() == plain.origins.tolist()
    assert windows.targets == (1,)
    assert {type(size) for size in (windows.context, windows.horizon, *windows.targets)} == {int}
    assert torch.equal(windows[numpy.int64(2)][0], plain[2][0])


def test_index_that_is_no_number() -> None:
    windows: Any = Windows(numbered(30), 4, 4)
    for index in (slice(0, 3), [0, 1], "0", 0.0):
        with pytest.raises(TypeError, match=r"one window's number, got .*; windows.batch\("):
            windows[index]
    with pytest.raises(IndexError):
        windows[len(windows)]
