"""Untrusted text made fit to show, and tracebacks made short."""

from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.text import plain, short_tracebacks, split_lines, untrusted


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
