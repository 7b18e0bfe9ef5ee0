"""Heads: how a forecast is told, and the loss that teaches it."""

from rnncells.forecast.heads.base import Head
from rnncells.forecast.heads.distribution import NegativeBinomialHead, NormalHead, StudentTHead
from rnncells.forecast.heads.point import PointHead
from rnncells.forecast.heads.quantile import QuantileHead

__all__ = [
    "Head",
    "NegativeBinomialHead",
    "NormalHead",
    "PointHead",
    "QuantileHead",
    "StudentTHead",
]
