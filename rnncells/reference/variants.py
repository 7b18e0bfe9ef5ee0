"""The options of a cell, and what each of them means: the parts that the steps are written with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, relu6, silu, softsign

__all__ = ["ACTIVATIONS", "LAYER_NORM_EPS", "PLAIN", "PLAIN_TERMS", "Terms", "Variant"]

LAYER_NORM_EPS = 1e-5
"""Added to the variance, as ``torch.nn.LayerNorm`` and haste have it (Keras adds 1e-3)."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    # As torch and Keras 3 have it, with no slope at 3 and -3; torch's own has no second derivative.
    "hard_sigmoid": lambda a: relu6(a + 3) / 6,
    "silu": silu,  # a * s(a)
    "softsign": softsign,  # a / (1 + |a|)
    "identity": lambda a: a,
}

_LAYER_NORMS = (None, "gates", "preactivation")


@dataclass(frozen=True)
class Variant:
    """The options of a cell; all are off by default. Which cell takes which, and which exclude
    each other, :func:`rnncells.reference.declaration` says.

    Attributes:
        layer_norm: ``"gates"`` normalises ``W x`` and ``U h`` apart, each over the rows of all
            gates, with a scale each, and the biases as shifts; and in the LSTM ``c'`` before the
            output activation, with a scale and a shift (Ba, Kiros and Hinton 2016, "Layer
            normalization", (20) to (22); as haste does). ``"preactivation"`` normalises the
            argument of each gate's activation, biases included, over its H units, with a scale and
            a shift. The variance is the biased one, with :data:`LAYER_NORM_EPS`:

            | ``LN(a) = (a - mean(a)) / sqrt(var(a) + 1e-5)``
            | gates: ``norm_ih * LN(W x) + b_ih`` and ``norm_hh * LN(U h) + b_hh`` stand for
              ``W x + b_ih`` and ``U h + b_hh``; ``h' = o * tanh(norm_c * LN(c') + norm_c_shift)``
            | preactivation: of each gate ``f(norm * LN(W x + b_ih + U h + b_hh) + norm_shift)``, in
              the GRU ``n = tanh(norm * LN(W x + b_ih + r * (U h + b_hh)) + norm_shift)``
        activation: of the candidate, and of ``c'`` on the way out; a name in :data:`ACTIVATIONS`.
            None for the cell's own.
        recurrent_activation: of the gates, likewise.
        zoneout: for h and for c, the probability from 0 to below 1 that a unit keeps its value
            from the step before (Krueger et al. 2017, section 3). See :func:`zoned_out`.
        reset_after: of the GRU: reset after the product, or before it.
        peephole: of the LSTM: the gates see the memory cell (Gers and Schmidhuber 2000).
        coupled: of the LSTM: no input gate, ``i = 1 - f`` (Greff et al. 2017, CIFG).

    Raises:
        ValueError: for a value that is none of these.
    """

    layer_norm: str | None = None
    activation: str | None = None
    recurrent_activation: str | None = None
    zoneout: tuple[float, float] = (0.0, 0.0)
    reset_after: bool = True
    peephole: bool = False
    coupled: bool = False

    def __post_init__(self) -> None:
        if self.layer_norm not in _LAYER_NORMS:
            known = ", ".join(map(repr, _LAYER_NORMS))
            raise ValueError(f"layer_norm: expected one of {known}; got {self.layer_norm!r}")
        for name in ("activation", "recurrent_activation"):
            value = getattr(self, name)
            if value is not None and value not in ACTIVATIONS:
                known = ", ".join(ACTIVATIONS)
                raise ValueError(f"{name}: expected one of {known}; got {value!r}")
        rates: Any = self.zoneout
        pair = isinstance(rates, tuple) and len(rates) == 2
        if not pair or not all(isinstance(rate, (int, float)) and 0 <= rate < 1 for rate in rates):
            raise ValueError(f"zoneout: expected two numbers from 0 to below 1; got {rates!r}")


PLAIN = Variant()


@dataclass
class Terms:
    """What a step is taken with beside its weights and biases.

    Attributes:
        variant: the cell's options.
        extras: the parameters that these options bring, by name: ``Cell.extras``.
        mask: [B, P], what ``h`` is multiplied by where it enters a product (or, in the IndRNN, the
            recurrent weights): recurrent dropout, 0 or 1 / (1 - p), the same for all gates and,
            drawn once a sequence, for all steps (Gal and Ghahramani 2016, (7)). What a cell
            carries over unit by unit, as ``z * h`` in the GRU, is not dropped (as in Keras).
    """

    variant: Variant
    extras: Mapping[str, Tensor]
    mask: Tensor | None

    def dropped(self, h: Tensor) -> Tensor:
        """``h`` as the products see it."""
        return h if self.mask is None else h * self.mask

    def products(
        self,
        x: Tensor,
        h: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None,
        b_hh: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """``W x + b_ih`` and ``U h + b_hh``; with ``layer_norm="gates"`` ``LN(W x) + b_ih`` and
        ``LN(U h) + b_hh``."""
        h = self.dropped(h)
        if self.variant.layer_norm != "gates":
            return linear(x, w_ih, b_ih), linear(h, w_hh, b_hh)
        w_x, u_h = linear(x, w_ih), linear(h, w_hh)
        return self._norm(w_x, "norm_ih", b_ih), self._norm(u_h, "norm_hh", b_hh)

    def argument(self, a: Tensor, gates: int = 1, first: int = 0) -> Tensor:
        """``a`` [B, gates * H], the sums of the cell's gates from ``first`` on, as their
        activations take them: with ``layer_norm="preactivation"``, each gate's H normalised."""
        if self.variant.layer_norm != "preactivation":
            return a
        rows = slice(first * a.shape[-1] // gates, (first + gates) * a.shape[-1] // gates)
        scale, shift = self.extras["norm"][rows], self.extras["norm_shift"][rows]
        split = a.unflatten(-1, (gates, -1))
        normed = layer_norm(split, split.shape[-1:], eps=LAYER_NORM_EPS)
        return normed.flatten(-2) * scale + shift

    def peeped(self, a: Tensor, c: Tensor, place: int) -> Tensor:
        """A gate's sum, with its peephole on the memory cell where there is one. The weights
        ``peephole`` hold H for each gate that looks: of i, f, o (coupled: f, o) it is the one at
        ``place``."""
        if not self.variant.peephole:
            return a
        units = c.shape[-1]
        return a + self.extras["peephole"][place * units : (place + 1) * units] * c

    def output(self, c: Tensor) -> Tensor:
        """The memory cell as the output activation takes it."""
        if self.variant.layer_norm != "gates":
            return c
        return self._norm(c, "norm_c", self.extras["norm_c_shift"])

    def activation(self, a: Tensor, own: str = "tanh") -> Tensor:
        """The activation of candidates; ``own`` is the cell's where the variant names none."""
        return ACTIVATIONS[self.variant.activation or own](a)

    def gate(self, a: Tensor) -> Tensor:
        """The activation of gates."""
        return ACTIVATIONS[self.variant.recurrent_activation or "sigmoid"](a)

    def _norm(self, a: Tensor, scale: str, shift: Tensor | None) -> Tensor:
        return layer_norm(a, a.shape[-1:], self.extras[scale], shift, LAYER_NORM_EPS)


PLAIN_TERMS = Terms(PLAIN, {}, None)


def zoned_out(after: Tensor, before: Tensor, rate: float, kept: Tensor | None) -> Tensor:
    """A state after a step with zoneout (Krueger et al. 2017, section 3.1 and 3.3).

    ``d * before + (1 - d) * after``, where ``d`` is 1 with probability ``rate`` in training, and
    its expectation ``rate`` otherwise. Each state is zoned out by itself after the whole step: the
    LSTM's ``h'`` comes from the ``c'`` that was not, as in the paper.

    Args:
        after, before: the state, [B, H].
        rate: the probability that a unit keeps its value.
        kept: [B, H] bool, ``d`` as drawn; None for the expectation.
    """
    if kept is not None:
        return torch.where(kept, before, after)
    return rate * before + (1 - rate) * after if rate else after
