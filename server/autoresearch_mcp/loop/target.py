"""The one file that a patch may change: the names it goes by, and what around the hunks asks for more than an edit of it."""

import re
from dataclasses import dataclass
from functools import cached_property

from autoresearch_mcp.errors import PatchError
from autoresearch_mcp.loop.diffs import content
from autoresearch_mcp.loop.lines import collapsed
from autoresearch_mcp.text import split_lines

LONGEST_NAME = 300
PREFIXES = ["a", "b", "c", "i", "o", "w", "old", "new", "orig", "original", "modified", "before", "after"]
SIDES = {"a", "b", "old", "new", "original", "modified", "updated", "before", "after", "current"}  # instead of a name
COPIES = (".orig", ".original", ".old", ".bak", ".new", ".modified", "~")
NAME = re.compile(r"[\w.~@+/\\-]+")
_DATE = re.compile(r"\s+(?:\d{4}-\d\d-\d\d|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )[^/\\]*$")
_ALONE = re.compile(
    r"(?:(?:\d+[.)]|[#>*-]+)\s+)?(?:(?:the|file|filename|filepath|path|in|edit|update|modify|change|changes|patch|for|to)\b:?\s*)*"
    r"[`*\"'(\[]*(?P<name>[\w.~@+/\\-]+)[`*\"')\]]*\s*:?[`*]*",
    re.IGNORECASE,
)
_TAGGED = re.compile(
    r"<(?:path|file|filename|file_path)>([^<>]*)</|\b(?:path|file|filename|file_path|title)\s*=\s*[\"']([^\"']*)[\"']"
)


@dataclass(frozen=True)
class Target:
    """The one file that a patch may change."""

    path: str
    root: str | None
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return [content(line) for line in split_lines(self.text)]

    @cached_property
    def known(self) -> frozenset[str]:
        """Its lines, white space collapsed."""
        return frozenset(map(collapsed, self.lines))

    def is_named(self, named: str, in_diff: bool = False) -> bool:
        """Whether this name is the file's: relative, with a prefix as diffs have it, or in full."""
        if len(named) > 4 * LONGEST_NAME:
            return False
        name = _DATE.sub("", named.split("\t")[0].strip()).strip("\"'`")
        if bracket := re.fullmatch(r"(\S.*?)\s+[(\[<]([^()\[\]<>]*)[)\]>]", name[:LONGEST_NAME]):
            if any(is_path(word) and not self.is_named(word) for word in NAME.findall(bracket[2])):
                return False
            name = bracket[1].strip("\"'`")
        if "\\" not in self.path:
            name = name.replace("\\", "/")
        if ".." in name.split("/"):
            return False
        name = re.sub(r"/(?:\.?/)+", "/", name)
        while name.startswith("./"):
            name = name[2:]
        names = {name}
        if in_diff:
            names |= {name.removesuffix(copy) for copy in COPIES}
            if name in SIDES:
                return True
        own = {self.path} | ({f"{self.root.rstrip('/')}/{self.path}"} if self.root else set[str]())
        for one in names:
            prefix, _, rest = one.partition("/")
            if one in own or (prefix in (PREFIXES if in_diff else ("a", "b")) and own & {rest, f"/{rest}"}):
                return True
        return False

    def check_name(self, named: str, in_diff: bool = False) -> None:
        if not self.is_named(named, in_diff):
            shown = named.strip().split("\t")[0].strip('"')[:LONGEST_NAME]
            raise PatchError(f"The patch touches {shown!r}. Only {self.path} can be changed; send a patch for {self.path} alone.")

    def check_two_names(self, named: str) -> None:
        """Of a `diff` line; either name may have blanks in it."""
        words = re.sub(r"^(?:-\S+ +)*", "", named[: 2 * LONGEST_NAME]).split(" ")
        pairs = ((" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words)))
        if not any(self.is_named(one, True) and self.is_named(other, True) for one, other in pairs):
            self.check_name(next((word for word in words if not self.is_named(word, True)), named))

    def refuse(self, what: str) -> PatchError:
        return PatchError(
            f"The patch would {what}. Only the text of {self.path} can be changed; send a patch that edits its lines."
        )

    def check_outside(self, line: str) -> None:
        """Refuses a line around the hunks that asks for more than an edit of this file. Prose passes."""
        if re.match(r"(rename|copy) (from|to) ", line):
            raise self.refuse("rename or copy a file")
        if re.match(r"(old|new) mode |new file mode (?!100644)|index \S+ 1[26]0000", line):
            raise self.refuse("change a file's mode")
        if line.startswith(("deleted file mode", "Only in ")):
            raise self.refuse("create or delete a file")
        if line.startswith(("diff --git ", "diff --cc ", "diff -")):
            return self.check_two_names(line.removeprefix("diff "))
        if line.startswith(("--- ", "+++ ", "Index: ")):
            return self.check_name(line.split(" ", 1)[1], in_diff=True)
        if len(line) > LONGEST_NAME:
            return None
        if fence := re.match(r"\s*(?:`{3,}|~{3,})(.+)", line):
            named = [word for word in NAME.findall(fence[1]) if is_path(word)]
        elif "<<" in line:  # a heredoc, and what it would be written to
            named = [word for word in NAME.findall(line) if re.search(r"\.[A-Za-z]\w*$", word)]
            named += re.findall(r"(?<!<)>\s*[\"']?([^\s\"'<>|]+)", line)
        elif alone := _ALONE.fullmatch(line.strip()):
            named = [alone["name"]] if is_path(alone["name"]) else []
        else:
            named = [one or other for one, other in _TAGGED.findall(line)]
        for name in named:
            self.check_name(name)
        return None


def is_path(word: str) -> bool:
    return bool(re.search(r"[\w~.][/\\]\S|^[/\\~].*\w|[\w~-]\.[A-Za-z]\w*$", word))
