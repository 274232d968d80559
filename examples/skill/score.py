"""Scores a SKILL.md from 0 to 100: is it found for the right requests, do its code blocks do their jobs, is it sound and short.

    score = 100 * form * (found + done + 2 * found * done) / 4

found   Matthews correlation of what BM25 gives to the skill and what is for it, over requests that are sealed, with the twelve
        skills of decoys.json installed beside it; times how much its description is prose (retrieval.py)
done    share of the jobs in jobs.json whose blocks print what they must, on files that are sealed; times the share of blocks that
        run
form    1, less a fifth each for broken links, a body beyond 1200 tokens, a description beyond 450 characters

Half of it is the product, for a skill that is not found helps nobody, and neither does one that is found and wrong.

The skill is text here. Its blocks run in sandboxed children, each block in one of its own, each time in a folder of its own; what
they print is compared and never believed.
"""

import base64
import csv
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval import Confusion, Index, prose
from skillfile import Block, Skill, SkillError, is_sound, read

from autoresearch_mcp.evaluate.child import Child, ChildError, answer

TOKENS = (1200, 4000)  # of the body: from here on it costs, and here it costs all
CHARACTERS = (450, 1024)  # of the description, which every conversation carries
SECONDS = 5  # that a block may run
START = 20  # seconds until a child must have answered beside
SHELLS, PYTHON = ("bash", "sh", "shell", "zsh"), ("python", "python3", "py")  # as people name them; what else there is, is no code
RUNNER = """
import base64, json, os, select, signal, subprocess, sys, tempfile, time
SECONDS, OUTPUT = int(sys.argv[1]), 1 << 20

for line in sys.stdin:
    case = json.loads(line)
    folder, beside = tempfile.mkdtemp(), tempfile.mkdtemp()
    for name, content in case["files"].items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(base64.b64decode(content))
    block = os.path.join(beside, "block")
    with open(block, "w", encoding="utf-8") as file:
        file.write(case["code"])
    command = ["bash", "-euo", "pipefail", block] if case["shell"] else [sys.executable, block]
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
                               env={**os.environ, "LC_ALL": "C.UTF-8"})
    deadline, text, more = time.monotonic() + SECONDS, b"", True
    while more and len(text) <= OUTPUT:
        if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        more = os.read(process.stdout.fileno(), 1 << 16)
        text += more
    if not more:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            more = True
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process.stdout.close()
    late = bool(more)  # or it printed more than anybody wants
    print(json.dumps({"status": process.returncode, "late": late, "output": base64.b64encode(text).decode()}), flush=True)
"""


@dataclass(frozen=True)
class Ran:
    ended_well: bool
    output: bytes
    in_time: bool = True


def main(path: Path, data: Path) -> None:
    try:
        skill = read(path)
    except SkillError as error:
        answer(refused=str(error), failure="refused")
        return
    decoys: dict[str, str] = json.loads(Path("decoys.json").read_text(encoding="utf-8"))
    parts: dict[str, Any] = {part: json.loads((data / f"{part}.json").read_text(encoding="utf-8")) for part in ("val", "holdout")}
    runs = [run(block, list(parts.values()), path.parent / "assets") for block in skill.blocks]
    made = {part: recipes(skill.blocks, [ran[number] for ran in runs], parts[part]["jobs"]) for number, part in enumerate(parts)}
    found = {part: confusion(skill, decoys, parts[part]["prompts"]) for part in parts}
    written, sound = prose(skill.description), [is_sound(link, path.parent) for link in skill.links]
    shape = form(sound, skill.tokens, len(skill.description))

    def total(part: str) -> float:
        return round(worth(max(0.0, found[part].mcc) * written, made[part].share, shape), 4)

    val, confused = made["val"], found["val"]
    details = {
        "mcc": round(confused.mcc, 4),
        "recall": round(confused.recall, 4),
        "precision": round(confused.precision, 4),
        "false_triggers": confused.fp,
        "prose": round(written, 4),
        "blocks": val.blocks,
        "blocks_failed": val.failed,
        "links_broken": sound.count(False),
        "body_tokens": skill.tokens,
        "description_characters": len(skill.description),
        "form": round(shape, 4),
    }
    details |= {f"job_{job}": float(solved) for job, solved in val.solved.items()}
    answer(score=total("val"), holdout=total("holdout"), details=details)


def confusion(skill: Skill, decoys: dict[str, str], prompts: list[list[str]]) -> Confusion:
    index = Index({**decoys, skill.name: skill.description})
    return Confusion([(label == "yes", index.triggers(skill.name, text)) for label, text in prompts])


@dataclass(frozen=True)
class Recipes:
    solved: dict[str, bool]
    blocks: int
    failed: int

    @property
    def share(self) -> float:
        """Where there are no jobs, running is all that is asked of a block."""
        jobs = sum(self.solved.values()) / len(self.solved) if self.solved else 1.0
        return jobs * ((self.blocks - self.failed) / self.blocks if self.blocks else 1.0)


def recipes(blocks: list[Block], runs: list[Ran | None], jobs: dict[str, Any]) -> Recipes:
    """What the blocks did, `runs` in their order, None for one that is no code. A job with several blocks needs all of them."""
    good: list[bool] = []
    by_job: dict[str, list[bool]] = {job: [] for job in jobs}
    for block, ran in zip(blocks, runs, strict=True):
        if ran is None:
            continue
        well = ran.ended_well
        if block.job:
            well = well and block.job in jobs and equals(ran.output, jobs[block.job]["as"], jobs[block.job]["expected"])
            by_job.setdefault(block.job, []).append(well)
        good.append(well)
    return Recipes({job: bool(by_job[job]) and all(by_job[job]) for job in jobs}, len(good), good.count(False))


def run(block: Block, parts: list[Any], assets: Path) -> list[Ran | None]:
    """Runs a block with the files of each part in its folder; one that does no job with the files that its author knows."""
    if block.language == "json":
        return [Ran(is_json(block.code), b"")] * len(parts)
    if block.language not in (*PYTHON, *SHELLS):
        return [None] * len(parts)
    cases = [part["files"] for part in parts]
    if not block.job:
        cases = [{file.name: base64.b64encode(file.read_bytes()).decode() for file in assets.glob("*") if file.is_file()}]
    ran: list[Ran | None] = []
    child = Child(
        ["{python}", "-c", RUNNER, str(SECONDS)], seconds=START
    )  # ended with this command; no more are than may be at once
    for files in cases:
        try:
            said = child.ask({"shell": block.language in SHELLS, "code": block.code, "files": files})
        except ChildError:
            break  # it brought down the one that ran it; the others have their own
        ran.append(ran_as(said))
        if not ran[-1].in_time:
            break  # once is enough to know it
    ran += [Ran(False, b"")] * (len(cases) - len(ran))
    return ran if block.job else ran * len(parts)


def ran_as(said: Any) -> Ran:
    """A block may write what it likes where its child answers; that is no more than it could print."""
    try:
        in_time = said["late"] is False
        return Ran(in_time and said["status"] == 0, base64.b64decode(said["output"], validate=True), in_time)
    except (KeyError, TypeError, ValueError):
        return Ran(False, b"", in_time=False)


def equals(output: bytes, kind: str, expected: Any) -> bool:
    """Whether what was printed says what is expected, however it is quoted or indented."""
    try:
        text = output.decode("utf-8")
        match kind:
            case "csv":
                rows = csv.reader(io.StringIO(text.replace("\r\n", "\n"), newline=""), strict=True)
                return [row for row in rows if row] == expected
            case "json":
                return json.loads(text) == expected
            case _:
                return text.split() == expected
    except (ValueError, csv.Error, RecursionError):
        return False


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def worth(found: float, done: float, shape: float) -> float:
    return 100 * shape * (found + done + 2 * found * done) / 4


def form(sound: list[bool], tokens: float, characters: int) -> float:
    """1, less a fifth each for broken links and what is too long."""
    broken = sound.count(False) / len(sound) if sound else 0.0
    return (1 - broken / 5) * (1 - beyond(tokens, TOKENS) / 5) * (1 - beyond(characters, CHARACTERS) / 5)


def beyond(value: float, bounds: tuple[int, int]) -> float:
    """0 up to the first bound, 1 from the second on."""
    return min(1.0, max(0.0, (value - bounds[0]) / (bounds[1] - bounds[0])))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
