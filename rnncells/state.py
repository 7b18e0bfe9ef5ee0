"""State from call to call, sequences turned round, and the last output alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import Module
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from rnncells.checks import Lengths
from rnncells.onnx import is_exporting
from rnncells.tracing import Proxy

__all__ = ["UNSTREAMED", "StateOptions", "turned"]

# Options that rnncells.streaming knows nothing of, and their values where they are off.
UNSTREAMED = {
    "stateful": False,
    "return_sequences": True,
    "return_cell_states": False,
    "go_backwards": False,
}


class StateOptions(RNNBase):
    """What ``stateful`` and ``return_sequences`` do around a call of a layer.

    With ``stateful`` a call without initial states starts where the call before ended, each
    sequence of the batch from the states of its own, both directions' of a bidirectional layer; the
    first call, and the first after :meth:`reset_states`, from zeros. Initial states that are given
    go before those carried. The carried states are detached, so that gradients end at a call's
    first step (truncated BPTT); they take the input's dtype, move with ``.to()``, go into copies
    and pickles and not into ``state_dict``. ``train()`` and ``eval()`` do not touch them. Each call
    carries on, so a forward pass that is run twice, as activation checkpointing does, is not the
    same twice.
    """

    # Layers of older states have none of their own.
    stateful: bool = False
    return_sequences: bool = True
    return_cell_states: bool = False
    go_backwards: bool = False
    _state_widths: list[int]  # P, and H for every other state
    _carried: list[Tensor] | None = None  # each [num_layers * D, B, P or H], in the caller's order

    def reset_states(self) -> None:
        """Forgets the carried states: the next call starts from zeros, with a batch of any size."""
        self.__dict__.pop("_carried", None)  # as before the first call: one compiled graph for both

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Not RNNBase's, which lays the weights out for cuDNN.
        Module._apply(self, fn, recurse)
        if self._carried is not None:
            self._carried = [fn(state) for state in self._carried]
        return self

    def _run_once(
        self,
        input: Any,
        states: Sequence[Tensor] | None,
        lengths: Lengths | None,
        resets: Tensor | None,
    ) -> tuple[Any, list[Tensor]]:
        raise NotImplementedError

    def _run(
        self,
        input: Any,
        states: Sequence[Tensor] | None,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, list[Tensor]]:
        """A call, as forward has it; ``states`` and the last states are lists, and with
        ``return_cell_states`` the cells of every time step are the last of these."""
        if (self.return_sequences and not self.stateful) or isinstance(input, Proxy):
            return self._run_once(input, states, lengths, resets)
        if self.stateful:
            _refuse_what_keeps_nothing()
            if states is None and self._carried is not None:
                states = self._carried_on(self._carried, input)
        y, last = self._run_once(input, states, lengths, resets)
        if self.stateful:
            # Copies: what the caller does to the states that it gets is its own affair.
            each = (state.detach().clone() for state in last[: len(self._state_widths)])
            self._carried = [s.unsqueeze(1) if s.dim() == 2 else s for s in each]
        if not self.return_sequences:
            y = last[0][-2 if self.bidirectional else -1 :]  # of the last layer
            y = y.flatten() if y.dim() == 2 else y.transpose(0, 1).flatten(1)
            y = y if self.bidirectional else y.clone()  # apart from h_n, as two directions' are
        return y, last

    def _carried_on(self, carried: list[Tensor], input: Any) -> list[Tensor] | None:
        """The carried states as initial states for this input."""
        if isinstance(input, PackedSequence):
            x, unbatched = input.data, False
            batch = int(input.batch_sizes[0]) if len(input.batch_sizes) else 0
        elif isinstance(input, Tensor) and input.dim() in (2, 3):
            x, unbatched = input, input.dim() == 2
            batch = 1 if unbatched else x.shape[0 if self.batch_first else 1]
        else:
            return None  # no input for a layer, which is said where it is run
        open_batch = isinstance(input, PackedSequence) and is_compiling()  # checked when it runs
        if not open_batch and carried[0].shape[1] != batch:
            raise ValueError(
                f"stateful: the states carried over are those of {carried[0].shape[1]} sequences, "
                f"and the input has {batch}; call reset_states() first, or give hx"
            )
        states = [state.to(x.dtype) for state in carried]
        if not is_compiling() and not torch.is_inference_mode_enabled():
            states = [state.clone() if state.is_inference() else state for state in states]
        return [state.squeeze(1) for state in states] if unbatched else states


def _refuse_what_keeps_nothing() -> None:
    """Raises where what a call leaves behind is lost."""
    exporting = is_compiling() and (torch.compiler._is_exporting_flag or is_exporting())
    if exporting or torch._C._get_tracing_state() is not None:
        raise NotImplementedError(
            "stateful: a traced or exported program keeps no state between calls; take hx in and "
            "the last states out, with stateful=False"
        )
    if not is_compiling() and torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            "stateful: states inside of torch.func's transforms cannot be carried out of them; "
            "take hx in and the last states out, with stateful=False"
        )


def turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The sequences of ``x`` [T, B, I] turned round in time, each within its length [B]; what lies
    behind that stays."""
    if lengths is None:
        return x.flip(0)
    steps, batch = x.shape[0], x.shape[1]
    t = torch.arange(steps, device=x.device).unsqueeze(1)
    ends = lengths.to(x.device).clamp(1, steps)  # the operator refuses others
    return x[torch.where(t < ends, ends - 1 - t, t), torch.arange(batch, device=x.device)]
