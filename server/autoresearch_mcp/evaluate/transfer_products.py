"""Rules of products that sum over elements: matrix products, einsum, linear layers, attention. Here masks stop dependencies.

A sum of products depends on all elements that it contracts, except those whose partner is structurally zero. Without zeros that is
a maximum along the contracted dimensions; with them, a maximum over what the zeros leave, on planes as small as they vary (for
attention one matrix of positions by positions). Above MAX_WORK elements zeros are not looked at, which is sound and proves less.
"""

# torch's results are typed in part, and arguments of a graph have any type before a rule looks at them.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
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
    tight,
    without,
)
from autoresearch_mcp.evaluate.guards import Attention, Finite
from autoresearch_mcp.evaluate.transfer import Call, Result, coarse, results, rule

MAX_WORK = 2**26  # elements of one masked maximum: 16 rows of 2048 x 2048
Labels = Sequence[object]


def contracted(
    left: Planes, right: Planes, zeros: tuple[torch.Tensor, torch.Tensor], labels: tuple[Labels, Labels], out: Labels
) -> tuple[Planes, bool]:
    """The reach of a sum of products whose dimensions are named by `labels`, and whether a zero stopped anything."""
    order = [*out, *dict.fromkeys(label for side in labels for label in side if label not in out)]
    sums = list(range(len(out), len(order)))
    reach: list[torch.Tensor] = []
    stopped = False
    zero_left, zero_right = (_aligned(zero, side, order) for zero, side in zip(zeros, labels, strict=True))
    sizes = {
        label: size
        for planes, side in ((left, labels[0]), (right, labels[1]))
        for label, size in zip(side, planes[0].shape, strict=True)
        if size != 1
    }
    shape = [sizes.get(label, 1) for label in out]
    for ours, theirs in zip(left, right, strict=True):
        terms: list[torch.Tensor] = []
        for plane, side, zero in ((ours, labels[0], zero_right), (theirs, labels[1], zero_left)):
            term, cut = _term(_aligned(plane, side, order), zero, sums)
            terms.append(term.reshape(term.shape[: len(out)]))
            stopped = stopped or cut
        reach.append(torch.maximum(*terms).expand(shape))
    return tuple(reach), stopped


def _aligned(plane: torch.Tensor, labels: Labels, order: Sequence[object]) -> torch.Tensor:
    """The tight plane with one dimension for every label of `order`."""
    narrow = tight(plane).permute([labels.index(label) for label in order if label in labels])
    return narrow[tuple(slice(None) if label in labels else None for label in order)]


def _term(plane: torch.Tensor, zero: torch.Tensor, sums: list[int]) -> tuple[torch.Tensor, bool]:
    varying = [dim for dim in sums if plane.shape[dim] > 1]
    whole = plane.amax(varying, keepdim=True) if varying else plane
    if not varying or not bool(zero.any()) or prod(torch.broadcast_shapes(plane.shape, zero.shape)) > MAX_WORK:
        return whole, False
    left_over = torch.where(zero, torch.zeros((), dtype=plane.dtype), plane).amax(sums, keepdim=True)
    return left_over, bool((left_over < whole).any())


def _product(call: Call, left: Value, right: Value, labels: tuple[Labels, Labels], out: Labels, *added: Value | None) -> Result:
    reach, stopped = contracted(left.reach, right.reach, (left.where(0), right.where(0)), labels, out)
    if stopped and call.shapes[0][1].is_floating_point:
        call.guard = Finite(call.step.name)
    return results(call, [join_reach(call.shape, [reach, *(value.reach for value in added if value is not None)])])


@rule("matmul mm bmm mv dot")
def matmul(call: Call) -> Result:
    left, right = call.values
    rows, columns = len(left.shape), len(right.shape)
    batch = list(range(max(rows, columns, 2) - 2))
    ours: Labels = [*batch[len(batch) - rows + 2 :], "m", "k"] if rows > 1 else ["k"]
    theirs: Labels = [*batch[len(batch) - columns + 2 :], "k", "n"] if columns > 1 else ["k"]
    out = [*batch, *(["m"] if rows > 1 else []), *(["n"] if columns > 1 else [])]
    return _product(call, left, right, (ours, theirs), out)


@rule("linear")
def linear(call: Call) -> Result:
    value, weight = call["input"], call["weight"]
    if len(weight.shape) != 2:
        return coarse(call)
    batch = list(range(len(value.shape) - 1))
    return _product(call, value, weight, ([*batch, "k"], ["n", "k"]), [*batch, "n"], call["bias"])


@rule("addmm baddbmm addmv")
def added(call: Call) -> Result:
    added_to, left, right = call.values
    batch = ["b"] if call.name == "baddbmm" else []
    ours: Labels = [*batch, "m", "k"]
    theirs: Labels = ["k"] if call.name == "addmv" else [*batch, "k", "n"]
    return _product(call, left, right, (ours, theirs), [*batch, "m", *theirs[len(batch) + 1 :]], added_to)


@rule("outer")
def outer(call: Call) -> Result:
    left, right = call.values
    return results(call, [join_reach(call.shape, [tuple(plane[:, None] for plane in left.reach), right.reach])])


@rule("einsum")
def einsum(call: Call) -> Result:
    equation = call["equation"].replace(" ", "")
    given, _, out = equation.partition("->")
    sides = given.split(",")
    if "->" not in equation or "..." in equation or any(len(set(side)) < len(side) for side in sides) or len(sides) > 2:
        return coarse(call)
    if len(sides) == 2:
        left, right = call.values
        return _product(call, left, right, (sides[0], sides[1]), out)
    (value,), (side,) = call.values, sides
    summed = [over(plane, [i for i, label in enumerate(side) if label not in out]) for plane in value.reach]
    kept = [_aligned(plane, side, out + "".join(label for label in side if label not in out)) for plane in summed]
    return results(call, [tuple(plane.reshape(plane.shape[: len(out)]).expand(call.shape) for plane in kept)])


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
    reach, _ = contracted(seen, offered, zeros, ([*batch, "q", "k"], [*batch, "k", "d"]), [*batch, "q", "d"])
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
