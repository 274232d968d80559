"""Commands for whoever wakes up: is it true, and how noisy is it? They make runs of their own, in the queue of all others."""

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.options import JsonOption, SessionOption, WorkspaceOption, open_session, say

if TYPE_CHECKING:
    from autoresearch_mcp.loop.unattended import Moment

RunsOption = Annotated[int, typer.Option("--runs", min=1, max=100, help="How many.")]


def verify(
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    runs: Annotated[int, typer.Option("--runs", min=2, max=100, help="Fresh runs of the baseline, and of the best.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Run baseline and best again and say whether the night's gain is real, on val and on the sealed holdout."""
    from autoresearch_mcp.loop.verify import judge_night
    from autoresearch_mcp.views import morning

    opened = open_session(workspace, session)
    with _interruptible():
        found = judge_night(opened, runs, _quiet if as_json else _told())
    say(json.dumps(morning.as_json(opened, found), indent=1) if as_json else morning.verified(opened, found))


def reproduce(
    experiment: Annotated[int, typer.Argument(min=1, help="Its number.")],
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    fresh_seed: Annotated[bool, typer.Option("--fresh-seed", help="With another seed than its runs had.")] = False,
) -> None:
    """Run one experiment again from its commit and compare its score within the noise."""
    from autoresearch_mcp.loop.reproduce import run_again
    from autoresearch_mcp.views import morning

    opened = open_session(workspace, session)
    with _interruptible():
        found = run_again(opened, experiment, fresh_seed, _told())
    say(morning.reproduced(opened, found))


def finalize(
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    branch: Annotated[str | None, typer.Option(help="Its name; the session's with -final if left out.")] = None,
    drop: Annotated[list[int] | None, typer.Option("--drop", help="A kept experiment to leave out; may be given again.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a branch of that name.")] = False,
) -> None:
    """Make a clean branch for a pull request, one commit a kept change, and a report."""
    from autoresearch_mcp.loop.finalize import make_branch
    from autoresearch_mcp.views.report import place_of, write_report

    opened = open_session(workspace, session)
    folder = place_of(opened)
    final = make_branch(opened, branch, drop or [], force)
    count = f"{len(final.changes)} commit{'s' if len(final.changes) != 1 else ''}"
    say(f"branch:     {final.branch}, {count}, {final.commit[:12]}")
    if final.gone:
        numbers = ", ".join(str(experiment.number) for experiment in final.gone)
        say(f"not in it:  {numbers}: later changes have taken back what they did")
    if final.unverified:
        say("note:       changes were dropped, so its file is none that was scored")
    say(f"report:     {write_report(opened, final, folder)}")


def ablate(
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    runs: Annotated[int, typer.Option("--runs", min=2, max=100, help="Of the final file, and of it without each change.")] = 2,
    without: Annotated[
        list[int] | None, typer.Option("--without", help="A kept experiment to leave out, with others that are given likewise.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the best without each kept change in turn, or without several at once, and say what that is worth."""
    from autoresearch_mcp.loop.ablate import leave_out
    from autoresearch_mcp.views import morning

    opened = open_session(workspace, session)
    with _interruptible():
        left = leave_out(opened, runs, _quiet if as_json else _told(), without or [])
    if as_json:
        told = {
            ",".join(str(change.number) for change in one.changes): one.worth.figures if one.worth else one.reason for one in left
        }
        say(json.dumps(told, indent=1))
    else:
        say(morning.ablated(opened, left))


def calibrate(workspace: WorkspaceOption = Path(), session: SessionOption = None, runs: RunsOption = 3) -> None:
    """Run the best again to know the noise better, which makes every later verdict cheaper."""
    from autoresearch_mcp.loop.runs import SEED
    from autoresearch_mcp.loop.unattended import Wanted, work_off
    from autoresearch_mcp.views.figures import noise_in_words

    opened = open_session(workspace, session)
    best, last = opened.state.best, opened.ledger.state().last_run
    if best is None:
        raise NotFoundError("Nothing was kept yet. Let the baseline run first.")
    seed = SEED + sum(run.counts for run in best.runs)
    with _interruptible():
        work_off(opened, [Wanted(best.number, "calibrate", seed + number, last) for number in range(runs)], _told())
    say(f"noise:      {noise_in_words(opened.state)}")


@contextmanager
def _interruptible() -> Generator[None]:
    """Says what becomes of a queue that Ctrl-C ends."""
    try:
        yield
    except KeyboardInterrupt:
        say("\ninterrupted: the runs that ended are kept, and the one that was on is ended", file=sys.stderr)
        raise


def _quiet(at: "Moment") -> None:
    """Tells nobody."""


def _told() -> "Callable[[Moment], None]":
    """Tells a terminal where a queue stands, on one line that changes; anybody else of each run that has ended."""
    from autoresearch_mcp.views.morning import moment

    def tell(at: "Moment") -> None:
        if at.ended is not None:
            say(f"{moment(at):<78}", file=sys.stderr)
        elif sys.stderr.isatty():
            say(f"{moment(at)[:78]:<78}", end="\r", file=sys.stderr, flush=True)

    return tell
