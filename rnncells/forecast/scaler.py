"""Scaling of each column, fitted on the training part, undone exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_choice, check_known, check_series
from rnncells.forecast.panel import Id, Panel
from rnncells.forecast.spans import Span

__all__ = ["MeanScaler", "RobustScaler", "Scaler", "StandardScaler", "scaler_from_dict"]


@dataclass(frozen=True, eq=False)
class Scaler(ABC):
    """x -> (x - location) / scale, column by column, for all series alike or for each its own.

    Attributes:
        location: [columns], or [series, columns] with one row for each series of :attr:`ids`.
        scale: of location's shape; 1 where it would be 0, as for a constant column, which is
            therefore only centred.
        ids: of the series that were fitted one by one; None where all are scaled alike.
    """

    location: Tensor
    scale: Tensor
    ids: tuple[Id, ...] | None = None

    kind: ClassVar[str]

    @staticmethod
    @abstractmethod
    def _measure(values: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of the columns of [time, columns], NaN left out."""

    @classmethod
    def fit(cls, series: Tensor | Panel, *, stop: Span | None = None, each: bool = False) -> Self:
        """Measure the training part; NaN is left out.

        Args:
            series: [time, columns], or a panel.
            stop: the training part's end, for all of a panel's series or one step for each; by
                default all is taken.
            each: each series of a panel by itself, not all together.

        Raises:
            ValueError: a wrong rank, an infinity, or a column without any value.
        """
        if not isinstance(series, Panel):
            return cls(*cls._fit(series if stop is None else series[:stop], "series"))
        part = series if stop is None else series.cut(stop=stop)
        if not each:
            return cls(*cls._fit(part.values, "series"))
        fitted = [cls._fit(part.series(one), f"series {one!r}") for one in part.ids]
        location, scale = (torch.stack(some) for some in zip(*fitted, strict=True))
        return cls(location, scale, part.ids)

    @classmethod
    def _fit(cls, series: Tensor, name: str) -> tuple[Tensor, Tensor]:
        check_series(series, "skip", name)
        empty = series.isnan().all(dim=0)
        if empty.any():
            column = int(empty.nonzero()[0])
            raise ValueError(f"{name}: expected values in every feature, feature {column} has none")
        location, scale = cls._measure(series)
        return location, torch.where(scale > 0, scale, 1.0)

    def transform(self, values: Tensor) -> Tensor:
        """Scale ``values`` [..., columns]; NaN stays NaN. One by one: [series, ..., columns].

        Raises:
            TypeError: not a tensor.
            ValueError: another number of columns, or of series, than the scaler was fitted on.
        """
        location, scale = self._fitting(values, None, None)
        return (values - location) / scale

    def inverse(
        self,
        values: Tensor,
        columns: Sequence[int] | None = None,
        ids: Sequence[Id] | None = None,
    ) -> Tensor:
        """Undo :meth:`transform` for ``values`` [..., columns], or [series, ..., columns].

        Args:
            values: scaled values; computed in the wider of their dtype and the scaler's.
            columns: which columns the last axis holds, by default all.
            ids: which series the first axis holds, by default those of the fit, in order (for
                scalers that know series).

        Raises:
            TypeError: not a tensor.
            ValueError: an axis that does not fit ``columns`` or ``ids``, or an unknown id.
        """
        location, scale = self._fitting(values, columns, ids)
        return values * scale + location

    def transform_panel(self, panel: Panel) -> Panel:
        """Scale all columns of a panel; it may hold some of the series of the fit.

        Raises:
            ValueError: another number of columns, or a series that fit never saw.
        """
        location, scale = self._rows_of(panel)
        return panel.with_values((panel.values - location) / scale)

    def inverse_panel(self, panel: Panel) -> Panel:
        """Undo :meth:`transform_panel`."""
        location, scale = self._rows_of(panel)
        return panel.with_values(panel.values * scale + location)

    def to_dict(self) -> dict[str, Any]:
        """What it is, in plain values for JSON; the numbers are in :meth:`tensors`."""
        return {"kind": self.kind, "ids": None if self.ids is None else list(self.ids)}

    def tensors(self) -> dict[str, Tensor]:
        """Its numbers, for safetensors."""
        return {"location": self.location.contiguous(), "scale": self.scale.contiguous()}

    def _of(self, ids: Sequence[Id]) -> tuple[Tensor, Tensor]:
        assert self.ids is not None
        check_known("ids", ids, self.ids, "series that the scaler was fitted on,")
        number = {one: place for place, one in enumerate(self.ids)}
        chosen = [number[one] for one in ids]
        return self.location[chosen], self.scale[chosen]

    def _rows_of(self, panel: Panel) -> tuple[Tensor, Tensor]:
        self._check_columns(panel.values, self.location.shape[-1])
        if self.ids is None:
            return self.location, self.scale
        location, scale = self._of(panel.ids)
        return tuple(part.repeat_interleave(panel.lengths, 0) for part in (location, scale))  # type: ignore[return-value]

    def _fitting(
        self, values: Tensor, columns: Sequence[int] | None, ids: Sequence[Id] | None
    ) -> tuple[Tensor, Tensor]:
        chosen = list(range(self.location.shape[-1]) if columns is None else columns)
        self._check_columns(values, len(chosen))
        if self.ids is None:
            return self.location[chosen], self.scale[chosen]
        location, scale = self._of(self.ids if ids is None else ids)
        if values.dim() < 2 or len(values) != len(location):
            raise ValueError(
                f"values: expected {len(location)} series on the first axis, "
                f"got shape {list(values.shape)}"
            )
        shape = (len(location), *[1] * (values.dim() - 2), len(chosen))
        return location[:, chosen].reshape(shape), scale[:, chosen].reshape(shape)

    @staticmethod
    def _check_columns(values: Tensor, columns: int) -> None:
        require_tensor("values", values)
        if values.dim() == 0 or values.shape[-1] != columns:
            raise ValueError(
                f"values: expected {columns} features on the last axis, "
                f"got shape {list(values.shape)}"
            )


class StandardScaler(Scaler):
    """Location: the mean; scale: the standard deviation (over N, not N - 1)."""

    kind = "standard"

    @staticmethod
    def _measure(values: Tensor) -> tuple[Tensor, Tensor]:
        mean = values.nanmean(dim=0)
        deviation = (values - mean).square().nanmean(dim=0).sqrt()
        # a constant's mean is rounded, and so leaves a deviation of some units in the last place
        lowest = values.nan_to_num(nan=torch.inf).amin(0)
        highest = values.nan_to_num(nan=-torch.inf).amax(0)
        return mean, torch.where(lowest < highest, deviation, 0.0)


class RobustScaler(Scaler):
    """Location: the median; scale: the distance from the lower to the upper quartile.

    Quartiles are interpolated linearly. Where they are the same, the column is only centred.
    """

    kind = "robust"

    @staticmethod
    def _measure(values: Tensor) -> tuple[Tensor, Tensor]:
        # column by column: torch's quantile takes 16 million values at most, and sorts all at once
        parts = [_quartiles(column) for column in values.T]
        low, middle, high = (torch.stack(some) for some in zip(*parts, strict=True))
        return middle, high - low


class MeanScaler(Scaler):
    """Location: 0; scale: the mean absolute value, as in DeepAR (D. Salinas and others, 2020)."""

    kind = "mean"

    @staticmethod
    def _measure(values: Tensor) -> tuple[Tensor, Tensor]:
        size = values.abs().nanmean(dim=0)
        return torch.zeros_like(size), size


SCALERS: dict[str, type[Scaler]] = {
    scaler.kind: scaler for scaler in (StandardScaler, RobustScaler, MeanScaler)
}


def scaler_from_dict(config: dict[str, Any], tensors: dict[str, Tensor]) -> Scaler:
    """A scaler from what :meth:`Scaler.to_dict` and :meth:`Scaler.tensors` gave.

    Raises:
        ValueError: an unknown kind, or a tensor that is missing, of another shape or not finite.
    """
    check_choice("kind", config.get("kind"), SCALERS)
    check_known("tensors", ("location", "scale"), tensors, "tensor")
    location, scale = tensors["location"], tensors["scale"]
    ids = config.get("ids")
    rank = 1 if ids is None else 2
    fits = location.shape == scale.shape and location.dim() == rank
    if not fits or (ids is not None and len(ids) != len(location)):
        raise ValueError(
            f"tensors: expected location and scale of one shape, of rank {rank}, "
            f"got {list(location.shape)} and {list(scale.shape)}"
        )
    if not (location.isfinite().all() and scale.isfinite().all() and (scale > 0).all()):
        raise ValueError("tensors: expected finite numbers and scales above 0")
    return SCALERS[config["kind"]](location, scale, None if ids is None else tuple(ids))


def _quartiles(column: Tensor) -> list[Tensor]:
    ordered = column[~column.isnan()].sort().values
    quartiles = []
    for share in (0.25, 0.5, 0.75):
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        quartiles.append(torch.lerp(ordered[below], ordered[above], place - below))
    return quartiles
