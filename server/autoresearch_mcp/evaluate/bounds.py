"""What a graph costs at most, from shapes alone: refused before it runs if it is out of all proportion.

Every call is made on tensors without data (PyTorch's meta device), and whatever operators it is made of are seen one by one
before they happen, so that neither a huge result nor a huge intermediate one is ever allocated. The bounds are a generous net
that no honest model meets; memory and time of real scoring have limits of their own. The price: up to 0.8 ms an operator, 0.2 s
for train.py. All floating-point values count as float32, since shapes do not depend on precision, and a view counts as if it
were a copy.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.graph import Graph, Step, filled, shown

MAX_ELEMENTS = 2**32  # of one value: attention scores of 64 sequences of 2048 tokens and 16 heads, unfused
MAX_LIVE = 2**34  # elements of all values needed at once
MAX_PARTS = 65_536  # tensors that one call gives
MAX_CALLS = 150_000  # operators in all: an LSTM of four layers over 2048 tokens has some 100,000
WORK_PER_TOKEN = {"cpu": 2**32}  # floating-point operations: 30 times those of 70 million weights
WORK_PER_TOKEN_ACCELERATED = 2**37
FREE_WORK = 2**33  # whatever the number of tokens

ATTENTION = "aten.scaled_dot_product_attention.default"
VIEW = "aten.view.default"


def check_bounds(graph: Graph, device: str) -> None:
    """Raises RefusedError where the graph's calls do not fit together or would take too much of anything."""
    values: dict[str, Any] = {
        node: _hollow(graph.tensors[name].shape, graph.tensors[name].dtype) for node, name in graph.inputs.items()
    }
    if graph.tokens is not None:
        values[graph.tokens] = torch.empty(graph.shape, dtype=torch.int64, device="meta")
    meter = _Meter(math.prod(graph.shape) * WORK_PER_TOKEN.get(torch.device(device).type, WORK_PER_TOKEN_ACCELERATED) + FREE_WORK)
    meter.live = sum(map(_elements, values.values()))
    with torch.no_grad(), meter:
        for step, last in zip(graph.steps, graph.last_uses(), strict=True):
            values[step.name] = result = _run(step, values, meter)
            meter.live += sum(map(_elements, _tensors(result)))
            for name in last:
                meter.live -= sum(map(_elements, _tensors(values.pop(name))))


def _run(step: Step, values: dict[str, Any], meter: "_Meter") -> Any:
    meter.within = 0
    args, kwargs = filled(step.args, values), filled(step.kwargs, values)
    try:
        if step.operator == ATTENTION:
            return meter.attention(**_named(step.call, args, kwargs))
        # How a kernel lays its result out in memory, which view depends on, is not known here.
        call = torch.ops.aten.reshape.default if step.operator == VIEW else step.call
        return tree_map(_plain, call(*args, **kwargs))
    except RefusedError as error:
        raise RefusedError(f"the model's graph at node {shown(step.name)} ({step.operator}) {error}") from None
    except Exception as error:  # whatever a kernel of PyTorch raises for shapes that do not fit
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise RefusedError(f"the model's graph fails at node {shown(step.name)} ({step.operator}): {first}") from error


class _Meter(TorchDispatchMode):
    """Sees every operator before and after it runs without data, and keeps count."""

    def __init__(self, work: int):
        super().__init__()
        self.live = self.within = 0
        self._calls, self._work_left = 0, work

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if "device" in _names(func):
            kwargs["device"] = torch.device("meta")
        self._before(func, _named(func, args, kwargs))
        result = func(*args, **kwargs)
        self._after(func, args, kwargs, result)
        return result

    def attention(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
        """Fused attention, which never holds its scores as a whole; the meta device would take it apart."""
        if min(query.dim(), key.dim(), value.dim()) < 2:
            raise RefusedError("needs queries, keys and values of at least two dimensions")
        result = query.new_empty((*query.shape[:-1], value.shape[-1]))
        self._spend(2 * _elements(query) * key.shape[-2] + 2 * _elements(result) * key.shape[-2])
        return result

    def _before(self, func: Any, given: dict[str, Any]) -> None:
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise RefusedError(f"makes more than {MAX_CALLS} calls in all; loop over fewer steps in forward")
        name = func._schema.name.removeprefix("aten::")
        if name.startswith("_linalg") or (name.startswith("linalg_") and name != "linalg_vector_norm"):
            raise RefusedError("takes a matrix apart, which is not scored; use a norm over one dimension")
        if name in ("unbind", "split", "unsafe_split") and _parts(given) > MAX_PARTS:
            raise RefusedError(f"gives more than {MAX_PARTS} tensors")

    def _after(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        results = _tensors(result)
        largest = max(map(_elements, results), default=0)
        if largest > MAX_ELEMENTS:
            raise RefusedError(f"makes a tensor of {largest} elements; {MAX_ELEMENTS} are the most that is scored")
        made = sum(map(_elements, results))
        self.within += made
        if self.live + self.within > MAX_LIVE:
            raise RefusedError(f"needs more than {MAX_LIVE} elements at once, which is more than is scored")
        formula = flop_registry.get(func._overloadpacket)
        self._spend(int(formula(*args, **kwargs, out_val=result)) if formula else made * _window(func, args))

    def _spend(self, work: int) -> None:
        self._work_left -= work
        if self._work_left < 0:
            raise RefusedError("brings the work of one batch beyond what is scored, by far; make the model smaller")


def _window(func: Any, args: Sequence[Any]) -> int:
    """How many elements go into one of the result, for operators where that is not plain."""
    name = func._schema.name
    if "pool" in name and len(args) > 1:
        return math.prod(args[1])
    if "cdist" in name:
        return args[0].shape[-1]
    return max((1, *(_elements(tensor) // 2**20 for tensor in _tensors(args))))  # what is read counts too, little


def _parts(given: dict[str, Any]) -> int:
    """Into how many tensors unbind(self, dim) or split(self, split_size, dim) takes a tensor apart, at most."""
    size = given.get("split_size", 1)
    return math.ceil(given["self"].shape[given.get("dim", 0)] / max(size, 1)) if isinstance(size, int) else len(size)


def _named(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names that the operator's schema gives them."""
    return dict(zip(_names(func), args, strict=False)) | kwargs


@cache
def _names(func: Any) -> tuple[str, ...]:
    return tuple(argument.name for argument in func._schema.arguments)


def _hollow(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32 if dtype.is_floating_point else dtype, device="meta")


def _plain(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _elements(tensor: torch.Tensor) -> int:
    return tensor.numel()
