"""Turns a submitted model file into something that can be run without trusting it.

The file is one safetensors file: weights as raw tensors, and in its header, as JSON, the ATen graph that torch.export traced.
Nothing in it is code and nothing is unpickled: this module reads the graph node by node and calls only the operators listed
here, none of which changes a tensor in place, draws random numbers, or touches files. So a model cannot keep state between
batches, and what it computes is a function of its weights and its input tokens.
"""

# What json.loads gives has no type before it is checked, and checking it is what this module does.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from autoresearch_mcp.errors import RefusedError

FORMAT = 1
MAX_NODES = 200_000
MAX_BYTES = 16 * 2**30
FREE_CONSTANT_BYTES = 1 << 16  # of tensors that tracing makes, such as scalars; too little to carry trained weights

# Pure operators of ATen, by name without overload. Left out on purpose: everything random, in place, sparse, quantised,
# reading or writing files, or whose result depends on memory that was never written (empty, resize).
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
    logcumsumexp logical_and logical_not logical_or logical_xor logsumexp lt masked_fill masked_scatter masked_select matmul
    max max_pool1d maximum mean min minimum mish mm movedim mul mv narrow native_group_norm native_layer_norm ne neg
    new_full new_ones new_zeros nonzero norm one_hot ones ones_like outer pad permute pixel_shuffle pow prelu prod real
    reciprocal relu relu6 remainder repeat repeat_interleave reshape rms_norm roll rot90 round rsqrt rsub scalar_tensor
    scaled_dot_product_attention scatter scatter_add scatter_reduce select select_scatter selu sgn sigmoid sign silu sin
    sinh slice slice_scatter softmax softplus sort split split_with_sizes sqrt square squeeze stack std sub sum t take
    take_along_dim tan tanh tensor_split tile to topk transpose tril triu true_divide trunc type_as unbind unflatten unfold
    unsafe_chunk unsafe_split unsqueeze upsample_nearest1d var view view_as vstack where xlogy zeros zeros_like
    __and__ __or__ __xor__ _fused_rms_norm _log_softmax _safe_softmax _softmax _to_copy _unsafe_index _unsafe_view
    """.split()  # noqa: SIM905
)
IGNORED = frozenset({"aten._assert_tensor_metadata.default", "aten._assert_async.msg", "aten._assert_scalar.default"})

Graph = dict[str, Any]


@dataclass
class _Step:
    name: str
    call: Callable[..., Any]
    args: Any
    kwargs: dict[str, Any]
    autocast: torch.dtype | None
    last_use_of: list[str]
    """Values nobody needs after this step; they are dropped to free memory."""


@dataclass(frozen=True)
class _Ref:
    name: str


class GraphModel:
    """A submitted model: call it with int64 tokens (B, T) of the fixed shape."""

    def __init__(self, graph: Graph, tensors: dict[str, torch.Tensor], device: str):
        self._device = device
        self._autocast = graph.get("autocast")
        self._fixed: dict[str, torch.Tensor] = {}
        self._tokens: str | None = None
        self._steps: list[_Step] = []
        self._output: Any = None
        self._read_nodes(graph["nodes"], tensors)
        self._mark_last_uses()

    def __call__(self, tokens: torch.Tensor) -> Any:
        values: dict[str, Any] = dict(self._fixed)
        if self._tokens is not None:
            values[self._tokens] = tokens
        kind = torch.device(self._device).type
        with torch.no_grad():
            for step in self._steps:
                try:
                    # Without autocast a context that switches it off costs little and keeps one way of calling.
                    with torch.autocast(kind, dtype=step.autocast, enabled=step.autocast is not None):
                        values[step.name] = step.call(*_fill(step.args, values), **_fill(step.kwargs, values))
                except (RuntimeError, TypeError, ValueError, IndexError, KeyError, NotImplementedError) as error:
                    if isinstance(error, torch.OutOfMemoryError):
                        raise
                    first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
                    raise RefusedError(f"the model's graph fails at node {step.name[:80]}: {first}") from error
                for name in step.last_use_of:
                    del values[name]
        output = _fill(self._output, values)
        return output[0] if isinstance(output, list) and len(output) == 1 else output

    def _read_nodes(self, nodes: list[dict[str, Any]], tensors: dict[str, torch.Tensor]) -> None:
        known: set[str] = set()
        for node in nodes:
            name, operator = str(node["name"]), str(node["op"])
            if operator == "tokens":
                self._tokens = name
            elif operator == "tensor":
                if node["of"] not in tensors:
                    raise RefusedError(f"the model's graph uses the tensor {str(node['of'])[:80]!r}, which the file does not have")
                self._fixed[name] = tensors[node["of"]]
            elif operator == "output":
                (self._output,) = self._decode(node["args"], known)
                continue
            elif operator in IGNORED:
                continue
            else:
                args, kwargs = self._decode(node["args"], known), self._decode_dict(node["kwargs"], known)
                precision = _autocast_dtype(node.get("autocast") or self._autocast)
                self._steps.append(_Step(name, _operator(operator, args, kwargs), args, kwargs, precision, []))
            known.add(name)
        if self._output is None:
            raise RefusedError("the model's graph has no output")

    def _decode(self, value: Any, known: set[str]) -> Any:
        match value:
            case {"ref": str(name)}:
                if name not in known:
                    raise RefusedError(f"the model's graph uses {name[:80]!r} before it exists")
                return _Ref(name)
            case {"device": _}:
                return torch.device(self._device)
            case {"dtype": str(name)} | {"memory_format": str(name)} | {"layout": str(name)}:
                found = getattr(torch, name, None)
                if not isinstance(found, torch.dtype | torch.memory_format | torch.layout):
                    raise RefusedError(f"the model's graph names {name[:80]!r}, which is no dtype, layout or memory format")
                return found
            case {"float": "inf" | "-inf" | "nan" as text}:
                return float(text)
            case list():
                return [self._decode(item, known) for item in value]
            case None | bool() | int() | float() | str():
                return value
            case _:
                raise RefusedError("the model's graph has an argument of an unknown kind")

    def _decode_dict(self, value: Any, known: set[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise RefusedError("the model's graph has arguments of an unknown kind")
        return {str(key): self._decode(item, known) for key, item in value.items()}

    def _mark_last_uses(self) -> None:
        needed = set(_refs(self._output)) | set(self._fixed)
        for step in reversed(self._steps):
            for name in {step.name, *_refs(step.args), *_refs(step.kwargs)} - needed:
                step.last_use_of.append(name)
                needed.add(name)


def _operator(name: str, args: Any, kwargs: dict[str, Any]) -> Callable[..., Any]:
    """The callable for an operator's name. Raises RefusedError for all that are not listed."""
    if name == "getitem":
        return _getitem
    parts = name.split(".")
    if len(parts) == 3 and parts[0] == "aten" and parts[1] == "dropout":
        if len(args) == 3 and args[2] is False:
            return _first
        raise RefusedError("the model drops out at random when it is scored; call model.eval() and honour it in forward")
    if len(parts) != 3 or parts[0] != "aten" or parts[1] not in OPERATORS:
        raise RefusedError(
            f"the model uses the operator {name[:100]}, which is not allowed when it is scored: its forward in eval mode must be "
            "plain, deterministic PyTorch without state, random numbers or custom kernels"
        )
    try:
        operator = getattr(getattr(torch.ops.aten, parts[1]), parts[2])
    except AttributeError as error:
        raise RefusedError(f"the model uses the operator {name[:100]}, which this PyTorch does not have") from error
    if not isinstance(operator, torch._ops.OpOverload) or operator._schema.is_mutable:
        raise RefusedError(f"the model uses {name[:100]}, which changes a tensor in place; a scored model keeps no state")
    return operator


def _getitem(value: Any, index: Any) -> Any:
    if not isinstance(value, list | tuple) or not isinstance(index, int):
        raise RefusedError("the model's graph takes an item of something that is no list")
    return value[index]


def _first(value: Any, *_: Any) -> Any:
    return value


def _fill(value: Any, values: dict[str, Any]) -> Any:
    if isinstance(value, _Ref):
        return values[value.name]
    if isinstance(value, list):
        return [_fill(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _fill(item, values) for key, item in value.items()}
    return value


def _refs(value: Any) -> list[str]:
    if isinstance(value, _Ref):
        return [value.name]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [name for item in items for name in _refs(item)]


def _autocast_dtype(name: Any) -> torch.dtype | None:
    if name is None or name == "off":
        return None
    if name not in ("bfloat16", "float16"):
        raise RefusedError(f"the model asks for autocast to {str(name)[:40]!r}; use bfloat16 or float16")
    return getattr(torch, name)


def _check_committed(tensors: dict[str, torch.Tensor], committed: frozenset[str]) -> None:
    """Refuses weights that are not those the run had when training ended; small constants of the graph are free."""
    free = 0
    for name, tensor in tensors.items():
        flat = tensor.cpu().contiguous().flatten().view(torch.uint8)
        if tensor.numel() and hashlib.sha256(flat.numpy().data).hexdigest() not in committed:
            free += flat.numel()
            if free > FREE_CONSTANT_BYTES:
                raise RefusedError(
                    f"the tensor {name[:80]!r} of the submitted model is not one that the model had when training ended. Call "
                    "evaluate_bpb once, with the model as it was trained; compute large constants before training, as buffers"
                )


def load_model(path: Path, device: str, shape: tuple[int, int], committed: frozenset[str] | None = None) -> GraphModel:
    """Reads a submission for tokens of `shape` (batch, sequence length). Raises RefusedError with what to change.

    `committed`: SHA-256 of the tensors that the run had when training ended; None where that is not to be checked.
    """
    if path.stat().st_size > MAX_BYTES:
        raise RefusedError(f"the submitted model is larger than {MAX_BYTES >> 30} GiB")
    try:
        with safe_open(path, framework="pt", device=device) as archive:
            header = (archive.metadata() or {}).get("graph", "")
            tensors: dict[str, torch.Tensor] = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise RefusedError(f"the submitted file is no safetensors file: {str(error)[:200]}. Submit with evaluate_bpb") from error
    if committed is not None:
        _check_committed(tensors, committed)
    try:
        graph: Any = json.loads(header)
        if not isinstance(graph, dict) or graph["format"] != FORMAT or not isinstance(graph["nodes"], list):
            raise ValueError("not a graph of this format")
        given = tuple(graph["shape"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError(f"the submitted file carries no model graph ({error}). Submit with evaluate_bpb") from error
    if given != shape:
        raise RefusedError(f"the model was exported for tokens of shape {given}; it must be {shape}, as evaluate_bpb does it")
    if len(graph["nodes"]) > MAX_NODES:
        raise RefusedError(f"the model's graph has {len(graph['nodes'])} nodes; {MAX_NODES} are the most that is scored")
    try:
        return GraphModel(graph, tensors, device)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RefusedError(f"the model's graph is malformed ({type(error).__name__}). Submit with evaluate_bpb") from error
