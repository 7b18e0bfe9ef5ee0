"""A plain training loop of PyTorch, for our layers, for torch.nn's, and for none."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss


class Forecaster(nn.Module):
    """Two recurrent layers of 20 units, and a dense head of ten values at every time step.

    Args:
        layer: ours or torch.nn's class; None leaves the head alone, which then reads the series.
    """

    def __init__(self, layer: type[nn.Module] | None, units: int = 20, horizon: int = 10) -> None:
        super().__init__()
        self.recurrent = None
        if layer is not None:
            self.recurrent = layer(1, units, num_layers=2, batch_first=True)
        self.head = nn.Linear(1 if layer is None else units, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of x [B, T, 1] after each step, [B, T, horizon]."""
        return self.head(x if self.recurrent is None else self.recurrent(x)[0])


def one_bias(net: Forecaster) -> Forecaster:
    """Return a copy whose recurrent layers train one bias each: the other stays as it is."""
    net = copy.deepcopy(net)
    for name, parameter in net.named_parameters():
        if "bias_hh" in name:
            parameter.requires_grad_(False)
    return net


class TorchLoop:
    """A network, Adam, and the training data x [N, T, 1] and y [N, T, horizon]."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor) -> None:
        self.net, self.x, self.y = net, x, y
        self.optimizer = torch.optim.Adam(net.parameters())

    def warm_up(self, batches: list[Tensor]) -> None:
        """Train a copy."""
        TorchLoop(copy.deepcopy(self.net), self.x, self.y).epoch(batches)

    def epoch(self, batches: list[Tensor]) -> None:
        """Train on the batches in turn."""
        for rows in batches:
            self.optimizer.zero_grad()
            mse_loss(self.net(self.x[rows]), self.y[rows]).backward()
            self.optimizer.step()

    def predict(self, x: Tensor) -> Tensor:
        """Return the forecast of x [B, T, 1] after each step, [B, T, horizon]."""
        with torch.inference_mode():
            return self.net(x)
