"""What the evaluator reads from an untrusted file: the graph, and nothing but listed operators."""

import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from safetensors.torch import save_file

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.archive import OPERATORS, load_model
from autoresearch_mcp.evaluate.bpb import bits_per_byte, checked

os.environ["AUTORESEARCH_PRESET"] = "tiny"
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "harness"))
import export
import prepare

SHAPE = (prepare.EVAL_BATCH, prepare.MAX_SEQ_LEN)
VOCAB = prepare.VOCAB_SIZE


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wte = nn.Embedding(VOCAB, 16)
        self.head = nn.Linear(16, VOCAB)

    def forward(self, tokens):
        return self.head(self.wte(tokens))


def round_trip(model: nn.Module, path: Path):
    export.export_model(model.eval(), path, SHAPE)
    return load_model(path, "cpu", SHAPE)


def tokens() -> torch.Tensor:
    return torch.randint(VOCAB, SHAPE, generator=torch.Generator().manual_seed(3))


class Tied(Base):
    def __init__(self):
        super().__init__()
        self.head.weight = self.wte.weight


class InPlace(Base):
    def forward(self, tokens):
        x = self.wte(tokens)
        x += 1
        x.mul_(0.5)
        x[:, 0] = 0
        return self.head(x)


class Masked(Base):
    """Masks put together by &, | and ^, as is common."""

    def forward(self, tokens):
        rows = torch.arange(tokens.shape[1])
        seen = (rows[:, None] >= rows) & ((rows[:, None] - rows < 8) | (rows == 0)) ^ (rows > 1000)
        weights = seen.float() / seen.float().sum(-1, keepdim=True)
        return self.head(weights @ self.wte(tokens))


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


class Convolution(Base):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(16, 16, 4)

    def forward(self, tokens):
        x = F.pad(self.wte(tokens).transpose(1, 2), (3, 0))
        return self.head(F.gelu(self.conv(x)).transpose(1, 2))


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


class Checkpointed(Base):
    def forward(self, tokens):
        return self.head(torch.utils.checkpoint.checkpoint(self.wte, tokens, use_reentrant=False))


class PartlyCompiled(Base):
    def __init__(self):
        super().__init__()
        self.fast = torch.compile(self.head)

    def forward(self, tokens):
        return self.fast(self.wte(tokens))


@pytest.mark.parametrize("kind", [Base, Tied, InPlace, Masked, Windowed, Half, Convolution, Mixed, Checkpointed, PartlyCompiled])
def test_honest_models_give_the_same_logits(kind: Callable[[], nn.Module], tmp_path: Path):
    model = kind().eval()
    loaded = round_trip(model, tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.allclose(loaded(tokens()), model(tokens()), atol=1e-5)
        assert loaded(tokens()).dtype == model(tokens()).dtype
        assert torch.equal(loaded(tokens()), loaded(tokens()))


def test_a_compiled_wrapper_is_taken_off_and_autocast_around_it_is_kept(tmp_path: Path):
    model = Base().eval()
    compiled = torch.compile(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loaded = round_trip(compiled._orig_mod, tmp_path / "m.safetensors")
        with torch.no_grad():
            expected = model(tokens())
    assert loaded(tokens()).dtype == expected.dtype == torch.bfloat16
    assert torch.equal(loaded(tokens()), expected)


def write(path: Path, nodes: list[object], tensors: dict[str, torch.Tensor] | None = None, **changes: object) -> Path:
    graph = {"format": 1, "shape": list(SHAPE), "autocast": None, "nodes": nodes} | changes
    save_file(tensors or {"w": torch.zeros(1)}, path, metadata={"graph": json.dumps(graph)})
    return path


def call(operator: str, *args: object, **kwargs: object) -> dict[str, object]:
    return {"name": "x", "op": operator, "args": list(args), "kwargs": kwargs}


TOKENS = {"name": "t", "op": "tokens", "of": None}
W = {"name": "w", "op": "tensor", "of": "w"}
OUTPUT = {"name": "output", "op": "output", "args": [[{"ref": "x"}]]}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (call("aten.from_file.default", "/etc/passwd"), "not allowed"),
        (call("aten.rand.default", [1]), "not allowed"),
        (call("aten.dropout.default", {"ref": "w"}, 0.5, True), "drops out at random"),
        (call("aten.add_.Tensor", {"ref": "w"}, 1), "not allowed"),
        (call("aten.add.out", {"ref": "w"}, 1), "in place"),
        (call("aten.empty.memory_format", [1]), "not allowed"),
        (call("aten.set_.source_Storage", {"ref": "w"}), "not allowed"),
        (call("prims.device_put.default", {"ref": "w"}), "not allowed"),
        (call("quantized.linear.default"), "not allowed"),
        (call("os.system", "touch /tmp/pwned"), "not allowed"),
        (call("aten.add.__class__", 1), "PyTorch does not have|in place"),
        (call("aten.add.no_such_overload", 1), "PyTorch does not have"),
        (call("__import__", "os"), "not allowed"),
        (call("aten.add.Tensor", {"ref": "nobody"}, 1), "before it exists"),
        (call("aten.add.Tensor", {"object": "evil"}, 1), "unknown kind"),
        (call("aten.zeros.default", [1], dtype={"dtype": "load"}), "no dtype"),
        ({"name": "x", "op": "tensor", "of": "missing"}, "does not have"),
        ({"name": "x"}, "malformed"),
        ({"name": "x", "op": "aten.add.Tensor", "args": [], "kwargs": []}, "unknown kind"),
    ],
)
def test_a_graph_with_anything_else_is_refused(node: dict[str, object], reason: str, tmp_path: Path):
    with pytest.raises(RefusedError, match=reason):
        load_model(write(tmp_path / "m", [TOKENS, W, node, OUTPUT]), "cpu", SHAPE)(tokens())


@pytest.mark.parametrize(
    "node",
    [call("aten.add.Tensor", {"ref": "w"}), call("aten.view.default", {"ref": "w"}, [7, 7]), call("getitem", {"ref": "w"}, 0)],
)
def test_a_graph_that_fails_when_it_runs_is_refused(node: dict[str, object], tmp_path: Path):
    with pytest.raises(RefusedError):
        load_model(write(tmp_path / "m", [TOKENS, W, node, OUTPUT]), "cpu", SHAPE)(tokens())


def test_other_formats_are_refused_and_never_unpickled(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    path = tmp_path / "m"
    for content in (b"", b"x" * 100, pickle.dumps(Bomb()), b"\xff" * 8 + b"{}"):
        path.write_bytes(content)
        with pytest.raises(RefusedError, match="no safetensors"):
            load_model(path, "cpu", SHAPE)
    torch.save(Bomb(), path)
    with pytest.raises(RefusedError):
        load_model(path, "cpu", SHAPE)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(RefusedError):
        load_model(path, "cpu", SHAPE)
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(RefusedError, match="no model graph"):
        load_model(path, "cpu", SHAPE)
    assert not (tmp_path / "pwned").exists()


def test_wrong_shapes_are_refused(tmp_path: Path):
    with pytest.raises(RefusedError, match="exported for tokens of shape"):
        load_model(write(tmp_path / "m", [TOKENS, W, call("aten.add.Tensor", {"ref": "w"}, 1), OUTPUT], shape=[1, 1]), "cpu", SHAPE)
    with pytest.raises(RefusedError, match="one for every token"):
        checked(torch.zeros(2, 3, 4), 2, 3, 5)
    with pytest.raises(RefusedError, match="finite"):
        checked(torch.full((2, 3, 4), float("nan")), 2, 3, 4)
    with pytest.raises(RefusedError, match="floating-point"):
        checked(torch.zeros(2, 3, 4, dtype=torch.int64), 2, 3, 4)


def test_no_listed_operator_is_random_or_only_in_place():
    for name in OPERATORS:
        packet = getattr(torch.ops.aten, name, None)
        if packet is None:
            continue
        overloads = [getattr(packet, overload) for overload in packet.overloads()]
        assert any(not overload._schema.is_mutable for overload in overloads), name
        assert all(torch.Tag.nondeterministic_seeded not in overload.tags for overload in overloads) or name in (
            "scaled_dot_product_attention",
            "rrelu",
        ), name


def test_bits_per_byte_of_a_uniform_model_is_known():
    """With equal logits every token costs log2(vocab) bits; special tokens are not scored; a short last batch is filled up."""
    vocab, rows = 8, np.array([[0, 1, 2, 7], [0, 3, 4, 5], [0, 1, 1, 1]], dtype=np.uint16)
    token_bytes = np.array([[1, 2, 3, 1, 1, 4, 1, 0], [1, 2, 3, 1, 1, 5, 1, 0]], dtype=np.int32)

    def uniform(tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*tokens.shape, vocab)

    raw, decoded = bits_per_byte(uniform, rows, token_bytes, batch=2, device="cpu")
    scored, n_bytes, n_decoded = 8, 2 + 3 + 1 + 1 + 4 + 2 + 2 + 2, 2 + 3 + 1 + 1 + 5 + 2 + 2 + 2
    assert raw == pytest.approx(scored * 3 / n_bytes) and decoded == pytest.approx(scored * 3 / n_decoded)
