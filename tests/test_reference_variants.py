"""The specification's variants: what each comes to where its answer is known another way.

All in float64. Two ways of computing the same sums of some dozens of terms of size about 1, over
few steps, differ by far less than 1e-11, and a wrong equation by far more.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncells import reference
from rnncells.reference import PLAIN, Variant

T, B, I, H = 5, 3, 2, 4
ALL = reference.CELLS
VARIED = ("rnn_tanh", "rnn_relu", "lstm", "gru", "mgu", "indrnn")

# Every option of every cell alone, and the pairs that meet in one equation.
KINDS = [
    *((cell, PLAIN) for cell in ALL),
    *((cell, Variant(layer_norm="gates")) for cell in ("rnn_tanh", "rnn_relu", "lstm", "gru")),
    *((cell, Variant(layer_norm="preactivation")) for cell in VARIED),
    *((cell, Variant(activation="softsign")) for cell in VARIED),
    *((cell, Variant(recurrent_activation="hard_sigmoid")) for cell in ("lstm", "gru", "mgu")),
    *((cell, Variant(zoneout=(0.3, 0.0))) for cell in ALL),
    ("lstm", Variant(zoneout=(0.3, 0.2))),
    ("gru", Variant(reset_after=False)),
    ("gru", Variant(reset_after=False, layer_norm="preactivation")),
    ("lstm", Variant(peephole=True)),
    ("lstm", Variant(coupled=True)),
    ("lstm", Variant(peephole=True, coupled=True, zoneout=(0.1, 0.4))),
    ("lstm", Variant(peephole=True, layer_norm="gates")),
    ("lstm", Variant(coupled=True, layer_norm="gates", activation="silu")),
    ("lstm", Variant(coupled=True, layer_norm="preactivation")),
]


def name_of(kind: tuple[str, Variant]) -> str:
    cell, variant = kind
    options = [f"{k}={v}" for k, v in vars(variant).items() if v != getattr(PLAIN, k)]
    return "-".join([cell, *options])


kinds = pytest.mark.parametrize(("cell", "variant"), KINDS, ids=map(name_of, KINDS))


def rand(*shape: int) -> Tensor:
    return 2 * torch.rand(shape, dtype=torch.float64) - 1


def draw(
    cell: str, variant: Variant = PLAIN, directions: int = 1, bias: bool = True, steps: int = T
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """An input, initial states, and weights with those that the variant adds."""
    declared = reference.declaration(cell, variant)
    rows = len(declared.gates) * H
    weights = []
    for _ in range(directions):
        recurrent = (rows,) if declared.per_unit_recurrence else (rows, H)
        weights += [rand(rows, I), rand(*recurrent)]
        weights += [rand(rows), rand(rows)] if bias else []
        weights += [1 + rand(times * H) / 2 for _, times in declared.extras]
    states = [rand(directions, B, H) for _ in declared.states]
    for name in declared.positive:
        place = declared.states.index(name)
        states[place] = states[place].abs() + 0.5
    return rand(steps, B, I), states, weights


def run(cell: str, variant: Variant, drawn: Any, **options: Any) -> list[Tensor]:
    x, states, weights = drawn
    directions = states[0].shape[0]
    y, last = reference.layer(x, states, weights, cell, directions == 2, variant=variant, **options)
    return [y, *last]


def assert_near(actual: Any, expected: Any) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert (a - b).abs().max() <= 1e-11


# --- options that come to nothing


@kinds
def test_masks_that_change_nothing(cell: str, variant: Variant) -> None:
    """A dropout mask of ones, no resets; a zoneout mask that keeps nothing is no zoneout."""
    drawn = draw(cell, variant, directions=2)
    states = len(drawn[1])
    ones = {"mask": torch.ones(2, B, H).double(), "resets": torch.zeros(T, B, dtype=torch.bool)}
    assert_near(run(cell, variant, drawn, **ones), run(cell, variant, drawn))
    nothing = [torch.zeros(2, T, B, H, dtype=torch.bool)] * states
    off = Variant(**{**vars(variant), "zoneout": (0.0, 0.0)})
    assert_near(run(cell, variant, drawn, zoneout=nothing), run(cell, off, drawn))


def test_the_own_activation_by_name() -> None:
    for cell, own in (
        ("rnn_tanh", "tanh"),
        ("rnn_relu", "relu"),
        ("lstm", "tanh"),
        ("gru", "tanh"),
        ("mgu", "tanh"),
        ("indrnn", "relu"),
    ):
        gates = "sigmoid" if cell in ("lstm", "gru", "mgu") else None
        drawn = draw(cell)
        named = Variant(activation=own, recurrent_activation=gates)
        assert_near(run(cell, named, drawn), run(cell, PLAIN, drawn))


def test_relu_is_torchs() -> None:
    x, (h,), weights = draw("rnn_tanh")
    theirs = nn.RNN(I, H, nonlinearity="relu", dtype=torch.float64)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), weights, strict=True)))
    found = run("rnn_tanh", Variant(activation="relu"), (x, [h], weights))
    assert_near(found, theirs(x, h))


def test_zero_peepholes_see_nothing() -> None:
    for coupled in (False, True):
        x, states, weights = draw("lstm", Variant(peephole=True, coupled=coupled))
        weights[-1].zero_()
        found = run("lstm", Variant(peephole=True, coupled=coupled), (x, states, weights))
        assert_near(found, run("lstm", Variant(coupled=coupled), (x, states, weights[:-1])))


# --- equations by another way


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("tanh", lambda a: 1 - 2 / (math.exp(2 * a) + 1)),
        ("relu", lambda a: a if a > 0 else 0.0),
        ("sigmoid", lambda a: 1 / (1 + math.exp(-a))),
        ("hard_sigmoid", lambda a: min(1.0, max(0.0, a / 6 + 0.5))),
        ("silu", lambda a: a / (1 + math.exp(-a))),
        ("softsign", lambda a: a / (1 + abs(a))),
        ("identity", lambda a: a),
    ],
)
def test_activations_by_hand(name: str, at: Any) -> None:
    for a in (-4.0, -1.25, 0.0, 0.5, 3.5):
        found = reference.ACTIVATIONS[name](torch.tensor(a, dtype=torch.float64))
        assert abs(found.item() - at(a)) <= 1e-14


def test_reset_before_the_product_unit_by_unit() -> None:
    """(5) to (8) of Cho et al. 2014 on plain numbers, as mgu has it in test_reference.py."""
    x, (h,), weights = drawn = draw("gru", steps=1)
    found = run("gru", Variant(reset_after=False), drawn)[0][0]
    w, u, b, d = (value.tolist() for value in weights)

    def sigmoid(a: float) -> float:
        return 1 / (1 + math.exp(-a))

    for row in range(B):
        xs, hs = x[0, row].tolist(), h[0, row].tolist()

        def total(k: int, seen: list[float], xs: list[float] = xs) -> float:
            inputs: float = sum(w[k][i] * xs[i] for i in range(I))
            return inputs + b[k] + d[k] + sum(u[k][j] * seen[j] for j in range(H))

        r = [sigmoid(total(k, hs)) for k in range(H)]
        z = [sigmoid(total(H + k, hs)) for k in range(H)]
        n = [math.tanh(total(2 * H + k, [r[j] * hs[j] for j in range(H)])) for k in range(H)]
        for k in range(H):
            assert abs(found[row, k].item() - (z[k] * hs[k] + (1 - z[k]) * n[k])) <= 1e-12


def test_a_coupled_lstm_whose_input_gate_copies() -> None:
    """A plain LSTM whose input gate's sum is the forget gate's negative: s(-a) = 1 - s(a)."""
    x, states, coupled = draw("lstm", Variant(coupled=True))
    plain = [torch.cat([-value[:H], value]) for value in coupled]
    found = run("lstm", Variant(coupled=True), (x, states, coupled))
    assert_near(found, run("lstm", PLAIN, (x, states, plain)))


def test_peepholes_as_a_product() -> None:
    """With forget and output gates held open, c sums up, and only i looks: by recursion."""
    x, (h, c), weights = draw("lstm", Variant(peephole=True), bias=True)
    w, u, b, d, peephole = weights
    for gate in (1, 3):  # f and o: the sum is 40 and the gate 1
        rows = slice(gate * H, (gate + 1) * H)
        w[rows], u[rows], b[rows], d[rows] = 0, 0, 40, 0
    peephole[H:] = 0
    found = run("lstm", Variant(peephole=True), (x, [h, c], weights))
    hidden, cell = h[0], c[0]
    for t in range(T):
        a = x[t] @ w.T + b + hidden @ u.T + d
        i = torch.sigmoid(a[:, :H] + cell @ torch.diag(peephole[:H]))
        cell = cell + i * torch.tanh(a[:, 2 * H : 3 * H])
        hidden = torch.tanh(cell)
        assert_near([found[0][t]], [hidden])


def test_the_output_gate_looks_at_the_new_cell() -> None:
    x, (h, c), weights = draw("lstm", Variant(peephole=True), steps=1)
    y, _, after = run("lstm", Variant(peephole=True), (x, [h, c], weights))
    w, u, b, d, peephole = (weights[k][-H:] for k in range(5))
    o = torch.sigmoid(x[0] @ w.T + b + h[0] @ u.T + d + peephole * after[0])
    assert_near([y[0]], [o * torch.tanh(after[0])])


def normed(a: Tensor) -> Tensor:
    spread = a.var(-1, correction=0, keepdim=True) + 1e-5
    return (a - a.mean(-1, keepdim=True)) / spread.sqrt()


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_of_the_products(bias: bool) -> None:
    """Ba et al. 2016, (20) to (22), and haste's GRU, from the products on."""
    for cell in ("rnn_tanh", "lstm", "gru"):
        variant = Variant(layer_norm="gates")
        x, states, weights = draw(cell, variant, bias=bias, steps=1)
        w, u, *rest = weights
        b, d = rest[:2] if bias else (0, 0)
        scales = rest[2:] if bias else rest
        a = normed(x[0] @ w.T) * scales[0] + b
        r = normed(states[0][0] @ u.T) * scales[1] + d
        found = run(cell, variant, (x, states, weights))
        if cell == "rnn_tanh":
            expected = [torch.tanh(a + r)]
        elif cell == "lstm":
            i, f, g, o = (a + r).chunk(4, -1)
            c = torch.sigmoid(f) * states[1][0] + torch.sigmoid(i) * torch.tanh(g)
            out = torch.tanh(normed(c) * scales[2] + scales[3])
            expected = [torch.sigmoid(o) * out, c]
        else:
            parts = list(zip(a.chunk(3, -1), r.chunk(3, -1), strict=True))
            reset, z = (torch.sigmoid(p + q) for p, q in parts[:2])
            n = torch.tanh(parts[2][0] + reset * parts[2][1])
            expected = [n + z * (states[0][0] - n)]
        assert_near([last[0] for last in found[1:]], expected)


def test_layer_norm_of_the_sum_is_a_module_of_torchs() -> None:
    """The simple cell with torch.nn's LayerNorm between its sum and tanh."""
    variant = Variant(layer_norm="preactivation")
    x, (h,), weights = draw("rnn_tanh", variant)
    w, u, b, d, scale, shift = weights
    norm = nn.LayerNorm(H, dtype=torch.float64)
    norm.load_state_dict({"weight": scale, "bias": shift})
    hidden, outputs = h[0], []
    for t in range(T):
        hidden = torch.tanh(norm(x[t] @ w.T + b + hidden @ u.T + d))
        outputs.append(hidden)
    y, last = run("rnn_tanh", variant, (x, [h], weights))
    assert_near([y, last[0]], [torch.stack(outputs), hidden])


@pytest.mark.parametrize("cell", ["lstm", "gru", "mgu", "indrnn"])
def test_layer_norm_of_a_sum_forgets_its_scale(cell: str) -> None:
    """Each gate's sum times ten, where its variance is large beside the eps: the same result. For
    the gates that meet a product or gate on the way, the input alone is scaled: U is 0."""
    variant = Variant(layer_norm="preactivation")
    x, states, weights = draw(cell, variant, bias=False)
    weights[0] *= 1000
    weights[1].zero_()
    tenfold = [10 * weights[0], *weights[1:]]
    for a, b in zip(
        run(cell, variant, (x, states, tenfold)),
        run(cell, variant, (x, states, weights)),
        strict=True,
    ):
        assert (a - b).abs().max() <= 1e-5  # eps beside a variance of about 1e5
    assert (run(cell, variant, (x, states, [-weights[0], *weights[1:]]))[0] - a).abs().max() > 0.1


def test_layer_norm_of_the_grus_candidate_counts_the_reset() -> None:
    variant = Variant(layer_norm="preactivation")
    x, (h,), (w, u, b, d, scale, shift) = draw("gru", variant, steps=1)
    a, v = x[0] @ w.T + b, h[0] @ u.T + d
    scales, shifts = scale.chunk(3), shift.chunk(3)
    (a_r, a_z, a_n), (v_r, v_z, v_n) = a.chunk(3, -1), v.chunk(3, -1)
    r = torch.sigmoid(normed(a_r + v_r) * scales[0] + shifts[0])
    z = torch.sigmoid(normed(a_z + v_z) * scales[1] + shifts[1])
    n = torch.tanh(normed(a_n + r * v_n) * scales[2] + shifts[2])
    found = run("gru", variant, (x, [h], [w, u, b, d, scale, shift]))
    assert_near([found[0][0]], [n + z * (h[0] - n)])


def test_a_dropped_unit_reaches_no_product() -> None:
    """A mask of zeros is the same as recurrent weights of zero, in every cell; what is carried over
    unit by unit is carried still. With 1 / (1 - p) it is the same as greater weights."""
    for cell in ALL:
        x, states, (w, u, b, d) = draw(cell)
        for factor in (0.0, 1.25):
            mask = torch.full((1, B, H), factor, dtype=torch.float64)
            found = run(cell, PLAIN, (x, states, [w, u, b, d]), mask=mask)
            assert_near(found, run(cell, PLAIN, (x, states, [w, factor * u, b, d])))


def test_one_unit_dropped_is_a_column_of_zeros() -> None:
    for cell in ("rnn_tanh", "lstm", "gru", "slstm"):
        x, states, (w, u, b, d) = draw(cell)
        mask = torch.ones(1, B, H, dtype=torch.float64)
        mask[..., 1] = 0
        found = run(cell, PLAIN, (x, states, [w, u, b, d]), mask=mask)
        u = u.clone()
        u[:, 1] = 0
        assert_near(found, run(cell, PLAIN, (x, states, [w, u, b, d])))


def test_zoneout_keeps_what_it_is_told_to_keep() -> None:
    for cell in ALL:
        drawn = draw(cell)
        states = drawn[1]
        kept = [torch.ones(1, T, B, H, dtype=torch.bool) for _ in states]
        y, *last = run(cell, PLAIN, drawn, zoneout=kept)
        assert_near(last, states)
        assert_near(y, [states[0][0]] * T)


def test_zoneout_of_h_leaves_the_cell_and_of_c_the_output() -> None:
    """One step: h' comes from the c' before zoneout (Krueger et al. 2017, 3.3)."""
    drawn = draw("lstm", steps=1)
    _, (h, c), _ = drawn
    _, plain_h, plain_c = run("lstm", PLAIN, drawn)
    one, zero = torch.ones(1, 1, B, H, dtype=torch.bool), torch.zeros(1, 1, B, H, dtype=torch.bool)
    assert_near(run("lstm", PLAIN, drawn, zoneout=[one, zero])[1:], [h, plain_c])
    assert_near(run("lstm", PLAIN, drawn, zoneout=[zero, one])[1:], [plain_h, c])
    _, found_h, found_c = run("lstm", Variant(zoneout=(0.25, 0.5)), drawn)
    assert_near([found_h, found_c], [0.25 * h + 0.75 * plain_h, (c + plain_c) / 2])


def test_zoneout_at_inference_is_the_mean_of_training() -> None:
    """Of one step, over all 2^H masks of a sequence, weighted with their probabilities."""
    rate, drawn = 0.3, draw("gru", steps=1)
    mean = torch.zeros(B, H, dtype=torch.float64)
    for bits in range(2**H):
        kept = torch.tensor([bool(bits >> k & 1) for k in range(H)])
        weight = math.prod(rate if k else 1 - rate for k in kept.tolist())
        found = run("gru", PLAIN, drawn, zoneout=[kept.expand(1, 1, B, H)])
        mean += weight * found[0][0]
    assert_near([run("gru", Variant(zoneout=(rate, 0.0)), drawn)[0][0]], [mean])


@kinds
@pytest.mark.parametrize("directions", [1, 2])
def test_resets_are_sequences_run_in_pieces(cell: str, variant: Variant, directions: int) -> None:
    x, states, weights = drawn = draw(cell, variant, directions)
    at = 2
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[at, 1] = True
    y, *last = run(cell, variant, drawn, resets=resets)

    zeros = [torch.zeros_like(state) for state in states]
    # The forward direction enters the first piece with the initial state, the reverse the second.
    before = [torch.stack([s[0], *z[1:]]) for s, z in zip(states, zeros, strict=True)]
    after = [torch.stack([z[0], *s[1:]]) for s, z in zip(states, zeros, strict=True)]
    first = run(cell, variant, (x[:at], before, weights))
    second = run(cell, variant, (x[at:], after, weights))
    assert_near([y[:, 1]], [torch.cat([first[0], second[0]])[:, 1]])
    for found, one, two in zip(last, first[1:], second[1:], strict=True):
        assert_near([found[0, 1]], [two[0, 1]])
        assert_near(found[1:, 1], one[1:, 1])
    whole = run(cell, variant, drawn)
    assert_near([y[:, ::2]], [whole[0][:, ::2]])  # the other sequences know nothing of it


def test_a_reset_at_the_first_step_forgets_the_initial_state() -> None:
    x, states, weights = draw("lstm", directions=2)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[0] = True
    found = run("lstm", PLAIN, (x, states, weights), resets=resets)
    forgotten = [torch.stack([torch.zeros_like(s[0]), s[1]]) for s in states]
    assert_near(found, run("lstm", PLAIN, (x, forgotten, weights)))


def test_a_nan_before_a_reset_does_not_pass_it() -> None:
    x, states, weights = draw("gru")
    x[1] = math.nan
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2] = True
    y = run("gru", PLAIN, (x, states, weights), resets=resets)[0]
    assert y[1].isnan().all()
    assert not y[2:].isnan().any()


# --- new cells


def test_indrnn_unit_by_unit() -> None:
    x, (h,), (w, u, b, d) = draw("indrnn")
    y, last = run("indrnn", PLAIN, (x, [h], [w, u, b, d]))
    for row in range(B):
        for k in range(H):
            state = h[0, row, k].item()
            for t in range(T):
                total = sum((w[k, i] * x[t, row, i]).item() for i in range(I))
                state = max(0.0, total + b[k].item() + d[k].item() + u[k].item() * state)
                assert abs(y[t, row, k].item() - state) <= 1e-12
            assert abs(last[0, row, k].item() - state) <= 1e-12


@pytest.mark.parametrize("given", [True, False])
def test_slstm_is_its_formula_without_a_stabiliser(given: bool) -> None:
    """(8) to (14) of Beck et al. 2024 as they are, for exponents that do not overflow."""
    x, states, (w, u, b, d) = draw("slstm")
    if not given:
        states = [torch.zeros_like(state) for state in states]
    y, h_n, c_n, n_n, m_n = run("slstm", PLAIN, (x, states, [w, u, b, d]))
    h, c, n, m = (state[0] for state in states)
    c, n = c * m.exp(), n * m.exp()
    for t in range(T):
        i, f, z, o = (x[t] @ w.T + b + h @ u.T + d).chunk(4, -1)
        c = torch.sigmoid(f) * c + i.exp() * torch.tanh(z)
        n = torch.sigmoid(f) * n + i.exp()
        h = torch.sigmoid(o) * c / n
        assert_near([y[t]], [h])
    assert_near([h_n[0], c_n[0] * m_n[0].exp(), n_n[0] * m_n[0].exp()], [h, c, n])


@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_slstm_does_not_overflow(size: float) -> None:
    """Where exp(i~) is 0 or infinite, c / n is a mean of tanh(z~) still."""
    x, _, (w, u, b, d) = draw("slstm")
    b[:H] = size
    tensors = [value.float() for value in (w, u, b, d)]
    weights = [value.requires_grad_() for value in tensors]
    y, _ = reference.layer(x.float(), [], weights, "slstm")
    assert y.abs().max() < 1
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().sum(), weights))


# --- whole layers


@kinds
def test_derivatives(cell: str, variant: Variant) -> None:
    """Once and twice, with masks, resets and zoneout."""
    x, states, weights = draw(cell, variant, directions=2, steps=2)
    inputs = [x[:, :1].clone(), *(state[:, :1].clone() for state in states), *weights]
    inputs = [value.requires_grad_() for value in inputs]
    resets = torch.tensor([[False], [True]])
    mask = torch.tensor([0.0, 1.25, 1.25, 1.25], dtype=torch.float64).expand(2, 1, H)
    kept: list[Tensor | None] = [torch.rand(2, 2, 1, H) < 0.5]
    kept += [None] * (len(states) - 1)
    options: dict[str, Any] = {"mask": mask, "resets": resets, "zoneout": kept}

    def both(options: dict[str, Any], *tensors: Tensor) -> tuple[Tensor, ...]:
        given, own = tensors[1 : 1 + len(states)], tensors[1 + len(states) :]
        y, last = reference.layer(tensors[0], given, own, cell, True, variant=variant, **options)
        return y, *last

    assert torch.autograd.gradcheck(partial(both, options), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(partial(both, {}), inputs, fast_mode=True)


@kinds
def test_lengths_padded_and_packed(cell: str, variant: Variant) -> None:
    """Each sequence by itself, cut to its length; resets and masks go with their sequences."""
    x, states, weights = drawn = draw(cell, variant, directions=2)
    lengths = torch.tensor([5, 3, 2])  # sorted, as a PackedSequence has them
    options: dict[str, Any] = {
        "mask": torch.where(torch.rand(2, B, H) < 0.5, 0.0, 2.0).double(),
        "resets": torch.rand(T, B) < 0.4,
        "zoneout": [torch.rand(2, T, B, H) < 0.4 for _ in states],
    }
    y, *last = run(cell, variant, drawn, lengths=lengths, **options)
    inside = torch.arange(T).unsqueeze(1) < lengths
    packed: dict[str, Any] = {"batch_sizes": inside.sum(1), **options}
    rows, *packed_last = run(cell, variant, (x[inside], states, weights), **packed)
    assert_near([y[inside], *last], [rows, *packed_last])
    assert not y[~inside].any()
    for k, n in enumerate(lengths.tolist()):
        one = slice(k, k + 1)
        own = run(
            cell,
            variant,
            (x[:n, one], [s[:, one] for s in states], weights),
            mask=options["mask"][:, one],
            resets=options["resets"][:n, one],
            zoneout=[z[:, :n, one] for z in options["zoneout"]],
        )
        assert_near([y[:n, one], *(s[:, one] for s in last)], own)


@pytest.mark.parametrize(("cell", "variant"), [KINDS[-1], KINDS[-2], ("slstm", PLAIN)])
def test_traces_whole(cell: str, variant: Variant) -> None:
    drawn = draw(cell, variant, directions=2, steps=2)
    torch._dynamo.reset()  # each kind is a graph of its own, and Dynamo counts them
    traced = torch.compile(reference.layer, fullgraph=True, backend="eager")
    y, last = traced(*drawn, cell, True, variant=variant)
    assert_near([y, *last], run(cell, variant, drawn))


def test_every_state_of_a_sequence() -> None:
    """The trajectory's last are the last states; a projection's h is the projected one."""
    for reverse in (False, True):
        x, states, weights = draw("lstm")
        weights = [weights[0], rand(4 * H, 3), *weights[2:], rand(3, H)]
        before = (rand(B, 3), states[1][0])
        each, last = reference.trajectory(x, before, weights, "lstm", reverse)
        y, again = reference.sequence(x, before, weights, "lstm", reverse)
        assert [tuple(state.shape) for state in each[0]] == [(B, 3), (B, H)]
        assert_near(y, [h for h, _ in each])
        assert_near(last, each[0 if reverse else -1])
        assert_near(last, again)


def test_a_projection_and_a_variant() -> None:
    """Extras come last in a direction's list, behind the projection; dropout is on P."""
    variant = Variant(layer_norm="gates", zoneout=(0.1, 0.2))
    x, _, weights = draw("lstm", variant)
    weights = [weights[0], rand(4 * H, 3), *weights[2:4], rand(3, H), *weights[4:]]
    y, (h, c) = reference.layer(
        x, [], weights, "lstm", variant=variant, mask=torch.ones(1, B, 3).double()
    )
    assert (y.shape, h.shape, c.shape) == ((T, B, 3), (1, B, 3), (1, B, H))


# --- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer_norm": "batch"}, "layer_norm: expected one of None, 'gates', .* got 'batch'"),
        ({"activation": "gelu"}, "activation: expected one of tanh, relu, .* got 'gelu'"),
        ({"recurrent_activation": "Tanh"}, "recurrent_activation: expected one of .* got 'Tanh'"),
        ({"zoneout": (1.0, 0.0)}, r"zoneout: expected two numbers .* got \(1.0, 0.0\)"),
        ({"zoneout": (-0.1, 0.0)}, "zoneout: expected two numbers"),
        ({"zoneout": 0.1}, "zoneout: expected two numbers .* got 0.1"),
        ({"zoneout": ("a", 0)}, "zoneout: expected two numbers"),
    ],
)
def test_options_of_no_meaning(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        Variant(**options)


@pytest.mark.parametrize(
    ("cell", "options", "words"),
    [
        ("rnn_tanh", {"recurrent_activation": "relu"}, "recurrent_activation: 'rnn_tanh'"),
        ("indrnn", {"recurrent_activation": "relu"}, "recurrent_activation: 'indrnn'"),
        ("slstm", {"recurrent_activation": "relu"}, "recurrent_activation: 'slstm'"),
        ("slstm", {"activation": "relu"}, "activation: 'slstm'"),
        ("lstm", {"reset_after": False}, "reset_after: 'lstm' has no reset gate"),
        ("gru", {"peephole": True}, "peephole: 'gru'"),
        ("gru", {"coupled": True}, "coupled: 'gru'"),
        ("gru", {"zoneout": (0.1, 0.1)}, "zoneout: for 'gru' that of c must be 0, got 0.1"),
        ("slstm", {"zoneout": (0.1, 0.1)}, "zoneout: for 'slstm'"),
        ("slstm", {"layer_norm": "gates"}, "layer_norm: 'slstm'"),
        ("indrnn", {"layer_norm": "gates"}, "layer_norm: 'indrnn'"),
        ("mgu", {"layer_norm": "gates"}, "layer_norm: 'gates' needs"),
        ("gru", {"layer_norm": "gates", "reset_after": False}, "layer_norm: 'gates' needs"),
        ("lstm", {"layer_norm": "preactivation", "peephole": True}, "layer_norm: .* exclude"),
    ],
)
def test_options_that_a_cell_has_not(cell: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        reference.declaration(cell, Variant(**options))


def test_a_new_cell_has_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its step would not look at them."""
    monkeypatch.setitem(reference.CELLS, "new", reference.CELLS["rnn_tanh"])
    told = Variant(activation="relu"), Variant(layer_norm="preactivation")
    for option, variant in zip(("activation", "layer_norm"), told, strict=True):
        with pytest.raises(ValueError, match=f"^{option}: 'new' has"):
            reference.declaration("new", variant)
    assert reference.declaration("new", Variant(zoneout=(0.1, 0.0))).gates == ("h",)


def test_a_cell_of_ones_own_brings_its_variant() -> None:
    declared = reference.declaration("lstm", Variant(peephole=True))
    assert reference.declaration(declared) is declared
    with pytest.raises(ValueError, match=r"^variant: a Cell brings its own"):
        reference.declaration(declared, Variant(coupled=True))
    drawn = draw("lstm", Variant(peephole=True))
    y, last = reference.layer(*drawn, declared)
    assert_near([y, *last], run("lstm", Variant(peephole=True), drawn))
