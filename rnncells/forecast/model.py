"""The recurrent network, by the name under which it has always been found."""

from rnncells.forecast.networks.recurrent import Cell, Layers, RecurrentNet, recurrent_layer

__all__ = ["Cell", "Layers", "RecurrentNet", "recurrent_layer"]
