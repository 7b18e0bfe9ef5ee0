"""The estimator: what it refuses, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rnncells.forecast import Forecaster, as_panel
from tests.forecast.forecasters import SMALL, frame_of, waves

pytest.importorskip("lightning_fabric")


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    """Fitted on two series."""
    return Forecaster(**SMALL).fit(waves(2))


def test_missing_values() -> None:
    y = waves(1, 60)[0, :, 0].clone()
    y[20:23] = float("nan")
    with pytest.raises(ValueError, match="got a NaN at time step 20"):
        Forecaster(**SMALL).fit(y)
    model = Forecaster(**SMALL, missing="mask").fit(y)
    y[-1] = float("nan")
    assert model.predict(y).isfinite().all()
    plain = Forecaster(**SMALL).fit(waves(1, 60)[0, :, 0])
    with pytest.raises(ValueError, match="NaN"):
        plain.predict(y)


def test_before_fit() -> None:
    for call in ("predict", "backtest", "update", "score"):
        with pytest.raises(RuntimeError, match="has not been fitted"):
            getattr(Forecaster(), call)(*[] if call == "predict" else [torch.zeros(500)])
    with pytest.raises(RuntimeError, match="has not been fitted"):
        Forecaster().save("nowhere")


def test_series_that_do_not_fit(fitted: Forecaster) -> None:
    with pytest.raises(ValueError, match=r"context \+ horizon = 15 time steps .* got 14 of 1"):
        Forecaster(**SMALL).fit([torch.zeros(15), torch.zeros(14)])
    with pytest.raises(ValueError, match="context = 12 time steps of each series, got 11 of 0"):
        fitted.predict(waves(2, 11))
    with pytest.raises(ValueError, match="y: no series seen in fit, 2; there are 2: 0, 1"):
        fitted.predict(waves(3))
    with pytest.raises(ValueError, match="points: no series seen in fit, 2"):
        fitted.update(waves(3))
    with pytest.raises(ValueError, match="expected the columns of fit"):
        fitted.predict(waves(2).expand(2, 60, 2))
    with pytest.raises(ValueError, match="infinity"):
        fitted.predict(waves(2).log() * 0 + float("inf"))


def test_stamps_that_do_not_follow() -> None:
    y = waves(1)
    model = Forecaster(**SMALL).fit(frame_of("polars", y[:, :50]))
    with pytest.raises(ValueError, match=r"points: .* ends with 2024-01-03T01.*got 2024-01-03T03"):
        model.update(frame_of("polars", y[:, 51:], first=51))
    with pytest.raises(ValueError, match="mixed frequencies"):
        model.predict(frame_of("polars", y).gather_every(2))
    daily = as_panel(y[0], start="2024-01-01", freq="D")
    with pytest.raises(ValueError, match="y: mixed frequencies: expected stamps 'h' apart"):
        Forecaster(**SMALL).fit(as_panel(y[0], start="2024-01-01", freq="h")).predict(daily)
    with pytest.raises(TypeError, match="only a frame has columns to choose"):
        Forecaster(**SMALL).fit(y, target="z")


def test_levels_that_the_head_cannot_tell(fitted: Forecaster) -> None:
    with pytest.raises(ValueError, match=r"learned quantiles from 0.025 to 0.975"):
        fitted.predict(levels=[99])
    with pytest.raises(ValueError, match="per cent between 0 and 100, got 180"):
        fitted.predict(levels=[180])
    model = Forecaster(**SMALL, head="point").fit(waves(1, 40)[0])
    with pytest.raises(TypeError, match="PointHead has no quantiles"):
        model.predict(levels=[80])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"mode": "seq2se"}, "mode: .*did you mean 'seq2seq'"),
        ({"scaler": "window"}, "scaler: expected one of"),
        ({"head": "quantiles"}, "head: .*did you mean 'quantile'"),
        ({"missing": "skip"}, "missing: expected one of"),
        ({"horizon": 0}, "horizon: expected an integer of at least 1"),
        ({"mode": "one step"}, "horizon: mode 'one step' forecasts 1 step, got 3"),
        ({"head": "negative binomial"}, "scaler: expected 'window mean' or None"),
        ({"cell": "gro"}, "cell: expected one of"),
        ({"epochs": 0}, "epochs: expected an integer of at least 1"),
    ],
)
def test_wrong_parameters(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Forecaster(**SMALL | wrong).fit(waves(1)[0])
