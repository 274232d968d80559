"""The main job on the tiny preset: a real client improves a real language model through real git commits, step by step."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.demo import IDEAS
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.trial import run_trial
from autoresearch_mcp.record.curves import MOMENTS
from autoresearch_mcp.record.exports import Results
from autoresearch_mcp.record.ledger import Ledger
from conftest import ROOT, connect, git, open_session, text_of

TRAINED = 2**16  # tokens of every run here, however long they take: scores are compared, so the machine must not decide them
COUNTED = {  # what train.py does by the clock, and by tokens instead
    "for x, y, epoch in loader:  # ends when the budget does\n": f"for _, (x, y, epoch) in zip(range({TRAINED} // tokens_per_pass), loader):\n",
    "lr_multiplier(elapsed() / TIME_BUDGET)": f"lr_multiplier(step * passes * tokens_per_pass / {TRAINED})",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def session_of(folder: Path, task: str) -> Session:
    session = open_session(create(folder, task, "tiny").root)
    session.data.prepare(session.workspace.root)
    return session


@pytest.fixture
def counted(tmp_path: Path) -> Session:
    """A session of the default task whose train.py counts its training in tokens, with a budget that no machine needs."""
    task = tmp_path / "task"
    shutil.copytree(ROOT / "harness", task, ignore=shutil.ignore_patterns("__pycache__"))
    train, toml = task / "train.py", task / "autoresearch.toml"
    text = train.read_text()
    for by_clock, by_tokens in COUNTED.items():
        assert text.count(by_clock) == 1, f"train.py has changed: {by_clock!r} is what this test replaces"
        text = text.replace(by_clock, by_tokens)
    train.write_text(text)
    assert toml.read_text().count("[presets.tiny.run]\nbudget_seconds = 8\n") == 1
    single = toml.read_text().replace("starts_early = true\n", 'starts_early = true\nconfidence = "single"\n')  # one run each
    toml.write_text(single.replace("budget_seconds = 8\n", "budget_seconds = 400\n"))
    return session_of(tmp_path / "workspace", str(task))


@pytest.mark.long
def test_the_whole_path_of_the_demo(counted: Session):
    anyio.run(whole_path, counted)


async def whole_path(session: Session) -> None:
    root, branch = session.workspace.root, session.state.started.branch
    async with connect(root) as client:

        async def call(tool: str, /, **arguments: object) -> dict[str, object]:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
            return result.structured_content or {}

        async def run_to_end(description: str) -> dict[str, object]:
            result = await call("run_experiment", description=description, wait_seconds=0)
            assert result["status"] == "running" and result["phase"] in ("queued", "startup", "training")
            while result["status"] == "running":
                result = await call("get_val_bpb", wait_seconds=60)
            return result

        def rows() -> list[list[str]]:
            text = session.results.path.read_text()
            assert text == Results(Ledger(session.ledger.path), Path()).text()
            return [line.split("\t") for line in text.splitlines()[1:]]

        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert {"read_train", "apply_patch", "run_experiment", "get_val_bpb", "keep", "discard"} <= tools

        # Baseline.
        result = await run_to_end("baseline")
        assert result["status"] == "scored" and 1.0 < float(str(result["score"])) < 3.5
        last = session.experiment(1).last
        assert last is not None and min(last.seconds[phase] for phase in ("startup", "training", "evaluation")) > 0
        moments = int(last.seconds["training"] / (400 / MOMENTS))  # that have passed, of the budget above
        assert len(str(result.get("curve", "")).split()) >= moments
        assert git(root, "rev-parse", branch) == session.state.started.base_commit  # kept commits only
        await call("keep", learned="where we start")
        assert git(root, "log", "--format=%s", branch).splitlines() == ["baseline", "Workspace of the task gpt"]
        assert [row[3] for row in rows()] == ["keep"]
        baseline = float(str(result["score"]))

        # A better patch, kept.
        await call("apply_patch", patch=IDEAS[0].patch)
        result = await run_to_end(IDEAS[0].description)
        assert result["suggestion"] == "keep" and float(str(result["score"])) < baseline - 0.1
        assert result["gain"] == [pytest.approx(baseline - float(str(result["score"])), abs=2e-6)]
        await call("keep")
        assert git(root, "log", "--format=%s", branch).splitlines()[0] == IDEAS[0].description
        assert git(root, "diff", "--name-only", f"{branch}~1", branch) == "train.py"

        # A worse patch, discarded.
        await call("apply_patch", patch=IDEAS[1].patch)
        result = await run_to_end(IDEAS[1].description)
        assert result["suggestion"] == "discard"
        refused = await client.call_tool("keep", {})
        assert refused.is_error and "worse than the best" in text_of(refused)
        await call("discard", learned=IDEAS[1].learned)
        assert session.read().text == session.text_at(git(root, "rev-parse", branch))
        assert git(root, "log", "-1", "--format=%s", "refs/autoresearch/experiments/3") == IDEAS[1].description

        # A crash, discarded.
        await call("apply_patch", patch=IDEAS[2].patch)
        result = await run_to_end(IDEAS[2].description)
        assert (result["status"], result["failure"]) == ("crash", "export") and "gate" in str(result["log_excerpt"])
        await call("discard")

        status = await call("status")
        assert (status["experiments"], status["kept"], status["best_experiment"]) == (4, 2, 2)
        history = await call("history")
        assert history["counts"] == {"keep": 2, "discard": 1, "export": 1}
        assert [row[3] for row in rows()] == ["keep", "keep", "discard", "crash"]
    holdouts = [run.ended.holdout for run in session.ledger.state().runs.values() if run.ended and run.ended.score is not None]
    assert len(holdouts) == 3 and all(holdouts)


def test_the_evaluators_score_is_that_of_a_plain_evaluation(tmp_path: Path):
    """One trained model, scored in process by prepare.py and by the evaluator from its export: equal to 1e-4."""
    data = session_of(tmp_path / "workspace", "default").data.path
    code = f"""
import json, os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "harness")!r})
import torch, export, prepare, train
torch.manual_seed(1)
model = train.GPT(prepare.VOCAB_SIZE)
optimizers = model.optimizers()
rows = torch.from_numpy(prepare._rows("train")[:512].astype("int64"))
for batch in rows.split(32):
    model(batch[:, :-1], batch[:, 1:]).backward()
    for optimizer in optimizers:
        optimizer.step()
    model.zero_grad()
tokenizer = prepare.Tokenizer.from_directory()
print(prepare.score_in_process(model.eval(), tokenizer, "val"), prepare.score_in_process(model, tokenizer, "holdout"))
declared = export.declare(model, Path("declaration.safetensors"), (prepare.EVAL_BATCH, prepare.MAX_SEQ_LEN))
tensors = export.trained(model, declared)
export.submit(tensors, Path("submission.safetensors"))
Path("trained.json").write_text(json.dumps({{"digests": {{name: export.tensor_digest(t) for name, t in tensors.items()}}}}))
"""
    environment = os.environ | {
        "AUTORESEARCH_PRESET": "tiny",
        "AUTORESEARCH_DATA": str(data),
        "AUTORESEARCH_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",  # on a busy machine threads that wait for each other took more than twice as long
    }
    plain = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    val, holdout = map(float, plain.stdout.split())
    command = [sys.executable, "-m", "autoresearch_mcp.evaluate.bpb", str(data), "--proved"]
    scored = subprocess.run(command, env=environment, cwd=tmp_path, input="declared\nscore\n", capture_output=True, text=True)
    assert scored.returncode == 0, scored.stderr
    declared, answer = (json.loads(line) for line in scored.stdout.splitlines()[1:])
    assert declared == {"marks": {"causality": "proved"}} == {"marks": answer["marks"]}
    assert answer["score"] == pytest.approx(val, abs=1e-4) and answer["holdout"] == pytest.approx(holdout, abs=1e-4)
    assert val < 4.5  # it learned something, so the comparison is of a real model


def test_a_trial_of_it_is_scored(tmp_path: Path):
    """The way of `try`, which watches what is refused, through the handing over of data too."""
    shutil.copytree(ROOT / "harness", tmp_path / "task", ignore=shutil.ignore_patterns("__pycache__"))
    toml = tmp_path / "task" / "autoresearch.toml"
    toml.write_text(toml.read_text().replace("budget_seconds = 8\n", "budget_seconds = 2\n"))
    (tried,) = run_trial(tmp_path / "task", preset="tiny").runs
    assert tried.ended.score is not None, tried.ended.excerpt


@pytest.mark.long
def test_the_demo_shows_what_it_promises(tmp_path: Path):
    """The command behind `make demo`, as a stranger runs it. Its runs are timed, so which of two close scores is better is not asked."""
    command = [sys.executable, "-m", "autoresearch_mcp.cli", "demo", str(tmp_path / "demo")]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "Done in" in shown.stdout and "crash" in shown.stdout
    rows = [row.split("\t") for row in (tmp_path / "demo" / "results.tsv").read_text().splitlines()[1:]]
    assert [row[4] for row in rows] == ["baseline", *(idea.description for idea in IDEAS)]
    verdicts = [row[3] for row in rows]
    assert verdicts[0] == "keep" and verdicts[2] in ("discard", "pruned") and verdicts[3] == "crash", shown.stdout
    assert (verdicts[1] == "discard") == ("The better idea lost" in shown.stdout)
    assert (tmp_path / "demo" / "progress.png").stat().st_size > 5000
