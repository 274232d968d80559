"""Which operators a scored model may use, and with which arguments.

All are pure functions of their arguments: none draws random numbers, keeps state, changes a tensor in place, reads memory that
was never written, touches files, or gives a result whose shape depends on values. A call is checked against the schema that
PyTorch has for its operator, so that nothing is converted silently and no kernel meets a type it was not made for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from autoresearch_mcp.errors import RefusedError

# Pure operators of ATen, by name without overload.
OPERATORS = frozenset(
    """
    abs acos acosh add addbmm addcdiv addcmul addmm alias all amax amin any arange argmax argmin argsort asin asinh atan
    atan2 atanh avg_pool1d avg_pool2d baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor bmm broadcast_to bucketize cat ceil celu chunk clamp clamp_max clamp_min clone column_stack concat
    constant_pad_nd contiguous conv1d conv2d convolution copysign cos cosh count_nonzero cumprod cumsum detach diag diagonal
    diff div dot einsum elu embedding eq erf erfc exp exp2 expand expand_as expm1 eye fft_fft fft_ifft fft_irfft fft_rfft
    fill flatten flip floor floor_divide fmax fmin fmod full full_like gather ge gelu glu group_norm gt hardsigmoid
    hardswish hardtanh hstack index index_add index_copy index_put index_select isfinite isinf isnan layer_norm le
    leaky_relu lerp lift_fresh_copy linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp logaddexp2
    logcumsumexp logical_and logical_not logical_or logical_xor logsumexp lt masked_fill masked_scatter matmul
    max max_pool1d maximum mean min minimum mish mm movedim mul mv narrow native_group_norm native_layer_norm ne neg
    new_full new_ones new_zeros norm one_hot ones ones_like outer pad permute pixel_shuffle pow prelu prod real
    reciprocal relu relu6 remainder repeat repeat_interleave reshape rms_norm roll rot90 round rsqrt rsub scalar_tensor
    scaled_dot_product_attention scatter scatter_add scatter_reduce select select_scatter selu sgn sigmoid sign silu sin
    sinh slice slice_scatter softmax softplus sort split split_with_sizes sqrt square squeeze stack std sub sum t take
    take_along_dim tan tanh tensor_split tile to topk transpose tril triu true_divide trunc type_as unbind unflatten unfold
    unsafe_chunk unsafe_split unsqueeze upsample_nearest1d var view view_as vstack where xlogy zeros zeros_like
    __and__ __or__ __xor__ _fused_rms_norm _log_softmax _safe_softmax _softmax _to_copy _unsafe_view
    """.split()  # noqa: SIM905
)
IGNORED = frozenset({"aten._assert_tensor_metadata.default", "aten._assert_async.msg", "aten._assert_scalar.default"})


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

    def objection(self, args: list[Any], kwargs: dict[str, Any]) -> str | None:
        """What is wrong with the arguments of a call, or None."""
        return None


def find(name: str) -> Operator:
    """The operator of that name. Raises RefusedError for all that are not listed."""
    if name == "getitem":
        return Operator(name, _getitem, "tensor")
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "aten" or parts[1] not in OPERATORS:
        raise RefusedError(
            f"the model uses the operator {ascii(name[:100])}, which is not allowed when it is scored: its forward in eval mode "
            "must be plain, deterministic PyTorch without state, random numbers or custom kernels"
        )
    operator = getattr(getattr(torch.ops.aten, parts[1]), parts[2], None)
    if not isinstance(operator, torch._ops.OpOverload) or operator._schema.is_mutable:
        raise RefusedError(f"the model uses the operator {ascii(name[:100])}, which this PyTorch does not have as a pure function")
    returns = operator._schema.returns
    return Operator(name, operator, "tensor" if len(returns) == 1 and str(returns[0].real_type) == "Tensor" else "list")


def _getitem(value: Any, index: int) -> Any:
    return value[index]
