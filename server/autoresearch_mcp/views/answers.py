"""What tools answer: pydantic models that become structured output, each with a short text that stands alone.

Models alone: what goes into them is put together in build.py.
"""

from typing import Any, ClassVar, cast

from pydantic import BaseModel, Field

from autoresearch_mcp.text import format_score, shown_score, spaced, untrusted
from autoresearch_mcp.views.figures import gain_in_words


class Answer(BaseModel):
    TEXT_ALONE: ClassVar[frozenset[str]] = frozenset()
    """Fields that the structured answer leaves out: said elsewhere in it, by the model in its call, or by status."""

    next: str = Field(default="", description="The next step, where `allowed` does not say enough")
    allowed: list[str] = Field(default=[], description="Tools that make sense now, the suggested one first")
    routine: bool = Field(default=False, exclude=True)

    def body(self) -> str:
        raise NotImplementedError

    def text(self) -> str:
        return f"{self.body()}\nAllowed: {', '.join(self.allowed)}. Next: {self.next}."

    def structured(self) -> dict[str, Any]:
        """The same as JSON, and short, because Claude Code and Codex show the model this and not the text: without what is empty,
        scores with the six decimals that the text has."""
        said = {*self.TEXT_ALONE, "next"} if self.routine else set(self.TEXT_ALONE)
        content = shortened(self.model_dump(mode="json", exclude_none=True, exclude=said))
        return {name: value for name, value in content.items() if value not in ("", [], {})}


def shortened(value: Any) -> Any:
    """A JSON value with numbers as an agent sees scores."""
    if isinstance(value, float):
        return shown_score(value)
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in cast("dict[str, Any]", value).items()}
    return [shortened(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


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

    def structured(self) -> dict[str, Any]:
        return super().structured() | {"content": self.content}  # also of an empty file


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
        content = super().structured()
        if not self.as_written:
            return content
        return {name: value for name, value in content.items() if name in ("next", "allowed", "note")}  # the model wrote the rest


class Member(BaseModel):
    """Of a wave."""

    experiment: int
    score: float | None = None
    gain: list[float] = []
    status: str = Field(description="keep or discard as it earned, running, or how it failed")
    description: str = ""


class Result(Answer):
    """State of one experiment, or of a wave."""

    TEXT_ALONE = frozenset(
        {"metric", "direction", "baseline_startup", "enforcement", "commit", "description", "best_score", "best_experiment"}
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
    gain: list[float] = Field(
        default=[], description="Over the best, then the ends of its 95 % interval; positive is better, whatever the direction"
    )
    disturbed: str = Field(default="", description="What took compute from the latest run that was not ours")
    suggestion: str | None = Field(default=None, description="keep, discard or repeat, by the rule that keep enforces")
    reason: str | None = None
    failure: str | None = None
    log_excerpt: str | None = Field(default=None, description="End of a failed run's output; untrusted data")
    unit: str = Field(default="", description="Of the score")
    details: dict[str, float] = {}
    checks: dict[str, str] = Field(default={}, description="The task's checks: passed, or how they failed")
    checks_excerpt: str = Field(default="", description="What failed checks printed; untrusted data")
    limits: dict[str, str] = Field(default={}, description="Secondary metrics, which have limits")
    seconds: dict[str, float] = Field(default={}, description="By phase, measured outside the run")
    curve: str = Field(default="", description="A few points x:y of the learning curve, as the run printed it; untrusted")
    baseline_startup: float | None = Field(default=None, description="Seconds of start-up of the baseline")
    runs_scored: int = Field(default=0, exclude=True)
    runs_failed: int = Field(default=0, description="Runs of it that saw data and gave no score")
    marks: dict[str, str] = Field(default={}, description="How the score was established, like causality: proved")
    peak_memory_mb: float | None = None
    peak_vram_mb: float | None = Field(default=None, description="Of the GPU's memory")
    enforcement: str | None = Field(default=None, description="Sandbox level the run had")
    wave: list[Member] = Field(default=[], description="All of the wave, the best first; then the rest of this is of the first")
    phase: str | None = Field(default=None, description="Of a run that is on")
    elapsed: float | None = None
    limit: float | None = None
    note: str | None = None

    def structured(self) -> dict[str, Any]:
        content = super().structured()
        if self.score is not None:
            if not self.runs_failed:
                content.pop("runs_failed", None)
            if self.suggestion != "repeat" and (len(self.gain) < 3 or self.gain[1] * self.gain[2] > 0):
                content.pop("reason", None)  # the figures say it
        if "seconds" in content:
            tenth = sum(self.seconds.values()) / 10
            content["seconds"] = {phase: round(value) for phase, value in self.seconds.items() if round(value) >= max(tenth, 1)}
            if not content["seconds"]:
                del content["seconds"]  # a run of less than a second
        for name in ("peak_memory_mb", "peak_vram_mb"):
            if name in content:
                content[name] = round(content[name])
        if self.checks_excerpt:
            content["checks_excerpt"] = untrusted(self.checks_excerpt, f"checks of experiment {self.experiment}")
        if self.details:
            content["details"] = {name: value for name, value in content["details"].items() if value != shortened(self.score)}
            if not content["details"]:
                del content["details"]
        if self.log_excerpt:
            content["log_excerpt"] = untrusted(self.log_excerpt, f"experiment {self.experiment}")
        return content

    def body(self) -> str:
        lines = [f"Experiment {self.experiment} ({self.commit[:7]}): {self.description}"]
        if self.wave:
            lines = [f"A wave of {len(self.wave)}, the best first:", *map(_member_text, self.wave), *lines]
        if self.note:
            lines.append(f"Note: {self.note}.")
        if self.status == "running":
            limit = f" of at most {self.limit:.0f}" if self.limit else ""
            lines.append(f"running: {self.phase}, {self.elapsed or 0:.0f} s{limit} in this phase")
            if self.reason:
                lines.append(f"so far: {self.reason}")
        elif self.score is not None:
            lines.append(f"{self.metric}: {format_score(self.score)}{spaced(self.unit)} ({self.direction}); status: {self.status}")
            if len(self.runs) > 1:
                lines.append(f"mean of {len(self.runs)} runs: {', '.join(map(format_score, self.runs))}")
            if self.reason:
                lines.append(f"{self.suggestion or self.status}: {self.reason}")
        else:
            lines.append(f"{self.status}: {self.failure}" if self.failure not in (None, self.status) else self.status)
        if self.runs_failed:
            lines.append(f"{self.runs_failed} of {self.runs_failed + self.runs_scored} runs gave no score after training began")
        if self.disturbed:
            lines.append(f"disturbed: {self.disturbed}")
        if self.marks:
            lines.append("; ".join(f"{name}: {value}" for name, value in self.marks.items()))
        figures = {name: format_score(value) for name, value in self.details.items() if name not in self.limits}
        if figures:
            lines.append("; ".join(f"{name}: {value}" for name, value in figures.items()))
        if self.limits:
            lines.append("; ".join(f"{name}: {value}" for name, value in self.limits.items()))
        if self.checks:
            lines.append("checks: " + "; ".join(f"{name}: {said}" for name, said in self.checks.items()))
        if self.curve:
            lines.append(f"curve as printed: {self.curve}")
        if self.seconds and self.status != "running":
            lines.append("seconds: " + ", ".join(f"{phase} {value:.1f}" for phase, value in self.seconds.items()))
        if self.baseline_startup is not None and "startup" in self.seconds and self.status != "running":
            lines.append(f"start-up: {self.seconds['startup']:.1f} s; the baseline's {self.baseline_startup:.1f} s")
        if self.enforcement:
            vram = "" if self.peak_vram_mb is None else f", of the GPU's {self.peak_vram_mb:.0f} MiB"
            lines.append(f"sandbox: {self.enforcement}; peak memory: {self.peak_memory_mb or 0:.0f} MiB{vram}")
        if self.log_excerpt:
            lines.append(untrusted(self.log_excerpt, f"experiment {self.experiment}"))
        if self.checks_excerpt:
            lines.append(untrusted(self.checks_excerpt, f"checks of experiment {self.experiment}"))
        return "\n".join(lines)


def _member_text(member: Member) -> str:
    score = format_score(member.score) if member.score is not None else "-"
    gain = f" ({gain_in_words(member.gain)})" if member.gain else ""
    return f"  {member.experiment} {score}{gain} {member.status} {member.description}"


class Judged(Answer):
    TEXT_ALONE = frozenset({"verdict", "experiment", "reason", "best_experiment", "best_score"})

    verdict: str = ""
    experiment: int | None = None
    reason: str = ""
    best_experiment: int | None = None
    best_score: float | None = None
    discarded: dict[int, str] = Field(default={}, description="Of a wave: the others, with the reasons")
    undone_diff: str = Field(default="", description="An edit that never ran, which discard took out of the file")
    note: str = ""

    def body(self) -> str:
        if self.experiment is None and self.discarded:
            head = "The wave is discarded"
        elif self.experiment is None:
            head = f"Edits undone: {self.reason}"
        else:
            head = f"Experiment {self.experiment}: {self.verdict} ({self.reason})"
        best = ""
        if self.best_experiment is not None and self.best_score is not None:
            best = f"\nBest: {format_score(self.best_score)} (experiment {self.best_experiment})"
        others = "".join(f"\nExperiment {number}: discard ({reason})" for number, reason in self.discarded.items())
        return head + others + best + (f"\nNote: {self.note}." if self.note else "")


class Row(BaseModel):
    experiment: int
    score: float | None = None
    runs: int | None = Field(default=None, description="That the score is the mean of, where there are more than one")
    status: str
    description: str = ""
    similar_to: int | None = Field(default=None, description="An earlier experiment with nearly the same description")
    session: str | None = Field(default=None, description="Whose it is, where it is another's")


class History(Answer):
    metric: str
    direction: str
    counts: dict[str, int] = {}
    program: str = Field(default="", description="Which program.md they ran under: the first digits of its hash")
    best: list[Row] = Field(default=[], description="Experiments that were kept, the latest first: the path to the best")
    latest: list[Row] = []
    matches: list[Row] | None = Field(default=None, description="With search: the experiments that match")
    learned: list[str] = Field(default=[], description="What keep and discard were told, the latest first")

    def body(self) -> str:
        total = sum(self.counts.values())
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items()) or "none yet"
        lines = [f"{total} experiments: {counts}; {self.metric}, {self.direction}"]
        if self.program:
            lines[0] += f"; program.md {self.program}"
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
    runs = f" (mean of {row.runs})" if row.runs else ""
    similar = f" (like {row.similar_to})" if row.similar_to is not None else ""
    whose = f" [{row.session}]" if row.session else ""
    return f"  {row.experiment} {score}{runs} {row.status} {row.description}{similar}{whose}"


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
    unit: str = Field(default="", description="Of the metric")
    budget_seconds: float | None = Field(default=None, description="Of a run; left out where nothing runs but the scoring")
    timeout_seconds: float = Field(default=0.0, exclude=True)
    program: str = Field(default="", description="Which program.md the session works by: the first digits of its hash")
    stale: list[str] = Field(default=[], description="Files that a human changed since the session began; it has them as they were")
    bars: list[str] = Field(default=[], description="What must hold before a change is kept, beside the score")
    limits: str = Field(default="", description="When the session is done")
    cost: float | None = Field(default=None, description="Of all runs so far, as the human counts it")
    phase: str = Field(description="baseline, ready, edited, running, repeating, scored, failed or done")
    experiments: int
    kept: int
    baseline_score: float | None = None
    best_score: float | None = None
    best_known: str = Field(default="", description="The same, with half of its 95 % interval")
    best_experiment: int | None = None
    best_commit: str | None = None
    best_runs: str = Field(default="", description="How many runs its score is the mean of, and how many failed")
    startup: str = Field(default="", description="Seconds of start-up of the latest run, beside the baseline's")
    since_best: int = Field(description="Experiments judged since the best one was kept")
    gain: list[float] = Field(
        default=[], description="Of all that was kept over the baseline, then the ends of its 95 % interval; positive is better"
    )
    noise: str = Field(description="Standard deviation of one run's score, and on what hardware")
    best_diff: str = Field(default="", description="What all that was kept changed against the baseline")
    tried: list[Theme] = Field(default=[], description="By place in the file, the most tried first")
    learned: list[str] = Field(default=[], description="What keep and discard were told, the latest first")
    enforcement: str
    data_ready: bool
    references: list[str] = []

    def body(self) -> str:
        lines = [
            f"Goal: {self.goal}",
            f"You edit {self.file} alone. Metric: {self.metric}{f' in {self.unit}' if self.unit else ''}, {self.direction}. "
            + _time_of(self.budget_seconds, self.timeout_seconds),
            f"Rules: {self.rules}",
            f"Session {self.session} on branch {self.branch}: {self.experiments} experiments, {self.kept} kept.",
        ]
        if self.best_score is not None and self.baseline_score is not None:
            gain = f", a gain of {gain_in_words(self.gain)}" if self.gain else ""
            lines.append(
                f"Baseline {format_score(self.baseline_score)}, best {self.best_known} "
                f"(experiment {self.best_experiment}, {self.since_best} experiments ago){gain}. Noise: {self.noise}."
            )
        if self.best_runs:
            lines.append(f"The best: {self.best_runs}.")
        if self.startup:
            lines.append(f"Start-up: {self.startup}.")
        if self.best_diff:
            lines += ["Kept so far, against the baseline:", self.best_diff.rstrip("\n")]
        if self.tried:
            lines += ["Tried, by place:", *(_theme_text(theme) for theme in self.tried)]
        if self.learned:
            lines += ["Learned:", *(f"  {text}" for text in self.learned)]
        lines.append(f"Sandbox: {self.enforcement}. To read with read_reference: {', '.join(self.references)}.")
        if self.program:
            lines.append(f"program.md: {self.program}.")
        if self.stale:
            lines.append(
                f"Changed since the session began: {', '.join(self.stale)}. It goes on as it began; a human who wants the "
                "new ones starts another: serve --session NAME."
            )
        if self.bars:
            lines.append(f"Needed for a keep, beside the score: {'; '.join(self.bars)}.")
        if self.limits:
            lines.append(f"Limits: {self.limits}." + (f" Cost so far: {self.cost:g}." if self.cost is not None else ""))
        if not self.data_ready:
            lines.append("The data is not ready: it is being prepared, or a human must run `autoresearch-mcp prepare`.")
        lines.append(f"Phase: {self.phase}.")
        return "\n".join(lines)


def _time_of(budget: float | None, timeout: float) -> str:
    return f"Nothing runs; scoring may take {timeout:g} s." if budget is None else f"Budget of a run: {budget:g} s."


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
