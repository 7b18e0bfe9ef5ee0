"""Networks that forecast, each on rnncells' layers where it has recurrent ones."""

from rnncells.forecast.networks.base import Job, Network, SequenceNetwork
from rnncells.forecast.networks.convolutional import ConvRecurrentNet, WaveNet
from rnncells.forecast.networks.decoders import EncoderDecoder, VectorToSequence
from rnncells.forecast.networks.dense import DenseNet
from rnncells.forecast.networks.imputation import HiddenValues, ImputationNet, Imputed, impute
from rnncells.forecast.networks.recurrent import (
    Cell,
    Layers,
    RecurrentJob,
    RecurrentNet,
    RecurrentStack,
    StackOptions,
    recurrent_layer,
)
from rnncells.forecast.networks.recursive import Recursive

__all__ = [
    "Cell",
    "ConvRecurrentNet",
    "DenseNet",
    "EncoderDecoder",
    "HiddenValues",
    "ImputationNet",
    "Imputed",
    "Job",
    "Layers",
    "Network",
    "RecurrentJob",
    "RecurrentNet",
    "RecurrentStack",
    "Recursive",
    "SequenceNetwork",
    "StackOptions",
    "VectorToSequence",
    "WaveNet",
    "impute",
    "recurrent_layer",
]
