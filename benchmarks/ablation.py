"""What single settings of harness/train.py are worth: each idea against the file as it is, in turn, on the same seeds.

    python benchmarks/ablation.py [SEEDS] [--preset cpu] [--of without|with] [--only TEXT]

An idea is another value of a constant or two, or another text in place of one that train.py has once: WITHOUT takes out what the
file has, WITH puts in what it has not. A difference comes with its standard error. How much differences between two files vary from
seed to seed is taken from all ideas together, since a few seeds say little of it each; within two errors of nothing says nothing.
"""

import re
import sys
from math import sqrt
from pathlib import Path
from statistics import mean, variance

from baseline import HARNESS, conditions, options, run, scores_of, told

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
    "a tenth of the loss of the token after next": {
        "return HeadLoss.apply(": "after = HeadLoss.apply(x[:, :-1].flatten(0, 1), self.lm_head.weight, targets[:, 1:].flatten())\n"
        "            return 0.1 * after + HeadLoss.apply("
    },
    "half the context in the first third": {
        "loss = compiled(x, y)": "size = MAX_SEQ_LEN // 2 if elapsed() < TIME_BUDGET / 3 else MAX_SEQ_LEN\n"
        "            loss = compiled(x.view(-1, size), y.view(-1, size))"
    },
}
IDEAS = {"without": WITHOUT, "with": WITH}
FIRST, LAST = "as it is", "as it is, at the end of each turn"


def changed(text: str, edits: dict[str, str]) -> bytes:
    """The file with other values of its constants, or other texts."""
    for old, new in edits.items():
        constant = re.findall(rf"^{re.escape(old)} = .*", text, re.MULTILINE)
        whole, new = (constant[0], f"{old} = {new}") if constant else (old, new)
        if text.count(whole) != 1:
            sys.exit(f"train.py has not once: {whole}\ncorrect the idea in {Path(__file__).name}")
        text = text.replace(whole, new)
    return text.encode()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--of", choices=IDEAS, help="only what goes without a part of the file, or with a new one")
    parser.add_argument("--only", default="", help="ideas whose name has this in it")
    arguments = parser.parse_args()
    text = (HARNESS / "train.py").read_text()
    kinds = [kind for kind in IDEAS if arguments.of in (None, kind)]
    tables = {kind: [idea for idea in IDEAS[kind] if arguments.only in idea] for kind in kinds}
    edits = {idea: IDEAS[kind][idea] for kind, ideas in tables.items() for idea in ideas}
    files = {name: changed(text, edits.get(name, {})) for name in (FIRST, *edits, LAST)}
    tried = run(files, arguments.preset, arguments.seeds)
    scores = scores_of(tried)
    base = scores[FIRST]
    differences = {name: [value - other for value, other in zip(scores[name], base, strict=True)] for name in (*edits, LAST)}
    error = sqrt(mean(variance(values) for values in differences.values()) / arguments.seeds)
    print(conditions(tried, arguments.preset, arguments.seeds))
    print(f"As it is: {mean(base):.4f}, and at the end of each turn {mean(scores[LAST]):.4f}.")
    print(f"Standard error of a difference: {error:.4f}.")
    for kind, ideas in tables.items():
        print(f"\n| {kind} | val_bpb | worse by | steps |\n|---|---|---|---|")
        for name in ideas:
            steps = mean(int(told(one, "num_steps")) for one in tried[name])
            print(f"| {name} | {mean(scores[name]):.4f} | {mean(differences[name]):+.4f} | {steps:.0f} |")


if __name__ == "__main__":
    main()
