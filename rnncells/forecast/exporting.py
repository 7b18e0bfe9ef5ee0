"""A fitted forecaster as an ONNX graph: from series in their unit to forecasts in their unit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from rnncells.forecast.fitted import Fitted
from rnncells.forecast.heads import QuantileHead
from rnncells.forecast.networks import Recursive

__all__ = ["to_onnx"]


class Deployed(nn.Module):
    """Scaling, network and head in one module, without series."""

    location: Tensor
    scale: Tensor

    def __init__(self, fitted: Fitted) -> None:
        super().__init__()
        options, columns = fitted.options, fitted.columns
        recursive = options.mode == "recursive"
        self.targets = len(columns.targets)
        self.marked = self.targets + len(columns.past) if options.missing == "mask" else 0
        self.window, self.head = options.window_scaler(), fitted.head
        self.net = Recursive(fitted.net, options.horizon) if recursive else fitted.net
        # of a recursive forecast these are given the median path, and so too narrow
        self.tells_quantiles = isinstance(self.head, QuantileHead) and not recursive
        self.register_buffer("location", fitted.scaler.location)
        self.register_buffer("scale", fitted.scaler.scale)
        self.static = fitted.static

    def forward(
        self,
        x: Tensor,
        series: Tensor | None = None,
        future: Tensor | None = None,
        static: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """All in float64 and in the series' unit; see :func:`to_onnx`."""
        n = self.targets
        more: dict[str, Tensor] = {}
        location, scale = self.location, self.scale
        if series is not None:
            location, scale = location[series].unsqueeze(1), scale[series].unsqueeze(1)
        if future is not None:
            known = slice(-future.shape[2], None)
            more["future"] = ((future - location[..., known]) / scale[..., known]).float()
        if static is not None and self.static is not None:
            more["static"] = self.static.transform(static).float()
        x = (x - location) / scale
        location, scale, level = location[..., :n], scale[..., :n], None
        if self.window is not None:
            # targets were not scaled so far
            level = self.window.measure(x[..., :n])
            location, scale = level[:, :1], level[:, 1:]
            x = torch.cat([self.window.transform(x[..., :n], level), x[..., n:]], dim=-1)
        if self.marked:
            marks = (~x[..., : self.marked].isnan()).to(x.dtype)
            x = torch.cat([x.nan_to_num(nan=0.0), marks], dim=-1)
        if self.head.in_counts:  # it undoes a window's scaling itself
            if level is not None:
                more["level"] = level.float()
            return (self.head.point(self.net(x.float(), **more)).double(),)
        output = self.net(x.float(), **more)
        forecast = self.head.point(output).double() * scale + location
        if not self.tells_quantiles:
            return (forecast,)
        return forecast, output.double() * scale.unsqueeze(-1) + location.unsqueeze(-1)


def to_onnx(fitted: Fitted, path: Path) -> None:
    """Write the graph, open in its batch, to one file.

    Inputs, those that there are: ``x`` [batch, context, columns], targets, past and future columns,
    the calendar's at the end; ``series`` [batch], int64, each one's place among the ids, where
    series are scaled one by one; ``future`` [batch, horizon, known]; ``static`` [batch, features].
    Outputs: ``y_hat`` [batch, horizon, targets], and of a quantile head ``quantiles`` [batch,
    horizon, targets, levels]. The numbers are float64, in the series' unit.

    Raises:
        NotImplementedError: missing values in mode ``"recursive"``.
        ImportError: onnxscript is not installed.
    """
    options, net = fitted.options, fitted.net
    if options.mode == "recursive" and options.missing == "mask":
        raise NotImplementedError("missing: mode 'recursive' cannot be exported with 'mask'")
    if find_spec("onnxscript") is None:
        raise ImportError("to_onnx needs onnxscript: run `pip install 'rnncells[onnx]'`")
    shapes: dict[str, list[int]] = {
        "x": [options.context, fitted.scaler.location.shape[-1]],
        "future": [options.horizon, net.known],
        "static": [net.static],
    }
    given = {
        name: torch.rand(2, *shape, dtype=torch.float64)
        for name, shape in shapes.items()
        if shape[-1]
    }
    if fitted.scaler.ids is not None:
        given["series"] = torch.zeros(2, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1)
    deployed = Deployed(fitted).eval()
    program = torch.onnx.export(
        deployed,
        kwargs=given,
        dynamo=True,
        verbose=False,
        dynamic_shapes={name: {0: batch} for name in given},
        output_names=["y_hat", "quantiles"] if deployed.tells_quantiles else ["y_hat"],
    )
    assert program is not None
    program.save(path)
