"""Windows over panels: many series, covariates, missing values, levels, and what lies ahead."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torch.utils.data import DataLoader

from rnncells.forecast import (
    Batch,
    Panel,
    Windows,
    WindowScaler,
    add_calendar,
    as_panel,
    look_ahead,
)

NAN = float("nan")


def numbered(*lengths: int, **options: Any) -> Panel:
    """Series a, b, c ... of these lengths; series n holds 1000 n, 1000 n + 1 and so on."""
    series = {"abcdef"[n]: 1000.0 * n + torch.arange(float(size)) for n, size in enumerate(lengths)}
    return as_panel(series, **options)


def with_roles(length: int = 12) -> Panel:
    """One series: target t, past 100 + t, future 200 + t, and two static values."""
    step = torch.arange(float(length))
    return as_panel(step, past=100 + step, future=200 + step, static=[[7.0, 8.0]])


def test_no_window_reaches_into_another_series() -> None:
    windows = Windows(numbered(6, 5, 7), 3, 2)
    x, y, *_ = windows.batch()
    assert windows.numbers.tolist() == [0, 0, 1, 2, 2, 2]
    assert windows.steps.tolist() == [3, 4, 3, 3, 4, 5]
    joined = torch.cat([x, y], dim=1).squeeze(2)
    assert (joined.diff(dim=1) == 1).all()
    assert joined[:, 0].tolist() == [0, 1, 1000, 2000, 2001, 2002]


def test_a_panel_s_buffer_is_not_copied() -> None:
    panel = numbered(6, 6)
    for every_step in (False, True):
        windows = Windows(panel, 3, 2, every_step=every_step)
        assert windows.series.data_ptr() == panel.values.data_ptr()
        for view in (windows._contexts, windows._horizons):
            assert view.untyped_storage().data_ptr() == panel.values.untyped_storage().data_ptr()


def test_roles_go_to_their_places() -> None:
    batch = Windows(with_roles(), 3, 2).batch([1])
    assert batch.x.tolist() == [[[1, 101, 201], [2, 102, 202], [3, 103, 203]]]
    assert batch.y.tolist() == [[[4], [5]]]
    assert batch.future is not None
    assert batch.future.tolist() == [[[204], [205]]]
    assert batch.static is not None
    assert batch.static.tolist() == [[7, 8]]
    assert (batch.observed, batch.level) == (None, None)


def test_every_step_has_its_own_future() -> None:
    batch = Windows(with_roles(), 3, 2, every_step=True).batch([0, 1])
    assert batch.future is not None
    assert torch.equal(batch.future, batch.y + 200)
    assert batch.y[0, :, :, 0].tolist() == [[1, 2], [2, 3], [3, 4]]


def test_a_slice_chooses_steps_as_a_strided_convolution_does() -> None:
    panel = numbered(60, 61)
    every = Windows(panel, 50, 10, every_step=True).batch().y
    chosen = Windows(panel, 50, 10, every_step=slice(3, None, 2))
    assert chosen.every_step
    assert torch.equal(chosen.batch().y, every[:, 3::2])
    assert chosen.batch().y.shape == (3, 24, 10, 1)


def test_one_window_and_a_loader_agree_with_batch() -> None:
    windows = Windows(with_roles(), 3, 2, missing="mask", scaler=WindowScaler())
    whole = windows.batch()
    loader: Any = DataLoader(windows, batch_size=4, collate_fn=lambda batch: batch)
    parts = list(loader)
    for name in Batch._fields:
        expected = getattr(whole, name)
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), expected)
        assert torch.equal(getattr(windows[3], name), expected[3])


def test_cut_offs_for_each_series() -> None:
    panel = numbered(20, 10)
    train = Windows(panel, 3, 2, stop=[15, 8])
    test = Windows(panel, 3, 2, start=[15, 8])
    assert (train.steps + 2 <= torch.tensor([15, 8])[train.numbers]).all()
    assert (test.steps >= torch.tensor([15, 8])[test.numbers]).all()
    last = Windows(panel, 3, 2, start=-2)
    assert last.steps.tolist() == [18, 8]
    dated = as_panel(torch.zeros(10), start="2024-01-01", freq="D")
    assert Windows(dated, 3, 2, start=dated.steps_at("2024-01-06")).steps.tolist() == [5, 6, 7, 8]


def test_pieces_follow_each_other_one_stride_apart() -> None:
    panel = numbered(14, 7, 11)
    windows = Windows(panel, 3, 2, stride=3)
    assert windows.steps.tolist() == [3, 6, 9, 12, 3, 3, 6, 9]
    assert windows.pieces == [4, 1, 3]
    assert torch.equal(windows.batch().x[:4].flatten(), panel.series("a")[:12, 0])
    panel.values[7] = NAN  # in the horizon at 6 and the context at 9
    assert Windows(panel, 3, 2, stride=3, missing="skip").pieces == [1, 1, 1, 3]
    assert Windows(numbered(5), 3, 2).pieces == [1]


def test_short_series_are_told_or_left_out() -> None:
    panel = numbered(6, 4, 3)
    message = r"found none in 'b' \(4 steps\), 'c' \(3 steps\); say short='skip'"
    with pytest.raises(ValueError, match=message):
        Windows(panel, 3, 2)
    windows = Windows(panel, 3, 2, short="skip")
    assert windows.left_out == ("b", "c")
    assert set(windows.numbers.tolist()) == {0}
    with pytest.raises(ValueError, match="expected at least one window"):
        Windows(panel, 9, 2, short="skip")


def gappy() -> Panel:
    """Ten steps; the target lacks step 4, the past column step 6."""
    panel = with_roles(10)
    panel.values[4, 0] = NAN
    panel.values[6, 1] = NAN
    return panel


def test_missing_values_are_refused_with_their_place() -> None:
    with pytest.raises(ValueError, match=r"a NaN at time step 4 of 0, column 'y' \(2 in all\)"):
        Windows(gappy(), 3, 2)


def test_missing_values_are_skipped() -> None:
    windows = Windows(gappy(), 2, 1, missing="skip")
    # contexts o - 2, o - 1 without 4 and 6; horizon o not 4
    assert windows.steps.tolist() == [2, 3, 9]


def test_missing_values_are_masked() -> None:
    windows = Windows(gappy(), 2, 2, missing="mask")
    assert windows.features == 5
    assert windows.masked == (0, 1)
    batch = windows.batch()
    assert windows.steps.tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert batch.observed is not None
    fourth = windows.steps.tolist().index(5)
    assert batch.x[fourth].tolist() == [[3, 103, 203, 1, 1], [0, 104, 204, 0, 1]]
    third = windows.steps.tolist().index(3)
    assert batch.y[third].flatten().tolist() == [3, 0]
    assert batch.observed[third].flatten().tolist() == [True, False]
    assert not any(part.isnan().any() for part in batch if part is not None)


def test_windows_without_any_target_are_left_out_of_the_masked_ones() -> None:
    assert Windows(gappy(), 2, 1, missing="mask").steps.tolist() == [2, 3, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("missing", ["skip", "mask"])
def test_covariates_known_ahead_must_be_there(missing: Literal["skip", "mask"]) -> None:
    panel = with_roles(10)
    panel.values[9, 2] = NAN
    assert Windows(panel, 3, 2, missing=missing).steps.tolist() == [3, 4, 5, 6, 7]


def test_levels_are_undone() -> None:
    torch.manual_seed(0)
    panel = as_panel({"a": 1e4 + torch.randn(40), "b": 10 * torch.randn(30)})
    for every_step in (False, True):
        plain = Windows(panel, 8, 4, every_step=every_step).batch()
        scaler = WindowScaler("standard")
        scaled = Windows(panel, 8, 4, every_step=every_step, scaler=scaler).batch()
        assert scaled.level is not None
        # a difference and a quotient, a product and a sum: some roundings of the largest value
        tolerance = 4 * torch.finfo(torch.float32).eps * 1e4
        for ours, theirs in ((scaled.x, plain.x), (scaled.y, plain.y)):
            assert_close(scaler.inverse(ours, scaled.level), theirs, rtol=0, atol=tolerance)
        # the mean of 8 values of 1e4 is off by some units of 2^-10, the deviation near 1
        assert scaled.x.mean(dim=1).abs().max() < 1e-2


def test_levels_are_the_targets_alone_and_mind_gaps() -> None:
    batch = Windows(gappy(), 4, 2, missing="mask", scaler=WindowScaler("mean")).batch([0])
    assert batch.level is not None
    assert batch.level.tolist() == [[[0], [1.5]]]  # of 0, 1, 2, 3
    assert batch.x[0, :, 0].tolist() == pytest.approx([0, 1 / 1.5, 2 / 1.5, 2])
    assert batch.x[0, :, 1].tolist() == [100, 101, 102, 103]
    assert batch.y[0, :, 0].tolist() == [0, pytest.approx(5 / 1.5)]


def test_what_lies_ahead() -> None:
    panel = as_panel([torch.arange(5.0), torch.arange(10.0, 14)], start="2024-01-01", freq="D")
    ahead = look_ahead(add_calendar(panel, ["day_of_week"], "one-hot"), 3)
    batch = Windows(ahead, 4, 3, start=-3, ahead=True).batch()
    assert batch.x[:, :, 0].tolist() == [[1, 2, 3, 4], [10, 11, 12, 13]]
    assert batch.y.abs().sum() == 0
    assert batch.observed is not None
    assert not batch.observed.any()
    assert batch.future is not None
    assert torch.equal(batch.future[0], torch.eye(7)[[5, 6, 0]])


def test_gaps_before_what_lies_ahead_are_told() -> None:
    panel = look_ahead(as_panel(torch.tensor([0.0, 1, NAN, 3])), 2)
    with pytest.raises(ValueError, match="a NaN in 1 of 1 windows"):
        Windows(panel, 3, 2, start=-2, ahead=True)
    batch = Windows(panel, 3, 2, start=-2, ahead=True, missing="mask").batch()
    assert batch.x[0].tolist() == [[1, 1], [0, 0], [3, 1]]


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 15), min_size=1, max_size=4),
    context=st.integers(1, 5),
    horizon=st.integers(1, 4),
    stride=st.integers(1, 3),
    gaps=st.sets(st.integers(0, 50), max_size=4),
)
def test_windows_are_those_of_each_series_by_itself(
    lengths: list[int], context: int, horizon: int, stride: int, gaps: set[int]
) -> None:
    panel = numbered(*lengths)
    for gap in gaps & set(range(len(panel.values))):
        panel.values[gap] = NAN
    options: Any = {"stride": stride, "missing": "skip", "short": "skip"}
    expected: list[Tensor] = []
    for one in panel.ids:
        try:
            x, y, *_ = Windows(panel.series(one), context, horizon, **options).batch()
        except ValueError:
            continue
        expected += torch.cat([x, y], dim=1)
    if not expected:
        with pytest.raises(ValueError, match="series: expected"):
            Windows(panel, context, horizon, **options)
        return
    x, y, *_ = Windows(panel, context, horizon, **options).batch()
    assert torch.equal(torch.cat([x, y], dim=1), torch.stack(expected))


def test_bad_input() -> None:
    panel: Any = numbered(9, 9)
    with pytest.raises(ValueError, match=r"targets: a panel knows its own; panel.roles"):
        Windows(panel, 3, 2, [0])
    with pytest.raises(ValueError, match="start: expected one step for each of 2 series, got 3"):
        Windows(panel, 3, 2, start=[1, 2, 3])
    with pytest.raises(ValueError, match="missing: expected one of 'error', 'skip', 'mask'"):
        Windows(panel, 3, 2, missing="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="short: expected one of 'error', 'skip'"):
        Windows(panel, 3, 2, short="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every_step: expected at least one step"):
        Windows(panel, 3, 2, every_step=slice(5, None))


@pytest.mark.parametrize("start", ["2019-06-01", 1.5, ["1", "2"], None])
def test_a_start_that_is_no_step(start: Any) -> None:
    with pytest.raises(TypeError, match=r"start: expected a time step .*steps_at\(stamp\) gives"):
        Windows(numbered(9, 9), 3, 2, start=start)


def test_cut_offs_may_be_tensors() -> None:
    panel = numbered(9, 7)
    cut: Any = torch.tensor([6, 4])
    assert Windows(panel, 3, 2, start=cut).steps.tolist() == [6, 7, 4, 5]
