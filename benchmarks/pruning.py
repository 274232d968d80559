"""How often ending hopeless and diverged runs early ends one that was neither: record/curves.py over the curves of real runs.

    python benchmarks/pruning.py [NIGHTS]                    replays the recorded runs, in NIGHTS random orders
    python benchmarks/pruning.py record PRESET COUNT SEED    trains COUNT variations of train.py to their end, and adds their curves
                                                             and scores to benchmarks/curves/PRESET.jsonl

The variations are random: one to three of KNOBS, from mild to ruinous. Some of them change what is printed and not what is learned,
some learn late.

In a replay the unchanged file's runs come first, and what scores better than the best did becomes the best; a run that is ended is
known to those after it by nothing. *Wrongly*: it would have scored better than the best then, or within three deviations of it,
which is more than another look is worth.
"""

import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from autoresearch_mcp.create import create
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.record.curves import KNOWN, MOMENTS, Earlier, diverged, hopeless
from autoresearch_mcp.workspace import Workspace

CURVES = Path(__file__).parent / "curves"
BASELINE, BASELINES = "baseline", 5  # runs of the unchanged file
NEAR = 3.0  # deviations of one run

RATES = (0.03, 0.1, 0.3, 0.6, 1.5, 2.5, 6, 20)  # times what stands there
KNOBS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"MATRIX_LR = 0.02", tuple(f"MATRIX_LR = {0.02 * rate:g}" for rate in RATES)),
    (r"\bEMBEDDING_LR = by_preset\(0.3, 0.6,", tuple(f"EMBEDDING_LR = by_preset({0.3 * k:g}, {0.6 * k:g}," for k in RATES)),
    (r"UNEMBEDDING_LR = 0.004", tuple(f"UNEMBEDDING_LR = {0.004 * rate:g}" for rate in RATES)),
    (r"SCALAR_LR = 0.02", tuple(f"SCALAR_LR = {0.02 * rate:g}" for rate in RATES)),
    (r"WARMDOWN_RATIO = by_preset\([^#\n]*\)", tuple(f"WARMDOWN_RATIO = {share}" for share in (0.05, 0.1, 0.2, 0.3, 0.8, 1.0))),
    (r"ADAM_BETAS = by_preset\([^#\n]*\)", ("ADAM_BETAS = (0.9, 0.95)", "ADAM_BETAS = (0.9, 0.999)", "ADAM_BETAS = (0.0, 0.9)")),
    (r"momentum=0.95", ("momentum=0.8", "momentum=0.9", "momentum=0.98", "momentum=0.0")),
    (r"WEIGHT_DECAY = 0.1", ("WEIGHT_DECAY = 0.0", "WEIGHT_DECAY = 0.5", "WEIGHT_DECAY = 3.0")),
    (r"LOGIT_CAP = by_preset\([^#\n]*\)", ("LOGIT_CAP = 30.0", "LOGIT_CAP = 5.0", "LOGIT_CAP = 2.0")),
    (r"DEPTH = by_preset\(2, 1, 8\)", ("DEPTH = by_preset(1, 2, 8)", "DEPTH = by_preset(4, 4, 8)", "DEPTH = by_preset(8, 8, 8)")),
    (r"MODEL_DIM = by_preset\(64, 192,", ("MODEL_DIM = by_preset(32, 96,", "MODEL_DIM = by_preset(128, 320,")),
    (r"= by_preset\(2\*\*13, 2\*\*12", ("= by_preset(2**14, 2**13", "= by_preset(2**16, 2**15")),
    (r"F.relu\(self.fc\(x\)\).square\(\)", ("F.gelu(self.fc(x))", "torch.sigmoid(self.fc(x))", "self.fc(x)")),
    (r"vocab_size, scale=0.02", ("vocab_size, scale=0.5", "vocab_size, scale=10")),
    (r"\(4 \* MODEL_DIM, MODEL_DIM, scale=0\)", ("(4 * MODEL_DIM, MODEL_DIM)", "(4 * MODEL_DIM, MODEL_DIM, scale=30)")),
    # Nothing good comes of these.
    (r"return min\(1.0, max\(0.0, \(1 - progress\) / WARMDOWN_RATIO\)\)", (
        "return 0.001",
        "return 60.0",
        "return -1.0",
        "return 1.0 if progress < 0.3 else 200.0",
    )),
    (r"SCALAR_LR = 0.02", ("SCALAR_LR = 20.0", "SCALAR_LR = 5.0")),
    (r"\bEMBEDDING_LR = by_preset\([^#\n]*\)", ("EMBEDDING_LR = 90.0", "EMBEDDING_LR = 0.0")),
    (r"optimizer.step\(\)", ("(time.sleep(0.2), optimizer.step())", "(time.sleep(0.4), optimizer.step())")),
    (r"x = norm\(x\)\n", ("x = norm(x.detach())\n", "x = norm(x) * 60\n")),
    (r"self.proj\(attend\(", ("self.proj(0 * attend(", "self.proj(30 * attend(")),
    # What is printed is another loss than before.
    (r"train_loss in enumerate\(latest,", (
        "train_loss in enumerate([2 * one for one in latest],",
        "train_loss in enumerate([one / math.log(2) for one in latest],",
        "train_loss in enumerate([one + 1 for one in latest],",
        "train_loss in enumerate([-1 / one for one in latest],",
    )),
    (r"smooth = 0.9 \* smooth \+ 0.1 \* train_loss", ("smooth = 0.99 * smooth + 0.01 * train_loss",)),
    # Learning that comes late.
    (r"return min\(1.0, max\(0.0, \(1 - progress\) / WARMDOWN_RATIO\)\)", (
        "return 4.0 if progress < 0.7 else 4.0 * (1 - progress) / 0.3",
        "return 2.0 if progress < 0.85 else 2.0 * (1 - progress) / 0.15",
        "return math.sin(math.pi * progress)",
    )),
)  # fmt: skip


def record(preset: str, count: int, seed: int) -> None:
    draw = random.Random(f"{preset} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(create(Path(folder) / "workspace", "default", preset).root)
        file = workspace.root / "autoresearch.toml"
        text = file.read_text().replace("[metric]", '[metric]\nconfidence = "single"', 1)
        file.write_text(text.replace("[run]", "[run]\nprune = false", 1))
        workspace.run("commit", "-qam", "One run each")
        session = Session.start(workspace, open_ledger(workspace))
        session.data.prepare(workspace.root)
        base = session.read().text
        ended(session, BASELINE)
        session.keep()
        for _ in range(BASELINES - 1):
            ended(session, BASELINE, replicate=True)
        assert session.state.best is not None
        write(preset, BASELINE, session, session.state.best.number)
        for number in range(count):
            text, told = varied(base, draw)
            try:
                session.apply_patch(f"<<<<<<< SEARCH\n{base}=======\n{text}>>>>>>> REPLACE\n")
                made = ended(session, told)
                write(preset, told, session, made)
                session.discard()
            except AutoresearchError as error:
                print(f"{told}: {error}", flush=True)
                session.discard()
            print(number, told, flush=True)


def varied(base: str, draw: random.Random) -> tuple[str, str]:
    """A variation of the file, and what differs."""
    text, told = base, list[str]()
    for pattern, others in draw.sample(KNOBS, draw.choice((1, 1, 2, 3))):
        other = draw.choice(others)
        text, found = re.subn(pattern, other.replace("\\", "\\\\"), text)
        assert found, pattern
        told.append(other)
    return text, "; ".join(told)[:200]


def ended(session: Session, told: str, replicate: bool = False) -> int:
    number, _ = session.run_experiment(told, replicate=replicate)
    while session.waits(number) or session.state.running:
        time.sleep(0.1)
        session.refresh()
    return number


def write(preset: str, told: str, session: Session, number: int) -> None:
    CURVES.mkdir(exist_ok=True)
    with open(CURVES / f"{preset}.jsonl", "a") as file:
        for run in session.experiment(number).runs:
            if run.ended is not None:
                row = {"change": told, "score": run.ended.score, "failure": run.ended.failure, "curve": run.ended.curve}
                file.write(json.dumps(row) + "\n")


@dataclass(frozen=True)
class Ran:
    """A recorded run."""

    change: str
    score: float | None
    failure: str | None
    curve: list[float | None]


@dataclass(frozen=True)
class Replayed:
    ran: Ran
    at: int | None
    """The moment at which it was ended; None where it went on."""
    near: bool
    """Whether it scored near the best of its time, or better."""


def replay(runs: list[Ran], draw: random.Random) -> Iterator[Replayed]:
    """A night of these runs, in another order each time."""
    baseline = [ran for ran in runs if ran.change == BASELINE]
    changes = [ran for ran in runs if ran.change != BASELINE]
    scores = [ran.score for ran in baseline if ran.score is not None]
    best, near = fmean(scores), NEAR * stdev(scores)
    bests, others = draw.sample(baseline, 3), list[Ran]()
    for ran in draw.sample(changes, len(changes)):
        known = [Earlier("", other.curve, best=True) for other in bests] + [
            Earlier("", other.curve, best=False) for other in others
        ]
        moments = [(k, ran.curve[:k]) for k in range(1, MOMENTS) if len(ran.curve) > k]
        found = next((k for k, till in moments if diverged(till, known[:KNOWN]) or hopeless(till, known[:KNOWN])), None)
        yield Replayed(ran, found, ran.score is not None and ran.score < best + near)
        if found is not None or ran.score is None:
            continue
        if ran.score < best:
            best, others, bests = ran.score, [*bests, *others], [ran]
        else:
            others = [ran, *others]


def report(preset: str, nights: int) -> None:
    lines = (CURVES / f"{preset}.jsonl").read_text().splitlines()
    runs = [Ran(**json.loads(line)) for line in lines]
    replayed = [one for seed in range(nights) for one in replay(runs, random.Random(seed))]
    ended = [one for one in replayed if one.at is not None]
    wrongly = [one for one in ended if one.near]
    near = [one for one in replayed if one.near]
    saved = sum(1 - (one.at or MOMENTS) / MOMENTS for one in ended) / len(replayed)
    print(
        f"| {preset} | {len(runs)} | {len(ended) / len(replayed):.1%} | {saved:.1%} | {len(wrongly) / max(len(ended), 1):.2%} | "
        f"{len(wrongly) / max(len(near), 1):.2%} |"
    )
    for told in sorted({one.ran.change for one in wrongly}):
        print(f"  wrongly: {told} ({sum(one.ran.change == told for one in wrongly)} times)", file=sys.stderr)


def main(nights: int) -> None:
    print(f"{nights} nights of each preset's recorded runs, in random orders")
    print(
        "| preset | runs recorded | ended early | of all training saved | of those ended, wrongly | of those near the best, ended |"
    )
    print("|---|---|---|---|---|---|")
    for file in sorted(CURVES.glob("*.jsonl")):
        report(file.stem, nights)


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        record(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
