"""What the models of the zoo share: their size, the list of them, an embedding, blocks and a head. Honest, and as dull as can be."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

ROOT = Path(__file__).parents[3]
BATCH, LENGTH, VOCAB, WIDTH, HEADS = 3, 16, 64, 32, 4
SHAPE = (BATCH, LENGTH)
HEAD = WIDTH // HEADS


@dataclass(frozen=True)
class Model:
    """One architecture, and its twin: the same with one mistake (or one trick) that looks at later tokens, or at other rows."""

    name: str
    source: str
    build: Callable[[bool], nn.Module]
    """Makes the honest model, or with True its twin."""
    bug: str
    """What the twin does."""
    small: bool = False
    """The twin's advantage is too small, or too rare, for a probe to be sure of it."""
    honest: bool = True
    """False where the mechanism itself looks ahead, so that there is a twin alone."""
    unproved: str = ""
    """Why the honest model cannot be proved causal, so that it is probed; empty for those that are proved."""
    harmless: bool = False
    """The twin is proved, because what scoring enforces takes its channel away: as scored it sees nothing."""


MODELS: dict[str, Model] = {}


def exhibit(name: str, source: str, bug: str, **more: Any):
    """Lists a class: a whole model, or what mixes positions and stands in a block. Its constructor takes `peek`."""

    def listed(kind):
        def build(peek: bool) -> nn.Module:
            torch.manual_seed(0)
            made = kind(peek)
            return (Decoder(made) if isinstance(made, Mixer) else made).eval()

        assert name not in MODELS
        MODELS[name] = Model(name, source, build, bug, **more)
        return kind

    return listed


class Mixer(nn.Module):
    """A part of a block, from (B, T, C) to (B, T, C). Where `peek` is set it has its twin's bug."""

    def __init__(self, peek: bool):
        super().__init__()
        self.peek = peek


class Decoder(nn.Module):
    """Embedding, one block of a mixer and an MLP with residuals, head: the least that a mechanism needs around it."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.mixer = mixer
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = x + self.mixer(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x))


class Attention(Mixer):
    """Projections around `attend`, which takes and gives (B, H, T, D)."""

    def __init__(self, peek: bool):
        super().__init__(peek)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (y.view(*y.shape[:2], HEADS, HEAD).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        return self.out(self.attend(q, k, v).transpose(1, 2).reshape(x.shape))

    def attend(self, q, k, v):
        raise NotImplementedError


def tril(diagonal=0):
    """True where a query (row) may look at a key (column)."""
    return torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(diagonal)


def attend_masked(scores, v, mask):
    """Softmax over the keys where the mask is true."""
    return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v


def shift(x, by=1):
    """(B, T, ...) moved to later positions; zeros come in."""
    return F.pad(x, (0, 0) * (x.dim() - 2) + (by, 0))[:, : x.shape[1]]
