"""Fast recurrent layers for PyTorch: torch.nn's RNN, LSTM and GRU on fused kernels of our own."""

import torch as _torch  # noqa: F401  the extension needs torch's libraries loaded

try:
    import rnncells._C  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "rnncells: the compiled extension rnncells._C is missing; build it with "
        "`pip install -e .` in the source tree"
    ) from error

from rnncells.cells import GRUCell, LSTMCell, RNNCell, SimpleRNNCell
from rnncells.layers import GRU, LSTM, RNN, SimpleRNN

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "SimpleRNN",
    "SimpleRNNCell",
    "__version__",
]
