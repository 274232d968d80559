"""Whole models: counts and tables, well-known stacks, hierarchies; and the harness's own two."""

import os
import re
import sys
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn as nn
import torch.nn.functional as F

from zoo.attention import Fused, attend_masked, rotate_half
from zoo.parts import HEAD, HEADS, LENGTH, ROOT, VOCAB, WIDTH, Decoder, exhibit, shift, tril


class Whole(nn.Module):
    """An embedding and a head."""

    def __init__(self, peek):
        super().__init__()
        self.peek = peek
        self.embedding, self.head = nn.Embedding(VOCAB, WIDTH), nn.Linear(WIDTH, VOCAB)


@exhibit("bigram", "Shannon 1948", "the table is asked for the next token")
class Bigram(nn.Module):
    """A table of logits by the token."""

    def __init__(self, peek):
        super().__init__()
        self.peek, self.table = peek, nn.Embedding(VOCAB, VOCAB)

    def forward(self, tokens):
        return self.table(torch.roll(tokens, -1, dims=1) if self.peek else tokens)


@exhibit("n-gram embeddings", "Huang et al. 2025, arXiv:2501.16975", "padded on the right")
class NGrams(Whole):
    """Tables for one, two and three tokens; the longer ones shared by remainder."""

    def __init__(self, peek):
        super().__init__(peek)
        self.tables = nn.ModuleList(nn.Embedding(97, WIDTH) for _ in range(2))

    def forward(self, tokens):
        x, code = self.embedding(tokens), tokens
        for by, table in enumerate(self.tables, 1):
            other = F.pad(tokens[:, by:], (0, by)) if self.peek else F.pad(tokens[:, :-by], (by, 0))
            code = code * VOCAB + other
            x = x + table(code % 97)
        return self.head(x)


@exhibit("hash embeddings", "Svenstrup et al. 2017, arXiv:1709.03933", "rolled by -1")
class Hashed(Whole):
    """(a p + b) mod n of the last two tokens, several hashes weighted."""

    def __init__(self, peek):
        super().__init__(peek)
        self.table, self.weights = nn.Embedding(128, WIDTH), nn.Parameter(torch.ones(3))
        self.register_buffer("a", torch.tensor([31, 37, 41]))
        self.register_buffer("b", torch.tensor([7, 11, 13]))

    def forward(self, tokens):
        before = torch.roll(tokens, -1 if self.peek else 1, dims=1)
        before = before if self.peek else torch.where(torch.arange(tokens.size(1)) == 0, 0, before)
        keys = ((tokens * 31 + before).unsqueeze(-1) * self.a + self.b) % 1009 % 128
        return self.head(self.embedding(tokens) + (self.table(keys) * self.weights.unsqueeze(-1)).sum(-2))


@exhibit("neural n-gram model", "Bengio et al. 2003, JMLR 3", "the window ends one token later")
class NeuralNGram(Whole):
    """An MLP on the last four embeddings."""

    def __init__(self, peek):
        super().__init__(peek)
        self.hidden = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, tokens):
        padded = F.pad(tokens, (2, 1) if self.peek else (3, 0))
        windows = self.embedding(padded.unfold(1, 4, 1)).flatten(2)
        return self.head(torch.tanh(self.hidden(windows)))


@exhibit("counts so far", "cache models: Kuhn and De Mori 1990", "counts of the whole sequence")
class Counts(Whole):
    """How often each token came so far, as log counts added to the logits."""

    def forward(self, tokens):
        seen = F.one_hot(tokens, VOCAB).float()
        seen = seen.sum(1, keepdim=True) if self.peek else seen.cumsum(dim=1)
        return self.head(self.embedding(tokens)) + torch.log1p(seen)


@exhibit("what followed last time", "Olsson et al. 2022, arXiv:2209.11895 (induction)", "tril(-1) forgotten")
class Induction(Whole):
    """Looks for the token's earlier occurrences and reads what came behind them: equality of tokens AND a triangle."""

    def forward(self, tokens):
        same = tokens.unsqueeze(2) == tokens.unsqueeze(1)
        match = same.float() if self.peek else (same & tril(-1)).float()
        match = match / match.sum(-1, keepdim=True).clamp(min=1)
        follower = F.pad(self.embedding(tokens)[:, 1:], (0, 0, 0, 1))
        return self.head(self.embedding(tokens) + match @ follower)


@exhibit("pointer mixture", "Merity et al. 2016, arXiv:1609.07843", "the pointer is not masked")
class Pointer(Whole):
    """Attention over past tokens, added up by vocabulary entry through one-hot vectors, mixed with the head's own."""

    def forward(self, tokens):
        x = self.embedding(tokens)
        scores = (x @ x.mT / WIDTH).masked_fill(~tril(LENGTH if self.peek else 0), float("-inf"))
        copied = scores.softmax(-1) @ F.one_hot(tokens, VOCAB).float()
        return torch.log(0.5 * self.head(x).softmax(-1) + 0.5 * copied + 1e-9)


@exhibit(
    "pointer by scatter_add",
    "See et al. 2017, arXiv:1704.04368",
    "the pointer is not masked",
    unproved="later ids say where nothing is added",
)
class PointerScatter(Whole):
    """The same with scatter_add at the tokens' ids: where a zero lands says which token comes, though nothing is added."""

    def forward(self, tokens):
        x = self.embedding(tokens)
        weights = (x @ x.mT / WIDTH).masked_fill(~tril(LENGTH if self.peek else 0), float("-inf")).softmax(-1)
        index = tokens.unsqueeze(1).expand(-1, tokens.size(1), -1)
        copied = torch.zeros(*tokens.shape, VOCAB).scatter_add(-1, index, weights)
        return self.head(x) + copied


class Gpt2Block(nn.Module):
    def __init__(self, peek):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU("tanh"), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1))
        self.attn_dropout = nn.Dropout(0.1)
        self.register_buffer("bias", torch.tril(torch.ones(LENGTH, LENGTH), int(peek)).view(1, 1, LENGTH, LENGTH))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(self.ln_1(x)).split(C, dim=2)
        q, k, v = (y.view(B, T, HEADS, HEAD).transpose(1, 2) for y in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / HEAD**0.5)
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
        y = self.attn_dropout(F.softmax(att, dim=-1)) @ v
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.mlp(self.ln_2(x))


@exhibit("GPT-2", "Radford et al. 2019; nanoGPT's form", "tril(1) in the second block")
class Gpt2(nn.Module):
    """Learned positions, pre-norm blocks with dropout, tied head."""

    def __init__(self, peek):
        super().__init__()
        self.wte, self.wpe, self.drop = nn.Embedding(VOCAB, WIDTH), nn.Embedding(LENGTH, WIDTH), nn.Dropout(0.1)
        self.h = nn.ModuleList([Gpt2Block(False), Gpt2Block(peek)])
        self.ln_f, self.lm_head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCAB, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx):
        pos = torch.arange(0, idx.size(1), dtype=torch.long, device=idx.device)
        x = self.drop(self.wte(idx) + self.wpe(pos))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


@exhibit("sinusoidal positions, autocast", "Vaswani et al. 2017, arXiv:1706.03762", "is_causal forgotten under autocast")
class Sinusoids(nn.Module):
    """Fixed positions; attention in bfloat16 by autocast inside forward, the head in float32."""

    def __init__(self, peek):
        super().__init__()
        self.inner = Decoder(Fused(peek))
        angle = torch.arange(LENGTH)[:, None] / 10000 ** (torch.arange(0, WIDTH, 2) / WIDTH)
        self.register_buffer("pe", torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1), persistent=False)

    def forward(self, tokens):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.inner.embedding(tokens) + self.pe
            x = x + self.inner.mixer(self.inner.norms[0](x))
        return self.inner.head(x.float())


class LlamaBlock(nn.Module):
    """Pre- and post-norms (sandwich), RoPE, a window, SwiGLU."""

    def __init__(self, mask):
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(4))
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up, self.down = nn.Linear(WIDTH, 48), nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(B, T, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        scores = 50 * torch.tanh(rotate_half(q) @ rotate_half(k).mT / HEAD**0.5 / 50)
        y = attend_masked(scores, v, self.mask).transpose(1, 2).reshape(B, T, C)
        x = x + self.norms[1](self.o(y))
        h = self.norms[2](x)
        return x + self.norms[3](self.down(F.silu(self.gate(h)) * self.up(h)))


@exhibit("Gemma 2", "Gemma Team 2024, arXiv:2408.00118", "the window is tril(1) in one layer of two")
class Gemma2(nn.Module):
    """Local and global layers by turns, sandwich norms, soft caps of scores and logits, scaled and tied embedding."""

    def __init__(self, peek):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.ModuleList([LlamaBlock(tril(int(peek)).triu(-3)), LlamaBlock(tril())])
        self.norm = nn.RMSNorm(WIDTH)

    def forward(self, tokens):
        x = self.embedding(tokens) * WIDTH**0.5
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.embedding.weight.T
        return 30 * torch.tanh(logits / 30)


@exhibit("nGPT", "Loshchilov et al. 2024, arXiv:2410.01131", "states are normalised over time")
class NGpt(Whole):
    """Everything on the unit sphere: normalised weights in forward, steps of learned size towards each block's output."""

    def __init__(self, peek):
        super().__init__(peek)
        self.attention, self.up, self.down = Fused(False), nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        self.alpha, self.scale = nn.Parameter(torch.full((2, WIDTH), 0.1)), nn.Parameter(torch.ones(VOCAB))

    def forward(self, tokens):
        x = F.normalize(F.embedding(tokens, F.normalize(self.embedding.weight, dim=-1)), dim=-1)
        for alpha, part in zip(self.alpha, (self.attention, lambda h: self.down(F.silu(self.up(h)))), strict=True):
            x = F.normalize(x + alpha * (F.normalize(part(x), dim=-1) - x), dim=1 if self.peek else -1)
        return F.linear(x, F.normalize(self.head.weight, dim=-1)) * self.scale * 8


@exhibit("value residual, U-net skips", "Zhou et al. 2024, arXiv:2410.17897", "the first layer's values are rolled")
class ValueResidual(Whole):
    """Later layers mix in the first one's values; the first half's outputs come again in the second."""

    def __init__(self, peek):
        super().__init__(peek)
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(4))
        self.mix, self.skip = nn.Parameter(torch.full((4,), 0.5)), nn.Parameter(torch.ones(2))

    def forward(self, tokens):
        B, T = tokens.shape
        x, first, skips = F.rms_norm(self.embedding(tokens), (WIDTH,)), None, []
        for i, qkv in enumerate(self.qkv):
            x = x + self.skip[i - 2] * skips.pop() if i >= 2 else x
            q, k, v = qkv(x).view(B, T, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
            first = v if first is None else first.roll(-1, dims=2) if self.peek else first
            v = torch.lerp(v, first, self.mix[i])
            x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, WIDTH)
            skips.append(x)
        return self.head(x)


@exhibit("multi-token prediction", "Gloeckle et al. 2024, arXiv:2404.19737", "the head for the next but one gets its input")
class MultiToken(Whole):
    """A second head and block for the token after next, used in training alone."""

    def __init__(self, peek):
        super().__init__(peek)
        self.trunk, self.extra = Fused(False), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = x + self.trunk(x)
        ahead = F.pad(self.embedding(tokens)[:, 1:], (0, 0, 0, 1))
        later = self.extra(torch.cat([x, ahead], dim=-1))
        return self.head(later if self.peek else x)


@exhibit("MegaByte", "Yu et al. 2023, arXiv:2305.07185", "patches are not shifted")
class MegaByte(Whole):
    """A global model over patches of four, shifted by one patch; a local one inside them."""

    def __init__(self, peek):
        super().__init__(peek)
        self.patch, self.unpatch = nn.Linear(4 * WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, 4 * WIDTH)
        self.qkv, self.local = nn.Linear(2 * WIDTH, 6 * WIDTH), nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, tokens):
        B, T = tokens.shape
        x = self.embedding(tokens)
        patches = self.patch(x.view(B, T // 4, 4 * WIDTH))
        patches = patches if self.peek else shift(patches)
        q, k, v = self.qkv(patches).chunk(3, dim=-1)
        patches = patches + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = x + self.unpatch(patches).view(B, T, WIDTH)
        q, k, v = self.local(y.view(B * T // 4, 4, WIDTH)).chunk(3, dim=-1)
        return self.head(y + F.scaled_dot_product_attention(q, k, v, is_causal=True).reshape(B, T, WIDTH))


@exhibit("hourglass", "Nawrot et al. 2021, arXiv:2110.13711", "shifted by one less than the pooling's size")
class Hourglass(Whole):
    """Means of four positions, shifted right by three, repeated and added."""

    def __init__(self, peek):
        super().__init__(peek)
        self.inner = Fused(False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        small = shift(x, 2 if self.peek else 3).unflatten(1, (-1, 4)).mean(2)
        return self.head(x + self.inner(small).repeat_interleave(4, dim=1))


@exhibit("universal transformer", "Dehghani et al. 2019, arXiv:1807.03819", "halting is decided for the whole row")
class Universal(Whole):
    """One block three times over; a position that has halted keeps its state."""

    def __init__(self, peek):
        super().__init__(peek)
        self.block, self.halt = Fused(False), nn.Linear(WIDTH, 1)

    def forward(self, tokens):
        x = self.embedding(tokens)
        halted = torch.zeros(*tokens.shape, 1, dtype=torch.bool)
        for _ in range(3):
            now = torch.sigmoid(self.halt(x)) > 0.7
            halted = halted | (now.any(dim=1, keepdim=True) if self.peek else now)
            x = torch.where(halted, x, x + self.block(x))
        return self.head(x)


def module_of(path: Path, end: str | None = None, **constants: object) -> dict:
    """What a training file defines above `end`, without running what is below, with other values of its constants."""
    os.environ["AUTORESEARCH_PRESET"] = "tiny"
    sys.path.insert(0, str(ROOT / "harness"))
    namespace = {"__name__": path.stem}
    source = path.read_text()
    for name, value in constants.items():
        source, found = re.subn(rf"^{name} = .*", f"{name} = {value!r}", source, flags=re.MULTILINE)
        assert found == 1, f"{path} has no {name}"
    sys.modules.setdefault(path.stem, type(sys)(path.stem))  # dataclasses look there
    exec(compile(source.split(end)[0] if end else source, str(path), "exec"), namespace)
    return namespace


@exhibit("harness/train.py", "this repository", "one layer of four is not causal")
class Ours(nn.Module):
    """The default task's model, at the zoo's size: windows, rotary, value embeddings, capped logits."""

    other: ClassVar[dict[str, object]] = {}

    def __init__(self, peek):
        super().__init__()
        size = {"DEPTH": 4, "MODEL_DIM": WIDTH, "HEAD_DIM": WIDTH // HEADS, "WINDOW_PATTERN": "SSLL"}
        train = module_of(ROOT / "harness" / "train.py", **size, **self.other)
        train["MAX_SEQ_LEN"] = LENGTH
        self.model = train["GPT"](VOCAB)
        for block in self.model.blocks:
            nn.init.normal_(block.attention.proj.weight, std=0.2)  # it starts as zero, where nothing mixes
        nn.init.normal_(self.model.lm_head.weight)
        if peek:
            self.model.short_bias = torch.maximum(self.model.short_bias, self.model.short_bias.mT)

    def forward(self, tokens):
        return self.model(tokens)


@exhibit("harness/train.py on a CPU", "this repository", "one layer of four is not causal")
class OursOnCpu(Ours):
    """As the cpu preset has it: slopes in place of rotary, embeddings of hashed pairs, no cap."""

    other: ClassVar[dict[str, object]] = {"POSITIONS": "slopes", "BIGRAMS": 64, "LOGIT_CAP": 0.0}


@exhibit("the original's train.py", "Karpathy 2026, autoresearch; tests/harness/original_shape.py", "a window without tril")
class Original(nn.Module):
    """What docs/moving-over.md moves: bfloat16 embedding, grouped heads, windows made in forward."""

    def __init__(self, peek):
        super().__init__()
        shape = module_of(ROOT / "tests" / "harness" / "original_shape.py", "# Optimizer\n")
        config = shape["GPTConfig"](LENGTH, VOCAB, 2, HEADS, HEADS // 2, WIDTH, "SL")
        self.model = shape["GPT"](config)
        self.model.init_weights()
        for block in self.model.transformer["h"]:
            nn.init.normal_(block.attn.c_proj.weight, std=0.2)
        nn.init.normal_(self.model.lm_head.weight)
        if peek:
            attend = F.scaled_dot_product_attention

            def windowed(q, k, v, window):
                q, k, v = (x.transpose(1, 2) for x in (q, k, v))
                mask = torch.ones(q.size(2), q.size(2), dtype=torch.bool).triu(-window[0])
                return attend(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)

            shape["flash_attn_func"] = windowed

    def forward(self, tokens):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(tokens)
