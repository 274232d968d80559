"""What single settings of harness/train.py are worth: each idea against the file as it is, in turn, on the same seeds.

    python benchmarks/ablation.py [SEEDS] [--preset cpu] [--only TEXT]

An idea is another value of a constant or two. A difference comes with its standard error, from the differences seed by seed;
what is within two of them of nothing says nothing. More ideas: add a line to IDEAS.
"""

import re
import sys
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from baseline import HARNESS, conditions, options, run, scores_of, told

IDEAS = (
    ("two layers", {"DEPTH": "2"}),
    ("channels: 256", {"MODEL_DIM": "256"}),
    ("heads of 64", {"HEAD_DIM": "64"}),
    ("rotary positions", {"POSITIONS": '"rotary"'}),
    ("no embeddings of pairs", {"BIGRAMS": "0"}),
    ("twice the rows for pairs", {"BIGRAMS": "2 * 16384"}),
    ("no value embeddings", {"VALUED": "[]"}),
    ("logits capped at 15", {"LOGIT_CAP": "15.0"}),
    ("half the batch", {"TOTAL_BATCH_SIZE": "2**11", "DEVICE_BATCH_SIZE": "8"}),
    ("twice the batch", {"TOTAL_BATCH_SIZE": "2**13", "DEVICE_BATCH_SIZE": "32"}),
    ("Muon's rate doubled", {"MATRIX_LR": "0.04"}),
    ("embeddings' rate halved", {"EMBEDDING_LR": "0.3"}),
    ("no weight decay", {"WEIGHT_DECAY": "0.0"}),
    ("AdamW's second beta 0.95", {"ADAM_BETAS": "(0.8, 0.95)"}),
    ("warm-down in the last half", {"WARMDOWN_RATIO": "0.5"}),
)


def changed(text: str, constants: dict[str, str]) -> bytes:
    """The file with other values of its constants."""
    for name, value in constants.items():
        text, found = re.subn(rf"^{name} = .*", f"{name} = {value}", text, count=1, flags=re.MULTILINE)
        if not found:
            sys.exit(f"train.py has no {name}: correct the idea in {Path(__file__).name}")
    return text.encode()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", default="", help="ideas whose name has this in it")
    arguments = parser.parse_args()
    text = (HARNESS / "train.py").read_text()
    ideas = {idea: changed(text, constants) for idea, constants in IDEAS if arguments.only in idea}
    tried = run({"as it is": text.encode(), **ideas}, arguments.preset, arguments.seeds)
    scores = scores_of(tried)
    print(conditions(tried, arguments.preset, arguments.seeds))
    print("| idea | val_bpb | worse by | steps |")
    print("|---|---|---|---|")
    for name, values in scores.items():
        differences = [value - base for value, base in zip(values, scores["as it is"], strict=True)]
        worse = "" if name == "as it is" else f"{mean(differences):+.4f} ± {stdev(differences) / sqrt(len(values)):.4f}"
        print(f"| {name} | {mean(values):.4f} | {worse} | {mean(int(told(one, 'num_steps')) for one in tried[name]):.0f} |")


if __name__ == "__main__":
    main()
