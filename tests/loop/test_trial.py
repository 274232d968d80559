"""Trials: what a task's file scores without a session, and what a person is told whose scoring command is broken."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp import doctor
from autoresearch_mcp.cli import app
from autoresearch_mcp.create import create
from autoresearch_mcp.errors import NotAllowedError, NotFoundError, TaskError
from autoresearch_mcp.loop.trial import run_trial
from autoresearch_mcp.run import fitting, places, visible
from autoresearch_mcp.task import parse_task
from autoresearch_mcp.views import build
from autoresearch_mcp.workspace import Workspace
from conftest import ROOT, TOY, git, open_session, run

NOTHING_RUNS = TOY.replace(TOY[TOY.index("[run]") : TOY.index("[metric]")], "")
BROKEN = {
    "prints text": ("print('fine')\n", "no number and no JSON"),
    "prints nothing": ("\n", "gave no answer"),
    "raises": ("raise KeyError('x')\n", "exit status 1"),
    "nan": ("print('nan')\n", "no number and no JSON"),
    "not finite": ("print('NaN')\n", "not a finite number"),
    "a module that is not there": ("import nowhere\n", "exit status 1"),
    "another key": ('print(\'{"score": 1, "accuracy": 2}\')\n', "has accuracy; known are score"),
    "a detail that is no number": ('print(\'{"score": 1, "details": {"a": "b"}}\')\n', "must be a number"),
}


@pytest.mark.slow
def test_a_trial_leaves_nothing_behind(tmp_path: Path):
    shutil.copytree(ROOT / "examples" / "notes", tmp_path / "notes")
    before = sorted(path.name for path in (tmp_path / "notes").rglob("*"))
    trial = run_trial(tmp_path / "notes", 2)
    assert trial.scores == [1.88, 1.88] and trial.noise == 0 and not trial.changed
    assert sorted(path.name for path in (tmp_path / "notes").rglob("*")) == before
    assert not list(places.root().glob("trial-*"))
    assert run_trial(tmp_path / "notes", replace=b"budget metric\n").scores == [1.98]


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_scoring_command_is_named_by_try_and_by_doctor(task_folder: Callable[..., Path], tmp_path: Path, how: str):
    script, says = BROKEN[how]
    folder = task_folder(NOTHING_RUNS, score__py=script)
    tried = run_trial(folder).runs[0].ended
    assert says in tried.excerpt and tried.failure in ("scoring", "nan")
    workspace = create(tmp_path / "workspace", str(folder))
    (found,) = doctor.of_metric(workspace.root, workspace.data())
    assert found.level == "error" and "autoresearch-mcp try" in found.fix


def test_a_misspelt_script_and_a_missing_file_are_named(task_folder: Callable[..., Path]):
    assert (
        "scoer.py"
        in run_trial(task_folder(NOTHING_RUNS.replace('["{python}", "score.py"]', '["{python}", "scoer.py"]'))).runs[0].scoring
    )
    folder = task_folder(NOTHING_RUNS)
    (folder / "score.py").unlink()
    with pytest.raises(TaskError, match=r"score\.py, and no file is that|score\.py, which cannot be read"):
        run_trial(folder)


def test_a_program_that_is_not_there_is_named(task_folder: Callable[..., Path]):
    with pytest.raises(TaskError, match=r"\{no_such\}, which is not on PATH"):
        run_trial(task_folder(NOTHING_RUNS.replace('"{python}"', '"{no_such}"')))


def test_what_changes_the_files_it_is_made_from_is_told(task_folder: Callable[..., Path], force: Callable[[str], None]):
    force("none")  # elsewhere it could not
    folder = task_folder(NOTHING_RUNS)
    (folder / "score.py").write_text(f"open({str(folder / 'work.py')!r}, 'a').write('#')\nprint(1)\n")
    assert run_trial(folder).changed == ["work.py"]


def test_the_median_of_repeats_counts(task_folder: Callable[..., Path]):
    script = """
import json, pathlib
seen = pathlib.Path("seen")
number = int(seen.read_text()) + 1 if seen.exists() else 0
seen.write_text(str(number))
print(json.dumps({"score": [5, 100, 7][number], "holdout": [1, 3, 2][number], "details": {"n": number} if number else {"n": 9, "m": 1}}))
"""
    ended = run_trial(task_folder(NOTHING_RUNS.replace("command", "repeats = 3\ncommand"), score__py=script)).runs[0].ended
    assert (ended.score, ended.holdout, ended.details) == (7, 2, {"n": 2})


@pytest.mark.slow
def test_settings_answers_and_limits_of_scoring(task_folder: Callable[..., Path]):
    toml = NOTHING_RUNS.replace(
        'command = ["{python}", "score.py"]',
        'command = ["{python}", "score.py"]\nanswer = "descriptor"\ntimeout_seconds = 2\nenv = {WORD = "seven"}',
    )
    script = "import os, json\nprint('{\"score\": 1}')\nos.write(int(os.environ['AUTORESEARCH_ANSWER']), json.dumps({'score': len(os.environ['WORD'])}).encode())\n"
    assert run_trial(task_folder(toml, score__py=script)).scores == [5]
    late = run_trial(task_folder(toml, score__py="import time\ntime.sleep(30)\n")).runs[0].ended
    assert late.failure == "timeout" and "2 s" in late.excerpt


def test_a_baseline_that_cannot_be_scored_is_no_fault_of_the_file(task_folder: Callable[..., Path], tmp_path: Path):
    session = open_session(create(tmp_path / "workspace", str(task_folder(NOTHING_RUNS, score__py="print('fine')\n"))).root)
    run(session)
    now = session.position()
    assert now.allowed == ("run_experiment",) and "tell your human" in now.next and "autoresearch-mcp try" in now.next
    with pytest.raises(NotAllowedError, match="tell your human"):
        session.apply_patch("<<<<<<< SEARCH\nopen\n=======\nprint\n>>>>>>> REPLACE\n")
    assert run(session) == 1, "it may be tried again, as the same experiment"


def test_folders_and_patterns_stand_for_their_files(task_folder: Callable[..., Path], tmp_path: Path):
    folder = task_folder(NOTHING_RUNS.replace('read_only = ["score.py"]', 'read_only = ["score.py", "tests", "lib/**/*.txt"]'))
    for name in ("tests/a.py", "tests/deep/b.py", "lib/c.txt", "lib/x/d.txt", "lib/x/e.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1\n")
    (folder / "score.py").write_text("import os\nprint(sum(len(files) for _, _, files in os.walk('.')))\n")
    assert run_trial(folder).scores == [6]
    session = open_session(create(tmp_path / "workspace", str(folder)).root)
    listed = ["score.py", "tests/a.py", "tests/deep/b.py", "lib/c.txt", "lib/x/d.txt"]
    assert session.task.files.read_only == listed
    run(session)
    assert session.experiment(1).score == 6


def test_a_pattern_that_stands_for_nothing_is_refused(task_folder: Callable[..., Path]):
    with pytest.raises(TaskError, match=r"tests/\*\.py, and no file is that, is in it or matches it"):
        run_trial(task_folder(NOTHING_RUNS.replace('["score.py"]\n', '["score.py", "tests/*.py"]\n', 1)))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["landlock", "none"])
def test_tools_that_look_upwards_find_no_project(
    task_folder: Callable[..., Path], tmp_path: Path, force: Callable[[str], None], level: str
):
    """In a repository with settings of its own, a run of pytest works as anywhere else."""
    force(level)
    toml = (
        NOTHING_RUNS.replace('"score.py"]', '"score.py", "test_it.py"]', 1)
        + '\n[[checks]]\nname = "tests"\ncommand = ["{python}", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]\n'
    )
    folder = task_folder(
        toml,
        score__py="print(1)\n",
        test_it__py="def test_it():\n    pass\n",
        pyproject__toml='[tool.pytest.ini_options]\naddopts = "--no-such-option"\n',
    )
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "mine")
    session = open_session(folder)
    run(session)
    last = session.experiment(1).last
    assert last and last.checks == {"tests": ""}, last
    assert git(folder, "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_committed_change_of_a_pinned_file_is_told(task_folder: Callable[..., Path], tmp_path: Path):
    session = open_session(create(tmp_path / "workspace", str(task_folder(NOTHING_RUNS, score__py="print(1)\n"))).root)
    root = session.workspace.root
    (root / "score.py").write_text("print(2)\n")
    git(root, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qam", "another score")
    assert "Changed since the session began: score.py" in build.status(session).text()
    assert "serve --session NAME" in next(check.fix for check in doctor.examine(root) if check.name == "session")
    again = open_session(root, "second")
    assert not again.stale()
    run(again)
    assert again.experiment(again.state.experiments[-1].number).score == 2


def test_data_that_is_not_there_is_the_next_step(task_folder: Callable[..., Path], tmp_path: Path):
    data = '\n[data]\nprepare = ["{python}", "-c", "import pathlib, sys; pathlib.Path(sys.argv[1], \'x\').write_text(\'1\')", "{data}"]\nsealed = ["x"]\n'
    session = open_session(create(tmp_path / "workspace", str(task_folder(NOTHING_RUNS + data, score__py="print(1)\n"))).root)
    assert "autoresearch-mcp prepare" in session.position().next
    session.data.prepare(session.workspace.root)  # into a folder that is there
    assert session.position().next == "call run_experiment with no change, to run the baseline"


def test_what_a_trial_says_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from autoresearch_mcp.cli import app

    shutil.copytree(ROOT / "examples" / "notes", tmp_path / "notes")
    app(["try", "--workspace", str(tmp_path / "notes"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["scores"] == [1.88]


def test_data_is_made_anew_where_its_sources_have_changed(task_folder: Callable[..., Path]):
    copy = "import pathlib, sys; pathlib.Path(sys.argv[1], 'x').write_bytes(pathlib.Path('source.txt').read_bytes())"
    data = f'\n[data]\nsources = ["source.txt"]\nprepare = ["{{python}}", "-c", {json.dumps(copy)}, "{{data}}"]\nsealed = ["x"]\n'
    toml = NOTHING_RUNS.replace('["{python}", "score.py"]', '["{python}", "score.py", "{data}"]') + data
    for number in ("1", "2"):
        folder = task_folder(toml, score__py="import sys\nprint(open(sys.argv[1] + '/x').read())\n", source__txt=number)
        assert run_trial(folder).scores == [float(number)]


def test_data_whose_making_failed_is_not_there(task_folder: Callable[..., Path]):
    makes = (
        "import pathlib, sys; pathlib.Path(sys.argv[1], 'x').write_text('1'); sys.exit(not pathlib.Path('source.txt').read_text())"
    )
    data = f'\n[data]\nsources = ["source.txt"]\nprepare = ["{{python}}", "-c", {json.dumps(makes)}, "{{data}}"]\nsealed = ["x"]\n'
    folder = task_folder(NOTHING_RUNS + data, score__py="print(1)\n", source__txt="")
    for _ in range(2):
        with pytest.raises(TaskError, match="exit status 1; missing: x"):
            run_trial(folder)


def test_a_program_that_is_a_link_is_found_by_its_name(
    task_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mine").symlink_to("/bin/echo")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert run_trial(task_folder(NOTHING_RUNS.replace('["{python}", "score.py"]', '["{mine}", "7"]'))).scores == [7]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"score.py"]\n\n[fail', '"work.py"]\n\n[fail', "it would say its own score"),
        ('outputs = ["result.txt"]', 'outputs = ["score.py"]', "a run would replace it"),
        ('outputs = ["result.txt"]', 'outputs = ["work.py"]', "a run would replace it"),
    ],
)
def test_a_task_that_is_forged_by_design_is_refused(old: str, new: str, says: str):
    assert old in TOY
    with pytest.raises(TaskError, match=says):
        parse_task(TOY.replace(old, new))


def test_a_program_in_a_project_shows_nothing_of_it(tmp_path: Path):
    for name in ("project/bin", "tool/bin"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x").touch()
    (tmp_path / "project" / ".git").mkdir()
    assert visible.installation(tmp_path / "project/bin/x") == tmp_path / "project/bin/x"
    assert visible.installation(tmp_path / "tool/bin/x") == tmp_path / "tool"
    assert visible.installation(Path.home() / ".local/bin/x") == Path.home() / ".local/bin/x"


def test_what_a_killed_trial_left_is_swept(task_folder: Callable[..., Path]):
    folder = task_folder(NOTHING_RUNS, score__py="import time\ntime.sleep(60)\n")
    process = subprocess.Popen([sys.executable, "-P", "-m", "autoresearch_mcp.cli", "try", "--workspace", str(folder)])
    deadline = time.monotonic() + 60
    while not list(places.root().glob("trial-*/scoring")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) != 0
    assert not list(places.root().glob("trial-*"))


def test_where_a_holdout_is_told_no_agent_reads_what_scoring_printed(task_folder: Callable[..., Path], tmp_path: Path):
    script = 'print(\'{"score": 1, "holdout": 0.777}\')\n'
    session = open_session(create(tmp_path / "workspace", str(task_folder(NOTHING_RUNS, score__py=script))).root)
    run(session)
    assert "scoring" not in " ".join(build.status(session).references)
    with pytest.raises(NotFoundError):
        build.reference(session, "scoring:1")


@pytest.mark.slow
def test_doctor_prepares_nothing_and_says_what_is_wrong(task_folder: Callable[..., Path], tmp_path: Path):
    root = create(tmp_path / "workspace", str(task_folder(NOTHING_RUNS, score__py="print(1)\n"))).root
    open_session(root)
    (root / "autoresearch.toml").write_text(NOTHING_RUNS.replace('"{python}"', '"{no_such}"'))
    found = {check.name: check for check in doctor.examine(root)}["metric"]
    assert found.level == "error" and "{no_such}" in found.found


@pytest.mark.slow
def test_doctor_scores_long_tasks_when_told(task_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    long = (
        NOTHING_RUNS
        + '\n[run]\ncommand = ["{python}", "-c", "import time; time.sleep(0.2); print(\\"total_tokens_M:   0.02\\")"]\nbudget_seconds = 600\noutputs = []\n'
    )
    root = create(tmp_path / "workspace", str(task_folder(long, score__py="print('no number')\n"))).root
    data = Workspace(root).data()
    (said,) = doctor.of_metric(root, data)
    assert said.level == "ok" and "600 s" in said.found and "--score" in said.fix
    command = ["doctor", "--score", "--workspace", str(root)]
    assert app(command, standalone_mode=False) == 1
    told = capsys.readouterr()
    assert "no number and no JSON" in told.out and "run 1 of 2" in told.err and "run 2" not in told.err  # one failure is enough
    (root / "score.py").write_text("print(2)\n")
    assert not app(command, standalone_mode=False)
    told = capsys.readouterr()
    assert re.search(r"score 2.000000 and 2.000000; \d?\d,\d{3} tokens a second", told.out)
    assert "run 2 of 2" in told.err
    assert "metric" not in {check.name for check in doctor.examine(root, score=False)}


def test_doctor_says_which_preset_fits_and_which_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def preset(gpu: float | None) -> doctor.Check:
        monkeypatch.setattr(doctor, "smallest_gpu", lambda: gpu)
        monkeypatch.setattr(doctor, "fitting", lambda presets: fitting.choose(presets, gpu))
        return {check.name: check for check in doctor.examine(tmp_path, score=False)}["preset"]

    assert preset(None).found == "cpu fits the default task here"
    assert preset(22.5).found == "gpu-24 fits the default task here: the GPU has 22 GiB"
    text = (ROOT / "harness" / "autoresearch.toml").read_text()
    (tmp_path / "autoresearch.toml").write_text(text.replace('preset = "cpu"', 'preset = "gpu"'))
    assert preset(79.6).level == "ok"
    found = preset(22.5)
    assert found.level == "warning" and "gpu is for 80 GiB, the GPU has 22" in found.found and "picks gpu-24" in found.fix
    assert preset(None).level == "warning" and "gpu is for 80 GiB, this machine has no GPU" in preset(None).found
