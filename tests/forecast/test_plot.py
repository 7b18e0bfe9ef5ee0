"""Pictures: what is drawn where, and a PNG at the end."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from rnncells.forecast import (
    History,
    autocorrelation,
    colours_of,
    draw_autocorrelation,
    draw_error_by_horizon,
    draw_forecasts,
    draw_intervals,
    draw_learning_curves,
    draw_residuals,
    draw_season,
    look,
    picture,
)

pytest.importorskip("matplotlib")

TIMES = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(60)]
TRUTH = torch.arange(60.0).sin()


def test_forecasts_lie_where_they_belong(tmp_path: Path) -> None:
    forecasts = {"model": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}
    with picture(tmp_path / "p.png", rows=(3,)) as (axes,):
        draw_forecasts(
            axes, TIMES, TRUTH, [10, 40], forecasts, {"model": "red"}, title="T", unit="U"
        )
        truth, first, second = axes.lines[:3]
        assert truth.get_ydata().tolist() == TRUTH.tolist()
        assert list(first.get_xdata(orig=True)) == TIMES[10:13]
        assert list(second.get_xdata(orig=True)) == TIMES[40:43]
        assert second.get_ydata().tolist() == [4, 5, 6]
        assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("T", "U")
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        assert legend == ["truth", "model", "forecast made"]


def test_error_is_drawn_from_one_step_ahead(tmp_path: Path) -> None:
    with picture(tmp_path / "p.png", rows=(2, 2)) as (_, axes):
        errors = {"a": torch.tensor([1.0, 2.0])}
        draw_error_by_horizon(axes, errors, {"a": "red"}, title="T", unit="U", step="hours")
        assert list(axes.lines[0].get_xdata()) == [1, 2]
        assert axes.get_xlabel() == "hours"


def test_file_is_a_png_of_the_size_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    with picture(path, rows=(2, 3)) as axes:
        assert len(axes) == 2
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (11 * 120, 5 * 120)


def test_each_label_has_its_own_colour() -> None:
    colours = colours_of(["a", "b", "c"])
    assert list(colours) == ["a", "b", "c"]
    assert len(set(colours.values())) == 3


def test_residuals_and_their_autocorrelation(tmp_path: Path) -> None:
    residuals = TRUTH.clone()
    residuals[3] = torch.nan
    with picture(tmp_path / "p.png", rows=(2, 2)) as (above, below):
        draw_residuals(above, TIMES, residuals, title="T", unit="U")
        line, mean = above.lines[:2]
        assert list(line.get_xdata(orig=True)) == TIMES
        assert mean.get_ydata()[0] == pytest.approx(residuals.nanmean().item(), rel=1e-6)
        draw_autocorrelation(below, residuals, 12, title="T", step="hours")
        drawn = torch.as_tensor(below.lines[0].get_ydata())
        assert torch.equal(drawn, autocorrelation(residuals, 12))
        assert below.get_xlabel() == "lag, hours"
        band = below.patches[0]
        assert band.get_height() == pytest.approx(2 * 1.96 / 59**0.5)
    assert (tmp_path / "p.png").stat().st_size > 0


def test_a_forecast_follows_the_series_inside_its_intervals(tmp_path: Path) -> None:
    forecast = torch.tensor([1.0, 2.0, 3.0])
    bounds: dict[int | float, tuple[torch.Tensor, torch.Tensor]]
    bounds = {level: (forecast - level / 40, forecast + level / 40) for level in (80, 95)}
    with picture(tmp_path / "p.png", rows=(3,)) as (axes,):
        draw_intervals(axes, TIMES[:23], TRUTH[:20], forecast, bounds, title="T", unit="U")
        truth, line = axes.lines
        assert list(truth.get_xdata(orig=True)) == TIMES[:20]
        assert list(line.get_xdata(orig=True)) == TIMES[20:23]
        assert line.get_ydata().tolist() == [1, 2, 3]
        wide, narrow = (band.get_datalim(axes.transData) for band in axes.collections)
        assert (wide.y0, wide.y1) == pytest.approx((1 - 2.375, 3 + 2.375))
        assert (narrow.y0, narrow.y1) == pytest.approx((1 - 2, 3 + 2))
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        assert legend == ["series", "95 %", "80 %", "forecast"]
        with pytest.raises(ValueError, match=r"times: expected 20 \+ 3 stamps"):
            draw_intervals(axes, TIMES[:22], TRUTH[:20], forecast, title="T", unit="U")


def test_learning_curves(tmp_path: Path) -> None:
    history = History([3.0, 2.0, 1.0], [4.0, 2.5, 2.75], best_epoch=1)
    with picture(tmp_path / "p.png", rows=(2, 2)) as (axes, below):
        draw_learning_curves(axes, history, title="T")
        training, validation, best = axes.lines
        assert list(training.get_xdata()) == list(validation.get_xdata()) == [1, 2, 3]
        assert list(validation.get_ydata()) == [4.0, 2.5, 2.75]
        assert best.get_xdata()[0] == 2
        assert axes.get_yscale() == "linear"
        draw_learning_curves(below, History([0.5, -1.0]), title="a likelihood, without validation")
        assert len(below.lines) == 1
        assert below.get_yscale() == "linear"
        draw_learning_curves(below, History([30.0, 2.0]), title="a long way")
        assert below.get_yscale() == "log"


def test_a_season_s_shape(tmp_path: Path) -> None:
    series = torch.tensor([0.0, 10, 1, 11, 2, torch.nan, 3])  # two steps, the last season cut off
    with picture(tmp_path / "p.png", rows=(3,)) as (axes,):
        draw_season(axes, series, 2, title="T", unit="U")
        assert torch.as_tensor(axes.lines[0].get_ydata()).tolist() == [1.5, 10.5]


@pytest.mark.parametrize("times", [TIMES, range(60)])
def test_the_classical_look(times: Sequence[Any], tmp_path: Path) -> None:
    look(tmp_path / "p.png", times, TRUTH, 6, name="waves")
    data = (tmp_path / "p.png").read_bytes()
    assert struct.unpack(">II", data[16:24]) == (11 * 120, int(12.2 * 120))
    look(tmp_path / "flat.png", times, torch.ones(60), 1, name="a constant")
    with pytest.raises(ValueError, match=r"season \+ 1 = 60 steps, got 60"):
        look(tmp_path / "p.png", times, TRUTH, 59, name="waves")
