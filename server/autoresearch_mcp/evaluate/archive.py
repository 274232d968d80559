"""Turns what a run hands over into a model that can be run without trusting it.

Two safetensors files. The declaration comes before the training data: the graph as JSON, and the values of all buffers and
constants. The submission comes after training: the tensors that the graph has names for, and nothing else. Nothing is code and
nothing is unpickled; what is called are the operators of operators.py. So a model cannot keep state between batches, and what
it computes is a function of its tensors and its tokens. The price: whatever torch.export cannot trace cannot be scored.
"""

# safetensors tells no types.
# pyright: reportUnknownVariableType=false

import hashlib
import json
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.bounds import check_bounds
from autoresearch_mcp.evaluate.graph import MAX_BYTES, Graph, TensorSpec, filled, parse_graph, shown
from autoresearch_mcp.evaluate.guards import Guard

MAX_HEADER = 64 * 2**20  # bytes of JSON; a node has some 150
FREE_CONSTANT_BYTES = 8 * 2**10  # of constants that the proof does not use, such as scalars; too little to carry anything


class GraphError(Exception):
    """A step failed. `explanation` is PyTorch's own and may name values, so of sealed tokens too: only whoever chose the tokens
    can say whether it may be shown. str() is safe."""

    def __init__(self, node: str, operator: str, explanation: str):
        super().__init__(f"the model's graph fails in {operator}")
        self.node, self.operator, self.explanation = node, operator, explanation


@dataclass
class Declaration:
    """A model before training: its graph, and the values of its buffers and constants, on the CPU."""

    graph: Graph
    values: dict[str, torch.Tensor]


class GraphModel:
    """A model that is called with int64 tokens (B, T) of the graph's shape. Raises GraphError, or what a guard raises."""

    def __init__(self, graph: Graph, tensors: dict[str, torch.Tensor], device: str, guards: Mapping[str, Guard] | None = None):
        self._graph, self._kind, self._guards = graph, torch.device(device).type, guards or {}
        self._fixed = {node: tensors[name] for node, name in graph.inputs.items()}
        self._last_uses = graph.last_uses()

    def __call__(self, tokens: torch.Tensor) -> Any:
        values: dict[str, Any] = dict(self._fixed)
        if self._graph.tokens is not None:
            values[self._graph.tokens] = tokens
        with torch.no_grad(), _always_the_same():
            for step, last in zip(self._graph.steps, self._last_uses, strict=True):
                args, kwargs = filled(step.args, values), filled(step.kwargs, values)
                guard = self._guards.get(step.name)
                try:
                    # Without autocast a context that switches it off costs little and keeps one way of calling.
                    with torch.autocast(self._kind, dtype=step.autocast, enabled=step.autocast is not None):
                        values[step.name] = guard(step.call, args, kwargs) if guard else step.call(*args, **kwargs)
                except (torch.OutOfMemoryError, RefusedError):
                    raise
                except Exception as error:  # whatever PyTorch raises; the cause is left out, it may name values
                    explanation = str(error).strip() or type(error).__name__
                    raise GraphError(step.name, step.operator, explanation.splitlines()[0][:300]) from None
                del args, kwargs  # or they would keep alive what is dropped now
                for name in last:
                    del values[name]
        return filled(self._graph.output, values)


def read_declaration(path: Path, shape: tuple[int, int], device: str) -> Declaration:
    """The model as declared, for tokens of `shape` (batch, sequence length). Raises RefusedError with what to change."""
    with _opened(path) as archive:
        header: dict[str, str] = archive.metadata() or {}
        try:
            content: Any = json.loads(header.get("graph", ""))
        except (ValueError, RecursionError) as error:
            raise RefusedError("the declaration carries no model graph. Declare with declare(model) of prepare.py") from error
        graph = parse_graph(content, shape, device)
        check_bounds(graph, device)
        expected = {name: spec for name, spec in graph.tensors.items() if spec.kind != "parameter"}
        return Declaration(graph, dict(_read(archive, expected)))


def check_constants(declaration: Declaration, pinned: frozenset[str]) -> None:
    """Refuses a model that holds data as constants. Those whose values the proof used, `pinned`, do not count."""
    free = [
        value.nbytes
        for name, value in declaration.values.items()
        if declaration.graph.tensors[name].kind == "constant" and name not in pinned
    ]
    if sum(free) > FREE_CONSTANT_BYTES:
        raise RefusedError(
            f"the model has {sum(free)} bytes of tensors that are neither parameters nor buffers; {FREE_CONSTANT_BYTES} are the "
            "most. Make them buffers with register_buffer, or compute them in forward"
        )


def read_submission(
    path: Path, declaration: Declaration, committed: Mapping[str, str], pinned: frozenset[str], device: str
) -> dict[str, torch.Tensor]:
    """All tensors of the trained model by name, on `device`. Raises RefusedError with what to change.

    `committed`: for each parameter and buffer the SHA-256 of its bytes when training ended. `pinned`: tensors whose declared
    values the proof of causality used, which must be those still. Constants are those of the declaration.
    """
    expected = {name: spec for name, spec in declaration.graph.tensors.items() if spec.kind != "constant"}
    tensors = {name: value.to(device) for name, value in declaration.values.items() if name not in expected}
    with _opened(path) as archive:
        for name, value in _read(archive, expected):
            found = _digest(value)
            if found != committed.get(name):
                raise RefusedError(
                    f"the tensor {shown(name)} is not the one that the model had when training ended. Call evaluate_bpb once, "
                    "with the model as it was trained"
                )
            if name in pinned and (name not in declaration.values or found != _digest(declaration.values[name])):
                raise RefusedError(
                    f"the buffer {shown(name)} is not what it was when the model was declared, and the proof that the model is "
                    "causal needs its values: masks and positions must not change in training"
                )
            tensors[name] = value.to(device)
    return tensors


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    """A safetensors file of bounded size. RefusedError for anything else, also while it is read."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise RefusedError("what was handed over is no plain file. Use prepare.py as it is")
        if found.st_size > MAX_BYTES + MAX_HEADER:
            raise RefusedError(f"the model's file is larger than {MAX_BYTES >> 30} GiB")
        with path.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > MAX_HEADER:
                raise RefusedError(f"the model's file is no safetensors file with a header of at most {MAX_HEADER >> 20} MiB")
        with safe_open(path, framework="pt", device="cpu") as archive:
            yield archive
    except (SafetensorError, OSError, ValueError) as error:
        raise RefusedError(f"the model's file is no safetensors file ({str(error)[:200]!a}). Use prepare.py as it is") from error


def _read(archive: Any, expected: Mapping[str, TensorSpec]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file, copied, if they are just the `expected` ones in name, shape and dtype."""
    names: set[str] = set(archive.keys())
    if names != set(expected):
        missing, more = sorted(expected.keys() - names), sorted(names - expected.keys())
        wrong = f"lacks the tensor {shown(missing[0])}" if missing else f"has the tensor {shown(more[0])}, which is not declared"
        raise RefusedError(f"the model's file {wrong}. A model keeps the tensors it was declared with: declare its final form")
    for name, spec in expected.items():
        shape = tuple(archive.get_slice(name).get_shape())
        if shape != spec.shape:
            raise RefusedError(f"the tensor {shown(name)} has shape {list(shape)} and was declared as {list(spec.shape)}")
        value: torch.Tensor = archive.get_tensor(name).clone()  # the file's own memory could change under us
        if value.dtype != spec.dtype or value.layout != torch.strided:
            raise RefusedError(f"the tensor {shown(name)} is of {value.dtype} and was declared as {spec.dtype}")
        yield name, value


def _digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes, as export.py says it for the run."""
    return hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()


@contextmanager
def _always_the_same() -> Generator[None]:
    """Operators run in a fixed order where PyTorch can: what is written twice to one place gets the same value each time."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
