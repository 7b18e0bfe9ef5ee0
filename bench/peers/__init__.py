"""Who trains the network of ``bench.chapter``, each in a file of its own."""

from typing import Protocol

from torch import Tensor


class Side(Protocol):
    """A network with its optimizer and its training data."""

    def warm_up(self, batches: list[Tensor]) -> None:
        """Train on the batches and forget it, so that nothing is set up or compiled on the clock.

        Args:
            batches: rows of the training data, int64, one tensor a batch.
        """

    def epoch(self, batches: list[Tensor]) -> None:
        """Train on the batches in turn."""

    def predict(self, x: Tensor) -> Tensor:
        """Return the forecast of x [B, T, 1] after each step, [B, T, horizon]."""
