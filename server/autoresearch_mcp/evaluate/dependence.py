"""What one value of a graph can depend on: for every element the last position and the rows of the tokens behind it, for all
weights.

A value is six planes of its own shape. Three say how far an element *reaches*, as numbers whose maximum is the join of two:

- `last`: 1 + the last token position it can depend on,
- `top`, `low`: 1 + the highest row, and B - the lowest (rows b to c are kept as that interval; one row alone has low = B + 1 -
  top);

0 in all three is "no token at all". The other three say what it *is* where that is certain:

- `unknown`: False where the element has the value in `value`, bit by bit, whatever weights and tokens are; it then reaches
  nothing;
- `sunk`: a hint, not a claim, that a softmax should see next to nothing of it (a mask of -1e9 was added); a guard verifies it;
- `value`: the values where known; anything elsewhere.

All encodings have 0 where an operator that fills with zeros (tril, padding) makes an element known: the operator itself, run on
each plane, is its own transfer rule.

Price. A plane is a torch tensor expanded to the value's shape with stride 0 along dimensions in which it does not vary, and every
rule works on the `tight` tensor underneath. Activations (16, 2048, 512) are 2,048 positions and 16 rows, scores (16, 4, 2048,
2048) one matrix of 2048 x 2048. `compact` finds such dimensions by comparing *all* elements: two features count as equal only if
they are.
"""

# torch's results are typed in part, and arguments of a graph have any type before a rule looks at them.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod

import torch

Planes = tuple[torch.Tensor, ...]
REACH = torch.int32
LAST, TOP, LOW, UNKNOWN, SUNK, VALUE = range(6)
SMALL = 2**16  # elements that cost next to nothing
SINKS = -1e4  # what is added to a score to mask it is at most this; a hint needs no certainty
EXACT = 256  # integers up to here are the same number in every floating-point type, so that no precision changes them
FLOATS = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float64: torch.float32,
    torch.complex128: torch.complex64,
}


class NotProved(Exception):
    """Causality could not be proved. The text is for the author of train.py: where, and what to write instead."""


def plain(dtype: torch.dtype) -> torch.dtype:
    """The type that stands for all floating-point ones: autocast and devices disagree about precision, the proof must not care."""
    return FLOATS.get(dtype, dtype)


@dataclass(eq=False)
class Value:
    """Six planes of one shape, see the module; `value` has the real type only where everything is known."""

    planes: Planes

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.planes[VALUE].shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.planes[VALUE].dtype

    @property
    def reach(self) -> Planes:
        return self.planes[:UNKNOWN]

    @property
    def unknown(self) -> torch.Tensor:
        return self.planes[UNKNOWN]

    @property
    def sunk(self) -> torch.Tensor:
        return self.planes[SUNK]

    @property
    def value(self) -> torch.Tensor:
        return self.planes[VALUE]

    @cached_property
    def concrete(self) -> bool:
        """Whether every element is known."""
        return not bool(tight(self.unknown).any())

    @cached_property
    def anything_known(self) -> bool:
        return not bool(tight(self.unknown).all())

    def where(self, value: float) -> torch.Tensor:
        """Where the element is certainly `value` (0 of either sign); in its own shape, expanded. Complex numbers never are: no
        guard writes both of their parts."""
        if not self.anything_known or self.dtype.is_complex:
            return constant(False, self.shape)
        return inverse(joined(self.shape, [self.unknown, (tight(self.value) != value).expand(self.shape)], torch.logical_or))

    def blurred(self) -> "Value":
        """Itself for use among abstract values: floating-point values count as known only if they are exact in any precision."""
        if not self.value.is_floating_point() and not self.value.is_complex():
            return self
        if not self.concrete and self.dtype is plain(self.dtype):
            return self
        value, unknown = tight(self.value), tight(self.unknown)
        unknown = unknown | ~certain(value)
        sunk = compact((value.real <= SINKS).expand(self.shape))
        value = value.to(plain(self.dtype))
        return Value((*self.reach, compact(unknown.expand(self.shape)), sunk, value.expand(self.shape)))

    def promoted(self, dtype: torch.dtype) -> "Value":
        """The value in another type. What is not exact there, or out of its range, is no longer known."""
        if self.dtype is dtype:
            return self
        value = tight(self.value)
        number = value.to(dtype)
        lost = ~certain(number) if dtype.is_floating_point or dtype.is_complex else torch.zeros((), dtype=torch.bool)
        if value.is_floating_point() and not (dtype.is_floating_point or dtype.is_complex or dtype is torch.bool):
            lost = number.double() != value.trunc()
        free = compact((tight(self.unknown) | lost).expand(self.shape))
        return Value((*self.reach, free, self.sunk, number.expand(self.shape)))


def certain(value: torch.Tensor) -> torch.Tensor:
    """Where a value is the same in every precision: zeros, infinities, small whole numbers; every integer of an integer type."""
    if value.is_complex() or not value.is_floating_point():
        return torch.full_like(value, not value.is_complex(), dtype=torch.bool)
    return value.isinf() | ((value.abs() <= EXACT) & (value == value.round()))


def constant(value: float, shape: Sequence[int], dtype: torch.dtype = torch.bool) -> torch.Tensor:
    """A plane that is the same everywhere."""
    return torch.full((1,) * len(shape), value, dtype=dtype).expand(tuple(shape))


def known(value: torch.Tensor) -> Value:
    """A value computed exactly, from constants alone."""
    nothing = constant(0, value.shape, REACH)
    return Value((nothing, nothing, nothing, constant(False, value.shape), constant(False, value.shape), value))


def unknown(shape: Sequence[int], dtype: torch.dtype, reach: Iterable[torch.Tensor] | None = None) -> Value:
    """A value of which only the reach is known; without one it depends on weights alone."""
    planes = tuple(reach) if reach is not None else (constant(0, shape, REACH),) * 3
    return Value((*planes, constant(True, shape), constant(False, shape), constant(0, shape, plain(dtype))))


def partly(reach: Iterable[torch.Tensor], is_known: torch.Tensor, value: torch.Tensor, sunk: torch.Tensor | None = None) -> Value:
    """A value of which some elements are known, which then reach nothing. `is_known` and `value` broadcast to the reach's shape."""
    planes = tuple(reach)
    shape, free = planes[0].shape, compact(inverse(is_known).expand(planes[0].shape))
    planes = tuple(compact(without(i, plane, free)) for i, plane in enumerate(planes)) if not bool(tight(free).all()) else planes
    down = constant(False, shape) if sunk is None else sunk.expand(shape)
    return Value((*planes, free, down, value.to(plain(value.dtype)).expand(shape)))


def worthwhile(index: int, *planes: torch.Tensor) -> bool:
    """Whether to write a plane of the reach out as far as these vary: positions always, rows (seldom masked) if it is cheap."""
    sizes = [tight(plane).shape for plane in planes]
    return index == LAST or prod(torch.broadcast_shapes(*sizes)) <= max(SMALL, *map(prod, sizes))


def without(index: int, plane: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """A plane of the reach, nothing where not `kept`; as it is where that would be too dear, which is sound."""
    return joined(plane.shape, [plane, kept], torch.mul) if worthwhile(index, plane, kept) else plane


def tokens(shape: tuple[int, int]) -> Value:
    """The input: the element at (b, t) is token t of row b."""
    rows, length = shape
    last = torch.arange(1, length + 1, dtype=REACH)[None].expand(shape)
    top = torch.arange(1, rows + 1, dtype=REACH)[:, None].expand(shape)
    low = torch.arange(rows, 0, -1, dtype=REACH)[:, None].expand(shape)
    return unknown(shape, torch.int64, (last, top, low))


def tight(plane: torch.Tensor) -> torch.Tensor:
    """The tensor below an expanded one: size 1 wherever it cannot vary."""
    return plane[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in plane.stride())]


def inverse(plane: torch.Tensor) -> torch.Tensor:
    """Not, written out no further than the plane varies (as torch's own would)."""
    return tight(plane).logical_not().expand(plane.shape)


def compact(plane: torch.Tensor) -> torch.Tensor:
    """The same plane with stride 0 along every dimension in which all its elements are equal."""
    shape, plane = plane.shape, tight(plane)
    for dim, size in enumerate(plane.shape):
        if size > 1 and plane.numel():
            first = plane.narrow(dim, 0, 1)
            if torch.equal(first, plane.narrow(dim, size - 1, 1)) and bool((plane == first).all()):
                plane = first
    return plane.expand(shape)


def joined(shape: Sequence[int], planes: Iterable[torch.Tensor], join: object = torch.maximum) -> torch.Tensor:
    """Planes that broadcast to `shape`, put together element by element."""
    assert callable(join)
    return reduce(join, [tight(plane) for plane in planes]).expand(tuple(shape))  # type: ignore[arg-type]


def join_reach(shape: Sequence[int], reaches: Iterable[Planes]) -> Planes:
    """The reach of an element that depends on one element of each operand; they broadcast to `shape`."""
    listed = list(reaches)
    if not listed:
        return (constant(0, shape, REACH),) * 3
    return tuple(joined(shape, planes) for planes in zip(*listed, strict=True))


def over(plane: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """The plane's maximum along `dims`, which stay as size 1."""
    narrow = tight(plane)
    kept = [plane.shape[dim] if dim not in dims else 1 for dim in range(plane.dim())]
    varying = [dim for dim in dims if narrow.shape[dim] > 1]
    if 0 in (plane.shape[dim] for dim in dims):
        return torch.zeros((), dtype=plane.dtype).expand(kept)
    return (narrow.amax(varying, keepdim=True) if varying else narrow).expand(kept)


def everything(values: Iterable[Value]) -> Planes:
    """The reach, without dimensions, of what may depend on every element of every operand."""
    reaches = [value.reach for value in values if prod(value.shape)]
    return tuple(
        torch.stack([tight(reach[i]).max() for reach in reaches]).max() if reaches else torch.zeros((), dtype=REACH)
        for i in range(3)
    )


def reshaped(plane: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The plane in another shape; dimensions that do not vary are not written out, as long as they meet only each other."""
    shape = tuple(shape)
    if not prod(shape):
        return plane.reshape(shape)
    old, tight_shape, new = list(plane.shape), list[int](), list[int]()
    narrow, i, j = tight(plane), 0, 0
    while i < len(old) or j < len(shape):
        first_old, first_new = i, j
        a, b = (old[i] if i < len(old) else 1), (shape[j] if j < len(shape) else 1)
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                a, i = a * old[i], i + 1
            else:
                b, j = b * shape[j], j + 1
        group = range(first_old, min(i, len(old)))
        varies = any(narrow.shape[dim] > 1 for dim in group)
        tight_shape += [old[dim] if varies else 1 for dim in group]
        new += [size if varies else 1 for size in shape[first_new:j]]
    return narrow.expand(tight_shape).reshape(new).expand(shape)
