"""What differs, in bounded time, and shown so that no character of a file garbles it."""

import difflib
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch_mcp.loop import diffs
from autoresearch_mcp.loop.diffs import Diff, changes_between, matching, unified_diff, visible

letters = st.lists(st.sampled_from("abcdefgh"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(letters, letters, st.sampled_from([0, diffs.WORK]))
def test_what_matches_is_equal_and_in_order_at_any_price(old: list[str], new: list[str], work: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffs, "WORK", work)
        runs = matching(old, new)
        changes = changes_between(old, new)
    for i, j, size in runs:
        assert size and old[i : i + size] == new[j : j + size]
    assert all(i + n <= k and j + n <= m for (i, j, n), (k, m, _) in pairwise(runs))
    rebuilt, at = list[str](), 0
    for i, j, k, m in changes:
        rebuilt += old[at:i] + new[k:m]
        at = j
    assert rebuilt + old[at:] == new


@settings(max_examples=300, deadline=None)
@given(letters, letters)
def test_a_small_diff_reads_as_difflibs(old: list[str], new: list[str]):
    before, after = ("".join(f"{line}\n" for line in lines) for lines in (old, new))
    shown = unified_diff(before, after, "x.md").text
    ends = [line for line in shown.split("\n") if line.startswith("@@")]
    assert len(ends) <= len(list(difflib.unified_diff(old, new, lineterm=""))[2:]) and (shown == "") == (old == new)
    theirs = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "a/x.md", "b/x.md")
    if len(old) < 3:  # without ends in common to set aside first, both find the same
        assert shown.count("\n") <= "".join(theirs).count("\n")


def test_fixed_points_keep_a_large_diff_short():
    old = [f"v{i}" for i in range(50_000)]
    new = [line for line in old if not line.endswith("7")] + ["end"]
    changes = changes_between(old, new)
    assert sum(j - i for i, j, _, _ in changes) == 5_000 and sum(m - k for _, _, k, m in changes) == 1


def test_a_diff_knows_the_lines_that_came_and_went():
    diff = unified_diff("a\n-- b\r\nc\n", "a\n++ d\r\ne\nc\n", "x.md")
    assert (diff.added, diff.removed) == (("++ d", "e"), ("-- b",))
    assert unified_diff("a\n", "a\n", "x.md") == Diff("", (), ())


def test_a_missing_last_line_end_is_shown_and_only_that():
    assert unified_diff("a\nb", "a\nc", "x.md").text.count("\\ No newline at end of file\n") == 2
    for odd in "\r\x0b\x0c\x1c\x85\u2028\u2029":
        diff = unified_diff("a\nb\n", f"a\nb{odd}c\n", "x.md")
        assert "No newline" not in diff.text and diff.text.count("\n") == 6 and diff.added == (f"b{odd}c",)


def test_what_would_garble_a_diff_is_shown_as_a_picture_or_code_point():
    shown = unified_diff("", "a\rb\x0cc\x1b[2Jd\u2028e\u202ef\x7fg\th\n", "x.md").text
    assert shown == "--- a/x.md\n+++ b/x.md\n@@ -0,0 +1 @@\n+a␍b␌c␛[2Jd<U+2028>e<U+202E>f␡g\th\n"


def test_half_a_character_is_shown_as_its_code_point():
    assert visible("a\ud800b\udfff🎉") == "a<U+D800>b<U+DFFF>🎉"


def test_a_line_end_is_shown_where_it_is_what_changed():
    assert unified_diff("a\r\nb\r\n", "a\r\nc\r\n", "x.md").text.endswith("@@\n a\n-b\n+c\n")
    assert unified_diff("a\r\nb\r\n", "a\r\nb\n", "x.md").text.endswith("@@\n a␍\n-b␍\n+b\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x\n" * 6_000, "y\n" + "x\n" * 3_000 + "z\n" + "x\n" * 3_001),
        ("a\nb\nb\n" * 60_000, "b\na\na\n" * 60_000),
        ("".join(f"{i}\n" for i in range(100_000)), "".join(f"{i if i % 2 else 'q'}\n" for i in range(100_000))),
        ("".join(f"{i}\n" for i in range(100_000)), "".join(f"{i}\n" for i in reversed(range(100_000)))),
        ("".join(f"{i // 2}\n" for i in range(100_000)), "".join(f"{i // 2}\n" for i in range(1, 100_001))),
    ],
)
def test_no_two_texts_take_long_to_compare(old: str, new: str):
    started = time.process_time()
    unified_diff(old, new, "x.md")
    assert time.process_time() - started < 4  # each took difflib from 9 s to hours; now under a second
