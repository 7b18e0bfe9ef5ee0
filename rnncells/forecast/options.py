"""What may be said of a forecaster, and what is built from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Literal, Self, get_args

from rnncells.forecast.calendar import CALENDAR, calendar_columns
from rnncells.forecast.checks import check_choice, check_known, check_positive, check_share
from rnncells.forecast.heads import (
    Head,
    NegativeBinomialHead,
    NormalHead,
    PointHead,
    QuantileHead,
    StudentTHead,
)
from rnncells.forecast.models import AFTER_EACH_STEP, MODELS, Model, make_network
from rnncells.forecast.networks import Cell, Network
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

OWN = ("epochs", "batch_size", "learning_rate", "patience", "seed")  # Training's, said here
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
        cell: ``"gru"``, ``"lstm"`` or ``"simple_rnn"``, of the models with recurrent layers.
        horizon: steps that are forecast.
        context: steps that the network sees.
        mode: ``"seq2seq"`` learns from a forecast of the whole horizon after each step of the
            context, ``"seq2vec"`` from that after its last step; ``"recursive"`` learns one step
            ahead and is fed its own forecasts, as many as are asked for; ``"one step"`` forecasts
            a horizon of 1. By default ``"seq2seq"``, and ``"seq2vec"`` for the models that look
            at a whole window.
        model: ``"recurrent"``; ``"conv recurrent"``, recurrent layers behind a convolution of
            width 4 and stride 2; ``"wavenet"``, dilated convolutions that see the whole context;
            and models that look at a whole window: ``"encoder decoder"``, ``"vector to
            sequence"``, ``"dense"`` and ``"linear"``.
        hidden_size: units (of WaveNet filters) of each layer, or of one layer after another, as
            (64, 32).
        num_layers: layers, where ``hidden_size`` is one number; of WaveNet stacks of layers.
        dropout: chance of dropping a unit between layers and before the last; not in ``"wavenet"``
            and ``"linear"``.
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
        network: further options of the model's class in :mod:`rnncells.forecast.networks`, such as
            ``{"residual": False}``, or ``{"gated": True}`` for a WaveNet.
        seed: of the weights, of the order of the windows and of draws.
    """

    cell: Cell = "gru"
    horizon: int = 24
    context: int = 168
    mode: Mode | None = None
    model: Model = "recurrent"
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

    def __new__(cls, *values: Any, **parameters: Any) -> Self:
        """Raises TypeError for a parameter that there is not, with the nearest that there is."""
        try:
            known = [one.name for one in fields(Options)]
            check_known("parameters", parameters, known, "parameter")
        except ValueError as error:
            raise TypeError(str(error)) from None
        return super().__new__(cls)

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
        check_choice("model", self.model, MODELS)
        check_choice("mode", self.mode, [*get_args(Mode), None])
        if self.mode == "seq2seq" and self.model not in AFTER_EACH_STEP:
            raise ValueError(
                f"mode: model {self.model!r} forecasts after a whole window only: expected "
                "'seq2vec', 'recursive' or 'one step', got 'seq2seq'"
            )
        check_choice("missing", self.missing, ("error", "mask"))
        check_share("dropout", self.dropout)
        for name in ("training", "network"):
            value = getattr(self, name)
            if not isinstance(value, Mapping | None):
                raise TypeError(f"{name}: expected a dict of options by name, got {value!r}")
        own = {one.name for one in fields(Training)} - {*OWN}
        check_known("training", self.training or {}, own, "setting that is left to it,")
        for feature in self.calendar:
            check_choice("calendar", feature, CALENDAR)
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
    def way(self) -> Mode:
        """The mode, where none is given the model's own."""
        if self.mode is not None:
            return self.mode
        return "seq2seq" if self.model in AFTER_EACH_STEP else "seq2vec"

    @property
    def every_step(self) -> bool:
        """Whether it learns from a forecast after each step of the context."""
        return self.way in ("seq2seq", "recursive") and self.model in AFTER_EACH_STEP

    @property
    def steps(self) -> int:
        """The network's own horizon."""
        return 1 if self.mode == "recursive" else self.horizon

    def steps_ahead(self, horizon: int | None) -> tuple[int, int]:
        """How many steps are asked for, and how many a forecast then has.

        Raises:
            ValueError: more than the network knows.
        """
        if horizon is None:
            return self.horizon, self.horizon
        [steps] = check_positive(horizon=horizon)
        if self.mode == "recursive":
            return steps, steps
        if steps > self.horizon:
            raise ValueError(
                f"horizon: fitted for {self.horizon} steps in mode {self.way!r}, got {steps}; "
                "mode='recursive' forecasts any number"
            )
        return steps, self.horizon

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

    def make_network(self, columns: Columns) -> Network:
        """The network for series with these columns, its weights from torch's random state."""
        known = len(columns.future) + len(calendar_columns(self.calendar))
        seen = len(columns.targets) + len(columns.past)
        job = {
            "targets": range(len(columns.targets)),
            "known": known,
            "static": len(columns.static_names),
            "head": self.make_head(),
        }
        return make_network(self, seen * (2 if self.missing == "mask" else 1) + known, job)

    def make_training(self) -> Training:
        """How to train."""
        return Training(**{name: getattr(self, name) for name in OWN}, **(self.training or {}))
