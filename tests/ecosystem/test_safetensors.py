"""Hugging Face's safetensors: there and back, with tied weights, into torch.nn's layer and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.ecosystem.models import CELLS, LAYERS

safetensors = pytest.importorskip("safetensors.torch")

I, H = 3, 4


class Tied(nn.Module):
    """An encoder and a decoder that share the recurrent weights."""

    def __init__(self, cell: str, library: str = "rnncells") -> None:
        super().__init__()
        layer = LAYERS[library, cell]
        self.encoder, self.decoder = layer(I, H), layer(I, H)
        self.decoder.weight_hh_l0 = self.encoder.weight_hh_l0

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x, self.encoder(x)[1])[0]


def is_tied(model: Tied) -> bool:
    return model.decoder.weight_hh_l0 is model.encoder.weight_hh_l0


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 2, I)


@pytest.mark.parametrize("cell", CELLS)
def test_tied_model_there_and_back(cell: str, x: Tensor, tmp_path: Path) -> None:
    model, again, theirs = Tied(cell), Tied(cell), Tied(cell, "torch")
    file = str(tmp_path / "model.safetensors")
    safetensors.save_model(model, file)
    stored = safetensors.load_file(file)
    assert len(stored) == len(model.state_dict()) - 1  # what is shared is stored once

    assert safetensors.load_model(again, file) == (set(), [])
    assert is_tied(again)
    assert torch.equal(again(x), model(x))
    again(x).sum().backward()  # parameters as before, and a gradient for what is shared
    assert again.encoder.weight_hh_l0.grad is not None

    assert safetensors.load_model(theirs, file) == (set(), [])
    assert is_tied(theirs)
    # Ten steps of 7 terms of order one in float32.
    torch.testing.assert_close(theirs(x), model(x), rtol=1e-5, atol=1e-6)
    back = Tied(cell)
    safetensors.save_model(theirs, file)
    assert safetensors.load_model(back, file) == (set(), [])
    assert torch.equal(back(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_state_dict_into_torch_nn_and_back(
    cell: str, dtype: torch.dtype, x: Tensor, tmp_path: Path
) -> None:
    def make(library: str) -> nn.Module:
        return LAYERS[library, cell](I, H, num_layers=2, bidirectional=True, dtype=dtype)

    x, file = x.to(dtype), tmp_path / "layer.safetensors"
    ours, theirs, again = make("rnncells"), make("torch"), make("rnncells")
    safetensors.save_file(ours.state_dict(), file)
    theirs.load_state_dict(safetensors.load_file(file), strict=True)
    torch.testing.assert_close(theirs(x)[0], ours(x)[0])
    safetensors.save_file(theirs.state_dict(), file)
    again.load_state_dict(safetensors.load_file(file), strict=True)
    assert torch.equal(again(x)[0], ours(x)[0])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "layer.safetensors")
    safetensors.save_model(LAYERS["rnncells", "gru"](I, H, bias=False), file)
    with pytest.raises(RuntimeError, match=r"Missing key.*bias_ih_l0"):
        safetensors.load_model(LAYERS["rnncells", "gru"](I, H), file)
    with pytest.raises(RuntimeError, match="size mismatch for weight_ih_l0"):
        safetensors.load_model(LAYERS["rnncells", "gru"](I + 1, H, bias=False), file)
