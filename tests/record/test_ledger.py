import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from autoresearch_mcp.errors import LedgerError
from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, SessionStarted, Settled, VerdictGiven
from autoresearch_mcp.record.exports import Results, export_json
from autoresearch_mcp.record.ledger import Ledger, chain_hash
from autoresearch_mcp.text import format_score


def start(ledger: Ledger, direction: str = "minimize", noise_floor: float = 0.0) -> None:
    ledger.append(
        SessionStarted.model_validate(
            dict(
                tag="t",
                branch="b",
                base_commit="0" * 40,
                file="f",
                metric="m",
                direction=direction,
                noise_floor=noise_floor,
                task_sha256="",
            )
        )
    )


def experiment(
    ledger: Ledger, *scores: float | None, verdict: str | None = None, description: str = "idea", **ended: object
) -> int:
    with ledger.transaction() as transaction:
        number = transaction.next_experiment()
        transaction.append(
            ExperimentCommitted(
                experiment=number, session="t", commit=f"{number:040d}", parent="0" * 40, file_sha256=str(number), lines=10,
                added=1, removed=1, description=description,
            )
        )  # fmt: skip
    for score in scores:
        with ledger.transaction() as transaction:
            run = transaction.next_run()
            transaction.append(RunStarted(run=run, experiment=number, seed=1, conditions=""))
        outcome = {"outcome": "scored"} if score is not None else {"outcome": "crash", "failure": "error"}
        ledger.append(RunEnded.model_validate({"run": run, "score": score, **outcome, **ended}))
    if verdict:
        ledger.append(VerdictGiven.model_validate({"experiment": number, "verdict": verdict, "reason": "r"}))
        ledger.append(Settled(experiment=number))
    return number


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "ledger.db")
    start(made)
    return made


def test_state_follows_from_events_also_in_another_process_of_reading(ledger: Ledger):
    experiment(ledger, 2.0, verdict="keep")
    experiment(ledger, 1.5, verdict="keep")
    experiment(ledger, 3.0, verdict="discard")
    experiment(ledger, None)
    for reader in (ledger, Ledger(ledger.path)):
        session = reader.state().sessions["t"]
        assert session.best is not None and session.best.number == 2
        assert [e.status for e in session.experiments] == ["keep", "keep", "discard", "crash"]
        assert [e.number for e in session.awaiting] == [4] and not session.running


def test_rows_can_neither_be_changed_nor_removed(ledger: Ledger):
    experiment(ledger, 1.0)
    with sqlite3.connect(ledger.path) as db:
        for statement in ("UPDATE events SET body = '{}'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)


def test_tampering_that_goes_around_the_triggers_is_noticed(ledger: Ledger):
    experiment(ledger, 2.0)
    with sqlite3.connect(ledger.path) as db:
        db.execute("DROP TRIGGER events_are_not_changed")
        db.execute("""UPDATE events SET body = replace(body, '"score":2.0', '"score":1.0')""")
    with pytest.raises(LedgerError, match="does not verify at event 4"):
        Ledger(ledger.path).state()


def test_a_transaction_is_all_or_nothing(ledger: Ledger):
    with pytest.raises(RuntimeError), ledger.transaction() as transaction:
        transaction.append(RunStarted(run=1, experiment=1, seed=1, conditions=""))
        raise RuntimeError
    assert ledger.state().runs == {}
    experiment(ledger, 1.0)


def test_many_processes_append_without_losing_or_repeating(ledger: Ledger):
    code = (
        "import sys; from pathlib import Path; from autoresearch_mcp.record.ledger import Ledger; from autoresearch_mcp.record.events import ExperimentCommitted\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for _ in range(20):\n"
        "    with ledger.transaction() as t:\n"
        "        t.append(ExperimentCommitted(experiment=t.next_experiment(), session='t', commit='', parent='', file_sha256='',"
        " lines=1, added=0, removed=0, description=''))\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(ledger.path)]) for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert sorted(ledger.state().experiments) == list(range(1, 81))


def test_the_noise_comes_from_repeated_runs(ledger: Ledger):
    experiment(ledger, 1.0, verdict="keep")
    assert ledger.state().sessions["t"].standing.noise.deviation is None
    experiment(ledger, 1.0, 1.2)
    assert ledger.state().sessions["t"].standing.noise.deviation == pytest.approx(0.1414213, rel=1e-4)


def test_the_first_result_of_a_run_counts(ledger: Ledger):
    experiment(ledger, 1.0)
    ledger.append(RunEnded(run=1, outcome="crash", failure="lost"))
    assert ledger.state().experiments[1].score == 1.0


def test_results_tsv_has_karpathys_five_columns_and_then_what_is_known_of_the_score(ledger: Ledger):
    experiment(ledger, 0.9979, verdict="keep", description="baseline", peak_memory_mb=45056.0)
    experiment(ledger, None, verdict="discard", description="tabs\tand\nlines")
    experiment(ledger, 1.0, description="undecided", peak_memory_mb=45056.0, peak_vram_mb=2048.0)
    rows = [line.split("\t") for line in Results(ledger, Path()).text().splitlines()]
    assert rows[0] == ["commit", "m", "memory_gb", "status", "description", "runs", "gain", "gain_low", "gain_high"]
    assert rows[1] == ["0000000", "0.997900", "44.0", "keep", "baseline", "1", "", "", ""]
    assert rows[2] == ["0000000", "0.000000", "0.0", "crash", "tabs and lines", "0", "", "", ""]
    assert rows[3][2:4] == ["2.0", "scored"], "the GPU's memory, where there is one"


def test_json_export_hides_the_holdout_unless_asked(ledger: Ledger):
    experiment(ledger, 1.0, holdout=1.234)
    assert "holdout" not in json.dumps(export_json(ledger.state()))
    assert "1.234" in json.dumps(export_json(ledger.state(), sealed=True))


@pytest.mark.parametrize(
    ("score", "text"),
    [(0.997912345, "0.997912"), (0.0, "0.000000"), (-3.5, "-3.500000"), (1.23456e-7, "1.23456e-07"), (1234567.8, "1.23457e+06")],
)
def test_scores_are_shown_with_their_digits(score: float, text: str):
    assert format_score(score) == text


def test_an_unreadable_ledger_is_a_clear_error(tmp_path: Path):
    (tmp_path / "ledger.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "ledger.db")


def test_a_ledger_of_the_first_version_opens_and_is_written_on(tmp_path: Path):
    """ledger-0.1.0.db was written by version 0.1.0: two sessions, kept, repeated, discarded, crashed, too slow, undecided."""
    path = tmp_path / "ledger.db"
    shutil.copy(Path(__file__).with_name("ledger-0.1.0.db"), path)
    ledger = Ledger(path)
    first, second = ledger.state().sessions["first"], ledger.state().sessions["second"]
    assert [e.label for e in first.experiments] == ["keep", "keep", "discard", "error", "discard", "timeout", "oom"]
    assert first.best is not None and (first.best.number, first.best.score) == (2, 2.0)
    assert (
        first.baseline is not None
        and first.baseline.scores == [1.42, 1.43]
        and first.standing.noise.deviation == pytest.approx(0.00707, rel=1e-3)
    )
    assert list(first.lessons) == ["where we start", "less is not more"]
    assert [e.number for e in second.awaiting] == [9] and second.awaiting[0].score == 3.0
    before = ledger.verify()
    ledger.append(VerdictGiven(experiment=9, verdict="keep", reason="r"))
    for reader in (ledger, Ledger(path)):
        assert reader.verify() == before + 1 and reader.state().sessions["second"].best is not None


def test_an_event_of_an_unknown_kind_is_a_ledger_error_that_says_who_wrote_it(ledger: Ledger):
    body = '{"format":2,"by":"7.1.0","kind":"wave","experiment":1}'
    with sqlite3.connect(ledger.path) as db:
        seq, previous = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (seq + 1, 1.0, body, previous, chain_hash(previous, 1.0, body)))
    with pytest.raises(LedgerError, match=r"'wave'.*written by autoresearch-mcp 7\.1\.0"):
        ledger.state()


def test_a_hash_of_an_unknown_algorithm_is_said(ledger: Ledger):
    with sqlite3.connect(ledger.path) as db:
        seq, previous = db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (seq + 1, 1.0, "{}", previous, "blake9:00"))
    with pytest.raises(LedgerError, match="'blake9'"):
        ledger.state()


def test_the_chain_names_its_algorithm(ledger: Ledger):
    with sqlite3.connect(ledger.path) as db:
        assert all(digest.startswith("sha256:") for (digest,) in db.execute("SELECT hash FROM events"))


def test_what_was_changed_below_the_checkpoint_is_found_by_verify(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autoresearch_mcp.record.ledger.CHECKPOINT_EVERY", 1)
    experiment(ledger, 2.0, verdict="keep")
    ledger.state()  # notes the checkpoint
    with sqlite3.connect(ledger.path) as db:
        db.execute("DROP TRIGGER events_are_not_changed")
        db.execute("""UPDATE events SET body = replace(body, '"score":2.0', '"score":1.0')""")
    again = Ledger(ledger.path)
    assert again.state().experiments[1].score == 1.0  # the price of a fast opening
    with pytest.raises(LedgerError, match="does not verify at event 4"):
        again.verify()


def test_the_state_keeps_what_a_view_asks_as_counting_all_over_would(ledger: Ledger):
    """A night of random events; what is kept up to date equals what follows from the whole."""
    chance = random.Random(7)
    for number in range(1, 60):
        scores = [chance.choice([None, round(chance.uniform(1, 3), 3)]) for _ in range(chance.randint(1, 3))]
        verdict = chance.choice(["keep", "discard", "discard"]) if any(scores) else "discard"
        with ledger.transaction() as transaction:
            transaction.append(
                ExperimentCommitted(
                    experiment=number, session="t", commit="", parent="", file_sha256=str(number % 7), lines=1, added=1, removed=1,
                    description="", change_sha256=str(number % 5), places=chance.sample(["a", "b", "c"], 2),
                )
            )  # fmt: skip
        for score in scores:
            with ledger.transaction() as transaction:
                run = transaction.next_run()
                transaction.append(RunStarted(run=run, experiment=number, seed=1, conditions=""))
            fields = {"outcome": "scored"} if score is not None else {"outcome": "crash", "failure": chance.choice(["oom", "nan"])}
            ledger.append(RunEnded.model_validate({"run": run, "score": score, **fields}))
        learned = chance.choice(["x", "y", None])
        ledger.append(VerdictGiven.model_validate({"experiment": number, "verdict": verdict, "reason": "", "learned": learned}))
    session = ledger.state().sessions["t"]
    done = session.experiments
    kept = [e for e in done if e.verdict and e.verdict.verdict == "keep"]
    assert session.kept == kept and session.counts == dict(Counter(e.label for e in done)) and not session.awaiting
    after = [e for e in done if e.number > kept[-1].number]
    assert session.since_best == len(after)
    scored = sorted((e for e in after if e.score is not None), key=lambda e: e.score or 0.0)
    assert [e.score for e in session.near_misses] == [e.score for e in scored[:2]]
    for name, place in session.places.items():
        tried = [e for e in done if name in e.committed.places]
        best = min((e.score for e in tried if e.score is not None), default=None)
        assert (place.tried, place.kept) == (len(tried), sum(e in kept for e in tried))
        assert (place.nearest.score if place.nearest else None) == best
    last = {e.verdict.learned: e.number for e in done if e.verdict and e.verdict.learned}
    assert session.lessons == last and list(session.lessons.values()) == sorted(last.values())
    assert session.by_file["3"] == [e for e in done if e.committed.file_sha256 == "3"]
    assert [session.experiment(e.number) for e in done] == done and session.experiment(999) is None


def test_of_two_writers_of_results_the_later_one_writes_the_newer_state(ledger: Ledger, tmp_path: Path):
    """The one that folded its state long ago must not bring it back."""
    path = tmp_path / "results.tsv"
    slow, fast = Results(ledger, path), Results(Ledger(ledger.path), path)
    ledger.state()
    experiment(fast.ledger, 1.0, verdict="keep", description="the newer")
    assert fast.write() == "" and slow.write() == ""
    assert "the newer" in path.read_text()


def test_results_that_cannot_be_written_are_said_and_come_back(ledger: Ledger, tmp_path: Path):
    path = tmp_path / "results.tsv"
    experiment(ledger, 1.0, verdict="keep")
    path.mkdir()
    assert "could not be written" in Results(ledger, path).write()
    path.rmdir()
    assert Results(ledger, path).restore() == "" and "\tkeep\t" in path.read_text()
    path.write_text("somebody's edit")
    Results(ledger, path).restore()
    assert "somebody" not in path.read_text()
