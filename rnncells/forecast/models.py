"""The networks that a forecaster can be, by name, built from its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rnncells.forecast.checks import check_positive
from rnncells.forecast.networks import (
    ConvRecurrentNet,
    DenseNet,
    EncoderDecoder,
    Network,
    RecurrentNet,
    VectorToSequence,
    WaveNet,
)

if TYPE_CHECKING:
    from rnncells.forecast.options import Options

__all__ = ["AFTER_EACH_STEP", "MODELS", "Model", "make_network"]

Model = Literal[
    "recurrent",
    "conv recurrent",
    "wavenet",
    "encoder decoder",
    "vector to sequence",
    "dense",
    "linear",
]

MODELS: dict[Model, type[Network]] = {
    "recurrent": RecurrentNet,
    "conv recurrent": ConvRecurrentNet,
    "wavenet": WaveNet,
    "encoder decoder": EncoderDecoder,
    "vector to sequence": VectorToSequence,
    "dense": DenseNet,
    "linear": DenseNet,
}

AFTER_EACH_STEP: tuple[Model, ...] = ("recurrent", "conv recurrent", "wavenet")
WITHOUT_DROPOUT: tuple[Model, ...] = ("wavenet", "linear")


def make_network(options: Options, features: int, job: Mapping[str, Any]) -> Network:
    """The network of a forecaster's parameters, its weights from torch's random state.

    Args:
        options: the parameters.
        features: columns of its input.
        job: see :class:`rnncells.forecast.networks.Job`.

    Raises:
        TypeError: a further option that the network does not have.
        ValueError: a parameter that it does not have, or a size that is not allowed.
    """
    if options.model in WITHOUT_DROPOUT and options.dropout:
        raise ValueError(f"dropout: model {options.model!r} has none, got {options.dropout}")
    own, more = _parameters(options), dict(options.network or {})
    if options.model == "wavenet" and "dilations" not in more:
        kernel = more.get("kernel", 2)
        own["dilations"] = _dilations(options.context, kernel) * len(_sizes(options))
    try:
        return MODELS[options.model](
            features=features,
            horizon=options.steps,
            **job,
            **{**own, **more},
        )
    except TypeError as error:
        if not more:
            raise
        raise TypeError(
            f"network: expected options of {MODELS[options.model].__name__}, got "
            f"{', '.join(map(repr, more))}: {error}"
        ) from error


def _parameters(options: Options) -> dict[str, Any]:
    """What the network is told of sizes, under its own names."""
    if options.model == "linear":
        return {"context": options.context}
    if options.model == "dense":
        return {
            "context": options.context,
            "hidden": _sizes(options),
            "dropout": options.dropout,
        }
    if options.model == "wavenet":
        return {"filters": _sizes(options)[0]}
    found = {
        "cell": options.cell,
        "hidden_size": options.hidden_size,
        "num_layers": options.num_layers,
        "dropout": options.dropout,
    }
    return found | ({"context": options.context} if options.model == "vector to sequence" else {})


def _sizes(options: Options) -> list[int]:
    """The width of each layer."""
    sizes = options.hidden_size
    if isinstance(sizes, Sequence):
        if options.model == "wavenet" and len(set(sizes)) != 1:
            raise ValueError(f"hidden_size: expected one width for 'wavenet', got {sizes}")
        return list(sizes)
    [layers] = check_positive(num_layers=options.num_layers)
    return [sizes] * layers


def _dilations(context: int, kernel: int) -> list[int]:
    """From 1 on, each twice the one before, until the last step sees the whole context."""
    dilations = [1]
    while kernel > 1 and 1 + (kernel - 1) * sum(dilations) < context:
        dilations.append(2 * dilations[-1])
    return dilations
