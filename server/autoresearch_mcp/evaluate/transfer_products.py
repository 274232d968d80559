"""Rules of products that sum over elements: matrix products, einsum, linear layers, attention. Here masks stop dependencies.

A sum of products depends on all elements that it contracts, except those whose partner is structurally zero. Without zeros that is
a maximum along the contracted dimensions; with them, a maximum over what the zeros leave, on planes as small as they vary (for
attention one matrix of positions by positions). Above MAX_WORK elements zeros are not looked at, which is sound and proves less.
"""

# torch's results are typed in part, and arguments of a graph have any type before a rule looks at them.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from functools import reduce
from math import prod

import torch

from autoresearch_mcp.evaluate.dependence import (
    REACH,
    SINKS,
    Planes,
    Value,
    compact,
    constant,
    inverse,
    join_reach,
    joined,
    over,
    partly,
    tight,
    without,
)
from autoresearch_mcp.evaluate.guards import Attention, Finite
from autoresearch_mcp.evaluate.transfer import Call, Result, coarse, results, rule

MAX_WORK = 2**26  # elements of one masked maximum: 16 rows of 2048 x 2048
Labels = Sequence[object]


def contracted(
    reaches: Sequence[Planes], zeros: Sequence[torch.Tensor], labels: Sequence[Labels], out: Labels
) -> tuple[Planes, bool]:
    """The reach of a sum of products whose dimensions are named by `labels`, and whether a zero stopped anything.

    A product is nothing where any of its factors is zero, so that its other factors do not count.
    """
    order, sums, shape = _named([planes[0] for planes in reaches], labels, out)
    aligned = [_aligned(zero, side, order) for zero, side in zip(zeros, labels, strict=True)]
    others = [_union([*aligned[:i], *aligned[i + 1 :]]) for i in range(len(aligned))]
    reach: list[torch.Tensor] = []
    stopped = False
    for planes in zip(*reaches, strict=True):
        terms: list[torch.Tensor] = []
        for plane, side, zero in zip(planes, labels, others, strict=True):
            term, cut = _term(_aligned(plane, side, order), zero, sums)
            terms.append(term.reshape(term.shape[: len(out)]))
            stopped = stopped or cut
        reach.append(reduce(torch.maximum, terms).expand(shape))
    return tuple(reach), stopped


def _named(planes: Sequence[torch.Tensor], labels: Sequence[Labels], out: Labels) -> tuple[list[object], list[int], list[int]]:
    """All labels, those of the result first; which of them are summed over; the shape of the result."""
    order = [*out, *dict.fromkeys(label for side in labels for label in side if label not in out)]
    sizes = {
        label: size
        for plane, side in zip(planes, labels, strict=True)
        for label, size in zip(side, plane.shape, strict=True)
        if size != 1
    }
    return order, list(range(len(out), len(order))), [sizes.get(label, 1) for label in out]


def _union(zeros: Sequence[torch.Tensor]) -> torch.Tensor:
    """Where any factor is zero; nowhere if that would be too dear to know."""
    shown = [zero for zero in zeros if bool(zero.any())]
    if not shown or prod(torch.broadcast_shapes(*(zero.shape for zero in shown))) > MAX_WORK:
        return torch.zeros((), dtype=torch.bool)
    return reduce(torch.logical_or, shown)


def _nothing(zeros: Sequence[torch.Tensor], labels: Sequence[Labels], out: Labels) -> torch.Tensor:
    """Where each product has a factor zero, so that their sum is; broadcasts to the result."""
    order, sums, _ = _named(zeros, labels, out)
    union = _union([_aligned(zero, side, order) for zero, side in zip(zeros, labels, strict=True)])
    if not union.dim() or not sums:
        return union.reshape(union.shape[: len(out)])
    return union.all(sums[0] if len(sums) == 1 else tuple(sums))


def _aligned(plane: torch.Tensor, labels: Labels, order: Sequence[object]) -> torch.Tensor:
    """The tight plane with one dimension for every label of `order`."""
    narrow = tight(plane).permute([labels.index(label) for label in order if label in labels])
    return narrow[tuple(slice(None) if label in labels else None for label in order)]


def _term(plane: torch.Tensor, zero: torch.Tensor, sums: list[int]) -> tuple[torch.Tensor, bool]:
    varying = [dim for dim in sums if plane.shape[dim] > 1]
    whole = plane.amax(varying, keepdim=True) if varying else plane
    if not varying or not zero.dim() or prod(torch.broadcast_shapes(plane.shape, zero.shape)) > MAX_WORK:
        return whole, False
    left_over = torch.where(zero, torch.zeros((), dtype=plane.dtype), plane).amax(sums, keepdim=True)
    return left_over, bool((left_over < whole).any())


def _product(call: Call, factors: Sequence[Value], labels: Sequence[Labels], out: Labels, *added: Value | None) -> Result:
    zeros = [factor.where(0) for factor in factors]
    reach, stopped = contracted([factor.reach for factor in factors], zeros, labels, out)
    ((shape, dtype),) = call.shapes
    reach = join_reach(shape, [reach, *(value.reach for value in added if value is not None)])
    zero = _nothing(zeros, labels, out) if not added else torch.zeros((), dtype=torch.bool)
    if dtype.is_floating_point and (stopped or bool(zero.any())):
        call.guard = Finite(call.step.name)
    return partly(reach, zero, constant(0, shape, dtype)) if bool(zero.any()) else results(call, [reach])


@rule("matmul mm bmm mv dot")
def matmul(call: Call) -> Result:
    left, right = call.values
    rows, columns = len(left.shape), len(right.shape)
    batch = list(range(max(rows, columns, 2) - 2))
    ours: Labels = [*batch[len(batch) - rows + 2 :], "m", "k"] if rows > 1 else ["k"]
    theirs: Labels = [*batch[len(batch) - columns + 2 :], "k", "n"] if columns > 1 else ["k"]
    out = [*batch, *(["m"] if rows > 1 else []), *(["n"] if columns > 1 else [])]
    return _product(call, [left, right], [ours, theirs], out)


@rule("linear")
def linear(call: Call) -> Result:
    value, weight = call["input"], call["weight"]
    if len(weight.shape) != 2:
        return coarse(call)
    batch = list(range(len(value.shape) - 1))
    bias = [] if call["bias"] is None else [call["bias"]]
    return _product(call, [value, weight], [[*batch, "k"], ["n", "k"]], [*batch, "n"], *bias)


@rule("addmm baddbmm addmv addbmm")
def added(call: Call) -> Result:
    added_to, left, right = call.values
    batch = ["b"] if "bmm" in call.name else []
    ours: Labels = [*batch, "m", "k"]
    theirs: Labels = ["k"] if call.name == "addmv" else [*batch, "k", "n"]
    kept = batch if call.name == "baddbmm" else []
    return _product(call, [left, right], [ours, theirs], [*kept, "m", *theirs[len(batch) + 1 :]], added_to)


@rule("outer inner tensordot")
def apart(call: Call) -> Result:
    """What is not contracted stays apart: first the left one's dimensions, then the right one's."""
    left, right = call.values
    ours, theirs = ([(side, dim) for dim in range(len(value.shape))] for side, value in (("left", left), ("right", right)))
    if call.name != "outer":
        mine, other = ([-1], [-1]) if call.name == "inner" else (call["dims_self"], call["dims_other"])
        if not ours or not theirs:
            return coarse(call)
        for i, j in zip(mine, other, strict=True):
            theirs[j] = ours[i]
    out = [label for label in [*ours, *theirs] if [*ours, *theirs].count(label) == 1]
    return _product(call, [left, right], [ours, theirs], out)


@rule("einsum")
def einsum(call: Call) -> Result:
    """Dimensions under an ellipsis are named from the right, as they broadcast."""
    given, arrow, result = call["equation"].replace(" ", "").partition("->")
    sides = given.split(",")
    letters = [side.replace("...", "") for side in sides]
    spare = [len(value.shape) - len(side) for value, side in zip(call.values, letters, strict=True)]
    if not arrow:
        once = sorted(label for label in set(given) - set(".,") if given.count(label) == 1)
        result = ("..." if "..." in given else "") + "".join(once)
    labels = [_spelt(side, count) for side, count in zip(sides, spare, strict=True)]
    if any(len(set(side)) < len(side) for side in labels):
        return coarse(call)  # a diagonal
    return _product(call, call.values, labels, _spelt(result, max(spare)))


def _spelt(side: str, spare: int) -> Labels:
    before, dots, after = side.partition("...")
    return [*before, *(range(spare, 0, -1) if dots else ()), *after]


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Result:
    """Each query sees itself, and of keys, values and biases those that the mask leaves; heads may share keys and values."""
    query, key, value, mask = call["query"], call["key"], call["value"], call["attn_mask"]
    rank, heads = len(query.shape), query.shape[-3] if len(query.shape) > 2 else 1
    if rank > 2 and key.shape[-3] != heads:
        key, value = (_repeated(shared, heads // shared.shape[-3]) for shared in (key, value))
    pairs = (*torch.broadcast_shapes(query.shape[:-2], key.shape[:-2]), query.shape[-2], key.shape[-2])
    blocked, sunk = _blocked(mask, bool(call["is_causal"]), pairs)
    free, rows = inverse(blocked), rank - 1
    biases = (constant(0, pairs, REACH),) * 3 if mask is None else tuple(plane.expand(pairs) for plane in mask.reach)
    seen = tuple(without(i, plane, free) for i, plane in enumerate(biases))
    offered = join_reach(value.shape, [value.reach, tuple(over(plane, [rows]) for plane in key.reach)])
    batch = list(range(rank - 2))
    zeros = blocked, constant(False, value.shape)
    reach, _ = contracted([seen, offered], zeros, [[*batch, "q", "k"], [*batch, "k", "d"]], [*batch, "q", "d"])
    asked = tuple(over(plane, [rows]) for plane in query.reach)
    if bool(tight(blocked).any()):
        call.guard = Attention(call.step.name, sunk)
    return results(call, [tuple(compact(plane) for plane in join_reach(call.shape, [reach, asked]))])


def _repeated(shared: Value, times: int) -> Value:
    """Keys or values for every head that shares them."""
    return Value(tuple(compact(plane.repeat_interleave(times, -3)) for plane in shared.planes))


def _blocked(mask: Value | None, is_causal: bool, pairs: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Which pairs of query and key the mask hides, and where it does so by large negative numbers only."""
    if mask is None:
        if not is_causal:
            return constant(False, pairs), None
        return torch.ones(pairs[-2:], dtype=torch.bool).triu(1).expand(tuple(pairs)), None
    if mask.dtype is torch.bool:
        return _expanded(mask.where(0), pairs), None
    minus = mask.where(-torch.inf)
    low = joined(mask.shape, [inverse(mask.unknown), (tight(mask.value) <= SINKS).expand(mask.shape)], torch.logical_and)
    down = joined(mask.shape, [minus, mask.sunk, low], torch.logical_or)
    some = over(inverse(down), [len(mask.shape) - 1])
    sunk = joined(mask.shape, [down, some, inverse(minus)], torch.logical_and)
    blocked = joined(mask.shape, [minus, sunk], torch.logical_or)
    return _expanded(blocked, pairs), tight(compact(sunk)) if bool(tight(sunk).any()) else None


def _expanded(plane: torch.Tensor, pairs: Sequence[int]) -> torch.Tensor:
    """Masks of fewer dimensions belong to the last ones; tight where the mask does not vary."""
    return compact(plane.expand(tuple(pairs)))
