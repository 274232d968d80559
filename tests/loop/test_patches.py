import contextlib
import json
import runpy
import time
from collections import Counter
from pathlib import Path

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


def test_codex_needs_neither_its_first_nor_its_last_line():
    whole = codex("@@\n-DEPTH = 4\n+DEPTH = 8\n")
    for line in ("*** Begin Patch\n", "*** End Patch\n"):
        assert "DEPTH = 8" in apply_patch(whole.replace(line, ""), "train.py", FILE)
    with pytest.raises(PatchError, match="name the file first"):
        apply_patch(whole.replace("*** Update File: train.py\n", ""), "train.py", FILE)


def test_an_insertion_stands_behind_its_anchor_if_there_is_one_such_line():
    inserted = apply_patch(codex("@@ def twice(x):\n+    x = x + 0\n"), "train.py", FILE)
    assert inserted == FILE.replace("def twice(x):\n", "def twice(x):\n    x = x + 0\n")
    with pytest.raises(PatchError, match="2 times"):
        apply_patch(codex("@@ b:\n+c\n", "notes.md"), "notes.md", "b:\na\nb:\na\n")


def test_an_anchor_decides_between_equal_lines_by_what_it_encloses():
    text = "def f():\n    x = 1\n\n\ndef g():\n    x = 1\n\n\ndef h():\n    x = 1\n"
    changed = apply_patch(codex("@@ def g():\n-    x = 1\n+    x = 2\n"), "train.py", text)
    assert changed == text.replace("g():\n    x = 1", "g():\n    x = 2")
    with pytest.raises(PatchError, match="ambiguous"):
        apply_patch(codex("@@\n-    x = 1\n+    x = 2\n"), "train.py", text)


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
        ("*** Begin Patch\n*** Add File: evil.py\n+x\n*** End Patch", "evil.py"),
        (codex("*** Move to: t.py\n@@\n-DEPTH = 4\n+DEPTH = 8\n"), "rename"),
        ("prepare.py\n" + block("DEPTH = 4\n", "DEPTH = 8\n"), "prepare.py"),
        (unified("-DEPTH = 4\n+DEPTH = (\n"), "syntax error"),
        (unified("-DEPTH = 4\n+DEPTH = 4\n"), "changes nothing"),
        ("@@ -1 +1 @@\nDEPTH = 4\n", "no line that begins"),
        ("@@ -1 +1 @@\n", "no hunk"),
        (unified("-DEPTH = 4\n+DEPTH = 8\n") + block("WIDTH = 64\n", "WIDTH = 32\n"), "mixes"),
        (block("WIDTH = 64\n", "WIDTH = 32\n") + "@@\n-DEPTH = 4\n+DEPTH = 8\n", "mixes"),
        (block("WIDTH = 64\n", "WIDTH = 32\n") + "SEARCH:\nDEPTH = 4\n=======\nDEPTH = 8\n>>>>>>> REPLACE\n", "outside any block"),
        ("@@\n-DEPTH = 4\n+DEPTH = 8\nnot in the file\n+HEADS = 2\n", "outside any hunk"),
        ("@@\n" + "+\n" * 100_001, "more than 100000 lines"),
        (unified("-DEPTH = 4\n+" + "x" * (1 << 20) + "\n"), "larger"),
    ],
)
def test_what_is_refused_and_why(patch: str, words: str):
    with pytest.raises(PatchError, match=words):
        apply_patch(patch, "train.py", FILE)


@pytest.mark.parametrize(
    "patch",
    [
        r'{"old_string": "open(\ud800)", "new_string": "2.0"}',
        r'{"old_string": "DEPTH = 4", "new_string": "DEPTH = \udfff"}',
        r'{"path": "\ud800", "old_string": "DEPTH = 4", "new_string": "DEPTH = 5"}',
        r'{"patch": "@@\n-DEPTH = \ud800\n+DEPTH = 5\n"}',
        "@@\n-DEPTH = \ud800\n+DEPTH = 8\n",
        "\udfff",
    ],
)
def test_half_a_character_is_refused_in_words_that_can_be_sent(patch: str):
    with pytest.raises(PatchError, match="half of a character") as caught:
        apply_patch(patch, "train.py", FILE)
    assert str(caught.value).encode("utf-8")


@pytest.mark.parametrize("command", ["{}", '{"a": [1]}', "[[1], 2]", "null", "7", "true", '"delete"'])
@pytest.mark.parametrize(
    "edit", ['"old_string": "DEPTH = 4", "new_string": "DEPTH = 8"', '"patch": "@@\\n-DEPTH = 4\\n+DEPTH = 8\\n"']
)
def test_a_call_with_an_odd_command_is_no_patch(command: str, edit: str):
    with pytest.raises(PatchError, match="no patch"):
        apply_patch(f'{{"command": {command}, {edit}}}', "train.py", FILE)


def test_a_character_written_as_two_escapes_is_whole():
    patch = r'{"old_string": "# the area", "new_string": "# \ud83c\udf89"}'
    assert "# 🎉" in apply_patch(patch, "train.py", FILE)


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


@pytest.mark.parametrize("path", ["a.py", "a.json", "a.toml"])
def test_what_is_wrong_is_said_of_a_file_without_speaking_of_a_patch(path: str):
    with pytest.raises(PatchError, match="line 2 has a NUL byte"):
        check_syntax(path, "\n1\0")
    for bad in ("= = 1\n", "\0"):
        with pytest.raises(PatchError, match="then call again") as caught:
            check_syntax(path, bad)
        assert "patch" not in str(caught.value) and "None" not in str(caught.value)


def test_many_braces_without_f_strings_and_a_few_with_are_checked():
    for text in ("x = " + "{1: {}}, " * 50_000, "x = f'{a}'\ny = " + "{1: {}}, " * 3_000):
        check_syntax("a.py", text)
        with pytest.raises(PatchError, match="syntax error"):
            check_syntax("a.py", text + "=")


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


# --- as models really write them ---

corpus = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "patches.py"), run_name="corpus")


@pytest.mark.slow
def test_of_plausible_patches_nearly_all_are_applied_and_none_otherwise_than_meant():
    cases = list(corpus["plausible"]())
    outcomes = Counter(corpus["outcome"](case) for case in cases)
    assert len(cases) >= 1000 and outcomes["misapplied"] == 0
    assert outcomes["right"] >= 0.99 * len(cases)


@pytest.mark.parametrize("kind", ["hostile", "ambiguous"])
def test_what_is_hostile_or_ambiguous_is_never_applied(kind: str):
    assert [case.name for case in corpus[kind]() if corpus["outcome"](case) != "refused"] == []


def test_what_a_refusal_says_of_another_file_and_of_ours_by_its_full_name():
    change = "--- {0}\n+++ {0}\n@@\n-DEPTH = 4\n+DEPTH = 8\n"
    assert "DEPTH = 8" in apply_patch(change.format("/ideas/main/train.py"), "train.py", FILE, "/ideas/main")
    for root in (None, "/ideas", "/ideas/mai", "/main"):
        with pytest.raises(PatchError, match="touches '/ideas/main/train.py'"):
            apply_patch(change.format("/ideas/main/train.py"), "train.py", FILE, root)


def test_a_file_in_a_folder_is_named_without_prefixes():
    patch = "diff --git lab/t.txt lab/t.txt\n--- lab/t.txt\n+++ lab/t.txt\n@@ -1 +1 @@\n-a\n+b\n"
    assert apply_patch(patch, "lab/t.txt", "a\n") == "b\n"
    with pytest.raises(PatchError, match="touches"):
        apply_patch(patch, "t.txt", "a\n")


def test_a_search_for_a_part_of_a_line_takes_no_part_of_a_word_or_number():
    text = "LOGIT_CAP = 15.0  # capped\nMAX = 100\n"
    assert apply_patch(block("CAP = 15.0\n", "x\n").replace("CAP", "LOGIT_CAP"), "a.md", text) == "x  # capped\nMAX = 100\n"
    assert apply_patch(block("  # capped\n", ""), "a.md", text) == "LOGIT_CAP = 15.0\nMAX = 100\n"
    for inside in ("CAP = 15.0", "LOGIT_CAP = 15", "= 10", "AX = 100"):
        with pytest.raises(PatchError):
            apply_patch(block(f"{inside}\n", "x\n"), "a.md", text)
        edited = apply_patch(json.dumps({"old_string": inside, "new_string": "x"}), "a.md", text)  # as edit tools do, to the letter
        assert edited == text.replace(inside, "x")


def test_a_loose_fit_writes_no_guessed_indentation():
    tabs = "def f(x):\n\tif x:\n\t\treturn 1\n\treturn 2\n"
    kept = apply_patch("@@\n def f(x):\n     if x:\n-        return 1\n+        return 3\n     return 2\n", "f.py", tabs)
    assert kept == tabs.replace("1", "3")
    with pytest.raises(PatchError, match="how deep"):
        apply_patch("@@\n def f(x):\n     if x:\n-        return 1\n+            return 3\n     return 2\n", "f.py", tabs)


YAML = "a:\n  x: 1\n  y: 2\nb:\n  z: 3\n"


@pytest.mark.parametrize("sign", ["|", " | ", "→", ": ", "\t"])
@pytest.mark.parametrize("first", [1, 2])
def test_line_numbers_take_no_indentation_with_them(sign: str, first: int):
    def numbered(text: str) -> str:
        return "".join(f"{n}{sign}{line}\n" for n, line in enumerate(text.splitlines(), start=1) if n >= first)

    new = YAML[: YAML.index("b:")].replace("2", "5") + ("c:\n  w: 2\n" if first == 1 else "  w: 2\n")
    result = apply_patch(block(numbered(YAML[: YAML.index("b:")]), numbered(new)), "c.yaml", YAML)
    assert result == new + YAML[YAML.index("b:") :]


def test_a_new_line_in_a_column_of_which_nothing_is_known_is_refused():
    for patch in ("@@\n a:\n-    x: 1\n+    x: 2\n+q: 3\n", block("a:\n   x: 1\n", "a:\n   x: 2\nc:\n     w: 1\n")):
        with pytest.raises(PatchError, match="how deep"):
            apply_patch(patch, "c.yaml", YAML)
    assert apply_patch("@@\n a:\n-    x: 1\n+    x: 2\n", "c.yaml", YAML) == YAML.replace("1", "2")


def test_a_list_behind_a_complete_hunk_does_not_become_text():
    text, hunk = "a\nb\n\nd\n", "@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert apply_patch(hunk + "\nThis is faster.\n", "t.txt", text) == "a\nc\n\nd\n"
    assert apply_patch(hunk + "+e\n", "t.txt", text) == "a\nc\ne\n\nd\n"  # its header has miscounted
    for behind in ("\n+ faster\n+ simpler\n", "\n\n- d\n", "\n-d\n+e\n"):
        with pytest.raises(PatchError, match="prose or part of the hunk"):
            apply_patch(hunk + behind, "t.txt", text)


def test_a_search_for_blank_lines_begins_an_empty_file_only():
    for blank in ("\n", "\n\n", "  \n"):
        assert apply_patch(block(blank, "import os\n"), "a.py", "") == "import os\n"
        for text in ("a = 1\n\nb = 2\n", "a = 1\n"):
            with pytest.raises(PatchError, match="blank lines alone"):
                apply_patch(block(blank, "import os\n"), "a.py", text)


def test_signs_alone_are_a_diff_only_of_lines_that_are_there():
    assert apply_patch("-a\n+c\n", "t.md", "a\nb\n") == "c\nb\n"
    for text in ("a\nb\n", "  a\nb\n"):
        with pytest.raises(PatchError, match="a list or a diff"):
            apply_patch("- a\n+ b\n", "t.md", text)


def test_control_characters_and_odd_separators_in_a_file_are_no_line_ends():
    for odd in "\r\x0b\x0c\x1c\x85\u2028\u2029":
        text = f"a{odd}b\nc\n"
        assert apply_patch("@@ -2 +2 @@\n-c\n+d\n", "a.md", text) == f"a{odd}b\nd\n"
        assert apply_patch(f"@@ -1 +1 @@\n-a{odd}b\n+a{odd}e\n", "a.md", text) == f"a{odd}e\nc\n"


@pytest.mark.parametrize(
    ("path", "text", "patch"),
    [
        (
            "a.md",
            "".join(f"v{i} = {i}\n" for i in range(20_000)),
            block("".join(f"v{i} = {i + 1}\n" for i in range(20_000)), "x\n"),
        ),
        ("a.md", "a\nb\n" * 100_000, block("a\nb\n" * 49_000 + "b\n", "x\n")),
        ("a.md", "a\n" * 200_000, "".join(f"@@ -{30 * i + 1},2 +{30 * i + 1},2 @@\n a\n-a\n+b\n" for i in range(6_000))),
        ("a.md", "q\n" * 900, block("q\n", "r\n") * 24_000),
        ("a.md", "x " * 500_000, block("y " * 500_000 + "\n", "z\n")),
        ("a.md", "a\n", "/a." * 300_000),
        ("a.md", "a\n", "--- a" + " " * 900_000 + "x\n@@\n-a\n+b\n"),
        ("a.md", "a\n", "@@\n-a\n+b\n-- \n1." + "1" * 900_000 + "!\n"),
        ("a.md", "a\n", "[" * 1_000_000),
        ("a.toml", "x = 1\n", f"@@\n-x = 1\n+{'a.' * 500_000}b = 1\n"),
        ("a.py", "f(x)\n" * 200_000, "@@ -1,0 +2 @@\n+g(x)\n"),
        ("a.py", "x = 1\n", f"@@\n-x = 1\n+x = f'{'{a}' * 130_000}'\n"),
        ("a.py", "x = 1\n", f"@@\n-x = 1\n+x = f'{'{a!r:>{w}}' * 20_000}'\n"),
        ("a.md", "ab\n" * 900, codex("".join(f"@@ {'a' * (i % 9 + 1)}\n" for i in range(5_000)) + "+b\n", "a.md")),
        ("a.md", "a\n", codex(f"@@ {'a' * 900_000}\n+b\n", "a.md")),
        ("a.md", "a\n", block("a\n", f"{' ' * 290}x\n" * 3_000)),
        ("a.md", "a\n", block("a\n", f"#{' ' * 290}[x\n" * 3_000)),
        ("a.md", "a\n", block("a\n", f"# existing {'here' * 70}\n" * 3_000)),
    ],
)
def test_no_patch_keeps_the_lock_for_long(path: str, text: str, patch: str):
    started = time.process_time()
    with contextlib.suppress(PatchError):
        apply_patch(patch, path, text)
    assert time.process_time() - started < 4  # some took minutes, one 60 GB; all take about half a second


@pytest.mark.parametrize(
    "line",
    [
        "# ... rest of the code unchanged ...",
        "    ... the existing code",
        "  // [... other lines]",
        "<!-- ...  same as before -->",
        "# the rest of the function stays",
        "{ … unchanged … }",
    ],
)
def test_lines_that_stand_for_other_lines_are_refused(line: str):
    with pytest.raises(PatchError, match="in place of lines"):
        apply_patch(block("WIDTH = 64\n", f"WIDTH = 32\n{line}\n"), "train.md", FILE)


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


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab. \n", min_size=1, max_size=60), st.data())
def test_a_call_of_an_edit_tool_does_what_it_says_or_nothing(text: str, data: st.DataObject):
    start = data.draw(st.integers(0, len(text) - 1))
    old = text[start : data.draw(st.integers(start + 1, len(text)))]
    new = data.draw(st.text(alphabet="xy \n", max_size=10))
    at = text.find(old)
    once = text.find(old, at + 1) < 0
    try:
        result = apply_patch(json.dumps({"old_string": old, "new_string": new}), "notes.md", text)
    except PatchError:
        assert not once or old == new
    else:
        assert once and result == text.replace(old, new)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=4, max_size=12), st.data())
def test_a_diff_of_repeated_lines_is_applied_where_its_numbers_say_or_not_at_all(old: list[str], data: st.DataObject):
    at = data.draw(st.integers(0, len(old) - 1))
    before, after = "\n".join(old) + "\n", "\n".join([*old[:at], "new", *old[at + 1 :]]) + "\n"
    assert apply_patch(unified_diff(before, after, "notes.md").text, "notes.md", before) == after
    body = "".join(f"{line}\n" for line in unified_diff(before, after, "notes.md").text.split("\n")[3:-1])
    try:
        assert apply_patch("@@ @@\n" + body, "notes.md", before) == after
    except PatchError as error:
        assert "ambiguous" in str(error)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(corpus["EDITS"]), st.data())
def test_a_mangled_patch_changes_nothing_but_what_it_names(edit, data: st.DataObject):
    """A line lost, doubled or cut: what is applied all the same removes only lines that the patch removes, adds only what it adds."""
    form = data.draw(st.sampled_from([corpus["UNIFIED"]["plain"], corpus["CODEX"]["plain"], corpus["SEARCH"]["plain"]]))
    patch = form(edit).split("\n")
    at = data.draw(st.integers(0, len(patch) - 1))
    cut = [] if "<<<" in patch[0] else [[patch[at][: len(patch[at]) // 2]]]  # half a line to search for is a part of a line
    patch[at : at + 1] = data.draw(st.sampled_from([[], [patch[at]] * 2, *cut]))
    try:
        result = apply_patch("\n".join(patch), edit.path, edit.old)
    except PatchError:
        return
    diff = unified_diff(edit.old, result, edit.path)
    given = {text.strip() for line in patch for text in (line, line[1:])}
    assert {line.strip() for line in (*diff.added, *diff.removed)} <= given


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='@+- \n*abSEARCHPLBginPtch<>=/.`~{}[]":,\r\0\u2028', max_size=300))
def test_nonsense_never_raises_anything_else(patch: str):
    try:
        result = apply_patch(patch, "notes.md", FILE)
    except PatchError as error:
        assert str(error)
    else:
        assert result != FILE
