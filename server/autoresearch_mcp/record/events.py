"""What happens to a session, as values: the rows of the ledger. Pure; knows neither disk nor clock.

An event is written as one line of JSON that begins with the format it is in and the version of this program that wrote it. Rows
are never rewritten, so a format lives for ever: `read_event` is the one place where rows of an older one are read as today's.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from autoresearch_mcp import __version__
from autoresearch_mcp.errors import LedgerError

FORMAT = 3
Outcome = Literal["scored", "crash", "timeout", "refused", "pruned"]
Purpose = Literal["search", "replicate", "calibrate", "verify", "reproduce"]
"""Why a run is made: `search` for the loop, `replicate` because an agent asks for what no verdict needs, `calibrate` because a
human does. Those count in the loop, the others only examine what it found."""


class EventBody(BaseModel):
    model_config = ConfigDict(frozen=True)


class SessionStarted(EventBody):
    kind: Literal["session"] = "session"
    tag: str
    branch: str
    base_commit: str
    file: str
    metric: str
    direction: Literal["minimize", "maximize"]
    noise_floor: float
    confidence: Literal["single"] | float = "single"
    """Of the task; sessions of older versions were judged by single runs."""
    task_sha256: str
    experiments_before: int = 0
    """Numbers that git has from a ledger that was lost; new experiments count on from there, so that none takes another's ref."""
    runs_before: int = 0
    examines: str | None = None
    """The session whose result this one takes apart; None for a line of research of its own."""


class ExperimentCommitted(EventBody):
    kind: Literal["experiment"] = "experiment"
    experiment: int
    session: str
    commit: str
    parent: str
    file_sha256: str
    lines: int
    added: int
    removed: int
    description: str
    hypothesis: str | None = None
    change_sha256: str | None = None
    """Of the change against the parent, freed of layout; None for the baseline."""
    program_sha256: str | None = None
    """Of the whole file, freed of layout and comments; None in rows of older versions."""
    places: list[str] = []
    """Where in the file it changes something."""
    size: int | None = None
    """Lines of the file that say something: no blank ones, and of Python no comments; None in rows of older versions."""
    wave: int = 0
    """Of experiments that are tried at once: the number of the first; 0 for one that is tried alone."""


class RunStarted(EventBody):
    kind: Literal["run"] = "run"
    run: int
    experiment: int
    seed: int
    conditions: str
    """Hash of the task, the read-only files and the data that this run sees."""
    purpose: Purpose = "search"
    torch: str = ""
    """Version of torch where it was started; empty in rows of older versions."""
    token: str = ""
    """Known to its host: a result without it is of a run of the same number in another ledger."""


NEVER = {"queued": 0.0}
"""Seconds of a run that did not begin: it has seen nothing, and may be made again for free."""


class RunEnded(EventBody):
    """A run's result. Built once, by whoever saw the run end; what does not add up is refused here and not in every reader."""

    kind: Literal["ended"] = "ended"
    run: int
    outcome: Outcome
    failure: str | None = None
    score: float | None = Field(default=None, allow_inf_nan=False)
    holdout: float | None = Field(default=None, allow_inf_nan=False)
    """Sealed: no tool and no resource shows it."""
    details: dict[str, float] = {}
    seconds: dict[str, float] = {}
    """Measured outside the run, by phase: queued, compile, startup, check, training, export, evaluation."""
    peak_memory_mb: float | None = None
    peak_vram_mb: float | None = None
    """Of the GPU's memory until training was over; None where the run had no GPU, or one that does not tell."""
    checks: dict[str, str] = {}
    """By name of each of the task's checks that was made: nothing where it passed, else an excerpt of why not; untrusted."""
    marks: dict[str, str] = {}
    """What the scoring command says of how the score was established, by name: {"causality": "proved"}."""
    enforcement: str = "none"
    hardware: str = ""
    """What it ran on, as far as scores depend on it: accelerator or CPU model, cores granted, other slots in use. Runs compare
    within one class. Empty in rows of older versions."""
    machine: str = ""
    """Which machine of that class: a hash."""
    disturbed: str = ""
    """What took compute from the run that was not ours, in words; empty where nothing did."""
    curve: list[Annotated[float, Field(allow_inf_nan=False)] | None] = []
    """What the run had printed of its progress after each twentieth of its budget; the last is where training ended. Untrusted."""
    saved: float = 0.0
    """Seconds of its budget that ending it early saved."""
    excerpt: str = ""
    stopped: bool = False
    """By stop_experiment, which says nothing of the file; other ends by our hand (too much memory, time or disk) do."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if (self.outcome == "scored") != (self.score is not None):
            raise ValueError("a run has a score when its outcome is `scored`, and only then")
        if (self.outcome == "scored") != (self.failure is None):
            raise ValueError("a run names a failure when its outcome is not `scored`, and only then")
        return self


class VerdictGiven(EventBody):
    kind: Literal["verdict"] = "verdict"
    experiment: int
    verdict: Literal["keep", "discard"]
    reason: str
    learned: str | None = None
    simpler: bool = False
    """Kept because it is shorter and no worse: then it claims no gain."""
    gain: list[float] = []
    """Over the best of its time, then the ends of the 95 % interval; positive is better. Of what was kept it is less than was
    seen, since it was chosen for its luck as well. Empty where it was compared with nothing or is a simplification, without the
    ends where there was no noise."""


class Verified(EventBody):
    """What runs after a night said of it: baseline and best again, interleaved, on val and on the sealed holdout. Where one of them
    gave no score they said nothing, and that is on record too.
    """

    kind: Literal["verified"] = "verified"
    session: str
    baseline: int
    best: int
    """The experiments that were compared."""
    runs: list[int]
    """The numbers of their fresh runs."""
    failed: list[int] = []
    """Those that gave no score."""
    disturbed: list[int] = []
    """Those that others took compute from, and that counted all the same after two more tries."""
    gain: float | None = None
    """Of the score, positive is better; from the fresh runs alone. None where there is none."""
    gain_low: float | None = None
    gain_high: float | None = None
    holdout_gain: float | None = None
    """The same on the holdout; None where the task has none."""
    holdout_low: float | None = None
    holdout_high: float | None = None


class Settled(EventBody):
    """The git side of the experiment's verdict is done."""

    kind: Literal["settled"] = "settled"
    experiment: int


Event = Annotated[
    SessionStarted | ExperimentCommitted | RunStarted | RunEnded | VerdictGiven | Settled | Verified, Field(discriminator="kind")
]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_LISTS: dict[str, TypeAdapter[Any]] = {
    "session": TypeAdapter(list[SessionStarted]),
    "experiment": TypeAdapter(list[ExperimentCommitted]),
    "run": TypeAdapter(list[RunStarted]),
    "ended": TypeAdapter(list[RunEnded]),
    "verdict": TypeAdapter(list[VerdictGiven]),
    "settled": TypeAdapter(list[Settled]),
    "verified": TypeAdapter(list[Verified]),
}
"""By kind: how many rows of it are read at once, in less than half the time of one list of all kinds."""
_TODAY = f'{{"format":{FORMAT},"kind":"'


# --- older formats ----------------------------------------------------------------------------------------------------


def _from_1(body: dict[str, Any]) -> dict[str, Any]:
    """Format 1 (version 0.1.0) had neither format nor version in a row, and let a failed run go without a failure's name."""
    if body.get("kind") == "ended" and body.get("outcome") != "scored" and body.get("failure") is None:
        body["failure"] = "error"
    return body


def _from_2(body: dict[str, Any]) -> dict[str, Any]:
    """Format 2 knew no conditions of a run, no purpose and no verification: what they default to."""
    return body


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
"""By format: how a row of it becomes one of the next."""


def write_event(event: Event) -> str:
    """The row of an event, in today's format."""
    rest = event.model_dump_json(exclude={"kind"}, exclude_defaults=True)[1:]
    return f'{_TODAY}{event.kind}","by":"{__version__}",{rest}'


def read_events(bodies: list[str]) -> list[Event]:
    """Events of rows in any format. Raises LedgerError for what this version does not know, and says who wrote it."""
    kinds: list[str] = []
    by_kind: dict[str, list[str]] = {kind: [] for kind in _LISTS}
    for body in bodies:
        kind = body[len(_TODAY) : body.find('"', len(_TODAY))] if body.startswith(_TODAY) else ""
        if kind not in by_kind:
            return [read_event(body) for body in bodies]  # of an older format, or not known: then it is said which
        kinds.append(kind)
        by_kind[kind].append(body)
    try:
        read = {kind: iter(_LISTS[kind].validate_json(f"[{','.join(rows)}]")) for kind, rows in by_kind.items()}
    except ValidationError:
        return [read_event(body) for body in bodies]
    return [next(read[kind]) for kind in kinds]


def read_event(body: str) -> Event:
    try:
        content = json.loads(body)
        form, writer = content.get("format", 1), content.get("by", "0.1.0")
        if type(form) is not int or form < 1:
            raise ValueError(f"its format is {form!r}")
    except (ValueError, AttributeError) as error:
        raise LedgerError(f"A row of the ledger is no event ({error}): {body[:80]!r}. Restore the ledger from a backup.") from error
    if form > FORMAT or (form == FORMAT and content.get("kind") not in _LISTS):
        raise LedgerError(
            f"The ledger holds an event of the kind {content.get('kind')!r}, format {form}, written by autoresearch-mcp {writer}; "
            f"this is {__version__}, which does not know it. Install that version or a later one."
        )
    for older in range(form, FORMAT):
        content = _UPGRADES[older](content)
    try:
        return _EVENT.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise LedgerError(
            f"An event of the kind {content.get('kind')!r}, written by autoresearch-mcp {writer}, does not read: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Install that version, or restore the ledger from a backup."
        ) from error
