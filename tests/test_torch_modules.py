"""torch's own samples of its recurrent modules, and what torch's test_modules.py asks of them, put
to our classes.

The samples come from ``torch.testing._internal.common_modules``, which needs ``expecttest``.
"""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence

import rnncells

OURS: dict[type[nn.Module], Callable[..., Any]] = {
    nn.RNN: rnncells.RNN,
    nn.LSTM: rnncells.LSTM,
    nn.GRU: rnncells.GRU,
    nn.RNNCell: rnncells.RNNCell,
    nn.LSTMCell: rnncells.LSTMCell,
    nn.GRUCell: rnncells.GRUCell,
}
kinds = pytest.mark.parametrize("kind", OURS, ids=[kind.__name__ for kind in OURS])
modes = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
floats = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
Samples = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def infos() -> dict[type[nn.Module], Any]:
    """torch's entry for each of its modules."""
    frozen = torch.backends.flags_frozen()
    # Imported late: it takes seconds, freezes flags of torch and chooses a profile of hypothesis.
    common = pytest.importorskip("torch.testing._internal.common_modules")
    torch.backends.__allow_nonbracketed_mutation_flag = not frozen
    hypothesis.settings.load_profile("rnncells")
    return {info.module_cls: info for info in common.module_db if info.module_cls in OURS}


@pytest.fixture
def samples(infos: dict[type[nn.Module], Any]) -> Samples:
    """torch's samples for a module, the packed ones too."""

    def make(
        kind: type[nn.Module], dtype: torch.dtype, training: bool, requires_grad: bool = False
    ) -> list[Any]:
        info = infos[kind]
        found = info.module_inputs_func(
            info,
            device="cpu",
            dtype=dtype,
            requires_grad=requires_grad,
            training=training,
            with_packed_sequence=True,
        )
        return list(found)

    return make


def build(kind: Callable[..., Any], sample: Any, dtype: torch.dtype, training: bool) -> Any:
    given = sample.constructor_input
    return kind(*given.args, **given.kwargs).to("cpu").to(dtype).train(training)


def pair(kind: type[nn.Module], sample: Any, dtype: torch.dtype, training: bool) -> Any:
    """Our module and torch's, with the same weights."""
    mine, other = (build(cls, sample, dtype, training) for cls in (OURS[kind], kind))
    mine.load_state_dict(other.state_dict(), strict=True)
    return mine, other


def tensors(values: Any) -> list[Tensor]:
    """The tensors that carry a gradient, in arguments or outputs of a module."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, PackedSequence):
        return [values.data]
    return [tensor for value in values for tensor in tensors(value)]


def rebuilt(values: Any, replacements: list[Tensor]) -> Any:
    """The same with its tensors replaced, in the order of `tensors`."""
    if isinstance(values, Tensor):
        return replacements.pop(0)
    if isinstance(values, PackedSequence):
        return PackedSequence(replacements.pop(0), *values[1:])
    return tuple(rebuilt(value, replacements) for value in values)


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Inputs of up to 9 make pre-activations of up to 20 or so, from sums of 12 terms, through 2
    layers of 5 steps: a walk of sqrt(12) * 10 roundings, of 20 half-eps each."""
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        limit = 350 * torch.finfo(b.dtype).eps * max(1.0, b.abs().max().item())
        assert (a - b).abs().max().item() <= limit


@kinds
@modes
@floats
def test_forward_and_gradient(
    kind: type[nn.Module], training: bool, dtype: torch.dtype, samples: Samples
) -> None:
    for sample in samples(kind, dtype, training, requires_grad=True):
        args = sample.forward_input.args
        found = []
        modules = pair(kind, sample, dtype, training)
        for module in modules:
            outputs = tensors(module(*args))
            wrt = [*tensors(args), *module.parameters()]
            loss = torch.stack([((k + 1) * y.sin()).sum() for k, y in enumerate(outputs)]).sum()
            found.append([*outputs, *torch.autograd.grad(loss, wrt)])
        assert_close(*found)
        if not isinstance(args[0], PackedSequence):  # torch's samples say what to expect
            expected = tensors(sample.reference_fn(modules[0], *args))
            assert_close(found[0][: len(expected)], expected)


@kinds
@floats
def test_non_contiguous(kind: type[nn.Module], dtype: torch.dtype, samples: Samples) -> None:
    def spread(values: Sequence[Tensor]) -> list[Tensor]:
        return [value.detach().repeat_interleave(2, dim=-1)[..., ::2] for value in values]

    for sample in samples(kind, dtype, True):
        module, args = build(OURS[kind], sample, dtype, True), sample.forward_input.args
        inputs = tensors(args)
        with torch.no_grad():
            cotangents = [torch.randn_like(y) for y in tensors(module(*args))]
        runs = []
        for given, weighing in itertools.product(
            (inputs, spread(inputs)), (cotangents, spread(cotangents))
        ):
            leaves = [value.detach().requires_grad_() for value in given]
            assert leaves[0].is_contiguous() == (given is inputs)
            outputs = tensors(module(*rebuilt(args, leaves[:])))
            wrt = [*leaves, *module.parameters()]
            runs.append([*outputs, *torch.autograd.grad(outputs, wrt, weighing)])
        for run in runs[1:]:
            assert_close(run, runs[0])


def check_derivatives(
    check: Callable[..., bool], module: Any, args: tuple[Any, ...], partial: bool
) -> None:
    """torch's check of a module: of its total derivative, and with ``partial`` of the inputs' and
    each parameter's by itself."""
    inputs, parameters = tensors(args), list(module.parameters())

    def run(*leaves: Tensor) -> tuple[Tensor, ...]:
        values = list(leaves)
        named = {name: values[len(inputs) + k] for k, name in enumerate(names)}
        given = rebuilt(args, values[: len(inputs)])
        return tuple(tensors(torch.func.functional_call(module, named, given)))

    names = [name for name, _ in module.named_parameters()]
    assert check(run, (*inputs, *parameters), fast_mode=True, check_batched_grad=True)
    for alone in parameters if partial else ():
        for parameter in parameters:
            parameter.requires_grad_(parameter is alone)
        assert check(run, (*inputs, *parameters), fast_mode=True, check_batched_grad=True)


def derivative_cases(
    samples: Samples, kind: type[nn.Module], training: bool
) -> list[tuple[Any, tuple[Any, ...]]]:
    found = []
    for sample in samples(kind, torch.float64, training, requires_grad=True):
        found.append(
            (build(OURS[kind], sample, torch.float64, training), sample.forward_input.args)
        )
    return found


@kinds
def test_gradcheck(kind: type[nn.Module], samples: Samples) -> None:
    for module, args in derivative_cases(samples, kind, training=True):
        check_derivatives(gradcheck, module, args, partial=False)


@kinds
def test_gradgradcheck(kind: type[nn.Module], samples: Samples) -> None:
    cases = derivative_cases(samples, kind, training=True)
    for module, args in cases[:: max(1, len(cases) // 4)]:
        check_derivatives(gradgradcheck, module, args, partial=False)


@pytest.mark.slow
@kinds
@modes
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_total_and_partial_derivatives(
    kind: type[nn.Module], training: bool, check: Callable[..., bool], samples: Samples
) -> None:
    # Without dropout both modes compute the same; once is enough for each parameter by itself.
    for module, args in derivative_cases(samples, kind, training):
        check_derivatives(check, module, args, partial=training)


@kinds
@modes
@floats
def test_errors(
    kind: type[nn.Module], training: bool, dtype: torch.dtype, infos: dict[type[nn.Module], Any]
) -> None:
    info = infos[kind]
    errors = info.module_error_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=False, training=training
    )
    assert len(errors) >= 4
    for error in errors:
        sample = error.module_error_input
        given, forward = sample.constructor_input, sample.forward_input
        for cls in (kind, OURS[kind]):
            if forward is None:
                with pytest.raises(error.error_type, match=error.error_regex) as raised:
                    cls(*given.args, **given.kwargs)
            else:
                module = cls(*given.args, **given.kwargs)
                with pytest.raises(error.error_type, match=error.error_regex) as raised:
                    module(*forward.args, **forward.kwargs)
            assert raised.type is error.error_type


@kinds
@modes
def test_pickle_and_save(kind: type[nn.Module], training: bool, samples: Samples) -> None:
    dtype = torch.float32
    for sample in samples(kind, dtype, training):
        module, args = build(OURS[kind], sample, dtype, training), sample.forward_input.args
        expected = tensors(module(*args))
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        for copy in (pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)):
            assert copy.training is training
            for a, b in zip(tensors(copy(*args)), expected, strict=True):
                assert torch.equal(a, b)
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        other = build(kind, sample, dtype, training)
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        assert_close(tensors(other(*args)), expected)


@kinds
@modes
def test_repr(kind: type[nn.Module], training: bool, samples: Samples) -> None:
    for sample in samples(kind, torch.float32, training):
        mine, other = pair(kind, sample, torch.float32, training)
        assert repr(mine).removeprefix("Simple") == repr(other)
        assert str(mine) == repr(mine)


@kinds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_factories(kind: type[nn.Module], dtype: torch.dtype, samples: Samples) -> None:
    for sample in samples(kind, torch.float32, True):
        given = sample.constructor_input
        made = OURS[kind](*given.args, **given.kwargs, device="cpu", dtype=dtype)
        with torch.device("meta"):
            meta = OURS[kind](*given.args, **given.kwargs)
        other = kind(*given.args, **given.kwargs)
        trio = (made.named_parameters(), meta.named_parameters(), other.named_parameters())
        for (name, a), (also, b), (theirs, c) in zip(*trio, strict=True):
            assert name == also == theirs
            assert (a.dtype, a.device.type, b.dtype, b.device.type) == (
                dtype, "cpu", torch.float32, "meta",
            )  # fmt: skip
            assert a.shape == b.shape == c.shape
            assert b.stride() == c.stride()


@kinds
@modes
def test_moves(kind: type[nn.Module], training: bool, samples: Samples) -> None:
    for sample in samples(kind, torch.float32, training):
        module, args = build(OURS[kind], sample, torch.float32, training), sample.forward_input.args
        expected = tensors(module(*args))
        module.to(memory_format=torch.preserve_format)
        doubled = module.double()
        assert doubled is module
        assert all(parameter.dtype == torch.float64 for parameter in module.parameters())
        assert_close(tensors(module.float()(*args)), expected)
        state = {name: value.clone() for name, value in module.state_dict().items()}
        module.to("meta").to_empty(device="cpu")
        module.load_state_dict(state)
        assert_close(tensors(module(*args)), expected)


@kinds
def test_only_layers_read_the_training_flag(kind: type[nn.Module], samples: Samples) -> None:
    for sample in samples(kind, torch.float32, True):
        module = build(OURS[kind], sample, torch.float32, True)
        del module.training
        if hasattr(module, "num_layers"):
            with pytest.raises(AttributeError, match="'training'"):
                module(*sample.forward_input.args)
        else:
            module(*sample.forward_input.args)
