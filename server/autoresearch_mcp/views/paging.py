"""Long texts in pages that say how to read on. Pure."""

from dataclasses import dataclass

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.text import split_lines

PAGE = 34_000  # bytes of a text in one answer: Codex shows its models 10,000 tokens of 4 bytes and cuts the middle out of more


@dataclass(frozen=True)
class Page:
    """Lines `first` to `last` of a text of `total`, counted from 1."""

    text: str
    first: int
    last: int
    total: int
    cut: bool
    """More was asked for than an answer holds."""

    @property
    def whole(self) -> bool:
        return self.last - self.first + 1 == self.total

    def then(self, tool: str, step: str) -> str:
        """The next step: to read on, where the page was cut."""
        return f"call {tool} with start_line={self.last + 1} to read on; then {step}" if self.cut else step


def page(text: str, start: int | None = None, end: int | None = None) -> Page:
    """The lines asked for, as many as fit into PAGE bytes and one at least. Raises NotFoundError for a range that is not there."""
    lines = split_lines(text)
    first, last = start or 1, min(end or len(lines), len(lines))
    if lines and not first <= last:
        raise NotFoundError(
            f"Lines {first} to {end or 'the end'} are not there: it has {len(lines)} lines. Ask for a range inside it."
        )
    shown, size = first - 1, 0
    while shown < last and (size := size + len(lines[shown].encode())) <= PAGE:
        shown += 1
    shown = max(shown, min(first, last))
    return Page("".join(lines[first - 1 : shown]), first, shown, len(lines), cut=shown < last)
