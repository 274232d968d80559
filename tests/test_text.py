from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.text import split_lines


@given(st.text(alphabet="a\n\r\x0b\x0c\x1c\x85\u2028"))
def test_only_lf_and_crlf_end_a_line_and_nothing_is_lost(text: str):
    lines = split_lines(text)
    assert "".join(lines) == text
    assert all(line.endswith("\n") for line in lines[:-1]) and all("\n" not in line[:-1] for line in lines)
    assert len(lines) == text.count("\n") + (not text.endswith("\n") and text != "")
