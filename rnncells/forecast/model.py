"""A recurrent forecaster: many steps at once, from every step of what it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from rnncells.forecast.checks import check_columns, check_positive
from rnncells.layers import GRU, LSTM, SimpleRNN

__all__ = ["Cell", "Layers", "RecurrentNet", "recurrent_layer"]

Cell = Literal["simple_rnn", "lstm", "gru"]
Layers = Literal["rnncells", "torch"]

LAYERS: dict[Layers, dict[Cell, type[nn.Module]]] = {
    "rnncells": {"simple_rnn": SimpleRNN, "lstm": LSTM, "gru": GRU},
    "torch": {"simple_rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU},
}


def recurrent_layer(cell: Cell, layers: Layers = "rnncells") -> type[nn.Module]:
    """The layer's class: ours, or torch.nn's with the same signature.

    Raises:
        ValueError: a cell or a source of layers that is not known.
    """
    if layers not in LAYERS:
        raise ValueError(f"layers: expected one of {', '.join(LAYERS)}, got {layers!r}")
    if cell not in LAYERS[layers]:
        raise ValueError(f"cell: expected one of {', '.join(LAYERS[layers])}, got {cell!r}")
    return LAYERS[layers][cell]


class RecurrentNet(nn.Module):
    """Recurrent layers and a linear head that forecasts ``horizon`` steps at once.

    The forecast made after step t is x_t + W_o (m * h_t) + b_o: what the head learns is the
    change from the target's last value, so that a level that training never saw (a colder
    winter) needs no extrapolation. Training may use the forecasts of all steps (sequence to
    sequence), use takes the last (sequence to vector). The mask m is the dropout's, 1 in use.

    Args:
        cell: ``"simple_rnn"``, ``"lstm"`` or ``"gru"``.
        features: columns of the input, I.
        hidden_size: units of each recurrent layer, H.
        horizon: steps that are forecast.
        targets: the input columns that are forecast.
        num_layers: recurrent layers on top of each other.
        dropout: chance of dropping a hidden unit before the head, for a whole window at once
            (Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in
            recurrent neural networks", 2016), and between layers, as in torch.nn.
        layers: whose layers: ours (``"rnncells"``), or torch.nn's (``"torch"``) to compare with.

    Raises:
        TypeError: targets that are not a sequence of integers.
        ValueError: a size, column, cell or source of layers that is not allowed.
    """

    def __init__(
        self,
        cell: Cell,
        features: int,
        hidden_size: int,
        horizon: int,
        targets: Sequence[int] = (0,),
        *,
        num_layers: int = 1,
        dropout: float = 0.0,
        layers: Layers = "rnncells",
    ) -> None:
        super().__init__()
        features, hidden_size, horizon, num_layers = check_positive(
            features=features, hidden_size=hidden_size, horizon=horizon, num_layers=num_layers
        )
        self.features, self.horizon = features, horizon
        self.targets = list(check_columns(targets, features))
        between = dropout if num_layers > 1 else 0.0
        self.recurrent = recurrent_layer(cell, layers)(
            features, hidden_size, num_layers, batch_first=True, dropout=between
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, horizon * len(self.targets))

    def forward(self, x: Tensor, every_step: bool = False) -> Tensor:
        """Forecast from windows.

        Args:
            x: contexts [batch, time, features], of any length in time.
            every_step: give the forecast made after each step, not only after the last.

        Returns:
            [batch, horizon, targets], or with ``every_step`` [batch, time, horizon, targets].

        Raises:
            ValueError: a wrong rank or number of features.
        """
        if x.dim() != 3 or x.shape[2] != self.features:
            raise ValueError(
                f"x: expected shape [batch, time, {self.features}], got {list(x.shape)}"
            )
        hidden, _ = self.recurrent(x)
        if self.training and self.dropout.p > 0:
            # one mask for all steps: what is dropped at one step must not be seen at the next
            hidden = hidden * self.dropout(hidden.new_ones(len(x), 1, hidden.shape[2]))
        level = x[..., self.targets]
        if not every_step:
            hidden, level = hidden[:, -1], level[:, -1]
        change = self.head(hidden)
        return level.unsqueeze(-2) + change.unflatten(-1, (self.horizon, -1))
