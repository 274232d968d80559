"""Which operators a scored model may use, and with which arguments.

All are pure functions of their arguments: none draws random numbers, keeps state, changes a tensor in place, reads memory that
was never written, touches files, or gives a result whose shape depends on values. A call is checked against the schema that
PyTorch has for its operator, so that nothing is converted silently and no kernel meets a type it was not made for. Operators
that write to the same place more than once (scatter, index_put) stay: GraphModel runs them in a fixed order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import torch

from autoresearch_mcp.errors import RefusedError

# By name without overload. tests/evaluate/plain.py says which PyTorch needs them.
OPERATORS = frozenset(
    """
    abs acos acosh adaptive_avg_pool1d add addbmm addcdiv addcmul addmm addmv alias all alpha_dropout amax amin aminmax any
    arange argmax argmin argsort asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d baddbmm
    batch_norm bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm broadcast_tensors
    broadcast_to bucketize cartesian_prod cat cdist ceil celu chunk clamp clamp_max clamp_min clip clone column_stack complex
    concat constant_pad_nd contiguous conv1d conv2d conv_transpose1d convolution copy copysign cos cosh cosine_similarity
    count_nonzero cummax cummin cumprod cumsum detach diag diag_embed diagonal diff div dot dropout dsplit dstack einsum elu
    embedding eq erf erfc exp exp2 expand expand_as expm1 eye feature_alpha_dropout feature_dropout fft_fft fft_ifft fft_irfft
    fft_rfft fill flatten flip fliplr float_power floor floor_divide fmax fmin fmod frac full full_like gather ge gelu glu
    group_norm gru gru_cell gt hardshrink hardsigmoid hardswish hardtanh heaviside hsplit hstack hypot im2col imag index
    index_add index_copy index_fill index_put index_select inner isclose isfinite isin isinf isnan kron layer_norm le
    leaky_relu lerp lgamma lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid
    log_softmax logaddexp logaddexp2 logcumsumexp logical_and logical_not logical_or logical_xor logspace logsumexp lstm
    lstm_cell lt mT masked_fill masked_scatter matmul max max_pool1d max_pool2d maximum mean meshgrid min minimum mish mm
    movedim mul multiply mv nan_to_num nansum narrow ne neg negative new_full new_ones new_zeros norm
    numpy_T one_hot ones ones_like outer pad pairwise_distance permute pixel_shuffle polar positive pow prelu prod ravel
    real reciprocal reflection_pad1d relu relu6 remainder repeat repeat_interleave replication_pad1d reshape rms_norm
    rnn_relu rnn_tanh roll rot90 round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add
    scatter_reduce searchsorted select select_scatter selu sgn sigmoid sign silu sin sinc sinh slice slice_scatter softmax
    softplus softshrink sort special_erfinv special_expit split split_with_sizes sqrt square squeeze stack std std_mean sub
    subtract sum swapaxes swapdims t take take_along_dim tan tanh tensor_split tensordot threshold tile to topk trace
    transpose tril triu true_divide trunc type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze
    upsample_linear1d upsample_nearest1d var var_mean view view_as view_as_complex view_as_real vsplit vstack where xlogy
    zeros zeros_like __and__ __lshift__ __or__ __rshift__ __xor__ _log_softmax
    _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_view
    """.split()  # noqa: SIM905
)
IGNORED = frozenset(
    f"aten.{name}"
    for name in ("_assert_async.default", "_assert_async.msg", "_assert_scalar.default", "_assert_tensor_metadata.default")
)
"""Checks of the author's own, which give nothing."""

_SHAPE = "its result has a shape that depends on values"
_REASONS = {
    f"{_SHAPE}; use torch.where, masked_fill or a multiplication by the mask": "masked_select nonzero nonzero_numpy "
    "nonzero_static argwhere unique_consecutive _unique2 unique_dim",
    f"{_SHAPE}; use one_hot(x, num_classes) and a sum": "bincount histc",
    f"{_SHAPE}; give the number of repeats as a number, or index with a fixed tensor": "repeat_interleave.Tensor "
    "repeat_interleave.self_Tensor",
    f"{_SHAPE}; give the places to split at as numbers": "tensor_split.tensor_indices_or_sections",
    f"{_SHAPE}; give it a padded batch": "lstm.data gru.data rnn_tanh.data rnn_relu.data",
    "it makes a value of a tensor a number of Python; keep it a tensor of one element": "item _local_scalar_dense is_nonzero equal",
    "it reaches into memory by offsets; use view, unfold, narrow or slices": "as_strided as_strided_copy as_strided_scatter set_ "
    "resize resize_",
    "it gives memory that was never written; use zeros": "empty empty_like empty_permuted empty_strided new_empty "
    "new_empty_strided",
    "it reads the bits of one type as another's; use x.to(dtype)": "view.dtype",
    "it is random; in eval mode a model must give the same for the same tokens": "rand rand_like randn randn_like randint "
    "randint_like randperm normal bernoulli multinomial native_dropout rrelu rrelu_with_noise poisson exponential uniform",
}
INSTEAD = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Operators and overloads that cannot be scored and are met in honest models: why not, and what to write instead."""

FIXED: dict[str, tuple[Any, str]] = {
    "dropout_p": (0, "drops out at random when it is scored: give 0.0 unless self.training"),
    "train": (False, "drops out at random when it is scored: call model.eval() and honour it in forward"),
    "training": (False, "learns from what it sees when it is scored: call model.eval() and honour it in forward"),
    "pin_memory": (False, "asks for pinned memory: leave pin_memory out"),
    "sparse_grad": (False, "asks for sparse gradients: leave sparse_grad out"),
    "sorter": (None, "has a sorter: sort the sequence first"),
    "generator": (None, "is random"),
}
"""Arguments that must be one value, or left out where that is their default, in whatever operator has them."""
CHOICES = frozenset(
    """
    none tanh sum prod mean amax amin trunc floor constant reflect replicate circular ij xy same valid left right forward
    backward ortho
    """.split()  # noqa: SIM905
)
"""Strings that operators take; an einsum's equation comes besides."""
EQUATION = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,-> ")
MAX_SIZES = 32  # of a list of numbers: sizes, dimensions, paddings
MAX_PARTS = 4096  # of a list of places to split at
MOST = {"sections": MAX_PARTS, "chunks": MAX_PARTS, "num_layers": 1024}
"""Counts that kernels allocate or loop by, whatever the shapes."""


@dataclass(frozen=True)
class Ref:
    """An argument that another node of the graph computes."""

    name: str


@dataclass(frozen=True)
class Operator:
    """An operator by its name in the graph, what to call, and what a call gives."""

    name: str
    call: Callable[..., Any]
    gives: Literal["tensor", "list"]
    schema: Any = None
    """PyTorch's own; None for getitem."""

    def objection(self, args: list[Any], kwargs: dict[str, Any]) -> str | None:
        """What is wrong with the arguments of a call, as the end of a sentence; None if nothing is."""
        if self.schema is None:
            one_item = len(args) == 2 and isinstance(args[0], Ref) and type(args[1]) is int and not kwargs
            return None if one_item else "takes something else than one item of a list"
        expected = self.schema.arguments
        places = [argument.name for argument in expected if not argument.kwarg_only]
        given = dict(zip(places, args, strict=False)) | kwargs
        if len(args) > len(places) or len(given) < len(args) + len(kwargs) or not given.keys() <= {a.name for a in expected}:
            return "has arguments that its schema does not have"
        for argument in expected:
            if argument.name not in given:
                if not argument.has_default_value():
                    return f"lacks the argument {argument.name}"
                value = argument.default_value
            else:
                value = given[argument.name]
                if not _fits(value, str(argument.real_type), argument.N, self.name):
                    return f"has an argument {argument.name} that is no {argument.real_type} of the kind it takes"
            if isinstance(value, int) and value > MOST.get(argument.name, value):
                return f"has {argument.name} above {MOST[argument.name]}"
            if argument.name in FIXED and value is not None and value != FIXED[argument.name][0]:
                return FIXED[argument.name][1]
        return None


@cache
def find(name: str) -> Operator:
    """The operator of that name. Raises RefusedError for all that are not listed."""
    if name == "getitem":
        return Operator(name, _getitem, "tensor")
    room, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    instead = INSTEAD.get(rest) or INSTEAD.get(packet) if room == "aten" else None
    if instead:
        raise RefusedError(f"the model uses the operator {name[:100]}, which cannot be scored: {instead}")
    if room != "aten" or packet not in OPERATORS or not overload:
        raise RefusedError(
            f"the model uses the operator {name[:100]!a}, which is not allowed when it is scored: its forward in eval mode must "
            "be plain, deterministic PyTorch without state, random numbers or custom kernels"
        )
    found = getattr(getattr(torch.ops.aten, packet), overload, None)
    if not isinstance(found, torch._ops.OpOverload) or found._schema.is_mutable:
        raise RefusedError(f"the model uses the operator {name[:100]!a}, which PyTorch does not have as a pure function")
    returns = [str(value.real_type) for value in found._schema.returns]
    if not set(returns) <= {"Tensor", "List[Tensor]"} or not returns:
        raise RefusedError(f"the model uses the operator {name[:100]!a}, which gives something else than tensors")
    call = _batch_norm if packet == "_native_batch_norm_legit_no_training" else cast("Callable[..., Any]", found)
    return Operator(name, call, "tensor" if returns == ["Tensor"] else "list", found._schema)


def _fits(value: Any, kind: str, length: int | None, operator: str) -> bool:
    """Whether a value may stand where the schema says `kind`; `length` where one number may stand for a list of them."""
    if kind.startswith("Optional["):
        return value is None or _fits(value, kind[len("Optional[") : -1], length, operator)
    if kind.startswith("List["):
        inner = kind[len("List[") : -1]
        if not isinstance(value, list):
            return length is not None and _fits(value, inner, None, operator)
        items = cast("list[Any]", value)
        bound = None if "Tensor" in inner else MAX_PARTS if "split" in operator else MAX_SIZES
        return (bound is None or len(items) <= bound) and all(_fits(item, inner, None, operator) for item in items)
    if kind == "str":
        return type(value) is str and (value in CHOICES or (operator.startswith("aten.einsum.") and set(value) <= EQUATION))
    return type(value) in _TYPES.get(kind, ())


_TYPES: dict[str, tuple[type, ...]] = {
    "Tensor": (Ref, int, float, bool),  # PyTorch makes a tensor of a number: x * 2 is aten.mul.Tensor(x, 2)
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "number": (int, float, bool),
    "ScalarType": (torch.dtype,),
    "Layout": (torch.layout,),
    "Device": (torch.device,),
    "MemoryFormat": (torch.memory_format,),
}


def _getitem(value: list[Any] | tuple[Any, ...], index: int) -> Any:
    return value[index]


def _batch_norm(x: torch.Tensor, *args: Any) -> Any:
    """The form that an in-place operator elsewhere in the model leaves of batch_norm: its kernel trusts the sizes given."""
    if x.dim() < 2 or any(isinstance(given, torch.Tensor) and given.shape != x.shape[1:2] for given in args):
        raise ValueError("weight, bias, mean and variance must have one element a channel")
    return torch.ops.aten._native_batch_norm_legit_no_training.default(x, *args)
