"""Swaps torch.nn's recurrent layers in a model for ours, and back.

A layer is converted by changing the class of the object that is there, as torch's own
parametrisations do. Parameters, gradients, hooks and their handles, buffers, the user's own
attributes and every place that holds the layer are therefore not copied but stay. What a class
keeps on its objects besides is read off a template: a layer of the same options on the meta device,
which takes no memory and draws no random number.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import Module
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.rnn import RNNBase, RNNCellBase
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from rnncells.cells import GRUCell, LSTMCell, RecurrentCell, SimpleRNNCell
from rnncells.checks import SUPPORTED_DEVICES, SUPPORTED_DTYPES
from rnncells.layers import GRU, LSTM, RecurrentLayer, SimpleRNN

__all__ = ["ConversionReport", "LeftLayer", "ReplacedLayer", "conversion_report", "convert"]

_log = logging.getLogger(__name__)

AnyModule = TypeVar("AnyModule", bound=Module)


@dataclass(frozen=True)
class ReplacedLayer:
    """A layer that was replaced: every name it has in the model ("" is the model itself), and its
    class before and after."""

    names: tuple[str, ...]
    before: str
    after: str

    def __str__(self) -> str:
        return f"{_listed(self.names)}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class LeftLayer:
    """A recurrent layer that was left as it is: every name it has in the model ("" is the model
    itself), its class, and why."""

    names: tuple[str, ...]
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{_listed(self.names)}: {self.kind}: {self.reason}"


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion replaced and what it left, each in the model's order. ``str`` makes one
    line of each."""

    replaced: tuple[ReplacedLayer, ...]
    left: tuple[LeftLayer, ...]

    def __str__(self) -> str:
        lines = [f"replaced: {len(self.replaced)}", *(f"  {layer}" for layer in self.replaced)]
        lines += [f"left: {len(self.left)}", *(f"  {layer}" for layer in self.left)]
        if not self.replaced and not self.left:
            lines.append("no recurrent layer among the model's registered modules")
        return "\n".join(lines)


def convert(
    model: AnyModule,
    *,
    back: bool = False,
    report: Callable[[ConversionReport], object] | None = None,
) -> AnyModule:
    """Replaces every ``torch.nn`` RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell of a model by ours.

    The layers stay the same objects, with the same parameters, gradients, hooks and attributes, in
    the same places; only their class changes. An optimiser, a compiled or a parallel wrapper, or
    another model that holds one of them goes on with it. The state_dict keeps its keys. Code that
    asks ``isinstance(layer, torch.nn.LSTM)`` gets another answer afterwards; ``isinstance(layer,
    torch.nn.RNNBase)`` holds before and after.

    Replaced are layers of exactly these classes, parametrised ones among them, wherever the model
    has registered them. Left are their subclasses, layers whose forward was replaced on the object,
    quantised, TorchScript and lazy ones, and those whose weights have a dtype, device or shape that
    we do not serve. With ``report``, it is called with the :class:`ConversionReport`, as in
    ``report=print``. Without, the logger ``rnncells.convert`` tells: at level INFO what was
    replaced, at WARNING what was left. :func:`conversion_report` tells beforehand.

    Args:
        model: any module; one that is itself such a layer is converted too.
        back: makes our layers torch.nn's again. Left are those that do what torch.nn's cannot.
        report: called once, after the conversion.

    Returns:
        ``model``, the same object.

    Raises:
        TypeError: where ``model`` is no module. Nothing is changed then.
    """
    swaps, result = _plan(model, back)
    classes: dict[type[Module], type[Module]] = {}
    for swap in swaps:
        _apply(swap, classes)
    if report is not None:
        report(result)
    else:
        if result.replaced:
            _log.info("replaced %s", "; ".join(map(str, result.replaced)))
        if result.left:
            _log.warning("left %s", "; ".join(map(str, result.left)))
    return model


def conversion_report(model: Module, *, back: bool = False) -> ConversionReport:
    """What :func:`convert` would replace and leave, and why; changes nothing.

    Args, Raises:
        As :func:`convert` has them.
    """
    return _plan(model, back)[1]


# --- which class stands for which


class _Pair(NamedTuple):
    theirs: type[Module]
    ours: type[Module]
    options: tuple[str, ...]  # attributes that the constructors of both take by the same name


# Dropout is no such option: a template needs none, and would warn of one that has no place.
_LAYER = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional")
_CELL = ("input_size", "hidden_size", "bias")
_PAIRS = (
    _Pair(nn.RNN, SimpleRNN, (*_LAYER, "nonlinearity")),
    _Pair(nn.LSTM, LSTM, (*_LAYER, "proj_size")),
    _Pair(nn.GRU, GRU, _LAYER),
    _Pair(nn.RNNCell, SimpleRNNCell, (*_CELL, "nonlinearity")),
    _Pair(nn.LSTMCell, LSTMCell, _CELL),
    _Pair(nn.GRUCell, GRUCell, _CELL),
)
_BY_THEIRS = {pair.theirs: pair for pair in _PAIRS}
_BY_OURS = {pair.ours: pair for pair in _PAIRS}
_NAMES = frozenset(pair.theirs.__name__ for pair in _PAIRS)

# What torch.nn's forward runs: a method replaced on the object changes what it computes.
_STEPS_OF_FORWARD = (
    "forward",
    "check_forward_args",
    "check_input",
    "check_hidden_size",
    "get_expected_hidden_size",
    "get_expected_cell_size",
    "permute_hidden",
)


def _template(cls: type[Module], options: Iterable[tuple[str, Any]]) -> Module:
    return cls(**dict(options), device="meta", dtype=torch.float32)


@cache
def _torch_fields(pair: _Pair) -> frozenset[str]:
    """The attributes that torch.nn's class keeps on its objects; its options do not change them."""
    return frozenset(vars(_template(pair.theirs, (("input_size", 1), ("hidden_size", 2)))))


class _Templates:
    """Layers of ours on the meta device, one for all layers of the same class and options."""

    def __init__(self) -> None:
        self._made: dict[Any, Module] = {}

    def of(self, pair: _Pair, module: Module) -> Module:
        options = []
        for name in pair.options:
            value = getattr(module, name, None)
            if name == "nonlinearity" and isinstance(module, RNNBase):
                value = module.mode.removeprefix("RNN_").lower()  # what torch.nn's forward goes by
            options.append((name, value))
        key = (pair.ours, *options)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = _template(pair.ours, options)
        return made


# --- the plan


class _Swap(NamedTuple):
    """A module, the class it is to have, and the attributes that it gains or loses with that."""

    module: Module
    base: type[Module]
    added: dict[str, Any]
    removed: Iterable[str]


class _Left(NamedTuple):
    reason: str


def _plan(model: Module, back: bool) -> tuple[list[_Swap], ConversionReport]:
    """Decides about every layer before anything is changed."""
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    judge, templates = (_judge_back if back else _judge), _Templates()
    swaps, replaced, left = [], [], []
    for module, names in _places(model):
        verdict = judge(module, templates)
        if verdict is None:
            continue
        before = _called(_base(module))
        if isinstance(verdict, _Left):
            left.append(LeftLayer(tuple(names), before, verdict.reason))
        else:
            swaps.append(verdict)
            replaced.append(ReplacedLayer(tuple(names), before, _called(verdict.base)))
    return swaps, ConversionReport(tuple(replaced), tuple(left))


def _places(model: Module) -> Iterable[tuple[Module, list[str]]]:
    """Each module once, in the order of ``model.modules()``, with every name its parents give it.

    The names of a parent that has several are not multiplied out: its children go by its first.
    """
    places: dict[int, tuple[Module, list[str]]] = {}
    todo = [("", model)]
    while todo:  # no recursion: a chain of modules may be longer than Python's stack
        name, module = todo.pop()
        known = places.get(id(module))
        if known is not None:
            known[1].append(name)
            continue
        places[id(module)] = (module, [name])
        if not _is_quantised(module):  # whose parts are no layers of the user's
            prefix = f"{name}." if name else ""
            for key, child in reversed(list(module._modules.items())):
                if child is not None:
                    todo.append((prefix + key, child))
    return places.values()


def _judge(module: Module, templates: _Templates) -> _Swap | _Left | None:
    """What to do with a module on the way to ours; None where it is no layer to speak of."""
    if isinstance(module, torch.jit.ScriptModule):
        recurrent = getattr(module, "original_name", None) in _NAMES
        return _Left("it is a TorchScript module") if recurrent else None
    if _is_quantised(module):
        return _Left("it is a layer of torch.ao, for quantisation")
    if not isinstance(module, (RNNBase, RNNCellBase)):
        return None
    if isinstance(module, (RecurrentLayer, RecurrentCell)):
        return None
    pair = _BY_THEIRS.get(_base(module))
    if pair is None:
        if isinstance(module, LazyModuleMixin):
            return _Left("it is a lazy module")
        return _Left(_why_no_pair(module, [pair.theirs for pair in _PAIRS]))
    reason = _replaced_method(module)
    if reason is not None:
        return _Left(reason)
    try:
        template = templates.of(pair, module)
    except (NotImplementedError, TypeError, ValueError) as error:
        return _Left(str(error))
    fields, theirs = vars(template), _torch_fields(pair)
    added = {name: value for name, value in fields.items() if name not in theirs}
    for name in added:
        if name in vars(module):
            return _Left(f"it has an attribute {name}, a name that {_called(pair.ours)} uses")
    reason = _unfit_weight(module, template)
    if reason is not None:
        return _Left(reason)
    return _Swap(module, pair.ours, added, theirs - fields.keys())


def _judge_back(module: Module, templates: _Templates) -> _Swap | _Left | None:
    """What to do with a module on the way to torch.nn's; None where it is no layer of ours."""
    if not isinstance(module, (RecurrentLayer, RecurrentCell)):
        return None
    pair = _BY_OURS.get(_base(module))
    if pair is None:
        return _Left(_why_no_pair(module, [pair.ours for pair in _PAIRS]))
    reason = _replaced_method(module)
    if reason is not None:
        return _Left(reason)
    try:
        template = templates.of(pair, module)
    except (NotImplementedError, TypeError, ValueError) as error:
        return _Left(str(error))
    removed = vars(template).keys() - _torch_fields(pair)
    # What torch.nn cannot do is an option of ours, and off in the template. What follows from the
    # options comes after them.
    for name in sorted(removed & vars(module).keys(), key=lambda name: (name[0] == "_", name)):
        value = vars(module)[name]
        if not _same(value, vars(template)[name]):
            return _Left(f"{_called(pair.theirs)} has nothing like its {name}={value!r}")
    return _Swap(module, pair.theirs, {}, removed)


def _why_no_pair(module: Module, known: list[type[Module]]) -> str:
    base = _base(module)
    for cls in known:
        if issubclass(base, cls):
            own = base.forward is not cls.forward
            return f"it is a subclass of {_called(cls)}{' with its own forward' if own else ''}"
    return f"it is none of {', '.join(map(_called, known))}"


def _replaced_method(module: Module) -> str | None:
    for name in _STEPS_OF_FORWARD:
        if name in vars(module):
            return f"its {name} was replaced on the object"
    return None


def _unfit_weight(module: Module, template: Module) -> str | None:
    """Why our engines cannot read one of the weights; None where they can read them all."""
    for name, expected in template._parameters.items():
        if expected is None:
            continue
        found = list(_stored(module, name))
        if not found:
            if isinstance(module, RNNCellBase) and name in module._parameters:
                continue  # a cell runs with one bias, and with none
            return f"it has no {name}"
        for value in found:
            if is_lazy(value):
                return f"its {name} is not initialised yet"
            if is_traceable_wrapper_subclass(value):
                return f"its {name} is a {type(value).__name__}"
            if value.layout != torch.strided:
                return f"its {name} has the layout {value.layout}"
            if value.dtype not in SUPPORTED_DTYPES:
                return f"its {name} is {value.dtype}, which rnncells does not serve"
            if value.device.type not in SUPPORTED_DEVICES:
                return f"its {name} is on {value.device}, where this build of rnncells cannot run"
        # A parametrised weight is not computed for its shape: that may have side effects.
        if not _is_parametrised(module, name) and found[0].shape != expected.shape:
            shapes = f"{list(found[0].shape)} where {list(expected.shape)} is expected"
            return f"its {name} is of shape {shapes}"
    return None


def _stored(module: Module, name: str) -> Iterator[Tensor]:
    """The tensors that a weight is made from: itself, or what a parametrisation keeps in its place.

    It need be no parameter: pruning and the older weight norm leave a plain attribute, and a frozen
    weight may be a buffer.
    """
    if _is_parametrised(module, name):
        originals: Module = module.parametrizations[name]  # type: ignore[index, assignment]
        yield from originals.parameters(recurse=False)
        yield from originals.buffers(recurse=False)
        return
    for value in (module._parameters.get(name), module._buffers.get(name), vars(module).get(name)):
        if isinstance(value, Tensor):
            yield value


def _is_parametrised(module: Module, name: str) -> bool:
    parametrisations = module._modules.get("parametrizations")
    return isinstance(parametrisations, nn.ModuleDict) and name in parametrisations


def _is_quantised(module: Module) -> bool:
    # By name: torch.ao.quantization is deprecated, and these classes may go with it.
    return any(
        cls.__name__ in _NAMES and cls.__module__.startswith("torch.ao.nn.")
        for cls in type(module).__mro__
    )


# --- the deed


def _base(module: Module) -> type[Module]:
    """The module's class; of a parametrised module, the class it had before."""
    cls = type(module)
    return cls.__bases__[0] if _is_injected(cls) else cls


def _is_injected(cls: type[Module]) -> bool:
    """Whether the class is one that parametrisation made on the fly."""
    return cls.__module__ == parametrize.__name__ and cls.__name__.startswith("Parametrized")


def _apply(swap: _Swap, classes: dict[type[Module], type[Module]]) -> None:
    """Changes a module's attributes and its class. ``classes`` remembers what became of a class
    that parametrisation made, since copies of a module share it."""
    module, fields = swap.module, vars(swap.module)
    for name in swap.removed:
        fields.pop(name, None)
    for name, value in swap.added.items():
        fields[name] = _own(value)
    cls = type(module)
    becomes = swap.base
    if _is_injected(cls):
        if cls not in classes:
            classes[cls] = _injected_into(swap.base, cls)
        becomes = classes[cls]
    object.__setattr__(module, "__class__", becomes)
    if isinstance(module, RNNBase) and not isinstance(module, RecurrentLayer):
        _list_weights(module)


def _injected_into(base: type[Module], cls: type[Module]) -> type[Module]:
    """A class as parametrisation made it, over another base: its properties read the weights."""
    own = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{base.__name__}", (base,), own)


def _list_weights(layer: RNNBase) -> None:
    """Fills the list of its weights that torch.nn's layer keeps beside them.

    Until the next forward a parametrised weight is stood for by what it is made from, as it is just
    after its parametrisation: to compute it may have side effects.
    """
    names = layer._flat_weights_names
    parametrised = [_is_parametrised(layer, name) for name in names]
    weights: list[Any] = [
        next(_stored(layer, name), None) if made else getattr(layer, name, None)
        for name, made in zip(names, parametrised, strict=True)
    ]
    layer._flat_weights = weights
    layer._flat_weight_refs = [None if w is None else weakref.ref(w) for w in weights]
    if not any(parametrised):
        layer.flatten_parameters()  # as cuDNN wants them


def _own(value: Any) -> Any:
    """The value with lists and dictionaries copied, so that no two modules share one."""
    if isinstance(value, list):
        return [_own(item) for item in value]
    if isinstance(value, dict):
        return {key: _own(item) for key, item in value.items()}
    return value


def _same(a: object, b: object) -> bool:
    if a is b:
        return True
    return type(a) is type(b) and not isinstance(a, Tensor) and bool(a == b)


def _called(cls: type) -> str:
    """A class's name as its users write it."""
    if cls.__module__.startswith("torch.nn.modules."):
        return f"torch.nn.{cls.__name__}"
    if cls in _BY_OURS:
        return f"rnncells.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(name or "(the model itself)" for name in names)
