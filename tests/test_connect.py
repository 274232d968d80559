"""Settings of each client: the right files, merged into what is there, never at its cost."""

import json
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp import connect
from autoresearch_mcp.connect import CLIENTS, Server, plan
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.loop.session import Session
from conftest import open_session

SERVER = Server(["/bin/autoresearch-mcp", "serve", "--workspace", "/ws"])
REMOTE = Server([], "http://127.0.0.1:8377/mcp", "secret-token")
WHERE = {
    "claude-code": ["folder/.mcp.json", "folder/.claude/settings.json"],
    "codex": ["home/.codex/autoresearch.config.toml"],
    "cursor": ["folder/.cursor/mcp.json", "folder/.cursor/cli.json"],
    "vscode": ["folder/.vscode/mcp.json"],
    "gemini": ["folder/.gemini/settings.json"],
}


@pytest.fixture(autouse=True)
def _no_codex_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODEX_HOME", raising=False)


@pytest.fixture
def settle(tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Applies the settings of a client below tmp_path; returns the files by relative path, parsed."""

    def apply(client: str, server: Server = SERVER) -> dict[str, object]:
        edits = plan(client, server, tmp_path / "folder", tmp_path / "home")
        connect.write(edits)
        parse = {".toml": tomllib.loads, ".json": json.loads}
        return {str(edit.path.relative_to(tmp_path)): parse[edit.path.suffix](edit.path.read_text()) for edit in edits}

    return apply


def entry_of(files: dict[str, object], *keys: str) -> dict[str, object]:
    found = next(iter(files.values()))
    for key in keys:
        assert isinstance(found, dict)
        found = found[key]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("client", WHERE)
def test_each_client_gets_the_files_it_reads(client: str, settle: Callable[..., dict[str, object]]):
    assert list(settle(client)) == WHERE[client]


@pytest.mark.parametrize(
    ("client", "keys"),
    [
        ("claude-code", ("mcpServers", "autoresearch")),
        ("claude-desktop", ("mcpServers", "autoresearch")),
        ("codex", ("mcp_servers", "autoresearch")),
        ("cursor", ("mcpServers", "autoresearch")),
        ("vscode", ("servers", "autoresearch")),
        ("gemini", ("mcpServers", "autoresearch")),
    ],
)
def test_the_server_is_named_by_command(client: str, keys: tuple[str, ...], settle: Callable[..., dict[str, object]]):
    entry = entry_of(settle(client), *keys)
    assert (entry["command"], entry["args"]) == ("/bin/autoresearch-mcp", ["serve", "--workspace", "/ws"])


@pytest.mark.parametrize(
    ("client", "keys", "expected"),
    [
        ("claude-code", ("mcpServers", "autoresearch"), {"type": "http", "url": REMOTE.url, "headers": REMOTE.headers}),
        ("cursor", ("mcpServers", "autoresearch"), {"url": REMOTE.url, "headers": REMOTE.headers}),
        ("vscode", ("servers", "autoresearch"), {"type": "http", "url": REMOTE.url, "headers": REMOTE.headers}),
        ("gemini", ("mcpServers", "autoresearch"), {"httpUrl": REMOTE.url, "headers": REMOTE.headers}),
        ("codex", ("mcp_servers", "autoresearch"), {"url": REMOTE.url, "http_headers": REMOTE.headers}),
    ],
)
def test_the_server_is_named_by_url_and_token(
    client: str, keys: tuple[str, ...], expected: dict[str, object], settle: Callable[..., dict[str, object]], tmp_path: Path
):
    entry = entry_of(settle(client, REMOTE), *keys)
    assert expected.items() <= entry.items() and "command" not in entry
    assert stat.S_IMODE((tmp_path / WHERE[client][0]).stat().st_mode) == 0o600  # it holds the token


def test_our_own_variables_go_along(settle: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch):
    """Codex and the desktop programs start a server without the user's environment."""
    monkeypatch.delenv("AUTORESEARCH_QUIET")
    monkeypatch.setenv("AUTORESEARCH_CACHE", "/elsewhere")
    assert entry_of(settle("codex"), "mcp_servers", "autoresearch")["env"] == {"AUTORESEARCH_CACHE": "/elsewhere"}
    monkeypatch.delenv("AUTORESEARCH_CACHE")
    assert "env" not in entry_of(settle("vscode"), "servers", "autoresearch")


def test_claude_desktop_takes_no_url(tmp_path: Path):
    with pytest.raises(AutoresearchError, match="without --http"):
        plan("claude-desktop", REMOTE, tmp_path, tmp_path)


def test_locked_down_recipes(settle: Callable[..., dict[str, object]]):
    claude = settle("claude-code")["folder/.claude/settings.json"]
    assert isinstance(claude, dict)
    assert list(claude["permissions"]) == ["deny"] and claude["enabledMcpjsonServers"] == ["autoresearch"]
    assert CLIENTS["claude-code"].how_to_start(Path("/ws")) == "cd /ws && claude --allowedTools 'mcp__autoresearch__*'"
    assert {"Bash", "Edit", "Write", "Read", "WebFetch", "WebSearch"} <= set(claude["permissions"]["deny"])
    codex = settle("codex")["home/.codex/autoresearch.config.toml"]
    assert isinstance(codex, dict)
    assert (codex["sandbox_mode"], codex["approval_policy"]) == ("read-only", "never")
    assert codex["mcp_servers"]["autoresearch"]["required"] is True


OURS = {"mcpServers": {"autoresearch": {"command": "old", "args": []}, "other": {"command": "keep-me"}}, "theme": "dark"}


def test_what_else_is_in_a_file_stays(settle: Callable[..., dict[str, object]], tmp_path: Path):
    path = tmp_path / "folder" / ".mcp.json"
    path.parent.mkdir()
    path.write_text(json.dumps(OURS, indent=4))
    merged = settle("claude-code")["folder/.mcp.json"]
    assert isinstance(merged, dict)
    assert merged["theme"] == "dark" and merged["mcpServers"]["other"] == {"command": "keep-me"}
    assert merged["mcpServers"]["autoresearch"]["command"] == "/bin/autoresearch-mcp"  # ours alone is replaced
    assert '\n    "mcpServers"' in path.read_text()  # and the indentation is theirs
    [backup] = path.parent.glob(".mcp.json.backup-*")
    assert json.loads(backup.read_text()) == OURS


def test_lists_of_rules_are_joined(settle: Callable[..., dict[str, object]], tmp_path: Path):
    path = tmp_path / "folder" / ".claude" / "settings.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"permissions": {"allow": ["Bash(ls)"], "deny": ["Bash"]}}))
    merged = settle("claude-code")["folder/.claude/settings.json"]
    assert isinstance(merged, dict)
    assert merged["permissions"]["allow"] == ["Bash(ls)"]
    assert merged["permissions"]["deny"].count("Bash") == 1 and "Edit" in merged["permissions"]["deny"]


def test_toml_keeps_its_comments(settle: Callable[..., dict[str, object]], tmp_path: Path):
    path = tmp_path / "home" / ".codex" / "autoresearch.config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('# my own\nmodel = "gpt-5"  # large\n\n[mcp_servers.other]\ncommand = "x"\n')
    merged = settle("codex")["home/.codex/autoresearch.config.toml"]
    assert isinstance(merged, dict)
    assert merged["model"] == "gpt-5" and set(merged["mcp_servers"]) == {"other", "autoresearch"}
    assert path.read_text().startswith('# my own\nmodel = "gpt-5"  # large\n')


def test_a_second_time_changes_nothing(settle: Callable[..., dict[str, object]], tmp_path: Path):
    for client in WHERE:
        first = settle(client)
        assert settle(client) == first
    assert not list(tmp_path.rglob("*.backup-*"))


@pytest.mark.parametrize(
    ("client", "name", "content", "said"),
    [
        ("vscode", "folder/.vscode/mcp.json", '{\n  // mine\n  "servers": {}\n}', "no plain JSON.*--print"),
        ("cursor", "folder/.cursor/mcp.json", "[]", "no JSON object"),
        ("codex", "home/.codex/autoresearch.config.toml", "a = = 1", "no TOML"),
        ("codex", "home/.codex/autoresearch.config.toml", 'sandbox_mode = "danger-full-access"', "sets sandbox_mode to 'danger"),
        ("gemini", "folder/.gemini/settings.json", '{"tools": {"core": ["run_shell_command"]}}', "sets tools.core"),
    ],
)
def test_what_cannot_be_merged_is_left_alone(client: str, name: str, content: str, said: str, tmp_path: Path):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(AutoresearchError, match=said):
        plan(client, SERVER, tmp_path / "folder", tmp_path / "home")
    assert path.read_text() == content


def test_a_link_stays_a_link(settle: Callable[..., dict[str, object]], tmp_path: Path):
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / "mcp.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".mcp.json").symlink_to(tmp_path / "dotfiles" / "mcp.json")
    settle("claude-code")
    assert (tmp_path / "folder" / ".mcp.json").is_symlink()
    assert "autoresearch" in (tmp_path / "dotfiles" / "mcp.json").read_text()


def test_the_command_line_prints_or_writes(notes: Session):
    root = notes.workspace.root
    command = [sys.executable, "-m", "autoresearch_mcp.cli", "connect", "claude-code", "--workspace", str(root)]
    shown = subprocess.run([*command, "--print"], capture_output=True, text=True, check=True).stdout
    assert f"# {root}/.mcp.json" in shown and not (root / ".mcp.json").exists()
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"written:    {root}/.mcp.json" in written and f"start:      cd {root} && claude" in written
    assert "as it was:" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    entry = json.loads((root / ".mcp.json").read_text())["mcpServers"]["autoresearch"]
    assert Path(entry["command"]).is_absolute() and entry["args"][-1] == str(root)
    refused = subprocess.run([*command[:4], "emacs"], capture_output=True, text=True)
    assert refused.returncode == 1 and all(name in refused.stderr for name in CLIENTS)


def test_connecting_an_absent_workspace_makes_it(tmp_path: Path):
    """As serve would; after the settings are in the folder, serve would find it not empty."""
    root = tmp_path / "new"
    command = [sys.executable, "-m", "autoresearch_mcp.cli", "connect", "vscode", "--workspace", str(root)]
    subprocess.run([*command, "--print"], capture_output=True, check=True)
    assert not root.exists()
    subprocess.run(command, capture_output=True, check=True)
    assert (root / ".vscode" / "mcp.json").exists() and (root / "train.py").exists()
    open_session(root)


def test_a_file_with_the_token_says_so(notes: Session):
    root = notes.workspace.root
    url = "http://127.0.0.1:8377/mcp"
    command = [sys.executable, "-m", "autoresearch_mcp.cli", "connect", "cursor", "--workspace", str(root), "--http", url]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.count("keep it out of git") == 1
    assert notes.workspace.bearer_token() in (root / ".cursor" / "mcp.json").read_text()
