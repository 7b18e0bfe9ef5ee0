"""What is held against the specification: a module, a factory of modules, or a function.

Each makes a case into a :class:`Trial`: inputs, and two ways from them to the outputs, the layer's
and the specification's.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rnncells import reference
from rnncells.reference import CELLS, Cell
from rnncells.testing.case import Case, LeftOut, Lengths, Options, known_options
from rnncells.testing.module import (
    Call,
    Parameters,
    Structure,
    call_module,
    check_dropout,
    copy_of,
    kinds_of_lengths,
    layers_of,
    run_stack,
)
from rnncells.testing.problem import (
    HALF,
    LayerShape,
    above_zero,
    call,
    draw_cotangents,
    draw_lengths,
    make_problem,
    name_of,
)
from rnncells.testing.shapes import named_outputs

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass
class Trial:
    """A case made ready.

    ``inputs`` are drawn, in float64 with values that the case's dtype has, and ``cotangents`` are
    the gradients of the outputs. Both runs take inputs by name and give outputs by name.
    ``outside`` [T, B] is true behind the ends of padded sequences, None where there are none.
    ``parameters`` are the layer's own, and ``twins`` the same in the float64 specification.
    """

    inputs: dict[str, Tensor]
    cotangents: dict[str, Tensor]
    shapes: list[LayerShape]
    layer: Run
    specification: Run
    outside: Tensor | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    twins: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class ModuleSubject:
    """A module, or a factory of them: its parameters are where ``parameters`` finds them."""

    layer: nn.Module | Callable[..., nn.Module]
    cell: Cell
    parameters: Parameters
    call: Call | None
    padding: float

    @property
    def sized(self) -> bool:
        """Whether input and hidden size can be chosen."""
        return not isinstance(self.layer, nn.Module)

    @property
    def title(self) -> str:
        """What to call it."""
        if isinstance(self.layer, nn.Module):
            return " ".join(str(self.layer).split())
        return getattr(self.layer, "__qualname__", repr(self.layer))

    def kinds(self) -> tuple[list[Lengths], list[LeftOut]]:
        """How it may be given sequences of unequal lengths, and how not."""
        if self.call is not None:
            return ["full"], [LeftOut("padded", "call= may heed no lengths; lengths= asks for it")]
        if isinstance(self.layer, nn.Module):
            return kinds_of_lengths(self.layer)
        return kinds_of_lengths(self._build(2, 3, {}, 0))

    def options(self) -> tuple[list[Options], list[LeftOut]]:
        """The options that it knows, and those that it does not."""
        if isinstance(self.layer, nn.Module):
            return [{}], []  # its own
        cell = "lstm" if self.cell is CELLS["lstm"] else ""
        return known_options(self.layer, self.title, cell)

    def _build(self, I: int, H: int, options: Options, seed: int) -> nn.Module:
        """A module in training mode or not, as it came, which may be changed."""
        if isinstance(self.layer, nn.Module):
            return copy_of(self.layer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                module = self.layer(I, H, **options)
            except Exception as error:
                told = ", ".join([str(I), str(H), *(f"{k}={v}" for k, v in options.items())])
                error.add_note(f"{self.title}({told}) raised; options= says what a factory is told")
                raise
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"layer: expected a module from {self.title}({I}, {H}), got "
                f"{type(module).__name__}; a function in the form of rnncells.reference.layer "
                "needs a parameter named weights"
            )
        return module

    def trial(self, case: Case) -> Trial:
        """The case made ready."""
        module = self._build(case.I, case.H, case.options, case.seed)
        twin = self._build(case.I, case.H, case.options, case.seed)
        if self.sized:  # whatever a factory draws, and from where
            twin.load_state_dict(module.state_dict())
        module.to(case.device, case.dtype)
        twin.to(dtype=case.dtype).to("cpu", torch.float64)
        check_dropout(module)
        structure = Structure.of(layers_of(self.parameters(twin)), self.cell)
        shapes = structure.output_shapes(case.T, case.B)

        generator = torch.Generator().manual_seed(case.seed)

        def uniform(*shape: int, bound: float = 1.0) -> Tensor:
            values = torch.rand(shape, generator=generator, dtype=torch.float32)
            rounded = (2 * bound * values - bound).to(case.dtype if case.dtype in HALF else None)
            return rounded.double()

        T, B, states = case.T, case.B, self.cell.states
        inputs = {"x": uniform(T, B, structure.widths[0][0], bound=math.sqrt(3))}
        if case.states:
            inputs |= {f"{state}_0": uniform(*shapes[f"{state}_n"]) for state in states}
            for name in (f"{state}_0" for state in self.cell.positive):
                values = case.dtype if case.dtype in HALF else torch.float32
                inputs[name] = above_zero(inputs[name], values)
        cotangents = draw_cotangents(case.loss, shapes, uniform)

        lengths = outside = None
        if case.lengths != "full":
            drawn = draw_lengths(T, B, case.seed)
            lengths = torch.tensor(
                sorted(drawn, reverse=True) if case.lengths == "sorted" else drawn
            )
            outside = torch.arange(T).unsqueeze(1) >= lengths
            inputs["x"].masked_fill_(outside.unsqueeze(2), self.padding)

        def before(given: Mapping[str, Tensor]) -> list[Tensor]:
            return [given[f"{state}_0"] for state in states] if case.states else []

        def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            device = None if lengths is None else lengths.to(case.device)
            x, own = given["x"], before(given) or None
            if self.call is not None:
                return named_outputs(self.call(module, x, own, device), shapes)
            return call_module(module, x, own, device, case.lengths, shapes)

        def specification(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            layers = layers_of(self.parameters(twin))
            x, own = given["x"], before(given)
            stack = run_stack(x, own, layers, self.cell, structure.directions, lengths)
            return named_outputs(stack, shapes)

        return Trial(
            inputs,
            cotangents,
            structure.shapes(T, T * B if lengths is None else int(lengths.sum())),
            run,
            specification,
            outside,
            _own(module, inputs),
            _own(twin, inputs),
        )


def _own(module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A module's parameters that are not frozen, by names apart from those of the inputs."""
    return {
        f"{name} (parameter)" if name in inputs else name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


@dataclass
class FunctionSubject:
    """A function in the form of :func:`rnncells.reference.layer`: its weights are drawn."""

    layer: Callable[..., Any]
    named: str | Cell
    padding: float

    @property
    def sized(self) -> bool:
        """Whether input and hidden size can be chosen."""
        return True

    @property
    def title(self) -> str:
        """What to call it."""
        return getattr(self.layer, "__qualname__", repr(self.layer))

    def kinds(self) -> tuple[list[Lengths], list[LeftOut]]:
        """How it may be given sequences of unequal lengths, and how not."""
        parameters = inspect.signature(self.layer).parameters
        kinds: list[Lengths] = ["full"]
        left_out = []
        by_name: dict[str, Lengths] = {"lengths": "padded", "batch_sizes": "packed"}
        for name, kind in by_name.items():
            if name in parameters:
                kinds.append(kind)
            else:
                left_out.append(LeftOut(kind, f"{self.title} takes no {name}"))
        return kinds, left_out

    def options(self) -> tuple[list[Options], list[LeftOut]]:
        """The options that it knows, and those that it does not."""

        # A function takes what its weights say, whatever its signature.
        def takes_all(**options: Any) -> None: ...

        return known_options(takes_all, self.title, name_of(self.named), stacks=False)

    def trial(self, case: Case) -> Trial:
        """The case made ready."""
        options = dict(case.options)
        options["proj"] = options.pop("proj_size", 0)
        problem = make_problem(
            self.named,
            case.T,
            case.B,
            case.I,
            case.H,
            states=case.states,
            loss=case.loss,
            lengths=None if case.lengths == "full" else "draw",
            packed=case.lengths in ("packed", "sorted"),
            padding=self.padding,
            seed=case.seed,
            **options,
        )
        if case.dtype in HALF:
            problem = problem.rounded(case.dtype)

        def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return call(self.layer, problem, given)

        def specification(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return call(reference.layer, problem, given)

        return Trial(
            problem.inputs,
            problem.cotangents,
            [problem.shape],
            run,
            specification,
            problem.outside,
        )


Subject = ModuleSubject | FunctionSubject
