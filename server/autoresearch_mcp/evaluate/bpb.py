"""Scores a submitted language model in bits per byte, in a process of its own that alone reads the sealed tokens.

    python -P -m autoresearch_mcp.evaluate.bpb SUBMISSION DATA

Bits per byte makes scores of different vocabularies comparable: bits of all scored target tokens over the bytes of text those
tokens stand for. Prints one JSON line, as evaluate/command.py reads it.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.archive import load_model

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


def bits_per_byte(model: Model, rows: np.ndarray, token_bytes: np.ndarray, batch: int, device: str) -> tuple[float, float]:
    """Bits per byte of the targets rows[:, 1:], (raw byte count, decoded byte count); special tokens are not scored."""
    lengths = torch.from_numpy(token_bytes).to(device)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    counted = torch.zeros(2, dtype=torch.int64, device=device)
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            part = torch.from_numpy(rows[start : start + batch].astype(np.int64)).to(device)
            short = batch - len(part)
            if short:  # the exported shape is fixed: fill up with repeats that are not scored
                part = torch.cat([part, part[-1:].expand(short, -1)])
            logits = checked(model(part[:, :-1].contiguous()), part.shape[0], part.shape[1] - 1, token_bytes.shape[1])
            logits, targets = logits[: batch - short], part[: batch - short, 1:]
            chosen = torch.log_softmax(logits.float(), dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
            bytes_of = lengths[:, targets]
            nats -= (chosen.double() * (bytes_of[0] > 0)).sum()
            counted += bytes_of.flatten(1).sum(dim=1)
    bits = nats.item() / math.log(2)
    raw, decoded = int(counted[0]), int(counted[1])
    return bits / raw, bits / decoded


def checked(logits: object, batch: int, seq_len: int, vocab: int) -> torch.Tensor:
    """Refuses an output that is no finite floating-point tensor of the one right shape."""
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        raise RefusedError("the model's output is no floating-point tensor; return logits when called without targets")
    if logits.shape != (batch, seq_len, vocab):
        raise RefusedError(
            f"the model's output has shape {tuple(logits.shape)}, but the score needs logits {(batch, seq_len, vocab)}: "
            "one for every token of the vocabulary at every position"
        )
    if not torch.isfinite(logits).all():
        raise RefusedError("the model's logits are not all finite numbers (NaN or infinity)", "nan")
    return logits


def main(submission: Path, folder: Path) -> dict[str, object]:
    """The answer to print."""
    sealed = load_sealed(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = load_model(submission, device, (sealed.batch, sealed.rows["val"].shape[1] - 1))
        val, val_decoded = bits_per_byte(model, sealed.rows["val"], sealed.token_bytes, sealed.batch, device)
        holdout, _ = bits_per_byte(model, sealed.rows["holdout"], sealed.token_bytes, sealed.batch, device)
    except RefusedError as error:
        return {"refused": str(error), "failure": error.failure}
    return {"score": val, "holdout": holdout, "details": {"bpb_by_decoded_bytes": val_decoded}}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
