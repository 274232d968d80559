"""What each client is started with: the settings that `connect` knows, on its command line."""

import json
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from autoresearch_mcp import connect
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.night import recipes
from autoresearch_mcp.night.recipes import Recipe, recipe

SERVER = connect.Server(["/bin/autoresearch-mcp", "serve", "--workspace", "/w s"])


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a program of each name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("claude", "codex", "gemini"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def values(command: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(command) if name == option]


def test_claude_code_has_it_all_on_its_command_line(tmp_path: Path):
    command = recipes.claude_code(SERVER, tmp_path).command
    assert command[:2] == ["claude", "-p"] and not list(tmp_path.iterdir())
    (servers,), (settings,) = values(command, "--mcp-config"), values(command, "--settings")
    assert json.loads(servers)["mcpServers"]["autoresearch"]["args"][-1] == "/w s"
    assert "Bash" in json.loads(settings)["permissions"]["deny"]
    assert values(command, "--allowedTools") == ["mcp__autoresearch__*"]


def test_codex_gets_every_key_of_its_profile_as_an_option(tmp_path: Path):
    (profile,) = connect.codex(SERVER, tmp_path, tmp_path)
    text = "\n".join(values(recipes.codex(SERVER, tmp_path).command, "-c"))
    assert tomllib.loads(text) == profile.content


def test_gemini_is_told_to_trust_the_folder_its_settings_are_in(tmp_path: Path):
    made = recipes.gemini(SERVER, tmp_path)
    assert made.variables == {"GEMINI_CLI_TRUST_WORKSPACE": "true"}
    assert json.loads((tmp_path / ".gemini" / "settings.json").read_text())["mcp"]["allowed"] == ["autoresearch"]


def test_options_of_the_user_come_after_ours(programs: Path, tmp_path: Path):
    command = recipe("codex", ["--model", "gpt-5"], tmp_path, "tonight").command
    assert command[0] == str(programs / "codex") and command[-3:] == ["--model", "gpt-5", "-"]
    assert "mcp_servers.autoresearch.args=" in " ".join(command) and '"--session", "tonight"]' in " ".join(command)


def test_a_prompt_stands_where_the_user_wants_it():
    assert Recipe(["agent"]).with_prompt("Go.") == (["agent"], "Go.")
    assert Recipe(["agent", "--say={prompt}"]).with_prompt("Go.") == (["agent", "--say=Go."], "")


@pytest.mark.parametrize(
    ("name", "added", "said"),
    [
        (None, [], "Nothing to start.*--with and one of: claude-code, codex, gemini"),
        ("emacs", [], "no recipe for 'emacs'.*after --"),
        (None, ["no-such-agent"], "'no-such-agent' is not found"),
    ],
)
def test_what_cannot_be_started_is_said_before_the_night(
    name: str | None, added: list[str], said: str, programs: Path, tmp_path: Path
):
    with pytest.raises(AutoresearchError, match=said):
        recipe(name, added, tmp_path, "tonight")
