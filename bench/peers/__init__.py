"""Who is timed beside us, each in a file of its own: as a layer, or training a network."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor


class LayerRun(NamedTuple):
    """One layer of a peer's, with torch.nn's weights, in one mode: forward alone, or training.

    ``call`` is what is timed, and is done when it returns. ``results`` calls once and returns the
    output y [T, B, H] and, in training, each weight's gradient under torch.nn's name for it.
    """

    call: Callable[[], object]
    results: Callable[[], dict[str, Tensor]]


class Side(Protocol):
    """A network of ``bench.chapter`` with its optimizer and its training data."""

    def warm_up(self, batches: list[Tensor]) -> None:
        """Train on the batches and forget it, so that nothing is set up or compiled on the clock.

        Args:
            batches: rows of the training data, int64, one tensor a batch.
        """

    def epoch(self, batches: list[Tensor]) -> None:
        """Train on the batches in turn."""

    def predict(self, x: Tensor) -> Tensor:
        """Return the forecast of x [B, T, 1] after each step, [B, T, horizon]."""
