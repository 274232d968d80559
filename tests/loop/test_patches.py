import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch_mcp.errors import PatchError
from autoresearch_mcp.loop.diffs import unified_diff
from autoresearch_mcp.loop.patches import apply_patch, check_syntax

FILE = """\
import math

DEPTH = 4
WIDTH = 64


def area(r):
    # the area
    return math.pi * r * r


def twice(x):
    return 2 * x


def thrice(x):
    return 3 * x
"""


def unified(body: str, header: str = "@@ -1,1 +1,1 @@") -> str:
    return f"--- a/train.py\n+++ b/train.py\n{header}\n{body}"


# --- unified diffs ---


def test_unified_diff():
    patch = unified(" import math\n \n-DEPTH = 4\n+DEPTH = 8\n WIDTH = 64\n", "@@ -1,4 +1,4 @@")
    assert apply_patch(patch, "train.py", FILE) == FILE.replace("DEPTH = 4", "DEPTH = 8")


@pytest.mark.parametrize("header", ["@@ -90,4 +95,4 @@", "@@ -1,9 +1,2 @@", "@@ @@", "@@ ... @@", "@@ -3 +3 @@ def area"])
def test_wrong_line_numbers_and_counts_are_forgiven(header: str):
    patch = unified("-DEPTH = 4\n+DEPTH = 8\n", header)
    assert "DEPTH = 8" in apply_patch(patch, "train.py", FILE)


def test_drifted_white_space_in_context_is_forgiven_and_the_files_own_survives():
    patch = unified(
        "   def area(r):\n-return math.pi * r * r\n+return 3 * r * r\n".replace("   def", " def").replace("-return", "-    return")
    )
    with pytest.raises(PatchError):  # a comment line is missing between the two: this is another place, not drift
        apply_patch(patch, "train.py", FILE)
    patch = unified(
        " def  area( r ):\n".replace("( r )", "(r)") + "     # the   area\n-    return math.pi * r * r\n+    return 3 * r * r\n"
    )
    assert apply_patch(patch, "train.py", FILE) == FILE.replace("math.pi * r", "3 * r")


def test_a_hunk_written_without_its_indentation_takes_the_files():
    patch = unified("-return math.pi * r * r\n+area = math.pi * r * r\n+return area\n")
    assert "    area = math.pi * r * r\n    return area\n" in apply_patch(patch, "train.py", FILE)


def test_stale_outer_context_is_forgiven():
    patch = unified(" import os\n \n-DEPTH = 4\n+DEPTH = 8\n WIDTH = 64\n")
    assert "DEPTH = 8" in apply_patch(patch, "train.py", FILE)


def test_the_line_number_decides_between_equal_places():
    text = "a = 1\nb = 0\nc = 1\na = 1\nb = 0\nc = 1\n"
    assert apply_patch(unified("-b = 0\n+b = 5\n", "@@ -5 +5 @@"), "train.py", text) == "a = 1\nb = 0\nc = 1\na = 1\nb = 5\nc = 1\n"


def test_several_hunks_and_insertions():
    patch = (
        unified(" import math\n+import os\n", "@@ -1 +1,2 @@")
        + "@@ -13,2 +14,2 @@\n def twice(x):\n-    return 2 * x\n+    return x + x\n"
    )
    assert apply_patch(patch, "train.py", FILE) == FILE.replace("import math\n", "import math\nimport os\n").replace(
        "2 * x", "x + x"
    )


def test_a_removed_line_that_looks_like_a_header():
    text = "x = 1\n-- y\nz = 1\n"
    assert apply_patch("@@ -1,3 +1,2 @@\n x = 1\n--- y\n z = 1\n", "notes.md", text) == "x = 1\nz = 1\n"


def test_a_fenced_patch_is_unwrapped():
    assert "DEPTH = 8" in apply_patch("```diff\n" + unified("-DEPTH = 4\n+DEPTH = 8\n") + "```\n", "train.py", FILE)


# --- Codex envelopes ---


def codex(body: str, file: str = "train.py") -> str:
    return f"*** Begin Patch\n*** Update File: {file}\n{body}*** End Patch\n"


def test_codex_envelope_with_anchors():
    patch = codex(
        "@@ def thrice(x):\n-    return 3 * x\n+    return x + 2 * x\n@@ def area(r):\n     # the area\n-    return math.pi * r * r\n+    return 0\n"
    )
    result = apply_patch(codex("@@ def thrice(x):\n-    return 3 * x\n+    return x + 2 * x\n"), "train.py", FILE)
    assert result == FILE.replace("3 * x", "x + 2 * x")
    with pytest.raises(PatchError, match="anchor"):
        apply_patch(patch, "train.py", FILE)  # anchors go down the file


def test_codex_end_of_file():
    result = apply_patch(codex("@@\n+# the end\n*** End of File\n"), "train.py", FILE)
    assert result == FILE + "# the end\n"


def test_codex_without_end_is_refused():
    with pytest.raises(PatchError, match="End Patch"):
        apply_patch(codex("@@\n-DEPTH = 4\n+DEPTH = 8\n").replace("*** End Patch\n", ""), "train.py", FILE)


# --- SEARCH/REPLACE ---


def block(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n"


def test_search_replace_blocks():
    patch = "train.py\n" + block("DEPTH = 4\n", "DEPTH = 8\n") + block("    return 2 * x\n", "")
    assert apply_patch(
        patch.replace("    return 2 * x", "    return 3 * x").replace("\n=======\n>>>>", "\n=======\n    return 9\n>>>>"),
        "train.py",
        FILE,
    )
    assert apply_patch("train.py\n" + block("DEPTH = 4\n", "DEPTH = 8\n"), "train.py", FILE) == FILE.replace(
        "DEPTH = 4", "DEPTH = 8"
    )


def test_an_ambiguous_search_names_the_places():
    with pytest.raises(PatchError, match="lines 2, 4"):
        apply_patch(block("b = 0\n", "b = 1\n"), "train.py", "a = 1\nb = 0\nc = 1\nb = 0\n")


def test_an_empty_search_fills_an_empty_file_only():
    assert apply_patch(block("", "x = 1\n"), "train.py", "") == "x = 1\n"
    with pytest.raises(PatchError, match="unchanged line"):
        apply_patch(block("", "x = 1\n"), "train.py", FILE)


@pytest.mark.parametrize(
    "patch", [block("a\n", "b\n").replace("=======\n", ""), block("a\n", "b\n").replace(">>>>>>> REPLACE\n", "")]
)
def test_broken_blocks_are_refused(patch: str):
    with pytest.raises(PatchError, match="Block 1"):
        apply_patch(patch, "train.py", FILE)


# --- refusals ---


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ("", "empty"),
        ("please change DEPTH to 8", "no patch"),
        ("--- a/prepare.py\n+++ b/prepare.py\n@@ -1 +1 @@\n-a\n+b\n", "'a/prepare.py'"),
        ("--- a/train.py\n+++ b/../train.py\n@@ -1 +1 @@\n-a\n+b\n", "Only train.py"),
        (
            "--- a/train.py\n+++ b/train.py\n@@ -3 +3 @@\n-DEPTH = 4\n+DEPTH = 8\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n",
            "x.py",
        ),
        ("--- a/train.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-import math\n", "create or delete"),
        ("diff --git a/train.py b/train.py\nold mode 100644\nnew mode 100755\n", "mode"),
        ("diff --git a/train.py b/t.py\nrename from train.py\nrename to t.py\n", "t.py"),
        ("diff --git a/train.py b/train.py\nrename from train.py\nrename to t.py\n", "rename"),
        ("diff --git a/train.py b/train.py\nGIT binary patch\nliteral 3\nabc\n", "binary"),
        ("@@ -1 +1 @@\n-import math\n+import\0math\n", "binary"),
        (codex("@@\n-DEPTH = 4\n+DEPTH = 8\n", "prepare.py"), "prepare.py"),
        ("*** Begin Patch\n*** Delete File: train.py\n*** End Patch", "create or delete"),
        ("*** Begin Patch\n*** Add File: evil.py\n+x\n*** End Patch", "create or delete"),
        (codex("*** Move to: t.py\n@@\n-DEPTH = 4\n+DEPTH = 8\n"), "rename"),
        ("prepare.py\n" + block("DEPTH = 4\n", "DEPTH = 8\n"), "prepare.py"),
        (unified("-DEPTH = 4\n+DEPTH = (\n"), "syntax error"),
        (unified("-DEPTH = 4\n+DEPTH = 4\n"), "changes nothing"),
        ("@@ -1 +1 @@\nDEPTH = 4\n", "no hunk|outside|begins with none"),
        (unified("-DEPTH = 4\n+" + "x" * (1 << 20) + "\n"), "larger"),
    ],
)
def test_what_is_refused_and_why(patch: str, words: str):
    with pytest.raises(PatchError, match=words):
        apply_patch(patch, "train.py", FILE)


def test_a_patch_that_does_not_fit_shows_the_nearest_lines():
    with pytest.raises(PatchError) as caught:
        apply_patch(unified(" def area(r):\n-    return math.pi * r ** 2\n+    return 0\n"), "train.py", FILE)
    message = str(caught.value)
    assert "return math.pi * r ** 2" in message and "return math.pi * r * r" in message and "nearest lines are" in message


def test_a_syntax_error_is_shown_with_line_and_text():
    with pytest.raises(PatchError, match=r"train\.py, line 3"):
        apply_patch(unified("-DEPTH = 4\n+DEPTH = = 4\n"), "train.py", FILE)


@pytest.mark.parametrize(("path", "bad"), [("a.json", "{"), ("a.toml", "= 1"), ("a.py", "def"), ("a.py", "(" * 5000)])
def test_syntax_is_checked_by_the_files_name(path: str, bad: str):
    with pytest.raises(PatchError):
        check_syntax(path, bad)
    check_syntax("a.md", bad)


# --- what must survive ---


def test_crlf_survives():
    text = FILE.replace("\n", "\r\n")
    assert apply_patch(unified("-DEPTH = 4\n+DEPTH = 8\n+HEADS = 2\n"), "train.py", text) == text.replace(
        "DEPTH = 4", "DEPTH = 8\r\nHEADS = 2"
    )


def test_a_patch_with_crlf_fits_a_file_with_lf():
    assert "\r" not in apply_patch(unified("-DEPTH = 4\n+DEPTH = 8\n").replace("\n", "\r\n"), "train.py", FILE)


def test_a_missing_final_newline_survives_and_can_be_added():
    text = "a = 1\nb = 2"
    assert apply_patch("@@ -1 +1 @@\n-a = 1\n+a = 3\n", "train.py", text) == "a = 3\nb = 2"
    added = "@@ -2 +2 @@\n-b = 2\n\\ No newline at end of file\n+b = 2\n+c = 3\n"
    assert (
        apply_patch(added, "train.py", text) == "a = 1\nb = 2\nc = 3"
        or apply_patch(added, "train.py", text) == "a = 1\nb = 2\nc = 3\n"
    )
    removed = "@@ -2 +2 @@\n-b = 2\n+c = 3\n\\ No newline at end of file\n"
    assert apply_patch(removed, "train.py", "a = 1\nb = 2\n") == "a = 1\nc = 3"


def test_tabs_unicode_and_odd_line_separators_survive():
    text = "def f():\n\tx = 'naïve — 你好'\n\ty = 'a\\x0c'  # \x0c form feed\n\treturn x\n"
    patch = "@@ -2 +2 @@\n-\tx = 'naïve — 你好'\n+\tx = '🎉'\n"
    assert apply_patch(patch, "train.py", text) == text.replace("naïve — 你好", "🎉")


# --- properties ---

lines = st.lists(st.text(alphabet="ab(){}=+- \tß", min_size=0, max_size=12), min_size=1, max_size=25)


@settings(max_examples=300, deadline=None)
@given(lines, lines, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_any_diff_that_difflib_makes_applies(old: list[str], new: list[str], final: bool, end: str):
    before = end.join(old) + (end if final else "")
    after = end.join(new) + (end if final else "")
    diff = unified_diff(before.replace("\r\n", "\n"), after.replace("\r\n", "\n"), "notes.md").text
    if before.replace("\r\n", "\n") == after.replace("\r\n", "\n"):
        return
    if end == "\r\n" and len(old) < 3:
        return  # one line end is no majority
    assert apply_patch(diff, "notes.md", before) == after


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 99).map(lambda i: f"value_{i} = {i}"), min_size=6, max_size=30, unique=True), st.data())
def test_unique_lines_are_found_whatever_the_header_says(old: list[str], data: st.DataObject):
    at = data.draw(st.integers(0, len(old) - 1))
    wrong = data.draw(st.integers(1, 500))
    before = "\n".join(old) + "\n"
    expected = "\n".join([*old[:at], "changed = 1", *old[at + 1 :]]) + "\n"
    assert apply_patch(f"@@ -{wrong},1 +{wrong},1 @@\n-{old[at]}\n+changed = 1\n", "notes.md", before) == expected
    assert apply_patch(block(old[at] + "\n", "changed = 1\n"), "notes.md", before) == expected
    assert apply_patch(codex(f"@@\n-{old[at]}\n+changed = 1\n", "notes.md"), "notes.md", before) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="@+- \n*abSEARCHPLBginPtch<>=/.`~\r\0", max_size=300))
def test_nonsense_never_raises_anything_else(patch: str):
    try:
        result = apply_patch(patch, "notes.md", FILE)
    except PatchError as error:
        assert str(error)
    else:
        assert result != FILE


def test_the_diff_is_what_difflib_says():
    diff = unified_diff("a\nb", "a\nc", "x.md").text
    assert diff.count("\\ No newline at end of file\n") == 2
    assert list(difflib.unified_diff(["a\n"], ["a\n"])) == []
