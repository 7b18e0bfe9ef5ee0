"""Scaling of each feature, fitted on the training part, undone exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rnncells.checks import require_tensor
from rnncells.forecast.checks import check_series

__all__ = ["StandardScaler"]


@dataclass(frozen=True)
class StandardScaler:
    """x -> (x - mean) / scale, feature by feature.

    Attributes:
        mean: [features].
        scale: [features], the standard deviation (over N, not N - 1); 1 for a constant feature,
            which is therefore only centred.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, series: Tensor) -> Self:
        """Take mean and scale from ``series`` [time, features]; NaN is left out.

        Raises:
            ValueError: a wrong rank, an infinity, or a feature without any value.
        """
        check_series(series, missing="skip")
        empty = series.isnan().all(dim=0)
        if empty.any():
            column = int(empty.nonzero()[0])
            raise ValueError(f"series: expected values in every feature, feature {column} has none")
        mean = series.nanmean(dim=0)
        deviation = (series - mean).square().nanmean(dim=0).sqrt()
        # a constant's mean is rounded, and so leaves a deviation of some units in the last place
        lowest = series.nan_to_num(nan=torch.inf).amin(0)
        highest = series.nan_to_num(nan=-torch.inf).amax(0)
        return cls(mean, torch.where(lowest < highest, deviation, 1.0))

    def transform(self, values: Tensor) -> Tensor:
        """Scale ``values`` [..., features]; NaN stays NaN.

        Raises:
            TypeError: not a tensor.
            ValueError: another number of features than the scaler was fitted on.
        """
        self._check_features(values, len(self.mean))
        return (values - self.mean) / self.scale

    def inverse(self, values: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        """Undo :meth:`transform` for ``values`` [..., len(columns)].

        Args:
            values: scaled values; computed in the wider of their dtype and the scaler's.
            columns: which features the last axis holds, by default all.

        Raises:
            TypeError: not a tensor.
            ValueError: the last axis does not fit ``columns``.
        """
        chosen = list(range(len(self.mean)) if columns is None else columns)
        self._check_features(values, len(chosen))
        return values * self.scale[chosen] + self.mean[chosen]

    @staticmethod
    def _check_features(values: Tensor, features: int) -> None:
        require_tensor("values", values)
        if values.dim() == 0 or values.shape[-1] != features:
            raise ValueError(
                f"values: expected {features} features on the last axis, "
                f"got shape {list(values.shape)}"
            )
