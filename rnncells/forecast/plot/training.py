"""How a training went."""

from __future__ import annotations

from typing import Any

from rnncells.forecast.extras import require
from rnncells.forecast.plot.canvas import COLOURS, finish
from rnncells.forecast.training import History

__all__ = ["draw_learning_curves"]


def draw_learning_curves(axes: Any, history: History, *, title: str) -> None:
    """Draw the losses epoch by epoch, on a log scale where they fall that far, and the best epoch.

    Args:
        axes: matplotlib's.
        history: what :func:`rnncells.forecast.fit` gave.
        title: what is drawn.
    """
    epochs = range(1, len(history.train_loss) + 1)
    curves = {"training": history.train_loss, "validation": history.validation_loss}
    for colour, (label, curve) in zip((COLOURS[1], COLOURS[0]), curves.items(), strict=True):
        if curve:
            axes.plot(epochs, curve, color=colour, marker="o", markersize=3, label=label)
    if history.validation_loss:
        best = history.best_epoch + 1
        axes.axvline(best, color="grey", linewidth=0.8, linestyle=":", label="best weights")
    losses = [*history.train_loss, *history.validation_loss]
    if min(losses) > 0 and max(losses) > 10 * min(losses):
        axes.set_yscale("log")
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    finish(axes, title, "loss", columns=3)
