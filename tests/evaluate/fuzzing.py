"""One call of an operator under fire: random dependencies of its operands, what its rule makes of them, and what truly changes.

A draw makes operands of which some elements are known and the others reach random positions and rows; the rule says what the result
reaches. Then elements beyond a random reach are replaced, also by NaN, infinities, zeros of both signs and huge numbers, and the
operator runs as scoring runs it, under the guard that the rule asked for. Whatever changes in any bit must have been predicted to
reach that far, and what was said to be known must be what came out.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.causality import RULES as ROOMS
from autoresearch_mcp.evaluate.dependence import UNKNOWN, VALUE, Value, certain, plain, unknown
from autoresearch_mcp.evaluate.graph import Step
from autoresearch_mcp.evaluate.transfer import Call, apply, by_rule

assert ROOMS, "they fill the table of rules"
LENGTH = 5
SPECIAL = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 1e30, 1e-40, -1e-45, 1.0, -1.0, 70000.0, -1e9]
KNOWN = [0.0, 0.0, 0.0, -0.0, 1.0, 1.0, -1.0, -torch.inf, -torch.inf, torch.inf, 2.0, 49.0, 255.0, 256.0, -1e9, 0.1]
Argument = Any


@dataclass
class Operand:
    """A tensor argument: what the proof knows of it, and one value that is so."""

    value: Value
    real: torch.Tensor
    spread: Callable[[tuple[int, ...]], torch.Tensor]
    """Other values that its unknown elements may have."""


@dataclass
class Drawn:
    """A call: the operator's name with its overload, and arguments that hold operands."""

    operator: str
    args: list[Argument]
    kwargs: dict[str, Argument]
    autocast: torch.dtype | None = None


class Draw:
    """Random operands and sizes, the same for the same seed."""

    def __init__(self, seed: int):
        self.dice = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.wild = self.dice.random() < 0.4
        self.structure = self.dice.choice([0.0, 0.3, 0.3, 0.6])

    def one(self, *choices: Any) -> Any:
        return self.dice.choice(choices)

    def size(self, low: int = 1, high: int = 4) -> int:
        return self.dice.randint(low, high)

    def shape(self, low: int = 1, high: int = 3, most: int = 4) -> tuple[int, ...]:
        return tuple(self.size(1, most) for _ in range(self.size(low, high)))

    def dim(self, shape: tuple[int, ...]) -> int:
        return self.dice.randrange(-len(shape), len(shape))

    def thinned(self, shape: tuple[int, ...], share: float = 0.35) -> tuple[int, ...]:
        """The same shape, or one that broadcasts to it."""
        if self.dice.random() < 0.5:
            return shape
        smaller = tuple(1 if self.dice.random() < share else size for size in shape)
        return smaller[self.dice.randint(0, len(shape)) :] if self.dice.random() < 0.3 else smaller

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, generator=self.torch)

    def plane(self, shape: tuple[int, ...], make: Callable[[tuple[int, ...]], torch.Tensor]) -> torch.Tensor:
        """A plane that varies along some dimensions only, and is expanded along the others."""
        return make(tuple(1 if self.dice.random() < 0.25 else size for size in shape)).expand(shape)

    def operand(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        spread: Callable[[tuple[int, ...]], torch.Tensor],
        pool: list[Any],
        structure: float | None = None,
    ) -> Operand:
        share = self.structure if structure is None else structure
        if self.dice.random() < 0.1 and structure is None:
            share = self.one(0.0, 1.0)
        known = self.plane(shape, lambda size: self.uniform(size) < share)
        if self.dice.random() < 0.15 and len(shape) > 1 and share:
            known = torch.ones(shape, dtype=torch.bool).triu(1)
        picked = torch.tensor(pool, dtype=torch.float64 if dtype.is_floating_point else None)
        choice = self.plane(shape, lambda size: torch.randint(len(pool), size, generator=self.torch))
        if self.dice.random() < 0.5:
            choice = choice.flatten()[:1].expand(choice.numel()).reshape(shape) if choice.numel() else choice
        constants = picked[choice].to(dtype)
        real = torch.where(known, constants, spread(shape).to(dtype))
        if bool(known.all()):
            nothing = torch.zeros((1,) * len(shape), dtype=torch.int32).expand(shape)
            false = torch.zeros((1,) * len(shape), dtype=torch.bool).expand(shape)
            return Operand(Value((nothing, nothing, nothing, false, false, real)), real, spread)
        reach = [
            self.plane(shape, lambda size: torch.randint(0, LENGTH + 1, size, generator=self.torch, dtype=torch.int32))
            for _ in range(3)
        ]
        reach = [torch.where(known, torch.zeros((), dtype=torch.int32), plane) for plane in reach]
        value = Value((*reach, ~(known & certain(constants)), torch.zeros_like(known), constants)).blurred()
        return Operand(value if not bool(value.unknown.all()) else unknown(shape, dtype, reach), real, spread)

    def floats(self, *shape: int, structure: float | None = None, kind: torch.dtype | None = None, low: float = -2.0) -> Operand:
        dtype = kind or self.dice.choices([torch.float32, torch.float64, torch.bfloat16], [8, 1, 1])[0]

        def spread(size: tuple[int, ...]) -> torch.Tensor:
            drawn = low + (2 - low) * self.uniform(size).double()
            if self.wild:
                wild = torch.tensor(SPECIAL, dtype=torch.float64)[torch.randint(len(SPECIAL), size, generator=self.torch)]
                drawn = torch.where(self.uniform(size) < 0.15, wild, drawn)
            return drawn.to(dtype)

        return self.operand(shape, dtype, spread, KNOWN, structure)

    def whole(
        self, *shape: int, low: int | None = None, high: int = 4, structure: float | None = None, kind: torch.dtype = torch.int64
    ) -> Operand:
        pool = [*range(-3, 4), 2**24 + 1, 300] if low is None else list(range(low, high))
        low = -3 if low is None else low

        def spread(size: tuple[int, ...]) -> torch.Tensor:
            return torch.randint(low, high, size, generator=self.torch, dtype=kind)

        return self.operand(shape, kind, spread, pool, structure)

    def truth(self, *shape: int, structure: float | None = None) -> Operand:
        return self.operand(shape, torch.bool, lambda size: self.uniform(size) < 0.5, [False, True], structure)

    def any(self, *shape: int, structure: float | None = None) -> Operand:
        return self.one(self.floats, self.floats, self.whole, self.truth)(*shape, structure=structure)


def mapped(argument: Argument, change: Callable[[Operand], Any]) -> Any:
    if isinstance(argument, Operand):
        return change(argument)
    if isinstance(argument, list):
        return [mapped(item, change) for item in argument]
    if isinstance(argument, dict):
        return {name: mapped(item, change) for name, item in argument.items()}
    return argument


def check(drawn: Drawn, draw: Draw, rounds: int = 6) -> str:
    """ "ran", "refused" by a guard, or "invalid" for PyTorch. AssertionError where the rule is wrong."""
    name, overload = drawn.operator.split(".")
    operator = getattr(getattr(torch.ops.aten, name), overload)
    before = _run(operator, drawn, lambda operand: operand.real, None)
    if before is None:
        return "invalid"
    call = Call(
        Step("x", f"aten.{drawn.operator}", operator, [], {}, drawn.autocast),
        mapped(drawn.args, lambda operand: operand.value),
        mapped(drawn.kwargs, lambda operand: operand.value),
    )
    try:
        call.shapes  # noqa: B018
    except Exception:
        return "invalid"
    constant = bool(call.values) and all(value.concrete for value in call.values)
    if not constant and call.values:
        call.given = mapped_values(call.given)
        call.values = _values_of(call.given)
    predicted = apply(call) if constant or not call.values else by_rule(call)
    listed = predicted if isinstance(predicted, list) else [predicted]
    try:
        before = _run(operator, drawn, lambda operand: operand.real, call.guard)
    except RefusedError:
        return "refused"
    assert before is not None
    assert len(before) == len(listed)
    for value, result in zip(listed, before, strict=True):
        _fits(value, result)
    outcome = "ran"
    for _ in range(rounds):
        axis, limit = draw.dice.randrange(3), draw.dice.randint(-1, LENGTH - 1)
        share = draw.one(0.2, 1.0)

        def changed(operand: Operand, axis: int = axis, limit: int = limit, share: float = share) -> torch.Tensor:
            other = operand.spread(tuple(operand.real.shape)).to(operand.real.dtype)
            may = (operand.value.reach[axis] > limit) & operand.value.unknown if not operand.value.concrete else torch.tensor(False)
            return torch.where(may & (draw.uniform(tuple(other.shape)) < share), other, operand.real)

        try:
            after = _run(operator, drawn, changed, call.guard)
        except RefusedError:
            outcome = "refused"
            continue
        if after is None:
            continue
        for value, one, two in zip(listed, before, after, strict=True):
            _fits(value, two)
            if not one.numel():
                continue
            same = _same(one, two) | (value.reach[axis] > limit)
            assert bool(same.all()), f"{drawn.operator}: a bit moved that reaches plane {axis} no further than {limit}"
    return outcome


def mapped_values(given: dict[str, Any]) -> dict[str, Any]:
    """Operands as the walk shows them to rules."""

    def blurred(item: Any) -> Any:
        return item.blurred() if isinstance(item, Value) else [blurred(one) for one in item] if isinstance(item, list) else item

    return {name: blurred(item) for name, item in given.items()}


def _values_of(item: Any) -> list[Value]:
    items = (
        item.values() if isinstance(item, dict) else item if isinstance(item, list) else [item] if isinstance(item, Value) else []
    )
    return [item] if isinstance(item, Value) else [value for one in items for value in _values_of(one)]


def _run(operator: Any, drawn: Drawn, pick: Callable[[Operand], torch.Tensor], guard: Any) -> list[torch.Tensor] | None:
    args, kwargs = mapped(drawn.args, pick), mapped(drawn.kwargs, pick)
    with torch.no_grad(), torch.autocast("cpu", dtype=drawn.autocast, enabled=drawn.autocast is not None):
        try:
            result = guard(operator, args, kwargs) if guard else operator(*args, **kwargs)
        except RefusedError:
            raise
        except (RuntimeError, IndexError, ValueError, NotImplementedError) as error:
            if guard:
                raise AssertionError(f"{drawn.operator}: the guard fails: {error}") from error
            return None
    return list(result) if isinstance(result, list | tuple) else [result]


def _fits(value: Value, result: torch.Tensor) -> None:
    """Shapes agree, planes are whole, and what is known came out (zeros of either sign)."""
    if not result.numel():
        return
    assert value.shape == tuple(result.shape), (value.shape, tuple(result.shape))
    assert all(tuple(plane.shape) == value.shape for plane in value.planes)
    assert value.planes[UNKNOWN].dtype is torch.bool
    assert plain(value.planes[VALUE].dtype) is plain(result.dtype), (value.dtype, result.dtype)
    expected = value.value.to(result.dtype)
    right = (expected == result) | value.unknown | ((expected != expected) & (result != result))
    assert bool(right.all()), "something else than what is known came out"


def _same(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Where two results are the same bit by bit; all NaN are alike."""
    if one.is_complex():
        return _same(one.real, two.real) & _same(one.imag, two.imag)
    if not one.is_floating_point():
        return one == two
    return ((one == two) & (one.signbit() == two.signbit())) | (one.isnan() & two.isnan())
