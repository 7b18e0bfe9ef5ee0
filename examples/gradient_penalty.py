"""How far apart are two sets of series? A critic with a gradient penalty learns the distance.

The Wasserstein-1 distance between two distributions is the largest difference of means that a
function of slope at most 1 can show between them. The critic is that function, a GRU with a linear
head; a penalty keeps its slope at 1 (Gulrajani et al. 2017, "Improved training of Wasserstein
GANs"). The penalty is a loss on a gradient, so training derives BPTT once more: torch.nn's layers
refuse that on cuDNN.

Here the second set is the first with a pulse added, and then the distance is known: it is the
pulse's length, as a vector. Run it with ``python examples/gradient_penalty.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import rnncells

STEPS, BATCH, UNITS = 16, 64, 16
PULSE = torch.hann_window(STEPS, periodic=False).unsqueeze(1)  # [T, features]
PULSE *= 1.5 / PULSE.norm()


class Critic(nn.Module):
    """A score for each series of [T, B, 1]: [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = rnncells.GRU(1, UNITS)
        self.head = nn.Linear(STEPS * UNITS, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.layer(x)
        return self.head(y.transpose(0, 1).flatten(1)).squeeze(1)


def draw(count: int) -> tuple[Tensor, Tensor]:
    """Draws lines with noise on them, and others with the pulse: [T, count, 1] each."""
    start, rise = torch.randn(2, 1, 2 * count, 1)
    time = torch.linspace(-1, 1, STEPS).view(-1, 1, 1)
    lines = start + rise * time + torch.randn(STEPS, 2 * count, 1) / 4
    return lines[:, :count], lines[:, count:] + PULSE.unsqueeze(1)


def slopes(critic: nn.Module, plain: Tensor, pulsed: Tensor) -> Tensor:
    """The norm of the critic's gradient between the sets, [B]; can be derived again."""
    share = torch.rand(1, plain.shape[1], 1)
    x = (share * plain + (1 - share) * pulsed).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.transpose(0, 1).flatten(1).norm(dim=1)


def look(critic: nn.Module) -> tuple[float, float]:
    """The distance that the critic shows, and its slope: means over 1,024 series."""
    plain, _ = draw(1024)
    pulsed = plain + PULSE.unsqueeze(1)  # the same lines, so that chance adds nothing
    slope = slopes(critic, plain, pulsed).mean().item()
    return (critic(pulsed) - critic(plain)).mean().item() / slope, slope


def train(rounds: int) -> Iterator[tuple[int, float, float]]:
    """Trains a critic; gives now and then the round, and what it shows."""
    critic = Critic()
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.003, betas=(0.5, 0.9))
    for step in range(1, rounds + 1):
        plain, pulsed = draw(BATCH)
        penalty = (slopes(critic, plain, pulsed) - 1).square().mean()
        loss = critic(plain).mean() - critic(pulsed).mean() + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            yield step, *look(critic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=300)
    torch.manual_seed(0)
    print("round  distance  slope")
    for step, distance, slope in train(parser.parse_args().rounds):
        print(f"{step:5}  {distance:8.3f}  {slope:5.3f}")
    print(f" true  {PULSE.norm():8.3f}  1.000")


if __name__ == "__main__":
    main()
