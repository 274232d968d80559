"""One call of a graph, seen abstractly: its arguments by name, and the rules that say what its result can depend on.

Every operator has one rule in RULES, given by name without overload; what has none, or meets a case that its rule does not know,
gets `coarse`: every element of the result depends on every element of the operands. Coarse is always sound, so a rule earns its
place by proving more. A rule sees the real operands only where they are known; where it stops a dependency it sets a guard.
"""

# torch's results are typed in part, and arguments of a graph have any type before a rule looks at them.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import Any

import torch

from autoresearch_mcp.evaluate.dependence import (
    NotProved,
    Planes,
    Value,
    everything,
    known,
    plain,
    tight,
    unknown,
)
from autoresearch_mcp.evaluate.graph import Step
from autoresearch_mcp.evaluate.guards import Guard

Result = Value | list[Value]
MAX_CONSTANT = 2**28  # elements of a constant that is computed; what is larger counts as unknown
CPU, META = torch.device("cpu"), torch.device("meta")


class Call:
    """A step with its operands as values. Rules read arguments by their schema's name: call["dim"]."""

    def __init__(self, step: Step, args: Sequence[Any], kwargs: dict[str, Any]):
        self.step = step
        self.name = step.operator.split(".")[1]
        self.overload = step.operator.split(".")[2]
        self.guard: Guard | None = None
        self._call: torch._ops.OpOverload = getattr(getattr(torch.ops.aten, self.name), self.overload)
        self._schema = self._call._schema.arguments
        places = [argument.name for argument in self._schema if not argument.kwarg_only]
        self.given: dict[str, Any] = {**dict(zip(places, args, strict=False)), **kwargs}
        self.values = list(_values(self.given.values()))
        self._refuse_numbers()

    def __getitem__(self, name: str) -> Any:
        """An argument, or its default."""
        if name in self.given:
            return self.given[name]
        return next(argument.default_value for argument in self._schema if argument.name == name)

    def get(self, name: str) -> Any:
        """An argument that not every overload has."""
        return self[name] if any(argument.name == name for argument in self._schema) else None

    def run(self, pick: Callable[[Value], torch.Tensor], device: torch.device = CPU, **changed: Any) -> Any:
        """The operator itself, with a tensor for each operand and other arguments `changed`."""
        given = {name: _replaced(value, pick, device) for name, value in {**self.given, **changed}.items()}
        args: list[Any] = []
        for argument in self._schema:
            if argument.kwarg_only or argument.name not in given:
                break
            args.append(given.pop(argument.name))
        return self._call(*args, **given)

    @cached_property
    def shapes(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each result, found without data."""
        results = self.run(lambda value: torch.empty(value.shape, dtype=plain(value.dtype), device=META), META)
        return [
            (tuple(result.shape), plain(result.dtype)) for result in (results if isinstance(results, list | tuple) else [results])
        ]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0][0]

    @property
    def has_numbers(self) -> bool:
        """Whether a number stands where the schema says tensor, which PyTorch then makes of it."""
        given = [self.given.get(argument.name) for argument in self._schema if "Tensor" in str(argument.type)]
        return any(isinstance(item, int | float) for side in given for item in (side if isinstance(side, list) else [side]))

    @property
    def gives_list(self) -> bool:
        returns = self._call._schema.returns
        return len(returns) > 1 or "[]" in str(returns[0].type) or "List" in str(returns[0].type)

    def _refuse_numbers(self) -> None:
        """Values that are given where a number is expected would become one, whatever they depend on."""
        for argument in self._schema:
            if "Tensor" not in str(argument.type) and any(True for _ in _values([self.given.get(argument.name)])):
                raise NotProved(f"node {self.step.name[:80]} takes a tensor's value as its {argument.name}; keep it a tensor")


Rule = Callable[[Call], Result]
RULES: dict[str, Rule] = {}
ALIKE: set[str] = set()
"""Operators whose result at a place depends on the operands at that place alone: constants need no more than their tight form."""


def rule(names: str, alike: bool = False) -> Callable[[Rule], Rule]:
    """Marks a function as the rule of these operators."""

    def mark(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), function))
        if alike:
            ALIKE.update(names.split())
        return function

    return mark


def apply(call: Call) -> Result:
    """What the call's result depends on. Raises NotProved where its shape depends on values."""
    if all(value.concrete for value in call.values):
        result = _computed(call)
        if result is not None:
            return result
    call.given = {name: _replaced(value, None, None) for name, value in call.given.items()}
    call.values = list(_values(call.given.values()))
    try:
        return by_rule(call)
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
        call.guard = None  # no rule is known to fail (tests call by_rule itself); one that does must not end the walk
        return coarse(call)


def by_rule(call: Call) -> Result:
    """What the operator's rule says of abstract values. Numbers in place of tensors are left to rules made for them."""
    return (coarse if call.name not in ALIKE and call.has_numbers else RULES.get(call.name, coarse))(call)


def coarse(call: Call) -> Result:
    """Every element depends on every element of every operand."""
    reach = everything(call.values)
    return results(call, [tuple(plane.expand(shape) for plane in reach) for shape, _ in _shapes(call)])


def results(call: Call, reaches: Sequence[Planes]) -> Result:
    """Unknown values of these reaches, one for each result of the call."""
    made = [unknown(shape, dtype, reach) for (shape, dtype), reach in zip(_shapes(call), reaches, strict=True)]
    return made if call.gives_list else made[0]


def _shapes(call: Call) -> list[tuple[tuple[int, ...], torch.dtype]]:
    try:
        return call.shapes
    except Exception as error:
        raise NotProved(f"the shape of node {call.step.name[:80]}, {call.step.operator}, depends on values") from error


def _computed(call: Call) -> Result | None:
    """The result of constants, exactly as the graph computes it; None where it would be too large, which loses precision only."""
    if sum(value.value.numel() for value in call.values) > MAX_CONSTANT:
        return None
    if not call.values and any(prod(shape) > MAX_CONSTANT for shape, _ in _shapes(call)):
        return None
    thin = call.name in ALIKE and len(call.values) > 0
    with torch.autocast("cpu", dtype=call.step.autocast, enabled=call.step.autocast is not None):
        try:
            result = call.run(lambda value: tight(value.value) if thin else value.value)
        except (RuntimeError, NotImplementedError, ValueError, IndexError, TypeError) as error:
            raise NotProved(f"the constant at node {call.step.name[:80]}, {call.step.operator}, cannot be computed") from error
    if isinstance(result, list | tuple):
        return [known(item) for item in result]
    return known(result.expand(torch.broadcast_shapes(*[value.shape for value in call.values])) if thin else result)


def _values(arguments: Any) -> Any:
    for argument in arguments:
        if isinstance(argument, Value):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from _values(argument)


def _replaced(argument: Any, pick: Callable[[Value], torch.Tensor] | None, device: torch.device | None) -> Any:
    """An argument with a tensor for each value (or the value blurred), and `device` in place of the device of the run."""
    if isinstance(argument, Value):
        return pick(argument) if pick else argument.blurred()
    if isinstance(argument, list | tuple):
        return [_replaced(item, pick, device) for item in argument]
    if isinstance(argument, torch.device) and device is not None:
        return device
    return argument
