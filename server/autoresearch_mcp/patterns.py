"""A task's patterns on what a run printed. The pattern is a human's and the text may be hostile, so the time is bounded, which the
standard library's `re` cannot do: one line can keep it busy for hours, and with it whatever process looks.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

LINE = 1000  # characters of a line that are searched


def check(pattern: str) -> set[str]:
    """The named groups of a pattern. Raises ValueError where it is none."""
    import regex  # here, because it takes a twentieth of a second to import, and a server must start at once

    try:
        return set(regex.compile(pattern).groupindex)
    except regex.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error


def matches(pattern: str, texts: Iterable[str], seconds: float) -> Iterator[dict[str, Any]]:
    """The named groups of the first match in each text that has one. It ends when `seconds` are over, whatever is left."""
    import regex

    compiled, deadline = regex.compile(pattern), time.monotonic() + seconds
    for text in texts:
        if (left := deadline - time.monotonic()) <= 0:
            return
        try:
            found = compiled.search(text, timeout=left)
        except TimeoutError:
            return
        if found is not None:
            yield found.groupdict()
