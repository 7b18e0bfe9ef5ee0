"""The demo's job: temperature at LaGuardia Airport, 24 hours ahead, from the last three days.

Inputs are temperature, dew point, pressure and the hour of the day. Training, validation and
held-out part follow each other in time; the scaler knows the training part only, no window that
touches a missing hour is used, and no missing temperature is filled in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from rnncells.forecast.calendar import add_calendar
from rnncells.forecast.features import carry_forward
from rnncells.forecast.metrics import seasonal_scale
from rnncells.forecast.panel import Panel
from rnncells.forecast.scaler import StandardScaler
from rnncells.forecast.training import Training
from rnncells.forecast.windows import Windows

__all__ = ["SEASON", "DemoSettings", "Part", "Task"]

SEASON = 24  # hours
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the job and of its networks; those that were tuned, on the validation part only.

    Attributes:
        context: hours that a model sees.
        horizon: hours that it forecasts.
        stride: hours from one training window to the next, for the networks.
        train_share, validation_share: of the series, the first parts; the rest is held out.
        hidden_size: units of the recurrent layer.
        dropout: before the head.
        training: epochs, batch size and the like.
    """

    context: int = 72
    horizon: int = 24
    stride: int = 4
    train_share: float = 0.7
    validation_share: float = 0.15
    hidden_size: int = 32
    dropout: float = 0.2
    training: Training = field(default_factory=Training)


class Task:
    """The series made ready.

    Attributes:
        series: as it ships.
        settings: the demo's.
        spans: for each part its first and its last time step, the last not included.
        temperature: [time], degrees Celsius, NaN where missing.
        scaler: fitted on the training part.
        scaled: all inputs [time, features], float64.
        mase_scale: the seasonal naive forecast's MAE on the training part, degrees Celsius.
    """

    def __init__(self, series: Panel, settings: DemoSettings) -> None:
        self.series, self.settings = series, settings
        self.temperature = series.column("temperature")
        clock = add_calendar(series, ["hour"])
        inputs = torch.column_stack(
            [
                self.temperature,
                series.column("dew_point"),
                # the station's irregular reports carry no pressure; the last one stands for a while
                carry_forward(series.column("pressure"), limit=12),
                # stamps in UTC keep step with the sun all year round, summer time does not
                clock.values[:, len(series.columns) :],
            ]
        )
        first = int(len(inputs) * settings.train_share)
        second = int(len(inputs) * (settings.train_share + settings.validation_share))
        self.spans: dict[Part, tuple[int, int]] = {
            "train": (0, first),
            "validation": (first, second),
            "test": (second, len(inputs)),
        }
        self.scaler = StandardScaler.fit(inputs[:first])
        self.scaled = self.scaler.transform(inputs)
        self.mase_scale = seasonal_scale(self.temperature[:first], SEASON)

    def windows(
        self,
        part: Part,
        stride: int = 1,
        every_step: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> Windows:
        """The windows whose forecasts fall into one part, those with gaps left out."""
        start, stop = self.spans[part]
        return Windows(
            self.scaled.to(dtype),
            self.settings.context,
            self.settings.horizon,
            start=start,
            stop=stop,
            stride=stride,
            every_step=every_step,
            missing="skip",
        )

    def degrees(self, forecast: Tensor) -> Tensor:
        """Scaled temperatures [batch, horizon, 1] in degrees Celsius, [batch, horizon], float64."""
        return self.scaler.inverse(forecast.double(), columns=[0]).squeeze(-1)
