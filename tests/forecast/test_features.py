"""Carrying covariates over gaps, and the clock."""

from __future__ import annotations

from datetime import datetime

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import carry_forward, hour_of_day

NAN = float("nan")


def test_carry_forward_takes_the_last_value_within_the_limit() -> None:
    column = torch.tensor([NAN, 1.0, NAN, NAN, NAN, 5.0, NAN])
    filled = carry_forward(column, limit=2)
    expected = torch.tensor([NAN, 1.0, 1.0, 1.0, NAN, 5.0, 5.0])
    assert_close(filled, expected, rtol=0, atol=0, equal_nan=True)


def test_carry_forward_never_looks_ahead_and_keeps_its_input() -> None:
    column = torch.tensor([1.0, NAN, 3.0])
    before = column.clone()
    assert carry_forward(column, limit=1)[1] == 1.0
    assert_close(column, before, rtol=0, atol=0, equal_nan=True)


def test_carry_forward_refuses_wrong_input() -> None:
    with pytest.raises(ValueError, match="column: expected rank 1"):
        carry_forward(torch.zeros(3, 2), limit=1)
    with pytest.raises(ValueError, match="limit: expected an integer of at least 1, got 0"):
        carry_forward(torch.zeros(3), limit=0)


def test_hour_of_day_is_a_clock() -> None:
    times = [datetime(2013, 1, 1, hour) for hour in (0, 6, 12, 18)]
    expected = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]], dtype=torch.float64)
    # one sine of an angle of at most 2 pi: a few units of the last place
    assert_close(hour_of_day(times), expected, rtol=0, atol=1e-15)


def test_array_is_no_column() -> None:
    with pytest.raises(TypeError, match="column: expected a Tensor, got ndarray"):
        carry_forward(pytest.importorskip("numpy").ones(9), 1)
