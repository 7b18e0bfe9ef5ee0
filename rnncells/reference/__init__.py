"""The specification: every cell and layer in plain PyTorch, as the equations are printed.

Everything here is slow, differentiable to any order, traceable, and runs on every device and dtype
that torch has. The kernels are held against it, and it is held against ``torch.nn``.

Notation: ``x`` is the input of one time step, ``h`` the hidden state, ``c`` the memory cell; ``W
x`` is a product over the input size I, ``U h`` one over the hidden size H; ``*`` works unit by
unit, ``s`` is the logistic sigmoid, and ``LN`` subtracts a row's mean and divides by its standard
deviation, with a learned scale and shift. The rows of ``w_ih`` [gates * H, I], ``w_hh`` [gates *
H, H], ``b_ih`` and ``b_hh`` [gates * H] hold the gates one after another, in the order that the
cell's entry in :data:`CELLS` names.

:mod:`~rnncells.reference.steps` has a step of each cell, :mod:`~rnncells.reference.variants` what
its options change, :mod:`~rnncells.reference.declare` which parameters that takes, and
:mod:`~rnncells.reference.loop` whole layers.
"""

from rnncells.reference.declare import CELLS, Cell, Step, declaration
from rnncells.reference.loop import layer, sequence, trajectory
from rnncells.reference.steps import (
    States,
    gru,
    gru_reset_before,
    indrnn,
    lstm,
    mgu,
    rnn_relu,
    rnn_tanh,
    slstm,
)
from rnncells.reference.variants import (
    ACTIVATIONS,
    LAYER_NORM_EPS,
    PLAIN,
    Terms,
    Variant,
    zoned_out,
)

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "LAYER_NORM_EPS",
    "PLAIN",
    "Cell",
    "States",
    "Step",
    "Terms",
    "Variant",
    "declaration",
    "gru",
    "gru_reset_before",
    "indrnn",
    "layer",
    "lstm",
    "mgu",
    "rnn_relu",
    "rnn_tanh",
    "sequence",
    "slstm",
    "trajectory",
    "zoned_out",
]
