"""From a session's state to what is shown of it: each function makes one answer."""

from heapq import nlargest
from itertools import islice
from typing import TypeVar

from autoresearch_mcp.loop import batch, limits, waves
from autoresearch_mcp.loop.session import Judgement, Session
from autoresearch_mcp.loop.verdicts import Verdict, verdict
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import one_line, plain, within
from autoresearch_mcp.views.answers import (
    Answer,
    FileView,
    History,
    Judged,
    Member,
    PatchApplied,
    Reference,
    Result,
    Row,
    Status,
    Theme,
)
from autoresearch_mcp.views.figures import (
    bars_in_words,
    best_in_words,
    checks_excerpt,
    checks_in_words,
    limits_in_words,
    noise_in_words,
    runs_of_best,
    shown,
    shown_gain,
    startup,
    startups,
)
from autoresearch_mcp.views.paging import Page, page
from autoresearch_mcp.views.printed import printed
from autoresearch_mcp.views.references import diff_of_best, is_hidden, reference_page, references

CURVE_POINTS = 3
LATEST, BEST = 16, 10  # rows of history
DESCRIPTION = 60  # characters of a description in history
LEARNED, SENTENCE = 6, 160  # lessons shown, and the characters of one
THEMES = 10  # places shown
DIFF = 2000  # characters of the best's diff in status; a whole status stays under 2,000 tokens
A = TypeVar("A", bound=Answer)

GREEDY = ". One run decides, as in the original: keep takes only what is better, or equal in repeated runs with fewer lines."
CONFIDENT = (
    ", several times, so that the noise is known. The server repeats runs by itself until the evidence suffices: keep takes only "
    "what is better beyond luck, or in repeated runs no worse with fewer lines."
)


# --- the file ---------------------------------------------------------------------------------------------------------


def file_view(session: Session, start: int | None = None, end: int | None = None) -> FileView:
    """Lines of the editable file. Raises NotFoundError, WorkspaceError."""
    current = session.read()
    shown = page(current.text, start, end)
    answer = FileView(
        path=session.task.files.editable,
        revision=current.revision,
        total_lines=shown.total,
        start_line=shown.first,
        end_line=shown.last,
        content=shown.text,
    )
    return _placed(answer, session, shown, session.task.read_tool)


def patched(session: Session, patch: str) -> PatchApplied:
    """Applies the patch. Raises PatchError, NotAllowedError."""
    diff, current = session.apply_patch(patch)
    given = {text for line in patch.splitlines() for text in (line, line[1:])}  # with a sign before it, or without
    answer = PatchApplied(
        path=session.task.files.editable,
        revision=current.revision,
        added=len(diff.added),
        removed=len(diff.removed),
        diff=diff.text,
        as_written=all(line in given for line in (*diff.added, *diff.removed)),
    )
    return _placed(answer, session)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def kept(session: Session, learned: str | None = None, number: int | None = None) -> Judged:
    return _judged(session, "keep", session.keep(learned, number))


def discarded(session: Session, learned: str | None = None) -> Judged:
    return _judged(session, "discard", session.discard(learned))


def _judged(session: Session, given: str, judgement: Judgement) -> Judged:
    best, experiment = session.state.best, judgement.experiment
    answer = Judged(
        verdict=given,
        best_experiment=best.number if best else None,
        best_score=session.state.best_score,
        note=judgement.note,
    )
    answer.discarded = {e.number: e.verdict.reason for e in judgement.others if e.verdict}
    if experiment is not None and experiment.verdict is not None:
        answer.experiment, answer.reason = experiment.number, experiment.verdict.reason
    elif judgement.undone is not None and not judgement.others:  # git has what an experiment had
        answer.reason, answer.undone_diff = f"{session.task.files.editable} is the best experiment's again", judgement.undone.text
    return _placed(answer, session)


# --- one experiment ---------------------------------------------------------------------------------------------------


def result(session: Session, number: int | None = None, note: str | None = None) -> Result:
    """State of an experiment; for None of the wave that is on, else of the latest. Raises NotFoundError."""
    ranked = waves.ranked(session.state, session.task) if number is None else []
    if not ranked:
        return _placed(_result(session, number, note), session)
    answer = _result(session, ranked[0][0].number, note)
    if session.waits(None):
        answer.status, answer.suggestion, progress = "running", None, session.progress()
        answer.phase, answer.elapsed, answer.limit = progress.phase, progress.elapsed, progress.limit
    answer.wave = [_member(session, member, given) for member, given in ranked]
    return _placed(answer, session)


def _member(session: Session, member: ExperimentState, given: Verdict | None) -> Member:
    gain = session.state.standing_on(member.hardware).gain(member.number) if member.score is not None else None
    return Member(
        experiment=member.number,
        score=member.score,
        gain=shown_gain(gain, member.score or 0.0),
        status="running" if given is None else given.decision if member.score is not None else member.failure,
        description=within(one_line(member.committed.description, 500), DESCRIPTION),
    )


def _result(session: Session, number: int | None, note: str | None) -> Result:
    experiment, state = session.experiment(number), session.state
    committed, last = experiment.committed, experiment.last
    answer = Result(
        experiment=experiment.number,
        description=committed.description,
        commit=committed.commit[:12],
        status="running" if session.waits(experiment.number) else experiment.status,
        metric=session.task.metric.name,
        direction=session.task.metric.direction,
        unit=session.task.metric.unit,
        score=experiment.score,
        runs=experiment.scores if len(experiment.scores) > 1 else [],
        baseline_startup=startup(state.baseline),
        runs_scored=len(experiment.scores),
        runs_failed=experiment.failed_looks if experiment.scores else 0,
        curve=curve(session, experiment),
        note=note or None,
    )
    if state.best and state.best is not experiment:
        answer.best_score, answer.best_experiment = state.best_score, state.best.number
        if experiment.score is not None and experiment.verdict is None:
            answer.gain = shown_gain(state.standing_on(experiment.hardware).gain(experiment.number), experiment.score)
    if answer.status == "running":
        progress = session.progress(experiment.number)
        answer.phase, answer.elapsed, answer.limit = progress.phase, progress.elapsed, progress.limit
        answer.note = progress.note or answer.note
    elif last is not None:
        answer.seconds = last.seconds
        answer.marks, answer.disturbed = last.marks, last.disturbed
        answer.checks, answer.limits = checks_in_words(experiment), limits_in_words(session.task, experiment)
        answer.details = last.details
        answer.checks_excerpt = checks_excerpt(experiment)
        answer.peak_memory_mb, answer.peak_vram_mb = last.peak_memory_mb, last.peak_vram_mb
        answer.enforcement = None if last.seconds.keys() == {"queued"} else last.enforcement  # it never began
        if experiment.score is None:
            answer.failure, answer.log_excerpt = last.failure, last.excerpt
    if experiment.score is not None and experiment.verdict is None:
        earned = verdict(state, session.task, experiment)
        answer.suggestion, answer.reason = earned.decision, earned.reason
    if experiment.verdict:
        answer.reason = experiment.verdict.reason
        answer.gain = shown(experiment.verdict.gain, experiment.score or 0.0)
    return answer


def curve(session: Session, experiment: ExperimentState) -> str:
    """A few points of the learning curve that the run printed."""
    read = printed(session, experiment)
    points = read.look() if read else []
    if len(points) > CURVE_POINTS:
        points = [points[round(i * (len(points) - 1) / CURVE_POINTS)] for i in range(1, CURVE_POINTS + 1)]
    return " ".join(f"{x:g}:{y:.4g}" for x, y in points)


# --- references -------------------------------------------------------------------------------------------------------


def reference(session: Session, name: str, start: int | None = None, end: int | None = None) -> Reference:
    """Lines of a file of the task, or of an experiment's output or diff. Raises NotFoundError."""
    name = name.strip()
    shown = reference_page(session, name, start, end)
    answer = Reference(name=name, content=shown.text)
    if not shown.whole:
        answer.total_lines, answer.start_line, answer.end_line = shown.total, shown.first, shown.last
    return _placed(answer, session, shown, "read_reference")


# --- the session ------------------------------------------------------------------------------------------------------


def status(session: Session) -> Status:
    session.refresh()
    state, task, now = session.state, session.task, session.position()
    return Status(
        next=now.next,
        allowed=list(now.allowed),
        phase=now.phase,
        goal=task.goal,
        rules=rules_text(task, state.started.confidence == "single"),
        session=session.tag,
        branch=state.started.branch,
        workspace=str(session.workspace.root),
        file=task.files.editable,
        metric=task.metric.name,
        direction=task.metric.direction,
        preset=task.preset,
        unit=task.metric.unit,
        budget_seconds=task.run.budget_seconds if task.run.command else None,
        timeout_seconds=task.run.evaluate_seconds,
        program=session.program(),
        stale=session.stale(),
        bars=bars_in_words(task),
        limits=limits.in_words(task),
        cost=limits.cost(state, task) if task.limits.cost_per_run else None,
        experiments=len(state.experiments),
        kept=len(state.kept),
        baseline_score=state.baseline_score,
        best_score=state.best_score,
        best_known=best_in_words(state),
        best_experiment=state.best.number if state.best else None,
        best_commit=state.best.committed.commit if state.best else None,
        since_best=state.since_best,
        gain=shown_gain(state.standing.total, state.best_score or 0.0),
        noise=noise_in_words(state),
        best_runs=runs_of_best(state),
        startup=startups(state),
        best_diff=_bounded_diff(diff_of_best(session)),
        tried=themes(state),
        learned=lessons(state, LEARNED),
        enforcement=detect().level,
        data_ready=not session.data.missing(),
        references=references(task, is_hidden(session)),
    )


def rules_text(task: Task, greedy: bool) -> str:
    """What the server enforces, in a few sentences."""
    return (
        f"{task.files.editable} is all you can change, by apply_patch; the server owns clock, data, metric and git. "
        f"The baseline runs first{GREEDY if greedy else CONFIDENT} "
        "A crash or timeout is mended or discarded. A program that was run before is refused. "
        "Simple beats clever. Never stop to ask."
    )


def themes(state: SessionState, count: int = THEMES) -> list[Theme]:
    """What was tried by place in the file, the most tried first."""
    found: list[Theme] = []
    for name, place in nlargest(count, state.places.items(), key=lambda item: item[1].tried):
        theme = Theme(place=plain(name), tried=place.tried, kept=place.kept)
        if place.nearest is not None:
            theme.best_experiment, theme.best_score = place.nearest.number, place.nearest.score
        found.append(theme)
    return found


def lessons(state: SessionState, count: int) -> list[str]:
    """What verdicts were told, the latest first, each lesson once."""
    told: dict[str, int] = {}
    for text, number in islice(reversed(state.lessons.items()), 4 * count):
        told.setdefault(plain(text), number)
    return [f"{number}: {within(text, SENTENCE)}" for text, number in list(told.items())[:count]]


def history(session: Session, search: str | None = None, everyone: bool = False) -> History:
    """Counts, the kept experiments, the latest ones; with `search`, those whose words match, the best first. `everyone`: with those
    of the workspace's other sessions.
    """
    state = session.state
    known = _everyones(session) if everyone else [(state, e) for e in state.experiments]
    answer = History(
        metric=session.task.metric.name,
        direction=session.task.metric.direction,
        counts=state.counts,
        program=session.program(),
        best=[_row(state, e) for e in reversed(state.kept[-BEST:])],
        latest=[_row(of, e, session) for of, e in reversed(known[-LATEST:])],
        learned=lessons(state, LEARNED),
    )
    if search is not None:
        words = search.lower().split()
        found = [(of, e) for of, e in known if _has(e, words)]
        answer.matches = [_row(of, e, session) for of, e in nlargest(LATEST, found, key=lambda item: _rank(*item))]
    return _placed(answer, session)


def _everyones(session: Session) -> list[tuple[SessionState, ExperimentState]]:
    """Experiments of all lines of research on the same file and metric, in the order of their numbers."""
    alike = batch.comparable(session).values()
    return sorted(((state, e) for state in alike for e in state.experiments), key=lambda item: item[1].number)


def _rank(state: SessionState, experiment: ExperimentState) -> tuple[bool, float]:
    return experiment.score is not None, state.sign * (experiment.score or 0.0)


def _has(experiment: ExperimentState, words: list[str]) -> bool:
    committed = experiment.committed
    learned = experiment.verdict.learned if experiment.verdict else ""
    text = f"{committed.description}\n{committed.hypothesis}\n{learned}".lower()
    return all(word in text for word in words)


def _row(state: SessionState, experiment: ExperimentState, session: Session | None = None) -> Row:
    description = one_line(experiment.committed.description, 500)
    return Row(
        experiment=experiment.number,
        score=experiment.score,
        runs=len(experiment.scores) if len(experiment.scores) > 1 else None,
        status=experiment.status,
        description=within(description, DESCRIPTION),
        similar_to=state.descriptions.similar(experiment.number),
        session=state.started.tag if session and state.started.tag != session.tag else None,
    )


# --- what they share --------------------------------------------------------------------------------------------------


def _placed(answer: A, session: Session, shown: Page | None = None, tool: str = "") -> A:
    """The answer, saying where the loop stands; and how to read on with `tool` where a page was cut."""
    now = session.position()
    answer.next = shown.then(tool, now.next) if shown else now.next
    answer.allowed, answer.routine = list(now.allowed), now.routine and not (shown and shown.cut)
    return answer


def _bounded_diff(diff: str) -> str:
    """The whole lines of a diff that fit into DIFF characters."""
    if len(diff) <= DIFF:
        return diff
    return diff[: diff.rfind("\n", 0, DIFF) + 1] + "… cut; read_reference diff:best has the whole\n"


def mean_holdout(experiment: ExperimentState | None) -> float | None:
    """Mean of the sealed scores of an experiment's runs: for people alone."""
    runs = experiment.runs if experiment else []
    sealed = [run.ended.holdout for run in runs if run.ended and run.ended.holdout is not None]
    return sum(sealed) / len(sealed) if sealed else None
