"""Early stopping with patience, and the way back to the best weights."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from rnncells.forecast.checks import check_positive

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Watches the validation loss, keeps a copy of the best weights, says when to stop.

    Source: L. Prechelt, "Early stopping, but when?" (1998); patience as in Keras.

    Args:
        patience: epochs in a row without a better loss after which to stop, at least 1; None for
            never.

    Attributes:
        best: the lowest loss so far.
        best_epoch: its epoch, None before the first update.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = None if patience is None else check_positive(patience=patience)[0]
        self.best = math.inf
        self.best_epoch: int | None = None
        self._weights: dict[str, Tensor] = {}

    def begin(self, model: nn.Module) -> None:
        """Keep the weights at the start, should training fail before any better are known."""
        self._weights = _copy(model)

    def update(self, loss: float, epoch: int, model: nn.Module) -> bool:
        """Take note of one epoch's validation loss; True when it is time to stop."""
        if loss < self.best:
            self.best = loss
            self.keep(epoch, model)
        if self.patience is None or self.best_epoch is None:
            return False
        return epoch - self.best_epoch >= self.patience

    def keep(self, epoch: int, model: nn.Module) -> None:
        """Take an epoch's weights as the best, whatever its loss."""
        self.best_epoch, self._weights = epoch, _copy(model)

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back; without any, leave the model as it is unless it is broken."""
        if self._weights and (self.best_epoch is not None or not _is_finite(model)):
            model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._weights = dict(state["weights"])


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def _is_finite(model: nn.Module) -> bool:
    return all(bool(weight.isfinite().all()) for weight in model.parameters())
