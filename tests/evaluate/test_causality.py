"""Causality is proved for what is causal, and refused for what looks ahead by one token, whatever the weights."""

import time

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from graphs import traced

import train
from autoresearch_mcp.evaluate.causality import NotProved, Proof, prove
from autoresearch_mcp.evaluate.graph import Graph, parse_graph

SHAPE = (3, 12)
VOCAB = 11


def declared(model: nn.Module, shape: tuple[int, int] = SHAPE) -> tuple[Graph, dict[str, torch.Tensor]]:
    """A model's graph as `declare` writes it, and the values of its buffers and constants."""
    content, tensors = traced(model.eval(), shape)
    graph = parse_graph(content, shape, "cpu")
    return graph, {name: tensor for name, tensor in tensors.items() if graph.tensors[name].kind != "parameter"}


def proof(model: nn.Module, shape: tuple[int, int] = SHAPE) -> Proof:
    return prove(*declared(model, shape))


class Mixer(nn.Module):
    """Embeds, mixes by `mix`, and reads out."""

    def __init__(self, mix):
        super().__init__()
        self.wte, self.head, self.mix = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB), mix
        self.register_buffer("tril", torch.ones(SHAPE[1], SHAPE[1]).tril())

    def forward(self, tokens):
        return self.head(self.mix(self, self.wte(tokens), tokens))


def decomposed(x, diagonal=0, fill=float("-inf")):
    future = torch.ones(SHAPE[1], SHAPE[1], dtype=torch.bool).triu(1 + diagonal)
    return (x @ x.mT).masked_fill(future, fill).softmax(-1) @ x


def shifted(x, by):
    return torch.cat([torch.zeros_like(x[:, :by]), x[:, :-by]], 1)


CAUSAL = {
    "none": lambda m, x, t: x,
    "fused": lambda m, x, t: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "decomposed": lambda m, x, t: decomposed(x),
    "finite mask": lambda m, x, t: decomposed(x, fill=-1e9),
    "weights": lambda m, x, t: m.tril @ x,
    "cumulative": lambda m, x, t: x.cumsum(1),
    "shift": lambda m, x, t: shifted(x, 1),
    "documents": lambda m, x, t: F.scaled_dot_product_attention(
        x, x, x, attn_mask=((t == 0).cumsum(1)[:, :, None] == (t == 0).cumsum(1)[:, None]) & (m.tril > 0)
    ),
}
LOOKS_AHEAD = {
    "fused": lambda m, x, t: F.scaled_dot_product_attention(x, x, x),
    "decomposed": lambda m, x, t: decomposed(x, 1),
    "weights": lambda m, x, t: (m.tril + m.tril.roll(1, 1)) @ x,
    "cumulative": lambda m, x, t: x.flip(1).cumsum(1),
    "roll": lambda m, x, t: x.roll(-1, 1),
    "one token in many": lambda m, x, t: torch.where((t.roll(-1, 1) == 7)[..., None], x + 1, x),
    "normalised over positions": lambda m, x, t: F.layer_norm(x.mT, (SHAPE[1],)).mT,
    "rows": lambda m, x, t: x.roll(1, 0),
    "sum of all": lambda m, x, t: x + 0 * x.sum(),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_what_is_causal_is_proved(name: str):
    assert isinstance(proof(Mixer(CAUSAL[name])), Proof)


@pytest.mark.parametrize("name", LOOKS_AHEAD)
def test_what_looks_ahead_is_refused(name: str):
    with pytest.raises(NotProved, match="may depend on"):
        proof(Mixer(LOOKS_AHEAD[name]))


def test_only_buffers_whose_values_are_needed_are_pinned():
    assert proof(Mixer(CAUSAL["fused"])).pinned == frozenset()
    assert proof(Mixer(CAUSAL["weights"])).pinned == {"tril"}


@pytest.mark.parametrize(("rows", "length", "seconds"), [(16, 64, 5.0), (16, 256, 5.0)])
def test_our_model_is_proved_quickly(rows: int, length: int, seconds: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "MAX_SEQ_LEN", length)
    graph, values = declared(train.GPT(512), (rows, length))
    started = time.monotonic()
    assert prove(graph, values).pinned == {"short_bias", "sin"}
    assert time.monotonic() - started < seconds
