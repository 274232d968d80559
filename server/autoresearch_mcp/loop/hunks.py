"""What a patch asks for, once it is read: patches.py makes hunks, placing.py finds their place."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Reading:
    """One way to read a hunk: `old` lines give way to `new` ones. Lines carry no line end."""

    old: list[str]
    new: list[str]
    kept: list[tuple[int, int]] | None = None
    """Pairs (index in old, index in new) of context lines, whose own version in the file survives; None where they are what
    old and new have in common."""


@dataclass
class Hunk:
    """One replacement, as a patch asks for it."""

    label: str
    readings: list[Reading]
    """The likeliest first; they differ in what a careless writer may have added or left out."""
    line: int | None = None
    """1-based line where the patch says it belongs; it decides between equal places only."""
    after: int | None = None
    """Number of the line that a hunk without any old lines is to stand behind."""
    anchors: list[str] = field(default_factory=list[str])
    """Codex `@@` lines: text that stands somewhere before the hunk."""
    anchored: bool = False
    """The anchors must be in the file; else they are a hint only."""
    at_end: bool = False
    final_newline: bool | None = None
    """What the patch says of the file's last line end; None where it says nothing."""
    partial: bool = False
    """The old text may be a part of a line."""
    literal: bool = False
    """The old text is found character by character, once, or not at all."""


def without_blank_edges(reading: Reading) -> Iterator[Reading]:
    """The reading without the blank first and last lines that its old and new text both have; nothing where there are none."""
    old, new, above, below = reading.old, reading.new, 0, 0
    while above < min(len(old), len(new)) and not old[above].strip() and not new[above].strip():
        above += 1
    while below < min(len(old), len(new)) - above and not old[-1 - below].strip() and not new[-1 - below].strip():
        below += 1
    if (above or below) and any(line.strip() for line in old):
        end = len(old) - below
        kept = None if reading.kept is None else [(i - above, j - above) for i, j in reading.kept if above <= i < end]
        yield Reading(old[above:end], new[above : len(new) - below], kept)
