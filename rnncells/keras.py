"""From Keras's recurrent layers to ours, and back. Keras itself is not imported.

Keras keeps a kernel [I, gates * H], a recurrent kernel [H, gates * H], and a bias [gates * H], or,
in a GRU that resets after the product, [2, gates * H], of the input and of the recurrent part.
Ours are the transposes, with two biases: where Keras has one, it is ``bias_ih``, and ``bias_hh`` is
0. The LSTM's gates are in the same order (i, f, g, o), the GRU's are z, r, n there and r, z, n
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from rnncells.layers import GRU, LSTM, SimpleRNN
from rnncells.recurrent import RecurrentLayer
from rnncells.reference import ACTIVATIONS

__all__ = ["from_keras", "load_keras_weights", "to_keras_weights"]

_LAYERS: dict[str, Callable[..., RecurrentLayer]] = {
    "SimpleRNN": SimpleRNN,
    "LSTM": LSTM,
    "GRU": GRU,
}
_OURS_OF_THEIRS = {"gru": (1, 0, 2)}  # the places in Keras's order of our gates


def from_keras(
    layer: Any, *, device: Any = None, dtype: torch.dtype | None = None
) -> RecurrentLayer:
    """A layer of ours that computes what a layer of Keras does, with its weights.

    ``return_sequences``, ``go_backwards``, ``stateful``, ``reset_after``, the activations and the
    two dropouts (``dropout`` is our ``input_dropout``) are taken over; the result is
    ``batch_first``, as Keras's layers are. Masks come of torch's generator, not Keras's, and are
    one for all gates, where Keras's LSTM and GRU draw one for each. Called with x [B, T, I] it
    returns, as all of ours do, the outputs and the last states: ``from_keras(layer)(x)[0]`` is
    Keras's ``layer(x)``.

    Args:
        layer: a built ``keras.layers.SimpleRNN``, ``LSTM`` or ``GRU``, or a ``Bidirectional`` of
            one that concatenates.
        device, dtype: where the parameters live, and of what dtype they are; torch's defaults.

    Raises:
        TypeError: it is no such layer.
        ValueError: it is not built yet.
        NotImplementedError: it has an option that our layers do not have.
    """
    kind, config = _read(layer)
    weights = layer.get_weights()
    if not weights:
        raise ValueError("layer: expected one that is built, got one without weights; call it once")
    options = {name: config[name] for name in ("return_sequences", "go_backwards", "stateful")}
    options |= {
        "activation": _ACTIVATIONS[config["activation"]],
        "input_dropout": config["dropout"],
        "recurrent_dropout": config["recurrent_dropout"],
    }
    if options["activation"] == "tanh":
        options["activation"] = None  # our own
    if kind == "SimpleRNN" and options["activation"] == "relu":
        options |= {"nonlinearity": "relu", "activation": None}
    if kind != "SimpleRNN":
        gate = _ACTIVATIONS[config["recurrent_activation"]]
        options["recurrent_activation"] = None if gate == "sigmoid" else gate
    if kind == "GRU":
        options["reset_after"] = config["reset_after"]
    ours = _LAYERS[kind](
        len(weights[0]),
        config["units"],
        bias=config["use_bias"],
        bidirectional=type(layer).__name__ == "Bidirectional",
        batch_first=True,
        device=device,
        dtype=dtype,
        **options,
    )
    load_keras_weights(ours, weights)
    return ours


def load_keras_weights(layer: RecurrentLayer, weights: Sequence[Any]) -> None:
    """Copies weights in the form of Keras's ``get_weights()`` into a layer of ours.

    Args:
        layer: for several layers or directions the weights of all of them come one after another,
            as those of a Keras model or of a ``Bidirectional`` do, the forward direction first.
        weights: for each of them the kernel, the recurrent kernel and, with a bias, the bias:
            arrays, tensors or nested lists.

    Raises:
        ValueError: their number or a shape does not fit. Nothing is copied then.
        NotImplementedError: Keras has nothing like the layer's projection.
    """
    groups = list(_directions(layer))
    each = 3 if layer.bias else 2
    if len(weights) != each * len(groups):
        raise ValueError(
            f"weights: expected {each * len(groups)} arrays, {each} for each layer and direction; "
            f"got {len(weights)}"
        )
    copies = []
    for k, parameters in enumerate(groups):
        own = [torch.as_tensor(value) for value in weights[each * k : each * (k + 1)]]
        _check_shapes(own, _shapes(layer, parameters), each * k)
        copies += list(zip(parameters, from_keras_order(layer._cell, own), strict=True))
    with torch.no_grad():
        for parameter, value in copies:
            parameter.copy_(value)


def to_keras_weights(layer: RecurrentLayer) -> list[Any]:
    """A layer's weights in the form of Keras's ``get_weights()``, for ``set_weights()``: NumPy
    arrays, in the order in which :func:`load_keras_weights` takes them. Where Keras has one bias,
    it is the sum of our two.

    Raises:
        NotImplementedError: Keras has nothing like the layer's projection.
    """
    arrays = []
    for parameters in _directions(layer):
        own = [p.detach().cpu() for p in parameters]
        for value in to_keras_order(layer._cell, own, layer.reset_after):
            known = value.float() if value.dtype == torch.bfloat16 else value  # NumPy has none
            arrays.append(known.contiguous().numpy())
    return arrays


def from_keras_order(cell: str, own: Sequence[Tensor]) -> list[Tensor]:
    """One direction's weights as Keras has them, as ``w_ih, w_hh`` and, with a bias, ``b_ih,
    b_hh`` of :mod:`rnncells.reference`."""
    kernel, recurrent, *bias = own
    found = [kernel.T, recurrent.T]
    for value in bias:
        found += value if value.dim() == 2 else [value, torch.zeros_like(value)]
    return [_permuted(value, cell) for value in found]


def to_keras_order(cell: str, own: Sequence[Tensor], reset_after: bool = True) -> list[Tensor]:
    """The other way round; ``reset_after`` is of the GRU, which has two biases with it."""
    w_ih, w_hh, *biases = (_permuted(value, cell) for value in own)
    found = [w_ih.T, w_hh.T]
    if biases:
        two = cell == "gru" and reset_after
        found.append(torch.stack(biases) if two else biases[0] + biases[1])
    return found


def _permuted(value: Tensor, cell: str) -> Tensor:
    """The gates' rows in the other order, which for the GRU is its own inverse."""
    order = _OURS_OF_THEIRS.get(cell)
    if order is None:
        return value
    blocks = value.chunk(len(order))
    return torch.cat([blocks[place] for place in order])


def _directions(layer: RecurrentLayer) -> Iterator[list[Tensor]]:
    """The parameters of each layer and direction: w_ih, w_hh and, with a bias, b_ih, b_hh."""
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(f"layer: expected one of rnncells' layers, got {type(layer).__name__}")
    if layer._cell not in ("rnn_tanh", "rnn_relu", "lstm", "gru"):
        raise NotImplementedError(f"layer: Keras has no {type(layer).__name__}")
    if layer.proj_size:
        raise NotImplementedError("layer: Keras has no LSTM with a projection (proj_size)")
    for name in ("peephole", "coupled", "layer_norm"):
        if getattr(layer, name):
            raise NotImplementedError(f"layer: Keras has no layer with {name}")
    for names in layer._all_weights:
        yield [getattr(layer, name) for name in names]


def _shapes(layer: RecurrentLayer, parameters: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """The shapes that Keras's arrays have for a direction."""
    found = to_keras_order(layer._cell, parameters, layer.reset_after)
    return [tuple(value.shape) for value in found]


def _check_shapes(found: Sequence[Tensor], expected: Sequence[tuple[int, ...]], first: int) -> None:
    for k, (value, shape) in enumerate(zip(found, expected, strict=True)):
        if value.shape != shape:
            raise ValueError(
                f"weights[{first + k}]: expected shape {list(shape)}, got {list(value.shape)}"
            )


def _read(layer: Any) -> tuple[str, dict[str, Any]]:
    """A Keras layer's kind and options, checked."""
    if type(layer).__name__ != "Bidirectional":
        return _read_one(layer)
    if layer.merge_mode != "concat":
        raise NotImplementedError(
            f"merge_mode: our layers concatenate their directions, got {layer.merge_mode!r}"
        )
    (kind, config), backward = _read_one(layer.forward_layer), _read_one(layer.backward_layer)
    if config["go_backwards"]:
        raise NotImplementedError(
            "go_backwards: in a Bidirectional layer, expected of the backward layer alone"
        )
    if backward != (kind, {**config, "go_backwards": True}):
        raise NotImplementedError(
            "backward_layer: expected one like the forward layer, got another kind or options"
        )
    return kind, config


_KEPT = (
    *("units", "use_bias", "return_sequences", "go_backwards", "stateful", "activation"),
    *("recurrent_activation", "reset_after", "dropout", "recurrent_dropout"),
)
# Keras's names of activations, and ours.
_ACTIVATIONS = {name: name for name in ACTIVATIONS if name != "identity"} | {
    "swish": "silu",
    "linear": "identity",
    None: "identity",
}


def _read_one(layer: Any) -> tuple[str, dict[str, Any]]:
    kind = type(layer).__name__
    if kind not in _LAYERS or not hasattr(layer, "get_config"):
        raise TypeError(
            "layer: expected a keras.layers.SimpleRNN, LSTM, GRU or a Bidirectional of one, "
            f"got {kind}"
        )
    config: Mapping[str, Any] = layer.get_config()
    for name in ("activation", "recurrent_activation"):
        value = config.get(name)
        if not isinstance(value, (str, NoneType)) or value not in _ACTIVATIONS:
            known = ", ".join(map(str, _ACTIVATIONS))
            raise NotImplementedError(f"{name}: expected one of {known}; got {config[name]!r}")
    return kind, {name: config[name] for name in _KEPT if name in config}
