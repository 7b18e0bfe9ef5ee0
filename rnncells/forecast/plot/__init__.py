"""Pictures of series, trainings and forecasts, written as PNG without a screen."""

from rnncells.forecast.plot.canvas import colours_of, picture
from rnncells.forecast.plot.classical import draw_season, draw_series, look
from rnncells.forecast.plot.forecasts import draw_forecasts, draw_intervals
from rnncells.forecast.plot.horizon import draw_error_by_horizon
from rnncells.forecast.plot.residuals import draw_autocorrelation, draw_residuals
from rnncells.forecast.plot.training import draw_learning_curves

__all__ = [
    "colours_of",
    "draw_autocorrelation",
    "draw_error_by_horizon",
    "draw_forecasts",
    "draw_intervals",
    "draw_learning_curves",
    "draw_residuals",
    "draw_season",
    "draw_series",
    "look",
    "picture",
]
