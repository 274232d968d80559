"""Writes attacks.md beside this file: what is tried against every run, as the hostile files in tests/attacks/ say it themselves.

    python docs/attacks.py

The text around the tables is here; tests/test_docs.py asserts that the committed page is what comes out.
"""

import re
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
ATTACKS = Path(__file__).parent.parent / "tests" / "attacks"
AGAINST = ("the score", "causality", "the clock", "sealed data", "the evaluator", "the host")

HEAD = """\
# What was tried

For whoever wants to break it, or to know who has tried. Written by `make docs` from the attacks themselves, {count} of them:
each is a `train.py` that an agent could write. `make test` runs it at every sandbox level that it concerns, as whoever runs the
tests; where that is root, the level `landlock` gives every run a user id of its own. An attack that only a sandbox can stop
names the level from which on it is stopped; the others hold at every level, `none` included, and those that have nothing to do
with a sandbox are tried there. What must hold beside: the host, its files and processes are as they were, nothing of the run is
left, and a score, if there is one, is an honest one.
"""

BEYOND = """\
## Tried in other ways

- Models that look ahead, {twins} of them, each the twin of an honest one: [causality.md](causality.md).
- Graphs and files that are damaged at random, by property tests: tests/evaluate/.
- Everything a run could leave for the next one, some thirty ways: tests/run/test_nothing_lasts.py.
- Every file that a run can open, searched for sealed text: tests/run/test_visible.py.
- Deaths by SIGKILL of server and supervisor at every point where something could be left half done: tests/loop/test_deaths.py.

## Out of reach

- An agent that also has a shell as your user: `connect` denies it one; a server run by another user is safe from it.
- Holes in the kernel, in a driver or in PyTorch's own kernels, which the evaluator shares with every program.
- Side channels: how long something takes, which page of a file is in memory, when a file was last read.
- What a run leaves in the score itself: six decimals a run, and whether it was refused. Over a night of hundreds of runs that
  is some   thousand bits about the validation split; the sealed holdout, which no tool shows, tells you whether they were used.
- Luck. Noise is measured and `keep` reckons with it, but a night of many tries finds some luck: again the holdout tells.
"""


def header(text: str, name: str) -> str:
    found = re.search(rf'^(?:""")?{name}: (.*)$', text, re.MULTILINE)
    return found.group(1) if found else ""


def page() -> str:
    rows: dict[str, list[str]] = {kind: [] for kind in AGAINST}
    files = sorted(ATTACKS.glob("*.py"))
    for path in files:
        text = path.read_text()
        ends = " or ".join(f"`{end.split()[-1]}`" for end in header(text, "Ends").split(", "))
        level = header(text, "Needs") or "every level"
        rows[header(text, "Against")].append(
            f"| [{path.stem}](../tests/attacks/{path.name}) | {header(text, 'Tries').rstrip('.')} | {ends} | {level} |"
        )
    twins = (ATTACKS.parent.parent / "docs" / "causality.md").read_text().count("refused |")
    parts = [HEAD.format(count=len(files))]
    for kind, lines in rows.items():
        table = "\n".join(["| attack | tries to | ends as | stopped from |", "|---|---|---|---|", *lines])
        parts.append(f"## Against {kind}\n\n{table}\n")
    return "\n".join([*parts, BEYOND.format(twins=twins)])


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"written:    {PAGE}")
