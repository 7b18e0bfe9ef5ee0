"""Two processes, or many machines, fit one forecaster: each takes its share of the batches.

Start it as ``torchrun --nproc-per-node 2 examples/two_processes.py model``; the folder ``model``
then holds the forecaster, and ``Forecaster.load`` reads it in one process.
"""

import os
import sys

import numpy as np
import torch
from lightning_fabric import Fabric

from rnncells.forecast import Forecaster


def main(folder: str) -> None:
    """Fit waves in all processes; the first one saves, since all have the same weights."""
    torch.set_num_threads(1)
    # torchrun tells each process how many there are.
    here, machines = (int(os.environ[f"{of}_WORLD_SIZE"]) for of in ("LOCAL", "GROUP"))
    fabric = Fabric(accelerator="cpu", devices=here, num_nodes=machines, strategy="ddp")
    fabric.launch()
    y = np.sin(np.arange(400) / 4) + 0.1 * np.random.default_rng(0).standard_normal(400)
    model = Forecaster(horizon=4, context=16, hidden_size=8, epochs=2).fit(y, fabric=fabric)
    if fabric.is_global_zero:
        model.save(folder)
        print(f"fitted by {fabric.world_size} processes: {model.history}")


if __name__ == "__main__":
    main(*sys.argv[1:])
