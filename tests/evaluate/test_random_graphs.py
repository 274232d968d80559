"""Random graphs of a dozen operators: whatever is proved causal does not move by a bit, whatever weights and tokens are."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from graphs import TOKENS, bits, call, spec

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.archive import GraphError, GraphModel
from autoresearch_mcp.evaluate.causality import NotProved, prove
from autoresearch_mcp.evaluate.graph import Graph, parse_graph

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

ROWS, LENGTH, WIDTH, VOCAB = SIZES = (2, 5, 3, 7)
GRAPHS = 100
SPECIAL = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 1e-40, 1e15]
INF, MINUS = {"float": "inf"}, {"float": "-inf"}
STATE, SCORES, FLAGS, TOKEN, MASK, BIAS = "state", "scores", "flags", "tokens", "mask", "bias"
"""Kinds of values: (B, T, D), (B, T, T), bool (B, T), int (B, T), bool (T, T), float (T, T)."""
MADE: dict[str, list[tuple[str, tuple[str, ...], tuple[Any, ...]]]] = {
    # kind: operator, kinds of its operands, further arguments; operators that only mix come seldom
    STATE: [
        *[(name, (STATE, STATE), ()) for name in ("aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor", "aten.maximum.default")],
        *[
            (f"aten.{name}.default", (STATE,), ())
            for name in ("relu", "exp", "reciprocal", "tanh", "neg", "nan_to_num", "log", "sign")
        ],
        *[("aten.mul.Tensor", (STATE,), (number,)) for number in (0.0, -1.0, INF, 0.1)],
        ("aten.cumsum.default", (STATE,), (1,)),
        ("aten.cumsum.default", (STATE,), (0,)),
        ("aten.flip.default", (STATE,), ([1],)),
        ("aten.roll.default", (STATE,), ([1], [1])),
        ("aten.softmax.int", (STATE,), (-1,)),
        ("aten.layer_norm.default", (STATE,), ([WIDTH],)),
        ("aten.sort.default", (STATE,), (1,)),
        ("aten.constant_pad_nd.default", ("shorter",), ([0, 0, 1, 0],)),
        ("aten.constant_pad_nd.default", ("shorter",), ([0, 0, 0, 1],)),
        *[("aten.matmul.default", (kind, STATE), ()) for kind in (BIAS, BIAS, BIAS, SCORES, SCORES, SCORES)],
        ("aten.matmul.default", (STATE, "square"), ()),
        *[("aten.scaled_dot_product_attention.default", (STATE, STATE, STATE, kind), ()) for kind in (MASK, MASK, BIAS)],
        ("aten.scaled_dot_product_attention.default", (STATE, STATE, STATE), (None, 0.0, True)),
        ("aten.where.self", ("column", STATE, STATE), ()),
        ("aten.masked_fill.Scalar", (STATE, "column"), (0,)),
        ("aten.div.Tensor", (STATE, STATE), ()),
        ("aten.embedding.default", ("table", TOKEN), ()),
    ],
    SCORES: [
        ("aten.matmul.default", (STATE, "turned"), ()),
        *[("aten.masked_fill.Scalar", (SCORES, MASK), (number,)) for number in (MINUS, MINUS, -1e9, 0)],
        *[(f"aten.{name}.Tensor", (SCORES, BIAS), ()) for name in ("add", "mul", "sub")],
        *[("aten.softmax.int", (SCORES,), (-1,))] * 4,
        ("aten.where.ScalarOther", (MASK, SCORES), (MINUS,)),
        ("aten.tril.default", (SCORES,), ()),
        ("aten.cumsum.default", (SCORES,), (-1,)),
        ("aten.exp.default", (SCORES,), ()),
        ("aten.mul.Tensor", (SCORES,), (0.5,)),
        ("aten.mul.Tensor", (SCORES, SCORES), ()),
    ],
    MASK: [
        ("aten.ge.Tensor", ("down", "across"), ()),
        ("aten.gt.Tensor", ("across", "down"), ()),
        ("aten.logical_not.default", (MASK,), ()),
        ("aten.logical_or.default", (MASK, MASK), ()),
        ("aten.bitwise_and.Tensor", (MASK, MASK), ()),
        ("aten.eq.Scalar", (BIAS,), (0,)),
    ],
    BIAS: [
        *[("aten._to_copy.default", (MASK,), ())] * 2,
        ("aten.where.Scalar", (MASK,), (0.0, MINUS)),
        ("aten.where.Scalar", (MASK,), (0.0, -1e9)),
        ("aten.tril.default", (BIAS,), ()),
        ("aten.log.default", (BIAS,), ()),
        ("aten.mul.Tensor", (BIAS, BIAS), ()),
        ("aten.add.Tensor", (BIAS, BIAS), ()),
        ("aten.mul.Tensor", (BIAS,), (0.1,)),
    ],
    FLAGS: [
        ("aten.eq.Scalar", (TOKEN,), (1,)),
        ("aten.logical_not.default", (FLAGS,), ()),
        ("aten.logical_and.default", (FLAGS, FLAGS), ()),
        ("aten.roll.default", (FLAGS,), ([1], [1])),
    ],
    TOKEN: [
        ("aten.roll.default", (TOKEN,), ([1], [1])),
        ("aten.where.self", (FLAGS, TOKEN, TOKEN), ()),
        ("aten.maximum.default", (TOKEN, TOKEN), ()),
    ],
    "shorter": [("aten.slice.Tensor", (STATE,), (1, 0, LENGTH - 1)), ("aten.slice.Tensor", (STATE,), (1, 1, LENGTH))],
    "turned": [("aten.transpose.int", (STATE,), (1, 2))],
    "column": [("aten.unsqueeze.default", (FLAGS,), (-1,))],
    "down": [("aten.unsqueeze.default", ("line",), (1,))],
    "across": [("aten.unsqueeze.default", ("line",), (0,))],
    "line": [("aten.arange.default", (), (LENGTH,))],
}
MIXING = (
    ("aten.flip.default", ([1],)),
    ("aten.sort.default", (1,)),
    ("aten.cumsum.default", (0,)),
    ("aten.gt.Tensor", ()),
    ("aten.logical_not.default", ()),
    ("aten.slice.Tensor", (1, 1, LENGTH)),
)
"""What is seldom causal is drawn more seldom."""
GIVEN = {
    "table": ((VOCAB, WIDTH), "parameter"),
    "square": ((WIDTH, WIDTH), "parameter"),
    "pairs": ((LENGTH, LENGTH), "parameter"),
    "buffered": ((LENGTH, LENGTH), "buffer"),
}


@dataclass
class Grown:
    """A graph that grows by random nodes."""

    dice: random.Random
    nodes: list[dict[str, Any]] = field(default_factory=lambda: [TOKENS])
    pools: dict[str, list[str]] = field(default_factory=lambda: {TOKEN: ["t"]})

    def __post_init__(self):
        for name in GIVEN:
            self.nodes.append({"name": name, "op": "tensor", "of": name})
        self.pools |= {"table": ["table"], "square": ["square"], BIAS: ["pairs", "buffered", "buffered"]}

    def some(self, kind: str, depth: int = 0) -> str:
        """A value of that kind: one that is there, rather a late one, or a new one."""
        there = self.pools.get(kind, [])
        if there and (kind not in MADE or depth > 3 or self.dice.random() < 0.6):
            return self.dice.choice(there[-3:])
        return self.grow(kind, depth)

    def grow(self, kind: str, depth: int = 0) -> str:
        operator, kinds, rest = self.dice.choice(MADE[kind])
        if (operator, rest) in MIXING and self.dice.random() < 0.8:
            operator, kinds, rest = self.dice.choice(MADE[kind])
        if depth > 3 and kind == STATE:
            operator, kinds, rest = MADE[STATE][-1]
        name = f"n{len(self.nodes)}"
        args = [{"ref": self.some(wanted, depth + 1)} for wanted in kinds]
        name = f"n{len(self.nodes)}"
        more = {"dtype": {"dtype": "float32"}} if operator == "aten._to_copy.default" else {}
        self.nodes.append(call(operator, *args, *rest, name=name, **more))
        if operator == "aten.sort.default":
            self.nodes.append(call("getitem", {"ref": name}, 0, name=(name := f"n{len(self.nodes)}")))
        self.pools.setdefault(kind, []).append(name)
        return name


def grown(seed: int) -> tuple[Graph, dict[str, torch.Tensor]]:
    """A random graph, and the values of its buffer."""
    made = Grown(random.Random(seed))
    for _ in range(made.dice.randint(1, 4)):
        last = made.grow(STATE)
    tensors = {name: spec(*shape, kind=kind) for name, (shape, kind) in GIVEN.items()}
    output = {"name": "output", "op": "output", "args": [{"ref": last}]}
    content = {"format": 2, "shape": [ROWS, LENGTH], "autocast": None, "tensors": tensors, "nodes": [*made.nodes, output]}
    mask = made.dice.choice(
        [torch.ones(LENGTH, LENGTH).tril(), torch.full((LENGTH, LENGTH), -torch.inf).triu(1), torch.eye(LENGTH)]
    )
    return parse_graph(content, (ROWS, LENGTH), "cpu"), {"buffered": mask}


def moves(seed: int) -> str:
    """What becomes of one random graph; AssertionError where it is proved and a bit moves."""
    try:
        graph, declared = grown(seed)
        proof = prove(graph, declared)
    except NotProved:
        return "not proved"
    generator, dice = torch.Generator().manual_seed(seed), random.Random(seed)
    outcome = "failed"
    for wildness in (0.0, 0.05, 0.3):
        tensors = {name: torch.randn(shape, generator=generator) for name, (shape, _) in GIVEN.items()}
        for name, value in tensors.items():
            special = torch.tensor(SPECIAL)[torch.randint(len(SPECIAL), value.shape, generator=generator)]
            tensors[name] = torch.where(torch.rand(value.shape, generator=generator) < wildness, special, value)
        tensors |= {name: value for name, value in declared.items() if name in proof.pinned}
        model = GraphModel(graph, tensors, "cpu", proof.guards)
        tokens = torch.randint(VOCAB, (ROWS, LENGTH), generator=generator)
        try:
            before = model(tokens)
            for _ in range(4):
                row, cut = dice.randrange(ROWS), dice.randrange(LENGTH)
                other = torch.randint(VOCAB, (ROWS, LENGTH), generator=generator)
                other[row, : cut + 1] = tokens[row, : cut + 1]
                after = model(other)
                one, two = (bits(logits[row, : cut + 1]) for logits in (before, after))
                assert torch.equal(one, two), f"graph {seed} looks ahead of {cut} in row {row}"
        except RefusedError:
            continue
        except GraphError:
            return "failed"
        outcome = "ran"
    return outcome


@pytest.mark.parametrize("part", range(5))
def test_no_bit_moves_in_a_graph_that_is_proved(part: int):
    outcomes = Counter(moves(seed) for seed in range(part, GRAPHS, 5))
    assert outcomes["ran"] and outcomes["not proved"]  # else the test could not fail
