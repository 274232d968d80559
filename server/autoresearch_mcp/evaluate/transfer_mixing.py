"""Rules of operators that mix elements along dimensions: reductions, norms, softmax, prefix sums, sorting, pooling, convolution."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from autoresearch_mcp.evaluate.dependence import (
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
    reshaped,
    tight,
    without,
)
from autoresearch_mcp.evaluate.guards import Direct, Softmax
from autoresearch_mcp.evaluate.transfer import Call, Result, coarse, results, rule


def _dims(call: Call, rank: int) -> list[int]:
    """The dimensions along which a call acts; all of them where it names none."""
    dim = call.get("dim")
    listed = range(rank) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return [item % rank for item in listed] if rank else []


def _mixed(call: Call, value: Value, dims: Sequence[int]) -> Result:
    """Results that depend, wherever they are along `dims`, on all of `value` there; dimensions are kept."""
    reach = [over(plane, dims) for plane in value.reach]
    return results(call, [tuple(plane.expand(shape) for plane in reach) for shape, _ in call.shapes])


@rule(
    """
    all amax amin aminmax any argmax argmin count_nonzero linalg_norm linalg_vector_norm logsumexp max mean min nansum norm prod std
    std_mean sum var var_mean
    """
)
def reduced(call: Call) -> Result:
    if len(call.values) == 2:  # max.other and min.other
        return results(call, [join_reach(call.shape, [value.reach for value in call.values])])
    value = call.values[0]
    dims = _dims(call, len(value.shape))
    reach = [over(plane, dims) for plane in value.reach]
    return results(call, [tuple(reshaped(plane, shape) for plane in reach) for shape, _ in call.shapes])


@rule("log_softmax sort argsort fft_fft fft_ifft cummax cummin _log_softmax")
def along_dim(call: Call) -> Result:
    value = call.values[0]
    if call.name.startswith("cum"):
        return prefix(call)
    return _mixed(call, value, _dims(call, len(value.shape)))


@rule("topk fft_rfft fft_irfft")
def shortened(call: Call) -> Result:
    value = call.values[0]
    return _mixed(call, value, _dims(call, len(value.shape)))


@rule("cumsum cumprod logcumsumexp")
def prefix(call: Call) -> Result:
    value = call.values[0]
    if not value.shape:
        return coarse(call)
    dim = call["dim"] % len(value.shape)
    reach = tuple(plane if plane.stride(dim) == 0 else tight(plane).cummax(dim).values.expand(plane.shape) for plane in value.reach)
    return results(call, [reach] * len(call.shapes))


@rule("lstm gru rnn_tanh rnn_relu")
def recurrence(call: Call) -> Result:
    """A step depends on the steps before it in its row, on the row's first state, and on all weights."""
    value, batch_first = call["input"], bool(call["batch_first"])
    if len(value.shape) != 3:
        return coarse(call)
    time, states = (1 if batch_first else 0), call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    outer = [tuple(plane.amax().reshape(1, 1, 1) for plane in weight.reach) for weight in call["params"]]
    for state in states:
        rows = tuple(over(plane, [0, 2]) for plane in state.reach)
        outer.append(tuple(plane.transpose(0, 1) for plane in rows) if batch_first else rows)
    seen = tuple(over(plane, [2]) for plane in value.reach)
    joint = join_reach((*value.shape[:2], 1), [seen, *outer])
    last = tuple(over(plane, [time]) for plane in joint)
    if call["bidirectional"]:
        joint = last
    steps = tuple(plane if plane.stride(time) == 0 else tight(plane).cummax(time).values.expand(plane.shape) for plane in joint)
    final = tuple(plane.transpose(0, 1) for plane in last) if batch_first else last
    (shape, _), *rest = call.shapes
    return results(call, [tuple(plane.expand(shape) for plane in steps), *(tuple(p.expand(s) for p in final) for s, _ in rest)])


@rule("softmax _softmax")
def softmax(call: Call) -> Result:
    """Masked entries have probability 0, and the others do not depend on them; a row that is all masked is left as unknown."""
    value, (shape, dtype) = call.values[0], call.shapes[0]
    if not shape:
        return coarse(call)
    dim = call["dim"] % len(shape)
    minus = value.where(-torch.inf)
    down = joined(shape, [minus, value.sunk], torch.logical_or)
    down = down if not value.dtype.is_floating_point else _with_low(value, down)
    some = over(inverse(down), [dim])
    masked = joined(shape, [down, some], torch.logical_and)
    if not bool(tight(masked).any()):
        return _mixed(call, value, [dim])
    kept = inverse(masked)
    reach = tuple(over(without(i, plane, kept), [dim]).expand(shape) for i, plane in enumerate(value.reach))
    finite = bool(tight(joined(shape, [masked, inverse(minus)], torch.logical_and)).any())
    call.guard = Softmax(call.step.name, tight(compact(masked)), finite, dim)
    return partly(reach, masked, constant(0.0, shape, dtype))


def _with_low(value: Value, down: torch.Tensor) -> torch.Tensor:
    return joined(
        value.shape,
        [down, joined(value.shape, [inverse(value.unknown), (tight(value.value) <= SINKS).expand(value.shape)], torch.logical_and)],
        torch.logical_or,
    )


@rule("layer_norm rms_norm")
def norm(call: Call) -> Result:
    value = call["input"]
    count = len(call["normalized_shape"])
    dims = range(len(value.shape) - count, len(value.shape))
    reach = [tuple(over(plane, dims) for plane in value.reach)]
    for other in call.values[1:]:
        reach.append(tuple(over(plane, range(count)) for plane in other.reach))
    mixed = join_reach([size if i not in dims else 1 for i, size in enumerate(value.shape)], reach)
    return results(call, [tuple(plane.expand(shape) for plane in mixed) for shape, _ in call.shapes])


@rule("group_norm")
def by_groups(call: Call) -> Result:
    """All channels and places of a row together, which is more than a group."""
    value = call["input"]
    reach = [tuple(over(plane, range(1, len(value.shape))) for plane in value.reach)]
    reach += [tuple(plane.amax().expand((1,) * len(value.shape)) for plane in other.reach) for other in call.values[1:]]
    return results(
        call, [tuple(plane.expand(call.shape) for plane in join_reach([value.shape[0]] + [1] * (len(value.shape) - 1), reach))]
    )


@rule("batch_norm _native_batch_norm_legit_no_training")
def by_running_statistics(call: Call) -> Result:
    """In eval mode a channel is scaled by what training left, not by what it sees."""
    value, channels = call["input"], (1, -1) + (1,) * (len(call["input"].shape) - 2)
    reach = [value.reach, *(tuple(plane.reshape(channels) for plane in other.reach) for other in call.values[1:])]
    joint = join_reach(value.shape, reach)
    if len(call.shapes) == 1:
        return results(call, [joint])
    rest = [tuple(plane.max().expand(shape) for plane in joint) for shape, _ in call.shapes[1:]]
    return results(call, [joint, *rest])


@rule("conv1d conv2d convolution")
def convolution(call: Call) -> Result:
    """Each output sees all channels of the places under its kernel, and the weights."""
    value, weight = call["input"], call["weight"]
    count = len(weight.shape) - 2
    if call.get("transposed") or len(value.shape) != count + 2:
        return coarse(call)
    kernel = list(weight.shape[2:])
    stride, dilation = _each(call["stride"], count), _each(call["dilation"], count)
    before, after = _padding(call["padding"], kernel, dilation)
    others = [tuple(plane.amax() for plane in other.reach) for other in call.values[1:]]
    call.guard = Direct(call.step.name)
    window = windowed(value, kernel, stride, dilation, before, after, call.shape[2:])
    return results(
        call, [join_reach(call.shape, [window, *(tuple(p.expand((1,) * (count + 2)) for p in reach) for reach in others)])]
    )


@rule("max_pool1d max_pool2d avg_pool1d avg_pool2d")
def pooled(call: Call) -> Result:
    value, count = call["self"], int(call.name[-2])
    if len(value.shape) != count + 2:
        return coarse(call)
    kernel = _each(call["kernel_size"], count)
    stride = _each(call["stride"], count) if call["stride"] else kernel
    dilation, padding = _each(call.get("dilation") or 1, count), _each(call["padding"], count)
    more = [size * step + reach for size, step, reach in zip(call.shape[2:], stride, kernel, strict=True)]
    after = [max(extra - length, pad) for extra, length, pad in zip(more, value.shape[2:], padding, strict=True)]
    return results(call, [windowed(value, kernel, stride, dilation, padding, after, call.shape[2:], channels=False)])


def windowed(
    value: Value,
    kernel: list[int],
    stride: list[int],
    dilation: list[int],
    before: list[int],
    after: list[int],
    out: Sequence[int],
    channels: bool = True,
) -> Planes:
    """The maximum over each window of places; over the channels too, which then are of size 1."""
    count = len(kernel)
    room = [pad for pair in zip(reversed(before), reversed(after), strict=True) for pad in pair]
    reach: list[torch.Tensor] = []
    for plane in value.reach:
        flat = over(plane, [1]) if channels else plane
        padded = torch.constant_pad_nd(flat[tuple(slice(0, 1) if flat.stride(d) == 0 else slice(None) for d in (0, 1))], room)
        result: torch.Tensor | None = None
        for taps in product(*map(range, kernel)):
            piece = padded
            for axis in range(count):
                start = taps[axis] * dilation[axis]
                piece = piece.narrow(2 + axis, start, (out[axis] - 1) * stride[axis] + 1)
                piece = piece[(slice(None),) * (2 + axis) + (slice(None, None, stride[axis]),)]
            result = piece if result is None else torch.maximum(result, piece)
        assert result is not None
        reach.append(compact(result.expand(flat.shape[0], flat.shape[1], *out)))
    return tuple(reach)


def _each(number: Any, count: int) -> list[int]:
    return [number] * count if isinstance(number, int) else list(number) * (count if len(number) == 1 else 1)


def _padding(padding: Any, kernel: list[int], dilation: list[int]) -> tuple[list[int], list[int]]:
    if padding == "valid":
        return [0] * len(kernel), [0] * len(kernel)
    if padding == "same":
        total = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        return [size // 2 for size in total], [size - size // 2 for size in total]
    return _each(padding, len(kernel)), _each(padding, len(kernel))
