"""What the evaluator makes of a graph's JSON: checked values, or a refusal in words, and never anything else."""

import copy
import json
import time
from functools import cache

import pytest
import torch
from graphs import OUTPUT, TOKENS, W, call, spec, traced, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import LAYERS, SHAPE, VOCAB, WIDTH
from torch import nn

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate import bounds
from autoresearch_mcp.evaluate.archive import GraphError, GraphModel
from autoresearch_mcp.evaluate.bounds import check_bounds
from autoresearch_mcp.evaluate.graph import MAX_NODES, Graph, Ref, parse_graph

ADD = call("aten.add.Tensor", {"ref": "w"}, 1)
REF = {"ref": "w"}


def read(content: object) -> Graph:
    graph = parse_graph(content, SHAPE, "cpu")
    check_bounds(graph, "cpu")
    return graph


def test_a_graph_is_read_into_typed_steps():
    content = written(
        call("aten.to.dtype", {"ref": "w"}, {"dtype": "bfloat16"}, name="y"),
        call("aten.full.default", [2, 3], {"float": "-inf"}, name="z", device={"device": "cuda:7"}, layout={"layout": "strided"}),
        call("aten._assert_async.msg", {"ref": "y"}, "shown by nobody", name="checked"),
        call("aten.split.Tensor", {"ref": "y"}, 2, name="parts"),
        call("getitem", {"ref": "parts"}, 1) | {"autocast": "off"},
        shape=SHAPE,
        autocast="bfloat16",
    )
    graph = read(content)
    assert graph.shape == SHAPE and graph.tokens == "t" and graph.inputs == {"w": "w"} and graph.output == Ref("x")
    assert [step.operator for step in graph.steps] == ["aten.to.dtype", "aten.full.default", "aten.split.Tensor", "getitem"]
    cast, full, split, item = graph.steps
    assert cast.args == [Ref("w"), torch.bfloat16] and cast.autocast is torch.bfloat16 and item.autocast is None
    assert full.args == [[2, 3], -torch.inf] and full.kwargs == {"device": torch.device("cpu"), "layout": torch.strided}
    assert split.args == [Ref("y"), 2]
    assert graph.last_uses() == [["w"], ["z"], ["y"], ["parts"]]


deep: list[object] = []
for _ in range(5000):
    deep = [deep]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "malformed"),
        ([], "malformed"),
        (written(ADD, shape=SHAPE, format=1), "format 2"),
        (written(ADD, shape=SHAPE, format=True), "format 2"),
        (written(ADD, shape=(1, 1)), "must be"),
        (written(ADD, shape=SHAPE, extra=1), "malformed"),
        (written(ADD, shape=SHAPE, nodes={}), "no list"),
        (written(ADD, shape=SHAPE, nodes=[TOKENS] * (MAX_NODES + 1)), "loop over fewer"),
        (written(ADD, shape=SHAPE, autocast="float8_e4m3fn"), "autocast"),
        (written(ADD, shape=SHAPE, tensors=[]), "tensors"),
        (written(ADD, shape=SHAPE, tensors={"w": spec(2**20, 2**20)}), "GiB"),
        (written(ADD, shape=SHAPE, tensors={"w": spec(-1)}), "without a shape"),
        (written(ADD, shape=SHAPE, tensors={"w": spec(True)}), "without a shape"),
        (written(ADD, shape=SHAPE, tensors={"w": spec(*[1] * 17)}), "without a shape"),
        (written(ADD, shape=SHAPE, tensors={"w": spec(1, dtype="complex64")}), "use one of float64"),
        (written(ADD, shape=SHAPE, tensors={"w": spec(1, dtype="load")}), "use one of"),
        (written(ADD, shape=SHAPE, tensors={"w": spec(1, kind="weight")}), "neither parameter"),
        (written(ADD, shape=SHAPE, tensors={"w" * 201: spec(1)}), "printable"),
        (written(ADD, shape=SHAPE, tensors={"\x1b[2J": spec(1)}), "printable"),
        (written(ADD, shape=SHAPE, tensors={"\ud800": spec(1)}), "printable"),
        (written(ADD, shape=SHAPE, tensors={}), "not declared"),
        (written(ADD, ADD, shape=SHAPE), "two nodes"),
        (written(call("aten.add.Tensor", REF, 1, name="w"), shape=SHAPE), "two nodes"),
        (written(call("aten.add.Tensor", REF, 1, name=""), shape=SHAPE), "printable"),
        (written(call("aten.add.Tensor", {"ref": "nobody"}, 1), shape=SHAPE), "before it exists"),
        (written(call("aten.add.Tensor", {"ref": "x"}, 1), shape=SHAPE), "before it exists"),
        (written(call("aten.add.Tensor", {"object": "evil"}, 1), shape=SHAPE), "unknown kind"),
        (written(call("aten.add.Tensor", {"ref": "w", "dtype": "bool"}, 1), shape=SHAPE), "unknown kind"),
        (written(call("aten.add.Tensor", REF, 2**63), shape=SHAPE), "64 bits"),
        (written(call("aten.add.Tensor", REF, deep), shape=SHAPE), "nested deeper"),
        (written(call("aten.cat.default", [REF] * 10_001), shape=SHAPE), "longer than"),
        (written(call("aten.einsum.default", "i" * 201, [REF]), shape=SHAPE), "200 characters"),
        (written(call("aten.zeros.default", [1], dtype={"dtype": "complex64"}), shape=SHAPE), "use one of float64"),
        (written(call("aten.zeros.default", [1], dtype={"dtype": "load"}), shape=SHAPE), "use one of"),
        (written(call("aten.zeros.default", [1], layout={"layout": "sparse_coo"}), shape=SHAPE), "use one of strided"),
        (written(ADD | {"args": None}, shape=SHAPE), "without arguments"),
        (written(ADD | {"kwargs": []}, shape=SHAPE), "without arguments"),
        (written({"name": "x"}, shape=SHAPE), "without an operator"),
        (written({"name": "x", "op": "tensor", "of": ["w"]}, shape=SHAPE), "not declared"),
        (written(ADD, {"name": "t2", "op": "tokens", "of": None}, shape=SHAPE), "more than once"),
        (written(ADD, OUTPUT, shape=SHAPE), "after its output"),
        (written(shape=SHAPE, nodes=[TOKENS, W, ADD]), "needs one node"),
        (written(shape=SHAPE, nodes=[W, ADD, OUTPUT]), "needs one node"),
        (written(shape=SHAPE, nodes=[TOKENS, W, ADD, OUTPUT | {"args": [[{"ref": "x"}, {"ref": "w"}]]}]), "one tensor"),
        (written(shape=SHAPE, nodes=[TOKENS, W, ADD, OUTPUT | {"args": [None]}]), "one tensor"),
        (written(call("aten.view.default", REF, [7, 7]), shape=SHAPE), "fails at node 'x' .*invalid for input of size 24"),
        (written(call("aten.split.Tensor", REF, 2), shape=SHAPE), "as what it is not"),
        (
            written(call("aten.split.Tensor", REF, 2, name="y"), call("getitem", {"ref": "y"}, 7), shape=SHAPE),
            "fails at node 'x'",
        ),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_in_words(content: object, reason: str):
    with pytest.raises(RefusedError, match=reason) as refusal:
        read(content)
    assert len(str(refusal.value)) < 600 and str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "nodes",
    [
        [call("aten.zeros.default", [2**40])],
        [call("aten.full.default", [2**31, 2**31], 1.0)],
        [call("aten.eye.default", 2**20)],
        [call("aten.arange.default", 1e12)],
        [call("aten.linspace.default", 0, 1, 2**40)],
        [call("aten.expand.default", REF, [2**40, 4, 6])],
        [call("aten.repeat.default", REF, [2**20, 2**20])],
        [call("aten.tile.default", REF, [2**40])],
        [call("aten.pad.default", REF, [0, 2**40])],
        [call("aten.constant_pad_nd.default", REF, [0, 2**62])],
        [call("aten.fft_rfft.default", REF, 2**40)],
        [call("aten.one_hot.default", {"ref": "t"}, 2**40)],
        [call("aten.repeat_interleave.self_int", REF, 2**40)],
        [call("aten.einsum.default", "ab,cd,ef,gh,ij,kl,mn,op->abcdefghijklmnop", [REF] * 8)],
        [call("aten.cartesian_prod.default", [{"ref": "v"}] * 12)],
        [call("aten.upsample_nearest1d.vec", {"ref": "w3"}, [2**40], None)],
        [call("aten.adaptive_avg_pool1d.default", REF, [2**40])],
        [call("aten.expand.default", REF, [2**28, 4, 6], name="y"), call("aten.unbind.int", {"ref": "y"}, 0, name="z"), call("getitem", {"ref": "z"}, 0)],
        [call("aten.expand.default", REF, [2**27, 4, 6], name="y"), call("aten.split.Tensor", dim=0, split_size=1, self={"ref": "y"}, name="z"), call("getitem", {"ref": "z"}, 0)],
        [call("aten.linalg_norm.default", REF, 2)],
        [call("aten.zeros.default", [2**14, 2**14], name="y"), call("aten.cdist.default", {"ref": "y"}, {"ref": "y"}, 1.0)],
        [call("aten.zeros.default", [2**16, 2**16], name="a"), call("aten.mm.default", {"ref": "a"}, {"ref": "a"})],
        [call("aten.zeros.default", [2**32], name=f"n{i}") for i in range(5)] + [call("aten.cat.default", [{"ref": f"n{i}"} for i in range(5)])],
        [call("aten.zeros.default", [1, 1, 2**22, 2], name="a"), call("aten.scaled_dot_product_attention.default", value={"ref": "a"}, key={"ref": "a"}, query={"ref": "a"})],
    ],
    ids=lambda nodes: f"{nodes[-1]['op']} {len(nodes)}",
)  # fmt: skip
def test_what_would_take_too_much_is_refused_before_it_runs(nodes: list[dict[str, object]]):
    tensors = {"w": spec(4, 6), "v": spec(12), "w3": spec(1, 4, 6)}
    inputs = [{"name": name, "op": "tensor", "of": name} for name in ("v", "w3")]
    start = time.monotonic()
    with pytest.raises(RefusedError):
        read(written(*inputs, *nodes, shape=SHAPE, tensors=tensors))
    assert time.monotonic() - start < 10


def test_many_small_calls_are_bounded_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounds, "MAX_CALLS", 500)
    with pytest.raises(RefusedError, match="500 calls"):
        read(written(call("aten.diff.default", REF, 501, 0), shape=SHAPE, tensors={"w": spec(1000)}))


@cache
def honest() -> dict[str, object]:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.attention = nn.Embedding(VOCAB, WIDTH), LAYERS["alibi"]()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.attention(self.wte(tokens))
            return torch.stack(x.split(4, dim=1)).sum(0).clamp(-1, 1)

    return traced(Model(), SHAPE)[0]


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


PARTS = [at for at in places(honest()) if at]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.sampled_from([2**31, 2**62, -(2**63), 2**64, 10**400]),
    st.floats(), st.text(max_size=5), st.sampled_from(["ref", "tokens", "tensor", "output", "getitem", "off", "float32"]),
    st.sampled_from(["aten.cat.default", "aten.mm.default", "aten.index.Tensor", "aten.scatter.src", "aten.sum.default", "aten.lstm.input"]),
    st.lists(st.integers(-2, 9), max_size=4), st.just({}), st.sampled_from([{"ref": "tokens"}, {"dtype": "bool"}, {"float": "nan"}, {"device": "x"}]),
    st.sampled_from(PARTS).map(lambda at: ("copy", at)),
)  # fmt: skip


def at(value: object, path: tuple[object, ...]) -> object:
    for key in path:
        value = value[key]
    return value


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(PARTS), ODD, st.sampled_from(["set", "delete", "add"])), min_size=1, max_size=3))
def test_a_mutated_graph_is_refused_in_words_or_runs(changes: list[tuple[tuple[object, ...], object, str]]):
    content = copy.deepcopy(honest())
    for path, odd, how in changes:
        odd = copy.deepcopy(at(honest(), odd[1]) if isinstance(odd, tuple) else odd)
        try:
            parent = at(content, path[:-1])
            if how == "delete":
                del parent[path[-1]]
            elif how == "add" and isinstance(parent, list):
                parent.insert(path[-1], odd)
            else:
                parent[path[-1]] = odd
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took that place away
    try:
        content = json.loads(json.dumps(content))
        graph = read(content)
    except RefusedError as error:
        assert str(error).isprintable() and len(str(error)) < 600
        return
    tensors = {name: torch.zeros(spec.shape, dtype=spec.dtype) for name, spec in graph.tensors.items()}
    try:
        GraphModel(graph, tensors, "cpu")(torch.zeros(SHAPE, dtype=torch.int64))
    except GraphError as error:
        assert error.node and error.operator and error.explanation
