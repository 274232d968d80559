"""What the evaluator reads from files that nobody trusts, and that it gives what the model gives."""

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from graphs import call, spec, traced, written
from safetensors.torch import save_file

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.archive import (
    Declaration,
    GraphError,
    GraphModel,
    check_constants,
    read_declaration,
    read_submission,
)
from autoresearch_mcp.evaluate.graph import parse_graph

SHAPE = (4, 32)
VOCAB = 60


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wte = nn.Embedding(VOCAB, 16)
        self.head = nn.Linear(16, VOCAB)

    def forward(self, tokens):
        return self.head(self.wte(tokens))


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def handed_over(model: nn.Module, folder: Path) -> tuple[Declaration, Path, dict[str, str]]:
    """What a run hands over for a model: the declaration as read, the submission's path, and the committed hashes."""
    content, tensors = traced(model, SHAPE)
    declaration = read_declaration(graphs.declare(content, tensors, folder / "declaration.safetensors"), SHAPE, "cpu")
    trained = {name: value for name, value in tensors.items() if declaration.graph.tensors[name].kind != "constant"}
    save_file(trained, folder / "submission.safetensors")
    return declaration, folder / "submission.safetensors", {name: digest(value) for name, value in trained.items()}


def round_trip(model: nn.Module, folder: Path) -> GraphModel:
    declaration, path, committed = handed_over(model, folder)
    return GraphModel(declaration.graph, read_submission(path, declaration, committed, frozenset(), "cpu"), "cpu")


def tokens() -> torch.Tensor:
    return torch.randint(VOCAB, SHAPE, generator=torch.Generator().manual_seed(3))


class Tied(Base):
    def __init__(self):
        super().__init__()
        self.head.weight = self.wte.weight


class Windowed(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(SHAPE[1], SHAPE[1], dtype=torch.bool).tril().triu(-7), persistent=False)
        self.qkv = nn.Linear(16, 48)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tokens):
        x = self.wte(tokens)
        q, k, v = self.qkv(x).view(*tokens.shape, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask) + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(y.transpose(1, 2).flatten(2))
        return 15 * torch.tanh(self.head(F.rms_norm(x, (16,))) / 15)


class Half(Base):
    def __init__(self):
        super().__init__()
        self.to(torch.bfloat16)


class Literal(Base):
    """A constant that is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.bias = torch.linspace(0, 1, VOCAB)

    def forward(self, tokens):
        return super().forward(tokens) + self.bias


class Mixed(Base):
    """Autocast inside forward, switched off again for a part, and gradients off for another."""

    def forward(self, tokens):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.wte(tokens)
            with torch.no_grad():
                x = x @ x.transpose(1, 2).tril() @ x
            with torch.autocast("cpu", enabled=False):
                x = F.linear(x.float(), self.head.weight[:16])
            return self.head(x).float()


class HalfUnderAutocast(Base):
    """Weights of one precision and values of another, which autocast reconciles."""

    def __init__(self):
        super().__init__()
        self.head.to(torch.bfloat16)

    def forward(self, tokens):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.head(self.wte(tokens))
        return x @ self.head.weight @ self.head.weight.T


class Checkpointed(Base):
    def forward(self, tokens):
        return self.head(torch.utils.checkpoint.checkpoint(self.wte, tokens, use_reentrant=False))


class PartlyCompiled(Base):
    def __init__(self):
        super().__init__()
        self.fast = torch.compile(self.head)

    def forward(self, tokens):
        return self.fast(self.wte(tokens))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Base, Tied, Windowed, Half, Literal, Mixed, HalfUnderAutocast, Checkpointed, PartlyCompiled])
def test_honest_models_give_the_same_logits(kind: Callable[[], nn.Module], tmp_path: Path):
    model = kind().eval()
    loaded = round_trip(model, tmp_path)
    with torch.no_grad():
        assert torch.allclose(loaded(tokens()), model(tokens()), atol=1e-5)
        assert loaded(tokens()).dtype == model(tokens()).dtype
        assert torch.equal(loaded(tokens()), loaded(tokens()))


def test_a_compiled_wrapper_is_taken_off_and_autocast_around_it_is_kept(tmp_path: Path):
    model = Base().eval()
    compiled = torch.compile(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loaded = round_trip(compiled._orig_mod, tmp_path)
        with torch.no_grad():
            expected = model(tokens())
    assert loaded(tokens()).dtype == expected.dtype == torch.bfloat16
    assert torch.equal(loaded(tokens()), expected)


def test_other_files_are_refused_and_never_unpickled(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    path = tmp_path / "m"
    for content in (b"", b"x" * 100, pickle.dumps(Bomb()), b"\xff" * 8 + b"{}", (2**30).to_bytes(8, "little") + b"{"):
        path.write_bytes(content)
        with pytest.raises(RefusedError, match="no safetensors"):
            read_declaration(path, SHAPE, "cpu")
    torch.save(Bomb(), path)
    with pytest.raises(RefusedError):
        read_declaration(path, SHAPE, "cpu")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(RefusedError):
        read_declaration(path, SHAPE, "cpu")
    for metadata in (None, {"graph": ""}, {"graph": "[" * 100_000}, {"graph": "9" * 5000}):
        save_file({"w": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(RefusedError, match="no model graph"):
            read_declaration(path, SHAPE, "cpu")
    assert not (tmp_path / "pwned").exists()


def test_only_plain_files_are_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path):
        with pytest.raises(RefusedError, match="no plain file"):
            read_declaration(path, SHAPE, "cpu")
    with pytest.raises(RefusedError):
        read_declaration(tmp_path / "missing", SHAPE, "cpu")


BIASED = written(
    {"name": "b", "op": "tensor", "of": "b"}, call("aten.add.Tensor", {"ref": "w"}, {"ref": "b"}), shape=SHAPE,
    tensors={"w": spec(4, 6), "b": spec(6, kind="buffer")},
)  # fmt: skip


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "lacks the tensor 'b'"),
        ({"b": torch.zeros(6), "w": torch.zeros(4, 6)}, "'w', which is not declared"),
        ({"b": torch.zeros(5)}, r"shape \[5\]"),
        ({"b": torch.zeros(6, dtype=torch.float64)}, "float64"),
    ],
)
def test_a_declaration_holds_the_buffers_it_declares(tensors: dict[str, torch.Tensor], reason: str, tmp_path: Path):
    save_file(tensors, tmp_path / "m", metadata={"graph": json.dumps(BIASED)})
    with pytest.raises(RefusedError, match=reason):
        read_declaration(tmp_path / "m", SHAPE, "cpu")


B, TRAINED = torch.tensor([0.0, -0.0, torch.nan, 1, 2, 3]), torch.arange(24.0).view(4, 6)
MINUS = B * torch.tensor([-1.0, 1, 1, 1, 1, 1])


def submitted(folder: Path, tensors: dict[str, torch.Tensor], pinned: frozenset[str], **committed: torch.Tensor) -> Any:
    declaration = read_declaration(graphs.declare(BIASED, {"b": B}, folder / "d"), SHAPE, "cpu")
    save_file(tensors, folder / "s", metadata={"graph": json.dumps(BIASED)})
    hashes = {name: digest(tensor) for name, tensor in ({"w": TRAINED, "b": B} | committed).items()}
    return read_submission(folder / "s", declaration, hashes, pinned, "cpu")


def test_trained_tensors_travel_under_their_names(tmp_path: Path):
    found = submitted(tmp_path, {"w": TRAINED, "b": B + 1}, frozenset(), b=B + 1)
    assert torch.equal(found["w"], TRAINED) and torch.equal(found["b"].nan_to_num(7), (B + 1).nan_to_num(7))
    assert submitted(tmp_path, {"w": TRAINED, "b": B}, frozenset({"b"})).keys() == {"w", "b"}


@pytest.mark.parametrize(
    ("tensors", "committed", "reason"),
    [
        ({"w": TRAINED + 1, "b": B}, {}, "'w' is not the one that the model had when training ended"),
        ({"w": TRAINED}, {}, "lacks the tensor 'b'"),
        ({"w": TRAINED, "b": B, "more": B + 1}, {"more": B + 1}, "'more', which is not declared"),
        ({"w": TRAINED.view(6, 4), "b": B}, {}, "shape"),
        ({"w": TRAINED.view(torch.int32), "b": B}, {}, "int32"),
        ({"w": TRAINED, "b": MINUS}, {"b": MINUS}, "'b' is not what it was when the model was declared"),
        ({"w": TRAINED, "b": B}, {"b": MINUS}, "'b' is not the one"),
    ],
)
def test_other_tensors_are_refused(
    tensors: dict[str, torch.Tensor], committed: dict[str, torch.Tensor], reason: str, tmp_path: Path
):
    with pytest.raises(RefusedError, match=reason):
        submitted(tmp_path, tensors, frozenset({"b"}), **committed)


def test_trained_tensors_cannot_be_swapped(tmp_path: Path):
    """Hashes are bound to names: the same set of tensors under other names is refused."""
    with pytest.raises(RefusedError, match="'w' is not the one"):
        submitted(tmp_path, {"w": TRAINED * 2, "b": B}, frozenset(), b=TRAINED * 2)


def test_constants_are_those_declared_and_small(tmp_path: Path):
    model = Literal()
    declaration, path, committed = handed_over(model, tmp_path)
    (name,) = declaration.values
    assert declaration.graph.tensors[name].kind == "constant"
    found = read_submission(path, declaration, committed, frozenset(), "cpu")
    assert torch.equal(found[name], model.bias)
    model.bias = torch.zeros(35, VOCAB)[0].repeat(35)
    model.forward = lambda tokens: model.head(model.wte(tokens)) + model.bias.view(35, VOCAB)[0]
    declaration, path, committed = handed_over(model, tmp_path)
    with pytest.raises(RefusedError, match="8400 bytes .*register_buffer"):
        check_constants(declaration, frozenset())
    check_constants(declaration, frozenset(declaration.values))


def looked_up(**guards: Any) -> GraphModel:
    content = written(call("aten.embedding.default", {"ref": "w"}, {"ref": "t"}), shape=SHAPE)
    return GraphModel(parse_graph(content, SHAPE, "cpu"), {"w": TRAINED}, "cpu", guards)


def test_a_failure_keeps_what_pytorch_says_apart():
    """PyTorch names values: 58 must not stand in what is shown unasked."""
    with pytest.raises(GraphError) as failure:
        looked_up()(torch.full(SHAPE, 58))
    assert (failure.value.node, failure.value.operator) == ("x", "aten.embedding.default") and failure.value.explanation
    assert "out of range" in failure.value.explanation and "58" not in str(failure.value)
    assert failure.value.__cause__ is None and failure.value.__suppress_context__


def test_guards_make_the_calls_they_watch():
    def guard(operator: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        assert args[0] is TRAINED and not kwargs
        return operator(*args) + 1

    def refuse(*_: Any) -> Any:
        raise RefusedError("the masked weight is not 0", "not_causal")

    at = torch.ones(SHAPE, dtype=torch.int64)
    assert torch.equal(looked_up(x=guard)(at), TRAINED[at] + 1)
    with pytest.raises(RefusedError, match="not 0"):
        looked_up(x=refuse)(at)


def test_out_of_memory_is_told_apart():
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        looked_up(x=full)(torch.ones(SHAPE, dtype=torch.int64))
