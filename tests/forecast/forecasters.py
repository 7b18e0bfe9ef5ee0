"""Small jobs for the tests of the estimator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

HORIZON, CONTEXT = 3, 12
SMALL: dict[str, Any] = {
    "horizon": HORIZON,
    "context": CONTEXT,
    "hidden_size": 4,
    "epochs": 1,
    "batch_size": 32,
}
MODES = ("seq2seq", "seq2vec", "recursive")


def waves(series: int = 1, length: int = 60) -> Tensor:
    """[series, length, 1], float32: daily waves on levels that differ."""
    step = torch.arange(float(length))
    rows = [50.0 * n + 10 + (2 * torch.pi * step / 12 + n).sin() for n in range(series)]
    return torch.stack(rows).unsqueeze(2)


def frame_of(library: str, series: Tensor, first: int = 0, **more: Any) -> Any:
    """A long frame, hourly, of [series, time, 1]; the series are a, b, c and so on."""
    np = pytest.importorskip("numpy")
    frames = pytest.importorskip(library)
    count, length, _ = series.shape
    hours = np.datetime64("2024-01-01T00", "us") + (first + np.arange(length)) * np.timedelta64(
        1, "h"
    )
    columns = {
        "unique_id": [one for one in "abcdef"[:count] for _ in range(length)],
        "ds": np.tile(hours, count),
        "y": series.flatten().double().numpy(),
    }
    return frames.DataFrame(columns | more)


def pick(frame: Any, rows: Any) -> Any:
    """The rows of a frame where a mask is set."""
    return frame[rows] if hasattr(frame, "loc") else frame.filter(rows)
