"""Patches as models write them: how many are applied as meant, and that none is applied otherwise.

    python benchmarks/patches.py

Real edits of real files (train.py, program.md, a TOML, notes with CRLF) are written in every form of FORMS; the result that each
must have is known. Beside them stand patches that must be refused: hostile ones, which ask for more than an edit of the one
file, and ambiguous ones, which fit nowhere or in several places. tests/loop/test_patches.py asserts the figures.
"""

import difflib
import json
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autoresearch_mcp.errors import PatchError
from autoresearch_mcp.loop.patches import apply_patch

REPOSITORY = Path(__file__).parents[1]
ROOT = "/home/me/ideas/.autoresearch/worktrees/main"
TRAIN = (REPOSITORY / "harness" / "train.py").read_text()
PROGRAM = (REPOSITORY / "program.md").read_text()
TOML = (REPOSITORY / "harness" / "autoresearch.toml").read_text()
NOTES = "".join(
    f"{line}\r\n"
    for line in """\
Notes on warm-up
================

- start at zero
- rise for 100 steps
- then hold

The rate is 0.04.
It was 0.02 before; see the log.

  scale = 4
  shift = 2
  clip = 1

End of notes
""".splitlines()
)


@dataclass(frozen=True)
class Edit:
    """A change of one file, and its two texts."""

    name: str
    path: str
    old: str
    new: str

    @property
    def lines(self) -> tuple[list[str], list[str]]:
        return self.old.splitlines(), self.new.splitlines()


def edit(name: str, path: str, old: str, *changes: tuple[str, str]) -> Edit:
    new = old
    for before, after in changes:
        assert new.count(before) == 1, (name, before, new.count(before))
        new = new.replace(before, after)
    return Edit(name, path, old, new)


EDITS = [
    edit("constant", "train.py", TRAIN, ("LOGIT_CAP = by_preset(15.0, ", "LOGIT_CAP = by_preset(20.0, ")),
    edit(
        "function",
        "train.py",
        TRAIN,
        (
            "    return min(1.0, max(0.0, (1 - progress) / WARMDOWN_RATIO))\n",
            "    left = (1 - progress) / WARMDOWN_RATIO\n    return math.sin(math.pi / 2 * min(1.0, max(0.0, left)))\n",
        ),
    ),
    edit("insertion", "train.py", TRAIN, ("import math\nimport time\n", "import math\nimport os\nimport time\n")),
    edit("method", "train.py", TRAIN, ("F.relu(self.fc(x)).square())", "F.gelu(self.fc(x)))")),
    edit(
        "removal",
        "train.py",
        TRAIN,
        ("    gc.freeze()  # what is here stays; to look through it again and again would stall steps\n", ""),
    ),
    edit(
        "two places",
        "train.py",
        TRAIN,
        ("WEIGHT_DECAY = 0.1 ", "WEIGHT_DECAY = 0.2 "),
        ("        B, T, C = x.shape\n", "        B, T, C = x.shape\n        x = norm(x)\n"),
    ),
    edit("list item", "program.md", PROGRAM, ("3. Patch, run, wait for the result.", "3. Patch the file, run it, wait.")),
    edit("section", "program.md", PROGRAM, ("## Judgement\n", "## Hints\n\n- Small models like large rates.\n\n## Judgement\n")),
    edit("carriage returns", "lab/notes.txt", NOTES, ("  shift = 2\r\n", "  shift = 3\r\n  bias = 1\r\n")),
    edit("key", "autoresearch.toml", TOML, ("budget_seconds = 60\n", "budget_seconds = 90\n")),
]

# --- the forms of a plausible patch -----------------------------------------------------------------------------------

Hunk = tuple[int, int, int, int]


def hunks(edit: Edit, context: int = 3) -> list[Hunk]:
    old, new = edit.lines
    groups = difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(context)
    return [(group[0][1], group[-1][2], group[0][3], group[-1][4]) for group in groups]


def signed(edit: Edit, hunk: Hunk) -> list[str]:
    old, new = (lines[start:end] for lines, start, end in zip(edit.lines, hunk[::2], hunk[1::2], strict=True))
    return list(difflib.unified_diff(old, new, n=len(old), lineterm=""))[3:]


def numbers(hunk: Hunk, off: int = 0) -> str:
    a, b, c, d = hunk
    return f"@@ -{a + 1 + off},{b - a} +{c + 1 + off},{d - c} @@"


def body(edit: Edit, header: Callable[[Hunk], str] = numbers, context: int = 3) -> str:
    return "".join("\n".join([header(hunk), *signed(edit, hunk)]) + "\n" for hunk in hunks(edit, context))


def unified(old: str = "a/{}", new: str = "b/{}", lead: str = "", **options) -> Callable[[Edit], str]:
    def write(edit: Edit) -> str:
        names = f"--- {old.format(edit.path)}\n+++ {new.format(edit.path)}\n"
        return lead.format(edit.path) + names + body(edit, **options)

    return write


def around(before: str, after: str, form: Callable[[Edit], str]) -> Callable[[Edit], str]:
    return lambda edit: before.replace("{}", edit.path) + form(edit) + after


def mapped(form: Callable[[Edit], str], change: Callable[[str], str]) -> Callable[[Edit], str]:
    return lambda edit: "".join(f"{change(line)}\n" for line in form(edit).splitlines())


def bare_context(line: str) -> str:
    return line[1:] if line.startswith(" ") else line


def bare_at_margin(line: str) -> str:
    return line[1:] if line.startswith(" ") and line[1:2].strip() else line


def sections(edit: Edit) -> str:
    return unified()(edit).replace(" @@\n", " @@ def main():\n")


def format_patch(edit: Edit) -> str:
    return (
        "From 1f0c2d3e4b5a69788796a5b4c3d2e1f001122334 Mon Sep 17 00:00:00 2001\nFrom: A Model <model@example.com>\n"
        f"Date: Mon, 3 Nov 2025 10:00:00 +0000\nSubject: [PATCH] {edit.name}\n\n---\n {edit.path} | 2 +-\n"
        f" 1 file changed, 1 insertion(+), 1 deletion(-)\n\ndiff --git a/{edit.path} b/{edit.path}\nindex 1111111..2222222 100644\n"
        f"{unified()(edit)}-- \n2.43.0\n\n"
    )


def rewrite_of(edit: Edit) -> str:
    lines = edit.new.splitlines()
    return f"@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines)


def fence(language: str, mark: str = "```") -> tuple[str, str]:
    return f"{mark}{language}\n", f"{mark}\n"


PLAIN = unified()
BARE = lambda hunk: "@@"  # noqa: E731

UNIFIED: dict[str, Callable[[Edit], str]] = {
    "plain": PLAIN,
    "git": unified(lead="diff --git a/{0} b/{0}\nindex 83db48f..f735c2d 100644\n"),
    "git without prefix": unified("{}", "{}", lead="diff --git {0} {0}\nindex 83db48f..f735c2d 100644\n"),
    "no prefix": unified("{}", "{}"),
    "dot": unified("./{}", "./{}"),
    "orig": unified("{}.orig", "{}"),
    "old and new": unified("old/{}", "new/{}"),
    "index and worktree": unified("i/{}", "w/{}", lead="diff --git i/{0} w/{0}\n"),
    "commit and worktree": unified("c/{}", "w/{}"),
    "original and modified": unified("original/{}", "modified/{}"),
    "no name": unified("original", "modified"),
    "absolute": unified(f"{ROOT}/{{}}", f"{ROOT}/{{}}"),
    "absolute with prefix": unified(f"a{ROOT}/{{}}", f"b{ROOT}/{{}}", lead=f"diff --git a{ROOT}/{{0}} b{ROOT}/{{0}}\n"),
    "brackets": unified("{} (original)", "{} (modified)"),
    "name in brackets": unified("a/{0} ({0})", "b/{0} ({0})"),
    "revision": unified("{}\t(revision 12)", "{}\t(working copy)", lead="Index: {0}\n" + "=" * 67 + "\n"),
    "date": unified("{}\t2025-11-03 10:00:00.000000000 +0000", "{}\t2025-11-03 10:01:00.000000000 +0000"),
    "date after blanks": unified("a/{}  2025-11-03 10:00:00", "b/{}  2025-11-03 10:01:00"),
    "diff -u": unified("{}.orig", "{}", lead="diff -u {0}.orig {0}\n"),
    "quoted": unified('"a/{}"', '"b/{}"'),
    "wrong numbers": unified(header=lambda hunk: numbers(hunk, 11)),
    "wrong counts": unified(header=lambda hunk: f"@@ -{hunk[0] + 1},9 +{hunk[2] + 1},2 @@"),
    "small counts": unified(header=lambda hunk: f"@@ -{hunk[0] + 1},1 +{hunk[2] + 1},1 @@"),
    "no counts": unified(header=lambda hunk: f"@@ -{hunk[0] + 1} +{hunk[2] + 1} @@"),
    "no numbers": unified(header=lambda hunk: "@@ @@"),
    "dots for numbers": unified(header=lambda hunk: "@@ ... @@"),
    "bare marks": unified(header=BARE),
    "line in words": unified(header=lambda hunk: f"@@ line {hunk[0] + 1} @@"),
    "section": sections,
    "no file": lambda edit: body(edit),
    "no hunk line": lambda edit: (
        f"--- a/{edit.path}\n+++ b/{edit.path}\n" + "".join(f"{x}\n" for x in signed(edit, hunks(edit)[0]))
        if len(hunks(edit)) == 1
        else ""
    ),
    "signs alone": lambda edit: (
        "".join(f"{line}\n" for line in signed(edit, hunks(edit, 2)[0]))
        if len(hunks(edit)) == 1 and "\n-" in PLAIN(edit).split("@@", 2)[-1]
        else ""
    ),
    "little context": unified(context=1),
    "fence": around(*fence("diff"), PLAIN),
    "patch fence": around(*fence("patch"), PLAIN),
    "tildes": around(*fence("diff", "~~~"), PLAIN),
    "four ticks": around(*fence("diff", "````"), PLAIN),
    "prose": around("Here is the patch for {}:\n\n", "\nThis should lower the loss.\n", PLAIN),
    "prose and fence": around(
        "I will change one thing.\n\n```diff\n", "```\n\nWhy:\n- it is simpler\n- it is faster\n+ it is fun\n", PLAIN
    ),
    "heredoc": around("git apply <<'EOF'\n", "EOF\n", PLAIN),
    "heredoc of patch": around("cd /tmp/x && patch -p1 <<'PATCH'\n", "PATCH\n", PLAIN),
    "format-patch": format_patch,
    "no blank before context": mapped(PLAIN, bare_context),
    "no blank at the margin": mapped(PLAIN, bare_at_margin),
    "indented": mapped(PLAIN, lambda line: f"    {line}"),
    "indented in a list": around("1. The change:\n\n", "\n2. Then run it.\n", mapped(PLAIN, lambda line: f"   {line}")),
    "trailing white space gone": mapped(PLAIN, str.rstrip),
    "trailing white space added": mapped(PLAIN, lambda line: f"{line}  " if line.startswith(" ") else line),
    "carriage returns": lambda edit: PLAIN(edit).replace("\n", "\r\n"),
    "no last line end": lambda edit: PLAIN(edit).rstrip("\n"),
    "blank lines around": around("\n\n", "\n\n\n", PLAIN),
    "hunk by hunk in fences": lambda edit: "Then:\n".join(f"```diff\n{part}```\n" for part in parts(edit)),
    "byte order mark": around("\ufeff", "", PLAIN),
    "dev null": lambda edit: f"--- /dev/null\n+++ b/{edit.path}\n{rewrite_of(edit)}",
    "git new file": lambda edit: (
        f"diff --git a/{edit.path} b/{edit.path}\nnew file mode 100644\nindex 0000000..f735c2d\n"
        f"--- /dev/null\n+++ b/{edit.path}\n{rewrite_of(edit)}"
    ),
}


def parts(edit: Edit) -> list[str]:
    return [
        f"--- a/{edit.path}\n+++ b/{edit.path}\n" + "\n".join([numbers(hunk), *signed(edit, hunk)]) + "\n" for hunk in hunks(edit)
    ]


def codex(
    header: Callable[[Edit, Hunk], str] = lambda edit, hunk: "@@",
    name: str = "{}",
    begin: str = "*** Begin Patch\n",
    end: str = "*** End Patch\n",
    context: int = 3,
) -> Callable[[Edit], str]:
    def write(edit: Edit) -> str:
        made = body(edit, lambda hunk: header(edit, hunk), context).replace("\n\n", "\n \n")
        return begin + f"*** Update File: {name.format(edit.path)}\n" + made.lstrip("\n") + end

    return write


def anchor(edit: Edit, hunk: Hunk) -> str:
    """The nearest line above that opens something, as Codex has it."""
    old, _ = edit.lines
    above = [line for line in old[: hunk[0]] if line.startswith(("def ", "class ", "@", "#", "["))]
    return f"@@ {above[-1].strip()}" if above else "@@"


def only_insertion(edit: Edit) -> str:
    """An insertion without context, behind its line as the anchor."""
    out: list[str] = []
    old, new = edit.lines
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        if i != j or not i or not old[i - 1].strip():
            return ""
        out += [f"@@ {old[i - 1].strip()}", *(f"+{line}" for line in new[k:m])]
    return f"*** Begin Patch\n*** Update File: {edit.path}\n" + "\n".join(out) + "\n*** End Patch\n"


ENVELOPE = codex()
CODEX: dict[str, Callable[[Edit], str]] = {
    "plain": ENVELOPE,
    "anchor": codex(anchor),
    "little context": codex(anchor, context=1),
    "numbers": codex(lambda edit, hunk: numbers(hunk)),
    "numbers and section": codex(lambda edit, hunk: numbers(hunk) + " class GPT:"),
    "no begin": codex(begin=""),
    "no end": codex(end=""),
    "neither": codex(begin="", end=""),
    "absolute": codex(name=f"{ROOT}/{{}}"),
    "dot": codex(name="./{}"),
    "heredoc": around("apply_patch <<'EOF'\n", "EOF\n", ENVELOPE),
    "bash": around("bash -lc \"apply_patch <<'PATCH'\n", 'PATCH"\n', ENVELOPE),
    "fence": around(*fence(""), ENVELOPE),
    "prose": around("I will edit {}.\n\n", "\nDone. This is:\n- smaller\n", ENVELOPE),
    "git names": around("", "", lambda edit: ENVELOPE(edit).replace("\n@@", f"\n--- a/{edit.path}\n+++ b/{edit.path}\n@@", 1)),
    "diff in an envelope": around("*** Begin Patch\n", "*** End Patch\n", PLAIN),
    "no blank before context": mapped(ENVELOPE, bare_context),
    "insertion behind an anchor": only_insertion,
    "add file": lambda edit: (
        f"*** Begin Patch\n*** Add File: {edit.path}\n"
        + "".join(f"+{line}\n" for line in edit.new.splitlines())
        + "*** End Patch\n"
    ),
    "indented": mapped(ENVELOPE, lambda line: f"  {line}"),
    "carriage returns": lambda edit: ENVELOPE(edit).replace("\n", "\r\n"),
}

# --- texts to find ---


def pairs(edit: Edit, context: int = 1) -> list[tuple[str, str]]:
    """(old, new) of each change with whole lines around it."""
    old, new = edit.lines
    return [("\n".join(old[a:b]), "\n".join(new[c:d])) for a, b, c, d in hunks(edit, context)]


def parts_of_lines(edit: Edit) -> list[tuple[str, str]]:
    """(old, new) of each change without what both lines have in common behind it."""
    found: list[tuple[str, str]] = []
    for old, new in pairs(edit, 0):
        if not old or not new or "\n" in old or "\n" in new:
            return []
        end = 0
        while end < min(len(old), len(new)) and old[-1 - end] == new[-1 - end]:
            end += 1
        while end and not old[len(old) - end].isspace():
            end -= 1  # up to the end of a word
        old, new = old[: len(old) - end].strip(), new[: len(new) - end].strip()
        if edit.old.count(old) != 1 or old == edit.old:
            return []
        found.append((old, new))
    return found


def blocks(
    open: str = "<<<<<<< SEARCH",
    divide: str = "=======",
    close: str = ">>>>>>> REPLACE",
    lead: str = "",
    tail: str = "",
    text: Callable[[str], str] = str,
    after: Callable[[str], str] | None = None,
    cut: Callable[[Edit], list[tuple[str, str]]] = pairs,
) -> Callable[[Edit], str]:
    def write(edit: Edit) -> str:
        made = [
            f"{lead}{open}\n{text(old)}\n{divide}\n{(after or text)(new) + chr(10) if new else ''}{close}\n{tail}"
            for old, new in cut(edit)
        ]
        return "\n".join(made).replace("{}", edit.path)

    return write


def numbered(text: str, style: str) -> str:
    return "\n".join(style.format(number) + line for number, line in enumerate(text.split("\n"), start=41))


def dedented(edit: Edit) -> list[tuple[str, str]]:
    """Whole lines without the indentation that all of them have; only where there is some."""
    found: list[tuple[str, str]] = []
    for old, new in pairs(edit, 0):
        if not old.startswith(" ") or not new.startswith(" ") or "\n" in new:
            return []
        found.append((textwrap.dedent(old), textwrap.dedent(new)))
    return found


def roo(edit: Edit) -> str:
    starts = [hunk[0] + 1 for hunk in hunks(edit, 1)]
    return "\n".join(
        f"<<<<<<< SEARCH\n:start_line:{start}\n-------\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"
        for start, (old, new) in zip(starts, pairs(edit), strict=True)
    )


SEARCH: dict[str, Callable[[Edit], str]] = {
    "plain": blocks(),
    "changed lines alone": blocks(cut=lambda edit: [] if any(not old for old, _ in pairs(edit, 0)) else pairs(edit, 0)),
    "much context": blocks(cut=lambda edit: pairs(edit, 4)),
    "part of a line": blocks(cut=parts_of_lines),
    "without indentation": blocks(cut=dedented),
    "indented": blocks(text=lambda text: textwrap.indent(text, "    ")),
    "name before": blocks(lead="{}\n"),
    "bold name before": blocks(lead="**{}**\n\n"),
    "ticked name before": blocks(lead="`{}`:\n"),
    "heading before": blocks(lead="### File: {}\n"),
    "absolute name before": blocks(lead=f"{ROOT}/{{}}\n"),
    "name after": blocks(tail="{}\n"),
    "name behind the mark": blocks(open="<<<<<<< SEARCH {}"),
    "name as first line": blocks(open="<<<<<<< SEARCH\n{}"),
    "fenced": blocks(lead="{}\n```python\n", tail="```\n"),
    "fence names the file": blocks(lead="```python {}\n", tail="```\n"),
    "fences inside": blocks(text=lambda text: f"```python\n{text}\n```"),
    "dashes": blocks("------- SEARCH", "=======", "+++++++ REPLACE"),
    "roo": roo,
    "conflict": blocks("<<<<<<< HEAD", "=======", ">>>>>>> better"),
    "original and updated": blocks("<<<<<<< ORIGINAL", "=======", ">>>>>>> UPDATED"),
    "no words": blocks("<<<<<<<", "=======", ">>>>>>>"),
    "lower case": blocks("<<<<<<< search", "=======", ">>>>>>> replace"),
    "five": blocks("<<<<< SEARCH", "=====", ">>>>> REPLACE"),
    "nine": blocks("<<<<<<<<< SEARCH", "=========", ">>>>>>>>> REPLACE"),
    "no blank": blocks("<<<<<<<SEARCH", "=======", ">>>>>>>REPLACE"),
    "blank edges": blocks(text=lambda text: f"\n{text}\n"),
    "trailing white space": blocks(text=lambda text: text.replace("\n", "  \n"), after=str),
    "numbers with bars": blocks(text=lambda text: numbered(text, "{:4d} | ")),
    "numbers with tabs": blocks(text=lambda text: numbered(text, "{:6d}\t")),
    "numbers with arrows": blocks(text=lambda text: numbered(text, "{:5d}→")),
    "prose": blocks(lead="I change this:\n\n", tail="\nIt should help.\n"),
    "carriage returns": lambda edit: blocks()(edit).replace("\n", "\r\n"),
    "blocks indented": mapped(blocks(), lambda line: f"  {line}"),
}

# --- calls of edit tools, and whole files ---


def call(old: str, new: str, **more) -> Callable[[Edit], str]:
    """One call, for edits in one place."""

    def write(edit: Edit) -> str:
        found = pairs(edit)
        said = {key: value.format(edit.path) if isinstance(value, str) else value for key, value in more.items()}
        return json.dumps(said | {old: found[0][0], new: found[0][1]}) if len(found) == 1 else ""

    return write


def calls(edit: Edit) -> list[dict[str, str]]:
    return [{"old_string": old, "new_string": new} for old, new in pairs(edit)]


CALLS: dict[str, Callable[[Edit], str]] = {
    "strings": call("old_string", "new_string"),
    "with a path": call("old_string", "new_string", file_path=f"{ROOT}/{{}}"),
    "str_replace": call("old_str", "new_str", command="str_replace", path="{}"),
    "search and replace": call("search", "replace"),
    "find and replace": call("find", "replace", path="{}"),
    "texts": call("oldText", "newText"),
    "not everywhere": call("old_string", "new_string", replace_all=False, file_path="{}"),
    "part of a line": lambda edit: (
        json.dumps([{"old_string": old, "new_string": new} for old, new in parts_of_lines(edit)]) if parts_of_lines(edit) else ""
    ),
    "list": lambda edit: json.dumps(calls(edit), indent=2),
    "edits": lambda edit: json.dumps({"file_path": edit.path, "edits": calls(edit)}),
    "edits alone": lambda edit: json.dumps(
        {"edits": [{"oldText": x["old_string"], "newText": x["new_string"]} for x in calls(edit)]}
    ),
    "fenced": lambda edit: f"```json\n{json.dumps({'edits': calls(edit)}, indent=2)}\n```",
    "carriage returns": lambda edit: json.dumps(
        [{key: value.replace("\n", "\r\n") for key, value in one.items()} for one in calls(edit)]
    ),
    "patch inside": lambda edit: json.dumps({"patch": PLAIN(edit)}),
    "input": lambda edit: json.dumps({"input": ENVELOPE(edit)}),
    "command": lambda edit: json.dumps({"command": ["apply_patch", ENVELOPE(edit)]}),
    "file": lambda edit: json.dumps({"path": edit.path, "content": edit.new}),
}

WHOLE: dict[str, Callable[[Edit], str]] = {
    "raw": lambda edit: edit.new,
    "raw with LF": lambda edit: edit.new.replace("\r\n", "\n"),
    "raw without a last line end": lambda edit: edit.new.rstrip("\r\n"),
    "fenced": lambda edit: f"```\n{edit.new}```\n",
    "fenced with a name": lambda edit: f"```python {edit.path}\n{edit.new}```\n",
    "prose": lambda edit: f"Here is the new {edit.path}:\n\n```\n{edit.new}```\n\nIt is better.\n",
    "heredoc": lambda edit: f"cat > {edit.path} <<'EOF'\n{edit.new}EOF\n",
}

FORMS = {"unified": UNIFIED, "codex": CODEX, "search": SEARCH, "calls": CALLS, "whole": WHOLE}


@dataclass(frozen=True)
class Case:
    name: str
    patch: str
    path: str
    old: str
    new: str | None
    """What must come out; None where the patch must be refused."""


def plausible() -> Iterator[Case]:
    for family, forms in FORMS.items():
        for name, write in forms.items():
            for edit in EDITS:
                if patch := write(edit):
                    yield Case(f"{family}, {name}: {edit.name}", patch, edit.path, edit.old, edit.new)


# --- what must be refused ---------------------------------------------------------------------------------------------

OTHERS = [
    "prepare.py",
    "../train.py",
    "../../etc/passwd",
    "/etc/passwd",
    "/tmp/train.py",
    f"{ROOT}/prepare.py",
    f"{ROOT}/../train.py",
    f"{ROOT}2/train.py",
    f"{ROOT}/lab/train.py",
    "lab/train.py",
    "train.py/prepare.py",
    "train.pyc",
    "xtrain.py",
    ".git/hooks/pre-commit",
    "a/b/train.py",
    "~/train.py",
    "TRAIN.PY",
    "a/../train.py",
    "train.py.orig/x.py",
]
CHANGE = "@@ -1,3 +1,3 @@\n-LOGIT_CAP = 15.0  # logits are squashed smoothly into (-cap, cap)\n+LOGIT_CAP = 20.0\n"
BLOCK = "<<<<<<< SEARCH\nLOGIT_CAP = 15.0\n=======\nLOGIT_CAP = 20.0\n>>>>>>> REPLACE\n"
OURS = "--- a/train.py\n+++ b/train.py\n" + CHANGE
TO_OTHERS = {
    "unified": "--- a/{0}\n+++ b/{0}\n" + CHANGE,
    "no prefix": "--- {0}\n+++ {0}\n" + CHANGE,
    "only the new name": "--- a/train.py\n+++ b/{0}\n" + CHANGE,
    "only the old name": "--- {0}\n+++ train.py\n" + CHANGE,
    "git": "diff --git a/{0} b/{0}\n" + OURS,
    "second file": OURS + "--- a/{0}\n+++ b/{0}\n" + CHANGE,
    "first file": "--- a/{0}\n+++ b/{0}\n" + CHANGE + OURS,
    "git without hunks": OURS + "diff --git a/{0} b/{0}\nindex 1..2 100644\n",
    "added": OURS + "--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+x\n",
    "codex": "*** Begin Patch\n*** Update File: {0}\n" + CHANGE + "*** End Patch\n",
    "codex second": "*** Begin Patch\n*** Update File: train.py\n" + CHANGE + "*** Update File: {0}\n" + CHANGE + "*** End Patch\n",
    "codex behind": "*** Begin Patch\n*** Update File: train.py\n" + CHANGE + "*** End Patch\n*** Add File: {0}\n+x\n",
    "codex add": "*** Begin Patch\n*** Add File: {0}\n+import os\n*** End Patch\n",
    "block": "{0}\n" + BLOCK,
    "heading": "### `{0}`\n" + BLOCK,
    "second block": "train.py\n" + BLOCK + "\n{0}\n" + BLOCK,
    "behind the mark": BLOCK.replace("SEARCH", "SEARCH {0}"),
    "fence": "```python {0}\n" + BLOCK + "```\n",
    "call": '{{"file_path": "{0}", "old_string": "LOGIT_CAP = 15.0", "new_string": "LOGIT_CAP = 20.0"}}',
    "call for edits": '{{"path": "{0}", "edits": [{{"old_string": "LOGIT_CAP = 15.0", "new_string": "LOGIT_CAP = 20.0"}}]}}',
    "heredoc": "cat > {0} <<'EOF'\n" + TRAIN.replace("{", "{{").replace("}", "}}").replace("15.0", "20.0") + "EOF\n",
    "whole": "{0}\n```python\n" + TRAIN.replace("{", "{{").replace("}", "}}").replace("15.0", "20.0") + "```\n",
}
HARMFUL = {
    "delete": "--- a/train.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-import math\n",
    "git delete": "diff --git a/train.py b/train.py\ndeleted file mode 100644\n" + OURS,
    "rename": "diff --git a/train.py b/train.py\nrename from train.py\nrename to t.py\n" + OURS,
    "copy": "diff --git a/train.py b/train.py\ncopy from train.py\ncopy to t.py\n" + OURS,
    "mode": "diff --git a/train.py b/train.py\nold mode 100644\nnew mode 100755\n" + OURS,
    "symlink": "diff --git a/train.py b/train.py\nnew file mode 120000\n--- /dev/null\n+++ b/train.py\n@@ -0,0 +1 @@\n+/etc\n",
    "index of a symlink": "diff --git a/train.py b/train.py\nindex 1111111..2222222 120000\n" + OURS,
    "executable": "diff --git a/train.py b/train.py\nnew file mode 100755\n--- /dev/null\n+++ b/train.py\n@@ -0,0 +1 @@\n+x = 1\n",
    "binary": "diff --git a/train.py b/train.py\nGIT binary patch\nliteral 3\nabc\n",
    "binary differs": "Binary files a/train.py and b/train.py differ\n" + OURS,
    "nul": OURS.replace("20.0", "20.0\0"),
    "codex delete": "*** Begin Patch\n*** Delete File: train.py\n*** End Patch\n",
    "codex move": "*** Begin Patch\n*** Update File: train.py\n*** Move to: t.py\n" + CHANGE + "*** End Patch\n",
    "codex move to itself": "*** Begin Patch\n*** Update File: train.py\n*** Move to: train.py\n" + CHANGE + "*** End Patch\n",
    "name in brackets": "--- train.py (prepare.py)\n+++ train.py (prepare.py)\n" + CHANGE,
    "tag": "<path>prepare.py</path>\n" + BLOCK,
    "combined": "--- a/train.py\n+++ b/train.py\n@@@ -1,1 -1,1 +1,1 @@@\n--LOGIT_CAP = 15.0\n++LOGIT_CAP = 20.0\n",
}


def hostile() -> Iterator[Case]:
    for other in OTHERS:
        for name, patch in TO_OTHERS.items():
            yield Case(f"{name}: {other}", patch.format(other), "train.py", TRAIN, None)
    for name, patch in HARMFUL.items():
        yield Case(name, patch, "train.py", TRAIN, None)


REPEATED = "a = 1\nb = 0\nmax = 1\nif a:\n    b = 0\n    c = 2\nif b:\n    b = 0\n    c = 3\n# the end\n"
LISTED = "# Plan\n\n- one\n- two\n\nText that stays.\n\n+ more\n\nLast words of it.\n"


def search(old: str, new: str) -> str:
    return f"<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


DOUBTFUL: list[tuple[str, str, str]] = [
    ("code.py", REPEATED, search("    b = 0", "    b = 1")),
    ("code.py", REPEATED, search("x = 1", "x = 2")),  # within "max = 1" only
    ("code.py", REPEATED, search("c = ", "d = ")),
    ("code.py", REPEATED, search("", "z = 1")),
    ("code.py", REPEATED, "@@\n-    b = 0\n+    b = 1\n"),
    ("code.py", REPEATED, "@@ -20,1 +20,1 @@\n-    b = 0\n+    b = 1\n"),
    ("code.py", REPEATED, "@@ -6,1 +6,1 @@\n-    b = 0\n+    b = 1\n"),
    ("code.py", REPEATED, "@@ if x:\n-    b = 0\n+    b = 1\n"),
    ("code.py", REPEATED, "*** Begin Patch\n*** Update File: code.py\n@@ if x:\n-    c = 3\n+    c = 4\n*** End Patch\n"),
    ("code.py", REPEATED, "*** Begin Patch\n*** Update File: code.py\n@@\n+z = 1\n*** End Patch\n"),
    ("code.py", REPEATED, "*** Begin Patch\n*** Update File: code.py\n@@ b = 0\n+z = 1\n*** End Patch\n"),
    ("code.py", REPEATED, "@@ -3,2 +3,3 @@\n+z = 1\n"),
    ("code.py", REPEATED, "@@ -0,0 +1,4 @@\n+a = 1\n+b = 0\n+max = 2\n+z = 1\n"),
    ("code.py", REPEATED, "@@ -5,2 +5,2 @@\n if b:\n-    c = 2\n+    c = 4\n"),  # the context stands elsewhere
    ("code.py", REPEATED, "@@ -5,2 +5,2 @@\n nothing like it\n-    c = 2\n+    c = 4\n"),  # no context is left
    ("code.py", REPEATED, "@@\n-max = 1\n+max = 2\nand more\n+also = 3\n"),  # a line not understood amid a hunk
    ("code.py", REPEATED, "a = 1\nb = 5\n"),  # a fragment
    ("code.py", REPEATED, "```python\nif a:\n    b = 0\n    c = 5\n```\n"),
    ("code.py", REPEATED, "```python\n# ... existing code ...\nif a:\n    b = 0\n    c = 5\n# ... rest unchanged ...\n```\n"),
    ("code.py", REPEATED, search("if a:\n    b = 0\n    c = 2", "if a:\n    # ... existing code ...\n    c = 5")),
    ("code.py", REPEATED, "*** Begin Patch\n*** Add File: code.py\n+a = 1\n+# ... rest of the file unchanged\n*** End Patch\n"),
    ("code.py", REPEATED, REPEATED[: REPEATED.index("if b")]),  # cut off
    ("code.py", REPEATED, f"```\n{REPEATED.replace('max = 1', 'max = 2')[12:]}```\n"),  # its head is gone
    (
        "code.py",
        REPEATED,
        f"```\n{REPEATED.replace('max = 1', 'max = 2')}```\nor\n```\n{REPEATED.replace('max = 1', 'max = 3')}```\n",
    ),
    ("code.py", REPEATED, '{"old_string": "b = 0", "new_string": "b = 1"}'),
    ("code.py", REPEATED, '{"old_string": "B = 0", "new_string": "b = 1"}'),
    ("code.py", REPEATED, '{"old_string": "b  = 0", "new_string": "b = 1"}'),
    ("code.py", REPEATED, '{"old_string": "max = 1", "new_string": "max = 2", "line": 3}'),
    ("code.py", REPEATED, "<<<<<<< HEAD\nmax = 1\n||||||| base\nmax = 0\n=======\nmax = 2\n>>>>>>> other\n"),
    ("code.py", REPEATED, "<<<<<<< SEARCH\nmax = 1\n=======\nmax = 2\n=======\nmax = 3\n>>>>>>> REPLACE\n"),
    ("code.py", REPEATED, "<<<<<<< SEARCH\nmax = 1\n=======\nmax = 2\n"),
    ("code.py", REPEATED, "<<<<<<< SEARCH\nmax = 1\n<<<<<<< SEARCH\n=======\nmax = 2\n>>>>>>> REPLACE\n"),
    ("code.py", REPEATED, search("c = 3", "if a:\n        c = 4")),  # indented by the file, or not
    ("code.py", REPEATED, search("max = 1", "max = 2") + search("max = 1", "max = 3")),
    ("notes.md", LISTED, "@@\n-Text that stays.\n+Text that goes.\n@@\nLast words of it.\nThe last words.\n"),  # no signs
    ("notes.md", LISTED, "@@\n# Plan\n\n- one\n- two\n+- three\n"),  # list items, or lines to remove
    ("notes.md", LISTED, "@@\nText that stays.\n\n+ more\n-Last words of it.\n+The end.\n"),
    ("notes.md", LISTED, "Here is the new file.\n\n" + LISTED.replace("stays", "goes")),  # prose, or text
    ("notes.md", LISTED, LISTED.replace("stays", "goes") + "\nI hope this helps.\n"),
    ("notes.md", LISTED, LISTED.replace("Last words of it.", "Last wo")),
    ("notes.md", LISTED, "- one\n- two\n"),
    ("notes.md", LISTED, "Please put three behind two."),
]


def ambiguous() -> Iterator[Case]:
    for number, (path, text, patch) in enumerate(DOUBTFUL, start=1):
        yield Case(f"{number}: {patch[:60]!r}", patch, path, text, None)


# --- counting ---------------------------------------------------------------------------------------------------------


def outcome(case: Case) -> str:
    """right, refused or misapplied."""
    try:
        result = apply_patch(case.patch, case.path, case.old, ROOT)
    except PatchError:
        return "refused"
    return "right" if result == case.new else "misapplied"


def main() -> None:
    started = time.perf_counter()
    for name, cases in (("plausible", [*plausible()]), ("hostile", [*hostile()]), ("ambiguous", [*ambiguous()])):
        counts = Counter(outcome(case) for case in cases)
        print(f"{name:10} {len(cases):4}: " + ", ".join(f"{counts[word]} {word}" for word in ("right", "refused", "misapplied")))
        for case in cases:
            if outcome(case) != ("right" if case.new else "refused"):
                print(f"  {outcome(case)}: {case.name}")
    print(f"{time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
