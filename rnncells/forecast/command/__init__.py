"""The command line: ``rnncells forecast``, ``backtest``, ``impute``, ``leaderboard``, ``demo``."""

from rnncells.forecast.command.main import main

__all__ = ["main"]
