"""Time-series forecasting with recurrent networks: an estimator, and the modules it is made of.

:class:`Forecaster` takes series and gives forecasts. Panels, windows, scalers, models on (batch,
time, features), training loop, baselines, metrics and pictures are there to be put together by
hand too; the command ``rnncells`` (``python -m rnncells``) puts them to work on files. Data frames
need pandas or polars; training needs lightning-fabric, saving safetensors, pictures matplotlib,
progress bars in a terminal tqdm: ``pip install 'rnncells[forecast]'``.
"""

from rnncells.forecast.ahead import look_ahead, stamps_ahead
from rnncells.forecast.arrays import as_panel, panel_from_arrays
from rnncells.forecast.back import give_back, give_back_windows
from rnncells.forecast.baselines import (
    LeastSquares,
    differenced,
    moving_average,
    naive,
    seasonal_naive,
)
from rnncells.forecast.batch import Batch
from rnncells.forecast.calendar import add_calendar
from rnncells.forecast.datasets import generate_time_series, load_laguardia, trend_and_season
from rnncells.forecast.early_stopping import EarlyStopping
from rnncells.forecast.features import carry_forward
from rnncells.forecast.forecaster import Forecaster
from rnncells.forecast.frames import panel_from_frame
from rnncells.forecast.heads import (
    Head,
    NegativeBinomialHead,
    NormalHead,
    PointHead,
    QuantileHead,
    StudentTHead,
)
from rnncells.forecast.metrics import (
    last_time_step_mse,
    mae,
    mape,
    mase,
    mse,
    rmse,
    seasonal_scale,
    seasonal_scales,
    smape,
)
from rnncells.forecast.networks import (
    ConvRecurrentNet,
    DenseNet,
    EncoderDecoder,
    HiddenValues,
    ImputationNet,
    Imputed,
    RecurrentNet,
    Recursive,
    VectorToSequence,
    WaveNet,
    impute,
)
from rnncells.forecast.panel import Panel
from rnncells.forecast.plot import (
    colours_of,
    draw_autocorrelation,
    draw_error_by_horizon,
    draw_forecasts,
    draw_intervals,
    draw_learning_curves,
    draw_residuals,
    draw_season,
    draw_series,
    look,
    picture,
)
from rnncells.forecast.readers import read_chicago_ridership, read_m4
from rnncells.forecast.residuals import autocorrelation
from rnncells.forecast.scaler import (
    MeanScaler,
    RobustScaler,
    Scaler,
    StandardScaler,
    scaler_from_dict,
)
from rnncells.forecast.scores import coverage, crps_of_quantiles, crps_of_samples, pinball
from rnncells.forecast.table import Score, format_table
from rnncells.forecast.timegrid import Frequency
from rnncells.forecast.training import History, RateRange, Training, fit, predict, rate_range
from rnncells.forecast.window_scaler import WindowScaler
from rnncells.forecast.windows import Windows

__all__ = [
    "Batch",
    "ConvRecurrentNet",
    "DenseNet",
    "EarlyStopping",
    "EncoderDecoder",
    "Forecaster",
    "Frequency",
    "Head",
    "HiddenValues",
    "History",
    "ImputationNet",
    "Imputed",
    "LeastSquares",
    "MeanScaler",
    "NegativeBinomialHead",
    "NormalHead",
    "Panel",
    "PointHead",
    "QuantileHead",
    "RateRange",
    "RecurrentNet",
    "Recursive",
    "RobustScaler",
    "Scaler",
    "Score",
    "StandardScaler",
    "StudentTHead",
    "Training",
    "VectorToSequence",
    "WaveNet",
    "WindowScaler",
    "Windows",
    "add_calendar",
    "as_panel",
    "autocorrelation",
    "carry_forward",
    "colours_of",
    "coverage",
    "crps_of_quantiles",
    "crps_of_samples",
    "differenced",
    "draw_autocorrelation",
    "draw_error_by_horizon",
    "draw_forecasts",
    "draw_intervals",
    "draw_learning_curves",
    "draw_residuals",
    "draw_season",
    "draw_series",
    "fit",
    "format_table",
    "generate_time_series",
    "give_back",
    "give_back_windows",
    "impute",
    "last_time_step_mse",
    "load_laguardia",
    "look",
    "look_ahead",
    "mae",
    "mape",
    "mase",
    "moving_average",
    "mse",
    "naive",
    "panel_from_arrays",
    "panel_from_frame",
    "picture",
    "pinball",
    "predict",
    "rate_range",
    "read_chicago_ridership",
    "read_m4",
    "rmse",
    "scaler_from_dict",
    "seasonal_naive",
    "seasonal_scale",
    "seasonal_scales",
    "smape",
    "stamps_ahead",
    "trend_and_season",
]
