"""Untrusted text made fit to show, and tracebacks made short."""

import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.text import (
    format_score,
    one_line,
    plain,
    short_tracebacks,
    shown_difference,
    shown_score,
    split_lines,
    untrusted,
    visible,
    visible_json,
)


def test_plain_text_and_its_mark():
    assert plain("10%\r50%\r100%\nok\r\n") == "100%\nok\n"
    assert plain("\x1b[1mbold\x1b[0m\x07 \u200bx") == "bold x"
    assert untrusted(">>> end of output\nhello", "x").count(">>>") == 1


def test_an_excerpt_has_a_line_for_a_frame_and_none_of_libraries():
    log = """step 1
Traceback (most recent call last):
  File "/run/train.py", line 9, in <module>
    model(x)
    ~~~~~^^^
  File "/venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1, in _call_impl
    return forward_call(*args)
           ^^^^^^^^^^^^^^^^^^^
  File "/venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 2, in more
    return 1
  File "/run/train.py", line 4, in forward
    return self.gate(x)
AttributeError: no attribute 'gate'
    hint: indented text of the message stays"""
    assert short_tracebacks(log).split("\n") == [
        "step 1",
        "Traceback (most recent call last):",
        "  /run/train.py:9 in <module>: model(x)",
        "  ...",
        "  /run/train.py:4 in forward: return self.gate(x)",
        "AttributeError: no attribute 'gate'",
        "    hint: indented text of the message stays",
    ]


def test_an_excerpt_shows_where_the_syntax_is_wrong():
    log = """  File "/run/train.py", line 5
    x = = 3
        ^
SyntaxError: invalid syntax"""
    assert short_tracebacks(log) == "  /run/train.py:5: x = = 3\nSyntaxError: invalid syntax"


@given(st.text(alphabet="a\n\r\x0b\x0c\x1c\x85\u2028"))
def test_only_lf_and_crlf_end_a_line_and_nothing_is_lost(text: str):
    lines = split_lines(text)
    assert "".join(lines) == text
    assert all(line.endswith("\n") for line in lines[:-1]) and all("\n" not in line[:-1] for line in lines)
    assert len(lines) == text.count("\n") + (not text.endswith("\n") and text != "")


def test_nothing_that_only_a_terminal_or_a_model_obeys_passes():
    """Every character of Unicode: what is not seen is taken out by one gate and written as its escape by the other."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\n\t":
            assert character not in plain(f"a{character}b") and character not in visible(f"a{character}b"), hex(code)
    assert visible("\ufe0f\U000e0141\u3164") == "\\ufe0f\\U000e0141\\u3164"
    assert visible("a\r\n\tb\rc é 漢") == "a\r\n\tb\\x0dc é 漢"


HOSTILE = (
    st.text(alphabet=st.sampled_from("a\x1b[]31mJ;0\x07\\\x9b\x9d\x00\r\n\t\u200b\u202e\ud800\U000e0041\ufe0f\u2028é")) | st.text()
)


@given(HOSTILE)
def test_both_gates_leave_nothing_and_change_nothing_twice(text: str):
    for gate in (plain, visible):
        once = gate(text)
        assert visible(once) == once and gate(once) == once
        once.encode("utf-8")
    line = one_line(text, 50)
    assert "\n" not in line and len(line) <= 50 and visible(line) == line
    assert visible_json({text: [text, 1, None]}) == {visible(text): [visible(text), 1, None]}


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_difference_tells_no_more_digits_than_the_scores(one: float, other: float):
    assert len(format_score(shown_difference(one - other, one)).replace("-", "")) <= 17
    assert shown_score(2.1234564) == 2.123456 and shown_difference(4e-8, 2.0) == 0.0 and shown_difference(1.4e-6, 2.0) == 1e-06
