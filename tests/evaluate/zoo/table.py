"""The rows of docs/causality.md's tables, from what happens to each model. Run it to write them anew:

cd tests/evaluate && python -m zoo.table
"""

import re
from functools import cache

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.causality import NotProved, Proof, prove
from zoo.declared import declared
from zoo.parts import MODELS, ROOT, Model

PAGE = ROOT / "docs" / "causality.md"
HEADS = {
    True: "| model | source | as scored | its twin | the twin is |",
    False: "| what looks ahead | how | it is |",
}
"""Of the table of honest models, and of that of what has no honest form."""
ENFORCED = {
    "Attention": "fused attention finite",
    "Direct": "convolution computed directly",
    "Finite": "products with masks finite",
    "Softmax": "masked probabilities 0",
    "Write": "known values written",
    "Recall": "",
}
"""What the guards of causality.py do while scoring, by their class."""


@cache
def proof_of(name: str, peek: bool) -> Proof | str:
    """The proof of a model or of its twin, or who refused it."""
    try:
        found = declared(name, peek).declaration
    except RefusedError:
        return "the operator list"
    try:
        return prove(found.graph, found.values)
    except NotProved:
        return "the proof"


def row(model: Model) -> str:
    """What is true of a model, as a row of its table."""
    bug = f"{model.bug} | {_fate(model)} |"
    source = model.source and f" ({model.source})"
    return f"| {model.name} | {model.source} | {_proved(model)} | {bug}" if model.honest else f"| {model.name}{source} | {bug}"


def _proved(model: Model) -> str:
    proof = proof_of(model.name, False)
    if not isinstance(proof, Proof):
        return f"**probed**: {model.unproved}"
    enforced = sorted({ENFORCED[type(guard).__name__] for guard in proof.guards.values()} - {""})
    pinned = sorted({name.split(".")[-1] for name in proof.pinned})
    return "; ".join(["proved", *enforced, *(f"`{name}` pinned" for name in pinned)])


def _fate(model: Model) -> str:
    """Of the twin."""
    refused = proof_of(model.name, True)
    if isinstance(refused, Proof):
        return "proved: scoring takes its channel away" if model.harmless else "**proved, wrongly**"
    if refused != "the proof":
        return f"refused by {refused}"
    return "refused; probe: not surely" if model.small else "refused; probe: yes"


def rows_of_page(honest: bool) -> list[str]:
    return PAGE.read_text().split(f"{HEADS[honest]}\n")[1].split("\n\n")[0].splitlines()[1:]


def main() -> None:
    text = PAGE.read_text()
    for honest, head in HEADS.items():
        rows = [row(model) for model in MODELS.values() if model.honest == honest]
        before, _, after = text.partition(f"{head}\n")
        text = "\n".join([f"{before}{head}", re.sub(r"[^|]+", "---", head), *rows, "", after.partition("\n\n")[2]])
    PAGE.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
