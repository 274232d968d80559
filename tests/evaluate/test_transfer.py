"""Every rule against its operator: whatever changes in a bit was predicted to reach that far, and what is known comes out."""

import zlib
from collections import Counter

import pytest
import torch
from calls import CALLS
from fuzzing import Draw, Drawn, check

from autoresearch_mcp.evaluate.guards import Attention, Finite, Softmax, Write
from autoresearch_mcp.evaluate.operators import OPERATORS
from autoresearch_mcp.evaluate.transfer import RULES, Rule
from autoresearch_mcp.evaluate.transfer_elements import elementwise
from autoresearch_mcp.evaluate.transfer_mixing import prefix
from autoresearch_mcp.evaluate.transfer_moves import same

CASES = 6
"""For each operator; by hand more are run with other seeds."""
COARSE = frozenset(
    """
    adaptive_avg_pool1d arange bucketize cartesian_prod cdist conv_transpose1d cosine_similarity eye full gru_cell isin kron linspace
    logspace lstm_cell masked_scatter ones pairwise_distance scalar_tensor searchsorted trace upsample_linear1d upsample_nearest1d
    zeros
    """.split()  # noqa: SIM905
)
"""Operators without a rule of their own: all depends on all. Few meet them, or nothing could be said."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(name: str, number: int) -> tuple[Drawn, Draw]:
    draw = Draw(zlib.crc32(f"{name}{number}".encode()))
    return CALLS[name](draw), draw


def test_every_operator_is_fuzzed_and_has_a_rule_or_says_that_it_has_none():
    assert set(CALLS) >= OPERATORS
    assert OPERATORS - set(RULES) == COARSE
    assert set(RULES) <= OPERATORS


@pytest.mark.parametrize("name", sorted(CALLS))
def test_no_bit_moves_that_was_not_predicted(name: str):
    outcomes = Counter(check(*drawn(name, number)) for number in range(CASES))
    more = iter(range(CASES, 20 * CASES))
    while not outcomes["ran"]:  # a test that always refuses would find nothing
        outcomes[check(*drawn(name, next(more)))] += 1


def found(name: str) -> None:
    with pytest.raises(AssertionError):
        for number in range(150):
            check(*drawn(name, number))


@pytest.mark.parametrize(("name", "wrong"), [("flip", same), ("cumsum", elementwise), ("sort", prefix)])
def test_the_fuzz_finds_a_rule_that_is_wrong(name: str, wrong: Rule, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RULES, name, wrong)
    found(name)


@pytest.mark.parametrize(
    ("name", "guard"), [("mm", Finite), ("mul", Write), ("softmax", Softmax), ("scaled_dot_product_attention", Attention)]
)
def test_the_fuzz_finds_a_guard_that_enforces_nothing(name: str, guard: type, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "__call__", lambda self, call, args, kwargs: call(*args, **kwargs))
    found(name)
