"""What layers and cells check before anything runs, in torch.nn's words where torch.nn has them."""

from __future__ import annotations

import numbers
import operator
import warnings
from collections.abc import Sequence
from typing import NoReturn, SupportsIndex

import torch
from torch import Tensor
from torch.nn import Module

from rnncells import cuda

Shapes = list[tuple[str, tuple[int, ...]]]
Lengths = Tensor | Sequence[int]

SUPPORTED_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SUPPORTED_DEVICES = ("cpu", "meta") if cuda.why_missing() else ("cpu", "meta", "cuda")


def state_names(states: Sequence[object]) -> list[str]:
    """What the caller calls the states: ``hx``, or ``hx[0]`` and so on where there are several."""
    return ["hx"] if len(states) == 1 else [f"hx[{index}]" for index in range(len(states))]


def require_tensor(name: str, value: object, hint: str = "") -> None:
    """Raises TypeError where the argument ``name`` is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(value).__name__}{hint}")


def require_pair(torch_name: str, hx: object) -> None:
    """Raises where the initial states of an LSTM or its cell are no pair: TypeError, RuntimeError
    for their number."""
    if isinstance(hx, (tuple, list)) and len(hx) == 2:
        return
    hint = _lengths_hint(hx) if torch_name == "lstm" else ""
    if not isinstance(hx, (tuple, list)):
        kind = type(hx).__name__
        raise TypeError(f"hx: expected a pair of Tensors (h_0, c_0), got {kind}{hint}")
    raise RuntimeError(f"{torch_name} expects two hidden states (h_0, c_0), got {len(hx)}{hint}")


def require_states(layer: str, hx: object, names: Sequence[str]) -> None:
    """Raises where the initial states of a layer are no tuple of as many as it has: TypeError,
    RuntimeError for their number."""
    expected = f"{len(names)} Tensors ({', '.join(f'{name}_0' for name in names)})"
    if not isinstance(hx, (tuple, list)):
        kind = type(hx).__name__
        raise TypeError(f"hx: expected a tuple of {expected}, got {kind}{_lengths_hint(hx)}")
    if len(hx) != len(names):
        raise RuntimeError(f"hx: {layer} expects {expected}, got {len(hx)}{_lengths_hint(hx)}")


def _lengths_hint(hx: object) -> str:
    """What to say to who gave a layer lengths in the place of its initial states."""
    if isinstance(hx, Tensor):
        lengths = hx.dim() == 1 and not hx.is_floating_point()
    else:
        lengths = isinstance(hx, (tuple, list)) and {*map(type, hx)} == {int}
    return "; lengths are given by keyword, lengths=" if lengths else ""


def check_engine(x: Tensor) -> None:
    """Raises where no engine serves the input.

    NotImplementedError for what may come (another device), TypeError for what has no meaning here
    (integers, booleans, complex numbers).
    """
    if x.device.type not in SUPPORTED_DEVICES:
        why = f" ({cuda.why_missing()})" if x.device.type == "cuda" else ""
        raise NotImplementedError(
            f"input: expected a tensor on the CPU, got one on {x.device}; "
            f"this build of rnncells has no {x.device.type.upper()} engine{why}"
        )
    if x.dtype not in SUPPORTED_DTYPES:
        known = ", ".join(map(str, SUPPORTED_DTYPES))
        raise TypeError(f"input: expected one of {known}, got {x.dtype}")


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast asks for where ``x`` is; None where it asks for none."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def lower(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Casts as torch's autocast does: floating point, but not float64. Differentiable."""
    if not value.is_floating_point() or value.dtype == torch.float64:
        return value
    return value.to(dtype)


def read_lengths(lengths: Lengths, x: Tensor) -> Tensor:
    """The lengths of the sequences of ``x`` [T, B, I] as the operator takes them: [B], int64, on
    the CPU where ``x`` is there.

    Whether they are from 1 to T, the operator checks.

    Raises:
        TypeError: they are no integers.
        RuntimeError: they are not B, in the words of torch's ``pack_padded_sequence``.
    """
    if not isinstance(lengths, Tensor):
        try:
            values = [_integer(n) for n in lengths]
            lengths = torch.tensor(values, dtype=torch.int64, device="cpu")
        except TypeError as error:
            raise TypeError(
                f"lengths: expected a Tensor or a sequence of integers; {error}"
            ) from None
    dtype = lengths.dtype
    no_integers = dtype.is_floating_point or dtype.is_complex or dtype == torch.bool
    if no_integers and lengths.numel() > 0:  # torch.tensor([]) is of float32
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    batch = x.shape[1]
    if lengths.dim() != 1:
        raise RuntimeError(f"lengths: expected shape [{batch}], got {list(lengths.shape)}")
    if lengths.shape[0] != batch:
        raise RuntimeError(
            "Expected `len(lengths)` to be equal to batch_size, "
            f"but got {lengths.shape[0]} (batch_size={batch})"
        )
    # A copy: BPTT reads them again, and NumPy may write into a tensor unseen.
    return lengths.to("cpu" if x.is_cpu else lengths.device, torch.int64, copy=True)


def read_resets(resets: object, x: Tensor, rank: int, batch_first: bool) -> Tensor:
    """Where the states of the sequences of ``x`` [T, B, I] start anew, as the operator takes it:
    [T, B] of bool, from the layout of an input of ``rank`` dimensions.

    Raises:
        TypeError: it is no Tensor of bool.
        ValueError: it has another shape, or is on another device.
    """
    if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
        kind = resets.dtype if isinstance(resets, Tensor) else type(resets).__name__
        raise TypeError(f"resets: expected a Tensor of bool, got {kind}")
    steps, batch = x.shape[:2]
    expected = [steps] if rank == 2 else [batch, steps] if batch_first else [steps, batch]
    if list(resets.shape) != expected:
        raise ValueError(f"resets: expected shape {expected}, got {list(resets.shape)}")
    if resets.device != x.device:
        raise ValueError(f"resets: expected a tensor on {x.device}, got one on {resets.device}")
    resets = resets.unsqueeze(1) if rank == 2 else resets.T if batch_first else resets
    return resets.clone()  # BPTT reads it again, and NumPy may write into a tensor unseen


def _integer(value: SupportsIndex) -> int:
    if isinstance(value, bool):
        raise TypeError("'bool' object cannot be interpreted as an integer")
    return operator.index(value)


def read_parameters(
    module: Module, shapes: Shapes, x: Tensor, cast: torch.dtype | None = None
) -> list[Tensor]:
    """The module's parameters, each checked for its shape and for the dtype and device of the
    input ``x``; where autocast asks for the dtype ``cast``, they are brought to it first.

    They are read by name on every call, because parametrisations and functional calls replace them.
    """
    parameters, dtype = module._parameters, x.dtype
    device = None if x.is_cpu else x.device  # is_cpu is the quicker question
    values: list[Tensor] = []
    for name, shape in shapes:
        value: Tensor | None = parameters.get(name)
        if value is None:
            value = getattr(module, name, None)
        if cast is not None and isinstance(value, Tensor):
            value = lower(value, cast)
        if (
            not isinstance(value, Tensor)
            or value.shape != shape
            or value.dtype != dtype
            or not (value.is_cpu if device is None else value.device == device)
        ):
            _refuse_parameter(name, value, shape, x)
        values.append(value)
    return values


def _refuse_parameter(name: str, value: object, shape: tuple[int, ...], x: Tensor) -> NoReturn:
    if not isinstance(value, Tensor):
        found = "nothing" if value is None else type(value).__name__
        raise TypeError(f"{name}: expected a Tensor of shape {list(shape)}, got {found}")
    if value.dtype != x.dtype:
        if name == "weight_ih_l0":
            # torch.nn's words, less the advice where no engine serves the input's dtype
            model = (
                f", or convert model: model.to({x.dtype})" if x.dtype in SUPPORTED_DTYPES else ""
            )
            raise ValueError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({value.dtype}). Convert "
                f"input: input.to({value.dtype}){model}"
            )
        if name == "weight_ih":
            raise RuntimeError(f"input: expected dtype {value.dtype} as {name} has, got {x.dtype}")
        raise RuntimeError(f"{name}: expected dtype {x.dtype} as the input has, got {value.dtype}")
    if value.device != x.device:
        raise RuntimeError(
            "Input and parameter tensors are not at the same device, found input tensor at "
            f"{x.device} and parameter tensor at {value.device} ({name})"
        )
    raise RuntimeError(f"{name}: expected shape {list(shape)}, got {list(value.shape)}")


def check_state_kinds(states: Sequence[Tensor], x: Tensor) -> None:
    """Raises where an initial state's dtype or device is not the input's."""
    for index, state in enumerate(states):
        if state.dtype == x.dtype and state.device == x.device:
            continue
        name = state_names(states)[index]
        if state.dtype != x.dtype:
            raise RuntimeError(
                f"{name}: expected dtype {x.dtype} as the input has, got {state.dtype}"
            )
        raise RuntimeError(
            "Input and hidden tensors are not at the same device, found input tensor at "
            f"{x.device} and hidden tensor at {state.device} ({name})"
        )


def check_layer_state_ranks(states: Sequence[Tensor], rank: int) -> None:
    """Raises where a layer's initial state is no tensor, or is batched unlike the input."""
    given: Sequence[object] = states
    if all(isinstance(state, Tensor) and state.dim() == rank for state in given):
        return
    hint = _lengths_hint(given if len(given) > 1 else given[0])
    for name, state in zip(state_names(states), states, strict=True):
        require_tensor(name, state, hint)
    kind = "batched" if rank == 3 else "unbatched"
    ranks = [f"{state.dim()}-D" for state in states]
    if len(states) == 1:
        raise RuntimeError(
            f"For {kind} {rank}-D input, hx should also be {rank}-D but got {ranks[0]} tensor{hint}"
        )
    which = "hx and cx" if len(states) == 2 else "the states in hx"
    raise RuntimeError(
        f"For {kind} {rank}-D input, {which} should also be {rank}-D "
        f"but got ({', '.join(ranks)}) tensors"
    )


def check_layer_state_shapes(states: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raises where a layer's initial states are not of these shapes."""
    for index, (state, shape) in enumerate(zip(states, shapes, strict=True)):
        if state.shape != shape:
            which = "hidden" if len(states) == 1 else f"hidden[{index}]"
            raise RuntimeError(f"Expected {which} size {shape}, got {list(state.shape)}")


def check_cell_state_ranks(torch_name: str, states: Sequence[Tensor], rank: int) -> None:
    """Raises where a cell's initial state is no tensor, or is batched unlike the input."""
    for name, state in zip(state_names(states), states, strict=True):
        require_tensor(name, state)
        if state.dim() not in (1, 2):
            which = "hidden" if len(states) == 1 else name
            raise ValueError(
                f"{torch_name}: Expected {which} to be 1D or 2D, got {state.dim()}D instead"
            )
        if state.dim() != rank:
            raise RuntimeError(
                f"{torch_name}: for {rank}D input, {name} should also be {rank}D, "
                f"got {state.dim()}D instead"
            )


def check_cell_state_shapes(states: Sequence[Tensor], batch: int, hidden_size: int) -> None:
    """Raises where an initial state of a cell is not [B, H]."""
    for index, state in enumerate(states):
        if state.shape[1] != hidden_size:
            raise RuntimeError(
                f"hidden{index} has inconsistent hidden_size: got {state.shape[1]}, "
                f"expected {hidden_size}"
            )
        if state.shape[0] != batch:
            raise RuntimeError(
                f"Input batch size {batch} doesn't match hidden{index} batch size {state.shape[0]}"
            )


def check_layer_options(
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    batch_first: bool,
    bidirectional: bool,
    dropout: float,
    proj_size: int,
    stacklevel: int,
) -> None:
    """A layer's options; the warning of a dropout that has no place goes ``stacklevel`` frames
    up."""
    if isinstance(dropout, bool) or not isinstance(dropout, numbers.Real) or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an "
            "element being zeroed"
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout "
            f"expects num_layers greater than 1, but got dropout={dropout} and "
            f"num_layers={num_layers}",
            stacklevel=stacklevel + 1,
        )
    flags = (
        ("bias", bias),
        ("batch_first", batch_first),
        ("bidirectional", bidirectional),
    )
    for name, flag in flags:
        if not isinstance(flag, bool):
            raise TypeError(f"{name} should be of type bool, got: {type(flag).__name__}")
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(size, int):
            raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
        if size <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")
