"""Graphs for tests: written by hand, or traced from a module as the harness does it."""

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["AUTORESEARCH_PRESET"] = "tiny"
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "harness"))
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import export

TOKENS = {"name": "t", "op": "tokens", "of": None}
W = {"name": "w", "op": "tensor", "of": "w"}
OUTPUT = {"name": "output", "op": "output", "args": [{"ref": "x"}]}


def call(operator: str, *args: object, name: str = "x", **kwargs: object) -> dict[str, object]:
    """A node that calls an operator."""
    return {"name": name, "op": operator, "args": list(args), "kwargs": kwargs, "autocast": None}


def spec(*shape: int, dtype: str = "float32", kind: str = "parameter") -> dict[str, object]:
    """How a tensor is declared."""
    return {"shape": list(shape), "dtype": dtype, "kind": kind}


def written(*nodes: object, shape: tuple[int, int], **changes: object) -> dict[str, object]:
    """A graph by hand: tokens "t", a parameter "w" of shape (4, 6), the nodes, and "x" as the output."""
    graph = {"format": 2, "shape": list(shape), "autocast": None, "tensors": {"w": spec(4, 6)}}
    return graph | {"nodes": [TOKENS, W, *nodes, OUTPUT]} | changes


def declare(graph: object, tensors: dict[str, torch.Tensor], path: Path) -> Path:
    """Writes a declaration file: the graph, and the values of what is not a parameter."""
    kinds = graph["tensors"] if isinstance(graph, dict) else {}
    kept = {name: value for name, value in tensors.items() if kinds.get(name, {}).get("kind") != "parameter"}
    save_file(kept, path, metadata={"graph": json.dumps(graph)})
    return path


def traced(model: nn.Module, shape: tuple[int, int]) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """The graph that declaring `model` writes, and all its tensors by name."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "declaration"
        declared = export.declare(model, path, shape)
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["graph"]), declared.constants | export.trained(model, declared)


def bits(logits: torch.Tensor) -> torch.Tensor:
    """As whole numbers, so that -0 is not 0; every NaN is the same."""
    return torch.where(logits.isnan(), torch.nan, logits.float()).view(torch.int32)
