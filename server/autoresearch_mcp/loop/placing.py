"""Puts the hunks of a patch into a text, each at the one place where it fits, or says why there is none.

A hunk is looked for exactly, then as a part of lines where its form allows that, then with white space at line ends forgiven, then
with any, then with stale context at its edges left out. The first of these that finds something decides: one place is taken,
several are refused. What is forgiven in matching is never forgiven in writing: context keeps the file's own lines, and new lines
get the file's indentation or, where that cannot be told, none at all. The price of doubt is a refusal with the nearest lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from autoresearch_mcp.errors import PatchError
from autoresearch_mcp.loop.diffs import changes_between, content, equal_lines, visible
from autoresearch_mcp.loop.hunks import Hunk, Reading
from autoresearch_mcp.loop.lines import MOST_FOUND, WIDTH, Lines, View, collapsed, exact, nearest_window, no_trailing, similar_lines

MOST_PLACEMENTS = 5_000_000  # hunks times lines of the file; each costs some nanoseconds for each way of looking
NEAR = 3  # lines that a hunk's line number may be off and still decide between equal places
SHOWN_LINES = 30


@dataclass(frozen=True)
class Placed:
    """Lines from `at` to `end` (an index behind them) give way to `lines`, with their ends."""

    label: str
    at: int
    end: int
    lines: list[str]
    final_newline: bool | None = None


def place(hunks: list[Hunk], path: str, text: str) -> str:
    """The text of the file `path` with every hunk put in its one place. Raises PatchError where a hunk has none, or several."""
    file = Lines(path, text)
    if sum(1 + len(hunk.anchors) for hunk in hunks) * len(file.content) > MOST_PLACEMENTS:
        raise PatchError(
            f"{len(hunks)} hunks in {len(file.content)} lines of {path} are too many for one patch. Nothing was changed. "
            "Send them in several patches."
        )
    placed: list[Placed] = []
    shift, floor = 0, 0
    for hunk in hunks:
        found, asked = _locate(hunk, file, shift, floor)
        if asked is not None:
            shift = found.at - asked
        if hunk.anchors or asked is not None:
            floor = found.end
        placed.append(found)
    placed.sort(key=lambda found: (found.at, found.end))
    for one, other in pairwise(placed):
        if one.end > other.at:
            raise PatchError(f"{one.label} and {other.label} change the same lines of {path}. Join them into one.")
    return _joined(file, placed)


def _joined(file: Lines, placed: list[Placed]) -> str:
    result: list[str] = []
    at = 0
    for found in placed:
        result += file.lines[at : found.at]
        result += found.lines
        at = found.end
    result += file.lines[at:]
    ended = [line if line.endswith("\n") else line + file.newline for line in result]
    final = placed[-1].final_newline if placed[-1].end == len(file.lines) else None
    if ended and not (file.final if final is None else final):
        ended[-1] = content(ended[-1])
    return "".join(ended)


# --- finding the place ------------------------------------------------------------------------------------------------


def _locate(hunk: Hunk, file: Lines, shift: int, floor: int) -> tuple[Placed, int | None]:
    """Where the hunk goes, and the index of the line that it asked for, if any."""
    asked = None if hunk.line is None else hunk.line - 1
    anchors = _anchor_lines(hunk, file, floor)
    if not any(reading.old for reading in hunk.readings):
        return _insertion(hunk, file, shift, anchors), asked
    look = _Look(hunk, file, anchors, asked, shift)
    if hunk.literal:
        found = look.in_text()
    else:
        found = look.for_lines([exact], hunk.readings)
        if found is None and hunk.partial:
            found = look.in_text()
        found = found or look.for_lines([no_trailing, collapsed], hunk.readings)
        if found is None:
            for trimmed, above in _with_less_context(hunk, file):
                if found := look.for_lines([exact, no_trailing, collapsed], [trimmed]):
                    return found, None if asked is None else asked + above
    if found is None:
        raise PatchError(_not_found(hunk, file))
    return found, asked


@dataclass(frozen=True)
class _Look:
    """The search for one hunk."""

    hunk: Hunk
    file: Lines
    anchors: list[int]
    asked: int | None
    shift: int

    def for_lines(self, views: list[View], readings: list[Reading]) -> Placed | None:
        """The place of whole lines, under the strictest view that finds any."""
        start = self.anchors[0] if self.anchors else 0
        for view in views:
            for reading in readings:
                if view is collapsed and not any(line.strip() for line in reading.old):
                    continue
                places = self.file.find(reading.old, view, start)
                if self.hunk.at_end:
                    last = len(self.file.content) - len(reading.old)
                    places = [last] if last >= start and self.file.find(reading.old, view, last) else places
                if places:
                    at = self._the_one(places, reading, exact=view is exact and reading in self.hunk.readings)
                    lines = _replacement(self.hunk, reading, self.file, at)
                    return Placed(self.hunk.label, at, at + len(reading.old), lines, self.hunk.final_newline)
        return None

    def _the_one(self, places: list[int], reading: Reading, exact: bool) -> int:
        """Of several places the one that the anchors or the line number leave no doubt about."""
        if len(places) == 1:
            return places[0]
        certain = len(places) < MOST_FOUND or len(self.anchors) == 1
        blocks = [(anchor, self.file.block_end(anchor)) for anchor in self.anchors]
        inside = {at for at in places if any(start <= at < end for start, end in blocks)}
        if certain and len(inside) == 1:
            return inside.pop()
        if exact and self.asked is not None:
            wanted = (self.asked, self.asked + self.shift)  # as it says, and off by as much as the hunk before
            nearest = {at for line in wanted if (at := _nearest_to(self.file, reading.old, line)) is not None}
            if len(nearest) == 1:
                return nearest.pop()
        raise self._ambiguous([at + 1 for at in places])

    def _ambiguous(self, lines: list[int]) -> PatchError:
        shown = ", ".join(str(line) for line in lines[: MOST_FOUND - 1]) + (" and more" if len(lines) >= MOST_FOUND else "")
        return PatchError(
            f"{self.hunk.label} is ambiguous: its lines stand in {self.file.path} at lines {shown}. Nothing was changed. "
            "Add lines of context around the change until it fits one place only."
        )

    def in_text(self) -> Placed | None:
        """The place of a text that may begin and end within lines."""
        file, literal = self.file, self.hunk.literal
        for reading in self.hunk.readings:
            spans = file.find_text("\n".join(reading.old))
            if not spans or not (literal or any(line.strip() for line in reading.old)):
                continue
            first, last, before, rest = file.around(*spans[0])
            if len(spans) > 1:
                raise self._ambiguous([file.around(*span)[0] + 1 for span in spans])
            if not literal:
                if file.cuts_a_word(*spans[0]) or (len(reading.old) == 1 and not before.strip() and not rest.strip()):
                    continue  # by chance inside another word; or a whole line but for its indentation
                new = reading.new or [""]
                if _brings_back(new[-1], rest) or _brings_back(new[0][::-1], before[::-1]):
                    continue  # the rest of the line would stand there twice
                if other := [at for at in file.find(reading.old, collapsed) if at != first]:
                    raise self._ambiguous(sorted([first + 1, *(at + 1 for at in other)]))
            lines = (before + "\n".join(reading.new) + rest).split("\n")
            return self._partly(first, last, lines)
        return None

    def _partly(self, first: int, last: int, lines: list[str]) -> Placed:
        """The lines from `first` to `last` replaced; `last` is behind the file's last line where its line end goes too."""
        file, final = self.file, self.hunk.final_newline
        if last == len(file.content):
            if lines[-1]:
                final = False
            else:
                lines.pop()
        own = {j: file.lines[first + i] for i, j in equal_lines(file.content[first : last + 1], lines)}
        ended = [own.get(n, line + file.newline) for n, line in enumerate(lines)]
        if last < len(file.content):
            ended[-1] = lines[-1] + file.lines[last][len(file.content[last]) :]
        return Placed(self.hunk.label, first, min(last + 1, len(file.content)), ended, final)


def _brings_back(line: str, rest: str) -> bool:
    """Whether the end of a new line is what stands behind it already."""
    return bool(rest.strip()) and line.rstrip().endswith(rest.strip())


def _nearest_to(file: Lines, old: list[str], wanted: int) -> int | None:
    """The place a line number names: there, or a few lines off while the next is ten times as far."""
    near = [at for at in range(wanted - 10 * NEAR, wanted + 10 * NEAR + 1) if file.stands_at(old, at)]
    near.sort(key=lambda at: abs(at - wanted))
    if not near or abs(near[0] - wanted) > NEAR:
        return None
    if len(near) > 1 and abs(near[1] - wanted) <= 10 * abs(near[0] - wanted):
        return None
    return near[0]


def _insertion(hunk: Hunk, file: Lines, shift: int, anchors: list[int]) -> Placed:
    """Where a hunk with nothing to match goes: an empty file, the end, behind its anchor or the line that its header names."""
    size = len(file.content)
    if not file.content:
        at = 0
    elif hunk.at_end:
        at = size
    elif len(anchors) == 1 and not _goes_on(file.content[anchors[0]]):
        at = anchors[0] + 1
    elif hunk.after is not None and 0 <= hunk.after + shift <= size and not anchors:
        at = hunk.after + shift
    else:
        why = "its place is unknown"
        if anchors:
            why = f"its anchor stands there {len(anchors)} times" if len(anchors) > 1 else "its anchor goes on in the next line"
        raise PatchError(
            f"{hunk.label} has no line to find in {file.path} ({size} lines), so {why}. Nothing was changed. "
            "Include at least one unchanged line next to the insertion."
        )
    lines = [line + file.newline for line in hunk.readings[0].new]
    return Placed(hunk.label, at, at, lines, hunk.final_newline)


def _goes_on(line: str) -> bool:
    """Whether a statement that begins in this line may end in a later one, such as a signature over several lines."""
    return line.rstrip().endswith("\\") or any(line.count(one) > line.count(other) for one, other in ("()", "[]", "{}"))


def _anchor_lines(hunk: Hunk, file: Lines, floor: int) -> list[int]:
    """Where the last of the hunk's anchors may stand, each found after the one before."""
    found: list[int] = []
    start = floor
    for anchor in hunk.anchors:
        found = file.find_start(anchor, start)
        if not found and hunk.anchored:
            near = similar_lines(anchor, file.content)
            hint = "".join(f"\n    {visible(line)}" for line in near) or " (no line is similar)"
            raise PatchError(
                f"{hunk.label}: the anchor {anchor[:WIDTH]!r} is not in {file.path} there. Nearest lines:{hint}\n"
                "Correct the anchor."
            )
        if not found:
            return []
        start = found[0]
    return found


def _with_less_context(hunk: Hunk, file: Lines) -> Iterator[tuple[Reading, int]]:
    """The hunk with one and two lines of context less at its edges, as patch(1) forgives; and how many went above.

    Only what is stale goes: a line that stands elsewhere in the file says that the hunk belongs there. And some context must stay.
    """
    reading = hunk.readings[0]
    if (hunk.line is None and not hunk.anchors) or reading.kept is None:
        return  # SEARCH text is meant to match in full
    for fuzz in (1, 2):
        above, below = _stale(reading, file, range(fuzz)), _stale(reading, file, range(-1, -1 - fuzz, -1))
        end_old, end_new = len(reading.old) - below, len(reading.new) - below
        kept = [(old - above, new - above) for old, new in reading.kept if above <= old < end_old]
        trimmed = Reading(reading.old[above:end_old], reading.new[above:end_new], kept)
        if (above or below) and any(trimmed.old[old].strip() for old, _ in kept):
            yield trimmed, above


def _stale(reading: Reading, file: Lines, edge: range) -> int:
    """How many lines at an edge can be left out: context without which the file would be none the poorer."""
    size, kept = len(reading.old), dict(reading.kept or [])
    count = 0
    for step in edge:
        old, new = (step, step) if step >= 0 else (size + step, len(reading.new) + step)
        if not 0 <= old < size or kept.get(old) != new:
            break
        count += 1
    dropped = [reading.old[step] for step in list(edge)[:count]]
    return 0 if any(line.strip() and file.has(line) for line in dropped) else count


# --- what is written there --------------------------------------------------------------------------------------------


def _replacement(hunk: Hunk, reading: Reading, file: Lines, at: int) -> list[str]:
    """The lines to put at index `at`: context as the file has it, new lines with the file's indentation."""
    found = file.content[at : at + len(reading.old)]
    kept = reading.kept
    if kept is None:
        kept = equal_lines(reading.old, reading.new)
    own = {new: old for old, new in kept}
    indents = _indents(reading.old, found, {old for old, _ in kept})
    if hunk.partial and len(reading.old) == 1 and indents.shift != ("", ""):
        _check_first_line(hunk, reading, file.path, found[0])
    result: list[str] = []
    for index, line in enumerate(reading.new):
        if index in own:
            result.append(file.lines[at + own[index]])
        else:
            indented = indents(line)
            if indented is None:
                raise PatchError(
                    f"{hunk.label} is indented otherwise than {file.path}, so how deep the line {line.strip()[:80]!r} belongs is "
                    "unknown. Nothing was changed. Copy the file's indentation and send the patch again."
                )
            result.append(indented + file.newline)
    return result


@dataclass(frozen=True)
class _Indents:
    """What indentation of the patch is which in the file."""

    shift: tuple[str, str] | None
    """(prefix in the patch, prefix in the file) where one and the same makes all the difference."""
    table: dict[str, str]
    """Where that does not apply, an indentation of the patch with the file's."""

    def __call__(self, line: str) -> str | None:
        """A new line as the file would have it; None where that is unknown."""
        own = _indent(line)
        if not line.strip():
            return line
        if self.shift and own.startswith(self.shift[0]):
            return self.shift[1] + line[len(self.shift[0]) :]
        return self.table[own] + line[len(own) :] if own in self.table else None


def _indents(old: list[str], found: list[str], kept: set[int]) -> _Indents:
    """Told by all lines if they agree, else by those that go, for new ones stand in their column. What goes has then moved against
    what stays, so that nothing is known of any other column."""
    pairs = [(n, _indent(ours), _indent(theirs)) for n, (ours, theirs) in enumerate(zip(old, found, strict=True)) if ours.strip()]
    going = [pair for pair in pairs if pair[0] not in kept]
    shifts = {_shift(ours, theirs) for _, ours, theirs in pairs}
    if len(shifts) == 1 and None not in shifts:
        return _Indents(shifts.pop(), {theirs: theirs for _, _, theirs in pairs})  # or indented as the file is already
    if all(ours == theirs for _, ours, theirs in going or pairs):
        return _Indents(("", ""), {})
    table: dict[str, str] = {}
    for _, ours, theirs in going or pairs:
        if table.setdefault(ours, theirs) != theirs:
            return _Indents(None, {})
    return _Indents(None, table)


def _shift(ours: str, theirs: str) -> tuple[str, str] | None:
    """(prefix in the patch, prefix in the file) that make up the difference of two indentations."""
    if theirs.endswith(ours):
        return "", theirs[: len(theirs) - len(ours)]
    if ours.endswith(theirs):
        return ours[: len(ours) - len(theirs)], ""
    return None


def _check_first_line(hunk: Hunk, reading: Reading, path: str, found: str) -> None:
    """Refuses a SEARCH of one line without its indentation whose REPLACE may have it from its second line on, or may not."""
    rest = [line for line in reading.new[1:] if line.strip()]
    if rest and all(line.startswith(_indent(found)) for line in rest):
        raise PatchError(
            f"{hunk.label} is found in {path} but for its indentation, and its new lines can be read with it or without. "
            "Nothing was changed. Copy the file's indentation and send the patch again."
        )


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


# --- what is said where there is no place -----------------------------------------------------------------------------


def _not_found(hunk: Hunk, file: Lines) -> str:
    """Names the nearest lines of the file and how they differ from what the patch expects."""
    old = next(reading.old for reading in hunk.readings if reading.old)[:SHOWN_LINES]
    message = f"{hunk.label} does not fit {file.path}: its lines are not there. Nothing was changed."
    nearest = nearest_window(old, file.content)
    if nearest is None:
        return message + " No part of the file is similar; read the file again and copy the lines from it."
    found = file.content[nearest : nearest + len(old)]
    shown: list[str] = []
    at = 0
    for i, j, k, m in [*changes_between(old, found), (len(old), len(old), 0, 0)]:
        shown += [f"         {line}" for line in old[at:i]]
        shown += [f"  patch: {line}" for line in old[i:j]]
        shown += [f"  file:  {line}" for line in found[k:m]]
        at = j
    return (
        f"{message} The nearest lines are {nearest + 1} to {nearest + len(found)}; where they differ from the patch:\n"
        + "\n".join(visible(line[: WIDTH + 9]) for line in shown)
        + "\nCopy the file's lines exactly and send the patch again."
    )
