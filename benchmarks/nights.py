"""What nights conclude: simulated ones of 100 changes, judged by the server's rule and by the greedy one (one run, keep what is
better), side by side on the same changes.

    python benchmarks/nights.py [NIGHTS]
    python benchmarks/nights.py real [NIGHTS]    the first three kinds in turn, through sessions with git, ledger and
                                                 processes, each beside the rule alone on the same draws: they must agree

The rule is the server's own (record/noise.py), fed by the same steps as the fold over the ledger. A noise unit is the standard
deviation of one run. False: changes kept that do not help; claimed: the gain that the server would state at the end.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isclose, sqrt
from pathlib import Path
from statistics import fmean

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.runs import SEED
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.record.noise import decide, significance
from autoresearch_mcp.record.standing import Standing
from autoresearch_mcp.workspace import Workspace

CHANGES, BASELINE_RUNS, START = 100, 3, 1000
TASK = """
name = "noisy"
goal = "Raise score."

[files]
editable = "work.py"
read_only = ["score.py"]

[run]
command = ["{python}", "work.py"]
outputs = ["out"]

[metric]
name = "score"
direction = "maximize"
command = ["{python}", "score.py"]
"""


@dataclass(frozen=True)
class Kind:
    name: str
    effect: float = 0.0
    """Noise units by which every third change helps."""
    tails: bool = False
    """Student's t with 3 degrees of freedom instead of Gaussian noise, of the same deviation."""
    drift: float = 0.0
    """Noise units by which the machine changes from the first change to the last."""
    growth: float = 0.0
    """By how much the noise has grown when everything that helps is kept: 1 is double."""


KINDS = (
    Kind("nothing helps"),
    Kind("every third helps by 2", effect=2),
    Kind("every third helps by 4", effect=4),
    Kind("heavy tails, nothing helps", tails=True),
    Kind("heavy tails, every third by 2", effect=2, tails=True),
    Kind("machine gets better by 2, nothing helps", drift=2),
    Kind("machine gets worse by 2, nothing helps", drift=-2),
    Kind("noise doubles, every third by 2", effect=2, growth=1),
    Kind("noise doubles, every third by 4", effect=4, growth=1),
    Kind("noise quadruples, every third by 4", effect=4, growth=3),
)


class Machine:
    """Scores runs of a file whose true gain over the baseline is known."""

    def __init__(self, kind: Kind, seed: int):
        self._kind, self._random, self.runs, self.change, self.unit = kind, random.Random(seed), 0, 0, 1.0

    def run(self, gain: float, change: int) -> float:
        """The score of a file of this gain, the one that `change` made."""
        self.runs += 1
        noise = self._random.gauss(0, 1)
        if self._kind.tails:
            noise /= sqrt(sum(self._random.gauss(0, 1) ** 2 for _ in range(3)))
        return gain + self._kind.drift * self.change / CHANGES + self.unit * noise

    def effect(self, change: int, gain: float) -> float:
        """Of the next change, made to a file of this gain."""
        kind, self.change = self._kind, change
        self.unit = 1 + kind.growth * max(gain, 0.0) / (kind.effect * CHANGES / 3) if kind.growth else 1.0
        return kind.effect * self.unit if change % 3 == 2 else 0.0


class SameDraws(Machine):
    """Gives each file what its runs in a session score: their noise is a function of night, change and the run's seed."""

    def __init__(self, kind: Kind, seed: int):
        super().__init__(kind, seed)
        self._seed, self._of_file = seed, Counter[int]()

    def run(self, gain: float, change: int) -> float:
        self.runs += 1
        self._of_file[change] += 1
        return START + gain + random.Random(f"{SEED + self._of_file[change] - 1} {self._seed} {change}").gauss(0, 1)


@dataclass
class Night:
    false: int = 0
    found: int = 0
    true_gain: float = 0.0
    claimed: float = 0.0
    runs: int = 0


def by_rule(kind: Kind, seed: int, machine: Machine | None = None) -> Night:
    machine, night, known, keeps = machine or Machine(kind, seed), Night(), Standing(greedy=False), list[int]()
    best = -1
    for _ in range(BASELINE_RUNS):
        known.ended(best, machine.run(0.0, best), of_best=False)
    known.keep(best)
    for change in range(CHANGES):
        effect = machine.effect(change, night.true_gain)
        known.ended(change, machine.run(night.true_gain + effect, change), of_best=False)
        while True:
            assert known.best is not None
            decision = decide(known.scores[change], known.best, known.noise, significance(change, keeps))
            if decision.decision != "repeat":
                break
            of_best = decision.which == "best"
            again, gain = (best, night.true_gain) if of_best else (change, night.true_gain + effect)
            known.ended(again, machine.run(gain, again), of_best)
        if decision.decision == "keep":
            if known.keep(change):
                keeps.append(change)
            best = change
            night.false += not effect
            night.found += bool(effect)
            night.true_gain += effect
    night.claimed, night.runs = known.total.value if known.total else 0.0, machine.runs
    return night


def greedily(kind: Kind, seed: int) -> Night:
    """As in the original: one run each, and what scores better than the best did is the best."""
    machine, night = Machine(kind, seed), Night()
    first = best = machine.run(0.0, -1)
    for change in range(CHANGES):
        effect = machine.effect(change, night.true_gain)
        score = machine.run(night.true_gain + effect, change)
        if score > best:
            best = score
            night.false += not effect
            night.found += bool(effect)
            night.true_gain += effect
    night.claimed, night.runs = best - first, machine.runs
    return night


def really(kind: Kind, seed: int) -> Night:
    """The same through a session: each change a commit, each score of a process."""
    night = Night()
    with tempfile.TemporaryDirectory() as folder:
        session = noisy_session(Path(folder), seed)
        for change in range(-1, CHANGES):
            effect = kind.effect if change % 3 == 2 else 0.0
            if change >= 0:
                before, after = session.read().text, program(seed, change, night.true_gain + effect)
                session.apply_patch(f"<<<<<<< SEARCH\n{before}=======\n{after}>>>>>>> REPLACE\n")
            number, _ = session.run_experiment(f"change {change}")
            while session.waits(number):
                time.sleep(0.02)
                session.advance()
            if "keep" not in session.position().allowed:
                session.discard()
                continue
            session.keep()
            if change >= 0:
                night.false += not effect
                night.found += bool(effect)
                night.true_gain += effect
        total = session.state.standing.total
        night.claimed = total.value if total else 0.0
        night.runs = sum(len(experiment.runs) for experiment in session.state.experiments)
    return night


def noisy_session(folder: Path, seed: int) -> Session:
    task = folder / "task"
    task.mkdir()
    for name, text in (("autoresearch.toml", TASK), ("score.py", "print(open('out').read())\n"), ("work.py", program(seed, -1, 0))):
        (task / name).write_text(text)
    workspace = Workspace(create(folder / "workspace", str(task)).root)
    return Session.start(workspace, open_ledger(workspace))


def program(seed: int, change: int, gain: float) -> str:
    """A file whose score is START + gain, with noise of deviation 1 that depends on the file and the run's seed."""
    return (
        "import os\nfrom random import Random\n\n"
        f"noise = Random(os.environ['AUTORESEARCH_SEED'] + ' {seed} {change}').gauss(0, 1)\n"
        f"open('out', 'w').write(str({START} + {gain} + noise))\n"
    )


def row(kind: Kind, rule: Callable[[Kind, int], Night], nights: int) -> str:
    made = [rule(kind, seed) for seed in range(nights)]
    kept = fmean(night.false + night.found for night in made)
    false = fmean(night.false for night in made)
    found = f"{fmean(night.found for night in made) / (CHANGES // 3):.0%}" if kind.effect else "-"
    share = f"{false / kept:.0%}" if kept else "-"
    gain, claimed = fmean(night.true_gain for night in made), fmean(night.claimed for night in made)
    return f"{fmean(night.runs for night in made) / CHANGES:.2f} | {false:.2f} | {share} | {found} | {gain:.1f} | {claimed:.1f}"


def in_reality(nights: int) -> None:
    for number in range(nights):
        kind = KINDS[number % 3]
        night = really(kind, number)
        alone = by_rule(kind, number, SameDraws(kind, number))
        if replace(alone, claimed=night.claimed) != night or not isclose(alone.claimed, night.claimed, abs_tol=1e-6):
            sys.exit(f"night {number}: the session concluded {night}, the rule alone {alone}")
        print(
            f"{kind.name}: {night.runs / CHANGES:.2f} runs a change, {night.false} false keeps, {night.found} of "
            f"{CHANGES // 3 if kind.effect else 0} found, true gain {night.true_gain:g}, claimed {night.claimed:.1f}; "
            "the rule alone: the same",
            flush=True,
        )


def main(nights: int) -> None:
    print(f"{nights} nights of {CHANGES} changes each; greedy / the server's rule")
    print("| night | rule | runs a change | false keeps | of all kept | helpful found | true gain | claimed |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        for name, rule in (("greedy", greedily), ("ours", by_rule)):
            print(f"| {kind.name} | {name} | {row(kind, rule, nights)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["real"]:
        in_reality(int((sys.argv + ["20"] * 3)[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
