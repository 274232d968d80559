"""Hostile files against a task of one's own, without a sandbox and in the strongest: a program that is run, scored by a command, checked, and asked in
a child. None gets a number that it did not earn, and none touches what it is scored by.
"""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.errors import NotAllowedError, PatchError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.trial import run_trial
from conftest import ended, open_session, replace, run

LEVELS = ("none", "bubblewrap") if sys.platform == "linux" else ("none", "seatbelt")  # the weakest and the strongest
TASK = """
name = "sums"
goal = "Lower cost, the numbers that solve.py needs to reach a sum."
[files]
editable = "solve.py"
read_only = ["score.py", "test_solve.py"]
[run]
command = ["{python}", "solve.py"]
outputs = ["answer.json"]
budget_seconds = 20
grace_seconds = 1
output_bytes = 100000
[metric]
name = "cost"
direction = "minimize"
confidence = "single"
command = ["{python}", "score.py"]
[[checks]]
name = "honest"
command = ["{python}", "test_solve.py", "{file}"]
[[secondary]]
name = "milliseconds"
at_most = 2000
"""
HONEST = """
import json
def double(x):
    return 2 * x
json.dump([1] * 10, open("answer.json", "w"))
"""
SCORE = """
import json
from autoresearch_mcp.evaluate.child import Function, answer

numbers = json.load(open("answer.json"))
if not isinstance(numbers, list) or any(type(number) is not int or not 0 < number < 9 for number in numbers) or sum(numbers) != 10:
    answer(refused="answer.json is no list of digits with the sum 10", failure="error")
    raise SystemExit
with Function("solve.py", "double", seconds=20) as double:
    if any(double(x) != 2 * x for x in (3, 17)):
        answer(refused="double is wrong", failure="error")
        raise SystemExit
answer(score=len(numbers), details={"milliseconds": 1000 * double.elapsed})
"""
CHECK = """
import sys
text = open(sys.argv[1]).read()
sys.exit("BREACH" in text)
"""
ATTACKS = {
    "print a number": "print(0)\nprint('{\"score\": 0}')\n",
    "end with status 0 and no output": "import os\nos.remove('answer.json')\nos._exit(0)\n",
    "edit the evaluator": "open('score.py', 'w').write('print(0)')\n",
    "edit the evaluator's copy": "import glob\nfor path in glob.glob('../*/score.py'):\n    open(path, 'w').write('print(0)')\n",
    "plant modules": "for name in ('json.py', 'sitecustomize.py', 'conftest.py', 'autoresearch_mcp.py'):\n    open(name, 'w').write('print(0); import os; os._exit(0)')\n",
    "a link as output": "import os\nos.remove('answer.json')\nos.symlink('score.py', 'answer.json')\n",
    "a pipe as output": "import os\nos.remove('answer.json')\nos.mkfifo('answer.json')\n",
    "an output too large": "open('answer.json', 'w').write('[' + '1,' * 200000 + '1]')\n",
    "an output that changes later": "import os, time\nif os.fork() == 0:\n    time.sleep(0.5)\n    open('answer.json', 'w').write('[]')\n    os._exit(0)\n",
    "numbers that are none": "json.dump([True] * 2 + [4, 4], open('answer.json', 'w'))\n",
    "a sum by infinity": "open('answer.json', 'w').write('[Infinity, -Infinity, 10]')\n",
    "another clock": "import time\ntime.time = time.monotonic = time.perf_counter = lambda: 0.0\n",
    "slow where it is timed": "import time\nif __name__ != '__main__':\n    def double(x):\n        time.sleep(3)\n        return 2 * x\n",
    "answers on every descriptor": "import os\nif __name__ != '__main__':\n    for fd in range(1, 20):\n        try: os.write(fd, b'{\"score\": 0}\\n')\n        except OSError: pass\n",
    "a child that dies": "import os\nif __name__ != '__main__':\n    os._exit(0)\n",
    "kill who asks": "import os, signal\nif __name__ != '__main__':\n    os.kill(os.getppid(), signal.SIGKILL)\n",
    "an exit where it is checked": "import sys\nif sys.argv[-1:] == ['x']: sys.exit(0)  # BREACH\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", ATTACKS)
def test_a_hostile_file_earns_nothing(tmp_path: Path, force: Callable[[str], None], how: str, level: str):
    force(level)
    files = {"autoresearch.toml": TASK, "solve.py": HONEST + ATTACKS[how], "score.py": SCORE, "test_solve.py": CHECK}
    for name, text in files.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    trial = run_trial(tmp_path)
    (tried,) = trial.runs
    honest = tried.ended.score == 10
    barred = tried.ended.checks.get("honest") or tried.ended.details.get("milliseconds", 0) > 2000
    assert tried.ended.score is None or honest or barred, tried
    assert not trial.changed
    if how in ("print a number", "another clock", "plant modules"):
        assert honest, tried.ended
    if how in ("an exit where it is checked", "slow where it is timed"):
        assert barred and not (tried.ended.score or 10) < 10


@pytest.fixture
def session(tmp_path: Path) -> Session:
    folder = tmp_path / "task"
    folder.mkdir()
    for name, text in {"autoresearch.toml": TASK, "solve.py": HONEST, "score.py": SCORE, "test_solve.py": CHECK}.items():
        (folder / name).write_text(text)
    return open_session(create(tmp_path / "workspace", str(folder)).root)


@pytest.mark.slow
def test_the_evaluator_is_no_file_of_the_agents(session: Session):
    run(session)
    session.keep()
    patch = "--- a/score.py\n+++ b/score.py\n@@ -1 +1 @@\n-\n+print(0)\n"
    with pytest.raises(PatchError):
        session.apply_patch(patch)
    (session.worktree.root / "score.py").write_text("print(0)\n")  # by a shell that it should not have
    replace(session, HONEST.replace("[1] * 10", "[5, 5]"))
    run(session)
    assert ended(session, 2).score == 2, "the pinned one scores"
    session.keep()


@pytest.mark.slow
def test_what_a_check_or_a_limit_bars_is_not_kept(session: Session):
    run(session)
    session.keep()
    replace(session, HONEST.replace("[1] * 10", "[5, 5]") + "# BREACH\n")
    run(session)
    with pytest.raises(NotAllowedError, match="check `honest` failed"):
        session.keep()
