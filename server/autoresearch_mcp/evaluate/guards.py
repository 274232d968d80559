"""What scoring enforces so that a dependency which the proof stopped is stopped in floating-point numbers too.

A structural zero stops nothing by itself: 0 x inf is NaN, 0 x -3 is -0.0, and 1 / -0.0 is -inf, each of which carries a bit of
what was masked. A guard performs one call of the graph in place of the interpreter, with the real operands, and either makes the
result what the proof says (known elements are written, zeros get a plus sign) or refuses, in constant words, since it has seen
sealed tokens.

Price: about one pass over a result; the walk places a guard only where it stopped a dependency.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from autoresearch_mcp.errors import RefusedError

Guard = Callable[[Callable[..., Any], list[Any], dict[str, Any]], Any]
"""Makes a step's call with these arguments and enforces what the proof relies on. Raises RefusedError."""

LARGEST = 1e30  # of a product q.k by its bound; what lies above may become infinite on its way through a fused kernel
MARGIN = {torch.float64: 800.0}  # exp of minus that is exactly 0, also where small numbers are flushed
USUAL_MARGIN = 128.0


def positioned(call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call in the order of its schema, as far as it takes them by place: a graph may name any of them."""
    assert isinstance(call, torch._ops.OpOverload)
    named, args = dict(kwargs), list(args)
    for argument in call._schema.arguments[len(args) :]:
        if argument.kwarg_only or not named.keys() & {later.name for later in call._schema.arguments if not later.kwarg_only}:
            break
        args.append(named.pop(argument.name, argument.default_value))
    return args, named


@dataclass
class _Guard:
    node: str
    _placed: dict[tuple[int, str], torch.Tensor] = field(
        default_factory=dict[tuple[int, str], torch.Tensor], init=False, repr=False
    )

    def on(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A tensor of the proof where the model runs; moved once."""
        key = id(tensor), str(device)
        if key not in self._placed:
            self._placed[key] = tensor.to(device)
        return self._placed[key]

    def need(self, holds: torch.Tensor | bool, what: str) -> None:
        if not bool(holds):
            raise RefusedError(
                f"at node {self.node[:80]} the proof of causality needs {what}, and with the trained weights it does not hold; "
                "keep activations in a moderate range, and mask with boolean masks or -inf"
            )


@dataclass
class Recall(_Guard):
    """A constant of the graph: the proof used these values, and other hardware may round them otherwise."""

    value: torch.Tensor

    def __call__(self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        result: torch.Tensor = call(*args, **kwargs)
        return self.on(self.value, result.device).to(result.dtype).expand(result.shape)


@dataclass
class Write(_Guard):
    """Writes known elements: what 0 x inf or inf - inf would have made of them depends on what they hide."""

    known: torch.Tensor
    value: torch.Tensor

    def __call__(self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        result: torch.Tensor = call(*args, **kwargs)
        value = self.on(self.value, result.device).to(result.dtype)
        return torch.where(self.on(self.known, result.device), value, result)


@dataclass
class Finite(_Guard):
    """A contraction in which structural zeros meet other values: a finite sum shows that no product was inf or NaN."""

    def __call__(self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        result: torch.Tensor = call(*args, **kwargs)
        self.need(result.isfinite().all(), "finite results of a product with a mask")
        return result + 0.0  # x + -0.0 differs from x + 0.0 in nothing but the sign of a zero


@dataclass
class Softmax(_Guard):
    """Masked entries get probability 0: those masked by large negative numbers only if it would underflow anyway."""

    masked: torch.Tensor
    finite: bool
    dim: int

    def __call__(self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        args, kwargs = positioned(call, args, kwargs)
        scores, masked = args[0], self.on(self.masked, args[0].device)
        if self.finite:
            seen = scores.masked_fill(masked, -torch.inf)
            hidden = scores.masked_fill(~masked, -torch.inf).amax(self.dim)
            clear = hidden + MARGIN.get(scores.dtype, USUAL_MARGIN) < seen.amax(self.dim)
            self.need((clear | (hidden == -torch.inf)).all(), "masked scores so low that their probability is exactly 0")
            args = [seen, *args[1:]]
        result: torch.Tensor = call(*args, **kwargs)
        return result.masked_fill(masked, 0.0)


@dataclass
class Attention(_Guard):
    """Fused attention under a mask: operands finite, products q.k bounded, masked biases -inf, a finite result, its zeros plus."""

    sunk: torch.Tensor | None
    """Where a float mask is a large negative number instead of -inf."""

    def __call__(self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        args, kwargs = positioned(call, args, kwargs)
        query, key, value = args[:3]
        scale = kwargs.get("scale")
        largest = torch.stack([tensor.detach().abs().amax().double() for tensor in (query, key, value)])
        factor = query.shape[-1] * abs(query.shape[-1] ** -0.5 if scale is None else scale)
        bound = largest[0] * largest[1] * max(factor, query.shape[-1], 1.0)
        self.need(largest.isfinite().all() & (bound < LARGEST), "finite queries, keys and values")
        if self.sunk is not None:
            sunk = self.on(self.sunk, query.device)
            mask: torch.Tensor = args[3]
            seen = mask.masked_fill(sunk, -torch.inf)
            hidden = mask.masked_fill(~sunk, -torch.inf).amax(-1).double()
            clear = hidden + 2 * bound + 800.0 < seen.amax(-1).double()
            self.need((clear | (hidden == -torch.inf)).all(), "masked scores so low that their probability is exactly 0")
            args = [*args[:3], seen, *args[4:]]
        result: torch.Tensor = call(*args, **kwargs)
        self.need(result.isfinite().all(), "finite results of attention")
        return result + 0.0


@dataclass
class Direct(_Guard):
    """A convolution by definition: fast algorithms (Winograd, FFT) mix neighbouring outputs and cancel them but for rounding."""

    def __call__(self, call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        with torch.backends.cudnn.flags(enabled=False):
            return call(*args, **kwargs)
