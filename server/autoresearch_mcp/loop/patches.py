"""Turns a patch as models really write it into the new text of one file, or into an error that lets the agent correct the patch
at once. Nothing here touches the disk.

Forms: unified diff; Codex `*** Begin Patch` envelope; SEARCH/REPLACE blocks; the arguments of agents' own edit tools as JSON; the
whole new file. Here they are read into hunks; target.py knows the names that the file may go by, placing.py puts hunks into text.

What a writer may leave out or wrap around (line numbers, counts, fences, prose, a heredoc) is forgiven where one meaning is left.
Three things never are: a patch that names another file, even besides ours; a line that would be written without being understood;
a place that is not certain. The price: a patch whose prose could be read as part of it is refused, and is sent once more.
"""

import json
import re
import symtable
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, cast

from autoresearch_mcp.errors import PatchError
from autoresearch_mcp.loop.diffs import changes_between, matching
from autoresearch_mcp.loop.hunks import Hunk, Reading, without_blank_edges
from autoresearch_mcp.loop.lines import collapsed
from autoresearch_mcp.loop.placing import place
from autoresearch_mcp.loop.target import LONGEST_NAME, NAME, Target, is_path

MAX_BYTES = 1 << 20
FORMS = "a unified diff, a `*** Begin Patch` envelope, or SEARCH/REPLACE blocks (<<<<<<< SEARCH, =======, >>>>>>> REPLACE)"
RESEMBLES = 0.6  # share of lines that a whole new file must have in common with the old one; a fragment of it has less
MOST_LINES = 100_000  # of a patch: about 0.5 s to read; the whole of a file under the limit has some 30,000
MOST_TOKENS = 400_000  # of a Python file; a megabyte of code as people write it has 250,000; these take about a second to read
MOST_DOTS = 4_000_000  # squares of their number in each line of TOML: tomllib's time and memory for a dotted key
MOST_FIELDS = 1_000_000_000  # braces times characters of a Python file: Python 3.11 reads f-strings in square time, this in 0.4 s
_F_STRING = re.compile(r"(?:\b[fF][rR]?|\b[rR][fF])[\"']")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character: no UTF-8 can hold it, so neither a file nor an answer


def apply_patch(patch: str, path: str, text: str, root: str | None = None) -> str:
    """New text of the file `path` whose text is `text`. `root` is the absolute path of the folder that `path` is in: with it, a
    patch may name the file in full. Raises PatchError with the reason and the next step."""
    if len(patch.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise PatchError(f"The patch is larger than {MAX_BYTES} bytes. Send a smaller one, with only the lines that change.")
    if patch.count("\n") > MOST_LINES:
        raise PatchError(f"The patch has more than {MOST_LINES} lines. Send a smaller one, with only the lines that change.")
    if "\0" in patch or re.search(r"^(GIT binary patch|Binary files .* differ$)", patch, re.MULTILINE):
        raise PatchError(f"The patch is binary; {path} is text. Send {FORMS}.")
    _refuse_surrogates(patch)
    target = Target(path, root, text)
    hunks = _parse(patch, target)
    if not hunks:
        raise PatchError(f"The patch has no hunk, so it would change nothing. Send {FORMS} with at least one change.")
    for hunk in hunks:
        _refuse_elision(hunk, target)
    new_text = place(hunks, path, text)
    if new_text == text:
        raise PatchError(f"The patch changes nothing: {path} already reads like that. Call the read tool to see it as it is.")
    if len(new_text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise PatchError(f"The result would be larger than {MAX_BYTES} bytes. Nothing was changed; make {path} smaller.")
    check_syntax(path, new_text)
    return new_text


def _refuse_surrogates(patch: str) -> None:
    if half := _SURROGATE.search(patch):
        raise PatchError(
            f"The patch holds U+{ord(half[0]):04X}, which is half of a character (a lone surrogate) and stands in no file. "
            "Nothing was changed. Write the whole character, or leave it out."
        )


def check_syntax(path: str, text: str) -> None:
    """Refuses text, of a file as it is or as it would be, that is no valid Python, JSON or TOML where its name says it should be.
    Python so full of f-strings that to read it would take seconds passes: the run will tell."""
    try:
        text.encode("utf-8")
        text = text.removeprefix("\ufeff")
        if "\0" in text and PurePosixPath(path).suffix in (".py", ".json", ".toml"):
            raise ValueError(f"line {text[: text.index(chr(0))].count(chr(10)) + 1} has a NUL byte, which is no text")
        match PurePosixPath(path).suffix:
            case ".py":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    if len(text) > MOST_TOKENS and len(_TOKEN.findall(text)) > MOST_TOKENS:
                        raise ValueError(f"more than {MOST_TOKENS} words and signs are data, not a program; make it smaller")
                    if text.count("{") * len(text) > MOST_FIELDS and _F_STRING.search(text):
                        return
                    symtable.symtable(text, path, "exec")  # reads it as ast.parse does, in a third of the time
            case ".json":
                json.loads(text)
            case ".toml":
                if sum(line.count(".") ** 2 for line in text.split("\n")) > MOST_DOTS:
                    raise ValueError("too many dots in a line; write tables in place of dotted keys")
                tomllib.loads(text)
            case _:
                pass
    except SyntaxError as error:
        shown = (error.text or "").rstrip()
        raise PatchError(
            f"Nothing was done, because of a syntax error: {path}, line {error.lineno}: {error.msg}\n"
            f"    {shown}\nCorrect that line, then call again."
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise PatchError(f"Nothing was done, because this is no valid {path}: {reason}. Correct that, then call again.") from error


# --- which form it is -------------------------------------------------------------------------------------------------

_CODEX = re.compile(r"[ \t]*\*\*\* (?:(?:Begin|End) Patch\s*$|(?:Update|Add|Delete) File:|Move to:|End of File\s*$)")
_DIFF = re.compile(r"[ \t]*(?:@@|diff --git |diff -\w+ |--- \S|\+\+\+ \S|Index: \S)")
_SEARCH = re.compile(
    r"[ \t]*(?:<{4,}[ \t]*(?:(?:SEARCH|ORIGINAL|HEAD|OLD|BEFORE|FIND)\b(?P<rest>.*)|$)|-{5,}[ \t]*SEARCH\b(?P<dashed>.*))",
    re.IGNORECASE,
)
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})([^`]*)$")
_MARKER = re.compile(f"^(?:(?P<codex>{_CODEX.pattern})|(?P<search>{_SEARCH.pattern})|(?P<diff>{_DIFF.pattern}))", re.M | re.I)


def _parse(patch: str, target: Target) -> list[Hunk]:
    patch = patch.removeprefix("\ufeff")
    if not patch.strip():
        raise PatchError(f"The patch is empty. Send {FORMS}.")
    if (hunks := _from_json(patch, target)) is not None:
        return hunks
    lines = [line.removesuffix("\r") for line in patch.split("\n")]
    first = _MARKER.search(patch.replace("\r\n", "\n"))
    if first is not None:
        lines = _dedented(lines, re.match(r"[ \t]*", first[0]))
        return _SearchReader(target).read(lines) if first["search"] else _DiffReader(target, lines).read()
    fenced = any(re.match(r"\s*(```+|~~~+)\s*(diff|patch|udiff)\b", line) for line in lines)
    signs = {line[:1] for line in lines if line.strip()}
    if fenced or (signs <= {"+", "-", " "} and {"+", "-"} <= signs):
        if not fenced and not {line[1:] for line in lines if line[:1] == "-"} <= {*target.lines}:
            raise PatchError(
                f"Each line begins with a sign, but not all lines with '-' are in {target.path} as they are written, so this may "
                f"be a list or a diff. Nothing was changed. Send {FORMS}."
            )
        return _DiffReader(target, lines, bare=True).read()
    return _whole_file(lines, target)


def _mixed() -> PatchError:
    return PatchError("The patch mixes SEARCH/REPLACE blocks with a diff, of which one would be lost. Send it in one form.")


def _dedented(lines: list[str], indent: re.Match[str] | None) -> list[str]:
    """The lines without the indentation of the first line that is part of a patch, as in a list of prose."""
    prefix = indent[0] if indent else ""
    return [line.removeprefix(prefix) for line in lines] if prefix else lines


# --- diffs: unified, and Codex envelopes ------------------------------------------------------------------------------

_NUMBERS = re.compile(r"@@+ *-(\d{1,9})(?:,(\d{1,9}))? +\+(\d{1,9})(?:,(\d{1,9}))? *@@")
_NO_ANCHOR = re.compile(r"[\s\d.,:+…-]*(?:lines?\b[\s\d.,:+…-]*)?(?:to\b[\s\d.,-]*)?", re.IGNORECASE)
_DELIMITER = re.compile(r"[A-Z_]{2,}")


class _DiffReader:
    """Reads hunks whose lines begin with ' ', '-' or '+'."""

    def __init__(self, target: Target, lines: list[str], bare: bool = False):
        self.target, self.lines = target, lines
        self.hunks: list[Hunk] = []
        self.codex = False  # inside an envelope, where `@@` lines are anchors that must be found
        self.open = bare  # a file is named, so that lines with signs are a hunk even without `@@`
        self.creates = False  # the file is written anew
        self.doubtful = False  # a hunk ended at a line that is neither its own nor the format's
        self.fence: str | None = None
        self.anchors: list[str] = []
        self.last_fence = next((i for i in reversed(range(len(lines))) if _FENCE.match(lines[i])), -1)

    def read(self) -> list[Hunk]:
        i = 0
        while i < len(self.lines):
            line = self.lines[i]
            if line.startswith("@@"):
                i = self._hunk(i)
            elif line.startswith("*** ") and _CODEX.match(line):
                i = self._codex_line(i)
            elif self._is_header(i):
                self._header(line, self.lines[i + 1])
                i += 2
            elif line and self.open and line[0] in "+- " and not self._is_signature(i):
                i = self._take(i, None)
            else:
                self._outside(line)
                i += 1
        if self.anchors:
            raise PatchError(
                f"Nothing follows the line `@@ {self.anchors[-1][:80]}`. Send the patch again with the lines behind it."
            )
        return self.hunks

    def _outside(self, line: str) -> None:
        if not line.strip():
            return
        self.target.check_outside(line)
        if line.lstrip()[:1] in ("<", "-") and _SEARCH.match(line):
            raise _mixed()
        if line.startswith(("--- ", "+++ ")):
            self.open, self.doubtful = True, False
        elif line.startswith("diff "):
            self.open = self.creates = self.doubtful = False
        elif fence := _FENCE.match(line):
            self._fence_line(fence)
        elif self.doubtful and (line[0] == "+" or (line[0] == "-" and collapsed(line[1:]) in self.target.known)):
            raise PatchError(f"The line {line[:80]!r} stands outside any hunk. Begin each hunk with an `@@` line.")

    def _fence_line(self, fence: re.Match[str]) -> None:
        self.fence = fence[1] if self.fence is None else None
        self.open = self.open and self.fence is not None
        self.doubtful = False

    def _header(self, old: str, new: str) -> None:
        self.creates = old[4:].strip() == "/dev/null"
        if new[4:].strip() == "/dev/null":
            raise self.target.refuse("create or delete a file")
        for line in (new,) if self.creates else (old, new):
            self.target.check_outside(line)
        self.open, self.doubtful = True, False

    def _is_header(self, i: int) -> bool:
        """A line `--- x` with `+++ y` behind it."""
        here, behind = self.lines[i], self.lines[i + 1] if i + 1 < len(self.lines) else ""
        return here.startswith("--- ") and behind.startswith("+++ ")

    def _is_signature(self, i: int) -> bool:
        """git's last lines: `-- ` and its version."""
        return (
            self.lines[i].rstrip() == "--" and i + 1 < len(self.lines) and bool(re.match(r"\d+\.\d[\w.]*\s*$", self.lines[i + 1]))
        )

    def _codex_line(self, i: int) -> int:
        line, target = self.lines[i].strip(), self.target
        self.codex, self.doubtful = True, False
        if line == "*** End of File":
            if not self.hunks:
                raise PatchError("`*** End of File` ends no hunk. Put it behind the hunk that is at the end of the file.")
            self.hunks[-1].at_end = True
            return i + 1
        self.open = self.creates = False
        if line.startswith("*** Delete File:"):
            raise target.refuse("create or delete a file")
        if line.startswith("*** Move to:"):
            raise target.refuse("rename a file")
        if line.startswith(("*** Update File:", "*** Add File:")):
            target.check_name(line.split(":", 1)[1])
            self.open, self.creates = True, line.startswith("*** Add")
        return i + 1

    def _hunk(self, i: int) -> int:
        """Reads a line that begins with `@@`, and the hunk behind it."""
        line = self.lines[i]
        if line.startswith("@@@"):
            raise PatchError("This is a combined diff of a merge. Send a plain unified diff.")
        if self.codex and not self.open:
            raise PatchError(f"The envelope must name the file first: `*** Update File: {self.target.path}`.")
        self.doubtful = False
        numbers = _NUMBERS.match(line)
        if numbers is None:
            anchor = line.strip("@").strip()
            if not _NO_ANCHOR.fullmatch(anchor[:LONGEST_NAME]):
                self.anchors.append(anchor)
        return self._take(i + 1, numbers)

    def _take(self, i: int, numbers: re.Match[str] | None) -> int:
        """Takes the lines of a hunk from index `i` on; returns the index behind them."""
        counts = (int(numbers[2] or 1), int(numbers[4] or 1)) if numbers else None
        body, i = self._body(i, counts)
        if not any(body):
            return i  # behind an anchor: the next `@@` line stands below it
        where = f" ({numbers[0][:60]})" if numbers else f" (@@ {self.anchors[-1][:60]})" if self.anchors else ""
        label = f"Hunk {len(self.hunks) + 1}{where}"
        if not any(line[:1] in ("+", "-") for line in body):
            raise PatchError(
                f"{label} has no line that begins with '-' or '+', so it would change nothing. Mark what goes and comes."
            )
        if self.creates:
            self.hunks.append(self._creation(label, body))
            return i
        hunk = _signed(label, body, self.target)
        if numbers:
            hunk.line = int(numbers[1])
            if numbers[2] == "0":
                hunk.line, hunk.after = None, int(numbers[1])
                known = self.target.known
                if hunk.after == 0 and known and any(collapsed(line) in known for line in hunk.readings[0].new if line.strip()):
                    hunk.after = None  # "-0,0" is how a new file begins; here it may be meant as one
        hunk.anchors, hunk.anchored, self.anchors = self.anchors, self.codex, []
        self.hunks.append(hunk)
        return i

    def _creation(self, label: str, body: list[str]) -> Hunk:
        if self.hunks:
            raise PatchError(f"The patch writes {self.target.path} anew and edits it too. Send one of the two.")
        if odd := next((line for line in body if line and line[0] not in "+\\"), None):
            raise PatchError(f"{label}: the line {odd[:80]!r} of a file written anew does not begin with '+'. Prefix each line.")
        return _rewrite(label, [line[1:] for line in body if not line.startswith("\\")], self.target, body[-1][:1] != "\\")

    def _body(self, i: int, counts: tuple[int, int] | None) -> tuple[list[str], int]:
        """Lines of one hunk from index i on, and the index behind them. Agents miscount, so counts only settle doubts: a line
        `--- x` is a removal as long as the counts leave room for one."""
        body: list[str] = []
        old = new = 0
        while i < len(self.lines):
            line = self.lines[i]
            sign = line[:1]
            if sign == "" and (old, new) == counts and any(line[:1] in ("+", "-") for line in body):
                self._refuse_signs_behind(i)
            if sign in ("", " ", "+"):
                pass
            elif sign == "-":
                room = counts is not None and (old < counts[0] or new < counts[1])
                if (self._is_header(i) and not room) or self._is_signature(i):
                    break
            elif sign != "\\" and self._ends_at(i):
                break
            old += sign in (" ", "-", "")
            new += sign in (" ", "+", "")
            body.append(line)
            i += 1
        while body and body[-1] == "" and (counts is None or old > counts[0]):
            body.pop()  # blank lines behind the hunk, not context
            old -= 1
        return body, i

    def _refuse_signs_behind(self, i: int) -> None:
        """A hunk as long as its header says ends at a blank line: are lines with signs behind that a list, or more of the hunk?"""
        while i < len(self.lines) and not self.lines[i].strip():
            i += 1
        line = self.lines[i] if i < len(self.lines) else ""
        if line[:1] in ("+", "-") and not self._is_header(i) and not self._is_signature(i):
            raise PatchError(
                f"The line {line[:80]!r} stands behind a blank line where the hunk is complete by its header, so it may be prose "
                "or part of the hunk. Nothing was changed. Begin each hunk with an `@@` line, and leave prose out."
            )

    def _ends_at(self, i: int) -> bool:
        """Whether a line without a sign is behind the hunk; else it is context that lost its blank."""
        line = self.lines[i]
        if line.startswith(("@@", "diff --git ", "diff -")) or (line.startswith("*** ") and _CODEX.match(line)):
            return True
        known = collapsed(line) in self.target.known
        if self.fence and line.strip().startswith(self.fence) and not line.strip().strip(self.fence[0]):
            return not known or i == self.last_fence
        self.doubtful = not known and not _DELIMITER.fullmatch(line.strip())
        return not known


def _signed(label: str, body: list[str], target: Target) -> Hunk:
    """A hunk from lines that begin with ' ', '-' or '+'. Context may have lost its leading blank."""
    plain, bare = Reading([], [], []), Reading([], [], [])
    final_newline = None
    last = ""
    for line in body:
        mark, text = line[:1], line[1:]
        if mark == "\\":  # no newline at end of file; said of the old text only, it means that the new one has one
            final_newline = last == "-"
            continue
        for reading, shown in ((plain, text if mark == " " else line), (bare, line)):
            if mark not in ("-", "+"):
                assert reading.kept is not None
                reading.kept.append((len(reading.old), len(reading.new)))
            if mark != "+":
                reading.old.append(text if mark == "-" else shown)
            if mark != "-":
                reading.new.append(text if mark == "+" else shown)
        last = mark
    unsigned = next((line for line in body if line and line[0] not in " -+\\"), None)
    doubt = next((line for line in body if line[:1] in ("-", "+") and line[1:].strip() and collapsed(line) in target.known), None)
    if unsigned and doubt:
        raise PatchError(
            f"{label}: the line {unsigned[:80]!r} begins with none of ' ', '-', '+', so {doubt[:80]!r} may be a line of "
            f"{target.path} or a sign and a line. Prefix each line of the hunk."
        )
    readings = [plain, *([bare] if bare.old != plain.old and not doubt else []), *without_blank_edges(plain)]
    return Hunk(label, readings, final_newline=final_newline)


# --- SEARCH/REPLACE blocks --------------------------------------------------------------------------------------------

_REPLACE_END = re.compile(r"[ \t]*(?:>{4,}|\+{5,})[ \t]*(?P<word>[A-Za-z]*)(?P<rest>.*)")
_END_WORDS = {"replace", "updated", "update", "new", "after", "replacement"}
_NUMBERED = re.compile(r"\s*(\d{1,7})(?:\s*[|│→]|:(?=\s)|\t)(.*)")


@dataclass
class _SearchReader:
    """Reads blocks of a text to find and a text to put in its place."""

    target: Target
    hunks: list[Hunk] = field(default_factory=list[Hunk])

    def read(self, lines: list[str]) -> list[Hunk]:
        opened: re.Match[str] | None = None
        body: list[str] = []
        for line in lines:
            start = _SEARCH.match(line) if line.lstrip()[:1] in ("<", "-") else None
            if opened is None:
                if start is None:
                    self._outside(line)
                else:
                    opened, body = start, []
                    self._check_rest(start["rest"] or start["dashed"] or "")
            elif start is not None:
                raise self._not_closed()
            elif (end := _REPLACE_END.match(line) if line.lstrip()[:1] in (">", "+") else None) and self._closes(opened, end):
                self._check_rest(end["rest"])
                self.hunks.append(self._block(body))
                opened = None
            else:
                body.append(line)
        if opened is not None:
            raise self._not_closed()
        return self.hunks

    def _outside(self, line: str) -> None:
        self.target.check_outside(line)
        if line.startswith("@@") or (line.startswith("*** ") and _CODEX.match(line)):
            raise _mixed()
        if line.startswith("=======") or ((end := _REPLACE_END.match(line)) and end["word"].lower() in _END_WORDS):
            raise PatchError(f"The line {line[:80]!r} stands outside any block. Begin each block with a line `<<<<<<< SEARCH`.")

    @property
    def _label(self) -> str:
        return f"Block {len(self.hunks) + 1}"

    def _not_closed(self) -> PatchError:
        return PatchError(f"{self._label} is not closed. End it with a line `>>>>>>> REPLACE`.")

    def _check_rest(self, rest: str) -> None:
        for word in NAME.findall(rest[:LONGEST_NAME]):
            if is_path(word):
                self.target.check_name(word)

    @staticmethod
    def _closes(opened: re.Match[str], end: re.Match[str]) -> bool:
        """Whether a line that looks like the end of a block is one: by its word, or for a block opened as git does, by any."""
        by_git = re.fullmatch(r"[ \t]*<+[ \t]*(HEAD\b.*|ORIGINAL\b.*)?", opened[0], re.IGNORECASE)
        return end["word"].lower() in _END_WORDS or bool(by_git and end[0].lstrip()[0] == ">")

    def _block(self, body: list[str]) -> Hunk:
        line = None
        while body and (hint := re.fullmatch(r":(start|end)_line:\s*(\d{1,7})\s*", body[0])):
            line = int(hint[2]) if hint[1] == "start" else line
            body = body[1:]
            if body and re.fullmatch(r"-{5,}\s*", body[0]):
                body = body[1:]
        old, new = self._halves(body)
        if any(text.startswith("|||||||") for text in old):
            raise PatchError(f"{self._label} has three parts. Send one SEARCH and one REPLACE part.")
        if old and not any(line.strip() for line in old):
            if any(line.strip() for line in self.target.lines):
                raise PatchError(
                    f"{self._label} searches for blank lines alone, which is no place in {self.target.path}. Nothing was changed. "
                    "Put the lines next to the change into SEARCH."
                )
            old = old if self.target.lines else []
        given = Reading(old, new)
        readings = [given, *without_blank_edges(given)]
        for made in (self._unfenced(given), *self._unnumbered(given), self._unnamed(given)):
            if made is not None:
                readings += [made, *without_blank_edges(made)]
        return Hunk(self._label, readings, line=line, partial=True)

    def _halves(self, body: list[str]) -> tuple[list[str], list[str]]:
        """The text on either side of the divider. A heading may be underlined with `=` too: then only a divider of seven counts."""
        dividers = [i for i, line in enumerate(body) if line.lstrip()[:1] == "=" and re.fullmatch(r"[ \t]*={5,}[ \t]*", line)]
        if len(dividers) > 1:
            dividers = [i for i in dividers if body[i].strip() == "======="]
        if not dividers:
            raise PatchError(f"{self._label} has no `=======` line between SEARCH and REPLACE. Add it.")
        if len(dividers) > 1:
            raise PatchError(f"{self._label} has more than one `=======` line. Send that part as a unified diff.")
        return body[: dividers[0]], body[dividers[0] + 1 :]

    @staticmethod
    def _unfenced(given: Reading) -> Reading | None:
        """Without fences around both texts."""
        for text in (given.old, given.new):
            if len(text) < 2 or not _FENCE.match(text[0]) or text[-1].strip() not in ("```", "~~~"):
                return None
        return Reading(given.old[1:-1], given.new[1:-1])

    def _unnumbered(self, given: Reading) -> Iterator[Reading]:
        """Without the line numbers that a reading tool put before each line of the old text, and perhaps the new. Whether the
        tool puts a blank behind them too is unknown where each line begins with one."""
        old = [_NUMBERED.fullmatch(line) for line in given.old]
        new = [_NUMBERED.fullmatch(line) for line in given.new]
        numbers = [int(match[1]) for match in old if match]
        if not numbers or None in old or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            return
        if any(new) and not all(match or not line.strip() for match, line in zip(new, given.new, strict=True)):
            return
        shown = [match[2] for match in (*old, *new) if match]
        for blank in (" ", ""):
            if all(text.startswith(blank) for text in shown if text):
                yield Reading(
                    [match[2].removeprefix(blank) for match in old if match],
                    [match[2].removeprefix(blank) if match else line for match, line in zip(new, given.new, strict=True)],
                )

    def _unnamed(self, given: Reading) -> Reading | None:
        """Without the file's name as the first line of the old text."""
        named = given.old and given.old[0].strip() and self.target.is_named(given.old[0])
        return Reading(given.old[1:], given.new) if named else None


# --- edits as JSON ----------------------------------------------------------------------------------------------------

_PAIRS = (
    ("old_string", "new_string"),
    ("old_str", "new_str"),
    ("oldText", "newText"),
    ("old_text", "new_text"),
    ("oldString", "newString"),
    ("search", "replace"),
    ("find", "replace"),
)
_PATHS = ("file_path", "filePath", "path", "file", "filename", "target_file")
_WHOLE = ("content", "contents", "file_text", "new_content")
_WRAPPED = ("patch", "input", "diff")
_SAID = {"description", "explanation", "instruction", "instructions", "reason", "replace_all", "dryRun", "command"}
_COMMANDS = {"str_replace", "edit", "update", "replace", "create", "write", "apply_patch"}


def _from_json(patch: str, target: Target) -> list[Hunk] | None:
    """The hunks of an agent's own edit tool, called by its arguments; None where the patch is no such thing."""
    body = patch.strip()
    if fenced := re.fullmatch(r"(?:```|~~~)\w*[ \t]*\r?\n(.*?)\r?\n(?:```|~~~)", body, re.DOTALL):
        body = fenced[1].strip()
    if body[:1] not in ("{", "["):
        return None
    try:
        given = json.loads(body, strict=False)
        said = json.dumps(given, ensure_ascii=False)  # with every escape resolved, also in names and paths
    except (ValueError, RecursionError):
        return None
    _refuse_surrogates(said)
    return _edits(given, target)


def _edits(given: Any, target: Target) -> list[Hunk] | None:
    hunks: list[Hunk] = []
    edits = cast(list[Any], given) if isinstance(given, list) else [given]
    for edit in edits:
        made = _edit(cast(dict[str, Any], edit), target) if isinstance(edit, dict) else None
        if made is None:
            return None
        hunks += made
    for number, hunk in enumerate(hunks, start=1):
        hunk.label = f"Edit {number}" if hunk.literal else hunk.label
    return hunks or None


def _edit(edit: dict[str, Any], target: Target) -> list[Hunk] | None:
    rest = {key: value for key, value in edit.items() if key not in _SAID and key not in _PATHS}
    command = edit.get("command", "edit")
    if isinstance(command, list):
        words = cast(list[Any], command)
        return _parse(words[1], target) if len(words) == 2 and words[0] == "apply_patch" and isinstance(words[1], str) else None
    texts = {key: value.replace("\r\n", "\n") for key, value in rest.items() if isinstance(value, str)}
    if "edits" in rest and len(rest) == 1:
        made = _edits(rest["edits"], target) if isinstance(rest["edits"], list) else None
    elif len(texts) != len(rest):
        return None
    elif pair := next((pair for pair in _PAIRS if set(pair) == set(texts)), None):
        old, new = (texts[key] for key in pair)
        reading = Reading(old.split("\n"), new.split("\n")) if old else Reading([], new.removesuffix("\n").split("\n"))
        made = [Hunk("", [reading], literal=bool(old))]
    elif len(texts) == 1 and set(texts) <= set(_WHOLE) and any(key in edit for key in _PATHS):
        made = [_resembling(next(iter(texts.values())).split("\n"), target)]
    elif len(texts) == 1 and set(texts) <= set(_WRAPPED):
        inner = next(iter(texts.values()))
        made = _parse(inner, target) if not inner.lstrip().startswith(("{", "[")) else None
    else:
        return None
    if made is None or not (isinstance(command, str) and command in _COMMANDS):
        return None
    for key in _PATHS:
        if key in edit:
            target.check_name(str(edit[key]))
    return made


# --- the whole new file -----------------------------------------------------------------------------------------------


def _whole_file(lines: list[str], target: Target) -> list[Hunk]:
    """A rewrite from the text of the new file: alone, or in one fence. Prose may stand around the fence only."""
    fences = [i for i, line in enumerate(lines) if _FENCE.match(line)]
    shown = [line for line in lines if line.strip()]
    own = [line for line in target.lines if line.strip()]
    if own and shown[0] == own[0] and shown[-1] == own[-1]:
        return [_resembling(lines, target)]
    own_fences = any(_FENCE.match(line) for line in target.lines)
    if len(fences) == 2 or (len(fences) > 2 and own_fences):
        for line in [*lines[: fences[0] + 1], *lines[fences[-1] :]]:
            target.check_outside(line)
        return [_resembling(lines[fences[0] + 1 : fences[-1]], target)]
    heredoc = re.search(r"<<-?\s*[\"']?(\w+)[\"']?", lines[0])
    if heredoc and ">" in lines[0] and lines[0].rstrip() and heredoc[1] in lines:
        target.check_outside(lines[0])
        return [_resembling(lines[1 : lines.index(heredoc[1])], target)]
    raise PatchError(
        f"This is no patch: no `@@`, no `*** Begin Patch`, no `<<<<<<< SEARCH`, and not all of {target.path} either. Send {FORMS}."
    )


def _resembling(lines: list[str], target: Target) -> Hunk:
    """A rewrite of the file by a text that is plainly a new version of all of it, not a fragment and not cut off."""
    old = [collapsed(line) for line in target.lines if line.strip()]
    new = [collapsed(line) for line in lines if line.strip()]
    common = sum(size for _, _, size in matching(old, new))
    changes = changes_between(old, new)
    at_edges = [change for change in changes if change[0] == 0 or change[1] == len(old)]
    shorter = any(j - i > m - k for i, j, k, m in at_edges)
    cut = bool(old and new) and old[-1] != new[-1] and old[-1].startswith(new[-1])
    if target.lines and (common < 3 or 2 * common < RESEMBLES * (len(old) + len(new)) or shorter or cut):
        raise PatchError(
            f"This is no patch, and as the whole of {target.path} it would drop or change too much of it. Nothing was changed. "
            f"Send {FORMS}."
        )
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    while lines and not lines[0].strip() and target.lines[:1] != [""]:
        lines = lines[1:]
    return _rewrite("The new file", lines, target)


def _rewrite(label: str, lines: list[str], target: Target, final_newline: bool | None = None) -> Hunk:
    """All of the file's lines give way to these; lines that both have stay as they are in the file."""
    return Hunk(label, [Reading(target.lines, lines)], line=1, final_newline=None if final_newline else final_newline)


# --- what is left out -------------------------------------------------------------------------------------------------

_COMMENT = re.compile(r"#+|//+|--|<!--|/?\*+|;+|%")
_ELIDED = re.compile(
    r"(?:\.\.\.|…).*\b(?:rest|existing|unchanged|remain\w*|same|omitted|previous|other|code|before|above|below)\b", re.IGNORECASE
)
_KEPT = re.compile(
    r"(?:the )?(?:rest of|existing|remaining|unchanged|same|keep)\b.*"
    r"(?:\.\.\.|…|\bunchanged|\bas before|\bstays?\b|\bremains?\b|\bhere\b)",
    re.IGNORECASE,
)


def _is_elision(line: str) -> bool:
    """Blanks are taken off first: a pattern with several optional runs of them takes cubic time."""
    said = line.strip()
    comment = _COMMENT.match(said)
    said = said[comment.end() if comment else 0 :].lstrip()
    said = said[said[:1] in {*"[(<{"} :].lstrip()
    return bool(_ELIDED.match(said) or (comment and _KEPT.match(said)))


def _refuse_elision(hunk: Hunk, target: Target) -> None:
    """Refuses "... rest of the code unchanged ..." as a line of the file: it stands for lines, and would replace them."""
    old = set(hunk.readings[0].old)
    for line in hunk.readings[0].new:
        if line not in old and len(line) < LONGEST_NAME and _is_elision(line) and collapsed(line) not in target.known:
            raise PatchError(
                f"{hunk.label} has the line {line.strip()[:80]!r} in place of lines of {target.path}. Nothing was changed. "
                "Write those lines out, or leave them out of the patch."
            )
