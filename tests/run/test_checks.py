"""Checks and secondary metrics through real runs: what fails is named, what is forged is not believed, and neither lets a keep pass."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.views import build
from conftest import ended, open_session, replace, run

SCORE = """
import json

text = open("work.py").read()
print(json.dumps({"score": text.count("x"), "details": {"size": len(text)}}))
"""


def task(*checks: str, more: str = "") -> str:
    tables = "".join(f"\n[[checks]]\n{check}\n" for check in checks)
    return f"""
name = "toy"
goal = "Raise score."
[files]
editable = "work.py"
read_only = ["score.py", "test_it.py"]
[metric]
name = "score"
direction = "maximize"
confidence = "single"
command = ["{{python}}", "score.py"]
{more}{tables}"""


COMPILES = 'name = "compiles"\ncommand = ["{python}", "-m", "py_compile", "{file}"]'
TESTS = 'name = "tests"\ncommand = ["{python}", "test_it.py"]\nexecutes = true'
UNSEEN = 'name = "unseen"\ncommand = ["{python}", "test_it.py"]'
IMPORTS = "import work\nassert work.double(2) == 4, work.double(2)\n"


@pytest.fixture
def checked(task_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., Session]:
    def make(toml: str, work: str = "def double(x):\n    return 2 * x\n", test: str = IMPORTS) -> Session:
        folder = task_folder(toml, work__py=work, score__py=SCORE, test_it__py=test)
        return open_session(create(tmp_path / "workspace", str(folder)).root)

    return make


def change(session: Session, text: str) -> int:
    replace(session, textwrap.dedent(text))
    return run(session)


@pytest.mark.slow
def test_a_better_score_with_a_failing_check_is_not_kept(checked: Callable[..., Session]):
    session = checked(task(TESTS, COMPILES))
    run(session)
    session.keep()
    assert ended(session).checks == {"tests": "", "compiles": ""}

    change(session, "def double(x):\n    return 3 * x  # xxx\n")
    assert ended(session, 2).score == 5 and "AssertionError: 6" in ended(session, 2).checks["tests"]
    with pytest.raises(NotAllowedError, match="check `tests` failed: exit status 1; "):
        session.keep()
    answer = build.result(session, 2)
    assert answer.checks == {"tests": "exit status 1", "compiles": "passed"}
    excerpt = answer.structured()["checks_excerpt"]
    assert "AssertionError: 6" in excerpt and "untrusted" in excerpt and "untrusted" in answer.text()
    session.discard()
    change(session, "def double(x):\n    return x + x  # xx\n")
    session.keep()
    assert session.state.best and session.state.best.number == 3


def test_a_check_that_says_nothing_of_it_cannot_import_the_file(checked: Callable[..., Session]):
    session = checked(task(UNSEEN))
    run(session)
    assert "No module named 'work'" in ended(session).checks["unseen"]


@pytest.mark.slow
def test_a_file_cannot_end_a_check_that_reads_it_as_data(checked: Callable[..., Session]):
    session = checked(task(COMPILES, UNSEEN), test='import sys; sys.exit("import os" in open(".edited/work.py").read())\n')
    run(session)
    session.keep()
    change(session, "import os\nos._exit(0)  # xxxxxx\n")
    assert ended(session, 2).checks["compiles"] == "" and ended(session, 2).checks["unseen"]
    with pytest.raises(NotAllowedError, match="check `unseen` failed"):
        session.keep()


def test_files_of_a_run_are_not_planted_among_those_of_a_check(checked: Callable[..., Session]):
    plants = "open('sitecustomize.py', 'w').write('import os; os._exit(0)')\n"
    toml = task(TESTS).replace("[metric]", '[run]\ncommand = ["{python}", "work.py"]\nbudget_seconds = 20\n[metric]')
    session = checked(toml, work=plants + "open('conftest.py', 'w').write('')\n", test="assert 1 == 2\n")
    run(session)
    assert "AssertionError" in ended(session).checks["tests"]


@pytest.mark.slow
def test_a_check_is_ended_when_its_time_is_up(checked: Callable[..., Session]):
    session = checked(task(TESTS + "\ntimeout_seconds = 1"), test="import time\ntime.sleep(60)\n")
    run(session)
    assert ended(session).checks["tests"].startswith("it took longer than 1 s")
    assert ended(session).seconds["checks"] < 20


def test_a_check_is_made_in_every_run_for_a_run_knows_its_seed(checked: Callable[..., Session]):
    session = checked(task(COMPILES).replace('"single"', "0.9"))
    run(session)
    runs = [past.ended for past in session.experiment(1).runs]
    assert [bool(past and past.checks) for past in runs] == [True] * len(runs) and len(runs) > 1


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("at_most = 45", "is beyond its limit, at most 45 bytes"),
        ("at_least = 200", "is beyond its limit, at least 200 bytes"),
        ('worse_percent = 10\ndirection = "minimize"', "no more than 10 % worse than the baseline's 32"),
    ],
)
def test_a_secondary_metric_beyond_its_limit_bars_a_keep(checked: Callable[..., Session], limit: str, says: str):
    more = f'\n[[secondary]]\nname = "size"\nunit = "bytes"\n{limit}\n'
    session = checked(task() + more)
    run(session)
    session.keep()  # a baseline is what there is
    change(session, "def double(x):\n    return x + x  # xxxxxxxxxxxxxxxxx\n")
    with pytest.raises(NotAllowedError, match=says):
        session.keep()


def test_a_secondary_metric_within_its_limit_bars_nothing(checked: Callable[..., Session]):
    session = checked(task() + '\n[[secondary]]\nname = "size"\nworse_percent = 10\ndirection = "maximize"\nat_most = 60\n')
    run(session)
    session.keep()
    change(session, "def double(x):\n    return x + x  # xxxxxxxxxx\n")
    session.keep()


def test_a_limit_on_what_nobody_measures_is_the_humans_to_mend(checked: Callable[..., Session]):
    session = checked(task() + '\n[[secondary]]\nname = "latency"\nat_most = 1\n')
    run(session)
    session.keep()
    verdict = session.experiment(1).verdict
    assert verdict and "gives no latency" in verdict.reason and "Tell your human" in verdict.reason
