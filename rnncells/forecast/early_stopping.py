"""Early stopping with patience, and the way back to the best weights."""

from __future__ import annotations

import math

from torch import Tensor, nn

from rnncells.forecast.checks import check_positive

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Watches the validation loss, keeps a copy of the best weights, says when to stop.

    Source: L. Prechelt, "Early stopping, but when?" (1998); patience as in Keras.

    Args:
        patience: epochs in a row without a better loss after which to stop, at least 1.

    Attributes:
        best: the lowest loss so far.
        best_epoch: its epoch, None before the first update.
    """

    def __init__(self, patience: int) -> None:
        [self.patience] = check_positive(patience=patience)
        self.best = math.inf
        self.best_epoch: int | None = None
        self._weights: dict[str, Tensor] = {}

    def update(self, loss: float, epoch: int, model: nn.Module) -> bool:
        """Take note of one epoch's validation loss; True when it is time to stop."""
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch
            self._weights = {name: w.detach().clone() for name, w in model.state_dict().items()}
        return self.best_epoch is not None and epoch - self.best_epoch >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back; without any, leave the model as it is."""
        if self._weights:
            model.load_state_dict(self._weights)
