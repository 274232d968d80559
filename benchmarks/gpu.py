"""The whole check of a machine with an NVIDIA GPU, in one command and under ten minutes; prints one report in Markdown.

    python benchmarks/gpu.py [--preset NAME] [--budget SECONDS] > benchmarks/results/gpu-NAME.md
    python benchmarks/gpu.py --on cpu          the same steps at the preset tiny, on the CPU: to try this script itself

What is looked at: the machine and the preset that fits it; that short spans give the same by FlexAttention, which trains, and by a
bias, which is scored; a run at every level of the sandbox that this machine can enforce, with its seconds by phase, its steps and
what it held of the GPU's memory, beside the estimate (memory.py); and one of the published settings (published.py). The text is the
embedded corpus, so nothing is downloaded; scores compare within the report alone. What fails is told in its place, and then the
exit status is 1.
"""

import argparse
import json
import lzma
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from baseline import HARNESS, HERE, told
from memory import ask

from autoresearch_mcp.create import presets_of
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.loop.trial import Tried, run_trial
from autoresearch_mcp.run import gpus, nvidia, sandbox
from autoresearch_mcp.run.fitting import fitting

EVAL_TOKENS = "eval_tokens=2**17"  # what the embedded corpus has enough of, instead of what climbmix has
KERNELS = """
import json, torch, prepare, train
device = prepare.pick_device()
torch.manual_seed(0)
model = train.GPT(prepare.VOCAB_SIZE).to(device)
for p in model.parameters():
    torch.nn.init.normal_(p, std=0.02)
tokens = torch.randint(prepare.VOCAB_SIZE, (2, prepare.MAX_SEQ_LEN), device=device)
losses = {}
for dtype in ("float32", "bfloat16"):
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        model.eval()
        losses[dtype, "bias"] = model(tokens, tokens).item()
        if device == "cuda":
            model.use_flex_attention(device)
            model.train()
            losses[dtype, "FlexAttention"] = torch.compile(model)(tokens, tokens).item()
            model.block_mask = None
print(json.dumps([[*key, value] for key, value in losses.items()]))
"""


def task(folder: Path, budget: float) -> Path:
    """The default task with text of its own, and runs of `budget` seconds."""
    text, copy = folder / "text", folder / "task"
    text.mkdir()
    with lzma.open(HARNESS / "corpus" / "annual_messages.jsonl.xz") as packed:
        (text / "corpus.jsonl").write_bytes(packed.read())
    shutil.copytree(HARNESS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    prepare, toml = copy / "prepare.py", copy / "autoresearch.toml"
    changed = prepare.read_text()
    for tokens in ("eval_tokens=40 * 524288", "eval_tokens=4 * 524288", "eval_tokens=8 * 524288"):
        assert tokens in changed, f"prepare.py has changed: {tokens} is what this replaces"
        changed = changed.replace(tokens, EVAL_TOKENS)
    prepare.write_text(changed)
    lines = toml.read_text().replace("[data]\n", f'[data]\ntext = "{text}"\n', 1).splitlines()
    toml.write_text("\n".join(f"budget_seconds = {budget:g}" if line.startswith("budget_seconds") else line for line in lines))
    return copy


def machine() -> list[str]:
    found = [f"{date.today()}; Python {platform.python_version()}, torch {torch.__version__}; {sandbox.detect().explanation}"]
    for index in gpus.indices():
        device = nvidia.device(index)
        found.append(f"GPU {index}: {device.name}, {device.memory / 2**30:.1f} GiB" if device else f"GPU {index}: it does not tell")
    if torch.cuda.is_available():
        found.append(f"CUDA {torch.version.cuda}, capability {torch.cuda.get_device_capability()}")
    return [*found, f"preset that fits: {fitting(presets_of('default'))}"]


def kernels(folder: Path, preset: str) -> list[str]:
    """Loss by either way, in either precision."""
    environment = os.environ | {"AUTORESEARCH_PRESET": preset}
    made = subprocess.run([sys.executable, "-c", KERNELS], cwd=folder, env=environment, capture_output=True, text=True)
    if made.returncode:
        raise AutoresearchError(made.stderr.strip()[-1500:])
    found = {(dtype, way): loss for dtype, way, loss in json.loads(made.stdout.splitlines()[-1])}
    lines = [f"| {dtype} | {way} | {loss:.6f} |" for (dtype, way), loss in found.items()]
    for dtype, tolerance in (("float32", 1e-4), ("bfloat16", 2e-2)):
        ways = [loss for (of, _), loss in found.items() if of == dtype]
        if max(ways) - min(ways) > tolerance:
            lines.append(f"\n**{dtype}: they differ by {max(ways) - min(ways):.6f}, more than {tolerance:g}**")
    return ["| precision | short spans by | loss |", "|---|---|---|", *lines]


def of_run(name: str, tried: Tried) -> str:
    ended = tried.ended
    seconds = ", ".join(f"{phase} {value:.1f}" for phase, value in ended.seconds.items())
    score = f"{ended.score:.4f}" if ended.score is not None else f"**{ended.failure}**"
    vram = f"{ended.peak_vram_mb:.0f}" if ended.peak_vram_mb is not None else "-"
    return f"| {name} | {ended.enforcement} | {score} | {told(tried, 'num_steps')} | {seconds} | {vram} |"


HEAD = ["| file | sandbox | val_bpb | steps | seconds by phase | MiB of the GPU |", "|---|---|---|---|---|---|"]


def runs(folder: Path, preset: str) -> tuple[list[str], list[Tried]]:
    """One at each level, then the published settings at the strongest."""
    own, plain = (folder / "train.py").read_bytes(), (HERE / "published.py").read_bytes()
    levels = [level for level in ("landlock", "bubblewrap") if able(level)] or ["none"]
    made: list[Tried] = []
    lines = list(HEAD)
    for name, level, content in [*(("ours", level, own) for level in levels), ("published", levels[-1], plain)]:
        os.environ[sandbox.OVERRIDE] = level
        sandbox.detect.cache_clear()
        (tried,) = run_trial(folder, 1, preset, content).runs
        made.append(tried)
        lines.append(of_run(name, tried))
        print(lines[-1], file=sys.stderr, flush=True)
        if tried.ended.score is None:
            lines.append(f"\n```\n{tried.ended.excerpt[-2000:]}\n```\n")
    return lines, made


def able(level: str) -> bool:
    os.environ[sandbox.OVERRIDE] = level
    sandbox.detect.cache_clear()
    try:
        return sandbox.detect().level == level
    except AutoresearchError:
        return False
    finally:
        del os.environ[sandbox.OVERRIDE]
        sandbox.detect.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", help="the one that fits, if left out")
    parser.add_argument("--budget", type=float, default=60, help="seconds of training of each run")
    parser.add_argument("--on", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    if arguments.on == "cuda" and not torch.cuda.is_available():
        sys.exit("This checks a machine with an NVIDIA GPU, and torch sees none here: `autoresearch-mcp doctor` says why.")
    preset = arguments.preset or ("tiny" if arguments.on == "cpu" else fitting(presets_of("default")) or "gpu")
    began, failed = time.monotonic(), False
    print(f"# The default task on this machine, preset {preset}\n\n`python benchmarks/gpu.py`\n")
    print("\n".join(f"- {line}" for line in machine()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = task(Path(temporary), arguments.budget)
        print("\n## The same by either kernel\n")
        try:
            lines = kernels(folder, preset)
        except AutoresearchError as error:
            lines = [f"```\n**failed**\n{error}\n```"]
        failed |= any("**" in line for line in lines)
        print("\n".join(lines), flush=True)
        print(f"\n## Runs, {arguments.budget:g} s of training each\n")
        lines, made = runs(folder, preset)
        failed |= any(tried.ended.score is None for tried in made)
        print("\n".join(lines))
    estimated = ask("step", preset)
    parts = sum(estimated[part] for part in ("states", "activations", "logits"))
    print(f"\nEstimated for the run: {parts:.0f} MiB without the context of CUDA, of the {estimated['for']:.0f} of the preset.")
    scores = [tried.ended.score for tried in made]
    if scores[-1] and scores[-2]:
        print(
            f"\nOurs against the published settings, one run each, which says nothing of the noise: {scores[-2] / scores[-1]:.3f}."
        )
    print(f"\nThe whole check took {time.monotonic() - began:.0f} s{'; **something failed**' if failed else ''}.")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
