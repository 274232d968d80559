"""
The read-only file that turns a trained model into what is scored: one safetensors file, weights as tensors and the ATen graph
as JSON in its header. No pickle and no code leaves the run, so whoever reads the file executes nothing of it.

The graph comes from torch.export at one fixed shape. The price: what torch.export cannot trace (control flow that depends on
data, custom kernels) cannot be scored; give such a model a forward in plain PyTorch for eval mode. prepare.evaluate_bpb calls
this; what the evaluator then lets pass (listed operators, causal models) is decided there, not here.
"""

import hashlib
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file


def digests(model) -> list[str]:
    """SHA-256 of every parameter and buffer: what the run commits itself to when training ends."""
    return sorted({tensor_digest(tensor) for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()})


def tensor_digest(tensor) -> str:
    """SHA-256 of a tensor's bytes, whatever its shape and type."""
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def export_model(model, path: Path, shape: tuple[int, int]) -> None:
    """Writes `model`, which maps int64 tokens (B, T) of `shape` to logits, to `path`. RuntimeError says what stands in the way."""
    program, autocast = _trace(model, shape)
    inputs, tensors = _bind(program)
    encoder = _Encoder(inputs, next(model.parameters()).device.type)
    output = encoder.encode_module(program.graph_module, [{"ref": node["name"]} for node in inputs])
    nodes = [*encoder.nodes, {"name": "output", "op": "output", "args": [output]}]
    graph = {"format": 1, "shape": list(shape), "autocast": autocast, "nodes": nodes}
    save_file(tensors, path, metadata={"graph": json.dumps(graph)})


class _Logits(torch.nn.Module):
    """The model called with tokens alone, whatever else its forward takes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens)


def _trace(model, shape: tuple[int, int]):
    """The exported program, and the precision of the autocast around us or None."""
    device = next(model.parameters()).device
    tokens = torch.zeros(shape, dtype=torch.int64, device=device)
    autocast = _name(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else None
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            program = torch.export.export(_Logits(model), (tokens,), strict=False)
            if any(getattr(node.target, "_schema", None) and node.target._schema.is_mutable for node in program.graph.nodes):
                program = program.run_decompositions({})  # in-place operators become plain ones
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise RuntimeError(f"torch.export failed: {type(error).__name__}: {first}") from error
    mutated = [spec.target for spec in program.graph_signature.output_specs if spec.kind.name != "USER_OUTPUT"]
    if mutated:
        raise RuntimeError(f"torch.export failed: the forward changes {mutated[0]}; a model must keep no state between calls")
    return program, autocast


def _bind(program) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """What stands for each placeholder (the tokens or a tensor of the file), and those tensors by name."""
    inputs = []
    tensors: dict[str, torch.Tensor] = {}
    by_storage: dict[tuple, str] = {}  # tied weights are stored once
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            inputs.append({"name": spec.arg.name, "op": "tokens", "of": None})
            continue
        value = program.state_dict.get(spec.target)
        if value is None:
            value = program.constants[spec.target]
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if key not in by_storage:
            by_storage[key] = spec.target
            # A view of a larger storage is copied: safetensors would refuse shared memory.
            tensors[spec.target] = value.detach().cpu().contiguous().clone()
        inputs.append({"name": spec.arg.name, "op": "tensor", "of": by_storage[key]})
    return inputs, tensors


class _Encoder:
    """Writes operators down as JSON, in order. Blocks of autocast are written out in place: their operators say which precision
    they run in ("off" for a block that switches it off)."""

    def __init__(self, inputs: list[dict], device_type: str):
        self.nodes = list(inputs)
        self._device_type = device_type

    def encode_module(self, module, inputs: list, prefix: str = "", autocast: str | None = None):
        """Appends the module's operators to `nodes` and returns its output."""
        values = {}  # name of a node -> how others refer to it
        waiting = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node.name] = next(waiting)
            elif node.op == "get_attr":
                values[node.name] = getattr(module, node.target)  # a block, used by the node that follows
            elif node.op == "call_function":
                values[node.name] = self._call(node, values, prefix, autocast)
            elif node.op == "output":
                results = _as_json(node.args[0], values)
                return results[0] if prefix == "" and len(results) == 1 else results
        raise RuntimeError("torch.export failed: the graph has no output")

    def _call(self, node, values: dict, prefix: str, autocast: str | None):
        """What others refer to for the result of one call: a new operator's, a block's, or one of a block's results."""
        operator = getattr(node.target, "__name__", str(node.target))
        if operator == "wrap_with_autocast":
            _, dtype, enabled, _, block, *given = node.args
            precision = _name(dtype or torch.get_autocast_dtype(self._device_type)) if enabled else "off"
            return self.encode_module(values[block.name], _as_json(given, values), f"{prefix}{node.name}.", precision)
        if operator == "wrap_with_set_grad_enabled":
            _, block, *given = node.args
            return self.encode_module(values[block.name], _as_json(given, values), f"{prefix}{node.name}.", autocast)
        if operator == "getitem" and isinstance(values[node.args[0].name], list):
            return values[node.args[0].name][node.args[1]]
        if operator != "getitem" and not isinstance(node.target, torch._ops.OpOverload):
            raise RuntimeError(f"torch.export failed: the graph has {operator}; give eval mode a forward in plain PyTorch")
        name = prefix + node.name
        overload = str(node.target) if operator != "getitem" else operator
        kwargs = {key: _as_json(value, values) for key, value in node.kwargs.items()}
        arguments = _as_json(node.args, values)
        self.nodes.append({"name": name, "op": overload, "args": arguments, "kwargs": kwargs, "autocast": autocast})
        return {"ref": name}


def _as_json(value, values: dict):
    """An argument as JSON; nodes become references."""
    if isinstance(value, torch.fx.Node):
        return values[value.name]
    if isinstance(value, (list, tuple)):
        return [_as_json(item, values) for item in value]
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        return {type(value).__name__: _name(value)}
    if isinstance(value, torch.device):
        return {"device": "run"}  # the evaluator's own device takes its place
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise RuntimeError(f"torch.export failed: the graph has a {type(value).__name__} where a constant is needed")


def _name(constant) -> str:
    """A torch constant's name without the module's: "bfloat16"."""
    return str(constant).removeprefix("torch.")
