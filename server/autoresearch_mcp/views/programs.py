"""Sessions of a workspace, compared by the program.md that they worked by: which instructions bring more an hour.

The gain is what fresh runs after the night found, where there was a verification; else what the night claims, shrunk for selection.
Sessions of one program add up: gains and hours are sums, errors add in quadrature. Programs that were tried in few hours differ by
luck, which the interval says. Gains in one workspace have one unit; a session that began from another file began with another
baseline, and the easy gains come first: that no figure here can set right.
"""

from dataclasses import dataclass, field
from math import hypot, inf, nan

from autoresearch_mcp.record.noise import Estimate
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.text import format_score
from autoresearch_mcp.workspace import Workspace

NORMAL = 1.96  # half of a 95 % interval in standard errors


@dataclass
class Program:
    digest: str
    """The first digits of its SHA-256; empty for sessions that had none."""
    sessions: list[str] = field(default_factory=list[str])
    experiments: int = 0
    kept: int = 0
    hours: float = 0.0
    """Of runs, the queue not counted."""
    gain: float = 0.0
    error: float = 0.0
    verified: int = 0
    """Sessions whose gain fresh runs told of."""

    @property
    def rate(self) -> tuple[float, float]:
        """Gain an hour, and half of its 95 % interval; positive is better, whatever the direction."""
        if not self.hours:
            return nan, inf
        return self.gain / self.hours, NORMAL * self.error / self.hours

    @property
    def rate_in_words(self) -> str:
        rate, half = self.rate
        if rate != rate:
            return "-"
        return f"{'+' if rate >= 0 else ''}{format_score(rate)}" + (f" ± {format_score(half)}" if half < inf else "")


def programs(workspace: Workspace, sessions: dict[str, SessionState]) -> list[Program]:
    """By program, the one with the highest gain an hour first. Sessions that only examine another's result do not count."""
    found: dict[str, Program] = {}
    for tag, state in sessions.items():
        if state.started.examines is not None:
            continue
        digest = workspace.program_digest(state.started.base_commit)
        program = found.setdefault(digest, Program(digest))
        program.sessions.append(tag)
        program.experiments += len(state.experiments)
        program.kept += max(0, len(state.kept) - 1)
        program.hours += _hours(state)
        gain, verified = _gain(state)
        if gain is not None:
            program.gain += gain.value
            program.error = hypot(program.error, gain.error)
            program.verified += verified
    return sorted(found.values(), key=lambda program: program.rate[0] if program.hours else -inf, reverse=True)


def _hours(state: SessionState) -> float:
    runs = [run.ended for experiment in state.experiments for run in experiment.runs if run.ended and run.counts]
    return sum(seconds for ended in runs for phase, seconds in ended.seconds.items() if phase != "queued") / 3600


def _gain(state: SessionState) -> tuple[Estimate | None, bool]:
    """What all that was kept is worth, and whether fresh runs say so."""
    fresh = next((seen for seen in reversed(state.verified) if state.best and seen.best == state.best.number), None)
    if fresh is not None and fresh.gain is not None and fresh.gain_low is not None and fresh.gain_high is not None:
        return Estimate(fresh.gain, (fresh.gain_high - fresh.gain_low) / 2 / NORMAL, inf), True
    return state.standing.total, False
