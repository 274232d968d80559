"""Experiments in MLflow, W&B, TensorBoard and tables: the real libraries, with stores on this machine."""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from autoresearch_mcp import cli
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.views.trackers import _no_formula, parameters, told, tracker
from conftest import PATIENCE, UNTIL_TOLD, let_go, run, wait_for
from written_night import write_night

pytestmark = pytest.mark.slow
Make = Callable[..., Session]
WORK = "RATE = 0.5  # of learning\nprint('step 1 loss 3')\nprint('step 2 loss 2')\nopen('result.txt', 'w').write('1.0')\n"


@pytest.fixture
def night(toy: Make) -> Session:
    """Three experiments: one kept, one discarded, one that crashed."""
    session = toy(WORK)
    run(session)
    session.keep("where we start")
    for before, after, words in (("0.5", "0.25", "half the rate"), ("0.5", "1 / 0", "no rate")):
        session.apply_patch(
            f"<<<<<<< SEARCH\nRATE = {before}  # of learning\n=======\nRATE = {after}  # of learning\n>>>>>>> REPLACE\n"
        )
        run(session, words, hypothesis="it may help")
        session.discard("it did not")
    return session


def export(session: Session, *options: str, command: str = "export") -> Result:
    said = CliRunner().invoke(cli.app, [command, "--workspace", str(session.workspace.root), *options])
    assert said.exit_code == 0, (said.output, said.exception)
    return said


# --- what is told -----------------------------------------------------------------------------------------------------


def test_parameters_are_what_the_file_sets():
    python = "import os\nRATE = 0.5  # of learning\nSIZE: int = 3\nlower = 1\ndef f():\n    INNER = 2\n"
    assert parameters(python, "") == {"RATE": "0.5", "SIZE": "3", "lower": "1"}
    assert parameters("rate = 0.5\nSIZES = [\n    1,\n    2,\n]\nBETA = -0.1\n", "") == {
        "rate": "0.5",
        "SIZES": "[ 1, 2, ]",
        "BETA": "-0.1",
    }
    assert parameters("RATE = 'é' + \"x\"; SIZE = 3\n", "") == {"RATE": "'é' + \"x\"", "SIZE": "3"}
    assert parameters("body { color: red;\n  margin: 2px }\nwidth: 3px;\n", "body { color: red;\nwidth: 1px;\n") == {
        "margin": "2px",
        "width": "3px",
    }
    assert parameters("just words\n", "other words\n") == {}


def test_a_hostile_file_takes_no_time():
    began = time.monotonic()
    assert parameters("a: x" + " " * 500_000 + "é\n" + "b: = " * 100_000, "") != {}
    assert time.monotonic() - began < 5


def test_an_experiment_is_told_whole(night: Session):
    kept, discarded, crashed = (told(night, experiment) for experiment in night.state.experiments)
    assert kept.parameters == {"RATE": "0.5"} and discarded.parameters == {"RATE": "0.25"}
    assert kept.metrics["score"] == 1.0 and kept.steps == [(1, 3.0), (2, 2.0)]
    assert "-RATE = 0.5" in discarded.artefacts["change.diff"] and discarded.artefacts["work.py"] == WORK.replace("0.5", "0.25")
    assert discarded.tags["learned"] == "it did not" and discarded.tags["hypothesis"] == "it may help"
    assert "score" not in crashed.metrics and "ZeroDivisionError" in crashed.artefacts["output.log"]


def test_the_holdout_only_where_it_is_asked_for(toy: Make, tmp_path: Path):
    session = toy()
    write_night(session, 3)
    for options, there in (([], False), (["--sealed"], True)):
        export(session, "--to", "json", "--where", str(tmp_path / "x.json"), *options)
        assert ("holdout" in (tmp_path / "x.json").read_text()) is there


# --- tables -----------------------------------------------------------------------------------------------------------


def test_csv_has_a_column_for_each_parameter_and_metric(night: Session):
    export(night, "--to", "csv")
    rows = list(csv.DictReader((night.workspace.root / f"experiments-{night.tag}.csv").open()))
    assert [row["parameter.RATE"] for row in rows] == ["0.5", "0.25", "1 / 0"]
    assert [row["metric.score"] for row in rows] == ["1.0", "1.0", ""]
    assert [row["tag.verdict"] for row in rows] == ["keep", "discard", "error"]
    assert night.workspace.uncommitted() == [] or "experiments.csv" not in night.workspace.uncommitted()


def test_no_cell_is_a_formula(toy: Make, tmp_path: Path):
    session = toy()
    write_night(session, 2, description="=HYPERLINK(1)")
    export(session, "--to", "csv", "--where", str(tmp_path / "x.csv"))
    assert _no_formula("-0.1") == "-0.1" and _no_formula("+1e-3") == "+1e-3" and _no_formula("-x") == "'-x"
    assert "'=HYPERLINK(1)" in (tmp_path / "x.csv").read_text() and ",=HYPER" not in (tmp_path / "x.csv").read_text()


def test_json_has_all_of_it(night: Session):
    export(night, "--to", "json")
    rows = json.loads((night.workspace.root / f"experiments-{night.tag}.json").read_text())
    assert [row["number"] for row in rows] == [1, 2, 3] and rows[0]["curve"] == [[1.0, 3.0], [2.0, 2.0]]


def test_a_tracker_that_there_is_not_is_said(night: Session):
    said = CliRunner().invoke(cli.app, ["export", "--to", "excel", "--workspace", str(night.workspace.root)])
    assert said.exit_code == 1 and "mlflow, wandb" in str(said.exception)


# --- the real libraries -----------------------------------------------------------------------------------------------


def mlflow_runs(store: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    return sorted(
        client.search_runs([client.get_experiment_by_name("autoresearch/toy").experiment_id]),
        key=lambda one: one.data.tags["autoresearch.experiment"],
    )


@pytest.mark.needs("mlflow")
def test_mlflow_has_runs_with_parameters_metrics_curve_and_files(night: Session, tmp_path: Path):
    from mlflow.tracking import MlflowClient

    store = f"sqlite:///{tmp_path / 'm.db'}"
    for _ in range(2):  # again: nothing is there twice
        export(night, "--to", "mlflow", "--where", store)
    runs = mlflow_runs(store)
    assert [one.data.params["RATE"] for one in runs] == ["0.5", "0.25", "1 / 0"]
    assert [one.info.status for one in runs] == ["FINISHED", "FINISHED", "FAILED"]
    assert runs[0].data.metrics["score"] == 1.0 and runs[1].data.tags["autoresearch.learned"] == "it did not"
    client = MlflowClient(store)
    assert [(point.step, point.value) for point in client.get_metric_history(runs[0].info.run_id, "curve")] == [(1, 3.0), (2, 2.0)]
    assert {file.path for file in client.list_artifacts(runs[0].info.run_id)} == {"work.py", "change.diff", "output.log"}
    assert not Path("mlruns").exists()


@pytest.mark.needs("mlflow")
def test_mlflow_takes_any_name_of_a_detail(toy: Make, tmp_path: Path):
    names = ("acc@1", "loss (%)", "top,5", "a=b", "a//b", "../x", ".", "∑", "fine", "x" * 400)
    session, store = toy(), f"sqlite:///{tmp_path / 'm.db'}"
    write_night(session, 1)
    experiment = session.state.experiments[0]
    last = experiment.runs[-1]
    last.ended = last.ended.model_copy(update={"details": {name: 1.5 for name in names}}) if last.ended else None
    target = tracker("mlflow", session, store)
    target.send(told(session, experiment))
    metrics = mlflow_runs(store)[0].data.metrics
    assert metrics["details/fine"] == 1.5 and metrics["details/acc_1"] == 1.5


@pytest.mark.needs("mlflow")
def test_what_mlflow_refuses_is_said(night: Session, tmp_path: Path):
    said = CliRunner().invoke(
        cli.app, ["export", "--to", "mlflow", "--workspace", str(night.workspace.root), "--where", "nonsense://x"]
    )
    assert said.exit_code == 1 and "mlflow refuses" in str(said.exception)


@pytest.mark.needs("wandb")
def test_wandb_has_runs_offline(night: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):
        export(night, "--to", "wandb", "--where", str(tmp_path))
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 3
    written = [read_wandb(next(folder.glob("*.wandb"))) for folder in folders]
    assert [one["config"]["RATE"] for one in written] == ["0.5", "0.25", "1 / 0"]
    assert [point["curve"] for point in written[0]["history"]] == [3.0, 2.0]
    assert written[0]["summary"]["score"] == 1.0 and "score" not in written[2]["summary"]


def read_wandb(path: Path) -> dict[str, Any]:
    """What a file of an offline run holds, in W&B's own records."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"config": {}, "history": [], "summary": {}}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "config":
                found["config"] |= {item.key: json.loads(item.value_json) for item in record.config.update}
            case "history":
                found["history"].append(
                    {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                )
            case "summary":
                found["summary"] |= {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
                }
    return found


def records(content: bytes) -> Iterator[bytes]:
    """Of a log as LevelDB writes them, after a header of seven bytes: blocks of 32 KiB, pieces that say whether they begin or end one."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


@pytest.mark.needs("tensorboard")
def test_tensorboard_has_a_folder_a_run(night: Session, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        export(night, "--to", "tensorboard", "--where", str(tmp_path))
    folders = sorted((tmp_path / night.tag).iterdir())
    assert [folder.name for folder in folders] == ["00001", "00002", "00003"]
    read = EventAccumulator(str(folders[0]))
    read.Reload()
    assert [(point.step, point.value) for point in read.Scalars("curve")] == [(1, 3.0), (2, 2.0)]
    assert read.Scalars("score")[0].value == 1.0


def test_a_library_that_is_missing_names_its_extra(night: Session, monkeypatch: pytest.MonkeyPatch):
    for name in ("mlflow.tracking", "wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("mlflow", "wandb", "tensorboard"):
        said = CliRunner().invoke(cli.app, ["export", "--to", name, "--workspace", str(night.workspace.root)])
        assert said.exit_code == 1 and f"pip install 'autoresearch-mcp[{name}]'" in str(said.exception)


# --- live -------------------------------------------------------------------------------------------------------------


def test_follow_sends_what_comes_as_it_comes(toy: Make):
    session = toy(UNTIL_TOLD)
    number, _ = session.run_experiment("the baseline")
    command = [
        sys.executable,
        "-P",
        "-m",
        "autoresearch_mcp.cli",
        "follow",
        "--to",
        "json",
        "--workspace",
        str(session.workspace.root),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    path = session.workspace.root / f"experiments-{session.tag}.json"

    def status() -> str | None:
        rows = json.loads(path.read_text()) if path.exists() else []
        return rows[0]["status"] if rows else None

    try:
        wait_for(lambda: status() == "running")
        let_go(session, number)
        wait_for(lambda: status() == "scored")
        session.keep()
        wait_for(lambda: status() == "keep")
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.needs("mlflow")
def test_what_is_followed_live_is_one_run_with_its_latest_mean(toy: Make, tmp_path: Path):
    session, store = toy(), f"sqlite:///{tmp_path / 'm.db'}"
    run(session)
    export(session, "--to", "mlflow", "--where", store)
    run(session, "again", replicate=True)
    session.keep("it holds")
    export(session, "--to", "mlflow", "--where", store, "--seconds", "0", command="follow")
    (only,) = mlflow_runs(store)
    assert only.data.metrics["runs"] == 2 and only.data.tags["autoresearch.verdict"] == "keep"
