"""Turns a patch in any of the three forms agents write into the new text of one file, or into an error that lets the
agent correct the patch at once. Nothing here touches the disk.

Forms: unified diff; Codex `*** Begin Patch` envelope; SEARCH/REPLACE blocks.
"""

import ast
import difflib
import json
import re
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath

from autoresearch_mcp.errors import PatchError

MAX_BYTES = 1 << 20
FORMS = "a unified diff, a `*** Begin Patch` envelope, or SEARCH/REPLACE blocks (<<<<<<< SEARCH, =======, >>>>>>> REPLACE)"


@dataclass
class Hunk:
    """One replacement: `old` lines give way to `new` lines. Lines carry no line end."""

    label: str
    old: list[str]
    new: list[str]
    kept: list[tuple[int, int]]
    """Pairs (index in old, index in new) of context lines: the file's own version of them survives."""
    line: int | None = None
    """1-based line where the patch says it belongs; a hint only."""
    anchors: list[str] = field(default_factory=list[str])
    """Codex `@@` lines: text that stands somewhere before the hunk."""
    at_end: bool = False
    final_newline: bool | None = None
    """What the patch says of the file's last line end; None where it says nothing."""


def apply_patch(patch: str, path: str, text: str, root: str | None = None) -> str:
    """New text of the file `path` whose text is `text`. Raises PatchError with the reason and the next step."""
    if len(patch.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise PatchError(f"The patch is larger than {MAX_BYTES} bytes. Send a smaller one, with only the lines that change.")
    if "\0" in patch or re.search(r"^(GIT binary patch|Binary files )", patch, re.MULTILINE):
        raise PatchError(f"The patch is binary; {path} is text. Send {FORMS}.")
    hunks = _parse(patch, path)
    new_lines = _apply(hunks, path, _split(text))
    new_text = "".join(line + end for line, end in new_lines)
    if new_text == text:
        raise PatchError(f"The patch changes nothing: {path} already reads like that. Call the read tool to see it as it is.")
    if len(new_text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise PatchError(f"The result would be larger than {MAX_BYTES} bytes. Nothing was changed; make {path} smaller.")
    check_syntax(path, new_text)
    return new_text


def check_syntax(path: str, text: str) -> None:
    """Refuses text that is no valid Python, JSON or TOML where the name of the file says it should be."""
    try:
        text.encode("utf-8")
        text = text.removeprefix("\ufeff")
        match PurePosixPath(path).suffix:
            case ".py":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ast.parse(text, path)
            case ".json":
                json.loads(text)
            case ".toml":
                tomllib.loads(text)
            case _:
                pass
    except SyntaxError as error:
        shown = (error.text or "").rstrip()
        raise PatchError(
            f"The result has a syntax error, so nothing was changed: {path}, line {error.lineno}: {error.msg}\n"
            f"    {shown}\nCorrect the patch and send it again."
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise PatchError(f"The result is not valid, so nothing was changed: {path}: {reason}. Correct the patch.") from error


@dataclass(frozen=True)
class Diff:
    text: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


def unified_diff(old: str, new: str, path: str) -> Diff:
    """Diff of the file from `old` to `new`, empty where they are equal."""
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}")
    lines = list(lines)
    text = "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
    return Diff(text, *(tuple(x[1:].rstrip("\n") for x in lines[2:] if x[0] == s) for s in "+-"))


# --- the three forms --------------------------------------------------------------------------------------------------


def _parse(patch: str, path: str) -> list[Hunk]:
    lines = [line.removesuffix("\r") for line in patch.split("\n")]
    while lines and not lines[0].strip():
        lines.pop(0)
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        lines = lines[1:-1]
    if not lines:
        raise PatchError(f"The patch is empty. Send {FORMS}.")
    if any(line.strip() == "*** Begin Patch" for line in lines):
        hunks = _parse_codex(lines, path)
    elif any(re.match(r"<{5,9} SEARCH\s*$", line) for line in lines):
        hunks = _parse_search_replace(lines, path)
    elif any(re.match(r"@@|--- |diff --git ", line) for line in lines):
        hunks = _parse_unified(lines, path)
    else:
        raise PatchError(f"This is no patch: no `@@`, no `*** Begin Patch`, no `<<<<<<< SEARCH`. Send {FORMS}.")
    if not hunks:
        raise PatchError(f"The patch has no hunk, so it would change nothing. Send {FORMS} with at least one change.")
    return hunks


def _check_path(named: str, path: str) -> None:
    """Refuses a patch that names a file other than the editable one."""
    shown = named.strip().split("\t")[0].strip('"')
    plain = shown.removeprefix("./")
    if plain not in (path, f"a/{path}", f"b/{path}"):
        raise PatchError(f"The patch touches {shown!r}. Only {path} can be changed; send a patch for {path} alone.")


def _refuse(what: str, path: str) -> PatchError:
    return PatchError(f"The patch would {what}. Only the text of {path} can be changed; send a patch that edits its lines.")


def _body(lines: list[str], label: str) -> Hunk:
    """A hunk from lines that begin with ' ', '-' or '+'."""
    hunk = Hunk(label, [], [], [])
    last = ""
    for line in lines:
        mark, content = line[:1], line[1:]
        if line == "" or mark == " ":
            hunk.kept.append((len(hunk.old), len(hunk.new)))
            hunk.old.append(content)
            hunk.new.append(content)
        elif mark == "-":
            hunk.old.append(content)
        elif mark == "+":
            hunk.new.append(content)
        elif mark == "\\":  # no newline at end of file; said of the old text only, it means that the new one has one
            hunk.final_newline = last == "-"
        else:
            raise PatchError(f"{label}: the line {line[:80]!r} begins with none of ' ', '-', '+'. Prefix each line of the hunk.")
        last = mark
    return hunk


def _parse_unified(lines: list[str], path: str) -> list[Hunk]:
    hunks: list[Hunk] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        if re.match(r"(rename|copy) (from|to) ", line):
            raise _refuse("rename or copy a file", path)
        if re.match(r"(old|new) mode ", line):
            raise _refuse("change a file's mode", path)
        if line.startswith(("new file mode", "deleted file mode")):
            raise _refuse("create or delete a file", path)
        if line.startswith("diff --git "):
            for named in re.findall(r"[ab]/(\S+)", line):
                _check_path(named, path)
        elif line.startswith(("--- ", "+++ ")):
            if line[4:].strip().split("\t")[0] == "/dev/null":
                raise _refuse("create or delete a file", path)
            _check_path(line[4:], path)
        elif line.startswith("@@"):
            header = re.match(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line)
            counts = (int(header.group(2) or 1), int(header.group(4) or 1)) if header else None
            body, i = _unified_body(lines, i + 1, counts)
            hunk = _body(body, f"Hunk {len(hunks) + 1} ({line.strip()[:60]})")
            if header:
                hunk.line = int(header.group(1)) + (1 if counts == (0, counts[1] if counts else 0) else 0)
            hunks.append(hunk)
            continue
        elif line.strip() and not line.startswith(("index ", "similarity ", "dissimilarity ")) and hunks:
            raise PatchError(f"The line {line[:80]!r} stands outside any hunk. Begin each hunk with an `@@` line.")
        i += 1
    return hunks


def _unified_body(lines: list[str], i: int, counts: tuple[int, int] | None) -> tuple[list[str], int]:
    """Lines of one hunk from index i on, and the index behind them. Agents miscount, so counts only settle doubts:
    a line `--- x` is a removal as long as the counts leave room for one."""
    body: list[str] = []
    old = new = 0
    while i < len(lines):
        line = lines[i]
        room = counts is not None and (old < counts[0] or new < counts[1])
        next_file = line.startswith("--- ") and i + 1 < len(lines) and lines[i + 1].startswith("+++ ")
        if line.startswith(("@@", "diff --git ")) or (next_file and not room):
            break
        if line and line[0] not in " -+\\" and not room:
            break
        old += line[:1] in (" ", "-", "")
        new += line[:1] in (" ", "+", "")
        body.append(line)
        i += 1
    while body and body[-1] == "" and (counts is None or old > counts[0]):
        body.pop()  # blank lines behind the hunk, not context
        old -= 1
    return body, i


def _parse_codex(lines: list[str], path: str) -> list[Hunk]:
    start = next(i for i, line in enumerate(lines) if line.strip() == "*** Begin Patch")
    end = next((i for i, line in enumerate(lines) if line.strip() == "*** End Patch"), None)
    if end is None:
        raise PatchError("The envelope has no `*** End Patch` line. Add it as the last line and send the patch again.")
    hunks: list[Hunk] = []
    anchors: list[str] = []
    body: list[str] = []
    seen_file = False

    def close(at_end: bool = False) -> None:
        nonlocal anchors, body
        if body:
            hunk = _body(body, f"Hunk {len(hunks) + 1}" + (f" (@@ {anchors[-1]})" if anchors else ""))
            hunk.anchors, hunk.at_end = anchors, at_end
            hunks.append(hunk)
            anchors, body = [], []

    for line in lines[start + 1 : end]:
        if line.startswith("*** "):
            if line.strip() == "*** End of File":
                close(at_end=True)
                continue
            close()
            if line.startswith(("*** Add File:", "*** Delete File:")):
                raise _refuse("create or delete a file", path)
            if line.startswith("*** Move to:"):
                raise _refuse("rename a file", path)
            if not line.startswith("*** Update File:"):
                raise PatchError(f"The line {line[:80]!r} is not part of the format. Use `*** Update File: {path}`.")
            _check_path(line.removeprefix("*** Update File:"), path)
            seen_file = True
        elif not seen_file:
            raise PatchError(f"The envelope must name the file first: `*** Update File: {path}`.")
        elif line.startswith("@@"):
            close()
            if anchor := line[2:].strip():
                anchors.append(anchor)
        else:
            body.append(line)
    close()
    return hunks


def _parse_search_replace(lines: list[str], path: str) -> list[Hunk]:
    hunks: list[Hunk] = []
    state = "outside"
    old: list[str] = []
    new: list[str] = []
    previous = ""
    for line in lines:
        if state == "outside":
            if re.match(r"<{5,9} SEARCH\s*$", line):
                name = previous.strip().strip("`*:").strip()
                if re.fullmatch(r"[\w./\\-]*[./\\][\w./\\-]*", name):
                    _check_path(name, path)
                state, old, new = "search", [], []
            elif line.strip() and not line.startswith("```"):
                previous = line
        elif state == "search":
            if re.match(r"={5,9}\s*$", line):
                state = "replace"
            elif re.match(r">{5,9} REPLACE\s*$", line):
                raise PatchError(f"Block {len(hunks) + 1} has no `=======` line between SEARCH and REPLACE. Add it.")
            else:
                old.append(line)
        elif re.match(r">{5,9} REPLACE\s*$", line):
            kept = [
                (block.a + k, block.b + k)
                for block in difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
                for k in range(block.size)
            ]
            hunks.append(Hunk(f"Block {len(hunks) + 1}", old, new, kept))
            state, previous = "outside", ""
        else:
            new.append(line)
    if state != "outside":
        raise PatchError(f"Block {len(hunks) + 1} is not closed. End it with a line `>>>>>>> REPLACE`.")
    return hunks


# --- placing hunks ----------------------------------------------------------------------------------------------------


def _split(text: str) -> list[tuple[str, str]]:
    """Lines of a text as (content, line end); only CRLF and LF end a line, so that form feeds and the like survive."""
    parts = re.split(r"(\r?\n)", text)
    lines = [(parts[i], parts[i + 1]) for i in range(0, len(parts) - 1, 2)]
    return lines if parts[-1] == "" else [*lines, (parts[-1], "")]


def _exact(line: str) -> str:
    return line


def _no_trailing(line: str) -> str:
    return line.rstrip()


def _no_indent(line: str) -> str:
    return " ".join(line.split())


def _apply(hunks: list[Hunk], path: str, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Places every hunk in the original lines, then replaces from the bottom up."""
    crlf = sum(end == "\r\n" for _, end in lines)
    newline = "\r\n" if crlf * 2 > len(lines) else "\n"
    content = [line for line, _ in lines]
    placed: list[tuple[int, Hunk]] = []
    shift, floor = 0, 0
    for hunk in hunks:
        at, trimmed, expected = _place(hunk, content, path, shift, floor)
        if trimmed.line is not None:
            shift = at - expected
        if trimmed.anchors or trimmed.line is not None:
            floor = at + len(trimmed.old)
        placed.append((at, trimmed))
    placed.sort(key=lambda item: item[0])
    for (at, hunk), (next_at, next_hunk) in pairwise(placed):
        if at + len(hunk.old) > next_at:
            raise PatchError(f"{hunk.label} and {next_hunk.label} change the same lines of {path}. Join them into one.")
    result = list(lines)
    for at, hunk in reversed(placed):
        result[at : at + len(hunk.old)] = _replacement(hunk, lines[at : at + len(hunk.old)], newline)
    last_hunk = placed[-1][1]
    touches_end = placed[-1][0] + len(last_hunk.old) == len(lines)
    return _line_ends(result, newline, had_final=not lines or lines[-1][1] != "", says=last_hunk.final_newline, asked=touches_end)


def _line_ends(
    lines: list[tuple[str, str]], newline: str, had_final: bool, says: bool | None, asked: bool
) -> list[tuple[str, str]]:
    """Gives every inner line an end, and the last one what the patch says or else what the file had."""
    fixed = [(line, end or newline) for line, end in lines]
    if fixed and not (says if asked and says is not None else had_final):
        fixed[-1] = (fixed[-1][0], "")
    return fixed


def _replacement(hunk: Hunk, found: list[tuple[str, str]], newline: str) -> list[tuple[str, str]]:
    """The lines to put in place of `found`: context as the file has it, new lines with the file's indentation."""
    kept = {new: old for old, new in hunk.kept}
    drift = _indent_drift(hunk.old, [line for line, _ in found])
    result: list[tuple[str, str]] = []
    for index, line in enumerate(hunk.new):
        if index in kept:
            result.append(found[kept[index]])
        else:
            result.append((_reindent(line, drift), newline))
    return result


def _indent_drift(old: list[str], found: list[str]) -> tuple[str, str] | None:
    """(prefix in the patch, prefix in the file) where all lines of the hunk are indented otherwise by one same change."""
    drift: tuple[str, str] | None = None
    for patch_line, file_line in zip(old, found, strict=True):
        if not patch_line.strip():
            continue
        ours = patch_line[: len(patch_line) - len(patch_line.lstrip())]
        theirs = file_line[: len(file_line) - len(file_line.lstrip())]
        if theirs.endswith(ours):
            pair = ("", theirs[: len(theirs) - len(ours)])
        elif ours.endswith(theirs):
            pair = (ours[: len(ours) - len(theirs)], "")
        else:
            return None
        if drift is not None and pair != drift:
            return None
        drift = pair
    return drift


def _reindent(line: str, drift: tuple[str, str] | None) -> str:
    if drift is None or not line.strip() or not line.startswith(drift[0]):
        return line
    return drift[1] + line[len(drift[0]) :]


def _place(hunk: Hunk, content: list[str], path: str, shift: int, floor: int) -> tuple[int, Hunk, int]:
    """Index of the one place where the hunk fits, the hunk (perhaps with less context), and the index it asked for."""
    expected = (hunk.line or 1) - 1
    if not hunk.old:
        return _place_insertion(hunk, content, path, expected + shift), hunk, expected
    start = _after_anchors(hunk, content, path, floor)
    for trimmed, offset in _with_less_context(hunk):
        for view in (_exact, _no_trailing, _no_indent):
            if view is _no_indent and not any(line.strip() for line in trimmed.old):
                continue
            places = _matches([view(line) for line in trimmed.old], [view(line) for line in content], start)
            if hunk.at_end:
                places = [at for at in places if at + len(trimmed.old) == len(content)] or places
            if not places:
                continue
            if len(places) == 1:
                return places[0], trimmed, expected + offset
            if hunk.line is not None and offset == 0 and view is _exact:
                wanted = expected + shift
                places.sort(key=lambda at: abs(at - wanted))
                if abs(places[0] - wanted) < abs(places[1] - wanted):
                    return places[0], trimmed, expected
            shown = ", ".join(str(at + 1) for at in sorted(places)[:8])
            raise PatchError(
                f"{hunk.label} is ambiguous: its lines stand in {path} at lines {shown}. Nothing was changed. "
                "Add lines of context around the change until it fits one place only."
            )
    raise PatchError(_not_found(hunk, content, path))


def _place_insertion(hunk: Hunk, content: list[str], path: str, wanted: int) -> int:
    """Where a hunk with nothing to match goes: an empty file, the end, or the line its header names."""
    if not content:
        return 0
    if hunk.at_end:
        return len(content)
    if hunk.line is not None and 0 <= wanted <= len(content):
        return wanted
    raise PatchError(
        f"{hunk.label} has no line to find in {path} ({len(content)} lines), so its place is unknown. Nothing was changed. "
        "Include at least one unchanged line next to the insertion."
    )


def _after_anchors(hunk: Hunk, content: list[str], path: str, floor: int) -> int:
    """Index from which to look: behind the Codex `@@` anchor lines, each found after the one before."""
    start = floor if hunk.anchors else 0
    for anchor in hunk.anchors:
        stripped = [line.strip() for line in content]
        found = next((i for i in range(start, len(content)) if stripped[i] == anchor), None)
        if found is None:
            found = next((i for i in range(start, len(content)) if stripped[i].startswith(anchor)), None)
        if found is None:
            near = difflib.get_close_matches(anchor, [line for line in stripped if line], n=3, cutoff=0.5)
            hint = "".join(f"\n    {line}" for line in near) or " (no line is similar)"
            raise PatchError(
                f"{hunk.label}: the anchor {anchor!r} is not in {path} there. Nearest lines:{hint}\nCorrect the anchor."
            )
        start = found
    return start


def _with_less_context(hunk: Hunk) -> Iterator[tuple[Hunk, int]]:
    """The hunk, then with one and two lines of context less at its edges, as patch(1) does; the offset is what went above."""
    yield hunk, 0
    if hunk.line is None and not hunk.anchors:
        return  # SEARCH text is meant to match in full
    kept = {old for old, _ in hunk.kept}
    lead = next((i for i in range(len(hunk.old)) if i not in kept), len(hunk.old))
    trail = next((i for i in range(len(hunk.old)) if len(hunk.old) - 1 - i not in kept), len(hunk.old))
    lead = min(lead, next((new for new in range(len(hunk.new)) if new not in {n for _, n in hunk.kept}), lead))
    trail_new = next((i for i in range(len(hunk.new)) if len(hunk.new) - 1 - i not in {n for _, n in hunk.kept}), trail)
    trail = min(trail, trail_new)
    for fuzz in (1, 2):
        above, below = min(fuzz, lead), min(fuzz, trail)
        old = hunk.old[above : len(hunk.old) - below]
        if (above or below) and any(line.strip() for line in old):
            new = hunk.new[above : len(hunk.new) - below]
            kept_pairs = [(o - above, n - above) for o, n in hunk.kept if above <= o < len(hunk.old) - below]
            yield Hunk(hunk.label, old, new, kept_pairs, hunk.line, hunk.anchors, hunk.at_end, hunk.final_newline), above


def _matches(old: list[str], content: list[str], start: int) -> list[int]:
    first = old[0]
    return [at for at in range(start, len(content) - len(old) + 1) if content[at] == first and content[at : at + len(old)] == old]


def _not_found(hunk: Hunk, content: list[str], path: str) -> str:
    """Names the nearest lines of the file and how they differ from what the patch expects."""
    size = len(hunk.old)
    wanted = "\n".join(_no_indent(line) for line in hunk.old)
    best, best_ratio = 0, 0.0
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    plain = [_no_indent(line) for line in content]
    words = {word for line in hunk.old for word in line.split()}
    # Comparing every window in full is slow on long files: rank by shared words first.
    scores = [sum(word in words for word in line.split()) for line in plain]
    windows = range(max(1, len(content) - size + 1))
    for at in sorted(windows, key=lambda at: -sum(scores[at : at + size]))[:12]:
        matcher.set_seq1("\n".join(plain[at : at + size])[:20000])
        ratio = matcher.ratio()
        if ratio > best_ratio:
            best, best_ratio = at, ratio
    message = f"{hunk.label} does not fit {path}: its lines are not there. Nothing was changed."
    if best_ratio < 0.4:
        return message + " No part of the file is similar; read the file again and copy the lines from it."
    found = content[best : best + size]
    shown: list[str] = []
    for line in list(difflib.ndiff(hunk.old, found))[:60]:
        if not line.startswith("?"):
            shown.append({"- ": "  patch: ", "+ ": "  file:  ", "  ": "         "}[line[:2]] + line[2:][:200])
    return (
        f"{message} The nearest lines are {best + 1} to {best + len(found)}; where they differ from the patch:\n"
        + "\n".join(shown)
        + "\nCopy the file's lines exactly and send the patch again."
    )
