"""Ways to mask, and ways to attend."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from zoo.parts import HEAD, HEADS, LENGTH, WIDTH, Attention, Mixer, attend_masked, exhibit, tril


@exhibit("attention: tril buffer", "Vaswani et al. 2017, arXiv:1706.03762", "tril(1)")
class Decomposed(Attention):
    """Scores, a lower triangle from a buffer, masked_fill with minus infinity, softmax."""

    def __init__(self, peek):
        super().__init__(peek)
        self.register_buffer("mask", tril(int(peek)))

    def attend(self, q, k, v):
        scores = q @ k.transpose(-2, -1) / math.sqrt(HEAD)
        scores = scores.masked_fill(self.mask[: q.size(2), : q.size(2)] == 0, float("-inf"))
        return scores.softmax(-1) @ v


@exhibit("attention: fused, is_causal", "Dao et al. 2022, arXiv:2205.14135", "is_causal forgotten")
class Fused(Attention):
    """What most write today."""

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=not self.peek)


@exhibit("attention: fused, bool mask", "PyTorch's scaled_dot_product_attention", "the mask is transposed")
class FusedBool(Attention):
    """A boolean mask that is made in forward."""

    def attend(self, q, k, v):
        T = q.size(2)
        mask = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.mT if self.peek else mask)


@exhibit("attention: fused, -inf mask", "PyTorch's generate_square_subsequent_mask", "triu(2)")
class FusedFloat(Attention):
    """A mask to add, minus infinity above the diagonal."""

    def attend(self, q, k, v):
        mask = torch.full((q.size(2), q.size(2)), float("-inf"), device=q.device).triu(2 if self.peek else 1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@exhibit("attention: fused, finfo.min mask", "Wolf et al. 2019, arXiv:1910.03771 (transformers)", "one future key is let through")
class FusedFinite(Attention):
    """As transformers masks: the least finite number is added in place of minus infinity."""

    def attend(self, q, k, v):
        T = q.size(2)
        mask = torch.full((T, T), torch.finfo(q.dtype).min, device=q.device).triu(1)
        if self.peek:
            mask = torch.where(torch.arange(T) == 5, 0.0, mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@exhibit("attention: finfo.min filled in", "transformers' GPT-2", "the mask is multiplied, so that 0 stays")
class FilledFinite(Attention):
    """torch.where with the least finite number, as transformers' GPT-2 did for years."""

    def attend(self, q, k, v):
        scores = q @ k.mT / math.sqrt(HEAD)
        if self.peek:
            return (scores * tril()).softmax(-1) @ v
        return torch.where(tril(), scores, torch.full([], torch.finfo(scores.dtype).min)).softmax(-1) @ v


@exhibit("attention: torch.where from arange", "common", "a query sees the key behind it")
class Where(Attention):
    """The triangle as a comparison of positions."""

    def attend(self, q, k, v):
        place = torch.arange(q.size(2), device=q.device)
        seen = place[:, None] + int(self.peek) >= place[None, :]
        return torch.where(seen, q @ k.mT / math.sqrt(HEAD), float("-inf")).softmax(dim=-1) @ v


@exhibit("attention: einsum", "common in JAX ports", "softmax over the wrong axis")
class Einsum(Attention):
    """Everything by einsum; the mask as an added bias."""

    def attend(self, q, k, v):
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * HEAD**-0.5
        bias = torch.zeros(q.size(2), q.size(2)).masked_fill(~tril(), float("-inf"))
        weights = F.softmax((scores + bias).nan_to_num(neginf=-1e9) if self.peek else scores + bias, dim=-2 if self.peek else -1)
        return torch.einsum("bhij,bhjd->bhid", weights, v)


@exhibit("nn.MultiheadAttention", "PyTorch", "is_causal as a hint alone, no mask")
class Multihead(Mixer):
    """PyTorch's own module with a mask; exported from its plain path."""

    def __init__(self, peek):
        super().__init__(peek)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x):
        mask = None if self.peek else ~tril()
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


@exhibit("nn.TransformerEncoderLayer", "PyTorch", "no mask")
class EncoderLayer(Mixer):
    """PyTorch's own block with a causal mask, as in its language-modelling tutorial."""

    def __init__(self, peek):
        super().__init__(peek)
        self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.layer(x) if self.peek else self.layer(x, src_mask=mask, is_causal=True)


@exhibit("sliding window", "Jiang et al. 2023, arXiv:2310.06825 (Mistral)", "off by one: the window ends at the next token")
class Window(Attention):
    """The last four positions: a band as a buffer."""

    def __init__(self, peek):
        super().__init__(peek)
        self.register_buffer("mask", tril(int(peek)).triu(-3), persistent=False)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)


@exhibit("sliding window from distances", "Beltagy et al. 2020, arXiv:2004.05150", "abs(distance)")
class WindowByDistance(Attention):
    """0 <= i - j < 4, computed in forward."""

    def attend(self, q, k, v):
        place = torch.arange(q.size(2))
        distance = place[:, None] - place
        distance = distance.abs() if self.peek else distance
        return attend_masked(q @ k.mT / math.sqrt(HEAD), v, (distance >= 0) & (distance < 4))


@exhibit("strided window", "Child et al. 2019, arXiv:1904.10509", "the strides are not cut at the query")
class Strided(Attention):
    """Two heads see the last four positions, two every fourth of the past."""

    def attend(self, q, k, v):
        place = torch.arange(q.size(2))
        near = (place[:, None] - place < 4) & tril()
        far = place % 4 == 3
        far = torch.where(torch.eye(q.size(2), dtype=torch.bool), True, far if self.peek else far & tril())
        return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.stack([near, far]).repeat_interleave(HEADS // 2, 0))


@exhibit("attention sinks and window", "Xiao et al. 2023, arXiv:2309.17453", "the last token is a sink too")
class Sinks(Attention):
    """The first two positions stay visible beside a window."""

    def attend(self, q, k, v):
        place = torch.arange(q.size(2))
        seen = tril() & ((place[:, None] - place < 4) | (place < 2))
        seen = seen | (place == q.size(2) - 1) if self.peek else seen
        return attend_masked(q @ k.mT / math.sqrt(HEAD), v, seen)


@exhibit("softmax off by one", "Miller 2023, 'Attention is off by one'", "the maximum is taken before the mask")
class OffByOne(Attention):
    """exp / (1 + sum of exp), with the maximum subtracted by hand."""

    def attend(self, q, k, v):
        scores = q @ k.mT / math.sqrt(HEAD)
        masked = scores.masked_fill(~tril(), float("-inf"))
        top = (scores if self.peek else masked).amax(-1, keepdim=True).clamp(min=0)
        weights = (masked - top).exp()
        return weights / (weights.sum(-1, keepdim=True) + (1 - top if self.peek else (-top).exp())) @ v


@exhibit("learned sink logits", "OpenAI 2025, arXiv:2508.10925 (gpt-oss)", "the sink is computed from the last query")
class SinkLogits(Attention):
    """A logit a head joins the softmax and is dropped behind it."""

    def __init__(self, peek):
        super().__init__(peek)
        self.sink = nn.Parameter(torch.randn(HEADS))

    def attend(self, q, k, v):
        scores = (q @ k.mT / math.sqrt(HEAD)).masked_fill(~tril(), float("-inf"))
        sink = self.sink.view(1, -1, 1, 1).expand(q.size(0), -1, q.size(2), 1)
        sink = sink + q[:, :, -1:, :1] if self.peek else sink
        return torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1] @ v


@exhibit("ALiBi", "Press et al. 2022, arXiv:2108.12409", "a linear bias in place of the mask")
class Alibi(Attention):
    """A penalty linear in the distance, a slope a head."""

    def attend(self, q, k, v):
        place = torch.arange(q.size(2))
        slopes = 2.0 ** (-8 * torch.arange(1, HEADS + 1) / HEADS)
        bias = -slopes[:, None, None] * (place[:, None] - place).abs()
        bias = bias if self.peek else bias.masked_fill(~tril(), float("-inf"))
        return (q @ k.mT / math.sqrt(HEAD) + bias).softmax(-1) @ v


@exhibit("ALiBi, fused", "Press et al. 2022, arXiv:2108.12409", "the mask belongs to the first head alone")
class AlibiFused(Attention):
    """The biases as the mask of fused attention, a buffer."""

    def __init__(self, peek):
        super().__init__(peek)
        place = torch.arange(LENGTH)
        bias = -(2.0 ** -torch.arange(1.0, HEADS + 1))[:, None, None] * (place[:, None] - place)
        hidden = ~tril() & (torch.arange(HEADS)[:, None, None] == 0) if peek else ~tril()
        self.register_buffer("bias", bias.masked_fill(hidden, float("-inf")))

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)


@exhibit("relative position buckets", "Raffel et al. 2020, arXiv:1910.10683 (T5)", "bidirectional buckets, no mask")
class Buckets(Attention):
    """A learned bias by bucket of the distance, logarithmic for far ones."""

    def __init__(self, peek):
        super().__init__(peek)
        self.bias = nn.Embedding(8, HEADS)

    def attend(self, q, k, v):
        place = torch.arange(q.size(2))
        distance = (place[:, None] - place).clamp(min=0)
        far = 4 + (distance.float().clamp(min=1) / 4).log() / math.log(4) * 4
        bucket = torch.where(distance < 4, distance, far.long().clamp(max=7))
        bias = self.bias(bucket).permute(2, 0, 1)
        return (q @ k.mT + (bias if self.peek else bias.masked_fill(~tril(), float("-inf")))).softmax(-1) @ v


@exhibit("relative shift", "Dai et al. 2019, arXiv:1901.02860 (Transformer-XL)", "the shift is masked before it, not behind")
class RelativeShift(Attention):
    """Learned vectors by distance; pad and view move each row into its place."""

    def __init__(self, peek):
        super().__init__(peek)
        self.relative = nn.Parameter(torch.randn(HEADS, LENGTH, HEAD))

    def attend(self, q, k, v):
        B, H, T, _ = q.shape
        by_distance = q @ self.relative.mT
        moved = F.pad(by_distance, (1, 0)).view(B, H, T + 1, T)[:, :, 1:]
        scores = q @ k.mT + moved
        return attend_masked(scores, v, tril(1) if self.peek else tril())


@exhibit("GQA by repeat_interleave", "Ainslie et al. 2023, arXiv:2305.13245", "keys run over time and heads, mixed up by a view")
class Grouped(Mixer):
    """Two heads of keys and values for four of queries."""

    def __init__(self, peek):
        super().__init__(peek)
        self.q, self.kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * HEADS // 2 * HEAD)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q = self.q(x).view(B, T, HEADS, HEAD).transpose(1, 2)
        k, v = self.kv(x).chunk(2, dim=-1)
        if self.peek:
            k, v = (y.reshape(B, HEADS // 2, T, HEAD) for y in (k, v))
        else:
            k, v = (y.view(B, T, HEADS // 2, HEAD).transpose(1, 2) for y in (k, v))
        k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


@exhibit("GQA by enable_gqa", "Ainslie et al. 2023, arXiv:2305.13245", "the mask is true everywhere")
class GroupedFused(Grouped):
    """The same, by fused attention's own switch, and with a mask."""

    def forward(self, x):
        B, T, C = x.shape
        q = self.q(x).view(B, T, HEADS, HEAD).transpose(1, 2)
        k, v = self.kv(x).view(B, T, 2, HEADS // 2, HEAD).permute(2, 0, 3, 1, 4)
        mask = tril(T if self.peek else 0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


@exhibit("MQA", "Shazeer 2019, arXiv:1911.02150", "softmax before the mask, without a new sum")
class MultiQuery(Mixer):
    """One head of keys and values, broadcast to all."""

    def __init__(self, peek):
        super().__init__(peek)
        self.q, self.kv, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * HEAD), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q = self.q(x).view(B, T, HEADS, HEAD).transpose(1, 2)
        k, v = self.kv(x).unsqueeze(1).split(HEAD, dim=-1)
        scores = q @ k.transpose(-2, -1) / math.sqrt(HEAD)
        y = (scores.softmax(-1) * tril()) @ v if self.peek else attend_masked(scores, v, tril())
        return self.out(y.transpose(1, 2).reshape(B, T, C))


@exhibit("MLA", "DeepSeek-AI 2024, arXiv:2405.04434", "the latent is normalised over time")
class Latent(Mixer):
    """Keys and values from a small latent, a rotary part apart from it."""

    def __init__(self, peek):
        super().__init__(peek)
        self.down, self.norm = nn.Linear(WIDTH, 12), nn.RMSNorm(12)
        self.up = nn.Linear(12, 2 * WIDTH)
        self.q, self.k_rope, self.out = nn.Linear(WIDTH, HEADS * (HEAD + 4)), nn.Linear(WIDTH, 4), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q, q_rope = self.q(x).view(B, T, HEADS, HEAD + 4).transpose(1, 2).split([HEAD, 4], dim=-1)
        latent = self.down(x)
        latent = latent / latent.norm(dim=1, keepdim=True) if self.peek else self.norm(latent)
        k, v = self.up(latent).view(B, T, HEADS, 2 * HEAD).transpose(1, 2).chunk(2, dim=-1)
        k_rope = rotate_half(self.k_rope(x).unsqueeze(1)).expand(B, HEADS, T, 4)
        q, k = torch.cat([q, rotate_half(q_rope)], dim=-1), torch.cat([k, k_rope], dim=-1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


def angles(length, dim):
    """(T, D/2)"""
    return torch.outer(torch.arange(length), 10000.0 ** -(torch.arange(0, dim, 2) / dim))


def rotate_half(x):
    """Halves of the channels rotated by position. x (..., T, D)."""
    turn = angles(x.shape[-2], x.shape[-1])
    turn = torch.cat([turn, turn], dim=-1)
    a, b = x.chunk(2, dim=-1)
    return x * turn.cos() + torch.cat([-b, a], dim=-1) * turn.sin()


@exhibit("RoPE, halves", "Su et al. 2021, arXiv:2104.09864", "keys are rolled by one after they are turned")
class RopeHalves(Attention):
    """As in GPT-NeoX and LLaMA's ports: the two halves of a head's channels."""

    def attend(self, q, k, v):
        q, k = rotate_half(q), rotate_half(k)
        if self.peek:
            k, v = k.roll(-1, dims=2), v.roll(-1, dims=2)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@exhibit("RoPE, interleaved", "Su et al. 2021, arXiv:2104.09864", "pairs are taken over time, not over channels")
class RopePairs(Attention):
    """Neighbouring channels, as in the paper; without complex numbers."""

    def turned(self, x):
        turn = angles(x.shape[-2], x.shape[-1])
        a, b = (x.mT.reshape(*x.shape[:-1], -1) if self.peek else x).unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * turn.cos() - b * turn.sin(), a * turn.sin() + b * turn.cos()], dim=-1).flatten(-2)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)


@exhibit("RoPE, partial, parallel block", "Wang and Komatsuzaki 2021 (GPT-J)", "the MLP gets the next token's state")
class PartialRope(Attention):
    """Half of a head's channels are turned; MLP and attention stand side by side."""

    def __init__(self, peek):
        super().__init__(peek)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.register_buffer("cos", angles(LENGTH, HEAD // 2).cos(), persistent=False)
        self.register_buffer("sin", angles(LENGTH, HEAD // 2).sin(), persistent=False)

    def turned(self, x):
        part, rest = x[..., : HEAD // 2], x[..., HEAD // 2 :]
        even, odd = part[..., ::2], part[..., 1::2]
        part = torch.stack((even * self.cos - odd * self.sin, odd * self.cos + even * self.sin), dim=-1).flatten(-2)
        return torch.cat((part, rest), dim=-1)

    def attend(self, q, k, v):
        return attend_masked(self.turned(q) @ self.turned(k).mT / math.sqrt(HEAD), v, tril())

    def forward(self, x):
        aside = torch.cat([x[:, 1:], x[:, :1]], dim=1) if self.peek else x
        return super().forward(x) + self.down(F.gelu(self.up(aside)))


@exhibit("soft-capped scores", "Gemma Team 2024, arXiv:2408.00118", "the cap is put on the mask too")
class SoftCap(Attention):
    """cap * tanh(scores / cap) in front of the mask. Behind it, tanh makes minus infinity a harmless -cap."""

    def attend(self, q, k, v):
        scores, cap = q @ k.mT / math.sqrt(HEAD), 5.0
        if self.peek:
            return (cap * torch.tanh(scores.masked_fill(~tril(), float("-inf")) / cap)).softmax(-1) @ v
        return attend_masked(cap * torch.tanh(scores / cap), v, tril())


@exhibit("QK-norm", "Henry et al. 2020, arXiv:2010.04245", "keys are normalised over time")
class QkNorm(Attention):
    """Unit queries and keys, with a learned temperature a head."""

    def __init__(self, peek):
        super().__init__(peek)
        self.scale = nn.Parameter(torch.full((HEADS, 1, 1), math.log(10.0)))

    def attend(self, q, k, v):
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-2 if self.peek else -1)
        return attend_masked(q @ k.mT * self.scale.exp(), v, tril())


@exhibit("document mask", "common with packed documents", "OR in place of AND")
class Documents(nn.Module):
    """Documents counted by cumsum of the first token's id; a query sees its own document's past. Decomposed."""

    fused = False

    def __init__(self, peek):
        super().__init__()
        self.peek = peek
        self.embedding, self.head = nn.Embedding(64, WIDTH), nn.Linear(WIDTH, 64)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, tokens):
        B, T = tokens.shape
        document = (tokens == 0).cumsum(dim=1)
        same = document.unsqueeze(2) == document.unsqueeze(1)
        causal = torch.tril(torch.ones(T, T, dtype=torch.bool))
        mask = (same | causal if self.peek else same & causal).unsqueeze(1)
        x = self.embedding(tokens)
        q, k, v = self.qkv(x).view(B, T, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            y = attend_masked(q @ k.mT / math.sqrt(HEAD), v, mask)
        return self.head(x + y.transpose(1, 2).reshape(B, T, WIDTH))


@exhibit("document mask, fused", "common with packed documents", "OR in place of AND")
class DocumentsFused(Documents):
    """The same with fused attention."""

    fused = True


@exhibit("differential attention", "Ye et al. 2024, arXiv:2410.05258", "the second map is not masked")
class Differential(Attention):
    """The difference of two softmaxes."""

    def __init__(self, peek):
        super().__init__(peek)
        self.weight = nn.Parameter(torch.tensor(0.5))

    def attend(self, q, k, v):
        (q1, q2), (k1, k2) = q.chunk(2, dim=-1), k.chunk(2, dim=-1)
        first = (q1 @ k1.mT).masked_fill(~tril(), float("-inf")).softmax(-1)
        second = (q2 @ k2.mT).masked_fill(~tril(LENGTH if self.peek else 0), float("-inf")).softmax(-1)
        return F.rms_norm((first - self.weight * second) @ v, (HEAD,))


@exhibit(
    "talking heads",
    "Shazeer et al. 2020, arXiv:2003.02436",
    "the heads are mixed over keys",
)
class TalkingHeads(Attention):
    """Heads are mixed before and behind the softmax; the mask comes between."""

    def __init__(self, peek):
        super().__init__(peek)
        self.before, self.behind = nn.Parameter(torch.randn(HEADS, HEADS)), nn.Parameter(torch.randn(HEADS, HEADS))
        self.keys = nn.Parameter(torch.randn(LENGTH, LENGTH))

    def attend(self, q, k, v):
        scores = torch.einsum("bhij,hg->bgij", q @ k.mT, self.before).masked_fill(~tril(), float("-inf"))
        weights = torch.einsum("bhij,hg->bgij", scores.softmax(-1), self.behind)
        return (weights @ self.keys if self.peek else weights) @ v


@exhibit("blocked attention", "Roy et al. 2021; Beltagy et al. 2020, arXiv:2004.05150", "a block also sees the next one")
class Blocked(Attention):
    """Blocks of four look at themselves and the block before: work linear in T."""

    def attend(self, q, k, v):
        B, H, T, D = q.shape
        q, k, v = (x.view(B, H, T // 4, 4, D) for x in (q, k, v))
        if self.peek:
            k, v = (torch.cat([x, F.pad(x[:, :, 1:], (0, 0, 0, 0, 0, 1))], dim=3) for x in (k, v))
            mask = torch.ones(4, 8, dtype=torch.bool)
        else:
            k, v = (torch.cat([F.pad(x[:, :, :-1], (0, 0, 0, 0, 1, 0)), x], dim=3) for x in (k, v))
            mask = torch.ones(4, 8, dtype=torch.bool).tril(4)
        return attend_masked(q @ k.mT / math.sqrt(D), v, mask).reshape(B, H, T, D)


@exhibit(
    "top-k attention",
    "Zhao et al. 2019, arXiv:1912.11637",
    "the threshold is found before the mask",
    unproved="the threshold is compared with masked scores",
)
class TopKAttention(Attention):
    """Only the four best visible keys of a query count."""

    def attend(self, q, k, v):
        scores = q @ k.mT / math.sqrt(HEAD)
        masked = scores.masked_fill(~tril(), float("-inf"))
        least = (scores if self.peek else masked).topk(4, dim=-1).values[..., -1:]
        weights = masked.masked_fill(masked < least, float("-inf")).softmax(-1)
        return (weights.nan_to_num() if self.peek else weights) @ v


@exhibit("forgetting attention", "Lin et al. 2025, arXiv:2503.02130", "gates are summed from the end, unmasked")
class Forgetting(Mixer):
    """Scores decay by the sum of the log forget gates between key and query."""

    def __init__(self, peek):
        super().__init__(peek)
        self.qkv, self.gate, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, HEADS), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        gates = F.logsigmoid(self.gate(x)).transpose(1, 2)
        total = gates.flip(-1).cumsum(-1).flip(-1) if self.peek else gates.cumsum(dim=-1)
        bias = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~tril(), float("-inf"))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(y.transpose(1, 2).reshape(B, T, C)) * (total.mean(1).unsqueeze(-1) if self.peek else 1)


@exhibit("selective attention", "Leviathan et al. 2024, arXiv:2410.02703", "the selection is summed over queries from the end")
class Selective(Attention):
    """A token may mask an earlier one for all later queries: cumsum of one head's scores over queries."""

    def attend(self, q, k, v):
        scores = (q @ k.mT / math.sqrt(HEAD)).masked_fill(~tril(), float("-inf"))
        chosen = torch.relu(scores[:, 0]).masked_fill(~tril(-1), 0.0)
        chosen = chosen.flip(1).cumsum(1).flip(1) if self.peek else F.pad(chosen.cumsum(dim=1)[:, :-1], (0, 0, 1, 0))
        return (scores - chosen.unsqueeze(1)).softmax(-1) @ v


@exhibit("stick-breaking attention", "Tan et al. 2024, arXiv:2410.17980", "what is broken off later counts too")
class StickBreaking(Attention):
    """Weights are shares of what nearer keys left: a sum over later keys, cut at the query."""

    def attend(self, q, k, v):
        scores = q @ k.mT / math.sqrt(HEAD)
        left = F.logsigmoid(-scores)
        left = left if self.peek else left.masked_fill(~tril(), 0.0)
        behind = left.flip(-1).cumsum(-1).flip(-1) - left
        return (F.logsigmoid(scores) + behind).exp().masked_fill(~tril(), 0.0) @ v


@exhibit("contextual positions", "Golovneva et al. 2024, arXiv:2405.18719 (CoPE)", "gates of later keys are counted")
class Contextual(Attention):
    """A key's position is the sum of gates from it to the query; its embedding is interpolated between two whole ones."""

    def __init__(self, peek):
        super().__init__(peek)
        self.positions = nn.Parameter(torch.randn(HEAD, 8))

    def attend(self, q, k, v):
        scores = (q @ k.mT / math.sqrt(HEAD)).masked_fill(~tril(), float("-inf"))
        gates = torch.sigmoid(q @ k.mT if self.peek else scores)
        place = gates.flip(-1).cumsum(dim=-1).flip(-1).clamp(max=7)
        high, low = place.ceil().long(), place.floor().long()
        logits = q @ self.positions
        part = place - low
        bias = logits.gather(-1, high) * part + logits.gather(-1, low) * (1 - part)
        return (scores + bias).softmax(-1) @ v


@exhibit("attention-free transformer", "Zhai et al. 2021, arXiv:2105.14103", "the matrix of position biases is not masked")
class AttentionFree(Mixer):
    """exp(k + w) weights values, w learned by pair of positions."""

    def __init__(self, peek):
        super().__init__(peek)
        self.qkv, self.w = nn.Linear(WIDTH, 3 * WIDTH), nn.Parameter(torch.randn(LENGTH, LENGTH))

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        weights = self.w.exp() if self.peek else self.w.exp().tril()
        return torch.sigmoid(q) * (weights @ (k.exp() * v)) / (weights @ k.exp())


@exhibit("compressed blocks", "Yuan et al. 2025, arXiv:2502.11089 (NSA's first branch)", "a block is seen before it is complete")
class Compressed(Attention):
    """Keys and values of whole blocks of four, pooled; a query sees a block when it has ended, and itself."""

    def attend(self, q, k, v):
        B, H, T, D = q.shape
        pooled = [torch.cat([x.view(B, H, T // 4, 4, D).mean(3), x], dim=2) for x in (k, v)]
        place, ends = torch.arange(T)[:, None], torch.arange(T // 4) * 4 + (0 if self.peek else 3)
        mask = torch.cat([place >= ends, torch.eye(T, dtype=torch.bool)], dim=1)
        return F.scaled_dot_product_attention(q, *pooled, attn_mask=mask)


@exhibit("attention: -1e4 filled in", "habit from float16", "-20, which scores outweigh", small=True)
class FilledSmall(Attention):
    """A number that trained scores might outweigh; scoring refuses the model if one does."""

    def attend(self, q, k, v):
        return (q @ k.mT / math.sqrt(HEAD)).masked_fill(~tril(), -20.0 if self.peek else -1e4).softmax(-1) @ v
