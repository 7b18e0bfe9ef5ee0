"""The optional packages of forecasting, asked for at the moment they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["require"]


def require(module: str) -> Any:
    """Import an optional module, such as ``"lightning_fabric"`` or ``"matplotlib.figure"``.

    Raises:
        ImportError: the module's package is not installed; the message says what installs it.
    """
    package = module.partition(".")[0]
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # installed, but broken: its own message says more than ours
            raise
        raise ImportError(
            f"rnncells.forecast needs {package} for this, which is not installed: "
            "run `pip install 'rnncells[forecast]'`"
        ) from None
    return import_module(module)
