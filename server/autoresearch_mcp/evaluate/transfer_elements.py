"""Rules of operators that treat every element alike: arithmetic, comparisons, logic, choices by a condition.

Known elements are computed by the operator itself, where that is the same on every machine and in every precision. Beyond that a
known operand may decide alone: False AND x is False, 0 * x is 0, -inf + x is -inf. In floating-point numbers the last two hold
only if x is finite, so there the guard writes the known result over whatever came out.
"""

from contextlib import suppress
from functools import partial, reduce
from typing import Any

import torch

from autoresearch_mcp.evaluate.dependence import (
    SINKS,
    Value,
    certain,
    compact,
    constant,
    inverse,
    join_reach,
    joined,
    partly,
    tight,
    unknown,
    worthwhile,
)
from autoresearch_mcp.evaluate.guards import Write
from autoresearch_mcp.evaluate.transfer import Call, Result, results, rule

SAME_EVERYWHERE = frozenset(
    """
    abs add bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_max clamp_min clip div eq floor floor_divide fmax fmin
    ge gt isfinite isinf isnan le logical_and logical_not logical_or logical_xor lt max maximum min minimum mul multiply ne neg
    negative positive relu relu6 remainder round rsub sgn sign square sub subtract to true_divide trunc type_as where _to_copy
    __and__ __or__ __xor__
    """.split()  # noqa: SIM905
)
"""Correctly rounded everywhere, so that a result which `certain` accepts is the same in every precision."""
AND, OR = ("bitwise_and", "logical_and", "__and__"), ("bitwise_or", "logical_or", "__or__")
KEEPS_SUNK = ("add", "sub", "subtract", "div", "mul", "multiply", "true_divide", "_to_copy", "to", "type_as")


@rule(
    """
    abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or
    bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min clip complex copysign cos cosh div elu eq erf erfc exp exp2
    expm1 float_power floor floor_divide fmax fmin fmod frac ge gelu gt hardshrink hardsigmoid hardswish hardtanh heaviside hypot
    imag isclose isfinite isinf isnan le leaky_relu lerp lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 logical_and
    logical_not logical_or logical_xor lt maximum minimum mish mul multiply nan_to_num ne neg negative polar positive pow real
    reciprocal relu relu6 remainder round rsqrt rsub selu sgn sigmoid sign silu sin sinc sinh softplus softshrink special_erfinv
    special_expit sqrt square sub subtract tan tanh threshold true_divide trunc xlogy _to_copy __and__ __lshift__ __or__
    __rshift__ __xor__
    """,
    alike=True,
)
def elementwise(call: Call) -> Result:
    ((shape, dtype),) = call.shapes
    reach = join_reach(shape, [value.reach for value in call.values])
    sunk = joined(shape, [value.sunk for value in call.values], torch.logical_or) if call.name in KEEPS_SUNK else None
    is_known, value = _evaluated(call, dtype)
    decided = None if _complex(call, dtype) else _decided(call, shape)
    if decided is not None and bool(tight(decided[0]).any()):
        alone, decides = decided
        stopped = joined(shape, [alone, inverse(is_known)], torch.logical_and)
        value = torch.where(tight(stopped), torch.tensor(decides, dtype=dtype), tight(value.expand(shape)))
        is_known = joined(shape, [is_known, alone], torch.logical_or)
        if dtype.is_floating_point and bool(tight(stopped).any()):
            call.guard = Write(call.step.name, tight(compact(is_known)), tight(compact(value.expand(shape))))
    if not bool(is_known.any()):
        result = unknown(shape, dtype, reach)
        return result if sunk is None else Value((*result.planes[:4], compact(sunk), result.value))
    return partly(reach, is_known, value, sunk)


def _evaluated(call: Call, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the result follows from known operands, and its values there; both broadcast to the result."""
    none = torch.zeros((), dtype=torch.bool), torch.zeros((), dtype=dtype)
    if _complex(call, dtype) or not all(value.anything_known for value in call.values):
        return none
    operands = [(tight(value.unknown), tight(value.value)) for value in call.values]
    is_known = torch.ones((), dtype=torch.bool)
    for free, _ in operands:
        is_known = is_known & ~free
    if not bool(is_known.any()):
        return none
    value, agreed = _agreed(call, dtype)
    is_known = is_known & agreed & certain(value)
    for _, operand in operands:
        if operand.is_floating_point() and not dtype.is_floating_point and dtype is not torch.bool:
            is_known = is_known & (value.double() == operand.trunc())  # beyond its range every machine has another whole number
        if call.name not in SAME_EVERYWHERE:
            is_known = is_known & (operand.isinf() | (operand == 0)) & (value.isinf() | (value == 0) | (value == 1) | (value == -1))
    return is_known, value


def _agreed(call: Call, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator's values, and where they are the same in whatever precision and with zeros of either sign.

    Known operands are exact in every precision, but 0.9999 is 1 in bfloat16, 49 * (1 / 49) is 1 in float32 alone, and a zero is
    known but for its sign, which 1 / 0 shows.
    """
    floats = [torch.float32] if _exact_numbers(call) else [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    results: list[torch.Tensor] = []
    for kind in floats:
        for sign in (0.0, -0.0):
            with suppress(RuntimeError):  # a division by a zero that stands where nothing is known; a type it is not made for
                results.append(call.run(partial(_signed, kind=kind, sign=sign)))
            if not any(value.dtype.is_floating_point and bool((tight(value.value) == 0).any()) for value in call.values):
                break
    if not results:
        return torch.zeros((), dtype=dtype), torch.zeros((), dtype=torch.bool)
    exact = [result.double() if result.is_floating_point() else result for result in results]  # float32 would round it to agree
    return results[0].to(dtype), reduce(torch.logical_and, [exact[0] == other for other in exact])


def _signed(operand: Value, kind: torch.dtype, sign: float) -> torch.Tensor:
    value = tight(operand.value)
    return torch.where(value == 0, sign, value).to(kind) if value.is_floating_point() else value


def _exact_numbers(call: Call) -> bool:
    """Whether the numbers among the arguments are the same in every precision."""
    numbers = [number for number in call.given.values() if isinstance(number, float)]
    return all(bool(certain(torch.tensor(number, dtype=torch.float64))) for number in numbers)


def _complex(call: Call, dtype: torch.dtype) -> bool:
    return dtype.is_complex or any(value.dtype.is_complex for value in call.values)


def _decided(call: Call, shape: tuple[int, ...]) -> tuple[torch.Tensor, Any] | None:
    """Where one known operand decides the result whatever the others are, and which result."""
    values = call.values
    if call.name in AND:
        return _any(shape, [value.where(0) for value in values]), False
    if call.name in OR and all(value.dtype is torch.bool for value in values):
        return _any(shape, [value.where(1) for value in values]), True
    if call.name in ("mul", "multiply"):
        return _any(shape, [value.where(0) for value in values]), 0
    if call.name in ("div", "true_divide") and values[0] is call.get("self") and call.get("rounding_mode") is None:
        return values[0].where(0).expand(shape) if values[0].shape == shape else _any(shape, [values[0].where(0)]), 0
    if call.name == "add" and call["alpha"] == 1 and any(value.dtype.is_floating_point for value in values):
        return _any(shape, [value.where(-torch.inf) for value in values]), -torch.inf
    if call.name in ("sub", "subtract") and call["alpha"] == 1 and any(value.dtype.is_floating_point for value in values):
        sides = [(call["self"], -torch.inf), (call["other"], torch.inf)]
        return _any(shape, [side.where(endless) for side, endless in sides if isinstance(side, Value)]), -torch.inf
    return None


def _any(shape: tuple[int, ...], planes: list[torch.Tensor]) -> torch.Tensor:
    return joined(shape, planes, torch.logical_or)


@rule("where masked_fill", alike=True)
def choice(call: Call) -> Result:
    """A known condition passes on one side alone; an unknown one itself and both, also where they are equal."""
    ((shape, dtype),) = call.shapes
    if call.name == "where":
        condition, chosen, other = call["condition"], call["self"], call["other"]
    else:
        condition, chosen, other = call["mask"], call["value"], call["self"]
    condition, chosen, other = (_as_value(side, dtype) for side in (condition, chosen, other))
    free, yes = tight(condition.unknown), tight(condition.value).bool()
    both = join_reach(shape, [condition.reach, chosen.reach, other.reach])
    planes: list[torch.Tensor] = []
    for i, (joint, a, b) in enumerate(zip(both, chosen.reach, other.reach, strict=True)):
        if worthwhile(i, joint, condition.unknown, condition.value):
            joint = torch.where(free, tight(joint), torch.where(yes, tight(a), tight(b)))
        planes.append(compact(joint.expand(shape)))
    chosen, other = (side.promoted(dtype) for side in (chosen, other))
    decided = ~free & torch.where(yes, ~tight(chosen.unknown), ~tight(other.unknown))
    value = torch.where(yes, tight(chosen.value), tight(other.value))
    sunk = torch.where(yes, tight(chosen.sunk), tight(other.sunk)) & ~free
    return partly(planes, decided, compact(value.expand(shape)), compact(sunk.expand(shape)))


def _as_value(side: Any, dtype: torch.dtype) -> Value:
    if isinstance(side, Value):
        return side
    number = torch.tensor(side, dtype=torch.float64 if dtype.is_floating_point else dtype)
    nothing = constant(0, (), torch.int32)
    sinks = torch.tensor(dtype.is_floating_point and side <= SINKS)
    return Value((nothing, nothing, nothing, ~certain(number), sinks, number.to(dtype)))


@rule("to type_as")
def first_operand(call: Call) -> Result:
    """Only the type and the device of a second operand matter."""
    ((_, dtype),) = call.shapes
    return call.values[0].promoted(dtype)


@rule("ones_like zeros_like full_like new_full new_ones new_zeros fill")
def filled(call: Call) -> Result:
    """Takes its operand's shape and type, and at most one number."""
    ((shape, dtype),) = call.shapes
    given: Any = call.get("fill_value") if call.get("fill_value") is not None else call.get("value")
    if isinstance(given, Value):
        return Value(tuple(plane.expand(shape) for plane in given.promoted(dtype).planes))
    number = 0 if "zeros" in call.name else 1 if "ones" in call.name else given
    value = constant(number, shape, dtype)
    sunk = constant(dtype.is_floating_point and number <= SINKS, shape)
    nothing = join_reach(shape, [])
    return partly(nothing, certain(value), value, sunk)


@rule("prelu")
def by_channel(call: Call) -> Result:
    shape = call["self"].shape
    weights = [plane.amax() for plane in call["weight"].reach]
    return results(call, [join_reach(shape, [call["self"].reach, tuple(plane.expand((1,) * len(shape)) for plane in weights)])])
