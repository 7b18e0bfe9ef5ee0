"""The models that the tests put inside other people's tools."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import rnncells

CELLS = ("rnn", "lstm", "gru")

LAYERS: dict[tuple[str, str], type[nn.Module]] = {
    ("rnncells", "rnn"): rnncells.RNN,
    ("rnncells", "lstm"): rnncells.LSTM,
    ("rnncells", "gru"): rnncells.GRU,
    ("torch", "rnn"): nn.RNN,
    ("torch", "lstm"): nn.LSTM,
    ("torch", "gru"): nn.GRU,
}


class Regressor(nn.Module):
    """A recurrent stack with a linear head on its first and last time step, where each direction
    ends.

    Takes [B, T, features], gives [B, 1]. ``library`` is ``"rnncells"`` or ``"torch"``; the
    parameters and their names are the same. ``options`` go to the layer.
    """

    def __init__(
        self,
        cell: str = "gru",
        hidden_size: int = 8,
        features: int = 1,
        library: str = "rnncells",
        **options: Any,
    ) -> None:
        super().__init__()
        self.layer = LAYERS[library, cell](features, hidden_size, batch_first=True, **options)
        directions = 2 if options.get("bidirectional") else 1
        self.head = nn.Linear(directions * hidden_size, 1, dtype=options.get("dtype"))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)[0]
        return self.head(y[:, 0] + y[:, -1])


class StepByStep(nn.Module):
    """A loop over time around rnncells.LSTMCell: each parameter is used T times in one graph."""

    def __init__(self, hidden_size: int = 8, features: int = 1, dtype: Any = None) -> None:
        super().__init__()
        self.cell = rnncells.LSTMCell(features, hidden_size, dtype=dtype)
        self.head = nn.Linear(hidden_size, 1, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        assert state is not None
        return self.head(state[0])


def sines(count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Draws sine waves of 12 time steps [count, 12, 1], and the value that follows, [count, 1]."""
    start, speed = 6 * torch.rand(count, 1, dtype=dtype), 0.2 + 0.4 * torch.rand(count, 1).to(dtype)
    waves = torch.sin(start + speed * torch.arange(13, dtype=dtype)).unsqueeze(2)
    return waves[:, :-1], waves[:, -1]
