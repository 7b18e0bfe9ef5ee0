"""The estimator: series in, forecasts out, for those who do not write their own loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch

from rnncells.forecast.ahead import look_ahead
from rnncells.forecast.appending import append, on_grid
from rnncells.forecast.back import give_back, give_back_windows
from rnncells.forecast.checks import check_choice
from rnncells.forecast.exporting import to_onnx
from rnncells.forecast.fitted import Fitted, Short, with_calendar
from rnncells.forecast.fitting import learn, split
from rnncells.forecast.frames import is_frame
from rnncells.forecast.incoming import check_length, check_values, read
from rnncells.forecast.options import Options
from rnncells.forecast.panel import Id, Panel
from rnncells.forecast.spans import Span
from rnncells.forecast.storing import load, save
from rnncells.forecast.training import History
from rnncells.forecast.windows import Windows

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Forecaster"]

CutOffs = tuple[Fitted, Panel, Windows]


class Forecaster(Options):
    """A network for one or many series, from fitting to forecasts with intervals.

    ::

        model = Forecaster(cell="gru", horizon=24, context=168).fit(frame)
        model.predict(levels=[80, 95])

    Series are what :func:`rnncells.forecast.as_panel` takes: arrays, tensors, lists and dicts of
    them, long data frames, panels; what comes back has the type of what went in. One network learns
    from all series. A constant series is no error: it is only centred, and forecast near its value.

    Args:
        parameters: see :class:`rnncells.forecast.options.Options`; they are looked at in
            :meth:`fit`.

    Attributes:
        history: what happened in training; None before it, and after :meth:`load`.
        left_out: the ids of the series that the last backtest or score left out.
    """

    history: History | None = None
    left_out: tuple[Id, ...] = ()
    _fitted: Fitted | None = None
    _tail: Panel | None = None  # the last steps of the series, in their unit; never saved

    def fit(
        self,
        y: Any,
        val: Any = None,
        *,
        fabric: Fabric | None = None,
        checkpoint: str | Path | None = None,
        **columns: Any,
    ) -> Self:
        """Learn from series; forecasts then begin after their end.

        Args:
            y: the series. Arrays with covariates come as ``as_panel(y, past=..., future=...)``.
            val: what decides when to stop: the steps that follow y, in its form (forecasts then
                begin after those), or how many steps at the end of y, 0 for none. By default a
                tenth of each series, at least one horizon, where enough is left to train on.
            fabric, checkpoint: see :func:`rnncells.forecast.fit`.
            columns: of a frame, see :func:`rnncells.forecast.panel_from_frame`; later frames are
                read in the same way.

        Raises:
            TypeError, ValueError: a parameter that is not allowed, a series shorter than context +
                horizon, an infinity, or NaN unless ``missing="mask"``.
            FloatingPointError: the training diverged. After at least one good epoch the forecaster
                then works with the best weights up to there; else it is as before the call.
        """
        self.check()
        if columns and not is_frame(y):
            raise TypeError(
                f"{', '.join(columns)}: only a frame has columns to choose; for arrays with "
                "covariates give as_panel(...)"
            )
        options = Options(**self.get_params())
        panel = read(y, self.missing, columns)
        check_length(panel, "context + horizon", self.context + self.horizon)
        panel, stops = split(panel, val, options, columns)
        check_values(panel, "y", self.missing)
        found = learn(options, panel, stops, columns, fabric, checkpoint)
        self._fitted, self.history, diverged = found
        self._tail = panel.cut(start=-self.context)
        if diverged is not None:
            raise diverged
        return self

    def predict(
        self,
        y: Any = None,
        horizon: int | None = None,
        levels: Sequence[float] | None = None,
        future: Any = None,
        unseen: Literal["error", "scale"] = "error",
    ) -> Any:
        """Forecast the steps after the end of each series.

        Args:
            y: series of the fit, at least a context long; by default those that were fitted, with
                all that :meth:`update` added.
            horizon: steps, by default the parameter's; more than those need ``mode="recursive"``.
            levels: of central intervals, in per cent. In mode ``"recursive"`` they are read from
                256 futures that are drawn, the same each time.
            future: the covariates known ahead, see :func:`rnncells.forecast.look_ahead`.
            unseen: series of y that fit never saw are refused, or (``"scale"``) forecast by what
                the others taught; a scaler of each series is then measured on their steps in y.

        Returns:
            What :func:`rnncells.forecast.give_back` gives.

        Raises:
            RuntimeError: before :meth:`fit`.
            TypeError, ValueError: other series or columns than the fit's, NaN, covariates that are
                not there, or levels that the head does not know.
        """
        check_choice("unseen", unseen, ("error", "scale"))
        fitted, panel = self._known(y, strangers=unseen == "scale")
        options = fitted.options
        steps, whole = options.steps_ahead(horizon)
        check_values(panel, "y", options.missing, -options.context, panel.future)
        panel = panel.cut(start=-options.context)
        ahead = look_ahead(with_calendar(panel, options.calendar), whole, future)
        windows = fitted.windows(ahead, whole, start=-whole, ahead=True)
        return give_back(panel, *fitted.forecast(windows, levels, panel.values.dtype, steps))

    def backtest(
        self,
        y: Any,
        *,
        start: Any = 0,
        stop: Span | None = None,
        stride: int = 1,
        levels: Sequence[float] | None = None,
        short: Short = "error",
    ) -> Any:
        """Forecast from many cut-offs inside series whose future is known, all in one pass.

        The network is not fitted again at each cut-off: it knows the steps that it was fitted on.

        Args:
            y: series of the fit.
            start, stop: the span in which the forecasts lie whole, see
                :class:`rnncells.forecast.Windows`; ``start`` also as a stamp. What lies before
                ``start`` is context only.
            stride: steps from one cut-off to the next.
            levels: as in :meth:`predict`.
            short: series without room for a cut-off are refused, or (``"skip"``) left out, with a
                warning that names them; :attr:`left_out` then holds their ids.

        Returns:
            What :func:`rnncells.forecast.give_back_windows` gives: for frames with the cut-offs
            and the truth.

        Raises:
            RuntimeError, TypeError, ValueError: as :meth:`predict`, or no cut-off in a series.
        """
        fitted, panel, windows = self._cut_offs(y, short, start, stop, stride)
        found = fitted.forecast(windows, levels, panel.values.dtype)
        return give_back_windows(panel, windows, *found)

    def score(self, y: Any, *, short: Short = "error") -> float:
        """Minus the mean absolute error of a :meth:`backtest` horizon by horizon, in y's unit: what
        scikit-learn's searches make as large as they can. ``short`` and errors are as there."""
        fitted, panel, windows = self._cut_offs(y, short, stride=self.fitted.options.horizon)
        forecast, _ = fitted.forecast(windows)
        rows = windows.origins[:, None] + torch.arange(windows.horizon)
        truth = panel.values[rows][..., : len(panel.targets)]
        return -float((forecast - truth).abs().nanmean())

    def update(self, points: Any) -> Self:
        """Add new steps to the fitted series, without fitting: :meth:`predict` goes on from there.

        Args:
            points: the steps that follow, of some or all series, in the form of the fit.

        Raises:
            RuntimeError: before :meth:`fit`, or after :meth:`load`, which knows no series.
            ValueError: ids that fit never saw, other columns, or stamps that do not follow.
        """
        fitted, tail = self._known(None)
        new = fitted.read(points, "points")
        check_values(new, "points", fitted.options.missing, columns=new.future)
        added = append(tail, on_grid(new, tail, "points"))
        self._tail = added.cut(start=-fitted.options.context)
        return self

    def save(self, folder: str | Path) -> None:
        """Write weights, scaler and parameters to a folder, which is made where it is not there.

        No series is written: after :meth:`load`, :meth:`predict` wants one.

        Raises:
            RuntimeError: before :meth:`fit`.
            TypeError: a parameter that JSON cannot hold, such as a function.
            ImportError: safetensors is not installed.
        """
        save(self.fitted, Path(folder))

    def to_onnx(self, path: str | Path) -> None:
        """Write network and scaling as one ONNX graph, for runtimes without torch; what goes in and
        comes out says :func:`rnncells.forecast.exporting.to_onnx`.

        Raises:
            RuntimeError: before :meth:`fit`.
            NotImplementedError: missing values in mode ``"recursive"``.
            ImportError: onnxscript is not installed.
        """
        to_onnx(self.fitted, Path(path))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote; no code is run from it.

        Raises:
            FileNotFoundError: a file that is not there.
            ValueError: files that were changed after they were saved, come from a newer version, or
                hold weights that are not finite.
            ImportError: safetensors is not installed.
        """
        fitted = load(Path(folder))
        model = cls(**fitted.options.get_params())
        model._fitted = fitted
        return model

    @property
    def fitted(self) -> Fitted:
        """What was learned.

        Raises:
            RuntimeError: before :meth:`fit`.
        """
        if self._fitted is None:
            raise RuntimeError("Forecaster: expected fit(y) first, it has not been fitted")
        return self._fitted

    def _known(self, y: Any, strangers: bool = False, every: bool = True) -> tuple[Fitted, Panel]:
        """What was learned, and the series to forecast: those given, or those of the fit."""
        fitted = self.fitted
        if y is None:
            if self._tail is None:
                raise RuntimeError(
                    "y: expected the series to forecast, because a forecaster that was loaded "
                    "knows none"
                )
            return fitted, self._tail
        panel = fitted.read(y, strangers=strangers)
        if every:
            check_length(panel, "context", fitted.options.context)
        return fitted.scaling(panel), panel

    def _cut_offs(self, y: Any, short: Short, *span: Any, **stride: int) -> CutOffs:
        fitted, panel = self._known(y, every=short != "skip")
        check_values(panel, "y", fitted.options.missing, columns=panel.future)
        windows = fitted.backtest(panel, short, *span, **stride)
        self.left_out = windows.left_out
        return fitted, panel, windows
