import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.record.noise import PooledNoise

SCORES = st.lists(st.floats(-1e3, 1e3, allow_nan=False), min_size=1, max_size=6)


def test_before_anything_is_repeated_the_noise_is_unknown_and_the_floor_what_the_task_states():
    noise = PooledNoise()
    noise.put(1, [2.0])
    assert noise.deviation is None and noise.floor(0.01) == 0.01


@given(st.lists(SCORES, min_size=1, max_size=8))
def test_groups_that_grow_run_by_run_pool_to_what_they_are_in_the_end(groups: list[list[float]]):
    noise = PooledNoise()
    for number, scores in enumerate(groups):
        for count in range(1, len(scores) + 1):
            noise.put(number, scores[:count])
    degrees = sum(len(scores) - 1 for scores in groups)
    if not degrees:
        assert noise.deviation is None
        return
    squares = sum(statistics.variance(scores) * (len(scores) - 1) for scores in groups if len(scores) > 1)
    assert noise.deviation == pytest.approx((squares / degrees) ** 0.5, rel=1e-6, abs=1e-6)
    assert noise.floor(1e9) == 1e9
