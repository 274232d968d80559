"""Scores a language model in bits per byte, in a process of its own that alone reads the sealed tokens.

    printf 'declared\\nscore\\n' | python -P -m autoresearch_mcp.evaluate.bpb DATA [--proved]

Bits per byte makes scores of different vocabularies comparable: bits of all scored target tokens over the bytes of text those
tokens stand for. It works where declaration and submission are put, and answers each line with one of JSON, as run/scoring.py reads
it.

`declared`, before there is training data: the graph is checked, proved causal (causality.py) and tried on made-up weights and
tokens. What cannot be proved is probed when it is scored, or refused with --proved. `score`: the trained tensors go through the
graph, first on made-up tokens, where a failure can be explained, then on the sealed ones, of which no text says anything: all that
leaves is the score. The price of a proof is its time in start-up; the price of a probe is a few batches more to score.
"""

import gc
import importlib
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.archive import (
    Declaration,
    GraphError,
    GraphModel,
    check_constants,
    read_declaration,
    read_submission,
)
from autoresearch_mcp.evaluate.causality import NotProved, Proof, prove

PROBE_ROUNDS, PROBE_SHARE = 4, 16  # at least so many rounds; one in so many batches of a long evaluation
PROBE_OTHERS = 1 / 8  # of a batch's rows become others in a round
PROBE_TOLERANCE = 1e-3  # of a logit; an advantage hidden below it is worth at most about as many nats a token

WORST = 64.0  # bits per byte: guessing takes at most about nine. A score of 400000.123456 would tell of the text twice as much

TRIAL_SCALE = 0.02  # of made-up weights
DECLARATION, SUBMISSION, TRAINED = "declaration.safetensors", "submission.safetensors", "trained.json"  # where they are put

Model = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Sealed:
    """The sealed part of the prepared data."""

    rows: dict[str, np.ndarray]
    """Tokens by split, uint16 or uint32 (rows, seq_len + 1)."""
    token_bytes: np.ndarray
    """int32 (2, vocab): bytes per token, counted raw and by decoding."""
    batch: int


def load_sealed(folder: Path) -> Sealed:
    meta = json.loads((folder / "meta.json").read_bytes())
    rows = {
        split: np.fromfile(folder / f"{split}.bin", dtype=meta["dtype"]).reshape(-1, meta["seq_len"] + 1)
        for split in ("val", "holdout")
    }
    return Sealed(rows, np.load(folder / "token_bytes.npy", allow_pickle=False), meta["eval_batch"])


Inspect = Callable[[torch.Tensor, torch.Tensor], None]
"""Sees the tokens (B, T) and the logits float32 (B, T, vocab) of a whole batch while it is scored."""


@dataclass(frozen=True)
class Measured:
    bpb: float
    """Bits per byte of the text."""
    by_decoded: float
    """The same by bytes counted as the original counts them."""
    error: float
    """Standard error of `bpb`, had another text of this kind and length been drawn: by how much rows differ. 0 for a single row."""
    n_bytes: int


def measure(
    model: Model, rows: np.ndarray, token_bytes: np.ndarray, batch: int, device: str, inspect: Inspect | None = None
) -> Measured:
    """Of the targets rows[:, 1:]; `token_bytes` (raw and decoded, vocab). Special tokens are not scored."""
    lengths = torch.from_numpy(token_bytes).to(device)
    nats, n_bytes = list[torch.Tensor](), list[torch.Tensor]()  # by row
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            part = torch.from_numpy(rows[start : start + batch].astype(np.int64)).to(device)
            short = batch - len(part)
            if short:  # the exported shape is fixed: fill up with repeats that are not scored
                part = torch.cat([part, part[-1:].expand(short, -1)])
            tokens, targets = part[:, :-1].contiguous(), part[: batch - short, 1:]
            logits = checked(model(tokens.clone()), batch, tokens.shape[1], token_bytes.shape[1])
            if inspect is not None:
                inspect(tokens, logits)
            bytes_of = lengths[:, targets]
            for one, expected, counts in zip(logits, targets, bytes_of[0] > 0, strict=False):  # of a row, what a cache may hold
                chosen = torch.log_softmax(one, dim=-1).gather(-1, expected.unsqueeze(-1)).squeeze(-1)
                nats.append(-(chosen.double() * counts).sum())
            n_bytes.append(bytes_of.sum(dim=2))
    bits = torch.stack(nats).cpu() / math.log(2)
    raw, decoded = torch.cat(n_bytes, dim=1).cpu().double()
    bpb, count = (bits.sum() / raw.sum()).item(), len(bits)
    # A ratio of two sums over rows. Cochran 1977, Sampling Techniques, 6.3.
    spread = (bits - bpb * raw).square().sum().item() * count / max(count - 1, 1)
    return Measured(bpb, (bits.sum() / decoded.sum()).item(), math.sqrt(spread) / raw.sum().item(), int(raw.sum()))


class CausalityProbe:
    """Refuses a model whose output at a position depends on later tokens, or on other rows of the batch.

    It looks on while a split is scored. In a round, on a batch drawn at random, a few rows become other rows altogether, and in
    each of the rest what stands behind a random position is replaced: the whole rest by another real row's, or one token by one
    that the model itself finds likely there, so that a model which peeks only where the future fits its past is caught. The
    logits at and before the position must not move. A model that looks ahead at a share q of all positions passes with
    probability (1 - q) ** (rows probed).
    """

    def __init__(self, model: Model, batches: int, rng: np.random.Generator):
        self._model, self._rng = model, rng
        rounds = max(PROBE_ROUNDS, batches // PROBE_SHARE)
        drawn = rng.permutation(batches)[:rounds] if rounds <= batches else rng.integers(batches, size=rounds)
        self._rounds = [int(index) for index in drawn]
        self._seen = 0

    def __call__(self, tokens: torch.Tensor, logits: torch.Tensor) -> None:
        for index in self._rounds:
            if index == self._seen:
                self._round(tokens, logits)
        self._seen += 1

    def _round(self, real: torch.Tensor, before: torch.Tensor) -> None:
        batch, seq_len = real.shape
        others = real.roll(1, dims=0)
        places = torch.arange(seq_len, device=real.device)
        order = torch.from_numpy(self._rng.permutation(batch)).to(real.device)
        probed = torch.ones((batch, 1), dtype=torch.bool, device=real.device)
        probed[order[: math.ceil(batch * PROBE_OTHERS)]] = batch == 1
        whole_rest = torch.from_numpy(self._rng.integers(2, size=(batch, 1))).to(real.device) > 0
        cut = torch.from_numpy(self._rng.integers(0, seq_len - 1, size=(batch, 1))).to(real.device)
        rest = torch.where(places > cut, others, real)
        token = torch.where(places == cut + 1, self._likely_other(real, before, cut), real)
        changed = torch.where(probed, torch.where(whole_rest, rest, token), others)
        moved = self._moved(changed, before) & (places <= cut) & probed
        if not moved.any():
            return
        # Which of the two rules is broken: with the probed rows as they are, only the other rows can matter. Where in the sealed
        # text it showed is not said.
        if (self._moved(torch.where(probed, real, others), before) & probed).any():
            raise RefusedError(
                "the output for one sequence changed when the others in its batch did: rows must not mix", "not_causal"
            )
        raise RefusedError(
            "the output at a position changed when a later token did: the model sees the tokens it is to predict, its attention "
            "(or whatever mixes positions) is not causal",
            "not_causal",
        )

    def _moved(self, changed: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Where (B, T) the logits of the changed tokens differ from those before."""
        after = checked(self._model(changed.clone()), *before.shape)
        return ~((before - after).abs().amax(-1) <= PROBE_TOLERANCE)  # what is not a number has moved

    @staticmethod
    def _likely_other(real: torch.Tensor, logits: torch.Tensor, cut: torch.Tensor) -> torch.Tensor:
        """For each row (B, 1) a token that the model finds likely behind position `cut` and that does not stand there."""
        at = logits.gather(1, cut.unsqueeze(-1).expand(-1, -1, logits.shape[-1])).squeeze(1)
        drawn = torch.multinomial(at.softmax(-1) + 1e-9, 2)  # two draws without repeats: one is not the real token
        differs = drawn != real.gather(1, cut + 1)
        return drawn.gather(1, differs.int().argmax(1, keepdim=True))


def checked(logits: object, batch: int, seq_len: int, vocab: int) -> torch.Tensor:
    """An output as float32, which is what is scored and compared. Refuses what is no finite tensor of the one right shape."""
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        raise RefusedError("the model's output is no floating-point tensor; return logits when called without targets")
    if logits.shape != (batch, seq_len, vocab):
        raise RefusedError(
            f"the model's output has shape {tuple(logits.shape)}, but the score needs logits {(batch, seq_len, vocab)}: "
            "one for every token of the vocabulary at every position"
        )
    logits = logits.float()
    if not torch.isfinite(torch.stack(torch.aminmax(logits))).all():  # NaN wins in both; several times faster than isfinite
        raise RefusedError("the model's logits are not all finite numbers (NaN or infinity, in float32)", "nan")
    return logits


class Evaluator:
    """Of one run: told what the run declares, then what it has trained. Raises RefusedError for what is not scored."""

    def __init__(self, data: Path, demand_proof: bool):
        self._sealed = load_sealed(data)
        self._demand_proof = demand_proof
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._rng = np.random.default_rng()  # seeded by the system: which rows and positions are probed is nobody's to know
        self._declaration: Declaration | None = None
        self._proof: Proof | None = None

    @property
    def _shape(self) -> tuple[int, int]:
        return self._sealed.batch, self._sealed.rows["val"].shape[1] - 1

    @property
    def _vocab(self) -> int:
        return self._sealed.token_bytes.shape[1]

    @property
    def _pinned(self) -> frozenset[str]:
        return self._proof.pinned if self._proof else frozenset()

    @property
    def _marks(self) -> dict[str, str]:
        return {"causality": "proved" if self._proof else "probed"}

    def declare(self) -> dict[str, object]:
        """Checks, proves and tries the declared graph."""
        declaration = read_declaration(Path(DECLARATION), self._shape, self._device)
        try:
            self._proof = prove(declaration.graph, declaration.values)
        except NotProved as reason:
            if self._demand_proof:
                raise RefusedError(f"the model cannot be proved causal: {reason}", "not_causal") from reason
        check_constants(declaration, self._pinned)
        # What made-up weights give need not be finite.
        self._try(GraphModel(declaration.graph, made_up_weights(declaration, self._device), self._device), torch.nan_to_num)
        self._declaration = declaration
        return {"marks": self._marks}

    def score(self) -> dict[str, object]:
        """Scores the trained tensors."""
        if self._declaration is None:
            raise RefusedError("the run declared no model. Call declare(model) before make_dataloader")
        committed: object = json.loads(Path(TRAINED).read_bytes()).get("digests") if Path(TRAINED).exists() else None
        if not isinstance(committed, dict):
            raise RefusedError("the run did not say which weights it had when training ended. Submit with evaluate_bpb")
        known = {str(name): str(digest) for name, digest in cast("dict[object, object]", committed).items()}
        tensors = read_submission(Path(SUBMISSION), self._declaration, known, self._pinned, self._device)
        model = GraphModel(self._declaration.graph, tensors, self._device, self._proof.guards if self._proof else {})
        try:
            self._try(model)
        except RefusedError as error:
            if error.failure == "nan" and (names := not_finite(self._declaration, tensors)):
                raise RefusedError(f"{error}: after training, {names} is not finite", "nan") from None
            raise

        def silent(tokens: torch.Tensor) -> torch.Tensor:
            try:
                return model(tokens)
            except GraphError as error:
                raise RefusedError(
                    f"the model fails on text that it was not tried on, in {error.operator}: its forward must take any tokens"
                ) from None
            except RefusedError:  # a guard's, which names its node: which of thousands it is would tell of the text
                raise RefusedError(
                    "on text that it was not tried on, the model leaves the range in which it is proved causal: keep activations "
                    "in a moderate range, and mask with boolean masks or -inf"
                ) from None

        return self._score(silent)

    def _score(self, model: Model) -> dict[str, object]:
        sealed, token_bytes = self._sealed, self._sealed.token_bytes
        shuffled = {split: rows[self._rng.permutation(len(rows))] for split, rows in sealed.rows.items()}
        probe = None if self._proof else CausalityProbe(model, math.ceil(len(shuffled["val"]) / sealed.batch), self._rng)
        val = measure(model, shuffled["val"], token_bytes, sealed.batch, self._device, probe)
        if val.bpb > WORST:
            raise RefusedError(f"the model takes more than {WORST:.0f} bits a byte: its logits are out of scale", "diverged")
        holdout = measure(model, shuffled["holdout"], token_bytes, sealed.batch, self._device)
        for split, found in (("val", val), ("holdout", holdout)):  # into a log that people alone may read
            told = f"{split}: {found.n_bytes} bytes; another text of this kind would differ by {found.error:.4f} bits per byte"
            print(f"{told} (standard error, by rows)", file=sys.stderr)
        details = {"bpb_by_decoded_bytes": val.by_decoded}
        return {"score": val.bpb, "holdout": holdout.bpb, "details": details, "marks": self._marks}

    def _try(self, model: GraphModel, tamed: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits) -> None:
        """Checks the output, `tamed`, on made-up tokens; what goes wrong there may be told in full."""
        order = torch.randperm(math.prod(self._shape), generator=torch.Generator().manual_seed(0))
        tokens = (order % self._vocab).view(self._shape).to(self._device)  # every token that there is, if they are not too many
        try:
            logits = model(tokens)
        except GraphError as error:
            raise RefusedError(
                f"the model's graph fails at node {error.node}, {error.operator}: {error.explanation}", "export"
            ) from error
        checked(tamed(logits) if isinstance(logits, torch.Tensor) else logits, *self._shape, self._vocab)


def made_up_weights(declaration: Declaration, device: str) -> dict[str, torch.Tensor]:
    """Tensors as declared: buffers and constants as they are, parameters small and random."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, spec in declaration.graph.tensors.items():
        if spec.kind == "parameter" and spec.dtype.is_floating_point:
            tensors[name] = (torch.randn(spec.shape, generator=generator) * TRIAL_SCALE).to(device, spec.dtype)
        else:
            tensors[name] = declaration.values.get(name, torch.zeros(spec.shape, dtype=spec.dtype)).to(device)
    return tensors


def not_finite(declaration: Declaration, tensors: dict[str, torch.Tensor]) -> str:
    """The trained parameters that hold NaN or infinity, by name, the first few."""
    specs = declaration.graph.tensors
    names = [name for name, tensor in tensors.items() if specs[name].kind == "parameter" and not tensor.isfinite().all()]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def answer(step: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What a step answers, refusals included."""
    try:
        return step()
    except RefusedError as error:
        return {"refused": str(error), "failure": error.failure}
    except (torch.OutOfMemoryError, MemoryError):
        return {"refused": "there is too little memory to score the model beside the run", "failure": "oom"}


def main(data: str, *options: str) -> None:
    torch.log_softmax(torch.ones(64, 64) @ torch.ones(64, 64), dim=-1)  # starts the threads
    gc.disable()
    importlib.import_module("torch._dynamo")  # shapes are checked on meta tensors, which imports it, for more than a second
    gc.freeze()
    gc.enable()
    evaluator = Evaluator(Path(data), "--proved" in options)
    print("loaded", flush=True)  # with the run, before its budget starts: so loading torch costs nothing later
    for line in sys.stdin:
        step = evaluator.declare if line == "declared\n" else evaluator.score
        print(json.dumps(answer(step)), flush=True)
        if step == evaluator.score:
            break
    os._exit(0)  # torch takes a third of a second to leave in order


if __name__ == "__main__":
    main(*sys.argv[1:])
