"""When an agent is started again, and when a night is given up: pure, so over any course of a night."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.night import patience
from autoresearch_mcp.night.patience import FEW, LONGEST_LIMIT, LONGEST_PAUSE, MANY, Ended, Next, Patience, after

WORKED = Ended(0, "Shall I go on?", called=True, recorded=True)
LOOKED = Ended(0, "I looked.", called=True, recorded=False)
FAILED = Ended(1, "Invalid API key", called=False, recorded=False)
STALLED = Ended(None, "", called=False, recorded=False)
LIMITED = Ended(1, "API Error: 529 Overloaded", called=False, recorded=False)
SWALLOWED = Ended(0, "API Error: 529 Overloaded", called=False, recorded=False)
"""A limit, behind a script that ends well."""
ENDS = st.builds(
    lambda end, called, recorded: Ended(end.status, end.output, called, called and recorded),
    st.sampled_from([WORKED, FAILED, STALLED, LIMITED]),
    st.booleans(),
    st.booleans(),
)


def course(ends: list[Ended]) -> list[Next]:
    """What follows after each of these starts, until the night is given up."""
    known, follows = Patience(), list[Next]()
    for ended in ends:
        known, following = after(known, ended)
        follows.append(following)
        if following.pause is None:
            break
    return follows


@given(st.lists(ENDS, max_size=60))
def test_every_pause_is_bounded_and_a_night_that_is_given_up_says_what_to_do(ends: list[Ended]):
    for following in course(ends):
        assert (following.pause is None) == bool(following.advice)
        assert following.pause is None or patience.AT_ONCE <= following.pause <= max(LONGEST_PAUSE, LONGEST_LIMIT)


@given(st.lists(ENDS, max_size=100))
def test_a_night_is_never_given_up_within_few_starts_of_a_success(ends: list[Ended]):
    for number, following in enumerate(course(ends)):
        if following.pause is None:
            assert not any(ended.recorded for ended in ends[number - FEW + 1 : number + 1])
            assert not ends[number].limited


@given(st.integers(1, 40), st.sampled_from([FAILED, STALLED, LOOKED]))
def test_starts_that_bring_nothing_wait_longer_each_time_and_come_to_an_end(times: int, ended: Ended):
    follows = course([ended] * times)
    pauses = [following.pause for following in follows if following.pause is not None]
    assert pauses == sorted(pauses)
    assert len(pauses) < (MANY if ended.called else FEW)


@given(st.integers(1, 200), st.sampled_from([LIMITED, SWALLOWED]))
def test_a_limit_is_waited_for_all_night(times: int, ended: Ended):
    pauses = [following.pause for following in course([ended] * times)]
    assert None not in pauses and pauses[0] == patience.LIMIT_PAUSE and pauses == sorted(pauses, key=lambda pause: pause or 0.0)


@given(st.lists(ENDS, max_size=30))
def test_an_agent_that_works_is_started_at_once_whatever_was_before(ends: list[Ended]):
    follows = course([*ends, WORKED])
    if all(following.pause is not None for following in follows):
        assert follows[-1].pause == patience.AT_ONCE


def test_a_wrong_key_ends_the_night_in_two_minutes_and_a_lost_network_does_not():
    assert sum(following.pause or 0 for following in course([FAILED] * 99)) < 120
    assert sum(following.pause or 0 for following in course([WORKED] + [FAILED] * 99)) > 2 * 3600


@pytest.mark.parametrize(
    "output",
    [
        "API Error: Request rejected (429) · Number of requests exceeded",
        "API Error: 529 Overloaded. This is a server-side issue, usually temporary",
        "ERROR: exceeded retry limit, last status: 429 Too Many Requests",
        "ERROR: unexpected status 529 <unknown status code>: Overloaded, url: http://127.0.0.1/v1/responses",
        '_ApiError: {"error":{"code":429,"message":"You exceeded your current quota","status":"RESOURCE_EXHAUSTED"}}',
        "Claude AI usage limit reached|1763956800",
        "You've hit your limit · resets 3am",
        "rate_limit_error",
    ],
)
def test_limits_are_known_by_the_clients_words(output: str):
    assert Ended(1, output, called=False, recorded=False).limited
    assert Ended(None, output, called=False, recorded=False).limited  # it asks again and again by itself


@pytest.mark.parametrize(
    "ended",
    [
        FAILED,
        Ended(0, "I raised the rate limit to 429.", called=True, recorded=True),
        Ended(1, "unexpected status 401 Unauthorized: invalid x-api-key", called=False, recorded=False),
        Ended(1, "error: unknown option '--modle'", called=False, recorded=False),
        Ended(1, "    at retryWithBackoff (chunk.js:429:23)", called=False, recorded=False),
        Ended(1, "529 tests", called=False, recorded=False),
    ],
)
def test_other_failures_are_no_limits(ended: Ended):
    assert not ended.limited


def test_a_question_is_known_in_the_last_line():
    assert WORKED.asked and "question" in WORKED.reason()
    assert Ended(0, "**Shall I try a wider model?**\n", called=True, recorded=True).asked
    assert not LOOKED.asked and not Ended(1, "what?", called=False, recorded=False).asked
