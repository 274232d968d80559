"""Rules of operators that move elements and compute nothing: views, slices, joins, padding, triangles, indexing.

Such an operator, run on each plane of its operands, is its own rule. Views keep the stride 0 of planes; what copies is run with
the dimensions it leaves alone cut to size 1. Where an index is no constant, it is a selector: the result depends on the index and
on all that it might have chosen.
"""

# torch's results are typed in part, and arguments of a graph have any type before a rule looks at them.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Any, cast

import torch

from autoresearch_mcp.evaluate.dependence import (
    SINKS,
    SUNK,
    UNKNOWN,
    VALUE,
    Value,
    certain,
    compact,
    join_reach,
    joined,
    over,
    reshaped,
)
from autoresearch_mcp.evaluate.transfer import Call, Result, coarse, results, rule


def assembled(planes: list[Any]) -> Result:
    """Values from what an operator gave for each of the six planes."""
    if isinstance(planes[0], list | tuple):
        return [Value(tuple(parts)) for parts in zip(*planes, strict=True)]
    return Value(tuple(planes))


@rule(
    """
    broadcast_to chunk diagonal dsplit expand expand_as hsplit movedim mT narrow numpy_T permute select slice split split_with_sizes
    squeeze swapaxes swapdims t tensor_split transpose unbind unfold unsqueeze vsplit atleast_1d atleast_2d atleast_3d
    broadcast_tensors unsafe_chunk unsafe_split meshgrid
    """
)
def view(call: Call) -> Result:
    if call.overload == "Tensor" and call.name == "narrow":
        return coarse(call)  # it starts where a value says, so that it has no shape without it
    return assembled([call.run(lambda value, i=i: value.planes[i]) for i in range(6)])


@rule("alias alpha_dropout clone contiguous detach dropout feature_alpha_dropout feature_dropout lift_fresh_copy copy")
def same(call: Call) -> Result:
    value = call.values[-1].promoted(call.shapes[0][1]) if call.name == "copy" else call.values[0]
    return value if value.shape == call.shape else Value(tuple(plane.expand(call.shape) for plane in value.planes))


@rule("_unsafe_view flatten ravel reshape unflatten view view_as")
def reshape(call: Call) -> Result:
    value = call.values[0]
    if value.dtype is not call.shapes[0][1]:
        return coarse(call)
    return Value(tuple(reshaped(plane, call.shape) for plane in value.planes))


def along(call: Call, dims: Sequence[int], fresh: dict[int, Any] | None = None) -> list[Any]:
    """The operator run on each plane, for operands of one rank; dimensions other than `dims` are cut where they do not vary.

    `fresh`: for each plane, what the operator fills new places with instead of its own value.
    """
    rank = len(call.values[0].shape)
    acted = {dim % rank for dim in dims}
    moved: list[Any] = []
    for i in range(6):
        planes = [value.planes[i] for value in call.values]
        flat = [dim for dim in range(rank) if dim not in acted and all(plane.stride(dim) == 0 for plane in planes)]
        changed = {} if fresh is None or i == VALUE else {"value": fresh.get(i, 0)}
        moved.append(call.run(lambda value, i=i, flat=flat: _cut(value.planes[i], flat), **changed))
    return [_grown(result, shape) for result, (shape, _) in zip(moved, call.shapes * 6, strict=True)]


def _cut(plane: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    return plane[tuple(slice(0, 1) if dim in dims else slice(None) for dim in range(plane.dim()))]


def _grown(plane: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return compact(plane.expand(shape))


@rule("cat concat flip fliplr roll repeat_interleave index_select slice_scatter")
def one_axis(call: Call) -> Result:
    rank = len(call.shape)
    if call.name == "index_select" and not call["index"].concrete:
        return selected(call, [call["dim"] % rank], call["index"])
    if call.name == "index_select":
        index = call.given["index"]
        call.values = [call["self"]]
        planes = [torch.index_select(value, call["dim"], index.value) for value in call["self"].planes]
        return Value(tuple(compact(plane) for plane in planes))
    if len({len(value.shape) for value in call.values}) > 1 or any(0 in value.shape for value in call.values):
        return _whole(call)
    if call.name == "repeat_interleave" and (call.overload != "self_int" or call["dim"] is None):
        return _whole(call)
    dims = call.get("dims") if call.name in ("flip", "roll") else [1] if call.name == "fliplr" else call["dim"]
    _promote(call)
    return assembled(along(call, ([dims] if isinstance(dims, int) else dims) or range(rank)))


def _promote(call: Call) -> None:
    """Operands of several types become one, as the operator makes them."""
    dtype = call.shapes[0][1]
    for name, given in call.given.items():
        if isinstance(given, Value):
            call.given[name] = given.promoted(dtype)
        elif isinstance(given, list) and any(isinstance(item, Value) for item in given):
            call.given[name] = [item.promoted(dtype) for item in given]
    call.values = [value.promoted(dtype) for value in call.values]


@rule(
    """
    column_stack diag diag_embed dstack hstack pixel_shuffle repeat rot90 stack tile tril triu vstack
    select_scatter
    """
)
def _whole(call: Call) -> Result:
    """Run on whole planes: for rare operators, or cheap ones."""
    if call.name in ("tril", "triu"):
        return assembled(along(call, [-2, -1]))
    _promote(call)
    planes = [call.run(lambda value, i=i: value.planes[i]) for i in range(6)]
    if isinstance(planes[0], list):
        return assembled(planes)
    return Value(tuple(compact(plane) for plane in planes))


@rule("im2col")
def windows(call: Call) -> Result:
    """Made for floating-point numbers alone, in which every plane is exact."""
    source = call["self"]
    planes = [call.run(lambda value, i=i: value.planes[i].float()) for i in range(6)]
    return Value(tuple(compact(moved.to(plane.dtype)) for moved, plane in zip(planes, source.planes, strict=True)))


@rule("constant_pad_nd pad reflection_pad1d replication_pad1d")
def padded(call: Call) -> Result:
    mode, by = call.get("mode"), call.get("pad") or call.get("padding") or []
    by = [by, by] if isinstance(by, int) else by
    if call.name.endswith("1d") or mode not in (None, "constant"):
        rank = len(call.shape)
        reach = tuple(over(plane, range(rank - len(by) // 2, rank)) for plane in call["self"].reach)
        return results(call, [tuple(plane.expand(call.shape) for plane in reach)])
    filled_with = torch.tensor(call.get("value") or 0, dtype=torch.float64)
    fresh = {UNKNOWN: not bool(certain(filled_with)), SUNK: bool(filled_with <= SINKS)}
    return assembled(along(call, range(-(len(by) // 2), 0), fresh))


@rule("index")
def index(call: Call) -> Result:
    """x[i, :, j]: `indices` has None for dimensions that are kept."""
    source, indices = call["self"], list(call["indices"])
    given = [item for item in indices if item is not None]
    if any(item.dtype in (torch.bool, torch.uint8) for item in given):
        if not all(item.concrete for item in given):
            return coarse(call)  # its shape depends on values, which `coarse` says
        return Value(tuple(compact(plane[_lookup(indices)]) for plane in source.planes))
    indices += [None] * (len(source.shape) - len(indices))
    dims = [dim for dim, item in enumerate(indices) if item is not None]
    if all(item.concrete for item in given):
        flat = [dim for dim in range(len(source.shape)) if dim not in dims]
        planes: list[torch.Tensor] = []
        for plane in source.planes:
            still = [dim for dim in flat if plane.stride(dim) == 0]
            planes.append(compact(_cut(plane, still)[_lookup(indices)].expand(call.shape)))
        return Value(tuple(planes))
    return _chosen(call, source, indices, dims)


def _lookup(indices: list[Value | None]) -> tuple[Any, ...]:
    return tuple(slice(None) if item is None else item.value for item in indices)


def _chosen(call: Call, source: Value, indices: list[Value | None], dims: list[int]) -> Result:
    given = [item for item in indices if item is not None]
    picked = torch.broadcast_shapes(*[item.shape for item in given])
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    place = dims[0] if adjacent else 0
    after = len(source.shape) - len(dims) - place
    kept = [source.shape[dim] for dim in range(len(source.shape)) if dim not in dims]
    reach: list[torch.Tensor] = []
    for i in range(UNKNOWN):
        which = joined(picked, [item.planes[i] for item in given])
        which = which[(...,) + (None,) * after]
        what = over(source.planes[i], dims).squeeze(dims)
        what = what.reshape([*kept[:place], *(1,) * len(picked), *kept[place:]])
        reach.append(joined(call.shape, [what, which]))
    return results(call, [tuple(reach)])


def selected(call: Call, dims: list[int], which: Value) -> Result:
    """One axis chosen from by a one-dimensional index that is no constant."""
    source = call["self"]
    (dim,) = dims
    after = len(source.shape) - dim - 1
    reach = tuple(
        joined(call.shape, [over(source.planes[i], dims), which.planes[i].reshape(-1)[(...,) + (None,) * after]])
        for i in range(UNKNOWN)
    )
    return results(call, [reach])


@rule("gather take_along_dim")
def gather(call: Call) -> Result:
    source, dim = call["self"], call["dim"]
    which = call["index"] if call.name == "gather" else call["indices"]
    if dim is None or len(source.shape) != len(which.shape):
        return coarse(call)
    dim %= len(source.shape)
    sizes = [source.shape[d] if d == dim else which.shape[d] for d in range(len(which.shape))]
    if call.name == "take_along_dim" and sizes != list(source.shape):
        return coarse(call)
    planes = [plane[tuple(slice(0, size) for size in sizes)] for plane in source.planes]
    if which.concrete:
        return Value(tuple(compact(torch.gather(plane, dim, which.value.long())) for plane in planes))
    return results(call, [join_reach(call.shape, [tuple(over(plane, [dim]) for plane in planes[:UNKNOWN]), which.reach])])


@rule("take")
def take(call: Call) -> Result:
    source, which = call["self"], call["index"]
    if which.concrete:
        return Value(tuple(compact(plane.reshape(-1)[which.value]) for plane in source.planes))
    return results(
        call, [tuple(joined(call.shape, [over(source.planes[i].reshape(-1), [0]), which.planes[i]]) for i in range(UNKNOWN))]
    )


@rule("view_as_complex view_as_real")
def pairs(call: Call) -> Result:
    """Two numbers are the parts of one."""
    if call.name == "view_as_real":
        return results(call, [tuple(plane[..., None].expand(call.shape) for plane in call["self"].reach)])
    last = len(call.shape)
    return results(call, [tuple(over(plane, [last]).squeeze(last) for plane in call["self"].reach)])


@rule("embedding")
def embedding(call: Call) -> Result:
    table, which = call["weight"], call["indices"]
    if which.concrete:
        return Value(tuple(compact(plane[which.value]) for plane in table.planes))
    reach = tuple(joined(call.shape, [over(table.planes[i], [0]).reshape(-1), which.planes[i][..., None]]) for i in range(UNKNOWN))
    return results(call, [reach])


@rule("scatter scatter_add scatter_reduce index_add index_copy index_fill")
def scatter(call: Call) -> Result:
    """Every place along the axis may be written to, by whatever is written anywhere along it."""
    target, dim, which = call["self"], call["dim"] % max(len(call["self"].shape), 1), call["index"]
    source = call.get("src") or call.get("source") or call.get("value")
    others = [target.reach]
    if call.name.startswith("index"):
        others.append(tuple(plane.amax().expand((1,) * len(target.shape)) for plane in which.reach))
        which = None
    for value in (which, source):
        if not isinstance(value, Value):
            continue
        if len(value.shape) != len(target.shape):
            others.append(tuple(plane.amax().expand((1,) * len(target.shape)) for plane in value.reach))
            continue
        sizes = tuple(1 if d == dim else size for d, size in enumerate(target.shape))
        reach = [over(plane, [dim]) for plane in value.reach]
        others.append(tuple(_fitted(plane, sizes) for plane in reach))
    along_axis = [tuple(over(plane, [dim]) for plane in reach) for reach in others[1:]]
    return results(call, [join_reach(target.shape, [target.reach, *along_axis])])


def _fitted(plane: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """An index or source may be shorter than its target, or a source longer than its index."""
    plane = plane[tuple(slice(0, size) for size in sizes)]
    room = [pair for size, wanted in zip(reversed(plane.shape), reversed(sizes), strict=True) for pair in (0, wanted - size)]
    return torch.constant_pad_nd(plane, room) if any(room) else plane


@rule("index_put")
def index_put(call: Call) -> Result:
    """x[i, :, j] = values. Constant places, each at most once, are written to; else everything may be."""
    target, indices, values = call["self"], list(call["indices"]), call["values"]
    given = [item for item in indices if item is not None]
    if not all(item.concrete for item in given) or call["accumulate"]:
        return coarse(call)
    where = _lookup(indices)
    places = torch.arange(target.value.numel()).reshape(target.shape)[where]
    if places.unique().numel() != places.numel():
        return coarse(call)
    planes: list[torch.Tensor] = []
    for plane, new in zip(target.planes, values.planes, strict=True):
        written = plane.clone(memory_format=torch.contiguous_format)
        written[where] = new.to(plane.dtype)
        planes.append(compact(written))
    return Value(tuple(planes))


@rule("one_hot")
def one_hot(call: Call) -> Result:
    return results(call, [tuple(plane[..., None].expand(call.shape) for plane in cast("Value", call["self"]).reach)])


@rule("glu")
def glu(call: Call) -> Result:
    halves = [plane.chunk(2, call["dim"]) for plane in call["self"].reach]
    return results(call, [tuple(joined(call.shape, pair) for pair in halves)])


@rule("diff")
def diff(call: Call) -> Result:
    value, dim = call["self"], call["dim"]
    if call["n"] != 1 or len(call.values) != 1:
        return coarse(call)
    length = value.shape[dim] - 1
    pairs = [[plane.narrow(dim, 1, length), plane.narrow(dim, 0, length)] for plane in value.reach]
    return results(call, [tuple(joined(call.shape, pair) for pair in pairs)])
