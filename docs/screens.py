"""Writes screens.md and its picture beside this file: a night of seventeen changes, and all that its human sees in the morning.

    .venv/bin/python docs/screens.py

Sessions, git, ledger, runs, verdicts and commands are the real ones. The task is a stand-in that takes no time: a score made from
the settings in the file and noise that the run's seed decides, so that it is known which changes help.
"""

import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from typer.testing import CliRunner

from autoresearch_mcp import cli
from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.views import build
from autoresearch_mcp.workspace import Workspace

PAGE = Path(__file__).with_suffix(".md")
PICTURES = Path(__file__).parent / "pictures"

TASK = """
name = "stand-in"
goal = "Lower val_bpb, which train.py's settings decide, and luck."

[files]
editable = "train.py"
read_only = ["score.py"]

[run]
command = ["{python}", "train.py"]
outputs = ["settings.json"]
budget_seconds = 40
progress = 'step +(?P<x>[0-9]+) loss (?P<y>[0-9.]+)'

[metric]
name = "val_bpb"
direction = "minimize"
command = ["{python}", "score.py"]
"""
TRAIN = """import json
import os
import time

PACE = 0.0
LEARNING_RATE = 0.02
WIDTH = 128
WARMDOWN = 0.5
MOMENTUM = 0.9
ACTIVATION = "gelu"
WINDOW = 64

settings = {name: value for name, value in globals().items() if name.isupper()}
settings["seed"] = int(os.environ["AUTORESEARCH_SEED"])
with open("settings.json", "w") as file:
    json.dump(settings, file)
for step in range(0, 400, 4):
    time.sleep(PACE)
    loss = 1.6 + 3.4 / (1 + LEARNING_RATE * step) + 0.02 * (step * 7919 % 13) / (1 + step / 40)
    print(f"step {step:4} loss {loss:.4f}", flush=True)
"""
SCORE = """import json
from math import log
from random import Random

s = json.load(open("settings.json"))
best = 1.62 + 0.03 * log(s["LEARNING_RATE"] / 0.04) ** 2 + 0.02 * (s["WARMDOWN"] - 0.7) ** 2
best += 0.02 * log(s["WIDTH"] / 192) ** 2 - (0.018 if s["ACTIVATION"] == "relu2" else 0)
unlucky = Random(json.dumps(s))
val = best + unlucky.gauss(0, 0.003)
print(json.dumps({"score": val, "holdout": val + 0.02 + unlucky.gauss(0, 0.001)}))
"""
CHANGES = (  # what stands there, what comes, and what is said of it
    ("MOMENTUM = 0.9", "MOMENTUM = 0.95", "momentum 0.95"),
    ("LEARNING_RATE = 0.02", "LEARNING_RATE = 0.03", "learning rate 0.03: steps are few, so they may be larger"),
    ("WINDOW = 64", "WINDOW = 32", "half the attention window"),
    ("WARMDOWN = 0.5", "WARMDOWN = 0.6", "longer warm-down"),
    ('ACTIVATION = "gelu"', 'ACTIVATION = "relu2"', "squared ReLU in the MLP"),
    ("MOMENTUM = 0.9", "MOMENTUM = 0.85", "momentum 0.85"),
    ("WIDTH = 128", "WIDTH = 512", "four times the width"),
    ("WIDTH = 128", "WIDTH = 0 / 0", "no width at all"),
    ("LEARNING_RATE = 0.03", "LEARNING_RATE = 0.036", "learning rate 0.036"),
    ("WINDOW = 64", "WINDOW = 128", "the whole context as window"),
    ("WIDTH = 128", "WIDTH = 176", "a wider model"),
    ("MOMENTUM = 0.9", "MOMENTUM = 0.8", "momentum 0.8"),
    ("WARMDOWN = 0.5", "WARMDOWN = 0.65", "longer warm-down, on the better learning rate"),
    ("WINDOW = 64", "WINDOW = 48", "three quarters of the window"),
    ("WIDTH = 176", "WIDTH = 160", "somewhat narrower again"),
    ("MOMENTUM = 0.9", "MOMENTUM = 0.92", "momentum 0.92"),
)
LOOKED_AT = ("PACE = 0.0", "PACE = 0.39", "the same at a slower pace, to be looked at")
PAGES = (  # picture, view, size, theme
    ("page-night", "night", (1360, 1010), "light"),
    ("page-night-dark", "night", (1360, 1010), "dark"),
    ("page-experiment", "experiment/6", (1360, 900), "light"),
    ("page-morning", "morning", (1360, 900), "light"),
    ("page-phone", "night", (390, 844), "dark"),
)

HEAD = """\
# Screens

For whoever wants to see a morning before the first night. Written by `docs/screens.py`: the commands and what they print are real,
the task is a stand-in that takes no time. Its noise is 0.003 a run; learning rate, width, warm-down and the activation matter,
window and momentum do not.
"""
SCREENS = (
    ("status", "Where the night stands, for agent and human; the holdout is added for humans alone."),
    ("log", "Every experiment: the mean of its runs, how many, and the gain over the best of its time when it was judged."),
    ("verify", "Baseline and best again, in turns, on seeds that the night never had."),
    ("ablate", "The best without each kept change, one at a time."),
    ("finalize", "A branch for a pull request, and the report below."),
)


def night(session: Session) -> None:
    judge(session, session.run_experiment("baseline")[0])
    for before, after, told in CHANGES:
        if before not in session.read().text:
            continue  # the change that it builds on was not kept
        session.apply_patch(f"<<<<<<< SEARCH\n{before}\n=======\n{after}\n>>>>>>> REPLACE\n")
        judge(session, session.run_experiment(told)[0])


def judge(session: Session, number: int) -> None:
    """Waits, and does what is suggested."""
    while session.waits(number):
        time.sleep(0.05)
        session.advance()
    if build.result(session).suggestion == "keep":
        session.keep()
    else:
        session.discard()


def shown(command: str, folder: Path) -> str:
    runner = CliRunner(env={"COLUMNS": "132", "TERM": "dumb"})
    said = runner.invoke(cli.app, [command, "--workspace", str(folder)])
    assert said.exit_code == 0, said.output
    return "\n".join(line.rstrip() for line in said.stdout.replace(str(folder), "~/research").splitlines())


def pictures(session: Session, folder: Path) -> None:
    """The page in Chromium while a run is on, and the card."""
    from playwright.sync_api import sync_playwright

    before, after, told = LOOKED_AT
    session.apply_patch(f"<<<<<<< SEARCH\n{before}\n=======\n{after}\n>>>>>>> REPLACE\n")
    number, _ = session.run_experiment(told)
    command = [
        sys.executable,
        "-P",
        "-m",
        "autoresearch_mcp.cli",
        "dashboard",
        "--workspace",
        str(folder),
        "--port",
        "0",
        "--without-link",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        time.sleep(9)  # until there is a curve to be seen
        for name, view, (width, height), theme in PAGES:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme, device_scale_factor=1.5)
            page.goto(f"{address}/#/{view}")
            page.wait_for_selector("dialog[open] .diff" if "/" in view else ".stats, .morning h1")
            page.wait_for_timeout(1200)
            page.screenshot(path=PICTURES / f"{name}.png")
            page.close()
        browser.close()
        server.terminate()
    session.stop(for_human=True, number=number)
    shown("card", folder)
    shutil.copy(folder / "card.png", PICTURES / "card.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        task, folder = Path(made) / "task", Path(made) / "research"
        task.mkdir()
        for name, text in (("autoresearch.toml", TASK), ("train.py", TRAIN), ("score.py", SCORE)):
            (task / name).write_text(text)
        workspace = Workspace(create(folder, str(task)).root)
        session = Session.start(workspace, open_ledger(workspace), "nov28")
        night(session)
        lines = [HEAD]
        for command, told in SCREENS:
            lines += [f"## {command}", "", told, "", "```", f"$ autoresearch-mcp {command}", shown(command, folder), "```", ""]
        PICTURES.mkdir(exist_ok=True)
        shutil.copy(folder / "report" / "progress.png", PICTURES / "progress.png")
        report = (folder / "report" / "report.md").read_text().replace("(progress.png)", "(pictures/progress.png)")
        lines += ["## The report", "", textwrap.indent(report.rstrip(), "> ", lambda line: True).replace("> \n", ">\n"), ""]
        pictures(session, folder)
        lines += ["## The page", "", "`autoresearch-mcp dashboard`, while a run is on ([dashboard.md](dashboard.md)):", ""]
        lines += [line for name, *_ in PAGES for line in (f"![{name}](pictures/{name}.png)", "")]
        lines += ["And its card, to share:", "", "![card](pictures/card.png)", ""]
        PAGE.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
