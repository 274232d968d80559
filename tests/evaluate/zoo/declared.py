"""A model of the zoo as the evaluator gets it: declared by the harness, read back, with its tensors. The one place that exports."""

import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn as nn

from autoresearch_mcp.evaluate.archive import Declaration, read_declaration
from zoo.parts import MODELS, ROOT, SHAPE

os.environ["AUTORESEARCH_PRESET"] = "tiny"
sys.path.insert(0, str(ROOT / "harness"))
import export


@dataclass
class Declared:
    module: nn.Module
    declaration: Declaration
    tensors: dict[str, torch.Tensor]
    """All by name: parameters, buffers and constants."""


@cache
def declared(name: str, peek: bool) -> Declared:
    """The model of that name, or its twin. Raises RefusedError where the evaluator would, RuntimeError where torch.export does."""
    module = MODELS[name].build(peek)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export, about its own future
        path = Path(folder) / "declaration.safetensors"
        said = export.declare(module, path, SHAPE)
        declaration = read_declaration(path, SHAPE, "cpu")
    constants = {name: declaration.values[name] for name, spec in said.tensors.items() if spec["kind"] == "constant"}
    return Declared(module, declaration, export.trained(module, said) | constants)
