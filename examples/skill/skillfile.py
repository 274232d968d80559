"""Reads an Agent Skill's SKILL.md as data: front matter, code blocks, links, size. Nothing of it is executed here.

Front matter is read as the small part of YAML that skills need: one-line values, plain or quoted, blocks with > and |, and one
level of map below `metadata`. What other YAML would say is refused, for clients differ in what they make of it.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
KEYS = {"name": 64, "description": 1024, "license": 200, "compatibility": 500, "allowed-tools": 500, "metadata": 0}
"""What https://agentskills.io/specification knows, and how long it may be."""
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)")
LINK = re.compile(r"\[[^\[\]]{0,200}\]\(\s{0,8}<?([^\s()<>]{0,500})")
MOST_BLOCKS = 16
CHARACTERS_A_TOKEN = 4  # of English, roughly


class SkillError(Exception):
    """The file is no skill that a client would load."""


@dataclass(frozen=True)
class Block:
    language: str
    job: str
    """What it says that it does: ```python job=count. Empty for an example."""
    code: str


@dataclass(frozen=True)
class Skill:
    name: str
    description: str
    body: str
    blocks: list[Block]
    links: list[str]

    @property
    def tokens(self) -> float:
        return len(self.body) / CHARACTERS_A_TOKEN


def read(path: Path) -> Skill:
    """Raises SkillError."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SkillError(f"the file is not UTF-8: {error.reason} at byte {error.start}") from error
    return parse(text, path.parent.name)


def parse(text: str, folder: str) -> Skill:
    """`folder` is the skill's, whose name it must have. Raises SkillError."""
    if any(ord(character) < 32 and character not in "\n\t" for character in text):
        raise SkillError("the file has control characters")
    lines = text.split("\n")
    if lines[0] != "---" or "---" not in lines[1:]:
        raise SkillError("the file must begin with front matter between two lines of ---")
    end = lines.index("---", 1)
    front = front_matter(lines[1:end])
    name, description = front.get("name", ""), front.get("description", "")
    if not NAME.fullmatch(name):
        raise SkillError("name must have small letters, digits and single hyphens between them")
    if name != folder:
        raise SkillError(f"name must be that of the folder, {folder}")
    if not description.strip():
        raise SkillError("description is missing: without it nothing ever loads the skill")
    if "<" in description or ">" in description:
        raise SkillError("description has < or >: clients put it into their system prompt, where tags mean something")
    if not description.isprintable():
        raise SkillError("description has characters that nobody sees")
    body = "\n".join(lines[end + 1 :])
    blocks, prose = code_blocks(lines[end + 1 :])
    if len(blocks) > MOST_BLOCKS:
        raise SkillError(f"the skill has {len(blocks)} code blocks; at most {MOST_BLOCKS} are run")
    return Skill(name, description, body, blocks, LINK.findall(re.sub(r"`[^`\n]*`", "", prose)))


def front_matter(lines: list[str]) -> dict[str, str]:
    """The keys and their texts; the map below metadata as one text. Raises SkillError."""
    found: dict[str, str] = {}
    at = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, value = line.partition(":")
        if key not in KEYS or not colon or (value and value[0] != " "):
            known = ", ".join(KEYS)
            raise SkillError(f"front matter has {line[:60]!r}; a line is key, colon, space and value, and keys are {known}")
        if key in found:
            raise SkillError(f"front matter has {key} twice")
        indented: list[str] = []
        while at < len(lines) and (not lines[at].strip() or lines[at].startswith(" ")):
            indented.append(lines[at].strip())
            at += 1
        found[key] = _value(key, value.strip(), indented)
        if KEYS[key] and len(found[key]) > KEYS[key]:
            raise SkillError(f"{key} has {len(found[key])} characters; at most {KEYS[key]} are allowed")
    return found


def _value(key: str, value: str, indented: list[str]) -> str:
    if value in (">", ">-", "|", "|-"):
        separator = " " if value[0] == ">" else "\n"
        return separator.join(line for line in indented if line)
    if any(indented) and not (key == "metadata" and not value):
        raise SkillError(f"{key} goes on in an indented line; write it in one, or as a block with >-")
    if key == "metadata":
        return "\n".join(indented)
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        inner = value[1:-1]
        if value[0] in (inner.replace("''", "") if value[0] == "'" else inner) or "\\" in inner:
            raise SkillError(f"{key} has quotes or backslashes within its quotes; write it as a block with >-")
        return inner.replace("''", "'") if value[0] == "'" else inner
    if value[:1] in tuple("\"'[]{}>|*&!%@`,#?") or value.startswith("- ") or ": " in value or " #" in value or value.endswith(":"):
        raise SkillError(f"{key} means something else in YAML as it stands; quote it, or write it as a block with >-")
    return value


def code_blocks(lines: list[str]) -> tuple[list[Block], str]:
    """The fenced blocks, and the text without them."""
    blocks: list[Block] = []
    prose: list[str] = []
    at = 0
    while at < len(lines):
        opened = FENCE.fullmatch(lines[at])
        at += 1
        if not opened:
            prose.append(lines[at - 1])
            continue
        fence, (language, *marks) = opened[1], opened[2].split() or [""]
        code: list[str] = []
        while at < len(lines) and not _closes(lines[at], fence):
            code.append(lines[at])
            at += 1
        at += 1
        jobs = [mark.removeprefix("job=") for mark in marks if mark.startswith("job=")]
        blocks.append(Block(language.lower(), jobs[0] if jobs else "", "\n".join(code) + "\n"))
    return blocks, "\n".join(prose)


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip()
    return len(stripped) >= len(fence) and set(stripped) == {fence[0]}


def is_sound(link: str, folder: Path) -> bool:
    """Whether a link leads anywhere, as far as that is known without a network: to a file of the skill, a heading, or https."""
    if link.startswith("#"):
        return len(link) > 1
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", link):
        try:
            parts = urlsplit(link)
            return parts.scheme == "https" and bool(re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.hostname or ""))
        except ValueError:
            return False
    path = PurePosixPath(link.partition("#")[0])
    if path.is_absolute() or ".." in path.parts or "\\" in link or not path.parts:
        return False
    return (folder / path).is_file()
