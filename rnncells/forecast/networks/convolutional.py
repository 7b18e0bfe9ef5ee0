"""Networks with convolutions: one before recurrent layers, and WaveNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnncells.forecast.checks import check_positive
from rnncells.forecast.networks.base import Job, SequenceNetwork
from rnncells.forecast.networks.recurrent import (
    Cell,
    RecurrentJob,
    RecurrentStack,
    refuse_bidirectional,
    split_options,
)

__all__ = ["ConvRecurrentNet", "WaveNet"]


class ConvRecurrentNet(SequenceNetwork):
    """A strided convolution that shortens the sequence, then recurrent layers.

    With a kernel of k and a stride of s there is a forecast after the steps k - 1, k - 1 + s, ...
    (the targets ``[:, k - 1::s]``); where these would miss the last step, all move up to it.

    Args:
        features: columns of the input.
        hidden_size: units of each recurrent layer, or of one after another.
        horizon: steps that are forecast.
        cell: of the recurrent layers.
        filters: of the convolution.
        kernel: steps that one filter sees.
        stride: steps from one to the next.
        options: of the recurrent layers, see :class:`rnncells.forecast.networks.StackOptions`, and
            :class:`rnncells.forecast.networks.Job`.
    """

    def __init__(
        self,
        features: int,
        hidden_size: int | Sequence[int],
        horizon: int,
        *,
        cell: Cell = "gru",
        filters: int = 20,
        kernel: int = 4,
        stride: int = 2,
        **options: Unpack[RecurrentJob],
    ) -> None:
        filters, kernel, stride = check_positive(filters=filters, kernel=kernel, stride=stride)
        layers, job = split_options(options)
        refuse_bidirectional(layers)
        stack = RecurrentStack(cell, filters, hidden_size, **layers)
        super().__init__(stack.width, features, horizon, **job)
        self.kernel, self.stride = kernel, stride
        self.convolution = nn.Conv1d(self.features + self.static, filters, kernel, stride)
        self.recurrent = stack

    def output_steps(self, context: int) -> slice:
        """Every ``stride``-th step, from the first that has a whole kernel behind it."""
        if context < self.kernel:
            raise ValueError(
                f"x: expected at least {self.kernel} time steps, the kernel's, got {context}"
            )
        return slice(self.kernel - 1 + (context - self.kernel) % self.stride, None, self.stride)

    def encode(self, rows: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The last layer's units after each step of ``output_steps``."""
        first = self.output_steps(rows.shape[1]).start - (self.kernel - 1)
        short = self.convolution(rows[:, first:].transpose(1, 2)).transpose(1, 2)
        return self.recurrent(short)


class WaveNet(SequenceNetwork):
    """Causal convolutions, each dilated twice as far as the one before (A. van den Oord and others,
    "WaveNet", 2016), so that a few layers see far back.

    Plain, each layer is a convolution and ReLU. Gated, it is the paper's: tanh(filter) times
    sigmoid(gate), a 1x1 convolution, and that added to the layer's input (residual) and to the
    network's output (skip).

    Args:
        features: columns of the input.
        horizon: steps that are forecast.
        filters: of each convolution.
        kernel: taps of each.
        dilations: steps between two taps, layer by layer.
        gated: whether the layers are gated.
        job: see :class:`rnncells.forecast.networks.Job`.
    """

    def __init__(
        self,
        features: int,
        horizon: int,
        *,
        filters: int = 20,
        kernel: int = 2,
        dilations: Sequence[int] = (1, 2, 4, 8) * 2,
        gated: bool = False,
        **job: Unpack[Job],
    ) -> None:
        super().__init__(filters, features, horizon, **job)
        filters, kernel = check_positive(filters=filters, kernel=kernel)
        dilations = [check_positive(dilations=dilation)[0] for dilation in dilations]
        if not dilations:
            raise ValueError("dilations: expected one a layer, got none")
        self.kernel, self.dilations, self.gated = kernel, dilations, gated
        width = self.features + self.static
        # where layers are added up, the input is given their width first
        self.entry = nn.Conv1d(width, filters, 1) if gated else nn.Identity()
        self.convolutions, self.mixers = nn.ModuleList(), nn.ModuleList()
        for place, dilation in enumerate(dilations):
            inputs = width if place == 0 and not gated else filters
            outputs = 2 * filters if gated else filters
            self.convolutions.append(nn.Conv1d(inputs, outputs, kernel, dilation=dilation))
            self.mixers.append(nn.Conv1d(filters, 2 * filters, 1) if gated else nn.ReLU())

    def encode(self, rows: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The last layer's filters after each step, or gated the sum of all skips."""
        x, skips = self.entry(rows.transpose(1, 2)), []
        for dilation, convolution, mixer in zip(
            self.dilations, self.convolutions, self.mixers, strict=True
        ):
            y = convolution(F.pad(x, ((self.kernel - 1) * dilation, 0)))
            if self.gated:
                y, gate = y.chunk(2, dim=1)
                residual, skip = mixer(y.tanh() * gate.sigmoid()).chunk(2, dim=1)
                x = x + residual
                skips.append(skip)
            else:
                x = mixer(y)
        if self.gated:
            x = torch.stack(skips).sum(0).relu()
        return x.transpose(1, 2), None
