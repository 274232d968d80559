"""One run's model, from its declaration to its score, through the evaluator as the supervisor drives it."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from graphs import export
from safetensors.torch import load_file, save_file
from torch import nn

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.bpb import Evaluator, answer

BATCH, SEQ_LEN, VOCAB = 4, 12, 32


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sealed data; the working directory is where declaration and submission are put."""
    data, work = tmp_path / "data", tmp_path / "work"
    data.mkdir()
    work.mkdir()
    rng = np.random.default_rng(0)
    for split, rows in (("val", 10), ("holdout", 4)):
        rng.integers(VOCAB - 1, size=(rows, SEQ_LEN + 1)).astype(np.uint16).tofile(data / f"{split}.bin")  # never the last token
    (data / "meta.json").write_text(json.dumps({"dtype": "uint16", "seq_len": SEQ_LEN, "eval_batch": BATCH}))
    np.save(data / "token_bytes.npy", np.full((2, VOCAB), 2, dtype=np.int32))
    monkeypatch.chdir(work)
    return data


class Bigram(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(VOCAB, VOCAB)

    def forward(self, tokens):
        return self.table(tokens)


def declare(model: nn.Module) -> export.Declared:
    return export.declare(model, Path("declaration.safetensors"), (BATCH, SEQ_LEN))


def submit(model: nn.Module, declared: export.Declared) -> None:
    tensors = export.trained(model, declared)
    Path("trained.json").write_text(json.dumps({"digests": {name: export.tensor_digest(t) for name, t in tensors.items()}}))
    export.submit(tensors, Path("submission.safetensors"))


def scored(model: nn.Module, sealed: Path, proved: bool = True) -> dict[str, object]:
    evaluator = Evaluator(sealed, proved)
    declared = declare(model)
    evaluator.declare()
    submit(model, declared)
    return evaluator.score()


def test_the_score_is_that_of_the_trained_weights(sealed: Path):
    model = Bigram()
    evaluator, declared = Evaluator(sealed, True), declare(model)
    assert evaluator.declare() == {"marks": {"causality": "proved"}}
    with torch.no_grad():
        model.table.weight *= 2
    submit(model, declared)
    result = evaluator.score()
    rows = torch.from_numpy(np.fromfile(sealed / "val.bin", np.uint16).reshape(-1, SEQ_LEN + 1).astype(np.int64))
    nats = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    assert result["score"] == pytest.approx(nats.item() / math.log(2) / 2) and result["marks"] == {"causality": "proved"}


class AddsWhatFollows(Bigram):
    def forward(self, tokens):
        return self.table(tokens) + 5 * F.one_hot(tokens.roll(-1, 1), VOCAB)


def test_what_cannot_be_proved_is_refused_before_training_where_proof_is_demanded(sealed: Path):
    declare(AddsWhatFollows())
    with pytest.raises(RefusedError, match="cannot be proved causal") as caught:
        Evaluator(sealed, True).declare()
    assert caught.value.failure == "not_causal"


def test_and_probed_where_it_is_not(sealed: Path):
    model = AddsWhatFollows()
    evaluator, declared = Evaluator(sealed, False), declare(model)
    assert evaluator.declare() == {"marks": {"causality": "probed"}}
    submit(model, declared)
    with pytest.raises(RefusedError) as caught:
        evaluator.score()
    assert caught.value.failure == "not_causal"


class Narrow(Bigram):
    def forward(self, tokens):
        return self.table(tokens)[..., :5]


class Bounded(Bigram):
    """Knows no last token, which the sealed text does not have."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCAB - 1, VOCAB)


def test_a_failure_on_made_up_tokens_is_explained_and_comes_before_training(sealed: Path):
    declare(Bounded())
    with pytest.raises(RefusedError, match=r"fails at node embedding, aten\.embedding\.default: .*index") as caught:
        Evaluator(sealed, True).declare()
    assert caught.value.failure == "export"


def test_an_output_of_the_wrong_shape_is_refused_before_training(sealed: Path):
    declare(Narrow())
    with pytest.raises(RefusedError, match="shape"):
        Evaluator(sealed, True).declare()


class Telling(nn.Module):
    """Fails by an index that says which token it was."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCAB, VOCAB)
        self.register_buffer("shift", torch.zeros(1, dtype=torch.int64))

    def forward(self, tokens):
        return self.table(tokens + self.shift)


def test_a_failure_on_sealed_tokens_says_only_that(sealed: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a model that fails on none of the made-up tokens: here they are made to be harmless ones."""
    model = Telling()
    evaluator, declared = Evaluator(sealed, False), declare(model)
    evaluator.declare()
    model.shift += 5
    submit(model, declared)
    monkeypatch.setattr(Evaluator, "_try", lambda self, model: torch.zeros(BATCH, SEQ_LEN, VOCAB))
    with pytest.raises(RefusedError) as caught:
        evaluator.score()
    said = str(caught.value)
    assert "aten.embedding.default" in said and not any(character.isdigit() for character in said)
    assert caught.value.__suppress_context__, "nor does a traceback"


class Overflowing(Bigram):
    """Multiplies by a mask what is infinite for the one token that the sealed text has: a guard's refusal would name the node."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(SEQ_LEN, SEQ_LEN).tril())

    def forward(self, tokens):
        x = self.table(tokens)
        return self.mask @ x


def test_nor_does_what_a_guard_refuses(sealed: Path, monkeypatch: pytest.MonkeyPatch):
    model = Overflowing()
    evaluator, declared = Evaluator(sealed, True), declare(model)
    assert evaluator.declare() == {"marks": {"causality": "proved"}}
    with torch.no_grad():
        model.table.weight.fill_(torch.inf)
    submit(model, declared)
    monkeypatch.setattr(Evaluator, "_try", lambda self, model: torch.zeros(BATCH, SEQ_LEN, VOCAB))
    with pytest.raises(RefusedError, match="leaves the range in which it is proved causal") as caught:
        evaluator.score()
    assert "node" not in str(caught.value) and caught.value.__suppress_context__


class Masked(Bigram):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(SEQ_LEN, SEQ_LEN, dtype=torch.bool).tril())
        self.register_buffer("scale", torch.ones(1))

    def forward(self, tokens):
        x = self.table(tokens)
        return x + self.scale * (x @ x.transpose(1, 2)).masked_fill(~self.mask, float("-inf")).softmax(-1) @ x


def test_a_buffer_that_the_proof_used_is_pinned_and_others_are_free(sealed: Path):
    model = Masked()
    evaluator, declared = Evaluator(sealed, True), declare(model)
    assert evaluator.declare() == {"marks": {"causality": "proved"}}
    model.scale += 1
    submit(model, declared)
    assert "score" in evaluator.score()
    model.mask.fill_(True)
    submit(model, declared)
    with pytest.raises(RefusedError, match="mask"):
        evaluator.score()


@pytest.mark.parametrize("tampered", ["hash", "name", "missing", "more"])
def test_only_the_tensors_named_at_the_end_of_training_are_scored(sealed: Path, tampered: str):
    model = Bigram()
    evaluator, declared = Evaluator(sealed, True), declare(model)
    evaluator.declare()
    submit(model, declared)
    tensors, said = load_file("submission.safetensors"), json.loads(Path("trained.json").read_text())
    if tampered == "hash":
        tensors["table.weight"] += 1
    elif tampered == "name":
        tensors["other.weight"] = tensors.pop("table.weight")
    elif tampered == "missing":
        said["digests"] = {}
    else:
        tensors["more"] = torch.zeros(1)
        said["digests"]["more"] = hashlib.sha256(bytes(4)).hexdigest()
    save_file(tensors, "submission.safetensors")
    Path("trained.json").write_text(json.dumps(said))
    with pytest.raises(RefusedError):
        evaluator.score()


def test_nothing_is_scored_that_was_not_declared(sealed: Path):
    declared = declare(Bigram())
    submit(Bigram(), declared)
    assert "declared no model" in str(answer(Evaluator(sealed, True).score))


def test_trained_weights_that_give_no_number_are_named(sealed: Path):
    model = Bigram()
    evaluator, declared = Evaluator(sealed, True), declare(model)
    evaluator.declare()
    with torch.no_grad():
        model.table.weight.fill_(float("nan"))
    submit(model, declared)
    refused = answer(evaluator.score)
    assert refused["failure"] == "nan" and "table.weight is not finite" in str(refused["refused"])


def test_a_score_is_not_blown_up_to_show_more_digits(sealed: Path):
    model = Bigram()
    evaluator, declared = Evaluator(sealed, True), declare(model)
    evaluator.declare()
    with torch.no_grad():
        model.table.weight *= 1e5
    submit(model, declared)
    refused = answer(evaluator.score)
    assert refused["failure"] == "diverged" and "64 bits a byte" in str(refused["refused"])


def test_a_boolean_of_any_byte_is_read_as_true(sealed: Path):
    """Operators disagree about what a boolean is whose byte is 2: 2 | 1 is 3, and 2 & 1 is False."""
    model = Masked()
    evaluator, declared = Evaluator(sealed, True), declare(model)
    content = Path("declaration.safetensors").read_bytes()
    mask = model.mask.numpy().tobytes()
    assert content.count(mask) == 1
    Path("declaration.safetensors").write_bytes(content.replace(mask, mask.replace(b"\x01", b"\x02")))
    assert evaluator.declare() == {"marks": {"causality": "proved"}}
    submit(model, declared)
    assert "score" in evaluator.score(), "its bytes are those of any other mask"


@pytest.mark.slow
def test_the_program_answers_each_line_with_one_and_ends_with_the_score(sealed: Path):
    model = Bigram()
    submit(model, declare(model))
    command = [sys.executable, "-m", "autoresearch_mcp.evaluate.bpb", str(sealed), "--proved"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, input="declared\nscore\n", env=environment, capture_output=True, text=True)
    loaded, declared, score = result.stdout.splitlines()
    assert loaded == "loaded" and json.loads(declared) == {"marks": {"causality": "proved"}}
    assert json.loads(score)["score"] > 0 and result.returncode == 0
