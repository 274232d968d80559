"""
The read-only file that turns a model into what is scored, in two parts. Before there is training data `declare` writes the model's
graph (the ATen operators that torch.export traces, as JSON) with the name, shape and type of every tensor in it. After training
`submit` writes tensors of those names, and nothing else: so no weight can travel in the graph, and nothing is left to trace.

The graph holds for one fixed shape. The price: what torch.export cannot trace (control flow that depends on data, custom kernels)
cannot be scored; give such a model a forward in plain PyTorch for eval mode. prepare.py calls this; what the evaluator then lets
pass (listed operators, causal models) is decided there, not here. No pickle and no code leaves the run.
"""

import hashlib
import json
import math
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel


@dataclass
class Declared:
    """What the run committed itself to."""

    tensors: dict[str, dict]
    """By name: {"shape": list, "dtype": "float32", "kind": "parameter", "buffer" or "constant"}."""
    constants: dict[str, torch.Tensor]
    """Their values. They travel with the graph and never again."""
    ties: dict[str, str]
    """By name: the name of the tensor that it is another name of."""
    autocast: str | None


def declare(model, path: Path, shape: tuple[int, int]) -> Declared:
    """Writes the graph of `model`, which maps int64 tokens (B, T) of `shape` to logits, to `path`, with the values of buffers and
    constants: masks, positions and the like, by which the evaluator may prove what the model cannot see. RuntimeError says what
    stands in the way.
    """
    model = _plain(model)
    modes = [(module, module.training) for module in model.modules()]
    program, autocast = _trace(model.eval(), shape)
    for module, training in modes:
        module.training = training
    inputs, declared, values = _bind(program, autocast)
    found = _tensors(model)
    by_tensor = {id(found[name]): name for name in declared.tensors if name in found}
    others = {name: by_tensor.get(id(tensor)) for name, tensor in found.items() if name not in declared.tensors}
    declared.ties = {name: tied_to for name, tied_to in others.items() if tied_to is not None}
    encoder = _Encoder(inputs, _device(model).type)
    output = encoder.encode_module(program.graph_module, [{"ref": spec.arg.name} for spec in program.graph_signature.input_specs])
    nodes = [*encoder.nodes, {"name": "output", "op": "output", "args": [output]}]
    graph = {"format": 2, "shape": list(shape), "autocast": autocast, "tensors": declared.tensors, "nodes": nodes}
    save_file(values, path, metadata={"graph": json.dumps(graph)})
    return declared


def trained(model, declared: Declared) -> dict[str, torch.Tensor]:
    """The tensors of `model`, a module with the declared names, on the CPU and of the declared type. RuntimeError names one that is
    missing, has another shape, is tied no more, or is a constant that has changed.
    """
    model = _plain(model)
    found = _tensors(model)
    tensors = {}
    for name, spec in declared.tensors.items():
        if spec["kind"] == "constant":
            now = _attribute(model, name)
            if now is not None and not torch.equal(_portable(now), declared.constants[name]):
                raise RuntimeError(f"torch.export failed: {name} has changed since declare(model); make it a parameter or a buffer")
            continue
        if name not in found:
            raise RuntimeError(f"torch.export failed: the model has no {name}, which declare(model) said it has")
        if list(found[name].shape) != spec["shape"]:
            raise RuntimeError(
                f"torch.export failed: {name} has shape {list(found[name].shape)} and was declared as {spec['shape']}; "
                "declare the model as it will be scored"
            )
        tensors[name] = _portable(found[name]).to(getattr(torch, spec["dtype"]))
    for name, tied_to in declared.ties.items():
        if name in found and tied_to in found and not torch.equal(found[name], found[tied_to]):
            raise RuntimeError(f"torch.export failed: {name} and {tied_to} were declared as one tensor and are two now")
    return tensors


def submit(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Writes trained tensors to `path`, by name."""
    save_file(tensors, path)


def tensor_digest(tensor) -> str:
    """SHA-256 of a tensor's bytes, whatever its shape and type."""
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


class _Logits(torch.nn.Module):
    """The model called with tokens alone, whatever else its forward takes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens)


def _trace(model, shape: tuple[int, int]):
    """The exported program, and the precision of the autocast around us or None."""
    device = _device(model)
    tokens = torch.zeros(shape, dtype=torch.int64, device=device)
    autocast = _name(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else None
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            program = torch.export.export(_Logits(model), (tokens,), strict=False)
            if any(getattr(node.target, "_schema", None) and node.target._schema.is_mutable for node in program.graph.nodes):
                program = program.run_decompositions({})  # in-place operators become plain ones
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise RuntimeError(f"torch.export failed: {type(error).__name__}: {first}{_place(error)}") from None
    mutated = [spec.target for spec in program.graph_signature.output_specs if spec.kind.name != "USER_OUTPUT"]
    if mutated:
        raise RuntimeError(f"torch.export failed: the forward changes {mutated[0]}; a model must keep no state between calls")
    return program, autocast


def _place(error: Exception) -> str:
    """Where in the model's own code it went wrong: of a long way through torch the one frame that can be mended."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/lib/python" not in frame.filename]
    return "".join(f" ({Path(frame.filename).name}:{frame.lineno} in {frame.name}: {frame.line})" for frame in own[-1:])


def _bind(program, autocast: str | None) -> tuple[list[dict], Declared, dict[str, torch.Tensor]]:
    """What stands for each placeholder (the tokens or a tensor), those tensors, and the values of buffers and constants."""
    inputs = []
    declared = Declared({}, {}, {}, autocast)
    values: dict[str, torch.Tensor] = {}
    by_storage: dict[tuple, str] = {}  # tied weights are one tensor
    unused = {node.name for node in program.graph.nodes if node.op == "placeholder" and not node.users}
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            inputs.append({"name": spec.arg.name, "op": "tokens", "of": None})
            continue
        if spec.arg.name in unused:
            continue
        value = program.state_dict.get(spec.target)
        if value is None:
            value = program.constants[spec.target]
        name, kind = spec.target.removeprefix("model."), _KINDS[spec.kind.name]
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), kind)
        if by_storage.setdefault(key, name) == name:
            declared.tensors[name] = {"shape": list(value.shape), "dtype": _name(value.dtype), "kind": kind}
            if kind != "parameter":
                values[name] = _portable(value)
            if kind == "constant":
                declared.constants[name] = values[name]
        inputs.append({"name": spec.arg.name, "op": "tensor", "of": by_storage[key]})
    return inputs, declared, values


_KINDS = {"PARAMETER": "parameter", "BUFFER": "buffer", "CONSTANT_TENSOR": "constant"}


def _plain(model):
    """The module behind torch.compile, and behind an average of weights."""
    while inner := getattr(model, "_orig_mod", None) or (model.module if isinstance(model, AveragedModel) else None):
        model = inner
    return model


def _device(model) -> torch.device:
    return next((tensor.device for tensor in _tensors(model).values()), torch.device("cpu"))


def _tensors(model) -> dict[str, torch.Tensor]:
    """Parameters and buffers by all their names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _attribute(model, name: str) -> torch.Tensor | None:
    """The plain tensor that a constant was traced from; None for one that tracing made."""
    try:
        *path, last = name.split(".")
        found = getattr(model.get_submodule(".".join(path)), last, None)
    except AttributeError:
        return None
    return found if isinstance(found, torch.Tensor) else None


def _portable(tensor) -> torch.Tensor:
    """A copy of its own on the CPU: safetensors refuses shared memory."""
    return tensor.detach().cpu().contiguous().clone()


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
        if not isinstance(node.target, torch._ops.OpOverload) and not node.users:
            return None  # a remark of a transform's (vmap) to the tracer
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
