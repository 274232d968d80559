"""What tools answer: pydantic models that become structured output, each with a short text that stands alone."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any, ClassVar, cast

from pydantic import BaseModel, Field

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.loop.session import OF_EXPERIMENTS, Session
from autoresearch_mcp.record.ledger import ExperimentState, SessionState, format_score
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import plain, tail, untrusted

CURVE_POINTS = 3
LATEST, BEST = 16, 10  # rows of history
DESCRIPTION = 60  # characters of a description in history
LEARNED, SENTENCE = 6, 160  # lessons shown, and the characters of one
THEMES = 10  # places shown
PAGE = 34_000  # bytes of a file in one answer: Codex shows its models 10,000 tokens of 4 bytes and cuts the middle out of more
DIFF = 2000  # characters of the best's diff in status; a whole status stays under 2,000 tokens


class Answer(BaseModel):
    TEXT_ALONE: ClassVar[frozenset[str]] = frozenset()
    """Fields that the structured answer leaves out: said elsewhere in it, by the model in its call, or by status."""

    next: str = Field(description="The next step")

    def body(self) -> str:
        raise NotImplementedError

    def text(self) -> str:
        return f"{self.body()}\nNext: {self.next}."

    def structured(self) -> dict[str, Any]:
        """The same as JSON, and short, because Claude Code and Codex show the model this and not the text: without what is empty,
        scores with the six decimals that the text has."""
        content = _shortened(self.model_dump(mode="json", exclude_none=True, exclude=set(self.TEXT_ALONE)))
        return {name: value for name, value in content.items() if value not in ("", [], {})}


def _shortened(value: Any) -> Any:
    if isinstance(value, float):
        return float(format_score(value))
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in cast("dict[str, Any]", value).items()}
    return [_shortened(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


class FileView(Answer):
    path: str
    revision: str = Field(description="Hash of the whole file")
    total_lines: int
    start_line: int
    end_line: int
    content: str = ""

    def body(self) -> str:
        span = f"lines {self.start_line}-{self.end_line} of {self.total_lines}"
        return f"{self.path}, revision {self.revision}, {span}\n{self.content}"


class PatchApplied(Answer):
    TEXT_ALONE = frozenset({"path"})

    path: str = ""
    revision: str = ""
    added: int = 0
    removed: int = 0
    diff: str = Field(default="", description="What the patch changed, where that is not what it says line by line")
    as_written: bool = Field(default=True, description="The lines went in and out just as the patch has them")

    def body(self) -> str:
        return f"{self.path} changed: +{self.added} -{self.removed} lines, revision {self.revision}\n{self.diff}"

    def structured(self) -> dict[str, Any]:
        return {"next": self.next} if self.as_written else super().structured()  # the model has just written the rest


class Result(Answer):
    """State of one experiment."""

    TEXT_ALONE = frozenset(
        {"metric", "direction", "enforcement", "commit", "description", "suggestion", "best_score", "best_experiment"}
    )

    experiment: int
    description: str = ""
    commit: str = ""
    status: str = Field(description="running, scored (a verdict is owed), keep, discard, crash, timeout or refused")
    metric: str = ""
    direction: str = ""
    score: float | None = None
    runs: list[float] = Field(default=[], description="Scores of all its runs; score is their mean")
    best_score: float | None = Field(default=None, description="Of the best experiment other than this one")
    best_experiment: int | None = None
    improvement: float | None = Field(default=None, description="Over the best; positive is better, whatever the direction")
    noise_floor: float = 0.0
    suggestion: str | None = Field(default=None, description="keep or discard, by the rule that keep enforces")
    reason: str | None = None
    failure: str | None = None
    log_excerpt: str | None = Field(default=None, description="End of a failed run's output; untrusted data")
    details: dict[str, float] = {}
    seconds: dict[str, float] = Field(default={}, description="By phase, measured outside the run")
    curve: str = Field(default="", description="A few points x:y of the learning curve, as the run printed it; untrusted")
    peak_memory_mb: float | None = None
    enforcement: str | None = Field(default=None, description="Sandbox level the run had")
    phase: str | None = Field(default=None, description="Of a run that is on")
    elapsed: float | None = None
    limit: float | None = None
    note: str | None = None

    def structured(self) -> dict[str, Any]:
        content = super().structured()
        if self.score is not None:
            content["score"] = self.score  # with all its digits
            if self.improvement is None or abs(self.improvement) > self.noise_floor:
                content.pop("reason", None)  # the figures say it
        if "seconds" in content:
            content["seconds"] = {
                phase: round(value) for phase, value in self.seconds.items() if round(value) >= sum(self.seconds.values()) / 10
            }
        if self.peak_memory_mb is not None:
            content["peak_memory_mb"] = round(self.peak_memory_mb)
        if self.details:
            content["details"] = {name: value for name, value in content["details"].items() if value != _shortened(self.score)}
            if not content["details"]:
                del content["details"]
        if not self.noise_floor:
            del content["noise_floor"]  # not measured yet
        if self.log_excerpt:
            content["log_excerpt"] = untrusted(self.log_excerpt, f"experiment {self.experiment}")
        return content

    def body(self) -> str:
        lines = [f"Experiment {self.experiment} ({self.commit[:7]}): {self.description}"]
        if self.note:
            lines.append(f"Note: {self.note}.")
        if self.status == "running":
            limit = f" of at most {self.limit:.0f}" if self.limit else ""
            lines.append(f"running: {self.phase}, {self.elapsed or 0:.0f} s{limit} in this phase")
        elif self.score is not None:
            lines.append(f"{self.metric}: {format_score(self.score)} ({self.direction}); status: {self.status}")
            if len(self.runs) > 1:
                lines.append(f"mean of {len(self.runs)} runs: {', '.join(map(format_score, self.runs))}")
            if self.reason:
                lines.append(f"{self.suggestion or self.status}: {self.reason}")
        else:
            lines.append(f"{self.status}: {self.failure}" if self.failure else self.status)
        if self.details:
            lines.append("; ".join(f"{name}: {format_score(value)}" for name, value in self.details.items()))
        if self.curve:
            lines.append(f"curve as printed: {self.curve}")
        if self.seconds and self.status != "running":
            lines.append("seconds: " + ", ".join(f"{phase} {value:.1f}" for phase, value in self.seconds.items()))
        if self.enforcement:
            lines.append(f"sandbox: {self.enforcement}; peak memory: {self.peak_memory_mb or 0:.0f} MiB")
        if self.log_excerpt:
            lines.append(untrusted(self.log_excerpt, f"experiment {self.experiment}"))
        return "\n".join(lines)


class Judged(Answer):
    TEXT_ALONE = frozenset({"verdict", "experiment", "reason", "best_experiment", "best_score"})

    verdict: str = ""
    experiment: int | None = None
    reason: str = ""
    best_experiment: int | None = None
    best_score: float | None = None
    undone_diff: str = Field(default="", description="An edit that never ran, which discard took out of the file")

    def body(self) -> str:
        if self.experiment is None:
            head = f"Edits undone: {self.reason}"
        else:
            head = f"Experiment {self.experiment}: {self.verdict} ({self.reason})"
        best = ""
        if self.best_experiment is not None and self.best_score is not None:
            best = f"\nBest: {format_score(self.best_score)} (experiment {self.best_experiment})"
        return head + best


class Row(BaseModel):
    experiment: int
    score: float | None = None
    status: str
    description: str = ""
    similar_to: int | None = Field(default=None, description="An earlier experiment with nearly the same description")


class History(Answer):
    metric: str
    direction: str
    counts: dict[str, int] = {}
    best: list[Row] = Field(default=[], description="Experiments that were kept, the latest first: the path to the best")
    latest: list[Row] = []
    matches: list[Row] | None = Field(default=None, description="With search: the experiments that match")
    learned: list[str] = Field(default=[], description="What keep and discard were told, the latest first")

    def body(self) -> str:
        total = sum(self.counts.values())
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items()) or "none yet"
        lines = [f"{total} experiments: {counts}; {self.metric}, {self.direction}"]
        sections = {"kept": self.best, "latest": self.latest}
        if self.matches is not None:
            sections = {"matches": self.matches}
        for title, rows in sections.items():
            if rows:
                lines.append(f"{title}:")
                lines += [_row_text(row) for row in rows]
        if self.learned and self.matches is None:
            lines += ["learned:", *(f"  {text}" for text in self.learned)]
        return "\n".join(lines)


def _row_text(row: Row) -> str:
    score = format_score(row.score) if row.score is not None else "-"
    similar = f" (like {row.similar_to})" if row.similar_to is not None else ""
    return f"  {row.experiment} {score} {row.status} {row.description}{similar}"


class Theme(BaseModel):
    """What was tried in one place of the file."""

    place: str
    tried: int
    kept: int
    best_experiment: int | None = Field(default=None, description="The one that came closest to the best, or is it")
    best_score: float | None = None


class Status(Answer):
    goal: str
    rules: str
    session: str
    branch: str
    workspace: str
    file: str
    metric: str
    direction: str
    preset: str | None = None
    budget_seconds: float
    phase: str = Field(description="baseline, ready, edited, running, scored or failed")
    allowed: list[str] = Field(default=[], description="Tools that make sense now, the next step first")
    experiments: int
    kept: int
    baseline_score: float | None = None
    best_score: float | None = None
    best_experiment: int | None = None
    best_commit: str | None = None
    since_best: int = Field(description="Experiments judged since the best one was kept")
    noise_floor: float
    best_diff: str = Field(default="", description="What all that was kept changed against the baseline")
    tried: list[Theme] = Field(default=[], description="By place in the file, the most tried first")
    learned: list[str] = Field(default=[], description="What keep and discard were told, the latest first")
    enforcement: str
    data_ready: bool
    references: list[str] = []

    def body(self) -> str:
        lines = [
            f"Goal: {self.goal}",
            f"You edit {self.file} alone. Metric: {self.metric}, {self.direction}. Budget of a run: {self.budget_seconds:g} s.",
            f"Rules: {self.rules}",
            f"Session {self.session} on branch {self.branch}: {self.experiments} experiments, {self.kept} kept.",
        ]
        if self.best_score is not None and self.baseline_score is not None:
            noise = (
                f"noise floor {format_score(self.noise_floor)}" if self.noise_floor else "noise not measured (replicate=true does)"
            )
            lines.append(
                f"Baseline {format_score(self.baseline_score)}, best {format_score(self.best_score)} "
                f"(experiment {self.best_experiment}, {self.since_best} experiments ago), {noise}."
            )
        if self.best_diff:
            lines += ["Kept so far, against the baseline:", self.best_diff.rstrip("\n")]
        if self.tried:
            lines += ["Tried, by place:", *(_theme_text(theme) for theme in self.tried)]
        if self.learned:
            lines += ["Learned:", *(f"  {text}" for text in self.learned)]
        lines.append(f"Sandbox: {self.enforcement}. To read with read_reference: {', '.join(self.references)}.")
        if not self.data_ready:
            lines.append("The data is not ready: it is being prepared, or a human must run `autoresearch-mcp prepare`.")
        lines.append(f"Phase: {self.phase}. Allowed: {', '.join(self.allowed)}.")
        return "\n".join(lines)


def _theme_text(theme: Theme) -> str:
    nearest = f", nearest {format_score(theme.best_score)} ({theme.best_experiment})" if theme.best_score is not None else ""
    return f"  {theme.place}: {theme.tried} tried, {theme.kept} kept{nearest}"


class Reference(Answer):
    name: str
    total_lines: int | None = Field(default=None, description="With start_line and end_line, where this is not the whole")
    start_line: int | None = None
    end_line: int | None = None
    content: str = ""

    def body(self) -> str:
        span = f"lines {self.start_line}-{self.end_line} of {self.total_lines}\n" if self.total_lines is not None else ""
        return span + self.content


@dataclass(frozen=True)
class Page:
    """Lines `first` to `last` of a text of `total`, counted from 1."""

    text: str
    first: int
    last: int
    total: int
    cut: bool
    """More was asked for than an answer holds."""

    @property
    def whole(self) -> bool:
        return self.last - self.first + 1 == self.total

    def then(self, tool: str, step: str) -> str:
        """The next step: to read on, where the page was cut."""
        return f"call {tool} with start_line={self.last + 1} to read on; then {step}" if self.cut else step


def page(text: str, start: int | None = None, end: int | None = None) -> Page:
    """The lines asked for, as many as fit into PAGE bytes and one at least. Raises NotFoundError for a range that is not there."""
    lines = text.splitlines(keepends=True)
    first, last = start or 1, min(end or len(lines), len(lines))
    if lines and not first <= last:
        raise NotFoundError(
            f"Lines {first} to {end or 'the end'} are not there: it has {len(lines)} lines. Ask for a range inside it."
        )
    shown, size = first - 1, 0
    while shown < last and (size := size + len(lines[shown].encode())) <= PAGE:
        shown += 1
    shown = max(shown, min(first, last))
    return Page("".join(lines[first - 1 : shown]), first, shown, len(lines), cut=shown < last)


# --- from the session's state -----------------------------------------------------------------------------------------


def result(session: Session, number: int | None = None, note: str | None = None) -> Result:
    """State of an experiment, the latest for None."""
    experiment = session.experiment(number)
    state, committed, last = session.state, experiment.committed, experiment.last
    answer = Result(
        next=session.position().next,
        experiment=experiment.number,
        description=committed.description,
        commit=committed.commit[:12],
        status=experiment.status,
        metric=session.task.metric.name,
        direction=session.task.metric.direction,
        score=experiment.score,
        runs=experiment.scores if len(experiment.scores) > 1 else [],
        noise_floor=state.noise_floor,
        curve=curve(session, experiment),
        note=note or None,
    )
    if state.best and state.best is not experiment:
        answer.best_score, answer.best_experiment = state.best.score, state.best.number
        if experiment.score is not None:
            answer.improvement = state.improvement(experiment.score)
    if experiment.running:
        progress = session.progress()
        answer.phase, answer.elapsed, answer.limit = progress.phase, progress.elapsed, progress.limit
    elif last is not None:
        answer.details, answer.seconds = last.details, last.seconds
        answer.peak_memory_mb, answer.enforcement = last.peak_memory_mb, last.enforcement
        if experiment.score is None:
            answer.failure, answer.log_excerpt = last.failure, last.excerpt
        elif experiment.verdict is None:
            answer.suggestion, answer.reason = session.suggest(experiment)
    if experiment.verdict:
        answer.reason = experiment.verdict.reason
    return answer


def curve(session: Session, experiment: ExperimentState) -> str:
    """A few points of the learning curve that the run printed."""
    pattern = session.task.run.progress
    spec = session.spec(experiment.runs[-1].started.run) if pattern and experiment.runs else None
    if pattern is None or spec is None or not spec.log.exists():
        return ""
    points: list[tuple[float, float]] = []
    for line in spec.log.read_bytes()[-(2 << 20) :].decode("utf-8", errors="replace").splitlines():
        if match := re.search(pattern, line[:1000]):
            try:
                points.append((float(match["x"]), float(match["y"])))
            except ValueError:
                continue
    if len(points) > CURVE_POINTS:
        points = [points[round(i * (len(points) - 1) / CURVE_POINTS)] for i in range(1, CURVE_POINTS + 1)]
    return " ".join(f"{x:g}:{y:.4g}" for x, y in points)


def reference(session: Session, name: str, start: int | None = None, end: int | None = None) -> Page:
    """Lines of a file of the task, or of an experiment's output or diff. Raises NotFoundError."""
    kind, _, which = name.partition(":")
    if kind not in ("log", "diff") or not which:
        return page(session.reference(name), start, end)
    if kind == "diff" and which == "best":
        return page(session.diff_of_best() or "(the best is the baseline)", start, end)
    if not which.isdigit():
        raise NotFoundError(f"{name!r} names no experiment. Use {kind}:<number>, like {kind}:3.")
    experiment = session.experiment(int(which))
    if kind == "diff":
        return page(session.diff(experiment), start, end)
    output = page(_output(session, experiment), start, end)
    return replace(output, text=untrusted(output.text, f"experiment {experiment.number}"))


def log(session: Session, number: int | None) -> str:
    """The end of an experiment's latest output, marked as untrusted."""
    experiment = session.experiment(number)
    return untrusted(_output(session, experiment), f"experiment {experiment.number}")


def _output(session: Session, experiment: ExperimentState) -> str:
    spec = session.spec(experiment.runs[-1].started.run) if experiment.runs else None
    return (tail(spec.log, 8000, 200) if spec else "") or "(no output)"


def status(session: Session, enforcement: str) -> Status:
    state, task, position = session.state, session.task, session.position()
    return Status(
        next=position.next,
        goal=task.goal,
        rules=rules(task),
        session=session.tag,
        branch=state.started.branch,
        workspace=str(session.workspace.root),
        file=task.files.editable,
        metric=task.metric.name,
        direction=task.metric.direction,
        preset=task.preset,
        budget_seconds=task.run.budget_seconds,
        phase=position.phase,
        allowed=position.allowed,
        experiments=len(state.experiments),
        kept=sum(e.status == "keep" for e in state.experiments),
        baseline_score=state.baseline.score if state.baseline else None,
        best_score=state.best.score if state.best else None,
        best_experiment=state.best.number if state.best else None,
        best_commit=state.best.committed.commit if state.best else None,
        since_best=len(state.since_best),
        noise_floor=state.noise_floor,
        best_diff=_bounded_diff(session.diff_of_best()),
        tried=themes(state),
        learned=learned(state, LEARNED),
        enforcement=enforcement,
        data_ready=not session.data.missing(),
        references=[*session.references(), *OF_EXPERIMENTS],
    )


def rules(task: Task) -> str:
    """What the server enforces, in a few sentences."""
    return (
        f"{task.files.editable} is all you can change, by apply_patch; the server owns clock, data, metric and git. "
        "The baseline runs first. keep takes only what is better, or equal within the noise with fewer lines. "
        "A crash or timeout is mended or discarded. A change that was run before is refused. "
        "Simple beats clever. Never stop to ask."
    )


def themes(state: SessionState) -> list[Theme]:
    """What was tried by place in the file, the most tried first."""
    by_place: dict[str, list[ExperimentState]] = {}
    for experiment in state.experiments:
        for place in experiment.committed.places:
            by_place.setdefault(plain(place), []).append(experiment)
    found: list[Theme] = []
    for place, tried in sorted(by_place.items(), key=lambda item: -len(item[1]))[:THEMES]:
        theme = Theme(place=place, tried=len(tried), kept=sum(e.status == "keep" for e in tried))
        scored = [(state.improvement(e.score) or 0.0, e) for e in tried if e.score is not None]
        if scored:
            nearest = max(scored, key=lambda pair: pair[0])[1]
            theme.best_experiment, theme.best_score = nearest.number, nearest.score
        found.append(theme)
    return found


def learned(state: SessionState, count: int) -> list[str]:
    """What verdicts were told, the latest first, each lesson once."""
    told: dict[str, int] = {}
    for experiment in reversed(state.experiments):
        if experiment.verdict and experiment.verdict.learned:
            told.setdefault(plain(experiment.verdict.learned), experiment.number)
    return [f"{number}: {_within(text, SENTENCE)}" for text, number in list(told.items())[:count]]


def _within(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _bounded_diff(diff: str) -> str:
    """The whole lines of a diff that fit into DIFF characters."""
    if len(diff) <= DIFF:
        return diff
    return diff[: diff.rfind("\n", 0, DIFF) + 1] + "… cut; read_reference diff:best has the whole\n"


def history(session: Session, search: str | None = None) -> History:
    """Counts, the kept experiments, the latest ones; with `search`, those whose words match, the best first."""
    state = session.state
    kept = [e for e in state.experiments if e.status == "keep"]
    answer = History(
        next=session.position().next,
        metric=session.task.metric.name,
        direction=session.task.metric.direction,
        counts=dict(Counter(e.status if e.score is not None or e.running else session.failure(e) for e in state.experiments)),
        best=[_row(state, e) for e in reversed(kept[-BEST:])],
        latest=[_row(state, e) for e in reversed(state.experiments[-LATEST:])],
        learned=learned(state, LEARNED),
    )
    if search is not None:
        words = search.lower().split()
        found = [e for e in state.experiments if all(word in _searchable(e) for word in words)]
        found.sort(key=lambda e: (e.score is None, -session.task.metric.sign * (e.score or 0.0)))
        answer.matches = [_row(state, e) for e in found[:LATEST]]
    return answer


def _searchable(experiment: ExperimentState) -> str:
    committed = experiment.committed
    learned = experiment.verdict.learned if experiment.verdict else None
    return " ".join(filter(None, (committed.description, committed.hypothesis, learned))).lower()


def _row(state: SessionState, experiment: ExperimentState) -> Row:
    description = plain(" ".join(experiment.committed.description.split()))
    return Row(
        experiment=experiment.number,
        score=experiment.score,
        status=experiment.status,
        description=_within(description, DESCRIPTION),
        similar_to=similar(state, experiment.committed.description, before=experiment.number),
    )


def similar(state: SessionState, description: str, before: int) -> int | None:
    """The first earlier experiment whose description is nearly this one; numbers in it count as different ideas."""
    words = re.findall(r"[a-z0-9.]+", description.lower())
    for experiment in state.experiments:
        if experiment.number >= before:
            return None
        theirs = re.findall(r"[a-z0-9.]+", experiment.committed.description.lower())
        if set(words) == set(theirs):
            return experiment.number
        if len(words) > 3 and _numbers(words) == _numbers(theirs):
            matcher = SequenceMatcher(None, words, theirs, autojunk=False)
            if matcher.real_quick_ratio() >= 0.85 and matcher.quick_ratio() >= 0.85 and matcher.ratio() >= 0.85:
                return experiment.number
    return None


def _numbers(words: list[str]) -> list[str]:
    return [word for word in words if word[0].isdigit()]
