"""What goes wrong on disk beside the loop: it heals, or says what to run, and nothing of anybody's is lost."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.doctor import examine
from autoresearch_mcp.errors import NotAllowedError, NotFoundError, WorkspaceError
from autoresearch_mcp.executors.host import record
from autoresearch_mcp.files import locked, try_lock
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.views import build, references
from autoresearch_mcp.workspace import STALE, Workspace
from conftest import TOY, UNTIL_TOLD, WAITS_FOR_DATA, WORK, git, is_over, let_go, log_of, open_session, replace, run, wait_for

Make = Callable[..., Session]
TWO = "open('result.txt', 'w').write('2.0')\n"


@pytest.fixture
def scored(toy: Make) -> Session:
    """A session whose second experiment is better and awaits its verdict."""
    session = toy()
    run(session, "baseline")
    session.keep()
    replace(session, TWO)
    run(session, "two")
    return session


# --- the editable file ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_missing_file_reads_as_what_should_be_there_and_waits_for_nobody(scored: Session):
    scored.worktree.path.unlink()
    with locked(scored.workspace.state_dir / f"session-{scored.tag}.lock", "a step of somebody's"):
        assert scored.read().text == TWO  # the experiment that awaits its verdict
        assert build.file_view(scored).content == TWO


@pytest.mark.slow
def test_keep_with_the_file_gone_keeps_what_was_run_and_puts_it_back(scored: Session):
    scored.worktree.path.unlink()
    assert scored.keep().experiment is not None
    assert scored.worktree.path.read_text() == TWO and scored.position().phase == "ready"


@pytest.mark.slow
@pytest.mark.parametrize("step", ["apply_patch", "discard", "run_experiment"])
def test_every_step_works_with_the_file_gone(toy: Make, step: str):
    session = toy()
    run(session, "baseline")
    session.keep()
    session.worktree.path.unlink()
    if step == "apply_patch":
        session.apply_patch("@@\n-" + WORK.rstrip("\n") + "\n+" + TWO)
        assert session.worktree.path.read_text() == TWO
    elif step == "discard":
        with pytest.raises(NotAllowedError, match="nothing to discard"):
            session.discard()
    else:
        assert run(session, "again", replicate=True) == 1


@pytest.mark.slow
def test_a_folder_in_the_files_place_is_set_aside_by_discard(scored: Session):
    scored.worktree.path.unlink()
    scored.worktree.path.mkdir()
    (scored.worktree.path / "precious.txt").write_text("precious")
    with pytest.raises(WorkspaceError, match="Call discard"):
        scored.read()
    judgement = scored.discard()
    assert "set aside as work.py.set-aside" in judgement.note and scored.read().text == WORK
    (aside,) = scored.worktree.root.glob("work.py.set-aside-*")
    assert (aside / "precious.txt").read_text() == "precious"


@pytest.mark.slow
def test_a_folder_in_the_files_place_is_healed_at_start(scored: Session):
    scored.discard()
    scored.worktree.path.unlink()
    scored.worktree.path.mkdir()
    session = open_session(scored.workspace.root)
    assert session.position().phase == "edited"  # it is no longer the best's file
    session.discard()
    assert session.read().text == WORK


def test_a_link_above_the_file_is_not_followed(tmp_path: Path, task_folder: Callable[..., Path]):
    from conftest import TOY

    toml = TOY.replace('editable = "work.py"', 'editable = "src/work.py"').replace('"work.py"]', '"src/work.py"]')
    folder = task_folder(toml)
    (folder / "src").mkdir()
    shutil.copy(folder / "work.py", folder / "src" / "work.py")
    session = open_session(create(tmp_path / "workspace", str(folder)).root)
    run(session, "baseline")
    session.keep()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(session.worktree.root / "src")
    (session.worktree.root / "src").symlink_to(elsewhere)
    session.apply_patch("<<<<<<< SEARCH\n" + WORK + "=======\n" + TWO + ">>>>>>> REPLACE\n")
    assert not list(elsewhere.iterdir()) and session.read().text == TWO


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["too large", "another encoding", "link", "pipe"])
def test_what_is_no_text_file_is_set_aside_and_only_discard_is_allowed(scored: Session, tmp_path: Path, kind: str):
    scored.discard()
    path = scored.worktree.path
    path.unlink()
    match kind:
        case "too large":
            path.write_bytes(b"# precious\n" * 200_000)
        case "another encoding":
            path.write_bytes("caf\xe9".encode("latin-1"))
        case "link":
            (tmp_path / "precious").write_text("x = 1\n")
            path.symlink_to(tmp_path / "precious")
        case _:
            os.mkfifo(path)
    assert list(scored.position().allowed) == ["discard"]
    for step in (lambda: scored.run_experiment("x"), lambda: scored.apply_patch("@@\n-x\n+y\n")):
        with pytest.raises((WorkspaceError, NotAllowedError), match="discard"):
            step()
    assert "set aside" in scored.discard().note and scored.read().text == WORK
    assert len(list(scored.worktree.root.glob("work.py.set-aside-*"))) == 1


@pytest.mark.slow
def test_a_baseline_that_somebody_ended_may_run_again(toy: Make):
    """Before training began; afterwards its end is its result."""
    session = toy("import time\ntime.sleep(300)\n", toml=TOY + WAITS_FOR_DATA)
    session.data.prepare(session.workspace.root)
    session.run_experiment("baseline")
    wait_for(lambda: session.progress().phase == "startup")
    session.stop()
    wait_for(lambda: is_over(session, 1))
    session.discard()
    assert list(session.position().allowed) == ["run_experiment"]
    assert session.run_experiment("baseline")[0] == 2
    session.stop()
    wait_for(lambda: is_over(session, 2))


# --- results.tsv ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_table_that_cannot_be_written_fails_no_step(scored: Session):
    scored.results.path.unlink(missing_ok=True)
    scored.results.path.mkdir()
    (scored.results.path / "x").touch()
    judged = build.kept(scored)
    assert judged.verdict == "keep" and "could not be written" in judged.note and "could not be written" in judged.text()
    shutil.rmtree(scored.results.path)
    open_session(scored.workspace.root)
    assert "\tkeep\ttwo" in scored.results.path.read_text()


@pytest.mark.slow
def test_somebody_who_holds_the_tables_lock_fails_no_step(scored: Session):
    held = try_lock(scored.workspace.state_dir / "results.lock")
    assert held is not None
    assert "could not be written" in scored.keep().note
    os.close(held)


@pytest.mark.slow
def test_a_table_that_was_removed_is_back_at_the_next_start(scored: Session):
    scored.results.path.unlink()
    open_session(scored.workspace.root)
    assert "\tscored\ttwo" in scored.results.path.read_text()


# --- git --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_moved_workspace_simply_works(scored: Session, tmp_path: Path):
    old = scored.workspace.root
    scored.ledger.close()
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    old.rename(moved)
    session = open_session(moved)
    assert session.position().allowed[0] == "keep" and "no output" in references.log(session, 2)
    session.keep()
    assert git(session.worktree.root, "status", "--porcelain") == ""  # linked with its repository in both directions
    assert git(session.worktree.root, "rev-parse", "--abbrev-ref", "HEAD") == session.state.started.branch
    assert not old.exists()


@pytest.mark.parametrize("lost", ["entry", "link", "worktree", "garbled link", "branch"])
@pytest.mark.slow
def test_what_git_lost_is_made_again_and_an_edit_survives(scored: Session, lost: str):
    scored.discard()
    replace(scored, TWO.replace("2.0", "3.0"))
    common, worktree = scored.workspace.common, scored.worktree.root
    (worktree / "notes of the user.txt").write_text("precious")
    match lost:
        case "entry":
            shutil.rmtree(common / "worktrees")
        case "link":
            (worktree / ".git").unlink()
        case "garbled link":
            (worktree / ".git").write_bytes(b"\xff\xfe")
        case "worktree":
            shutil.rmtree(worktree)
        case _:
            git(scored.workspace.root, "update-ref", "-d", f"refs/heads/{scored.state.started.branch}")
    if lost == "worktree":
        replace(scored, TWO.replace("2.0", "3.0"))
    run(scored, "three")
    scored.keep()
    assert scored.state.best is not None and scored.state.best.score == 3.0
    assert git(scored.worktree.root, "status", "--porcelain", "--untracked-files=no") == ""
    if lost != "worktree":
        assert (worktree / "notes of the user.txt").read_text() == "precious"
    open_session(scored.workspace.root)


@pytest.mark.slow
def test_stale_locks_of_several_refs_are_removed_and_all_of_them_are_set(scored: Session):
    """As a machine leaves them that goes down while git sets refs."""
    commit, workspace = scored.experiment(1).committed.commit, scored.workspace
    names = [f"refs/autoresearch/experiments/{number}" for number in (7, 8, 9)]
    for name in names:
        lock = workspace.common / f"{name}.lock"
        lock.touch()
        os.utime(lock, (time.time() - 2 * STALE, time.time() - 2 * STALE))
    workspace.set_refs(dict.fromkeys(names, commit))
    assert [workspace.ref(name) for name in names] == [commit] * 3


def test_a_stale_lock_in_our_part_of_git_is_removed(scored: Session):
    entry = scored.workspace.common / "worktrees" / scored.tag
    lock = entry / "index.lock"
    lock.touch()
    os.utime(lock, (time.time() - 2 * STALE, time.time() - 2 * STALE))
    branch_lock = scored.workspace.common / "refs" / "heads" / f"{scored.state.started.branch}.lock"
    branch_lock.touch()
    os.utime(branch_lock, (time.time() - 2 * STALE, time.time() - 2 * STALE))
    scored.keep()
    assert not lock.exists() and not branch_lock.exists()
    assert git(scored.workspace.root, "rev-parse", scored.state.started.branch) == scored.state.head_commit


@pytest.mark.slow
def test_a_fresh_lock_in_our_part_is_waited_for(scored: Session):
    lock = scored.workspace.common / "worktrees" / scored.tag / "index.lock"
    lock.touch()
    scored.keep()
    assert not lock.exists()


@pytest.mark.slow
def test_a_lock_of_the_users_is_left_alone_and_named(scored: Session):
    lock = scored.workspace.common / "packed-refs.lock"
    lock.touch()
    os.utime(lock, (time.time() - 900, time.time() - 900))
    with pytest.raises(WorkspaceError, match=r"rm .*packed-refs\.lock"):
        scored.workspace.run("pack_refs", "--all")
    assert lock.exists()


@pytest.mark.slow
def test_refs_that_something_removed_are_made_again_in_one_go(scored: Session):
    for number in (1, 2):
        git(scored.workspace.root, "update-ref", "-d", f"refs/autoresearch/experiments/{number}")
    assert scored.recovery.restore_refs() == []
    for number in (1, 2):
        ref = git(scored.workspace.root, "rev-parse", f"refs/autoresearch/experiments/{number}")
        assert ref == scored.experiment(number).committed.commit
    assert scored.workspace.restore_refs({9: "0123456789" * 4}) == [9]  # a commit that is gone is said


@pytest.mark.slow
def test_a_workspace_moved_during_a_run_keeps_its_result(toy: Make, tmp_path: Path):
    session = toy(f"print('on', flush=True)\n{UNTIL_TOLD}")
    session.run_experiment("baseline")
    wait_for(lambda: "on" in log_of(session, 1))  # and not on its way into the sandbox, by paths
    old, moved = session.workspace.root, tmp_path / "moved"
    old.rename(moved)
    with pytest.raises(WorkspaceError, match="moved or removed"):
        session.refresh()
    after = open_session(moved)
    assert after.state.running and list(after.position().allowed) == ["get_score", "stop_experiment"]
    let_go(after)
    wait_for(lambda: is_over(after, 1))
    assert after.experiment(1).score == 1.0 and not old.exists()


@pytest.mark.slow
def test_a_run_of_another_ledger_is_not_recorded(scored: Session):
    spec = scored.spec(2)
    assert spec is not None
    ended = RunEnded(run=2, outcome="scored", score=99.0)
    assert not record(spec.model_copy(update={"token": "of another workspace"}), ended, patience=0)
    assert scored.experiment(2).score == 2.0


@pytest.mark.slow
def test_numbers_of_a_lost_ledger_are_not_used_again(scored: Session):
    commit = git(scored.workspace.root, "rev-parse", "refs/autoresearch/experiments/2")
    scored.ledger.close()
    for path in scored.workspace.state_dir.glob("ledger.db*"):
        path.unlink()
    workspace = Workspace(scored.workspace.root)
    assert any("it was lost" in check.found for check in examine(workspace.root))
    with pytest.raises(WorkspaceError, match="from a backup"):
        Session.start(workspace, open_ledger(workspace), scored.tag)
    session = Session.start(workspace, open_ledger(workspace), "anew")
    assert run(session, "baseline") == 3
    assert git(workspace.root, "rev-parse", "refs/autoresearch/experiments/2") == commit


@pytest.mark.slow
def test_a_commit_of_a_human_on_the_branch_is_not_dropped(scored: Session):
    (scored.worktree.root / "NOTES").write_text("mine")
    git(scored.worktree.root, "add", "NOTES")
    git(scored.worktree.root, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "human work")
    mine = git(scored.worktree.root, "rev-parse", "HEAD")
    with pytest.raises(WorkspaceError, match="which this session did not make"):
        scored.keep()
    assert git(scored.workspace.root, "rev-parse", scored.state.started.branch) == mine


def test_git_refusing_a_branch_starts_no_session(tmp_path: Path):
    workspace = create(tmp_path / "w", "notes")
    git(workspace.root, "branch", "autoresearch")  # so that there can be no autoresearch/<tag>
    with pytest.raises(WorkspaceError, match="autoresearch"):
        Session.start(workspace, open_ledger(workspace), "night")
    assert open_ledger(workspace).state().sessions == {}


def test_line_ends_of_the_users_git_do_not_reach_the_worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "config"
    config.write_text("[core]\n\tautocrlf = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    workspace = create(tmp_path / "w", "notes")
    assert Session.start(workspace, open_ledger(workspace)).position().allowed == ("run_experiment",)


# --- looking and starting ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_looking_starts_nothing(scored: Session):
    branches = git(scored.workspace.root, "branch", "--list")
    with pytest.raises(NotFoundError, match=f"no session 'typo'.*{scored.tag}"):
        Session.open(scored.workspace, scored.ledger, "typo")
    Session.open(scored.workspace, scored.ledger)
    assert git(scored.workspace.root, "branch", "--list") == branches
    assert list(scored.ledger.state().sessions) == [scored.tag]


def test_instructions_that_are_not_committed_are_not_silently_ignored(tmp_path: Path):

    workspace = create(tmp_path / "w", "notes")
    (workspace.root / "program.md").write_text("Only shorter sentences.\n")
    with pytest.raises(WorkspaceError, match=r"Uncommitted changes in program\.md"):
        Session.start(workspace, open_ledger(workspace))
    git(workspace.root, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qam", "my word")
    session = Session.start(workspace, open_ledger(workspace))
    assert references.reference_text(session, "program.md") == "Only shorter sentences.\n"


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_held_too_long_says_by_whom_and_for_what(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from autoresearch_mcp.files import locked\n"
        "with locked(Path(sys.argv[1]), 'run_experiment'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(WorkspaceError, match=rf"pid {holder.pid}, step run_experiment, since \d{{4}}"),
            locked(tmp_path / "lock", "keep", timeout=0.2),
        ):
            pass
        assert json.loads((tmp_path / "lock").read_text())["pid"] == holder.pid
    finally:
        holder.kill()
        holder.wait()


def test_a_lock_asked_for_again_by_its_own_holder_fails_at_once(tmp_path: Path):
    with locked(tmp_path / "lock", "keep"), pytest.raises(RuntimeError, match="keep"), locked(tmp_path / "lock", "read"):
        pass


def test_a_workspace_of_nobody_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(WorkspaceError, match="does not exist"):
        Workspace(tmp_path / "nowhere")
