"""export.py: what the file of a model holds, and what cannot be exported. That it computes the same is in test_archive.py."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn as nn
from safetensors import safe_open
from torch.nn.attention.flex_attention import flex_attention

os.environ["AUTORESEARCH_PRESET"] = "tiny"
sys.path.insert(0, str(Path(__file__).parent.parent.parent / "harness"))
import export

SHAPE, VOCAB = (4, 8), 32


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wte = nn.Embedding(VOCAB, 16)
        self.head = nn.Linear(16, VOCAB)

    def forward(self, tokens):
        return self.head(self.wte(tokens))


class Tied(Base):
    def __init__(self):
        super().__init__()
        self.head.weight = self.wte.weight


def test_a_file_holds_the_weights_and_the_graph(tmp_path: Path):
    model = Base().eval()
    export.export_model(model, tmp_path / "m.safetensors", SHAPE)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        graph = json.loads(file.metadata()["graph"])
        stored = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 (a file is no mapping)
    assert (graph["format"], graph["shape"], graph["autocast"]) == (1, list(SHAPE), None)
    assert [node["op"] for node in graph["nodes"]] == [
        "tensor", "tensor", "tensor", "tokens", "aten.embedding.default", "aten.linear.default", "output",
    ]  # fmt: skip
    assert sorted(map(export.tensor_digest, stored)) == export.digests(model)


def test_the_same_model_gives_the_same_file(tmp_path: Path):
    for name in ("one", "two"):
        export.export_model(Base().eval(), tmp_path / name, SHAPE)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_tied_weights_are_stored_once(tmp_path: Path):
    export.export_model(Tied().eval(), tmp_path / "m.safetensors", SHAPE)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert len(file.keys()) == 2  # the weight and the bias


def test_a_digest_is_of_the_bytes():
    value = torch.arange(6, dtype=torch.bfloat16)
    digest = hashlib.sha256(value.view(torch.uint8).numpy().tobytes()).hexdigest()
    assert export.tensor_digest(value) == export.tensor_digest(value.view(2, 3)) == digest
    assert export.tensor_digest(value.view(2, 3).t()) != digest
    assert export.tensor_digest(torch.tensor(1.0)) == export.tensor_digest(torch.ones(1))


class Flex(Base):
    def forward(self, tokens):
        x = self.wte(tokens).unsqueeze(1)
        return self.head(flex_attention(x, x, x, score_mod=lambda score, b, h, q, k: score + (q - k)).squeeze(1))


class Branching(Base):
    def forward(self, tokens):
        return self.head(self.wte(tokens)) if tokens.sum() > 0 else self.head(self.wte(tokens) * 2)


class Counting(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, tokens):
        self.calls += 1
        return self.head(self.wte(tokens)) + self.calls


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Flex, "flex_attention; give eval mode a forward in plain PyTorch"),
        (Branching, "torch.export failed"),
        (Counting, "the forward changes .*calls; a model must keep no state between calls"),
    ],
)
def test_what_cannot_be_exported_says_what_to_do(kind: Callable[[], nn.Module], words: str, tmp_path: Path):
    with pytest.raises(RuntimeError, match=words):
        export.export_model(kind().eval(), tmp_path / "m.safetensors", SHAPE)
