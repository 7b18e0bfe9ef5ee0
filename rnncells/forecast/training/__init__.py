"""Training: the loop, how it is told what to do, and the search for a learning rate."""

from rnncells.forecast.training.loop import fit, predict
from rnncells.forecast.training.rate_range import RateRange, rate_range
from rnncells.forecast.training.settings import Diverged, History, Loss, Training

__all__ = ["Diverged", "History", "Loss", "RateRange", "Training", "fit", "predict", "rate_range"]
