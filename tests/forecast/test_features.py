"""Carrying covariates over gaps."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rnncells.forecast import carry_forward

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


def test_array_is_no_column() -> None:
    with pytest.raises(TypeError, match="column: expected a Tensor, got ndarray"):
        carry_forward(pytest.importorskip("numpy").ones(9), 1)
