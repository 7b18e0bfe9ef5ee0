"""Every model of the demo on the same windows: the baselines, then each network twice."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rnncells.forecast.baselines import LeastSquares, naive, seasonal_naive
from rnncells.forecast.demo.task import SEASON, Task
from rnncells.forecast.extras import require
from rnncells.forecast.metrics import mae, mase, rmse
from rnncells.forecast.networks import Cell, Layers, RecurrentNet
from rnncells.forecast.table import Score
from rnncells.forecast.training import Training, fit, predict
from rnncells.forecast.windows import Windows

__all__ = ["NETWORKS", "OURS", "Comparison"]

OURS, TORCH = "rnncells", "torch.nn"
NETWORKS: dict[str, Cell] = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "simple_rnn"}
SOURCES: dict[str, Layers] = {OURS: "rnncells", TORCH: "torch"}


@dataclass
class Comparison:
    """Scores on the held-out windows, and the forecasts behind them.

    Attributes:
        task: the series made ready.
        test: the held-out windows.
        truth: [windows, horizon], degrees Celsius.
        scores: one line for each model, in the order of running.
        forecasts: [windows, horizon] in degrees Celsius, by model and layers ("" for baselines).
        validation_loss: of each network's best epoch, by model and layers.
    """

    task: Task
    scores: list[Score] = field(default_factory=list)
    forecasts: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    validation_loss: dict[tuple[str, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.test = self.task.windows("test")
        # the truth comes from the series as it ships, not through the scaler and back
        steps = self.test.origins.unsqueeze(1) + torch.arange(self.test.horizon)
        self.truth = self.task.temperature[steps]

    def run_baselines(self) -> None:
        """Naive, seasonal naive, and the exact least-squares line on the networks' own inputs."""
        x = self.task.windows("test", dtype=torch.float64).batch().x
        past, horizon = x[..., :1], self.test.horizon
        self._score("naive", naive(past, horizon))
        self._score("seasonal naive", seasonal_naive(past, horizon, SEASON))
        begin = time.perf_counter()
        train = self.task.windows("train", dtype=torch.float64).batch()
        line = LeastSquares.fit(train.x, train.y)
        self._score("least squares", line(x), seconds=time.perf_counter() - begin)

    def run_networks(self) -> None:
        """Train each network on our layers and on torch.nn's, from the same weights."""
        settings = self.task.settings
        train = self.task.windows("train", settings.stride, every_step=True)
        validation = self.task.windows("validation")
        fabric = require("lightning_fabric").Fabric(accelerator="cpu", devices=1)
        self._warm_up(train, validation)
        for model, cell in NETWORKS.items():
            for layers, net in self._twins(cell).items():
                label = f"{model} on {layers}"
                history = fit(net, train, validation, settings.training, fabric=fabric, label=label)
                self.validation_loss[model, layers] = min(history.validation_loss)
                self._score(
                    model,
                    predict(net, self.test),
                    layers,
                    seconds=history.seconds,
                    epochs=len(history.validation_loss),
                )

    def _twins(self, cell: Cell) -> dict[str, RecurrentNet]:
        settings = self.task.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.training.seed)
            twins = {
                name: RecurrentNet(
                    cell,
                    self.task.scaled.shape[1],
                    settings.hidden_size,
                    settings.horizon,
                    dropout=settings.dropout,
                    layers=layers,
                )
                for name, layers in SOURCES.items()
            }
        twins[TORCH].load_state_dict(twins[OURS].state_dict())
        return twins

    def _warm_up(self, train: Windows, validation: Windows) -> None:
        # torch imports and allocates much at first use: no model's seconds shall pay for that
        few = [
            Windows(
                windows.series,
                windows.context,
                windows.horizon,
                start=int(windows.origins[0]),
                stop=int(windows.origins[0]) + windows.horizon,
                every_step=windows.every_step,
                missing="skip",
            )
            for windows in (train, validation)
        ]
        for cell in NETWORKS.values():
            for net in self._twins(cell).values():
                fit(net, few[0], few[1], Training(epochs=1), label="warm-up")

    def _score(
        self,
        model: str,
        forecast: Tensor,
        layers: str = "",
        *,
        seconds: float | None = None,
        epochs: int | None = None,
    ) -> None:
        degrees = self.task.degrees(forecast)
        self.forecasts[model, layers] = degrees
        self.scores.append(
            Score(
                model,
                layers,
                mae(degrees, self.truth),
                rmse(degrees, self.truth),
                mase(degrees, self.truth, self.task.mase_scale),
                seconds,
                epochs,
            )
        )
