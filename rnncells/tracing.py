"""torch.fx: our modules as leaves of a traced graph.

``torch.fx.symbolic_trace`` takes what is defined in torch.nn for leaves, and walks into every other
module. Ours, which stand in for torch.nn's, make their node themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Proxy
from torch.nn import Module

__all__ = ["Proxy", "leaf"]


def leaf(module: Module, input: Proxy, states: Sequence[Any] | None, **keywords: Any) -> Proxy:
    """The result of calling ``module`` on ``input`` and its list of states, as one node."""
    hx = states[0] if states is not None and len(states) == 1 else states
    given = {name: value for name, value in keywords.items() if value is not None}
    path = input.tracer.path_of_module(module)  # type: ignore[attr-defined]
    return input.tracer.create_proxy("call_module", path, (input, hx), given)
