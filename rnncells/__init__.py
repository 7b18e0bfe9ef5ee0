"""Fast recurrent layers for PyTorch: torch.nn's RNN, LSTM and GRU on fused kernels of our own."""

import torch as _torch  # noqa: F401  the extension needs torch's libraries loaded

try:
    import rnncells._C
except ModuleNotFoundError as error:
    raise ImportError(
        "rnncells: the compiled extension rnncells._C is missing; build it with "
        "`pip install -e .` in the source tree"
    ) from error

from rnncells.cells import GRUCell, LSTMCell, RNNCell, SimpleRNNCell
from rnncells.convert import conversion_report, convert
from rnncells.layers import GRU, LSTM, RNN, SimpleRNN
from rnncells.other_layers import SLSTM, IndRNN, MinimalGatedUnit

__version__: str = rnncells._C.build_info()["version"]

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SLSTM",
    "GRUCell",
    "IndRNN",
    "LSTMCell",
    "MinimalGatedUnit",
    "RNNCell",
    "SimpleRNN",
    "SimpleRNNCell",
    "__version__",
    "conversion_report",
    "convert",
]
