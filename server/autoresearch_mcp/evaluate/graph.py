"""Reads the graph of a model that nobody trusts: JSON of format 2 in, checked values out.

Every node, name, tensor and argument is looked at before anything is called: operators are those of operators.py and their
arguments typed by its schemas, names are unique and used after they exist, and nesting, lengths and sizes are bounded. What it
would cost to run is bounded by bounds.py, from shapes alone. What is not as it should be raises RefusedError in words for the
author of train.py, never another exception. Whether the model is causal is not decided here.
"""

# What json.loads gives has no type before it is checked, and checking it is what this module does.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import torch

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.operators import IGNORED, Operator, Ref, find

FORMAT = 2
MAX_NODES = 25_000  # today's train.py has 245; a recurrence unrolled over 512 tokens some 20,000
MAX_TENSORS = 20_000
MAX_BYTES = 16 * 2**30  # of all declared tensors together
MAX_NAME = 200  # characters
MAX_TEXT = 200  # characters of a string argument: the longest that an operator takes is an einsum equation
MAX_DEPTH = 4  # of lists in arguments: the deepest that an operator takes is a list of tensors, which the node's own holds
MAX_ITEMS = 10_000  # of a list in arguments
MAX_RANK = 16

DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PLAIN = {
    "layout": {"strided": torch.strided},
    "memory_format": {
        name: getattr(torch, name) for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
    },
    "dtype": DTYPES,
    "float": {"inf": math.inf, "-inf": -math.inf, "nan": math.nan},
}
"""Arguments that are written as an object of one key: what each name stands for."""

Kind = Literal["parameter", "buffer", "constant"]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as declared. Parameters and buffers may change in training, constants may not."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: Kind


@dataclass(frozen=True)
class Step:
    """One call: `operator` is "aten.add.Tensor" or "getitem"; arguments hold Ref, lists of them, and constants."""

    name: str
    operator: str
    call: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    autocast: torch.dtype | None


@dataclass
class Graph:
    """A checked graph: what goes in by name, the calls in order, and which value is the output."""

    shape: tuple[int, int]
    tokens: str | None
    """The node that stands for int64 tokens (B, T)."""
    inputs: dict[str, str]
    """Node name -> tensor name."""
    tensors: dict[str, TensorSpec]
    steps: list[Step] = field(default_factory=list[Step])
    output: Ref | None = None
    """Never None in a graph that parse_graph returned."""

    def last_uses(self) -> list[list[str]]:
        """For each step, the values that nobody needs after it."""
        needed = set(references(self.output))
        uses: list[list[str]] = []
        for step in reversed(self.steps):
            last = {step.name, *references(step.args), *references(step.kwargs)} - needed
            needed |= last
            uses.append(sorted(last))
        return uses[::-1]


def parse_graph(content: Any, shape: tuple[int, int], device: str) -> Graph:
    """The graph for tokens of `shape` (batch, sequence length), to be run on `device`. Raises RefusedError."""
    fields = _fields(content, {"format", "shape", "autocast", "tensors", "nodes"}, "the graph")
    if type(fields["format"]) is not int or fields["format"] != FORMAT:
        _refuse(f"is not of format {FORMAT}; use the prepare.py and export.py of this workspace as they are")
    if fields["shape"] != list(shape):
        _refuse(f"is for tokens of shape {str(fields['shape'])[:40]}; it must be {list(shape)}, as declare(model) writes it")
    nodes = fields["nodes"]
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES:
        _refuse(f"has no list of at most {MAX_NODES} nodes; loop over fewer steps in forward")
    graph = Graph(shape, None, {}, _tensors(fields["tensors"]))
    reader = _Reader(graph, _precision(fields["autocast"], None), device)
    for node in nodes:
        reader.read(node)
    if graph.tokens is None or graph.output is None:
        _refuse("needs one node for the tokens and one for the output")
    return graph


class _Reader:
    """Reads nodes in order and knows which names exist so far."""

    def __init__(self, graph: Graph, autocast: torch.dtype | None, device: str):
        self._graph, self._autocast, self._device = graph, autocast, torch.device(device)
        self._gives: dict[str, Literal["tensor", "list", "nothing"]] = {}

    def read(self, node: Any) -> None:
        """Adds one node to the graph."""
        operator = node.get("op") if isinstance(node, dict) else None
        if self._graph.output is not None:
            _refuse("goes on after its output")
        if operator in ("tokens", "tensor"):
            self._read_input(_fields(node, {"name", "op", "of"}, "an input"))
        elif operator == "output":
            self._read_output(_fields(node, {"name", "op", "args"}, "the output"))
        elif isinstance(operator, str):
            self._read_call(_fields(node, {"name", "op", "args", "kwargs", "autocast"}, "a node"), operator)
        else:
            _refuse("has a node without an operator's name")

    def _read_input(self, node: dict[str, Any]) -> None:
        name = self._new_name(node["name"])
        if node["op"] == "tensor":
            if not isinstance(node["of"], str) or node["of"] not in self._graph.tensors:
                _refuse(f"uses the tensor {shown(node['of'])}, which is not declared")
            self._graph.inputs[name] = node["of"]
        elif self._graph.tokens is not None or node["of"] is not None:
            _refuse("takes tokens more than once; the model must be callable with tokens alone")
        else:
            self._graph.tokens = name
        self._gives[name] = "tensor"

    def _read_output(self, node: dict[str, Any]) -> None:
        match self._decode(node["args"], {"tensor"}):
            case [Ref() as output] | [[Ref() as output]]:
                self._graph.output = output
            case _:
                _refuse("returns something else than one tensor; return logits alone when called without targets")

    def _read_call(self, node: dict[str, Any], operator: str) -> None:
        name = self._new_name(node["name"])
        if operator in IGNORED:
            self._gives[name] = "nothing"
            return
        found = find(operator)
        allowed = {"list"} if operator == "getitem" else {"tensor"}
        args, kwargs = self._decode(node["args"], allowed), node["kwargs"]
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            _refuse(f"has a call without arguments at node {shown(name)}")
        kwargs = {key: self._decode(value, allowed) for key, value in kwargs.items()}
        self._gives[name] = found.gives
        self._graph.steps.append(self._step(name, found, args, kwargs, _precision(node["autocast"], self._autocast)))

    def _step(self, name: str, operator: Operator, args: list[Any], kwargs: dict[str, Any], autocast: torch.dtype | None) -> Step:
        wrong = operator.objection(args, kwargs)
        if wrong:
            _refuse(f"has the node {shown(name)}, whose {operator.name} {wrong}")
        return Step(name, operator.name, operator.call, args, kwargs, autocast)

    def _new_name(self, name: Any) -> str:
        if not is_name(name):
            _refuse(f"has a node whose name is not 1 to {MAX_NAME} printable characters")
        if name in self._gives:
            _refuse(f"names two nodes {shown(name)}")
        return name

    def _decode(self, value: Any, allowed: set[str], depth: int = 0) -> Any:
        """An argument: objects of one key become what they stand for, references must be to what is `allowed`."""
        if isinstance(value, list):
            if depth == MAX_DEPTH or len(value) > MAX_ITEMS:
                _refuse(f"has arguments nested deeper than {MAX_DEPTH} lists, or a list longer than {MAX_ITEMS}")
            return [self._decode(item, allowed, depth + 1) for item in value]
        if isinstance(value, dict):
            return self._decode_object(value, allowed)
        if isinstance(value, str) and len(value) > MAX_TEXT:
            _refuse(f"has a text of more than {MAX_TEXT} characters as an argument")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            _refuse("has a whole number of more than 64 bits as an argument")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        _refuse("has an argument of an unknown kind")

    def _decode_object(self, value: dict[Any, Any], allowed: set[str]) -> Any:
        if len(value) != 1:
            _refuse("has an argument of an unknown kind")
        ((key, name),) = value.items()
        if not isinstance(name, str) or not (key in PLAIN or key in ("ref", "device")):
            _refuse("has an argument of an unknown kind")
        if key == "device":
            return self._device  # whatever the run had: ours takes its place
        if key == "ref":
            if self._gives.get(name) not in allowed:
                known = name in self._gives
                _refuse(f"uses {shown(name)} as what it is not" if known else f"uses {shown(name)} before it exists")
            return Ref(name)
        if name not in PLAIN[key]:
            _refuse(f"has the {key} {shown(name)}, which is not scored; use one of {', '.join(PLAIN[key])}")
        return PLAIN[key][name]


def references(value: Any) -> list[str]:
    """The names of all nodes that arguments refer to."""
    if isinstance(value, Ref):
        return [value.name]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [name for item in items for name in references(item)]


def filled(value: Any, values: Mapping[str, Any]) -> Any:
    """Arguments with the values that they refer to."""
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, list):
        return [filled(item, values) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, values) for key, item in value.items()}
    return value


def is_name(value: Any) -> bool:
    """Whether a value from outside can stand as a name: bounded, and harmless when shown."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def shown(value: Any) -> str:
    """A value from outside, as it may stand in a message."""
    return ascii(value[:80] if isinstance(value, str) else type(value).__name__)


def _tensors(declared: Any) -> dict[str, TensorSpec]:
    if not isinstance(declared, dict) or len(declared) > MAX_TENSORS:
        _refuse(f"has no table of at most {MAX_TENSORS} tensors")
    specs: dict[str, TensorSpec] = {}
    total = 0
    for name, given in declared.items():
        if not is_name(name):
            _refuse(f"has a tensor whose name is not 1 to {MAX_NAME} printable characters")
        fields = _fields(given, {"shape", "dtype", "kind"}, f"the tensor {shown(name)}")
        shape, dtype, kind = fields["shape"], fields["dtype"], fields["kind"]
        if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
            _refuse(f"has the tensor {shown(name)} without a shape of at most {MAX_RANK} sizes")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            _refuse(f"has the tensor {shown(name)} of dtype {shown(dtype)}; use one of {', '.join(DTYPES)}")
        if kind not in ("parameter", "buffer", "constant"):
            _refuse(f"has the tensor {shown(name)}, which is neither parameter, buffer nor constant")
        specs[name] = TensorSpec(tuple(shape), DTYPES[dtype], kind)
        total += math.prod(shape) * DTYPES[dtype].itemsize
    if total > MAX_BYTES:
        _refuse(f"declares {total / 2**30:.1f} GiB of tensors; {MAX_BYTES >> 30} are the most that is scored")
    return specs


def _precision(name: Any, around: torch.dtype | None) -> torch.dtype | None:
    """The precision of autocast, by name; None means that of the block `around`."""
    if name is None:
        return around
    if name == "off":
        return None
    if not isinstance(name, str) or name not in PRECISIONS:
        _refuse(f"asks for autocast to {shown(name)}; use bfloat16 or float16")
    return PRECISIONS[name]


def _fields(value: Any, names: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != names:
        _refuse(f"is malformed: {what} needs exactly {', '.join(sorted(names))}")
    return value


def _refuse(reason: str) -> NoReturn:
    raise RefusedError(f"the model's graph {reason}")
