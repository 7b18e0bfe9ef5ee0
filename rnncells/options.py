"""The options that torch.nn's layers do not have: keyword-only, and off by default."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, TypedDict

from rnncells.parameters import INITS
from rnncells.reference import ACTIVATIONS, CELLS

__all__ = ["DEFAULTS", "LayerOptions", "described", "read_options"]


class LayerOptions(TypedDict, total=False):
    """What every layer takes by keyword beside torch.nn's arguments.

    recompute: keep nothing of the forward pass for BPTT but the states, and run it once more in the
        backward pass, a few time steps at a time: less memory, for long sequences. The gradients
        are the same.
    stateful: the last states of a call are the initial states of the next, detached: truncated
        BPTT. See :class:`rnncells.state.StateOptions`.
    return_sequences: with ``False`` a call returns, in place of the sequence, the last output alone
        [B, D * P], of each direction the one after the last step that it walks. In inference the
        last layer's sequence is then never in memory; BPTT needs it.
    return_cell_states: of the LSTM: a call returns the last layer's memory cells after every time
        step too, as a third result of the output's layout, with D * H features; differentiable.
    go_backwards: each sequence is turned round in time before anything else, within its own length;
        the outputs are in the order in which they are computed.
    init: ``"torch"``, ``"orthogonal"`` or ``"keras"``: :func:`rnncells.parameters.initialise`.
    recurrent_dropout: the probability, in training, of a unit of the hidden state to be dropped
        where it enters the recurrent product, with one mask a sequence and direction for all time
        steps (Gal and Ghahramani 2016, "A theoretically grounded application of dropout in
        recurrent neural networks", (7)). The gates share the mask; Keras draws one for each gate of
        an LSTM or GRU, and so for ``input_dropout``.
    input_dropout: the same of a feature of the layer's input, of each layer of a stack.
    weight_dropout: of an entry of ``weight_hh``, with one mask a call (DropConnect: Merity, Keskar
        and Socher 2018, "Regularizing and optimizing LSTM language models", section 3).
    zoneout: the probability of a unit to keep its state, step by step; in evaluation the states
        are mixed so (Krueger et al. 2017, "Zoneout", section 3). For the LSTM one number for h and
        c, or a pair; for every other cell of h.
    activation, recurrent_activation: of the candidate and the output, and of the gates: names in
        ``rnncells.reference.ACTIVATIONS``. None for the cell's own, tanh and sigmoid.
    layer_norm: ``"gates"`` normalises ``W_ih x`` and ``W_hh h`` apart, each over all gates, with
        scales ``norm_ih_l{k}`` and ``norm_hh_l{k}`` [gates * H], and the LSTM's memory cell before
        the output activation, with ``norm_c_l{k}`` and ``norm_c_shift_l{k}`` [H] (Ba, Kiros and
        Hinton 2016, "Layer normalization", (20) to (22), as haste does). ``"preactivation"``
        normalises what each gate's activation takes over its H units, with ``norm_l{k}`` and
        ``norm_shift_l{k}`` [gates * H]. See :class:`rnncells.reference.Variant`.
    reset_after: of the GRU: with ``False`` it resets before the recurrent product (Cho et al.
        2014, (8)), as ONNX does by default and Keras with ``reset_after=False``.
    peephole: of the LSTM: the gates see the memory cell, by ``weight_peephole_l{k}`` [3 * H], for
        i, f and o (Gers and Schmidhuber 2000).
    coupled: of the LSTM: no input gate, ``i = 1 - f`` (Greff et al. 2017, CIFG): the gates are f,
        g, o, and the peepholes f and o.
    forget_bias: of the LSTM and the sLSTM: added to the forget gate's ``bias_ih`` when the
        parameters are drawn (Jozefowicz, Zaremba and Sutskever 2015, "An empirical exploration of
        recurrent network architectures"). None for what ``init`` says: 1 for the LSTM with
        ``"keras"``, otherwise 0.
    """

    recompute: bool
    stateful: bool
    return_sequences: bool
    return_cell_states: bool
    go_backwards: bool
    init: str
    forget_bias: float | None
    recurrent_dropout: float
    input_dropout: float
    weight_dropout: float
    zoneout: float | tuple[float, float]
    activation: str | None
    recurrent_activation: str | None
    layer_norm: str | None
    reset_after: bool
    peephole: bool
    coupled: bool


DEFAULTS: LayerOptions = {
    "recompute": False,
    "stateful": False,
    "return_sequences": True,
    "return_cell_states": False,
    "go_backwards": False,
    "init": "torch",
    "forget_bias": None,
    "recurrent_dropout": 0.0,
    "input_dropout": 0.0,
    "weight_dropout": 0.0,
    "zoneout": 0.0,
    "activation": None,
    "recurrent_activation": None,
    "layer_norm": None,
    "reset_after": True,
    "peephole": False,
    "coupled": False,
}

# The cells of which an activation can be chosen, and those with layer norm.
_NORMED = ("rnn_tanh", "rnn_relu", "lstm", "gru")
_OPEN = {"activation": (*_NORMED, "indrnn"), "recurrent_activation": ("lstm", "gru")}

# The options that decide which parameters there are.
SHAPING = ("layer_norm", "peephole", "coupled")

_FLAGS = tuple(name for name, value in DEFAULTS.items() if isinstance(value, bool))


def read_options(
    layer: str, cell: str, bias: object, projected: bool, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Every option's value, checked.

    Args:
        layer, cell, bias, projected: the layer's class and cell by name, and whether it has biases
            and a projection.
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
    for name in _FLAGS:
        if not isinstance(options[name], bool):
            raise TypeError(f"{name} should be of type bool, got: {type(options[name]).__name__}")
    if not isinstance(options["init"], str) or options["init"] not in INITS:
        known = ", ".join(map(repr, INITS))
        raise ValueError(f"init: expected one of {known}; got {options['init']!r}")
    if cell == "indrnn" and options["init"] != "torch":
        raise ValueError(f"init: {layer} has no recurrent matrix for {options['init']!r}")
    _check_forget_bias(options["forget_bias"], layer, cell, bias)
    for name in ("recurrent_dropout", "input_dropout", "weight_dropout"):
        options[name] = _rate(name, options[name])
    options["zoneout"] = _zoneout(options["zoneout"], cell)
    _check_variant(options, layer, cell)
    if projected and options["zoneout"] not in (0.0, (0.0, 0.0)):
        raise ValueError("zoneout= and proj_size= exclude each other")
    if projected and options["layer_norm"] is not None:
        raise ValueError("layer_norm= and proj_size= exclude each other")
    return options


def _rate(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not 0 <= value < 1:
        raise ValueError(f"{name}: expected a probability from 0 to below 1, got {value!r}")
    return float(value)


def _zoneout(value: object, cell: str) -> float | tuple[float, float]:
    if not isinstance(value, (tuple, list)):
        return _rate("zoneout", value)
    if cell != "lstm" or len(value) != 2:
        expected = "one number, or a pair for h and c" if cell == "lstm" else "one number"
        raise ValueError(f"zoneout: expected {expected}; got {value!r}")
    return _rate("zoneout", value[0]), _rate("zoneout", value[1])


def _check_variant(options: Mapping[str, Any], layer: str, cell: str) -> None:
    for name in ("activation", "recurrent_activation"):
        value = options[name]
        if value is not None and not (isinstance(value, str) and value in ACTIVATIONS):
            known = ", ".join(map(repr, ACTIVATIONS))
            raise ValueError(f"{name}: expected None or one of {known}; got {value!r}")
    if options["recurrent_activation"] is not None and len(CELLS[cell].gates) == 1:
        raise ValueError(f"recurrent_activation: {layer} has no gates")
    for name, cells in _OPEN.items():
        if options[name] is not None and cell not in cells:
            raise ValueError(f"{name}: {layer} has its own and no other")
    norm = options["layer_norm"]
    if norm not in (None, "gates", "preactivation"):
        raise ValueError(f"layer_norm: expected None, 'gates' or 'preactivation'; got {norm!r}")
    if norm is not None:
        if cell not in _NORMED:
            raise ValueError(f"layer_norm: {layer} has none")
        if options["peephole"]:
            raise ValueError("layer_norm= and peephole=True exclude each other")
        if not options["reset_after"]:
            raise ValueError("layer_norm= and reset_after=False exclude each other")
        if options["coupled"] and norm == "gates":
            raise ValueError("layer_norm='gates' and coupled=True exclude each other")
    if not options["reset_after"] and cell != "gru":
        raise ValueError(f"reset_after: only a GRU has a reset gate, not {layer}")
    for name in ("peephole", "coupled", "return_cell_states"):
        if options[name] and cell != "lstm":
            raise ValueError(f"{name}: only for an LSTM, not {layer}")


def _check_forget_bias(value: object, layer: str, cell: str, bias: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"forget_bias: expected a number, got {type(value).__name__}")
    if not isfinite(value):
        raise ValueError(f"forget_bias: expected a finite number, got {value!r}")
    if cell not in ("lstm", "slstm"):
        raise ValueError(f"forget_bias: only an LSTM has a forget gate, not {layer}")
    if not bias:
        raise ValueError("forget_bias: the layer has no bias to add it to (bias=False)")


def described(layer: object) -> str:
    """The options of a layer that are not the default's, as its ``repr`` has them."""
    values = ((name, getattr(layer, name), default) for name, default in DEFAULTS.items())
    return "".join(f", {name}={value!r}" for name, value, default in values if value != default)
