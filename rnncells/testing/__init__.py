"""Parity: holding a recurrent layer against the float64 specification, :mod:`rnncells.reference`.

:func:`assert_layer_parity` holds any layer: a module (one of ours, of torch.nn's, or your own that
is called as torch.nn's are), a factory of modules, or a function in the form of
:func:`rnncells.reference.layer`. It runs the layer forward and backward on a few dozen small cases
(time steps, batch, dtypes, lengths padded and packed, initial states or none, losses on the
sequence and on the last states) and compares every output and every gradient:

>>> import torch
>>> from rnncells.testing import assert_layer_parity, parity_report
>>> layer = torch.nn.LSTM(8, 16, num_layers=2, bidirectional=True)
>>> report = assert_layer_parity(layer, reference="lstm")

A class or a function that makes layers is held in more sizes, and with the options that it has:
both directions, no bias, a stack, a projection.

>>> report = assert_layer_parity(torch.nn.GRU, reference="gru", sizes=[(9, 4, 5, 7)])

:func:`parity_report` gives the report without raising. It says how far off each tensor is, what
its limit is and why a case fails; ``print(report)`` shows the worst of each tensor, and the failing
cases with the call that runs one again; ``report.table()`` shows everything. Both say what was left
out and why: an option, a kind of lengths or a dtype that the layer does not take.

>>> class Forgetful(torch.nn.GRU):  # backward never reaches the last state
...     def forward(self, input, hx=None):
...         y, h = super().forward(input, hx)
...         return y, h.detach()
>>> report = parity_report(Forgetful(3, 5), "gru", dtypes=[torch.float64])
>>> report.passed
False
>>> sorted({row.tensor for row in report.failures})[-3:]
['grad weight_ih_l0', 'grad x', 'h_n']

A layer that keeps its weights in another layout says how the specification's are made from them.
The gradients are compared in the layer's own parameters:

>>> class Elman(torch.nn.Module):  # one bias, weights [I, H] and [H, H]
...     def __init__(self, input_size, hidden_size):
...         super().__init__()
...         self.w = torch.nn.Parameter(torch.randn(input_size, hidden_size) / 4)
...         self.u = torch.nn.Parameter(torch.randn(hidden_size, hidden_size) / 4)
...         self.b = torch.nn.Parameter(torch.zeros(hidden_size))
...     def forward(self, x, h=None):
...         h, y = x.new_zeros(len(self.b)) if h is None else h[0], []
...         for x_t in x:
...             h = torch.tanh(x_t @ self.w + h @ self.u + self.b)
...             y.append(h)
...         return torch.stack(y), h.expand(x.shape[1], -1).unsqueeze(0)
>>> def weights(m):
...     return [m.w.T, m.u.T, m.b, torch.zeros_like(m.b)]
>>> report = assert_layer_parity(Elman, "rnn_tanh", parameters=weights)

A cell of your own is held against a step of your own: ``reference=rnncells.reference.Cell(step,
gates, states)``. A layer that is called otherwise is given ``call=``.

The pieces by themselves: a :class:`Problem`, from :func:`make_problem`, is one layer's arguments
with the gradients that its outputs receive; :func:`evaluate` runs a function on it in a dtype of
choice; :func:`assert_parity` compares what came out. Errors are measured by the :func:`scale` of a
result, the size of the terms that it is summed from, and their limit is its :func:`tolerance`,
derived from the dtype and the length of the sums.
"""

from rnncells.testing.case import Case, LeftOut, Lengths, Options
from rnncells.testing.module import torch_parameters
from rnncells.testing.problem import (
    TORCH_LAYERS,
    LayerShape,
    Loss,
    Problem,
    Runner,
    evaluate,
    make_problem,
    torch_layer,
    torch_options,
)
from rnncells.testing.report import Report, Row
from rnncells.testing.suite import assert_layer_parity, parity_report
from rnncells.testing.tolerance import (
    allowance,
    assert_parity,
    relative_error,
    scale,
    size_of_terms,
    tolerance,
)

__all__ = [
    "TORCH_LAYERS",
    "Case",
    "LayerShape",
    "LeftOut",
    "Lengths",
    "Loss",
    "Options",
    "Problem",
    "Report",
    "Row",
    "Runner",
    "allowance",
    "assert_layer_parity",
    "assert_parity",
    "evaluate",
    "make_problem",
    "parity_report",
    "relative_error",
    "scale",
    "size_of_terms",
    "tolerance",
    "torch_layer",
    "torch_options",
    "torch_parameters",
]
