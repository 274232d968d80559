"""What an experiment changes in the editable file, freed of layout: whether it was tried before, and in which places."""

import ast
import copy
import re
import warnings
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import PurePosixPath

from autoresearch_mcp.files import sha256

Line = tuple[str, str]
"""(place, text): a place is what encloses the line, like `GPT.forward` or a heading."""

# A line that opens a place in a file that is no Python: a heading, a [section], a selector or definition at the margin.
HEADING = re.compile(r"^(?:#{1,6}\s+(?P<heading>.+?)|\[+(?P<section>[^\[\]]+)\]+|(?P<opening>[^\s{][^{]*?)\s*[{:])\s*$")
PLACE_LENGTH = 40


@dataclass(frozen=True)
class Change:
    digest: str
    """Equal for two changes that differ in comments, layout, quotes or the rest of the file alone."""
    places: list[str]
    """Where it changes something, in the order of the file; a place of its own for code outside of any."""


def between(path: str, before: str, after: str) -> Change | None:
    """The change from one text of the file to another; None where only comments or layout differ."""
    old, new = _normal_lines(path, before), _normal_lines(path, after)
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    old, new = old[start : len(old) - end], new[start : len(new) - end]
    signed: list[tuple[str, Line]] = []
    for kind, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            signed += [("-", line) for line in old[i:j]] + [("+", line) for line in new[k:m]]
    if not signed:
        return None
    places = list(dict.fromkeys(place[:PLACE_LENGTH] for _, (place, _) in signed if place))
    return Change(sha256("\n".join(f"{sign} {place}\t{text}" for sign, (place, text) in signed).encode()), places)


def places_of(path: str, text: str) -> list[str]:
    """Every place of the file, in order."""
    return list(dict.fromkeys(place[:PLACE_LENGTH] for place, _ in _normal_lines(path, text) if place))


@lru_cache(maxsize=8)  # of one step: the same two texts are asked for again when the experiment is recorded
def _normal_lines(path: str, text: str) -> tuple[Line, ...]:
    if PurePosixPath(path).suffix == ".py":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return tuple(_python_lines(ast.parse(text.removeprefix("\ufeff")).body, ""))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # compared as text
    return tuple(_text_lines(text))


def _python_lines(body: list[ast.stmt], outer: str) -> list[Line]:
    """The statements as Python itself would write them, without comments and docstrings."""
    lines: list[Line] = []
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


def _text_lines(text: str) -> list[Line]:
    """Lines without blank ones, each with its white space collapsed."""
    lines, place = list[Line](), ""
    for line in text.splitlines():
        if opened := HEADING.match(line):
            place = next(filter(None, opened.groups())).strip()
        if words := line.split():
            lines.append((place, " ".join(words)))
    return lines
