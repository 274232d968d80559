"""The command line, as a person runs it."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session
from conftest import open_session, replace, run

Make = Callable[..., Session]


def cli(*arguments: str, ok: bool = True, **environment: str) -> str:
    command = [sys.executable, "-m", "autoresearch_mcp.cli", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"} | environment)
    assert (result.returncode == 0) == ok, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout if ok else result.stdout + result.stderr


@pytest.fixture
def used(toy: Make) -> Session:
    """A session with a kept, a discarded and a crashed experiment."""
    session = toy()
    run(session, "baseline")
    session.keep("start")
    replace(session, "open('result.txt', 'w').write('0.5')\n")
    run(session, "half")
    session.discard()
    replace(session, "raise SystemExit('boom')\n")
    run(session, "breaks [bold]markup[/]")
    session.discard()
    return session


@pytest.mark.slow
def test_init_then_status_then_plot_without_a_score(tmp_path: Path):
    made = cli("init", str(tmp_path / "w"), "--task", "notes")
    assert "task:       notes" in made
    assert "No session has been started" in cli("status", "-w", str(tmp_path / "w"), ok=False)
    open_session(tmp_path / "w")
    assert "Phase: baseline" in cli("status", "-w", str(tmp_path / "w"))
    assert "Run an experiment first" in cli("plot", "-w", str(tmp_path / "w"), ok=False)
    assert "task needs none" in cli("prepare", "-w", str(tmp_path / "w"))


@pytest.mark.slow
def test_data_is_made_of_ones_own_text_from_the_next_session_on(tmp_path: Path):
    where, text = ("-w", str(tmp_path / "w")), tmp_path / "my texts"
    cli("init", str(tmp_path / "w"), "--preset", "tiny")
    assert "is no folder" in cli("prepare", *where, "--text", str(text), ok=False)
    text.mkdir()
    git = ("git", "-C", str(tmp_path / "w"))
    subprocess.run([*git, "config", "user.name", "me"], check=True)
    cache = tmp_path / "cache"
    assert "has no .txt" in cli("prepare", *where, "--text", str(text), ok=False, AUTORESEARCH_CACHE=str(cache))
    assert not [path for path in (cache / "data" / "gpt").iterdir() if path.is_dir()]
    for command in (["log", "--format=%s", "-1"], ["status", "--porcelain"]):
        assert subprocess.check_output([*git, *command], text=True).strip() in ("", "Workspace of the task gpt"), "as it was"
    other = "\n\n".join(f"the {word} of another text, and its {word[::-1]}" for word in map(str, range(10_000)))
    (text / "mine.txt").write_text(other)
    made = cli("prepare", *where, "--text", str(text))
    assert "documents" in made and "next:" not in made
    session = open_session(tmp_path / "w")
    assert "--force" in (told := cli("prepare", *where)) and "ready in" in told and session.task.data.text == str(text)
    tokenizer = json.loads((session.data.path / "tokenizer.json").read_text())
    assert any(b"another" in base64.b64decode(token) for token in tokenizer["ranks"])
    assert subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout == ""

    second = tmp_path / "second"
    second.mkdir()
    (second / "b.md").write_text(other[::-1])
    assert "Leave --session out" in cli("prepare", *where, "--session", session.tag, "--text", str(second), ok=False)
    (tmp_path / "w" / "autoresearch.toml").write_text((tmp_path / "w" / "autoresearch.toml").read_text() + "# mine\n")
    assert "not committed" in cli("prepare", *where, "--text", str(second), ok=False)
    subprocess.run([*git, "checkout", "-q", "autoresearch.toml"], check=True)
    assert "serve --session NAME" in cli("prepare", *where, "--text", str(second))
    session.refresh()
    assert session.task.data.text == str(text), "what is on keeps its data"
    assert open_session(tmp_path / "w", "second").task.data.text == str(second)
    assert "makes no data" in cli("prepare", "-w", str(create(tmp_path / "notes", "notes").root), "--text", str(second), ok=False)


@pytest.mark.slow
def test_init_of_the_default_task_says_what_to_do_next(tmp_path: Path):
    made = cli("init", str(tmp_path / "w"), "--preset", "tiny")
    assert "preset tiny" in made and "next:       autoresearch-mcp prepare" in made
    assert "ready in" in cli("prepare", "-w", str(tmp_path / "w"))
    assert "ready in" in cli("prepare", "-w", str(tmp_path / "w"))


@pytest.mark.slow
def test_log_lists_all_and_shows_one_in_full(used: Session):
    root = str(used.workspace.root)
    listed = cli("log", "-w", root)
    assert "baseline" in listed and "half" in listed and "breaks [bold]markup[/]" in listed and "error" in listed
    one = cli("log", "3", "-w", root)
    assert "boom" in one and "+raise SystemExit" in one and "untrusted" in one
    rows = json.loads(cli("log", "-w", root, "--json"))
    assert [row["status"] for row in rows] == ["keep", "discard", "crash"] and rows[0]["runs"][0]["enforcement"]
    assert len(json.loads(cli("log", "2", "-w", root, "--json"))) == 1


@pytest.mark.slow
def test_status_as_text_and_json(used: Session):
    root = str(used.workspace.root)
    assert "git merge autoresearch/" in cli("status", "-w", root)
    assert json.loads(cli("status", "-w", root, "--json"))["best_score"] == 1.0


@pytest.mark.slow
def test_watch_follows_for_a_while(used: Session):
    assert "3 experiments" in cli("watch", "-w", str(used.workspace.root), "--seconds", "0.6")


@pytest.mark.slow
def test_plot_draws_a_picture(used: Session, tmp_path: Path):
    cli("plot", "-w", str(used.workspace.root))
    picture = (used.workspace.root / "progress.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    cli("plot", "-w", str(used.workspace.root), "--output", str(tmp_path / "p.svg"))
    drawn = (tmp_path / "p.svg").read_text()
    assert "<svg" in drawn
    assert "cannot be written" in cli("plot", "-w", str(used.workspace.root), "--output", str(tmp_path / "p.nonsense"), ok=False)


@pytest.mark.slow
def test_stop_without_a_run_says_so(used: Session):
    assert "No run is on" in cli("stop", "-w", str(used.workspace.root), ok=False)


@pytest.mark.slow
def test_doctor_finds_what_is_wrong_and_how_to_mend_it(used: Session, tmp_path: Path):
    checks = {check["name"]: check for check in json.loads(cli("doctor", "-w", str(used.workspace.root), "--json"))}
    assert checks["git"]["level"] == checks["torch"]["level"] == checks["workspace"]["level"] == "ok"
    assert "ledger verified" in checks["workspace"]["found"]
    cli("init", str(tmp_path / "w"), "--preset", "tiny")
    broken = cli("doctor", "-w", str(tmp_path / "w"), ok=False, AUTORESEARCH_CACHE=str(tmp_path / "empty"))
    assert "missing: tokenizer.json" in broken and "fix: autoresearch-mcp prepare" in broken
    used.ledger.close()
    for path in used.workspace.state_dir.glob("ledger.db*"):
        path.write_bytes(b"garbage" * 1000)
    assert "cannot be opened" in cli("doctor", "-w", str(used.workspace.root), ok=False)


@pytest.mark.slow
def test_version_and_errors_without_traceback(tmp_path: Path):
    assert cli("--version").startswith("autoresearch-mcp 0.")
    for command in ("status", "log", "watch", "plot", "stop", "prepare"):
        assert "autoresearch-mcp init" in cli(command, "-w", str(tmp_path / "nowhere"), ok=False)


@pytest.mark.slow
def test_sessions_are_kept_apart(used: Session):
    root = used.workspace.root
    other = open_session(root, "second")
    run(other, "baseline of the second")
    assert "baseline of the second" in cli("log", "-w", str(root), "-s", "second")
    assert "baseline of the second" not in cli("log", "-w", str(root), "-s", used.tag)
