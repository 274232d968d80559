"""Which operators a scored model may use: all of plain PyTorch in eval mode, and nothing that is random, keeps state or reaches
beyond its tensors."""

from collections.abc import Callable

import pytest
import torch
from graphs import call, spec, traced, written
from plain import FUNCTIONS, LAYERS, SHAPE, TOKEN_PIECES, VOCAB, WIDTH, Of
from torch import nn

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.archive import GraphModel
from autoresearch_mcp.evaluate.bounds import check_bounds
from autoresearch_mcp.evaluate.graph import parse_graph
from autoresearch_mcp.evaluate.operators import INSTEAD, OPERATORS, find

REF = {"ref": "w"}


class Model(nn.Module):
    """A piece on the embeddings of tokens, or on the tokens themselves."""

    def __init__(self, piece: nn.Module, embeds: bool):
        super().__init__()
        self.wte, self.piece, self.embeds = nn.Embedding(VOCAB, WIDTH), piece, embeds

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.piece(self.wte(tokens) if self.embeds else tokens)


PIECES: list[object] = [
    *(pytest.param(make, True, id=name) for name, make in LAYERS.items()),
    *(pytest.param(lambda function=function: Of(function), True, id=name) for name, function in FUNCTIONS.items()),
    *(pytest.param(lambda function=function: Of(function), False, id=name) for name, function in TOKEN_PIECES.items()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "embeds"), PIECES)
def test_plain_pytorch_is_accepted_and_gives_the_same(make: Callable[[], nn.Module], embeds: bool):
    torch.manual_seed(0)
    model = Model(make(), embeds).eval()
    content, tensors = traced(model, SHAPE)
    graph = parse_graph(content, SHAPE, "cpu")
    check_bounds(graph, "cpu")
    tokens = torch.randint(VOCAB, SHAPE)
    with torch.no_grad():
        expected = model(tokens)
    scored = GraphModel(graph, tensors, "cpu")
    torch.testing.assert_close(scored(tokens), expected, atol=1e-5, rtol=1e-5, equal_nan=True)
    torch.testing.assert_close(scored(tokens), scored(tokens), atol=0, rtol=0, equal_nan=True)


def refused(node: dict[str, object], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        check_bounds(parse_graph(written(node, shape=SHAPE), SHAPE, "cpu"), "cpu")


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        ("aten.from_file.default", "not allowed"),
        ("aten.add_.Tensor", "not allowed"),
        ("aten.add.out", "pure function"),
        ("aten.add.__class__", "pure function"),
        ("aten.add.no_such_overload", "pure function"),
        ("aten.add", "not allowed"),
        ("aten.add.Tensor.Tensor", "pure function"),
        ("prims.device_put.default", "not allowed"),
        ("quantized.linear.default", "not allowed"),
        ("os.system", "not allowed"),
        ("__import__", "not allowed"),
        ("aten.__class__.default", "not allowed"),
        ("aten.native_group_norm.default", "not allowed"),
        ("aten._unsafe_index.Tensor", "not allowed"),
        ("aten.rand.default", "random"),
        ("aten.rrelu.default", "random"),
        ("aten.native_dropout.default", "random"),
        ("aten.empty.memory_format", "never written; use zeros"),
        ("aten.set_.source_Storage", "reaches into memory"),
        ("aten.as_strided.default", "use view, unfold"),
        ("aten.view.dtype", r"use x.to\(dtype\)"),
        ("aten.nonzero.default", "use torch.where"),
        ("aten.masked_select.default", "masked_fill"),
        ("aten.repeat_interleave.Tensor", "number of repeats as a number"),
        ("aten.item.default", "keep it a tensor"),
        ("aten._local_scalar_dense.default", "keep it a tensor"),
    ],
)
def test_other_operators_are_refused_with_what_to_write_instead(operator: str, reason: str):
    with pytest.raises(RefusedError, match=reason):
        find(operator)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (call("aten.dropout.default", REF, 0.5, True), "call model.eval"),
        (call("aten.dropout.default", REF, 0.5, train=True), "call model.eval"),
        (call("aten.alpha_dropout.default", REF, 0.5, True), "call model.eval"),
        (call("aten.lstm.input", REF, [REF], [REF], True, 1, 0.5, True, False, True), "call model.eval"),
        (call("aten.batch_norm.default", REF, None, None, REF, REF, True, 0.1, 1e-5, True), "call model.eval"),
        (call("aten.scaled_dot_product_attention.default", REF, REF, REF, None, 0.5), "unless self.training"),
        (call("aten.scaled_dot_product_attention.default", REF, REF, REF, dropout_p=1e-30), "unless self.training"),
        (call("aten.scaled_dot_product_attention.default", REF, REF, REF, dropout_p={"float": "nan"}), "unless self.training"),
        (call("aten.scaled_dot_product_attention.default", REF, REF, REF, dropout_p=False), "no float"),
        (call("aten.zeros.default", [1], pin_memory=True), "pinned"),
        (call("aten.zeros.default", [True]), "no List"),
        (call("aten.zeros.default", [1.0]), "no List"),
        (call("aten.zeros.default", [1] * 33), "no List"),
        (call("aten.zeros.default", ["1"]), "no List"),
        (call("aten.zeros.default", [REF]), "no List"),
        (call("aten.zeros.default", [1], dtype="float32"), "no Optional"),
        (call("aten.sum.dim_IntList", REF, True), "no Optional"),
        (call("aten.add.Tensor", REF, "1"), "no Tensor"),
        (call("aten.mul.Scalar", REF, REF), "no number"),
        (call("aten.gelu.default", REF, approximate="/etc/passwd"), "no str"),
        (call("aten.einsum.default", "i{j", [REF]), "no str"),
        (call("aten.searchsorted.Tensor", REF, REF, sorter=REF), "sort the sequence"),
        (call("aten.add.Tensor", REF), "lacks the argument other"),
        (call("aten.add.Tensor", REF, REF, 1), "schema does not have"),
        (call("aten.add.Tensor", REF, REF, self=REF), "schema does not have"),
        (call("aten.add.Tensor", REF, REF, evil=1), "schema does not have"),
        (call("aten.chunk.default", REF, 2**40, name="y"), "chunks above"),
        (call("getitem", REF, 0), "as what it is not"),
    ],
)
def test_arguments_are_of_the_types_and_modes_that_are_scored(node: dict[str, object], reason: str):
    refused(node, reason)


def test_no_listed_operator_is_random_whatever_its_arguments():
    """What PyTorch marks as random is listed only where an argument that must be fixed switches it off."""
    for name in OPERATORS:
        for overload in getattr(torch.ops.aten, name).overloads():
            found = getattr(getattr(torch.ops.aten, name), overload)
            if found._schema.is_mutable or name + "." + overload in INSTEAD:
                continue
            fixed = {argument.name for argument in found._schema.arguments} & {"dropout_p", "train", "training", "generator"}
            assert fixed or torch.Tag.nondeterministic_seeded not in found.tags, found


@pytest.mark.parametrize(
    "node",
    [
        call("aten._native_batch_norm_legit_no_training.default", REF, None, None, {"ref": "v"}, {"ref": "v"}, 0.1, 1e-5, name="y"),
        call("aten.batch_norm.default", REF, None, None, {"ref": "v"}, {"ref": "v"}, False, 0.1, 1e-5, False),
        call("aten.group_norm.default", REF, 2, {"ref": "v"}, {"ref": "v"}),
        call("aten.layer_norm.default", REF, [6], {"ref": "v"}, {"ref": "v"}),
        call("aten.rms_norm.default", REF, [6], {"ref": "v"}),
        call("aten.prelu.default", REF, {"ref": "v2"}),
        call("aten.linear.default", REF, REF, {"ref": "v2"}),
        call("aten.gru_cell.default", REF, REF, {"ref": "v"}, {"ref": "v"}),
    ],
    ids=lambda node: node["op"],
)
def test_no_kernel_reads_behind_a_tensor_that_is_too_short(node: dict[str, object]):
    """A kernel that trusts its sizes would show memory of the evaluator, sealed tokens among it."""
    tensors = {"w": spec(4, 6), "v": spec(1), "v2": spec(2)}
    inputs = [{"name": name, "op": "tensor", "of": name} for name in ("v", "v2")]
    taken = [call("getitem", {"ref": "y"}, 0)] if node["name"] == "y" else []
    graph = parse_graph(written(*inputs, node, *taken, shape=SHAPE, tensors=tensors), SHAPE, "cpu")
    with pytest.raises(RefusedError):
        check_bounds(graph, "cpu")


def test_what_is_written_twice_to_one_place_is_the_same_each_time():
    """More elements than one thread takes, all to a few places."""
    tensors = {"w": spec(1_000_000), "i": spec(1_000_000, dtype="int64", kind="buffer")}
    node = call("aten.index_put.default", {"ref": "w"}, [{"ref": "i"}], {"ref": "w"}, False)
    content = written({"name": "i", "op": "tensor", "of": "i"}, node, shape=SHAPE, tensors=tensors)
    values = {"w": torch.arange(1e6), "i": torch.arange(1_000_000) % 7}
    model = GraphModel(parse_graph(content, SHAPE, "cpu"), values, "cpu")
    first = model(torch.zeros(SHAPE, dtype=torch.int64))
    assert first[6] == 999_998  # the last to be written
    assert all(torch.equal(model(torch.zeros(SHAPE, dtype=torch.int64)), first) for _ in range(5))
    assert not torch.are_deterministic_algorithms_enabled()
