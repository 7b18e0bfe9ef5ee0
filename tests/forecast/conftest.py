"""Fixtures that the forecasting tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rnncells.forecast import RecurrentNet, Windows


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: for networks this small, threads cost more than they give on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def wave() -> Tensor:
    """Three hundred steps of a daily wave with a clock, [time, 2], float32."""
    angle = 2 * torch.pi * torch.arange(300) / 24
    return torch.stack([angle.sin() + 0.3 * (angle / 5).cos(), angle.cos()], dim=1)


@pytest.fixture
def train(wave: Tensor) -> Windows:
    """Windows to learn from, a forecast at each step."""
    return Windows(wave, 24, 4, stop=200, stride=2, every_step=True)


@pytest.fixture
def validation(wave: Tensor) -> Windows:
    """Windows that follow those of ``train``."""
    return Windows(wave, 24, 4, start=200)


@pytest.fixture
def net() -> RecurrentNet:
    """A small network with dropout, so that training draws random numbers."""
    torch.manual_seed(7)
    return RecurrentNet("gru", 2, 8, 4, dropout=0.1)
