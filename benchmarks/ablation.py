"""What single settings of harness/train.py are worth: each idea against the file as it is, on the same seeds.

    python benchmarks/ablation.py [SEEDS] [--preset cpu] [--of without|with|larger] [--times 1] [--only TEXT]
        [--kept FILE] [--print]

An idea is another value of a constant or two, or another text in place of one that train.py has once: WITHOUT takes out what the
file has, WITH puts in what it has not.

A budget is seconds, and a machine that others share gives now more steps for them and now fewer, by more than most ideas are worth.
So both are taken apart. First, how many steps an idea makes in the time of one as it is: two processes that train on made-up tokens
take short turns (nothing else should run), and each is as fast as it is in its better turns, since others can only make it slower.
Then each is trained for the steps that the budget would buy at its
speed, however long that takes, and scored by the server's own executor. `--kept` is a file of what was found, from which a later
call goes on; `--print` prints the table of it, and runs nothing. `--times` is for a machine that is so many times as fast.

A difference comes with its standard error. How much differences between two files vary from seed to seed is taken from all ideas
together, since a few seeds say little of it each; within two errors of nothing says nothing.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from math import sqrt
from pathlib import Path
from statistics import geometric_mean, mean, median, variance
from typing import Any

from baseline import HARNESS, options, run

from autoresearch_mcp.loop.trial import read_folder
from autoresearch_mcp.run import sandbox
from autoresearch_mcp.run.hardware import granted

BURST, PAIRS, STARTS = 0.4, 25, 2  # seconds of a turn, turns that each of two files has, and how often both are started anew
BETTER = 0.85  # the share of turns that are slower than what a file's speed is taken from
CLOCK = "elapsed() / TIME_BUDGET"  # how train.py tells how far it is
PHASE = "elapsed() < TIME_BUDGET / 3"  # how an idea tells a first phase; its speed is that of the phase
STEP = "step, pass_in_step = step + 1, 0\n"
UNHURRIED = {
    "budget_seconds": 3600,
    "startup_seconds": 600,
    "grace_seconds": 60,
    "export_seconds": 600,
}
"""Limits of runs that end by their steps."""

WITHOUT = {
    "two layers": {"DEPTH": "2"},
    "128 channels": {"MODEL_DIM": "128"},
    "256 channels": {"MODEL_DIM": "256"},
    "heads of 64": {"HEAD_DIM": "64"},
    "rotary positions": {"POSITIONS": '"rotary"'},
    "no embeddings of pairs": {"BIGRAMS": "0"},
    "no value embeddings": {"VALUED": "[]"},
    "no share of the first embedding": {"[[1.0], [0.1], [0.1]]": "[[1.0], [0.0], [0.1]]"},
    "logits capped at 15": {"LOGIT_CAP": "15.0"},
    "half the batch": {"TOTAL_BATCH_SIZE": "2**11", "DEVICE_BATCH_SIZE": "8"},
    "twice the batch": {"TOTAL_BATCH_SIZE": "2**13", "DEVICE_BATCH_SIZE": "32"},
    "embeddings' rate halved": {"EMBEDDING_LR": "0.3"},
    "no weight decay": {"WEIGHT_DECAY": "0.0"},
    "AdamW's second beta 0.95": {"ADAM_BETAS": "(0.8, 0.95)"},
    "warm-down in the last half": {"WARMDOWN_RATIO": "0.5"},
    "Newton-Schulz with fixed coefficients": {"for a, b, c in POLAR_EXPRESS:": "for a, b, c in [(3.4445, -4.7750, 2.0315)] * 5:"},
    "float32 on a CPU with AMX": {'(device == "cpu" and': "(False and"},
    "the fused attention kernel": {'if span is None or q.device.type != "cpu":': "if True:"},
    "AdamW in one kernel": {"fused=True": "foreach=True"},
    "the second thread": {"    torch.manual_seed(SEED)\n": "    torch.manual_seed(SEED)\n    torch.set_num_threads(1)\n"},
}
WITH = {
    "bfloat16 on a CPU without AMX": {'(device == "cpu" and': "(True or"},
    "embeddings' rate 0.9": {"EMBEDDING_LR": "0.9"},
    "Muon's rate doubled": {"MATRIX_LR": "0.04"},
    "twice the rows for pairs": {"BIGRAMS": "2 * 16384"},
    "first embedding's share 0.05": {"[[1.0], [0.1], [0.1]]": "[[1.0], [0.05], [0.1]]"},
    "rotary positions, base 200,000": {"POSITIONS": '"rotary"', "10000.0 **": "200000.0 **"},
    "two layers, the first sees an eighth": {"DEPTH": "2", "distance >= MAX_SEQ_LEN // 2": "distance >= MAX_SEQ_LEN // 8"},
    "rate ends at 0.05 of its full value": {"max(0.0, (1 - progress)": "max(0.05, (1 - progress)"},
    "weight decay 0.01 of embeddings and head": {"weight_decay=0.0": "weight_decay=0.01"},
    "matrices begin at 0.68": {"bound = scale *": "bound = 0.68 * scale *"},
    "queries and keys times 1.15": {"q, k = norm(q), norm(k)": "q, k = 1.15 * norm(q), 1.15 * norm(k)"},
    "the head's betas (0.9, 0.95)": {
        '{"params": params, "lr": lr}': '{"params": params, "lr": lr, "betas": (0.9, 0.95) if len(params) == 1 else ADAM_BETAS}'
    },
    "Muon's momentum from 0.85, in 100 steps": {
        "            optimizer.step()": '            if "momentum" in group:\n'
        '                group["momentum"] = 0.85 + 0.1 * min(1, step / 100)\n'
        "            optimizer.step()"
    },
    "Muon's momentum to 0.85 in the last tenth": {
        "            optimizer.step()": '            if "momentum" in group:\n'
        '                group["momentum"] = 0.85 + 0.1 * min(1, multiplier * WARMDOWN_RATIO / 0.1)\n'
        "            optimizer.step()"
    },
    "weight decay that falls as the rate does": {
        "            optimizer.step()": '            if "momentum" in group:\n'
        '                group["weight_decay"] = WEIGHT_DECAY * multiplier\n'
        "            optimizer.step()"
    },
    "Muon's updates evened out by row": {  # NorMuon: Li et al. 2025, arXiv:2510.05491
        "                step_size =": "                rows = update.square().mean(2, keepdim=True)\n"
        "                size = update.norm(dim=(1, 2), keepdim=True)\n"
        '                update /= state.setdefault("rows", rows.clone()).lerp_(rows, 0.05).sqrt() + 1e-8\n'
        "                update *= size / (update.norm(dim=(1, 2), keepdim=True) + 1e-8)\n"
        "                step_size ="
    },
    "weight decay only where it helps the step": {  # cautious: Chen et al. 2025, arXiv:2510.12402
        'p.mul_(1 - step_size * group["weight_decay"])': 'p.mul_(1 - step_size * group["weight_decay"] * (direction * p > 0))'
    },
    "a share of the token before": {
        "x = x0 = norm(self.wte(tokens))": "x = norm(self.wte(tokens))\n"
        "        x = x0 = x + self.smear * F.pad(x[:, :-1], (0, 0, 1, 0))",
        "        self.shares =": "        self.smear = nn.Parameter(torch.tensor(0.1))\n        self.shares =",
        "([self.shares], SCALAR_LR)": "([self.shares, self.smear], SCALAR_LR)",
    },
    "the first embedding taken back at the end": {
        "x = norm(x)\n        if targets": "x = norm(x - self.backout * x0)\n        if targets",
        "        self.shares =": "        self.backout = nn.Parameter(torch.tensor(0.0))\n        self.shares =",
        "([self.shares], SCALAR_LR)": "([self.shares, self.backout], SCALAR_LR)",
    },
    "embeddings of three tokens too": {
        "        for i, block in enumerate(self.blocks):\n            x =": ""
        "        one, two = (F.pad(tokens[:, :-n], (n, 0)) for n in (1, 2))\n"
        "        pairs = pairs + self.triples((two * 15485863 + one * 7919 + tokens * 104729) % BIGRAMS)\n"
        "        for i, block in enumerate(self.blocks):\n            x =",
        "        self.blocks =": "        self.triples = nn.Embedding(BIGRAMS, MODEL_DIM)\n"
        "        nn.init.zeros_(self.triples.weight)\n"
        "        self.blocks =",
    },
    "torch.compile": {'torch.compile(model) if device == "cuda" else model': "torch.compile(model)"},
    "a tenth of the loss of the token after next": {
        "return HeadLoss.apply(": "after = HeadLoss.apply(x[:, :-1].flatten(0, 1), self.lm_head.weight, targets[:, 1:].flatten())\n"
        "            return 0.1 * after + HeadLoss.apply("
    },
    "half the context in the first third": {
        "loss = compiled(x, y)": "size = MAX_SEQ_LEN // 2 if elapsed() < TIME_BUDGET / 3 else MAX_SEQ_LEN\n"
        "            loss = compiled(x.view(-1, size), y.view(-1, size))"
    },
}
LARGER = {  # for machines with more cores: with --times
    "two layers": {"DEPTH": "2"},
    "256 channels": {"MODEL_DIM": "256"},
    "two layers of 256 channels": {"DEPTH": "2", "MODEL_DIM": "256"},
    "twice the batch": {"TOTAL_BATCH_SIZE": "2**13", "DEVICE_BATCH_SIZE": "32"},
    "256 channels, twice the batch": {"MODEL_DIM": "256", "TOTAL_BATCH_SIZE": "2**13", "DEVICE_BATCH_SIZE": "32"},
}
IDEAS = {"without": WITHOUT, "with": WITH, "larger": LARGER}
SAME_COST = {
    "no share of the first embedding",
    "embeddings' rate halved",
    "no weight decay",
    "AdamW's second beta 0.95",
    "warm-down in the last half",
    "embeddings' rate 0.9",
    "Muon's rate doubled",
    "first embedding's share 0.05",
    "rate ends at 0.05 of its full value",
    "weight decay 0.01 of embeddings and head",
    "matrices begin at 0.68",
    "the head's betas (0.9, 0.95)",
    "Muon's momentum from 0.85, in 100 steps",
    "Muon's momentum to 0.85 in the last tenth",
    "weight decay that falls as the rate does",
}
"""Ideas whose steps do the very same work on other numbers: measuring their speed would only add noise."""
BASE = "as it is"
SEEDS = 20  # the most that any is looked for

BURSTS = """
import sys, time
import train
from prepare import VOCAB_SIZE, synthetic_batch

class Tokens:
    @classmethod
    def from_directory(cls):
        return cls()
    def get_vocab_size(self):
        return VOCAB_SIZE

def bursts(tokenizer, rows, length, split):
    x, y = synthetic_batch(rows, length)
    passes = max(1, train.TOTAL_BATCH_SIZE // (rows * length))
    for line in sys.stdin:
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < float(line):
            for _ in range(passes):
                yield x, y, 0
            done += 1
        print("burst", done / (time.perf_counter() - started), file=sys.stderr, flush=True)
    sys.exit()

train.Tokenizer, train.declare, train.make_dataloader = Tokens, lambda model: None, bursts
train.main()
"""


def changed(text: str, edits: dict[str, str]) -> str:
    """The file with other values of its constants, whose comments stay, or other texts. Raises LookupError with what it has not
    once.
    """
    for old, new in edits.items():
        constant = re.search(rf"^{re.escape(old)} = .*?(  #.*)?$", text, re.MULTILINE)
        whole, new = (constant[0], f"{old} = {new}{constant[1] or ''}") if constant else (old, new)
        if text.count(whole) != 1:
            raise LookupError(whole)
        text = text.replace(whole, new)
    return text


class Bursts:
    """A process that trains on made-up tokens when it is told to."""

    def __init__(self, folder: Path, text: str, preset: str, stack: ExitStack):
        shutil.copytree(HARNESS, folder)
        (folder / "tmp").mkdir()
        (folder / "train.py").write_text(text)
        (folder / "bursts.py").write_text(BURSTS)
        run = read_folder(HARNESS, preset)[0].run
        environment = sandbox.environment(folder, "", granted().environment | run.env | {"AUTORESEARCH_PRESET": preset})
        self._process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "bursts.py"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(self._process.kill)
        self.burst()  # the first steps are slow

    def burst(self) -> float:
        """Steps a second."""
        assert self._process.stdin is not None and self._process.stderr is not None
        print(BURST, file=self._process.stdin, flush=True)
        for line in self._process.stderr:
            if line.startswith("burst "):
                return float(line.split()[1])
        sys.exit("train.py ended before it had made a step: run it by hand")


def _ordered(start: int, base: str, idea: str) -> list[tuple[str, str]]:
    """Both files by name, now one first and now the other."""
    return [("base", base), ("idea", idea)][:: 1 if start % 2 == 0 else -1]


def better(speeds: list[float]) -> float:
    """The speed of the better turns."""
    return sorted(speeds)[int(BETTER * len(speeds))]


def speeds(files: dict[str, str], preset: str) -> dict[str, float]:
    """Steps a second of each file; of those with an idea from the ratio to the file as it is, which takes turns with each."""
    ratios: dict[str, float] = {name: 1.0 for name in files if name in SAME_COST}
    alone: list[float] = []
    for name, text in files.items():
        if name == BASE or name in SAME_COST:
            continue
        found: list[float] = []
        for start in range(STARTS):  # how fast a process is depends on where its memory has come to lie, and on who comes first
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                pair = [
                    Bursts(Path(folder, which), content, preset, stack) for which, content in _ordered(start, files[BASE], text)
                ]
                turns = [[one.burst() for one in pair] for _ in range(PAIRS)]
            own, other = [better(list(made)) for made in zip(*turns, strict=True)][:: 1 if start % 2 == 0 else -1]
            found.append(other / own)
            alone.append(own)
        ratios[name] = geometric_mean(found)
        told = f"{ratios[name]:.3f} of the steps, {' and '.join(f'{ratio:.3f}' for ratio in found)}"
        print(f"{name}: {told} ({alone[-1]:.2f} a second)", file=sys.stderr, flush=True)
    return {BASE: median(alone)} | {name: ratio * median(alone) for name, ratio in ratios.items()}


def by_steps(text: str, steps: float, phase: float) -> bytes:
    """A file that ends after so many steps, and tells by them how far it is; `phase`: steps of a first phase."""
    for old, new, times in (
        (CLOCK, f"step / {round(steps)}", 2),
        (STEP, f"{STEP}        if step == {round(steps)}:\n            break\n", 1),
    ):
        if text.count(old) != times:
            sys.exit(f"train.py has not {times} times: {old}\ncorrect {Path(__file__).name}")
        text = text.replace(old, new)
    return text.replace(PHASE, f"step < {round(phase)}").encode()


def unhurried(folder: Path, preset: str) -> Path:
    """The harness with limits that nothing meets."""
    shutil.copytree(HARNESS, folder)
    toml = folder / "autoresearch.toml"
    section = re.compile(rf"(^\[presets\.{preset}\.run\]\n)(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)

    def rewritten(found: re.Match[str]) -> str:
        kept = [line for line in found[2].splitlines() if line.split(" =")[0] not in UNHURRIED]
        return found[1] + "\n".join([*kept, *(f"{name} = {value}" for name, value in UNHURRIED.items())]) + "\n\n"

    toml.write_text(section.sub(rewritten, toml.read_text(), count=1))
    return folder


def _key(name: str, steps: float, seed: int) -> str:
    return f"{name}, {steps:.0f} steps, seed {seed + 1}"


class Kept:
    """What was found so far, in a file or in memory."""

    def __init__(self, path: Path | None):
        self._path = path
        self.speed: dict[str, float] = {}
        self.score: dict[str, float | None] = {}
        self.hardware = ""
        if path is not None and path.exists():
            self.take(**json.loads(path.read_text()))

    def scores(self, name: str, steps: float) -> dict[int, float]:
        """By seed."""
        found = ((seed, self.score.get(_key(name, steps, seed))) for seed in range(SEEDS))
        return {seed: score for seed, score in found if score is not None}

    def take(self, **found: Any) -> None:
        self.__dict__ |= found
        if self._path is not None:
            content = {"speed": self.speed, "score": self.score, "hardware": self.hardware}
            self._path.write_text(json.dumps(content, indent=1))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--of", choices=IDEAS, help="what goes without a part of the file, or with a new one; both if left out")
    parser.add_argument("--times", type=float, default=1.0, help="how many times as many steps as this machine makes")
    parser.add_argument("--only", default="", help="ideas whose name has this in it")
    parser.add_argument("--kept", type=Path, help="JSON file; made where it is missing")
    parser.add_argument("--print", action="store_true", help="the table of what was kept, and no run")
    arguments = parser.parse_args()
    kept = Kept(arguments.kept)
    text = (HARNESS / "train.py").read_text()
    kinds = [arguments.of] if arguments.of else ["without", "with"]
    tables = {kind: [idea for idea in IDEAS[kind] if arguments.only in idea] for kind in kinds}
    try:
        files = {BASE: text} | {idea: changed(text, IDEAS[kind][idea]) for kind, ideas in tables.items() for idea in ideas}
    except LookupError as error:
        sys.exit(f"train.py has not once: {error}\ncorrect the idea in {Path(__file__).name}")
    lacking = {name: content for name, content in files.items() if name not in kept.speed}
    if lacking and arguments.print:
        sys.exit(f"the file of what was kept has no speed of: {', '.join(lacking)}")
    if lacking:
        made = speeds({BASE: text} | lacking, arguments.preset)
        scale = kept.speed.get(BASE, made[BASE]) / made[BASE]  # the machine may be slower today, which an idea's share is not
        kept.take(speed={name: scale * speed for name, speed in made.items()} | kept.speed)
    speed = kept.speed
    budget = arguments.times * read_folder(HARNESS, arguments.preset)[0].run.budget_seconds
    steps = {name: budget * speed[name] for name in files}
    phases = {name: steps[name] / 3 for name in files if PHASE in files[name]}
    steps |= {name: first + budget * speed[BASE] * 2 / 3 for name, first in phases.items()}
    with tempfile.TemporaryDirectory() as folder:
        harness = unhurried(Path(folder, "harness"), arguments.preset)
        for seed in range(0 if arguments.print else arguments.seeds):
            for name, content in files.items():
                key = _key(name, steps[name], seed)
                if key not in kept.score:
                    ready = by_steps(content, steps[name], phases.get(name, 0.0))
                    tried = run({name: ready}, arguments.preset, [seed], harness)[name][0]
                    kept.take(score=kept.score | {key: tried.ended.score}, hardware=tried.ended.hardware)
    print(f"{kept.hardware}; preset {arguments.preset}; {speed[BASE]:.1f} steps a second of the file as it is\n")
    ratios = {name: speed[name] / speed[BASE] for name in files}
    print(table(tables, {name: kept.scores(name, steps[name]) for name in files}, ratios))


def table(tables: dict[str, list[str]], scores: dict[str, dict[int, float]], ratios: dict[str, float]) -> str:
    """Of the scores by seed, as far as there are any; each difference with two standard errors, if any idea has two seeds."""
    own = scores[BASE]
    differences = {name: [score - own[seed] for seed, score in found.items() if seed in own] for name, found in scores.items()}
    several = [variance(values) for name, values in differences.items() if name != BASE and len(values) > 1]
    deviation = sqrt(mean(several)) if several else None
    rows = [f"As it is: {' and '.join(f'{score:.4f}' for score in own.values())}."]
    if deviation is not None:
        rows.append(f"A difference varies from seed to seed with a standard deviation of {deviation:.4f} ({len(several)} ideas).")
    for kind, ideas in tables.items():
        rows.append(f"\n| {kind} | steps in the time of one | seeds | val_bpb | worse by |\n|---|---|---|---|---|")
        for name in ideas:
            work = f"{ratios[name]:.2f}{' (the same work)' if name in SAME_COST else ''}"
            if not (values := differences[name]):
                rows.append(f"| {name} | {work} | 0 | | |")
                continue
            by, verdict = f"{round(mean(values), 4) + 0.0:+.4f}", ""
            if deviation is not None:
                error = 2 * deviation / sqrt(len(values))
                by += f" ± {error:.4f}"
                verdict = "" if abs(mean(values)) <= error else ", worse" if mean(values) > 0 else ", better"
            rows.append(f"| {name} | {work} | {len(values)} | {mean(scores[name].values()):.4f} | {by}{verdict} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
