"""The layers' own tests once more, with the CUDA operators' very source on the emulated card in
place of the CPU engine: what is above the operators works unchanged. Each file is one of ``tests``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rnncells import ops, vmap
from tests.card_fixtures import force, library  # noqa: F401


@pytest.fixture(autouse=True)
def _cpu_is_the_card(
    force: Callable[[str], None],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Tensors on the CPU are served as those on CUDA, reserves and packed weights among them."""
    kernels = torch.library.Library("rnncells", "IMPL")
    for name in ("layer_forward", "layer_backward", "layer_pack", "layer_draw"):
        emulated = getattr(torch.ops.rnncells_emulated, name).default
        kernels.impl(name, emulated, "CPU", allow_override=True)
    for module in (ops, vmap):
        monkeypatch.setattr(module, "on_cuda", lambda tensor: True)
    yield
    kernels._destroy()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They take two minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
