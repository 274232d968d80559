"""Settings of clients: how each is told of the server, and of the rules that leave the agent no other tool than ours.

Every change is a merge: what else stands in a file stays, a value that contradicts ours is refused rather than replaced, and
the old file is kept as a backup beside the new one.
"""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.files import write_atomic

NAME = "autoresearch"
WAIT_LIMIT = 300  # seconds a client must grant a call: ours end after 240
OWN_VARIABLES = ("AUTORESEARCH_CACHE", "AUTORESEARCH_SANDBOX", "AUTORESEARCH_QUIET")
START_LIMIT = 60  # seconds a client must grant the start: the first one may make the workspace

# Claude Code's own tools, so that the agent is left with ours. It warns about a name that it does not know (2.1.330): a test holds
# this list against the program.
CLAUDE_TOOLS = """
    Agent Bash BashOutput CronCreate CronDelete CronList Edit EnterPlanMode EnterWorktree ExitPlanMode ExitWorktree Glob Grep
    KillShell ListAgents LSP Monitor NotebookEdit Read ReportFindings ScheduleWakeup SendMessage Skill Task TaskCreate TaskOutput
    TaskStop TaskUpdate TodoWrite WebFetch WebSearch Workflow Write
""".split()  # noqa: SIM905 (a list of names reads better so)


SKILL = f"""\
---
name: {NAME}
description: >-
  Research loop that improves one file against one metric with the tools of the MCP server {NAME}. Use when asked to run
  experiments, to improve the metric, to go on with the research, or to work through the night.
---

"""
"""What makes a program.md a skill: https://agentskills.io/specification."""


@dataclass(frozen=True)
class Server:
    """How a client reaches our server: a command over stdio, or a URL with a bearer token."""

    command: list[str]
    url: str | None = None
    token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True)
class Wanted:
    """What a client's file must hold."""

    path: Path
    content: dict[str, Any]
    owned: tuple[str, ...]
    """Keys down to the entry that is ours alone, and is replaced as a whole."""
    exact: tuple[str, ...] = ()
    """Keys down to a list that must have no other item; to other lists ours are added."""


def stdio_command(workspace: Path) -> list[str]:
    """How to start the server for good: through uvx where uvx started us, whose folder is temporary, else by absolute path."""
    arguments = ["serve", "--workspace", str(workspace.absolute())]
    if "uv" in Path(sys.prefix).parts and "archive-v0" in Path(sys.prefix).parts:
        return ["uvx", "autoresearch-mcp", *arguments]
    script = Path(sys.executable).with_name("autoresearch-mcp")
    return [str(script), *arguments] if script.exists() else [sys.executable, "-P", "-m", "autoresearch_mcp.cli", *arguments]


# --- what each client wants -------------------------------------------------------------------------------------------


def claude_code(server: Server, folder: Path, home: Path) -> list[Wanted]:
    """https://code.claude.com/docs/en/settings and /mcp: .mcp.json of a project, and what its agent may not do.

    What it may do is said when it is started (`Client.options`): from the file of a folder that its user never trusted Claude Code
    takes the denials, ignores the permissions with a warning, and without a terminal then denies every call (2.1.330).
    """
    settings = {
        "permissions": {"deny": CLAUDE_TOOLS},
        "enabledMcpjsonServers": [NAME],
    }
    return [
        Wanted(folder / ".mcp.json", {"mcpServers": {NAME: _typed(server) | {"alwaysLoad": True}}}, ("mcpServers", NAME)),
        Wanted(folder / ".claude" / "settings.json", settings, ()),
    ]


def claude_desktop(server: Server, folder: Path, home: Path) -> list[Wanted]:
    """https://modelcontextprotocol.io/docs/develop/connect-local-servers: one file for the user, stdio only."""
    if server.url:
        raise AutoresearchError("Claude Desktop takes a command in its file, no URL. Run connect without --http.")
    match sys.platform:
        case "darwin":
            settings = home / "Library" / "Application Support" / "Claude"
        case "win32":
            settings = Path(os.environ.get("APPDATA", home / "AppData" / "Roaming")) / "Claude"
        case _:
            settings = home / ".config" / "Claude"
    return [Wanted(settings / "claude_desktop_config.json", {"mcpServers": {NAME: _plain(server)}}, ("mcpServers", NAME))]


def codex(server: Server, folder: Path, home: Path) -> list[Wanted]:
    """https://developers.openai.com/codex/config-reference: a profile of its own, which leaves the user's settings alone."""
    entry: dict[str, Any] = {"url": server.url, "http_headers": server.headers} if server.url else _plain(server)
    entry |= {
        "required": True,  # else the tools may be missing in the first turn
        "default_tools_approval_mode": "approve",
        "startup_timeout_sec": START_LIMIT,
        "tool_timeout_sec": WAIT_LIMIT,
    }
    content = {
        "sandbox_mode": "read-only",
        "approval_policy": "never",
        "web_search": "disabled",
        "features": dict.fromkeys(("shell_tool", "unified_exec", "view_image", "multi_agent", "goals"), False),
        "tools": {"experimental_request_user_input": {"enabled": False}},  # a question would stand there all night
        "mcp_servers": {NAME: entry},
    }
    settings = Path(os.environ.get("CODEX_HOME", home / ".codex"))
    return [Wanted(settings / f"{NAME}.config.toml", content, ("mcp_servers", NAME))]


def cursor(server: Server, folder: Path, home: Path) -> list[Wanted]:
    """https://cursor.com/docs/context/mcp and /cli/reference/permissions: files of a project."""
    entry = {"url": server.url, "headers": server.headers} if server.url else _plain(server)
    permissions = {"allow": [f"Mcp({NAME}:*)"], "deny": ["Shell(*)", "Write(**)", "Read(**)", "WebFetch(*)"]}
    return [
        Wanted(folder / ".cursor" / "mcp.json", {"mcpServers": {NAME: entry}}, ("mcpServers", NAME)),
        Wanted(folder / ".cursor" / "cli.json", {"permissions": permissions}, ()),
    ]


def vscode(server: Server, folder: Path, home: Path) -> list[Wanted]:
    """https://code.visualstudio.com/docs/copilot/reference/mcp-configuration: a file of the project."""
    return [Wanted(folder / ".vscode" / "mcp.json", {"servers": {NAME: _typed(server)}}, ("servers", NAME))]


def gemini(server: Server, folder: Path, home: Path) -> list[Wanted]:
    """https://geminicli.com/docs/reference/configuration: settings of a project; `core` names all tools there are, ours too."""
    entry: dict[str, Any] = {"httpUrl": server.url, "headers": server.headers} if server.url else _plain(server)
    entry |= {"trust": True, "timeout": WAIT_LIMIT * 1000}
    content: dict[str, Any] = {"mcpServers": {NAME: entry}, "mcp": {"allowed": [NAME]}, "tools": {"core": [f"mcp_{NAME}_*"]}}
    return [Wanted(folder / ".gemini" / "settings.json", content, ("mcpServers", NAME), exact=("tools", "core"))]


def _plain(server: Server) -> dict[str, Any]:
    """The command; and our own variables where they are set now, because clients start servers without the user's."""
    variables = {name: os.environ[name] for name in OWN_VARIABLES if name in os.environ}
    return {"command": server.command[0], "args": server.command[1:]} | ({"env": variables} if variables else {})


def _typed(server: Server) -> dict[str, Any]:
    if server.url:
        return {"type": "http", "url": server.url, "headers": server.headers}
    return {"type": "stdio"} | _plain(server)


@dataclass(frozen=True)
class Client:
    settings: Callable[[Server, Path, Path], list[Wanted]]
    start: str
    """How to start it in `folder` afterwards, with its `options`."""
    options: tuple[str, ...] = ()
    """What it must be given on its command line, beside its files."""
    skills: str = ""
    """Where it looks for a project's Agent Skills (https://agentskills.io/specification); empty where it knows none."""

    def how_to_start(self, folder: Path) -> str:
        return " ".join((self.start.format(folder=folder.absolute()), *map(shlex.quote, self.options)))


CLIENTS = {
    "claude-code": Client(claude_code, "cd {folder} && claude", ("--allowedTools", f"mcp__{NAME}__*"), ".claude/skills"),
    "codex": Client(codex, "codex", ("--profile", NAME), ".agents/skills"),
    "claude-desktop": Client(claude_desktop, "quit Claude Desktop and open it again"),
    "cursor": Client(cursor, "open {folder} in Cursor, or: cd {folder} && cursor-agent", skills=".cursor/skills"),
    "vscode": Client(vscode, "code {folder}, agent mode; select the tools of autoresearch alone", skills=".github/skills"),
    "gemini": Client(gemini, "cd {folder} && gemini", skills=".gemini/skills"),
}


# --- merging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    path: Path
    before: str | None
    after: str
    private: bool
    """Holds a token, so that only the owner may read it."""


def plan(client: str, server: Server, folder: Path, home: Path | None = None) -> list[Edit]:
    """The files to write. Raises AutoresearchError where one cannot be merged; nothing is written here."""
    if client not in CLIENTS:
        raise AutoresearchError(f"There are no settings for {client!r}. Choose one of: {', '.join(CLIENTS)}.")
    return [_edit(wanted, server) for wanted in CLIENTS[client].settings(server, folder.absolute(), home or Path.home())]


def skill(client: str, folder: Path, program: str) -> list[Edit]:
    """program.md as an Agent Skill for a client that knows them, so that a person starts the research by its name."""
    if not CLIENTS[client].skills:
        return []
    path = folder.absolute() / CLIENTS[client].skills / NAME / "SKILL.md"
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise AutoresearchError(f"{path} cannot be read: {error}. Move it away and run connect again.") from error
    return [Edit(path, before, SKILL + program, private=False)]


def write(edits: list[Edit]) -> list[Path]:
    """Writes what changed, each file whole, with a backup of the old one. Returns the backups."""
    backups: list[Path] = []
    for edit in edits:
        if edit.before == edit.after:
            continue
        target = edit.path.resolve()  # a link into a user's collection of settings stays a link
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600 if edit.private else 0o644
        if edit.before is not None:
            backup = target.with_name(f"{target.name}.backup-{datetime.now():%Y%m%d-%H%M%S-%f}")
            shutil.copy2(target, backup)
            backups.append(backup)
            mode &= target.stat().st_mode
        write_atomic(target, edit.after.encode(), mode)
    return backups


def _edit(wanted: Wanted, server: Server) -> Edit:
    path = wanted.path
    try:
        before = path.read_bytes().decode("utf-8") if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise AutoresearchError(f"{path} cannot be read: {error}. See --print for what belongs there.") from error
    merge = _merged_toml if path.suffix == ".toml" else _merged_json
    return Edit(path, before, merge(before or "", wanted), server.token is not None and bool(wanted.owned))


def _merged_json(text: str, wanted: Wanted) -> str:
    try:
        content: object = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise AutoresearchError(
            f"{wanted.path} is no plain JSON ({error}). Comments in it would be lost, so nothing was written. "
            "Add by hand what --print shows."
        ) from error
    if not _is_table(content):
        raise AutoresearchError(f"{wanted.path} holds no JSON object. Mend it, or move it away and run connect again.")
    _merge(content, wanted.content, wanted, ())
    indents = [line[: len(line) - len(line.lstrip())] for line in text.splitlines() if line[:1] in (" ", "\t")]
    return json.dumps(content, indent=indents[0] if indents else 2, ensure_ascii=False) + "\n"


def _merged_toml(text: str, wanted: Wanted) -> str:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        _merge(document, wanted.content, wanted, ())
    except TOMLKitError as error:
        raise AutoresearchError(f"{wanted.path} is no TOML: {error}. Mend it, then run connect again.") from error
    return tomlkit.dumps(document)


def _merge(have: dict[str, Any], want: dict[str, Any], wanted: Wanted, above: tuple[str, ...]) -> None:
    for key, value in want.items():
        keys = (*above, key)
        if key not in have or keys == wanted.owned:
            have[key] = value
        elif _is_table(value) and _is_table(have[key]):
            _merge(have[key], value, wanted, keys)
        elif _is_list(value) and keys != wanted.exact and _is_list(have[key]):
            have[key].extend(item for item in value if item not in have[key])
        elif have[key] != value:
            raise AutoresearchError(
                f"{wanted.path} sets {'.'.join(keys)} to {have[key]!r}; the locked-down agent wants {value!r}. Nothing was "
                "written. Change that line, or add by hand what --print shows."
            )


def _is_table(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
