"""What may be said of a forecaster, and what is built from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Literal, Self, get_args

from rnncells.forecast.calendar import calendar_columns
from rnncells.forecast.checks import check_choice, check_known, check_positive
from rnncells.forecast.heads import (
    Head,
    NegativeBinomialHead,
    NormalHead,
    PointHead,
    QuantileHead,
    StudentTHead,
)
from rnncells.forecast.networks import RecurrentNet
from rnncells.forecast.networks.recurrent import Cell
from rnncells.forecast.scaler import SCALERS
from rnncells.forecast.training import Training
from rnncells.forecast.window_scaler import Kind, WindowScaler

__all__ = ["HEADS", "Columns", "Mode", "Options"]

Mode = Literal["seq2seq", "seq2vec", "recursive", "one step"]

HEADS: dict[str, type[Head]] = {
    "quantile": QuantileHead,
    "point": PointHead,
    "normal": NormalHead,
    "student t": StudentTHead,
    "negative binomial": NegativeBinomialHead,
}

WINDOW = "window "  # the first word of the scalers that look at one window


@dataclass(frozen=True)
class Columns:
    """The names of a panel's columns, by their roles."""

    targets: tuple[str, ...]
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()


@dataclass(eq=False)
class Options:
    """The parameters of a forecaster, looked at when it is fitted.

    Attributes:
        cell: ``"gru"``, ``"lstm"`` or ``"simple_rnn"``.
        horizon: steps that are forecast.
        context: steps that the network sees.
        mode: ``"seq2seq"`` learns from a forecast of the whole horizon after each step of the
            context, ``"seq2vec"`` from that after its last step; ``"recursive"`` learns one step
            ahead and is fed its own forecasts, as many as are asked for; ``"one step"`` forecasts
            a horizon of 1.
        hidden_size: units of each recurrent layer, or of one layer after another, as (64, 32).
        num_layers: layers, where ``hidden_size`` is one number.
        dropout: chance of dropping a unit between layers and before the last.
        head: how a forecast is told: ``"quantile"``, which knows levels up to 95; ``"point"``,
            ``"normal"``, ``"student t"``, ``"negative binomial"`` for counts, or a
            :class:`rnncells.forecast.Head`.
        scaler: of the targets: ``"standard"``, ``"robust"``, ``"mean"`` scale each series by its
            training part (:class:`rnncells.forecast.Scaler`); ``"window standard"``, ``"window
            robust"``, ``"window mean"``, ``"window last"`` each window by its own context
            (:class:`rnncells.forecast.WindowScaler`), best in mode ``"seq2vec"``: a forecast from
            the midst of a context is scaled by what it is to find, and what is learned there is
            too sure of itself; None leaves them as they are. Covariates are standardised over all
            series. A negative binomial head speaks in counts and takes ``"window mean"`` or None.
        calendar: features that :func:`rnncells.forecast.add_calendar` makes of the stamps.
        missing: ``"error"`` refuses NaN, ``"mask"`` marks it for the network.
        stride: steps from one training window to the next.
        epochs, batch_size, learning_rate, patience: see :class:`rnncells.forecast.Training`.
        training: its further settings, such as ``{"schedule": "one_cycle"}``.
        network: further options of :class:`rnncells.forecast.RecurrentNet`, such as
            ``{"residual": False}``.
        seed: of the weights, of the order of the windows and of draws.
    """

    cell: Cell = "gru"
    horizon: int = 24
    context: int = 168
    mode: Mode = "seq2seq"
    hidden_size: int | Sequence[int] = 64
    num_layers: int = 1
    dropout: float = 0.0
    head: str | Head = "quantile"
    scaler: str | None = "standard"
    calendar: Sequence[str] = ()
    missing: Literal["error", "mask"] = "error"
    stride: int = 1
    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-3
    patience: int | None = 10
    training: Mapping[str, Any] | None = None
    network: Mapping[str, Any] | None = None
    seed: int = 0

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name, as scikit-learn asks for them."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters; they count from the next fit on.

        Raises:
            ValueError: a parameter that there is not.
        """
        check_known("parameters", parameters, self.get_params(), "parameter")
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        utils = import_module("sklearn.utils")  # which is there, as only scikit-learn asks
        return utils.Tags(estimator_type=None, target_tags=utils.TargetTags(required=False))

    def check(self) -> None:
        """Check what nothing else does.

        Raises:
            TypeError, ValueError: a parameter that is not allowed.
        """
        check_positive(horizon=self.horizon, context=self.context, stride=self.stride)
        check_choice("mode", self.mode, get_args(Mode))
        check_choice("missing", self.missing, ("error", "mask"))
        windowed = [WINDOW + kind for kind in get_args(Kind)]
        check_choice("scaler", self.scaler, [*windowed, *SCALERS, None])
        if self.mode == "one step" and self.horizon != 1:
            raise ValueError(
                f"horizon: mode 'one step' forecasts 1 step, got {self.horizon}; "
                "mode='recursive' goes on from its own forecasts"
            )
        if self.make_head().in_counts and self.scaler not in ("window mean", None):
            raise ValueError(
                f"scaler: expected 'window mean' or None for a head of counts, got {self.scaler!r}"
            )

    @property
    def steps(self) -> int:
        """The network's own horizon."""
        return 1 if self.mode == "recursive" else self.horizon

    def make_head(self) -> Head:
        """The head.

        Raises:
            ValueError: an unknown name.
        """
        if isinstance(self.head, Head):
            return self.head
        check_choice("head", self.head, HEADS)
        return HEADS[self.head]()

    def window_scaler(self) -> WindowScaler | None:
        """What scales each window, if anything does."""
        name = self.scaler or ""
        kind: Any = name.removeprefix(WINDOW)
        return WindowScaler(kind) if name.startswith(WINDOW) else None

    def make_network(self, columns: Columns) -> RecurrentNet:
        """The network for series with these columns, its weights from torch's random state."""
        known = len(columns.future) + len(calendar_columns(self.calendar))
        seen = len(columns.targets) + len(columns.past)
        return RecurrentNet(
            self.cell,
            seen * (2 if self.missing == "mask" else 1) + known,
            self.hidden_size,
            self.steps,
            num_layers=self.num_layers,
            dropout=self.dropout,
            targets=range(len(columns.targets)),
            known=known,
            static=len(columns.static_names),
            head=self.make_head(),
            **(self.network or {}),
        )

    def make_training(self) -> Training:
        """How to train."""
        names = ("epochs", "batch_size", "learning_rate", "patience", "seed")
        return Training(**{name: getattr(self, name) for name in names}, **(self.training or {}))
