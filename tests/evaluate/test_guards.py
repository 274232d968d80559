"""Guards let honest values pass unchanged, take away what a masked value could say, and refuse where they cannot."""

from typing import Any

import pytest
import torch

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.guards import Attention, Finite, Recall, Softmax, Write

aten: Any = torch.ops.aten
LENGTH, WIDTH = 4, 8
FUTURE = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
SDPA = aten.scaled_dot_product_attention.default
WORDS = "at node x the proof of causality needs"


def states(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))


def with_last(value: torch.Tensor, number: float) -> torch.Tensor:
    return torch.cat([value[:, :-1], torch.full_like(value[:, -1:], number)], 1)


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return Attention("x", None)(SDPA, [query, key, value], {"attn_mask": ~FUTURE})


def test_attention_is_what_it_was():
    x = states()
    assert torch.equal(attended(x, x, x), SDPA(x, x, x, ~FUTURE))


@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_attention_is_refused_where_a_masked_operand_is_not_finite(number: float, place: int):
    operands = [states(), states(1), states(2)]
    operands[place] = with_last(operands[place], number)
    with pytest.raises(RefusedError, match=f"^{WORDS} finite queries, keys and values"):
        attended(*operands)


def test_attention_is_refused_where_a_score_may_overflow():
    with pytest.raises(RefusedError, match="finite queries"):
        attended(states() * 1e20, states() * 1e20, states())


def test_a_masked_value_shows_in_no_bit():
    x = states()
    for number in (1e15, -1e15, -0.0, 0.0, 1e-40):
        assert torch.equal(attended(x, x, with_last(x, number))[:, :-1], attended(x, x, x)[:, :-1])
    zeros = attended(x, x, with_last(torch.zeros_like(x), -1.0))[:, :-1]
    assert not zeros.signbit().any()


@pytest.mark.parametrize("named", [False, True])
def test_a_large_negative_mask_must_outweigh_every_score(named: bool):
    x, mask = states(), torch.zeros(LENGTH, LENGTH).masked_fill(FUTURE, -1e4)
    guard = Attention("x", FUTURE)
    operands = {"query": x, "key": x, "value": x, "attn_mask": mask}

    def run(scale: float) -> torch.Tensor:
        given = operands | {"query": x * scale, "key": x * scale}
        return guard(SDPA, [], given) if named else guard(SDPA, list(given.values()), {})

    assert torch.allclose(run(1.0), SDPA(x, x, x, ~FUTURE))
    with pytest.raises(RefusedError, match="so low that their probability is exactly 0"):
        run(30.0)


@pytest.mark.parametrize("named", [False, True])
def test_softmax_takes_arguments_by_name_and_by_place(named: bool):
    scores = torch.randn(LENGTH, LENGTH).masked_fill(FUTURE, -torch.inf)
    guard = Softmax("x", FUTURE, False, -1)
    call, given = aten.softmax.int, {"self": scores, "dim": -1}
    assert torch.equal(guard(call, [], given) if named else guard(call, list(given.values()), {}), scores.softmax(-1))


def test_softmax_refuses_masked_scores_that_may_count():
    scores = torch.randn(LENGTH, LENGTH)
    guard = Softmax("x", FUTURE, True, -1)
    low = guard(aten.softmax.int, [scores.masked_fill(FUTURE, -1e4), -1], {})
    assert torch.equal(low, scores.masked_fill(FUTURE, -torch.inf).softmax(-1))
    for number in (-20.0, torch.nan, torch.inf):
        with pytest.raises(RefusedError, match=f"^{WORDS} masked scores so low"):
            guard(aten.softmax.int, [scores.masked_fill(FUTURE, number), -1], {})


@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan])
def test_a_product_with_a_mask_is_refused_where_it_is_not_finite(number: float):
    guard = Finite("x")
    with pytest.raises(RefusedError, match=f"^{WORDS} finite results"):
        guard(aten.matmul.default, [(~FUTURE).float(), with_last(states(), number)], {})


def test_a_product_with_a_mask_has_no_negative_zero():
    zero = Finite("x")(aten.mul.Tensor, [torch.zeros(3), torch.tensor([-1.0, 1.0, -0.0])], {})
    assert not zero.signbit().any()


def test_what_is_known_is_written_whatever_came_out():
    hidden = torch.tensor([torch.inf, torch.nan, -3.0, 5.0])
    guard = Write("x", torch.tensor([True, True, True, False]), torch.zeros(1))
    result = guard(aten.mul.Tensor, [torch.tensor([0.0, 0.0, 0.0, 2.0]), hidden], {})
    assert result.tolist() == [0, 0, 0, 10]
    assert not result.signbit().any()


def test_a_constant_is_that_of_the_proof_in_the_type_of_the_run():
    result = Recall("x", torch.tensor([[1.0]]))(aten.add.Tensor, [torch.zeros(2, 3, dtype=torch.bfloat16), 0.5], {})
    assert result.dtype is torch.bfloat16
    assert torch.equal(result, torch.ones(2, 3, dtype=torch.bfloat16))


def test_guards_hold_under_autocast():
    x = states()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attended(x, x, x).isfinite().all()
        assert torch.equal(attended(x, x, with_last(x, 7.0))[:, :-1], attended(x, x, x)[:, :-1])
        with pytest.raises(RefusedError, match="finite results"):
            Finite("x")(aten.matmul.default, [(~FUTURE).float(), with_last(states(), 3.4e38)], {})
