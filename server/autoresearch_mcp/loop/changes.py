"""What an experiment changes in the editable file, freed of layout: whether it was tried before, and in which places."""

import ast
import copy
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath

from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop.diffs import changes_between
from autoresearch_mcp.text import split_lines

Line = tuple[str, str]
"""(place, text): a place is what encloses the line, like `GPT.forward` or a heading."""

# A line that opens a place in a file that is no Python: a heading, a [section], a selector or definition at the margin. They are
# matched without the white space at the end of the line, so that no part of a pattern can trade it with another.
HEADING = re.compile(r"#{1,6}\s+(.+)")
SECTION = re.compile(r"\[+([^\[\]]+)\]+")
OPENING = re.compile(r"([^\s{][^{]*)[{:]")
PLACE_LENGTH = 40
LONGEST_PLACE = 200  # in a digest: a heading of a megabyte would stand there once for each line below it
MOST_TOKENS = 64_000  # of a Python file, some 250 KB; reading one this large as a tree takes up to 0.7 s
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Change:
    digest: str
    """Equal for two changes that differ in comments, layout, quotes or the rest of the file alone."""
    places: list[str]
    """Where it changes something, in the order of the file; a place of its own for code outside of any."""


def between(path: str, before: str, after: str) -> Change | None:
    """The change from one text of the file to another; None where only comments or layout differ."""
    old, new = _read_alike(path, before, after)
    signed: list[tuple[str, Line]] = []
    for i, j, k, m in changes_between(old, new):
        signed += [("-", line) for line in old[i:j]] + [("+", line) for line in new[k:m]]
    if not signed:
        return None
    places = list(dict.fromkeys(place[:PLACE_LENGTH] for _, (place, _) in signed if place))
    return Change(sha256("\n".join(f"{sign} {place}\t{text}" for sign, (place, text) in signed).encode()), places)


def program_digest(path: str, text: str) -> str:
    """Equal for two texts of the file that differ in comments, layout or quotes alone."""
    (lines,) = _read_alike(path, text)
    return sha256("\n".join(f"{place}\t{line}" for place, line in lines).encode())


def size(path: str, text: str) -> int:
    """Lines that say something: of Python as Python itself would write them, without comments; else those that are not blank."""
    (lines,) = _read_alike(path, text)
    return len(lines)


def places_of(path: str, text: str) -> list[str]:
    """Every place of the file, in order."""
    (lines,) = _read_alike(path, text)
    return list(dict.fromkeys(place[:PLACE_LENGTH] for place, _ in lines if place))


def _read_alike(path: str, *texts: str) -> tuple[tuple[Line, ...], ...]:
    """The lines of all texts: by Python's syntax where all of them have it, else by words. Never one so and one so, for then
    everything would look changed."""
    if PurePosixPath(path).suffix == ".py":
        parsed = [_python_text(text) for text in texts]
        if all(lines is not None for lines in parsed):
            return tuple(lines for lines in parsed if lines is not None)
    return tuple(_text_lines(text) for text in texts)


@lru_cache(maxsize=8)  # of one step: the same two texts are asked for again when the experiment is recorded
def _python_text(text: str) -> tuple[Line, ...] | None:
    """The lines of a Python file; None where it does not parse or is too large to be taken apart in a moment."""
    if len(text) > MOST_TOKENS and sum(1 for _ in islice(_TOKEN.finditer(text), MOST_TOKENS + 1)) > MOST_TOKENS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(_python_lines(ast.parse(text.removeprefix("\ufeff")).body, ""))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _python_lines(body: list[ast.stmt], outer: str) -> list[Line]:
    """The statements as Python itself would write them, without comments and docstrings."""
    lines: list[Line] = []
    outer = outer[:LONGEST_PLACE]
    for statement in body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                continue
            case ast.ClassDef():
                place = outer + statement.name
                head = copy.copy(statement)
                head.body = [ast.Pass()]
                lines += [(place, line) for line in ast.unparse(head).splitlines()]
                lines += _python_lines(statement.body, f"{place}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                _drop_docstrings(statement)
                lines += [(outer + statement.name, line) for line in ast.unparse(statement).splitlines()]
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target) | ast.AugAssign(target=target):
                lines += [(outer + ast.unparse(target), line) for line in ast.unparse(statement).splitlines()]
            case _:
                lines += [(outer.removesuffix("."), line) for line in ast.unparse(statement).splitlines()]
    return lines


def _drop_docstrings(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    for node in ast.walk(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]


def _text_lines(text: str) -> tuple[Line, ...]:
    """Lines without blank ones, each with its white space collapsed."""
    lines, place = list[Line](), ""
    for line in split_lines(text):
        if words := line.split():
            place = (_opened(line) or place)[:LONGEST_PLACE]
            lines.append((place, " ".join(words)))
    return tuple(lines)


def _opened(line: str) -> str | None:
    """The place that a line opens; None for a line inside of one."""
    line = line.rstrip()
    opened = HEADING.fullmatch(line) or SECTION.fullmatch(line) or OPENING.fullmatch(line)
    return opened[1].strip() if opened else None
