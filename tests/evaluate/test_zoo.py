"""Plain PyTorch is not hurt, and what looks ahead is not proved: each model of the zoo, and its twin.

An honest model is declared by the harness, accepted, computes what its module computes, and is proved causal; scored as the proof
demands, not one bit of a logit moves when later tokens or other rows do. Its twin is refused by the proof, and where its look-ahead is
neither rare nor faint by the probe too.
"""

import numpy as np
import pytest
import torch
from graphs import bits
from zoo import MODELS, SHAPE, VOCAB
from zoo.declared import declared
from zoo.table import proof_of, row, rows_of_page

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.archive import GraphError, GraphModel
from autoresearch_mcp.evaluate.bpb import CausalityProbe, measure
from autoresearch_mcp.evaluate.causality import Proof, prove

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

HONEST = [name for name, model in MODELS.items() if model.honest]
PROVED = [name for name in HONEST if not MODELS[name].unproved]
HARMLESS = [name for name, model in MODELS.items() if model.harmless]
TWINS = [name for name in MODELS if name not in HARMLESS]
ROWS, LENGTH = SHAPE


def drawn(seed: int) -> torch.Tensor:
    return torch.randint(VOCAB, SHAPE, generator=torch.Generator().manual_seed(seed))


def scored(name: str, peek: bool) -> GraphModel:
    """The model as scoring runs it: under its proof's guards, if it has one."""
    found, proof = declared(name, peek), proof_of(name, peek)
    guards = proof.guards if isinstance(proof, Proof) else {}
    return GraphModel(found.declaration.graph, found.tensors, "cpu", guards)


def probe_refuses(name: str, peek: bool) -> bool:
    """Whether the probe objects while random rows are scored, in one of a few rounds."""
    model = scored(name, peek)
    tokens = np.random.default_rng(5).integers(VOCAB, size=(4 * ROWS, LENGTH + 1), dtype=np.uint16)
    for seed in range(4):
        probe = CausalityProbe(model, 4, np.random.default_rng(seed))
        torch.manual_seed(seed)
        try:
            measure(model, tokens, np.ones((2, VOCAB), np.int32), ROWS, "cpu", probe)
        except RefusedError as refused:
            assert refused.failure == "not_causal"
            return True
    return False


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_is_accepted_and_computes_what_its_module_does(name: str):
    found, tokens = declared(name, False), drawn(1)
    with torch.no_grad():
        expected = found.module(tokens)
    assert torch.allclose(scored(name, False)(tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_is_proved_unless_it_says_why_not(name: str):
    found = declared(name, False).declaration
    if MODELS[name].unproved:
        assert proof_of(name, False) == "the proof"
        assert not probe_refuses(name, False)
    else:
        prove(found.graph, found.values)  # raises NotProved with the reason


@pytest.mark.parametrize("name", [*PROVED, *HARMLESS])
def test_of_a_proved_model_no_bit_moves(name: str):
    model, tokens = scored(name, name in HARMLESS), drawn(2)
    before = model(tokens)
    for cut in (0, LENGTH // 2, LENGTH - 2):
        other = drawn(3)  # every other row, and of row 1 what stands behind the cut
        other[1, : cut + 1] = tokens[1, : cut + 1]
        assert torch.equal(bits(model(other)[1, : cut + 1]), bits(before[1, : cut + 1]))


@pytest.mark.parametrize("name", [*PROVED, *HARMLESS])
def test_no_bit_moves_whatever_the_weights_are(name: str):
    """Where the graph fails or a guard objects there is no score, so nothing to gain."""
    found, proof = declared(name, name in HARMLESS), proof_of(name, name in HARMLESS)
    assert isinstance(proof, Proof)
    generator = torch.Generator().manual_seed(4)
    weights = {
        key: value
        if key in proof.pinned or found.declaration.graph.tensors[key].kind == "constant"
        else torch.where(torch.rand(value.shape, generator=generator) < 0.005, hostile(value, generator), value)
        for key, value in found.tensors.items()
    }
    model, tokens, cut = GraphModel(found.declaration.graph, weights, "cpu", proof.guards), drawn(2), LENGTH // 2
    other = drawn(3)
    other[1, : cut + 1] = tokens[1, : cut + 1]
    try:
        before, after = (model(batch)[1, : cut + 1] for batch in (tokens, other))
    except (RefusedError, GraphError):
        return
    assert torch.equal(bits(before), bits(after))


def hostile(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Numbers that leave traces where others do not."""
    if not value.is_floating_point():
        return value
    drawn_from = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e15, -1e15, 1e30, 3e38, 1e-40])
    return drawn_from[torch.randint(len(drawn_from), value.shape, generator=generator)].to(value.dtype)


@pytest.mark.parametrize("name", TWINS)
def test_a_model_that_looks_ahead_is_not_proved(name: str):
    assert not isinstance(proof_of(name, True), Proof)


@pytest.mark.parametrize("name", [name for name in TWINS if not MODELS[name].small])
def test_the_probe_catches_what_is_neither_rare_nor_faint(name: str):
    assert proof_of(name, True) == "the operator list" or probe_refuses(name, True)


def test_a_mask_of_a_large_number_is_refused_once_scores_outweigh_it():
    name = "attention: -1e4 filled in"
    found, proof = declared(name, False), proof_of(name, False)
    assert isinstance(proof, Proof)
    large = {key: value * 1000 if "qkv" in key else value for key, value in found.tensors.items()}
    with pytest.raises(RefusedError, match="probability is exactly 0"):
        GraphModel(found.declaration.graph, large, "cpu", proof.guards)(drawn(1))


@pytest.mark.parametrize("name", MODELS)
def test_the_page_says_what_is_true_of_it(name: str):
    assert row(MODELS[name]) in rows_of_page(MODELS[name].honest), "run: cd tests/evaluate && python -m zoo.table"


def test_the_page_says_nothing_else():
    assert len(rows_of_page(True)) + len(rows_of_page(False)) == len(MODELS)
