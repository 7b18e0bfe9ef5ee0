"""The full product of cell, variant, direction and lengths: whole layers, with the specification in
the engine's place, have the same outputs, states and gradients."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_leaves

import rnncells
from rnncells import recurrent
from rnncells.variants import PLAIN, Varied, reference_layer

T, B, I, H = 4, 3, 2, 5
LENGTHS = {"full": None, "lengths": [4, 1, 3], "packed": [4, 3, 1]}
DROPOUTS = {"recurrent_dropout": 0.4, "input_dropout": 0.3, "weight_dropout": 0.2}
ALL: dict[str, Any] = {**DROPOUTS, "zoneout": 0.25}
MACHINERY: list[dict[str, Any]] = [{name: rate} for name, rate in ALL.items()] + [ALL]
NORMS: list[dict[str, Any]] = [
    {"layer_norm": norm, **more} for norm in ("gates", "preactivation") for more in ({}, ALL)
]
OWN: dict[str, list[dict[str, Any]]] = {
    "SimpleRNN": [{"activation": "hard_sigmoid", **ALL}, {"nonlinearity": "relu", **ALL}, *NORMS],
    "LSTM": [
        {"activation": "silu", "recurrent_activation": "hard_sigmoid", **ALL},
        {"peephole": True, **ALL},
        {"coupled": True, **ALL},
        {"peephole": True, "coupled": True, "return_cell_states": True},
        {"proj_size": 3, **DROPOUTS},
        {"coupled": True, "layer_norm": "preactivation"},
        *NORMS,
    ],
    "GRU": [{"activation": "softsign", **ALL}, {"reset_after": False, **ALL}, *NORMS],
    "MinimalGatedUnit": [],
    "IndRNN": [{"activation": "tanh", **ALL}],
    "SLSTM": [],
}
CASES = [(kind, {**one}) for kind, own in OWN.items() for one in ({}, *MACHINERY, *own)]


def specified(
    x: Tensor,
    states: Any,
    weights: list[Tensor],
    cell: str,
    bidirectional: bool,
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    recompute: bool,
    packed: Tensor | None = None,
    varied: Varied = PLAIN,
) -> tuple[Tensor, list[Tensor]]:
    """As run_layer has it."""
    rest = lengths, batch_sizes, varied
    return reference_layer(x, states, weights, cell, bidirectional, *rest)


def results(layer: Any, x: Tensor, given: str, resets: Tensor | None) -> list[Tensor]:
    """Outputs, states and gradients, with masks of the same seed."""
    torch.manual_seed(7)
    lengths = LENGTHS[given]
    if given == "packed":
        out = layer(pack_padded_sequence(x, torch.tensor(lengths)))
        out = (out[0].data, *out[1:])
    else:
        out = layer(x, lengths=lengths, resets=resets)
    found = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    loss = torch.stack([(k + 1) * value.cos().sum() for k, value in enumerate(found)]).sum()
    return found + list(torch.autograd.grad(loss, [x, *layer.parameters()]))


@pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=[f"{kind}-{','.join(o) or 'plain'}" for kind, o in CASES]
)
def test_as_specified(monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any]) -> None:
    flags = (False, True)
    for both, given, again, anew in product(flags, LENGTHS, flags, flags):
        if anew and given == "packed":  # which takes no resets
            continue
        told: dict[str, Any] = {"bidirectional": both, "recompute": again, **options}
        layer = getattr(rnncells, kind)(I, H, 2, dtype=torch.float64, **told)
        x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
        resets = torch.rand(T, B) < 0.3 if anew else None
        found = results(layer, x, given, resets)
        with monkeypatch.context() as patch:
            patch.setattr(recurrent, "run_layer", specified)
            expected = results(layer, x, given, resets)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
