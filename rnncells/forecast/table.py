"""A table of scores, as text for people and as records for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Score", "format_table"]


@dataclass(frozen=True)
class Score:
    """One line of the table.

    Attributes:
        model: the model's name.
        layers: whose recurrent layers it runs on, "" where it has none.
        mae, rmse: in the series' unit.
        mase: MAE over the seasonal naive forecast's MAE on the training part.
        seconds: of training, None where nothing is trained.
        epochs: trained, None where there are none.
    """

    model: str
    layers: str
    mae: float
    rmse: float
    mase: float
    seconds: float | None = None
    epochs: int | None = None


def format_table(scores: Sequence[Score], unit: str) -> str:
    """The scores as aligned lines of text, names on the left, numbers on the right."""
    head = ["model", "layers", f"MAE {unit}", f"RMSE {unit}", "MASE", "train s", "epochs"]
    lines = [head]
    for score in scores:
        errors = [f"{value:.3f}" for value in (score.mae, score.rmse, score.mase)]
        seconds = "" if score.seconds is None else f"{score.seconds:.2f}"
        epochs = "" if score.epochs is None else str(score.epochs)
        lines.append([score.model, score.layers, *errors, seconds, epochs])
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(size) if place < 2 else cell.rjust(size)
            for place, (cell, size) in enumerate(zip(line, width, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])
