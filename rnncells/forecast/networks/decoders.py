"""Networks that write the horizon step by step: from a vector, or from an encoder's state."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from rnncells.forecast.checks import check_positive
from rnncells.forecast.networks.base import Network
from rnncells.forecast.networks.dense import refuse_every_step
from rnncells.forecast.networks.recurrent import (
    Cell,
    RecurrentJob,
    RecurrentStack,
    refuse_bidirectional,
    split_options,
)

__all__ = ["EncoderDecoder", "VectorToSequence"]


class VectorToSequence(Network):
    """One vector in, a sequence out.

    The last ``context`` rows and what is static, as one vector, go into recurrent layers at each
    step of the horizon, or at the first alone; what is known ahead of a step goes in at that step.

    Args:
        features: columns of the input.
        hidden_size: units of each recurrent layer.
        horizon: steps that are forecast.
        context: rows of x that form the vector.
        repeat: give the vector at each step; else zeros follow after the first.
        cell: of the recurrent layers.
        options: of the recurrent layers, see :class:`rnncells.forecast.networks.StackOptions`, and
            :class:`rnncells.forecast.networks.Job`.
    """

    def __init__(
        self,
        features: int,
        hidden_size: int,
        horizon: int,
        *,
        context: int = 1,
        repeat: bool = True,
        cell: Cell = "gru",
        **options: Unpack[RecurrentJob],
    ) -> None:
        layers, job = split_options(options)
        super().__init__(features, horizon, **job)
        [self.context] = check_positive(context=context)
        self.repeat = repeat
        width = self.context * self.features + self.static + self.known
        self.recurrent = RecurrentStack(cell, width, hidden_size, **layers)
        self.output = nn.Linear(self.recurrent.width, self.numbers)

    def forward(
        self,
        x: Tensor,
        every_step: bool = False,
        *,
        future: Tensor | None = None,
        static: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Any:
        """Forecast from windows [batch, time, features]: the head's output after the last step.

        Raises:
            ValueError: ``every_step``, a window shorter than the vector's, or a wrong shape.
        """
        refuse_every_step(self, every_step)
        self.check(x, future, static, every_step)
        if x.shape[1] < self.context:
            raise ValueError(f"x: expected at least {self.context} time steps, got {x.shape[1]}")
        vector = x[:, -self.context :].flatten(1)
        if static is not None:
            vector = torch.cat([vector, static], dim=1)
        rows = vector.unsqueeze(1).expand(-1, self.horizon, -1)
        if not self.repeat:
            rows = torch.cat([rows[:, :1], torch.zeros_like(rows[:, 1:])], dim=1)
        if future is not None:
            rows = torch.cat([rows, future], dim=2)
        hidden, _ = self.recurrent(rows)
        return self.tell(self.output(hidden).flatten(1), self.base(x), level)


class EncoderDecoder(Network):
    """Two recurrent networks: one reads the context, the other starts from its state and writes the
    forecast (I. Sutskever and others, "Sequence to sequence learning with neural networks", 2014).

    At each step of the horizon the decoder reads the value before, what is known ahead of the step,
    and what is static. The value before is its own forecast (free running) or, in training and as
    often as ``teacher_forcing`` says, the target itself (R. Williams and D. Zipser, 1989): the
    whole horizon then takes one call. Which it is is drawn for each batch.

    Args:
        features: columns of the input.
        hidden_size: units of each layer of both networks.
        horizon: steps that are forecast.
        teacher_forcing: the chance of showing a batch its targets, from 0 to 1. Where targets are
            missing (``observed``), none are shown.
        cell: of the recurrent layers.
        options: of the recurrent layers, see :class:`rnncells.forecast.networks.StackOptions`, and
            :class:`rnncells.forecast.networks.Job`.
    """

    def __init__(
        self,
        features: int,
        hidden_size: int,
        horizon: int,
        *,
        teacher_forcing: float = 0.0,
        cell: Cell = "gru",
        **options: Unpack[RecurrentJob],
    ) -> None:
        layers, job = split_options(options)
        super().__init__(features, horizon, **job)
        if not 0 <= teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing: expected 0 to 1, got {teacher_forcing}")
        refuse_bidirectional(layers)
        self.teacher_forcing = float(teacher_forcing)
        ahead = len(self.targets) + self.known + self.static
        self.encoder = RecurrentStack(cell, self.features + self.static, hidden_size, **layers)
        self.decoder = RecurrentStack(cell, ahead, hidden_size, **layers)
        self.output = nn.Linear(self.decoder.width, self.numbers)

    def forward(
        self,
        x: Tensor,
        every_step: bool = False,
        *,
        future: Tensor | None = None,
        static: Tensor | None = None,
        level: Tensor | None = None,
        teacher: Tensor | None = None,
    ) -> Any:
        """Forecast from windows [batch, time, features]: the head's output after the last step.

        Args:
            x, every_step, future, static, level: see
                :meth:`rnncells.forecast.networks.SequenceNetwork.forward`.
            teacher: the targets [batch, horizon, targets], to be shown as the value before.

        Raises:
            ValueError: ``every_step``, or a shape that does not fit.
        """
        refuse_every_step(self, every_step)
        self.check(x, future, static, every_step)
        rows, ahead = x, [] if future is None else [future]
        if static is not None:
            rows = torch.cat([x, static.unsqueeze(1).expand(-1, x.shape[1], -1)], dim=2)
            ahead.append(static.unsqueeze(1).expand(-1, self.horizon, -1))
        _, state = self.encoder(rows)
        last, base = x[:, -1:, self.targets], self.base(x)
        if teacher is None:
            return self._run_free(last, base, ahead, state, level)
        before = torch.cat([last, teacher[:, :-1]], dim=1)
        hidden, _ = self.decoder(torch.cat([before, *ahead], dim=2), state)
        return self.tell(self.output(hidden).flatten(1), base, level)

    def _run_free(
        self,
        before: Tensor,
        base: Tensor | None,
        ahead: list[Tensor],
        state: Any,
        level: Tensor | None,
    ) -> Tensor:
        outputs = []
        bases = None if base is None else base.expand(-1, self.horizon, -1)
        for step in range(self.horizon):
            row = torch.cat([before, *(part[:, step : step + 1] for part in ahead)], dim=2)
            hidden, state = self.decoder(row, state)
            base = None if bases is None else bases[:, step : step + 1]
            output = self.tell(self.output(hidden).flatten(1), base, level)
            before = self.head.fed_back(self.head.point(output), level)
            outputs.append(output)
        return torch.cat(outputs, dim=1)
