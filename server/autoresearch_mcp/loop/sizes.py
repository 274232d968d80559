"""How large the editable file is, and how much of it is data: start-up is free because there is little to learn from. Pure.

In a Python file counts as data what a program could read back out of itself: strings and bytes (docstrings and the parts of
f-strings too), comments, numbers by their bytes, and every name once. The bundled train.py has 5 KB of it. The price: the order
of statements, white space and expressions of short names can carry data as well; that is bounded by the size of the file alone.
Files of other languages have a size and no more.
"""

import ast
import io
import tokenize
import warnings
from pathlib import PurePosixPath
from typing import cast

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.sections import Files
from autoresearch_mcp.task import TASK_FILE

LONGEST_FLOAT = 24  # characters, as Python itself writes one


def check_size(files: Files, text: str) -> None:
    """Raises NotAllowedError for a text of the editable file that is too large, or holds too much data."""
    name, size = files.editable, len(text.encode("utf-8", "surrogatepass"))
    if size > files.editable_bytes:
        raise NotAllowedError(
            f"{name} would have {size} bytes; it may have {files.editable_bytes} ([files] editable_bytes in {TASK_FILE}). Nothing "
            "was done. Make it smaller: take out what does not help, and leave data to what `prepare` makes."
        )
    if PurePosixPath(name).suffix != ".py":
        return
    data = literal_bytes(text)
    if data > files.literal_bytes:
        raise NotAllowedError(
            f"{name} would hold {data} bytes of data (strings, bytes, numbers, comments and names); it may hold "
            f"{files.literal_bytes} ([files] literal_bytes in {TASK_FILE}). Nothing was done. A program learns from what it is "
            "given within its budget: data belongs into what `prepare` makes, which a human decides. Take it out and call again."
        )


def literal_bytes(text: str) -> int:
    """Bytes of data in a Python file; all of it where it cannot be read as one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text.removeprefix("\ufeff"))
        beside = sum(_beside_the_tree(token) for token in _tokens(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return _size(text)
    constants, names = 0, set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            constants += _constant(node.value)
        else:
            names.update(text for _, value in ast.iter_fields(node) for text in _texts(value))
    return constants + beside + sum(map(_size, names))


def _texts(value: object) -> list[str]:
    """The names in a node's field, whatever kind of node it is: one, or a list of them."""
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def _beside_the_tree(token: tokenize.TokenInfo) -> int:
    """What only the text holds: comments, and digits that no number needs."""
    if token.type == tokenize.COMMENT:
        return _size(token.string)
    return max(0, len(token.string) - LONGEST_FLOAT) if token.type == tokenize.NUMBER else 0


def _tokens(text: str):
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _constant(value: object) -> int:
    match value:
        case str():
            return _size(value)
        case bytes():
            return len(value)
        case bool() | None:
            return 0
        case int():
            return max(1, (value.bit_length() + 7) // 8)
        case float():
            return 8
        case complex():
            return 16
        case _:
            return 0


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
