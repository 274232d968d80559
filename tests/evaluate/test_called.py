"""A scoring command that has the editable file executed in a child: what comes back is data, and the file's tricks are its own fault."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.loop.trial import Tried, run_trial

TASK = """
name = "child"
goal = "Raise score."
[files]
editable = "work.py"
read_only = ["score.py", "helper.py"]
[metric]
name = "score"
direction = "maximize"
command = ["{python}", "score.py"]
timeout_seconds = 30
"""
SCORE = """
import os, sys
from autoresearch_mcp.evaluate.child import Child, Function, answer

with Function("work.py", "work", seconds=SECONDS) as work:
    values = [work(number, [number] * 3) for number in range(4)]
assert "work" not in sys.modules and "edited" not in sys.modules
answer(score=sum(values), details={"calls": len(values)})
"""
SEALED = """
[data]
prepare = ["{python}", "-c", "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); (p / 'key').write_text('secret')", "{data}"]
sealed = ["key"]
"""


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[..., Tried]:
    def make(work: str, score: str = SCORE, seconds: float = 10, toml: str = TASK) -> Tried:
        files = {
            "work.py": work,
            "score.py": score.replace("SECONDS", str(seconds)),
            "helper.py": "THREE = 3\n",
            "autoresearch.toml": toml,
        }
        for name, text in files.items():
            (tmp_path / name).write_text(textwrap.dedent(text))
        return run_trial(tmp_path).runs[0]

    return make


def test_outputs_come_back_as_data(attempt: Callable[..., Tried]):
    tried = attempt("from helper import THREE\ndef work(number, more):\n    print('seen')\n    return number * THREE + len(more)\n")
    assert tried.ended.score == 18 + 12 and tried.ended.details == {"calls": 4}
    assert tried.output.count("seen") == 4, "what the file prints is in the run's log, and is no answer"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "failure", "says"),
    [
        ("import os\nos._exit(0)\n", "error", "it ended before it had answered"),
        ("def work(*_):\n    raise SystemExit(0)\n", "error", "it ended before it had answered"),
        ("print(100)\ndef work(*_):\n    return float('nan')\n", "error", "no JSON"),
        ("def work(*_):\n    while True: pass\n", "timeout", "too long"),
        ("def work(*_):\n    return 'x' * (1 << 27)\n", "error", "more than 64 MiB"),
        ("import sys\nsys.modules['json'] = None\ndef work(*_):\n    return object()\n", "error", "ended"),
        ("x = ", "error", "ended"),
        ("import os\nos.write(3, b'7\\n' * 5)\ndef work(*_):\n    return 7\n", "error", "before it was asked"),
        ("import math\ndef work(*_):\n    return math.inf\n", "error", "no JSON"),
    ],
)
def test_a_file_that_gives_no_answer_is_at_fault_itself(attempt: Callable[..., Tried], work: str, failure: str, says: str):
    tried = attempt(work, seconds=1.5 if failure == "timeout" else 20)
    assert (tried.ended.outcome, tried.ended.failure) == ("refused", failure) and says in tried.ended.excerpt, tried.ended.excerpt


@pytest.mark.slow
def test_a_broken_scoring_command_is_not_the_files_fault(attempt: Callable[..., Tried]):
    tried = attempt("def work(*_):\n    return 'text'\n")
    assert tried.ended.failure == "scoring" and "TypeError" in tried.ended.excerpt


@pytest.mark.slow
@pytest.mark.parametrize("level", ["bubblewrap", "landlock"])
def test_the_child_sees_nothing_sealed_and_no_answer(attempt: Callable[..., Tried], force: Callable[[str], None], level: str):
    force(level)
    hostile = """
    import os
    def work(number, more):
        found = []
        for name, value in os.environ.items():
            if name in ("AUTORESEARCH_ANSWER", "AUTORESEARCH_CALLS"):
                found.append(name)
        for fd in range(3, 64):
            try:
                os.write(fd, b'{"score": 1000}')
                found.append(fd) if fd > 4 else None
            except OSError:
                pass
        for place, _, files in os.walk(os.path.dirname(os.getcwd())):
            if "key" in files:
                found.append(place)
        try:
            import autoresearch_mcp
            found.append("ours")
        except ImportError:
            pass
        return len(found)
    """
    score = SCORE.replace("work.py", "work.py").replace("values)", "values)")
    tried = attempt(hostile, score, toml=TASK + SEALED)
    assert tried.ended.score in (0, None), tried.ended


@pytest.mark.slow
def test_children_at_work_at_once_and_again(attempt: Callable[..., Tried]):
    score = """
    from autoresearch_mcp.evaluate.child import Child, ChildError, Function, answer
    children = [Child(["{python}", "-c", "import sys\\nfor line in sys.stdin: print(len(line), flush=True)"]) for _ in range(3)]
    total = sum(child.ask(["x"] * 100_000) for child in children)
    for child in children:
        child.close()
    try:
        Child(["no-such-program"]).ask(1)
    except ChildError as error:
        total += 1
    with Function("work.py", "work") as work:
        answer(score=total + work())
        assert work.elapsed > 0
    """
    tried = attempt("def work():\n    return 1\n", score)
    assert tried.ended.score == 3 * 500_001 + 2, tried.scoring


def test_nobody_else_has_children():
    from autoresearch_mcp.evaluate.child import Child

    with pytest.raises(RuntimeError, match="autoresearch-mcp try"):
        Child(["true"])


@pytest.mark.slow
def test_children_one_after_the_other(attempt: Callable[..., Tried]):
    score = """
    from autoresearch_mcp.evaluate.child import Function, answer
    total = 0
    for number in range(12):
        with Function("work.py", "work") as work:
            total += work(number)
    answer(score=total)
    """
    work = "import sys\nprint('x' * 100_000)\nprint('y' * 100_000, file=sys.stderr)\ndef work(number):\n    print('z' * 100_000)\n    return number\n"
    assert attempt(work, score).ended.score == sum(range(12))


@pytest.mark.slow
def test_what_the_run_left_is_there_and_what_a_child_leaves_is_not_kept(attempt: Callable[..., Tried]):
    toml = TASK.replace(
        "[metric]", '[run]\ncommand = ["{python}", "work.py"]\noutputs = ["program"]\nbudget_seconds = 20\n[metric]'
    )
    work = """
    import os, sys
    with open("program", "w") as file:
        file.write("#!/bin/sh\\nwhile read line; do echo 5; done\\n")
    os.chmod("program", 0o755)
    """
    score = """
    import os
    from autoresearch_mcp.evaluate.child import Child, answer
    total = 0
    for _ in range(3):
        with Child(["./program"]) as child:
            total += child.ask(1)
    answer(score=total)
    """
    assert attempt(work, score, toml=toml).ended.score == 15


def test_a_child_that_fills_the_disk_is_ended(attempt: Callable[..., Tried]):
    work = """
    import time
    def work(*_):
        for number in range(40):
            open(str(number), "wb").write(bytes(1 << 20))
        time.sleep(30)
    """
    ended = attempt(work, seconds=25, toml=TASK + "[sandbox]\ndisk_mb = 20\n").ended
    assert ended.failure == "killed" and "disk_mb" in ended.excerpt
