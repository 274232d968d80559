"""Nights for those who look: written into the ledger as they would have happened, without a run."""

from random import Random

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, Settled, VerdictGiven

WORDS = (
    "wider",
    "deeper",
    "smaller batch",
    "longer warm-down",
    "another activation",
    "half the window",
    "rate doubled",
    "no decay",
)


def write_night(session: Session, count: int, description: str | None = None, seed: int = 1) -> None:
    """So many experiments after those that there are, of which every fortieth is kept and every thirteenth crashes; the toy task's
    score, where higher is better.
    """
    luck, state = Random(seed), session.state
    commit, first, run = state.head_commit, session.ledger.state().last_experiment, session.ledger.state().last_run
    level = state.best_score or 1.0
    with session.ledger.transaction() as transaction:
        for number in range(first + 1, first + count + 1):
            words = description or f"{luck.choice(WORDS)}, try {number}"
            transaction.append(
                ExperimentCommitted(
                    experiment=number, session=session.tag, commit=commit, parent=commit, file_sha256=f"{seed}-{number}", lines=9, added=1,
                    removed=1, description=words, hypothesis=description, places=[luck.choice(("Attention", "MLP", "RATE"))],
                )
            )  # fmt: skip
            kept, crashed = number % 40 == 1, number % 13 == 0 and number % 40 != 1
            level += 0.01 if kept else 0.0
            for _ in range(2 if kept else 1):
                run += 1
                transaction.append(RunStarted(run=run, experiment=number, seed=run, conditions=""))
                score = None if crashed else level + luck.gauss(0, 0.004) - (0.0 if kept else abs(luck.gauss(0, 0.02)))
                transaction.append(
                    RunEnded(
                        run=run, outcome="crash" if crashed else "scored", failure="error" if crashed else None, score=score,
                        seconds={"queued": 0.1, "training": 20.0, "evaluation": 1.5}, enforcement="bubblewrap", hardware="Intel, 2 cores",
                        excerpt=description or "", holdout=None if score is None else score - 0.125,
                    )
                )  # fmt: skip
            verdict = "keep" if kept else "discard"
            gain = [0.01, 0.004, 0.016] if kept and number > 1 else []
            learned = description or (f"what {number} taught" if kept else None)
            transaction.append(VerdictGiven(experiment=number, verdict=verdict, reason="as it was", learned=learned, gain=gain))
            transaction.append(Settled(experiment=number))
