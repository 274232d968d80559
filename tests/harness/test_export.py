"""export.py: what declaration and submission hold, and what cannot be exported. That it computes the same is in test_archive.py."""

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


class Masked(Base):
    """With a buffer, and a plain tensor that is none."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(8), persistent=False)
        self.register_buffer("unused", torch.ones(3))
        self.scale = torch.tensor([2.0])

    def forward(self, tokens):
        return self.head(self.wte(tokens) * self.mask[:, None] * self.scale) + 0.5


def declared(model: nn.Module, path: Path) -> tuple[export.Declared, dict, dict[str, torch.Tensor]]:
    """What `declare` remembers, the graph it wrote and the tensors beside it."""
    remembered = export.declare(model, path, SHAPE)
    with safe_open(path, "pt") as file:
        graph = json.loads(file.metadata()["graph"])
        return remembered, graph, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file is no mapping)


def test_a_declaration_holds_the_graph_and_no_weight(tmp_path: Path):
    _, graph, values = declared(Base(), tmp_path / "d")
    assert (graph["format"], graph["shape"], graph["autocast"], values) == (2, list(SHAPE), None, {})
    assert [node["op"] for node in graph["nodes"]] == [
        "tensor", "tensor", "tensor", "tokens", "aten.embedding.default", "aten.linear.default", "output",
    ]  # fmt: skip
    assert graph["tensors"] == {
        "wte.weight": {"shape": [VOCAB, 16], "dtype": "float32", "kind": "parameter"},
        "head.weight": {"shape": [VOCAB, 16], "dtype": "float32", "kind": "parameter"},
        "head.bias": {"shape": [VOCAB], "dtype": "float32", "kind": "parameter"},
    }


def test_a_declaration_holds_the_values_of_buffers_and_constants(tmp_path: Path):
    _, graph, values = declared(Masked(), tmp_path / "d")
    kinds = {name: spec["kind"] for name, spec in graph["tensors"].items() if spec["kind"] != "parameter"}
    assert kinds == {"mask": "buffer", "scale": "constant"}
    assert set(values) == set(kinds) and values["mask"].tolist() == [1.0] * 8 and values["scale"].tolist() == [2.0]


def test_declaring_leaves_a_model_in_the_modes_it_was_in(tmp_path: Path):
    model = Base()
    model.wte.eval()
    declared(model, tmp_path / "d")
    assert (model.training, model.wte.training, model.head.training) == (True, False, True)


def test_the_same_model_gives_the_same_file(tmp_path: Path):
    for name in ("one", "two"):
        export.declare(Base(), tmp_path / name, SHAPE)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_trained_tensors_are_those_declared_by_name(tmp_path: Path):
    model = Masked()
    remembered, _, _ = declared(model, tmp_path / "d")
    with torch.no_grad():
        model.wte.weight += 1
    tensors = export.trained(model, remembered)
    assert set(tensors) == {"wte.weight", "head.weight", "head.bias", "mask"}
    assert torch.equal(tensors["wte.weight"], model.wte.weight)
    export.submit(tensors, tmp_path / "s")
    with safe_open(tmp_path / "s", "pt") as file:
        assert not file.metadata() and set(file.keys()) == set(tensors)


def test_an_average_or_a_compiled_model_stands_for_the_declared_one(tmp_path: Path):
    model = Base()
    remembered, _, _ = declared(torch.compile(model), tmp_path / "d")
    average = torch.optim.swa_utils.AveragedModel(model)
    with torch.no_grad():
        model.wte.weight += 1
    average.update_parameters(model)
    assert torch.equal(export.trained(torch.compile(model), remembered)["wte.weight"], model.wte.weight)
    assert torch.equal(export.trained(average, remembered)["wte.weight"], average.module.wte.weight)


def test_weights_of_another_type_are_taken_in_the_declared_one(tmp_path: Path):
    model = Base()
    remembered, _, _ = declared(model, tmp_path / "d")
    assert export.trained(model.bfloat16(), remembered)["wte.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.wte = nn.Embedding(VOCAB, 17)", "wte.weight has shape .* and was declared as"),
        ("del model.head", "the model has no head.weight"),
        ("model.scale = torch.tensor([3.0])", "scale has changed since declare"),
    ],
)
def test_a_model_that_is_not_the_declared_one_is_refused_by_name(change: str, words: str, tmp_path: Path):
    model = Masked()
    remembered, _, _ = declared(model, tmp_path / "d")
    exec(change)
    with pytest.raises(RuntimeError, match=words):
        export.trained(model, remembered)


def test_tied_weights_are_one_tensor_and_stay_it(tmp_path: Path):
    model = Tied()
    remembered, graph, _ = declared(model, tmp_path / "d")
    assert len(graph["tensors"]) == 2  # the weight and the bias
    with torch.no_grad():
        model.wte.weight += 1
    assert len(export.trained(model, remembered)) == 2
    model.head.weight = nn.Parameter(model.head.weight + 1)
    with pytest.raises(RuntimeError, match="declared as one tensor and are two now"):
        export.trained(model, remembered)


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
        (Branching, r"torch.export failed: .*\(test_export.py:\d+ in forward: return self.head"),
        (Counting, "the forward changes .*calls; a model must keep no state between calls"),
    ],
)
def test_what_cannot_be_exported_says_what_to_do(kind: Callable[[], nn.Module], words: str, tmp_path: Path):
    with pytest.raises(RuntimeError, match=words):
        export.declare(kind(), tmp_path / "d", SHAPE)
