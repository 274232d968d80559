"""Where a hunk goes: the one place that leaves no doubt, or none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch_mcp.errors import PatchError
from autoresearch_mcp.loop.hunks import Hunk, Reading
from autoresearch_mcp.loop.placing import place

TEXT = "one\ntwo\nthree\n  four\nfive\ntwo\nsix\n"


def hunk(old: str, new: str, **more) -> Hunk:
    return Hunk("Hunk 1", [Reading(old.split("\n") if old else [], new.split("\n") if new else [])], **more)


def diff(context: str, old: str, new: str, **more) -> Hunk:
    """A hunk with one line of context above."""
    return Hunk("Hunk 1", [Reading([context, old], [context, new], [(0, 0)])], **more)


def test_a_place_is_found_exactly_before_loosely():
    assert place([hunk("three", "3")], "a.md", "  three\nthree\n") == "  three\n3\n"
    assert place([hunk("three", "3")], "a.md", "  three\n") == "  3\n"


def test_the_first_reading_that_fits_is_taken():
    readings = [Reading(["none"], ["x"]), Reading(["three"], ["3"]), Reading(["two"], ["2"])]
    assert place([Hunk("Hunk 1", readings)], "a.md", TEXT) == TEXT.replace("three", "3")


def test_the_line_number_decides_only_near_it():
    text = "a\nb\n" * 20
    assert place([hunk("a\nb", "c", line=7)], "a.md", text).split("\n")[6] == "c"
    far = "x\n" * 40 + "b\n" + "x\n" * 40 + "b\n"
    assert place([hunk("b", "c", line=42)], "a.md", far) == "x\n" * 40 + "c\n" + "x\n" * 40 + "b\n"
    for line in (50, 45, 200):
        with pytest.raises(PatchError, match="ambiguous: its lines stand in a.md at lines 41, 82"):
            place([hunk("b", "c", line=line)], "a.md", far)
    with pytest.raises(PatchError, match="ambiguous"):
        place([hunk("b", "c", line=2)], "a.md", "b\nx\nb\n")


def test_a_number_that_is_off_is_off_for_later_hunks_too_unless_it_then_fits_twice():
    text = "start\n" + "x\n" * 30 + "b\n" + "x\n" * 30 + "b\n"
    moved = place([hunk("start", "begin", line=8), hunk("b", "c", line=39)], "a.md", text)
    assert moved == "begin\n" + "x\n" * 30 + "c\n" + "x\n" * 30 + "b\n"
    with pytest.raises(PatchError, match="ambiguous"):
        place([hunk("start", "begin", line=32), hunk("b", "c", line=63)], "a.md", text)


def test_stale_context_is_left_out_but_not_context_that_stands_elsewhere_nor_all_of_it():
    hunk = Hunk("Hunk 1", [Reading(["gone", "three", "  four"], ["gone", "three", "  4"], [(0, 0), (1, 1)])], line=3)
    assert place([hunk], "a.md", TEXT) == TEXT.replace("four", "4")
    with pytest.raises(PatchError, match="does not fit"):
        place([diff("gone", "  four", "  4", line=3)], "a.md", TEXT)
    elsewhere = Hunk("Hunk 1", [Reading(["six", "three", "  four"], ["six", "three", "  4"], [(0, 0), (1, 1)])], line=3)
    with pytest.raises(PatchError, match="does not fit"):
        place([elsewhere], "a.md", TEXT)


def test_part_of_a_text_is_found_once_or_refused():
    assert place([hunk("hre", "HRE", literal=True)], "a.md", TEXT) == TEXT.replace("hre", "HRE")
    assert place([hunk("e\n  f", "E-F", literal=True)], "a.md", TEXT) == TEXT.replace("e\n  f", "E-F")
    with pytest.raises(PatchError, match="at lines 2, 6"):
        place([hunk("tw", "TW", literal=True)], "a.md", TEXT)
    with pytest.raises(PatchError, match="does not fit"):
        place([hunk("hre", "HRE", partial=True)], "a.md", TEXT)  # within a word
    with pytest.raises(PatchError, match="at lines 1, 2"):  # exactly in a comment, and loosely as a line of its own
        place([hunk("x = 1", "x = 2", partial=True)], "a.md", "# x = 1\nx  =  1\n")


def test_a_part_of_a_line_is_not_replaced_by_all_of_it():
    text = "rate = 1\nbetas = (0.8, 0.9)\n"
    with pytest.raises(PatchError, match="does not fit"):
        place([hunk("rate = 1\nbetas =", "rate = 2\nbetas = (0.8, 0.9)", partial=True)], "a.md", text)
    assert place([hunk("rate = 1\nbetas =", "rate = 2\nbeta =", partial=True)], "a.md", text) == "rate = 2\nbeta = (0.8, 0.9)\n"


def test_the_last_line_end_goes_only_where_a_call_takes_it():
    assert place([hunk("six\n", "seven", literal=True)], "a.md", TEXT) == TEXT.replace("six\n", "seven")
    assert place([hunk("six\n", "", literal=True)], "a.md", TEXT) == TEXT.replace("six\n", "")
    assert place([hunk("six", "seven")], "a.md", TEXT[:-1]) == TEXT[:-1].replace("six", "seven")
    assert place([hunk("six", "six\nseven")], "a.md", TEXT[:-1]) == TEXT[:-1] + "\nseven"


def test_line_ends_of_lines_that_stay_are_theirs():
    mixed = "a\r\nb\nc\r\nd\r\n"
    assert place([hunk("c", "x\ny")], "a.md", mixed) == "a\r\nb\nx\r\ny\r\nd\r\n"
    assert place([diff("b", "c", "x")], "a.md", mixed) == "a\r\nb\nx\r\nd\r\n"
    assert place([hunk("b\nc", "b!\nc!", literal=True)], "a.md", mixed) == "a\r\nb!\r\nc!\r\nd\r\n"


def test_a_line_that_a_call_repeats_keeps_its_line_end():
    mixed = "a\r\nb\nc\r\nd\ne\n"
    assert place([hunk("a\nb\nc", "a\nB\nc", literal=True)], "a.md", mixed) == "a\r\nB\nc\r\nd\ne\n"
    mostly = "ab\nb\r\nc\r\nd\r\nef\n"
    assert place([hunk("c\nd\ne", "C\nd\ne", partial=True)], "a.md", mostly.replace("ef", "e f")) == "ab\nb\r\nC\r\nd\r\ne f\n"
    lone = "a b\nc\r\nd\r\nx\r\n"
    assert place([hunk("b\nc\nd", "b\nC\nd", partial=True)], "a.md", lone) == "a b\nC\r\nd\r\nx\r\n"


def anchored(*anchors: str) -> Hunk:
    return hunk("", "    new = 1", anchors=[*anchors], anchored=True)


def test_an_anchor_is_whole_words():
    text = "def step_lr(a):\n    return a\n"
    with pytest.raises(PatchError, match="the anchor 'def step' is not in"):
        place([anchored("def step")], "a.py", text)
    both = text + "def step(b):\n    return b\n"
    assert place([anchored("def step")], "a.py", both) == text + "def step(b):\n    new = 1\n    return b\n"
    assert place([anchored("def step(")], "a.py", both) == text + "def step(b):\n    new = 1\n    return b\n"


@pytest.mark.parametrize("text", ["def f(\n    a,\n):\n    pass\n", "x = f \\\n    + 1\n", "f = [\n    1,\n]\n", "f: {\n}\n"])
def test_nothing_is_put_behind_an_anchor_that_goes_on(text: str):
    with pytest.raises(PatchError, match="goes on in the next line"):
        place([anchored(text.split("\n")[0])], "a.py", text)


def test_hunks_that_change_the_same_lines_are_refused():
    with pytest.raises(PatchError, match="change the same lines"):
        place([hunk("three\n  four", "x"), hunk("  four\nfive", "y")], "a.md", TEXT)


def test_too_many_hunks_for_a_long_file_are_refused_before_any_work():
    with pytest.raises(PatchError, match="several patches"):
        place([hunk("x", "y")] * 3000, "a.md", "x\n" * 10_000)


def test_a_refusal_shows_the_nearest_lines():
    with pytest.raises(PatchError) as caught:
        place([hunk("def area(r):\n    return pi * r ** 2", "x")], "a.py", "a = 1\n\ndef area(r):\n    return pi * r * r\n")
    assert "nearest lines are 3 to 4" in str(caught.value)
    assert "         def area(r):\n  patch:     return pi * r ** 2\n  file:      return pi * r * r\n" in str(caught.value)
    with pytest.raises(PatchError, match="No part of the file is similar"):
        place([hunk("something else", "x")], "a.py", "a = 1\n")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", " a", "a b", ""]), min_size=1, max_size=12), st.data())
def test_what_is_placed_without_a_number_had_one_place(lines: list[str], data: st.DataObject):
    start = data.draw(st.integers(0, len(lines) - 1))
    old = lines[start : data.draw(st.integers(start + 1, len(lines)))]
    places = [at for at in range(len(lines)) if lines[at : at + len(old)] == old]
    text = "".join(f"{line}\n" for line in lines)
    wanted = [*lines[:start], "new", *lines[start + len(old) :]]
    try:
        result = place([Hunk("Hunk 1", [Reading(old, ["new"])])], "a.md", text)
    except PatchError as error:
        assert len(places) > 1 and "ambiguous" in str(error)
    else:
        assert places == [start] and result == "".join(f"{line}\n" for line in wanted)
