"""The demo: recurrent forecasters against the baselines, on a year of New York's weather."""

from rnncells.forecast.demo.run import run_demo
from rnncells.forecast.demo.task import DemoSettings

__all__ = ["DemoSettings", "run_demo"]
