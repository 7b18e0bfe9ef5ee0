"""Time-series forecasting with recurrent networks: plain modules on (batch, time, features).

Windows, scaler, model, training loop, baselines, metrics and pictures, to be put together by hand;
``python -m rnncells.forecast demo`` shows them at work. Training needs lightning-fabric, pictures
need matplotlib, progress bars in a terminal need tqdm: ``pip install 'rnncells[forecast]'``.
"""

from rnncells.forecast.baselines import LeastSquares, naive, seasonal_naive
from rnncells.forecast.datasets import TimeSeries, load_laguardia
from rnncells.forecast.early_stopping import EarlyStopping
from rnncells.forecast.features import carry_forward, hour_of_day
from rnncells.forecast.metrics import mae, mase, rmse, seasonal_scale
from rnncells.forecast.model import RecurrentNet
from rnncells.forecast.plot import colours_of, draw_error_by_horizon, draw_forecasts, picture
from rnncells.forecast.scaler import StandardScaler
from rnncells.forecast.table import Score, format_table
from rnncells.forecast.training import History, Training, fit, predict
from rnncells.forecast.windows import Windows

__all__ = [
    "EarlyStopping",
    "History",
    "LeastSquares",
    "RecurrentNet",
    "Score",
    "StandardScaler",
    "TimeSeries",
    "Training",
    "Windows",
    "carry_forward",
    "colours_of",
    "draw_error_by_horizon",
    "draw_forecasts",
    "fit",
    "format_table",
    "hour_of_day",
    "load_laguardia",
    "mae",
    "mase",
    "naive",
    "picture",
    "predict",
    "rmse",
    "seasonal_naive",
    "seasonal_scale",
]
