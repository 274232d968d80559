"""Random calls of every operator that a scored model may use: small shapes, all overloads that make sense, all arguments that matter."""

from collections.abc import Callable
from typing import Any

import torch
from fuzzing import Draw, Drawn, Operand

from autoresearch_mcp.evaluate.operators import INSTEAD, OPERATORS
from autoresearch_mcp.evaluate.transfer import RULES
from autoresearch_mcp.evaluate.transfer_elements import elementwise

Make = Callable[[Draw], Drawn]
CALLS: dict[str, Make] = {}
ELEMENTWISE = sorted(name for name in OPERATORS if RULES.get(name) is elementwise)
LOGICAL = {"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "__and__", "__or__", "__xor__", "logical_and", "logical_or"}
WHOLE = {"bitwise_left_shift", "bitwise_right_shift", "__lshift__", "__rshift__"}
NUMBERS = [0, 1, 2, -1, 0.5, 0.1, 1 / 49, 0.9999, 49, -1e9, 0.0, -0.0, 2.5, float("inf"), float("-inf"), 1e30]


def call(operator: str, *args: Any, **kwargs: Any) -> Drawn:
    return Drawn(operator, list(args), kwargs)


def draws(names: str) -> Callable[[Callable[..., Drawn]], Callable[..., Drawn]]:
    """Marks what draws calls of these operators; it gets the name too."""

    def mark(make: Callable[..., Drawn]) -> Callable[..., Drawn]:
        for name in names.split():
            CALLS[name] = lambda d, name=name: make(d, name)
        return make

    return mark


def overloads(name: str) -> list[str]:
    found = []
    for overload in getattr(torch.ops.aten, name).overloads():
        schema = getattr(getattr(torch.ops.aten, name), overload)._schema
        text = str(schema)
        gives = {str(value.real_type) for value in schema.returns}
        if schema.is_mutable or f"{name}.{overload}" in INSTEAD or "Dimname" in text:
            continue
        if gives <= {"Tensor", "List[Tensor]"} and "Tensor" in text.split("->")[0]:
            found.append(overload)
    return found


@draws(" ".join(ELEMENTWISE))
def by_schema(d: Draw, name: str) -> Drawn:
    overload = d.one(*overloads(name))
    shape = d.shape(0, 3)
    kinds = [d.whole] if name in WHOLE else [d.truth, d.whole] if name in LOGICAL else [d.floats] * 8 + [d.whole, d.truth]
    kind = d.one(*kinds)
    first = d.one(torch.float32, torch.float32, torch.float64, torch.bfloat16)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in getattr(getattr(torch.ops.aten, name), overload)._schema.arguments:
        text, value = str(argument.real_type), None
        if argument.has_default_value() and d.one(True, False) and not args[1:]:
            value = argument.default_value
        elif "Tensor" in text:
            if name in ("complex", "polar", "real", "imag"):
                value = d.floats(*shape, kind=torch.float32)
            elif args and not argument.has_default_value() and d.dice.random() < 0.15:
                value = d.one(*NUMBERS)
            else:
                operand = d.one(kind, kind, kind, d.any) if args else kind
                value = operand(*d.thinned(shape), **({"kind": first} if operand == d.floats else {}))
        elif argument.name == "memory_format":
            value = None
        elif "number" in text or text == "Scalar" or text in ("float", "Optional[float]"):
            value = d.one(*NUMBERS) if name not in WHOLE | LOGICAL else d.one(0, 1, 2, 3)
        elif "ScalarType" in text or argument.name == "dtype":
            value = d.one(torch.float32, torch.float64, torch.int64, torch.int8, torch.bool, torch.bfloat16)
        elif text in ("int", "Optional[int]"):
            value = d.one(0, 1)
        elif argument.name == "rounding_mode":
            value = d.one(None, "floor", "trunc")
        elif argument.name == "approximate":
            value = d.one("none", "tanh")
        else:
            value = argument.default_value
        if argument.kwarg_only:
            if value is not None:
                kwargs[argument.name] = value
        else:
            args.append(value)
    return Drawn(f"{name}.{overload}", args, kwargs, d.one(None, None, None, torch.bfloat16))


@draws("real imag")
def part(d: Draw, name: str) -> Drawn:
    return call(
        f"{name}.default", complex_numbers(d, *d.shape()) if d.one(True, False) else d.floats(*d.shape(), kind=torch.float32)
    )


def complex_numbers(d: Draw, *shape: int) -> Operand:
    return d.operand(shape, torch.complex64, lambda size: torch.complex(d.uniform(size), d.uniform(size)), [0.0, 1.0])


@draws("view_as_real abs_ mul_ add_")
def of_complex(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    other = [d.one(complex_numbers, Draw.floats)(d, *shape)] if name in ("mul_", "add_") else []
    return call(f"{name.rstrip('_')}.{'Tensor' if other else 'default'}", complex_numbers(d, *shape), *other)


@draws("view_as_complex")
def to_complex(d: Draw, name: str) -> Drawn:
    return call("view_as_complex.default", d.floats(*d.shape(0, 2), 2, kind=torch.float32))


@draws("where")
def where(d: Draw, name: str) -> Drawn:
    shape, kind = d.shape(), d.one(d.floats, d.floats, d.whole)
    sides = [kind(*d.thinned(shape)) if d.dice.random() < 0.7 else d.one(0.0, 1.0, -1e9, float("-inf"), 0.1, 2) for _ in range(2)]
    names = {(True, True): "self", (True, False): "ScalarOther", (False, True): "ScalarSelf", (False, False): "Scalar"}
    which = names[isinstance(sides[0], Operand), isinstance(sides[1], Operand)]
    return call(f"where.{which}", d.truth(*d.thinned(shape)), *sides)


@draws("masked_fill")
def masked_fill(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    operands = d.one(d.floats, d.floats, d.whole)(*d.thinned(shape)), d.truth(*d.thinned(shape))
    if d.dice.random() < 0.3:
        return call("masked_fill.Tensor", *operands, d.whole() if operands[0].real.dtype is torch.int64 else d.floats())
    return call("masked_fill.Scalar", *operands, d.one(0, 1, -5) if operands[0].real.dtype is torch.int64 else d.one(*NUMBERS))


@draws("to type_as")
def cast(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    if name == "type_as" or d.dice.random() < 0.3:
        return call("type_as.default" if name == "type_as" else "to.other", d.any(*shape), d.any(*shape))
    return call("to.dtype", d.any(*shape), d.one(torch.float32, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool))


@draws("zeros_like ones_like")
def like(d: Draw, name: str) -> Drawn:
    return call(f"{name}.default", d.any(*d.shape()))


@draws("full_like new_full fill new_ones new_zeros")
def made_like(d: Draw, name: str) -> Drawn:
    value, shape = d.floats(*d.shape()), list(d.shape())
    number = d.one(0, 1.0, 0.1, float("-inf"), -1e9)
    if name == "fill":
        return call("fill.Tensor", value, d.one(d.floats, d.whole)()) if d.one(True, False) else call("fill.Scalar", value, number)
    return call(f"{name}.default", value, *([] if name == "full_like" else [shape]), *([number] if "full" in name else []))


@draws("prelu")
def prelu(d: Draw, name: str) -> Drawn:
    shape = d.shape(2, 3)
    return call("prelu.default", d.floats(*shape, kind=torch.float32), d.floats(d.one(1, shape[1]), kind=torch.float32))


@draws("alias clone contiguous detach lift_fresh_copy ravel numpy_T squeeze atleast_1d atleast_2d atleast_3d")
def alone(d: Draw, name: str) -> Drawn:
    return call(f"{name}.default", d.any(*d.shape(0, 3)))


@draws("mT t")
def transposed(d: Draw, name: str) -> Drawn:
    return call(f"{name}.default", d.any(*d.shape(2, 2 if name == "t" else 3)))


@draws("alpha_dropout dropout feature_alpha_dropout feature_dropout")
def idle(d: Draw, name: str) -> Drawn:
    return call(f"{name}.default", d.floats(*d.shape(2)), 0.5, False)


@draws("copy expand_as")
def onto(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    operands = d.any(*shape), d.one(d.any, d.whole)(*d.thinned(shape))
    return call("copy.default", *operands) if name == "copy" else call("expand_as.default", *operands[::-1])


@draws("broadcast_to expand")
def expanded(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    sizes = [d.size(), *(size if size > 1 else d.size() for size in shape)]
    return call(f"{name}.default", d.any(*shape), sizes if d.one(True, False) else sizes[1:])


@draws("broadcast_tensors meshgrid cartesian_prod")
def several(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    shapes = [d.thinned(shape) if name == "broadcast_tensors" else (d.size(),) for _ in range(d.size(1, 3))]
    return call(f"{name}.default", [d.floats(*one, kind=torch.float32) for one in shapes])


@draws("chunk split split_with_sizes unsafe_chunk unsafe_split tensor_split unbind narrow select slice")
def pieces(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    value, dim = d.any(*shape), d.dim(shape)
    size = shape[dim]
    start = d.dice.randrange(size)
    sizes = [start, size - start]
    return d.one(
        *{
            "chunk": [call("chunk.default", value, d.size(), dim)],
            "unsafe_chunk": [call("unsafe_chunk.default", value, d.size(), dim)],
            "split": [call("split.Tensor", value, d.size(), dim), call("split.sizes", value, sizes, dim)],
            "unsafe_split": [call("unsafe_split.Tensor", value, d.size(), dim)],
            "split_with_sizes": [call("split_with_sizes.default", value, sizes, dim)],
            "tensor_split": [
                call("tensor_split.sections", value, d.size(), dim),
                call("tensor_split.indices", value, [start], dim),
            ],
            "unbind": [call("unbind.int", value, dim)],
            "narrow": [call("narrow.default", value, dim, start, size - start)],
            "select": [call("select.int", value, dim, d.one(start, start - size))],
            "slice": [call("slice.Tensor", value, dim, d.one(None, start, start - size), d.one(None, size, -1), d.size(1, 2))],
        }[name]
    )


@draws("dsplit hsplit vsplit")
def halves(d: Draw, name: str) -> Drawn:
    return call(f"{name}.array", d.any(*d.shape(3, 3)), [d.size(0, 2)])


@draws("diagonal movedim permute swapaxes swapdims transpose unsqueeze unfold diag_embed diag rot90 tril triu trace")
def turned(d: Draw, name: str) -> Drawn:
    shape = d.shape(2, 2) if name in ("diag", "trace") else d.shape(1, 3) if name == "diag_embed" else d.shape(2, 3)
    value, dims = d.any(*shape), d.dice.sample(range(len(shape)), len(shape))
    two = dims[:2]
    size = d.size(1, shape[two[0]])
    if name in ("transpose", "movedim"):
        return call(f"{name}.int", value, *two)
    rest = {
        "diagonal": [d.size(-1, 1), *two],
        "permute": [dims],
        "swapaxes": two,
        "swapdims": two,
        "unsqueeze": [d.size(-1, len(shape))],
        "unfold": [two[0], size, d.size(1, 2)],
        "diag_embed": [d.size(-1, 1)],
        "diag": [d.size(-1, 1)],
        "rot90": [d.size(-1, 3), two],
        "tril": [d.size(-2, 2)],
        "triu": [d.size(-2, 2)],
        "trace": [],
    }
    return call(f"{name}.default", value, *rest[name])


@draws("view reshape _unsafe_view flatten unflatten view_as")
def reshaped(d: Draw, name: str) -> Drawn:
    shape = d.shape(1, 4)
    value = d.any(*shape)
    factors = [factor for size in shape for factor in ((2, 2) if size == 4 else (size,))]
    sizes = []
    while factors:
        count = d.size(1, 2)
        sizes.append(int(torch.tensor(factors[:count]).prod()))
        factors = factors[count:]
    sizes += [1] * d.size(0, 1)
    if name == "flatten":
        start = d.dice.randrange(len(shape))
        return call("flatten.using_ints", value, start, d.dice.randrange(start, len(shape)))
    if name == "unflatten":
        return call("unflatten.int", d.any(4, 3), 0, d.one([2, 2], [-1, 2], [1, 4]))
    return call(f"{name}.default", value, d.any(*sizes) if name == "view_as" else sizes)


@draws("cat concat stack column_stack dstack hstack vstack")
def together(d: Draw, name: str) -> Drawn:
    shape = list(d.shape(1, 3))
    dim = d.dice.randrange(len(shape))
    operands = []
    for _ in range(d.size(1, 3)):
        operands.append(d.one(d.floats, d.floats, d.any)(*shape))
        if name in ("cat", "concat"):
            shape[dim] = d.size(0, 3)
    return call(f"{name}.default", operands, *([dim] if name in ("cat", "concat", "stack") else []))


@draws("flip fliplr roll repeat_interleave repeat tile")
def copied(d: Draw, name: str) -> Drawn:
    shape = d.shape(2 if name == "fliplr" else 1, 3)
    value, dim = d.any(*shape), d.dim(shape)
    if name == "repeat_interleave":
        return call("repeat_interleave.self_int", value, d.size(), d.one(None, dim, dim))
    rest = {
        "flip": [[dim]],
        "fliplr": [],
        "roll": d.one([[d.size(-3, 3)], [dim]], [[d.size(-3, 3)]], [[1, 2], [0, dim]]),
        "repeat": [[d.size(1, 2) for _ in range(len(shape) + d.size(0, 1))]],
        "tile": [[d.size(1, 2) for _ in range(d.size(1, 4))]],
    }
    return call(f"{name}.default", value, *rest[name])


@draws("index_select")
def index_select(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    dim = d.dim(shape)
    return call("index_select.default", d.any(*shape), dim, d.whole(d.size(), low=0, high=shape[dim], structure=d.one(None, 1.0)))


@draws("slice_scatter select_scatter")
def into(d: Draw, name: str) -> Drawn:
    shape = list(d.shape())
    dim = d.dice.randrange(len(shape))
    start = d.dice.randrange(shape[dim])
    inner = shape[:dim] + ([] if name == "select_scatter" else [shape[dim] - start]) + shape[dim + 1 :]
    rest = [dim, start] + ([] if name == "select_scatter" else [None])
    return call(f"{name}.default", d.any(*shape), d.any(*inner), *rest)


@draws("im2col")
def im2col(d: Draw, name: str) -> Drawn:
    return call("im2col.default", d.floats(1, 2, 4, 4, kind=torch.float32), [2, 2], [1, 1], [d.size(0, 1), 0], [1, 2])


@draws("pixel_shuffle")
def pixel_shuffle(d: Draw, name: str) -> Drawn:
    return call("pixel_shuffle.default", d.any(2, 4, 2, 3), 2)


@draws("constant_pad_nd pad reflection_pad1d replication_pad1d")
def padded(d: Draw, name: str) -> Drawn:
    if name.endswith("1d"):
        return call(f"{name}.default", d.floats(2, 2, 4), [d.size(0, 2), d.size(0, 2)])
    value, by = d.any(2, 3, 4), [d.size(-1, 2) for _ in range(d.one(2, 4))]
    number = d.one(0, 1, 0.1, -1e9, float("-inf")) if value.real.is_floating_point() else d.one(0, 1)
    if name == "pad" and d.dice.random() < 0.4:
        return call("pad.default", d.floats(2, 3, 4), [d.size(0, 2), d.size(0, 2)], d.one("reflect", "replicate", "circular"))
    return call(f"{name}.default", value, by, *(["constant", d.one(None, float(number))] if name == "pad" else [number]))


def indices(d: Draw, shape: tuple[int, ...]) -> list[Any]:
    share = d.one(1.0, 1.0, None)
    if d.dice.random() < 0.15:
        return [d.truth(*shape[: d.size(1, len(shape))], structure=1.0)]
    common = d.shape(1, 2, 3)
    return [
        d.one(None, True) and d.whole(*d.thinned(common), low=d.one(0, -size), high=size, structure=share)
        for size in shape[: d.size(1, len(shape))]
    ]


@draws("index")
def index(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    listed = indices(d, shape)
    return call("index.Tensor", d.any(*shape), listed if any(item is not None for item in listed) else [d.whole(2, low=0, high=1)])


@draws("index_put")
def index_put(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    listed = indices(d, shape)
    if all(item is None for item in listed):
        listed = [d.whole(2, low=0, high=shape[0])]
    places = torch.zeros(shape)[tuple(slice(None) if item is None else item.real for item in listed)].shape
    return call(
        "index_put.default",
        d.floats(*shape, kind=torch.float32),
        listed,
        d.floats(*d.thinned(places), kind=torch.float32),
        d.one(False, False, True),
    )


@draws("gather take_along_dim take")
def gathered(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    dim = d.dim(shape)
    if name == "take":
        return call(
            "take.default",
            d.any(*shape),
            d.whole(*d.shape(), low=0, high=int(torch.tensor(shape).prod()), structure=d.one(None, 1.0)),
        )
    sizes = [d.size() if i == dim % len(shape) else d.size(1, size) if name == "gather" else size for i, size in enumerate(shape)]
    which = d.whole(*sizes, low=0, high=shape[dim], structure=d.one(None, 1.0))
    return (
        call("gather.default", d.any(*shape), dim, which)
        if name == "gather"
        else call("take_along_dim.default", d.any(*shape), which, dim)
    )


@draws("embedding")
def embedding(d: Draw, name: str) -> Drawn:
    return call("embedding.default", d.floats(4, 3), d.whole(*d.shape(), low=0, high=4, structure=d.one(None, 1.0)))


@draws("scatter scatter_add scatter_reduce")
def scattered(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    dim = d.dim(shape)
    sizes = [d.size(1, size) for size in shape]
    sizes[dim] = d.size()
    target, which = d.floats(*shape, kind=torch.float32), d.whole(*sizes, low=0, high=shape[dim], structure=d.one(None, 1.0))
    source = d.floats(*(size + d.size(0, 1) for size in sizes), kind=torch.float32)
    if name == "scatter_add":
        return call("scatter_add.default", target, dim, which, source)
    if name == "scatter_reduce":
        return call("scatter_reduce.two", target, dim, which, source, d.one("sum", "amax", "mean"), include_self=d.one(True, False))
    return d.one(call("scatter.src", target, dim, which, source), call("scatter.value", target, dim, which, 1.0))


@draws("index_add index_copy index_fill")
def by_index(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    dim = d.dim(shape)
    which = d.whole(d.size(), low=0, high=shape[dim], structure=d.one(None, 1.0))
    if name == "index_fill":
        target = d.floats(*shape)
        return d.one(
            call("index_fill.int_Scalar", target, dim, which, 1.0),
            call("index_fill.int_Tensor", target, dim, which, d.floats(kind=target.real.dtype)),
        )
    inner = [which.real.shape[0] if i == dim % len(shape) else size for i, size in enumerate(shape)]
    return call(f"{name}.default", d.floats(*shape, kind=torch.float32), dim, which, d.floats(*inner, kind=torch.float32))


@draws("masked_scatter")
def masked_scatter(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    return call(
        "masked_scatter.default", d.floats(*shape, kind=torch.float32), d.truth(*shape), d.floats(*shape, kind=torch.float32)
    )


@draws("one_hot")
def one_hot(d: Draw, name: str) -> Drawn:
    return call("one_hot.default", d.whole(*d.shape(), low=0, high=4), 4)


@draws("glu")
def glu(d: Draw, name: str) -> Drawn:
    return call("glu.default", d.floats(4, 2, 4), d.one(0, -1, 2))


@draws("diff")
def diff(d: Draw, name: str) -> Drawn:
    shape = d.shape()
    more = {"append": d.floats(*shape, kind=torch.float32)} if d.dice.random() < 0.2 else {}
    return call("diff.default", d.floats(*shape, kind=torch.float32), d.one(1, 1, 2), d.dim(shape), **more)


@draws(
    "all any amax amin aminmax argmax argmin count_nonzero linalg_norm linalg_vector_norm logsumexp mean nansum norm prod std sum var std_mean var_mean max min"
)
def reduced(d: Draw, name: str) -> Drawn:
    shape = d.shape(0 if name in ("sum", "amax", "all") else 1, 3)
    kind = (
        d.one(d.floats, d.floats, d.whole) if name in ("sum", "max", "amax", "any", "all", "count_nonzero", "argmax") else d.floats
    )
    value, keep = kind(*shape), d.one(True, False)
    dim = d.dim(shape) if shape else 0
    dims = d.dice.sample(range(len(shape)), d.size(1, len(shape))) if shape else []
    forms = {
        "all": [call("all.default", value), call("all.dim", value, dim, keep)],
        "any": [call("any.default", value), call("any.dims", value, d.one(None, dims), keep)],
        "aminmax": [call("aminmax.default", value, dim=d.one(None, dim), keepdim=keep)],
        "argmax": [call("argmax.default", value, d.one(None, dim), keep)],
        "argmin": [call("argmin.default", value, d.one(None, dim), keep)],
        "count_nonzero": [call("count_nonzero.default", value), call("count_nonzero.dim_IntList", value, dims)],
        "linalg_norm": [call("linalg_norm.default", value, None, [dim], keep)],
        "linalg_vector_norm": [call("linalg_vector_norm.default", value, d.one(2, 1, 0, float("inf")), d.one(None, dims), keep)],
        "mean": [call("mean.default", value), call("mean.dim", value, d.one(None, [], dims), keep)],
        "nansum": [call("nansum.default", value, d.one(None, dims), keep)],
        "norm": [call("norm.Scalar", value), call("norm.ScalarOpt_dim", value, d.one(None, 1), dims, keep)],
        "prod": [call("prod.default", value), call("prod.dim_int", value, dim, keep)],
        "sum": [call("sum.default", value), call("sum.dim_IntList", value, d.one(None, [], dims), keep)],
        "std": [
            call("std.default", value),
            call("std.dim", value, dims, True, keep),
            call("std.correction", value, dims, correction=0),
        ],
        "var": [call("var.default", value), call("var.correction", value, d.one(None, dims), correction=1, keepdim=keep)],
        "std_mean": [call("std_mean.correction", value, dims, correction=0, keepdim=keep)],
        "var_mean": [call("var_mean.dim", value, dims, True, keep)],
        "max": [call("max.default", value), call("max.dim", value, dim, keep), call("max.other", value, kind(*d.thinned(shape)))],
        "min": [call("min.default", value), call("min.dim", value, dim, keep), call("min.other", value, kind(*d.thinned(shape)))],
    }
    return d.one(*forms.get(name, [call(f"{name}.default", value, dims, keep)]))


@draws("sort argsort topk cummax cummin cumsum cumprod logcumsumexp log_softmax _log_softmax fft_fft fft_ifft fft_rfft fft_irfft")
def along_dim(d: Draw, name: str) -> Drawn:
    shape = d.shape(1, 3)
    kind = d.one(d.floats, d.floats, d.whole) if name in ("sort", "argsort", "topk", "cumsum", "cummax") else d.floats
    value, dim = kind(*shape), d.dim(shape)
    if name in ("sort", "argsort") and d.one(True, False):
        return call(f"{name}.stable", value, stable=True, dim=dim, descending=d.one(True, False))
    if name in ("log_softmax",):
        return call("log_softmax.int", value, dim, d.one(None, torch.float64))
    more = {"topk": [d.size(1, shape[dim]), dim], "_log_softmax": [dim, False]}
    return call(f"{name}.default", value, *more.get(name, [None, dim] if name.startswith("fft") else [dim]))


def scores(d: Draw, *shape: int, dtype: torch.dtype = torch.float32) -> Operand:
    """Some are minus infinity, some masked by a large negative number, which is only a hint."""
    made = d.floats(*shape, kind=dtype, structure=d.one(0.0, 0.4))
    if d.one(True, False):
        return made
    low = d.plane(shape, lambda size: d.uniform(size) < 0.4)
    usual, depth = made.spread, d.one(1.0, 1e3, 1e9, 1e9)
    shifted = lambda size: torch.where(low, usual(size) - depth, usual(size))  # noqa: E731
    planes = made.value.planes
    sunk = low & made.value.unknown
    value = type(made.value)((*planes[:4], sunk, planes[5]))
    return Operand(value, torch.where(made.value.unknown, shifted(shape).to(dtype), made.real), shifted)


@draws("softmax _softmax")
def softmax(d: Draw, name: str) -> Drawn:
    shape = d.shape(1, 3)
    dtype = d.one(torch.float32, torch.float32, torch.float64, torch.bfloat16)
    rest = [False] if name == "_softmax" else []
    if name == "softmax" and d.one(True, False):
        return Drawn("softmax.int", [], {"self": scores(d, *shape, dtype=dtype), "dim": d.dim(shape)})
    return Drawn(
        "softmax.int" if name == "softmax" else "_softmax.default",
        [scores(d, *shape, dtype=dtype), d.dim(shape), *rest],
        {},
        d.one(None, torch.bfloat16),
    )


@draws("layer_norm rms_norm")
def norm(d: Draw, name: str) -> Drawn:
    shape = d.shape(1, 3)
    inner = list(shape[-d.size(1, len(shape)) :])
    affine = [d.one(None, True) and d.floats(*inner, kind=torch.float32) for _ in range(2 if name == "layer_norm" else 1)]
    return call(f"{name}.default", d.floats(*shape, kind=torch.float32), inner, *affine)


@draws("group_norm")
def group_norm(d: Draw, name: str) -> Drawn:
    return call(
        "group_norm.default", d.floats(3, 4, 2, kind=torch.float32), 2, *(d.floats(4, kind=torch.float32) for _ in range(2))
    )


@draws("batch_norm _native_batch_norm_legit_no_training")
def batch_norm(d: Draw, name: str) -> Drawn:
    shape = d.shape(2, 3)
    value, *rest = d.floats(*shape, kind=torch.float32), *(d.floats(shape[1], kind=torch.float32) for _ in range(4))
    if name == "batch_norm":
        return call("batch_norm.default", value, *rest, False, 0.1, 1e-5, False)
    return call(f"{name}.default", value, *rest, 0.1, 1e-5)


@draws("conv1d conv2d convolution conv_transpose1d")
def convolution(d: Draw, name: str) -> Drawn:
    count = 2 if name == "conv2d" else 1
    groups = d.one(1, 1, 2)
    kernel = [d.size(1, 3) for _ in range(count)]
    stride, padding, dilation = [d.size(1, 2)] * count, [d.size(0, 2)] * count, [d.size(1, 2)] * count
    value = d.floats(2, 2 * groups, *([6] if count == 1 else [5, 5]), kind=torch.float32)
    if name == "conv_transpose1d":
        return call(
            "conv_transpose1d.default",
            value,
            d.floats(2 * groups, 2, *kernel, kind=torch.float32),
            None,
            stride,
            padding,
            [0],
            groups,
        )
    weight, bias = (
        d.floats(2 * groups, 2, *kernel, kind=torch.float32),
        d.one(None, True) and d.floats(2 * groups, kind=torch.float32),
    )
    if name == "convolution":
        return call("convolution.default", value, weight, bias, stride, padding, dilation, False, [0], groups)
    if d.dice.random() < 0.3:
        return call(f"{name}.padding", value, weight, bias, [1] * count, d.one("same", "valid"), dilation, groups)
    return call(f"{name}.default", value, weight, bias, stride, padding, dilation, groups)


@draws("max_pool1d max_pool2d avg_pool1d avg_pool2d adaptive_avg_pool1d upsample_linear1d upsample_nearest1d")
def pooled(d: Draw, name: str) -> Drawn:
    if (not name.endswith("pool1d") and not name.endswith("pool2d")) or name.startswith("adaptive"):
        return call(
            f"{name}.default",
            d.floats(2, 2, 6, kind=torch.float32),
            [d.size(1, 8)],
            *([d.one(True, False)] if "linear" in name else []),
        )
    count = int(name[-2])
    value = d.floats(2, 2, *[6] * count, kind=torch.float32)
    kernel = [d.size(2, 3)] * count
    rest = [d.one([], [d.size(1, 3)] * count), [d.size(0, 1)] * count]
    return call(f"{name}.default", value, kernel, *rest, *([[1] * count] if "max" in name else []), d.one(True, False))


@draws("matmul mm bmm mv dot linear addmm baddbmm addmv outer addbmm inner kron tensordot")
def product(d: Draw, name: str) -> Drawn:
    m, k, n, b = (d.size(1, 4) for _ in range(4))
    kind = d.one(torch.float32, torch.float32, torch.float64, torch.bfloat16)
    f = lambda *shape: d.floats(*shape, kind=kind)  # noqa: E731
    batch = d.shape(0, 2)
    forms: dict[str, Callable[[], list[Any]]] = {
        "matmul": lambda: [f(*d.one([k], [m, k], [*d.thinned(batch), m, k])), f(*d.one([k], [k, n], [*d.thinned(batch), k, n]))],
        "mm": lambda: [f(m, k), f(k, n)],
        "bmm": lambda: [f(b, m, k), f(b, k, n)],
        "mv": lambda: [f(m, k), f(k)],
        "dot": lambda: [f(k), f(k)],
        "linear": lambda: [f(*batch, k), f(*d.one([n, k], [n, k], [k])), None],
        "addmm": lambda: [f(*d.thinned((m, n))), f(m, k), f(k, n)],
        "baddbmm": lambda: [f(*d.thinned((b, m, n))), f(b, m, k), f(b, k, n)],
        "addmv": lambda: [f(*d.one([m], [1])), f(m, k), f(k)],
        "outer": lambda: [f(m), f(n)],
        "addbmm": lambda: [f(*d.thinned((m, n))), f(b, m, k), f(b, k, n)],
        "inner": lambda: [f(*batch, k), f(m, k)],
        "kron": lambda: [f(m, k), f(k, n)],
        "tensordot": lambda: [f(m, k, n), f(k, b, n), *d.one([[1], [0]], [[2, 1], [2, 0]])],
    }
    args = forms[name]()
    if name == "linear" and len(args[1].real.shape) == 2:
        args[2] = d.one(None, True) and f(n)
    return Drawn(f"{name}.default", args, {}, d.one(None, None, torch.bfloat16))


@draws("einsum")
def einsum(d: Draw, name: str) -> Drawn:
    sizes = {label: d.size(1, 4) for label in "abcd"}
    sides = ["".join(d.dice.sample("abcd", d.size(1, 3))) for _ in range(d.size(1, 3))]
    used = sorted(set("".join(sides)))
    out = "".join(d.dice.sample(used, d.size(0, len(used))))
    operands = [d.floats(*(1 if d.dice.random() < 0.1 else sizes[label] for label in side), kind=torch.float32) for side in sides]
    dots = d.dice.random() < 0.3
    if dots:
        more = d.shape(0, 2)
        operands = [d.floats(*d.thinned(more), *(sizes[label] for label in side), kind=torch.float32) for side in sides]
    mark = "..." if dots else ""
    return Drawn(
        "einsum.default", [",".join(mark + side for side in sides) + "->" + mark + out, operands], {}, d.one(None, torch.bfloat16)
    )


@draws("scaled_dot_product_attention")
def attention(d: Draw, name: str) -> Drawn:
    heads, queries, keys, size = d.one(1, 2, 4), d.size(1, 5), d.size(1, 5), d.one(2, 4, 8)
    shared = d.one(heads, 1) if heads > 1 else heads
    batch = d.shape(1, 1)
    f = lambda *shape: d.floats(*shape, kind=torch.float32, structure=d.one(0.0, 0.0, 0.2))  # noqa: E731
    q, k, v = f(*batch, heads, queries, size), *(f(*batch, shared, keys, size) for _ in range(2))
    pairs = d.thinned((*batch, heads, queries, keys), 0.3)
    pairs = pairs if len(pairs) > 1 else (queries, keys)
    mask, causal = d.one((None, True), (None, False), (d.truth(*pairs), False), (scores(d, *pairs), False))
    more = {"enable_gqa": True} if shared != heads else {}
    if d.dice.random() < 0.3:
        more["scale"] = d.one(0.1, 1.0, -3.0)
    if d.one(True, False):
        return Drawn(
            "scaled_dot_product_attention.default",
            [],
            {"query": q, "key": k, "value": v, "attn_mask": mask, "is_causal": causal} | more,
        )
    return Drawn("scaled_dot_product_attention.default", [q, k, v, mask, 0.0, causal], more, d.one(None, torch.bfloat16))


@draws("cdist pairwise_distance cosine_similarity isin bucketize searchsorted")
def compared(d: Draw, name: str) -> Drawn:
    shape = d.shape(2, 2)
    left, right = d.floats(*shape, kind=torch.float32), d.floats(*shape, kind=torch.float32)
    if name in ("bucketize", "searchsorted"):
        line = d.floats(4, kind=torch.float32)
        return call("bucketize.Tensor", left, line) if name == "bucketize" else call("searchsorted.Tensor", line, left)
    return call("isin.Tensor_Tensor" if name == "isin" else f"{name}.default", left, right)


@draws("lstm gru rnn_relu rnn_tanh")
def recurrent(d: Draw, name: str) -> Drawn:
    gates = {"lstm": 4, "gru": 3}.get(name, 1)
    layers, both, first, size, width = d.one(1, 1, 2), d.dice.random() < 0.2, d.one(True, False), 2, 3
    rows, length = d.size(1, 3), d.size(1, 4)
    value = d.floats(*((rows, length) if first else (length, rows)), width, kind=torch.float32)
    state = [d.floats(layers * (2 if both else 1), rows, size, kind=torch.float32) for _ in range(2 if name == "lstm" else 1)]
    weights = []
    for layer in range(layers):
        for _ in range(2 if both else 1):
            inner = width if layer == 0 else size * (2 if both else 1)
            shapes = [(gates * size, inner), (gates * size, size), (gates * size,), (gates * size,)]
            weights += [d.floats(*shape, kind=torch.float32) for shape in shapes]
    return call(f"{name}.input", value, state if name == "lstm" else state[0], weights, True, layers, 0.0, False, both, first)


@draws("lstm_cell gru_cell")
def cell(d: Draw, name: str) -> Drawn:
    gates, rows = (4 if name == "lstm_cell" else 3), d.size(1, 3)
    states = [d.floats(rows, 2, kind=torch.float32) for _ in range(2)]
    weights = [d.floats(gates * 2, inner, kind=torch.float32) for inner in (3, 2)]
    return call(f"{name}.default", d.floats(rows, 3, kind=torch.float32), states if name == "lstm_cell" else states[0], *weights)


@draws("arange eye full linspace logspace ones scalar_tensor zeros")
def made(d: Draw, name: str) -> Drawn:
    size = d.size(1, 4)
    if name in ("linspace", "logspace") and d.one(True, False):
        return call(f"{name}.Tensor_Tensor", d.floats(), d.floats(), size)
    rest = {"full": [[size], 0.5], "linspace": [0.0, 1.0, size], "logspace": [0.0, 1.0, size], "ones": [[size]], "zeros": [[size]]}
    return call(f"{name}.default", *rest.get(name, [size]))
