"""``python -m rnncells.forecast``: the command line, see :mod:`rnncells.forecast.command`."""

from __future__ import annotations

import sys

from rnncells.forecast.command import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
