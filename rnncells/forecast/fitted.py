"""What a forecaster has learned: from series as they came to forecasts in their unit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from rnncells.forecast.batch import Batch
from rnncells.forecast.calendar import add_calendar
from rnncells.forecast.checks import check_choice, check_known, check_percents
from rnncells.forecast.heads import Head
from rnncells.forecast.incoming import read
from rnncells.forecast.networks import Network, Recursive
from rnncells.forecast.options import Columns, Options
from rnncells.forecast.panel import Id, Panel
from rnncells.forecast.scaler import Scaler
from rnncells.forecast.spans import Span
from rnncells.forecast.training import predict
from rnncells.forecast.training.batches import gather
from rnncells.forecast.training.objective import arguments
from rnncells.forecast.windows import Windows

__all__ = ["Fitted", "Short", "columns_of", "with_calendar"]

DRAWS = 256  # paths that the intervals of a recursive forecast are read from
AT_ONCE = 2**22  # values drawn at once

Short = Literal["error", "skip"]
Bounds = dict[int | float, tuple[Tensor, Tensor]]


def columns_of(panel: Panel) -> Columns:
    """The names of its columns."""
    return Columns(panel.targets, panel.past, panel.future, panel.static_names)


def with_calendar(panel: Panel, calendar: Sequence[str]) -> Panel:
    """The panel with the columns that are made from its stamps."""
    return add_calendar(panel, calendar) if calendar else panel


class ScaledWindows(Windows):
    """Windows scaled in float64, and then given to the network in float32."""

    def batch(self, indices: Sequence[int] | Tensor | None = None) -> Batch:
        """As :meth:`Windows.batch`; the level stays in float64."""
        x, y, future, static, observed, level = super().batch(indices)
        future, static = (None if part is None else part.float() for part in (future, static))
        return Batch(x.float(), y.float(), future, static, observed, level)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained network with all that it takes to use it; it holds no series.

    Attributes:
        options: the parameters, as they were when it was fitted.
        columns: of the series as they came.
        ids: of the series of the fit.
        reading: how a frame is read.
        frequency: the step between stamps, None where there are none.
        scaler: of all columns, the calendar's included.
        static: of the static features, if there are any.
        net: the network, in float32.
    """

    options: Options
    columns: Columns
    ids: tuple[Id, ...]
    reading: Mapping[str, Any]
    frequency: str | int | None
    scaler: Scaler
    static: Scaler | None
    net: Network

    @property
    def head(self) -> Head:
        """The network's."""
        return self.net.head

    def read(self, y: Any, name: str = "y", strangers: bool = False) -> Panel:
        """Series of the fit, or with ``strangers`` of the same kind.

        Raises:
            ValueError: ids that fit never saw, or other columns than those of the fit.
        """
        freq = {} if self.frequency is None else {"freq": self.frequency}
        panel = read(y, self.options.missing, {**self.reading, **freq})
        if panel.frequency is not None and self.frequency not in (None, panel.frequency.name):
            raise ValueError(
                f"{name}: mixed frequencies: expected stamps {self.frequency!r} apart, as in fit, "
                f"got {panel.frequency.name!r}"
            )
        if not strangers:
            check_known(name, panel.ids, self.ids, "series seen in fit,")
        got = columns_of(panel)
        if got != self.columns:
            raise ValueError(f"{name}: expected the columns of fit, {self.columns}, got {got}")
        return panel

    def scaling(self, panel: Panel) -> Self:
        """The same for a panel with series that fit never saw: the targets of each are scaled by
        its own steps there, covariates by what the fit saw.

        Raises:
            ValueError: a target of such a series without any value.
        """
        known = self.scaler.ids
        new = [one for one in panel.ids if known is not None and one not in known]
        if known is None or not new:
            return self
        kind, part = type(self.scaler), panel.select(new).roles(panel.targets)
        own = kind.fit(part.to(torch.float64), each=True)
        found = []
        for every, mine in ((self.scaler.location, own.location), (self.scaler.scale, own.scale)):
            covariates = every[:1, mine.shape[1] :].expand(len(new), -1)
            found.append(torch.cat([every, torch.cat([mine, covariates], dim=1)]))
        location, scale = found
        return replace(self, scaler=kind(location, scale, (*known, *new)))

    def windows(self, panel: Panel, horizon: int, **where: Any) -> ScaledWindows:
        """Windows over a panel with its calendar, scaled for the network."""
        scaled = self.scaler.transform_panel(panel.to(torch.float64))
        if self.static is not None and scaled.static is not None:
            scaled = replace(scaled, static=self.static.transform(scaled.static))
        return ScaledWindows(
            scaled,
            self.options.context,
            horizon,
            missing=self.options.missing,
            scaler=self.options.window_scaler(),
            **where,
        )

    def backtest(
        self,
        panel: Panel,
        short: Short = "error",
        start: Any = 0,
        stop: Span | None = None,
        stride: int = 1,
    ) -> Windows:
        """The windows at all cut-offs of a panel without its calendar.

        Raises:
            ValueError: series without any, unless ``short`` is ``"skip"``: then a warning names
                them, and ``left_out`` of the windows.
        """
        check_choice("short", short, get_args(Short))
        plain = isinstance(start, int | list | tuple) or hasattr(start, "tolist")
        windows = self.windows(
            with_calendar(panel, self.options.calendar),
            self.options.horizon,
            start=start if plain else panel.steps_at(start),
            stop=stop,
            stride=stride,
            short="skip",
        )
        if windows.left_out:
            lengths = dict(zip(panel.ids, panel.lengths.tolist(), strict=True))
            few = ", ".join(f"{one!r} ({lengths[one]} steps)" for one in windows.left_out[:8])
            words = (
                f"y: no cut-off with a context of {self.options.context} and a horizon of "
                f"{self.options.horizon} time steps in {len(windows.left_out)} of {len(panel)} "
                f"series: {few}{', ...' if len(windows.left_out) > 8 else ''}"
            )
            if short == "error":
                raise ValueError(f"{words}; short='skip' leaves them out")
            warnings.warn(f"{words}; they are left out", UserWarning, stacklevel=4)
        return windows

    def forecast(
        self,
        windows: Windows,
        levels: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        steps: int | None = None,
    ) -> tuple[Tensor, Bounds | None]:
        """Forecast windows, in the series' unit.

        Returns:
            [windows, steps, targets] in this dtype, by default the whole horizon, and for each
            level its bounds.

        Raises:
            TypeError, ValueError: levels that the head cannot tell.
            FloatingPointError: a forecast that is not finite.
        """
        levels = None if levels is None else check_percents(levels)
        model = self._model(windows)
        output = predict(model, windows)
        parts = [self.head.point(output)]
        if levels is not None:
            bounds = self.head.intervals(output, levels)  # also refuses what the head cannot tell
            if isinstance(model, Recursive):
                bounds = self._path_intervals(model, windows, levels)
            parts += bounds.flatten(-2).unbind(-1)
        parts = self.in_units([part.cpu() for part in parts], windows)
        point, *sides = [part[:, :steps].to(dtype) for part in parts]
        self._refuse_broken([point, *sides], windows)
        if levels is None:
            return point, None
        pairs = zip(sides[::2], sides[1::2], strict=True)
        return point, dict(zip(levels, pairs, strict=True))

    def _refuse_broken(self, parts: Sequence[Tensor], windows: Windows) -> None:
        for part in parts:
            bad = ~part.isfinite().flatten(1).all(1)
            if bad.any():
                at = int(bad.nonzero()[0])
                raise FloatingPointError(
                    f"forecast: expected finite values, got a NaN or an infinity for series "
                    f"{windows.ids[int(windows.numbers[at])]!r} from step {int(windows.steps[at])} "
                    f"on ({int(bad.sum())} of {len(bad)} windows): its values may be too large for "
                    f"{part.dtype}, or far from those of the fit"
                )

    def _model(self, windows: Windows) -> nn.Module:
        if self.options.mode != "recursive":
            return self.net
        return Recursive(self.net, windows.horizon, len(windows.masked)).eval()

    def _path_intervals(
        self, model: Recursive, windows: Windows, levels: Sequence[float]
    ) -> Tensor:
        """Bounds from whole futures: those of each step given the ones before, which differ."""
        low = torch.tensor([(1 - level / 100) / 2 for level in levels])
        size = DRAWS * windows.horizon * len(windows.targets)
        found = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            for part in torch.arange(len(windows)).split(max(1, AT_ONCE // size)):
                batch = gather(windows, part, next(self.net.parameters()).device)
                paths = model.paths(batch.x, DRAWS, **arguments(batch, self.head))
                both = [torch.quantile(paths.cpu(), share, dim=0) for share in (low, 1 - low)]
                found.append(torch.stack(both, dim=-1).movedim(0, -2))
        return torch.cat(found)

    def in_units(self, parts: Sequence[Tensor], windows: Windows) -> list[Tensor]:
        """Undo the scaling of [windows, horizon, targets], several of them."""
        if self.head.in_counts:
            return [part.double() for part in parts]
        if windows.scaler is not None:
            numbers = torch.arange(len(windows)).split(4096)
            found: Any = [windows.batch(some).level for some in numbers]
            level = torch.cat(found)
            parts = [windows.scaler.inverse(part.double(), level) for part in parts]
        columns = range(len(windows.targets))
        ids = [windows.ids[number] for number in windows.numbers.tolist()]
        return [self.scaler.inverse(part.double(), columns, ids) for part in parts]
