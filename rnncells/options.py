"""The options that torch.nn's layers do not have: keyword-only, and off by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from rnncells.parameters import INITS

__all__ = ["DEFAULTS", "LayerOptions", "described", "read_options"]


class LayerOptions(TypedDict, total=False):
    """What every layer takes by keyword beside torch.nn's arguments.

    recompute: keep nothing of the forward pass for BPTT but the states, and run it once more in the
        backward pass, a few time steps at a time: less memory, for long sequences. The gradients
        are the same.
    stateful: the last states of a call are the initial states of the next, detached: truncated
        BPTT. See :class:`rnncells.state.StateOptions`.
    return_sequences: with ``False`` a call returns, in place of the sequence, the last output alone
        [B, D * P], of each direction the one after the last step that it walks.
    go_backwards: each sequence is turned round in time before anything else, within its own length;
        the outputs are in the order in which they are computed.
    init: ``"torch"``, ``"orthogonal"`` or ``"keras"``: :func:`rnncells.parameters.initialise`.
    forget_bias: of the LSTM: added to the forget gate's ``bias_ih`` when the parameters are drawn
        (Jozefowicz, Zaremba and Sutskever 2015, "An empirical exploration of recurrent network
        architectures"). None for what ``init`` says: 1 for ``"keras"``, otherwise 0.
    """

    recompute: bool
    stateful: bool
    return_sequences: bool
    go_backwards: bool
    init: str
    forget_bias: float | None


DEFAULTS: LayerOptions = {
    "recompute": False,
    "stateful": False,
    "return_sequences": True,
    "go_backwards": False,
    "init": "torch",
    "forget_bias": None,
}


def read_options(layer: str, cell: str, bias: object, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option's value, checked.

    Args:
        layer, cell, bias: the layer's class and cell by name, and whether it has biases.
        given: the options as its constructor got them.

    Raises:
        TypeError: for an option that there is not, as Python has it, or of a wrong type.
        ValueError: for a value out of range, or an option that is another layer's.
    """
    for name in given:
        if name == "proj_size":
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if name not in DEFAULTS:
            raise TypeError(f"{layer}.__init__() got an unexpected keyword argument '{name}'")
    options: dict[str, Any] = {**DEFAULTS, **given}
    for name in ("recompute", "stateful", "return_sequences", "go_backwards"):
        if not isinstance(options[name], bool):
            raise TypeError(f"{name} should be of type bool, got: {type(options[name]).__name__}")
    if options["init"] not in INITS:
        known = ", ".join(map(repr, INITS))
        raise ValueError(f"init: expected one of {known}; got {options['init']!r}")
    _check_forget_bias(options["forget_bias"], layer, cell, bias)
    return options


def _check_forget_bias(value: object, layer: str, cell: str, bias: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"forget_bias: expected a number, got {type(value).__name__}")
    if cell != "lstm":
        raise ValueError(f"forget_bias: only an LSTM has a forget gate, not {layer}")
    if not bias:
        raise ValueError("forget_bias: the layer has no bias to add it to (bias=False)")


def described(layer: object) -> str:
    """The options of a layer that are not the default's, as its ``repr`` has them."""
    values = ((name, getattr(layer, name), default) for name, default in DEFAULTS.items())
    return "".join(f", {name}={value!r}" for name, value, default in values if value != default)
