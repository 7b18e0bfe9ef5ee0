"""Our layers and cells as parameters of tests that take long for one of them."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import rnncells

Layer = type[nn.Module]

KINDS: list[Layer] = [rnncells.SimpleRNN, rnncells.LSTM, rnncells.GRU]
CELLS: list[Layer] = [rnncells.SimpleRNNCell, rnncells.LSTMCell, rnncells.GRUCell]


def name_of(kind: Layer) -> str:
    return kind.__name__


kinds = pytest.mark.parametrize("kind", KINDS, ids=name_of)
cells = pytest.mark.parametrize("kind", CELLS, ids=name_of)


def mostly_slow(quick: Layer) -> Any:
    """Every kind; the quick run takes this one alone."""
    return pytest.mark.parametrize(
        "kind",
        [kind if kind is quick else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
        ids=name_of,
    )
