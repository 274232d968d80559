"""How far ahead harness/train.py starts: against a plain GPT with the published hyperparameters of autoresearch (published.py).

    python benchmarks/baseline.py [SEEDS] [--preset cpu] [--also FILE] [--picture FILE]

Every file is run by the server's own executor, with its sandbox, clock and scoring, on the same data and seeds, and the files take
turns, so that what the machine does meanwhile meets all of them. The plain one has several batch sizes, and two ways to multiply.
`--also` is another train.py, an older one for instance. `--picture` draws what the runs printed on the way.
"""

import argparse
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import torch

from autoresearch_mcp.loop.trial import Tried, run_trial

HERE = Path(__file__).parent
HARNESS = HERE.parent / "harness"
ON_CUDA = b'enabled=device == "cuda"'
WITH_AMX = ON_CUDA + b' or torch.cpu.get_capabilities().get("amx_bf16", False)'
BATCHES = re.compile(r"^((?:DEVICE|TOTAL)_BATCH_SIZE) = by_preset(\(.*?\))", re.MULTILINE)


def contestants(preset: str, also: Path | None) -> dict[str, bytes]:
    published = (HERE / "published.py").read_text()
    files = {"ours": (HARNESS / "train.py").read_bytes(), "published": published.encode()}
    for name, factor in (("published, twice the batch", "2"), ("published, half the batch", "1 / 2")):
        files[name] = BATCHES.sub(rf"\1 = int({factor} * by_preset\2)", published).encode()
    for name in ("published", "published, half the batch"):
        files[f"{name}, in bfloat16 on a CPU with AMX"] = files[name].replace(ON_CUDA, WITH_AMX)
    assert len(set(files.values())) == len(files)
    if also is not None:
        files[also.name] = also.read_bytes()
    return files


def run(files: dict[str, bytes], preset: str, seeds: Iterable[int], harness: Path = HARNESS) -> dict[str, list[Tried]]:
    tried: dict[str, list[Tried]] = {name: [] for name in files}
    for seed in seeds:
        for name, content in files.items():
            (latest,) = run_trial(harness, 1, preset, content, first=seed).runs
            if latest.ended.score is None:
                sys.exit(f"{name} ended without a score ({latest.ended.failure}):\n{latest.ended.excerpt}")
            tried[name].append(latest)
            print(
                f"{name}, seed {seed + 1}: {latest.ended.score:.4f} ({told(latest, 'num_steps')} steps)",
                file=sys.stderr,
                flush=True,
            )
    return tried


def told(run: Tried, name: str) -> str:
    found = re.search(rf"^{name}: +(\S+)", run.output, re.MULTILINE)
    return found[1] if found else "?"


def ratio(ours: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Of the means, with its standard error (delta method)."""
    value = mean(ours) / mean(others)
    relative = [stdev(scores) / mean(scores) / sqrt(len(scores)) for scores in (ours, others)]
    return value, value * sqrt(sum(error**2 for error in relative))


def draw(tried: dict[str, list[Tried]], path: Path) -> None:
    """Training loss over the share of the budget, of the first seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, runs in tried.items():
        points = [(100 * number / len(runs[0].ended.curve), y) for number, y in enumerate(runs[0].ended.curve, 1) if y is not None]
        axes.plot(*zip(*points, strict=True), label=f"{name}: {mean(run.ended.score or 0 for run in runs):.3f} bits per byte")
    axes.set(xlabel="% of the budget", ylabel="training loss (nats a token)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def options(doc: str) -> argparse.ArgumentParser:
    """What this and ablation.py take."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("seeds", nargs="?", type=number, default=3)
    parser.add_argument("--preset", default="cpu")
    return parser


def number(text: str) -> int:
    """Of seeds."""
    if int(text) < 2:
        raise argparse.ArgumentTypeError("at least 2: one run says nothing of the noise")
    return int(text)


def scores_of(tried: dict[str, list[Tried]]) -> dict[str, list[float]]:
    return {name: [run.ended.score for run in runs if run.ended.score is not None] for name, runs in tried.items()}


def conditions(hardware: str, preset: str, seeds: int) -> str:
    machine = f"{hardware}; Python {platform.python_version()}, torch {torch.__version__}"
    return f"{date.today()}; {machine}; preset {preset},\n{seeds} seeds, the files in turn\n"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--also", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    tried = run(contestants(arguments.preset, arguments.also), arguments.preset, range(arguments.seeds))
    scores = scores_of(tried)
    hardware = next(iter(tried.values()))[0].ended.hardware or ""
    print(conditions(hardware, arguments.preset, arguments.seeds))
    print("| file | val_bpb of each seed | mean | deviation | steps | ours / it |")
    print("|---|---|---|---|---|---|")
    for name, values in scores.items():
        steps = ", ".join(told(run, "num_steps") for run in tried[name])
        against = "" if name == "ours" else "{:.3f} ± {:.3f}".format(*ratio(scores["ours"], values))
        print(
            f"| {name} | {', '.join(f'{v:.4f}' for v in values)} | {mean(values):.4f} | {stdev(values):.4f} | {steps} | {against} |"
        )
    if arguments.picture:
        draw(tried, arguments.picture)


if __name__ == "__main__":
    main()
