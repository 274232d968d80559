"""Every rule against its operator: whatever changes in a bit was predicted to reach that far, and what is known comes out."""

import zlib
from collections import Counter

import pytest
import torch
from calls import CALLS, call
from fuzzing import Draw, Drawn, Operand, check, mapped

from autoresearch_mcp.evaluate.dependence import Value
from autoresearch_mcp.evaluate.graph import Step
from autoresearch_mcp.evaluate.guards import Attention, Finite, Softmax, Write
from autoresearch_mcp.evaluate.operators import OPERATORS
from autoresearch_mcp.evaluate.transfer import RULES, Call, Rule, by_rule
from autoresearch_mcp.evaluate.transfer_elements import elementwise
from autoresearch_mcp.evaluate.transfer_mixing import prefix
from autoresearch_mcp.evaluate.transfer_moves import same

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

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


@pytest.mark.parametrize(("name", "number"), [("true_divide", 1120), ("index", 1030)])
def test_what_was_found_stays_mended(name: str, number: int):
    """98 / (1 / 49) rounded to 98 in float32 alone; an index that left no dimension."""
    assert check(*drawn(name, number)) == "ran"


HALF_KNOWN = torch.tensor([True, False])


def partly_known(*numbers: float, dtype: torch.dtype = torch.float64) -> Operand:
    """The first is known, the second depends on token 2."""
    real = torch.tensor(numbers, dtype=dtype)
    reach = [torch.tensor([0, 3], dtype=torch.int32)] * 3
    return Operand(Value((*reach, ~HALF_KNOWN, ~HALF_KNOWN & False, real)).blurred(), real, lambda _: real)


@pytest.mark.parametrize(
    "made",
    [
        call("mul.Tensor", partly_known(49.0, 3.0), 1 / 49),  # 1 in float32, not in float64
        call("gt.Scalar", partly_known(1.0, 3.0), 0.9999),  # not so in bfloat16
        call("reciprocal.default", partly_known(0.0, 3.0)),  # a zero of which sign?
        call("masked_fill.Scalar", partly_known(1.0, 3.0), partly_known(1, 0, dtype=torch.bool), 1e39),  # infinite in float32
        call("constant_pad_nd.default", partly_known(1.0, 3.0), [1, 0], 0.1),
        call("_to_copy.default", partly_known(-1.0, 3.0), dtype=torch.uint8),  # out of range, so that every machine has another
        call("copy.default", partly_known(1, 2, dtype=torch.int8), partly_known(2**24 + 1, 2, dtype=torch.int64)),
        call("cat.default", [partly_known(2**24 + 1, 2, dtype=torch.int64), partly_known(0.5, 0.5)]),
    ],
    ids=lambda made: made.operator,
)
def test_what_a_machine_or_a_precision_may_see_otherwise_is_not_known(made: Drawn):
    operator, overload = made.operator.split(".")
    step = Step("x", f"aten.{made.operator}", getattr(getattr(torch.ops.aten, operator), overload), [], {}, None)
    args, kwargs = (mapped(given, lambda operand: operand.value) for given in (made.args, made.kwargs))
    predicted = by_rule(Call(step, args, kwargs))
    assert isinstance(predicted, Value)
    first = predicted.unknown[..., 0].flatten()[0]
    wrapped = made.operator == "copy.default"  # 2**24 + 1 is 1 in eight bits, everywhere
    assert bool(first) != wrapped
    assert not wrapped or predicted.value.tolist()[0] == 1
