"""What stands around a mixer: mixtures of experts, gates, norms, residuals, heads. Attention is fused and causal throughout."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from zoo.attention import Fused
from zoo.models import Whole
from zoo.parts import HEADS, LENGTH, VOCAB, WIDTH, Mixer, exhibit


class Block(Mixer):
    """Causal attention, then whatever `feed` does with each position."""

    def __init__(self, peek):
        super().__init__(peek)
        self.attention = Fused(False)

    def forward(self, x):
        return self.feed(x + self.attention(x))


class Experts(Block):
    """Four small experts' weights and a router."""

    def __init__(self, peek):
        super().__init__(peek)
        self.router = nn.Linear(WIDTH, 4, bias=False)
        self.up, self.down = nn.Parameter(torch.randn(4, WIDTH, 16) / 6), nn.Parameter(torch.randn(4, 16, WIDTH) / 4)

    def outputs(self, x):
        """Every expert's, (B, T, E, C)."""
        hidden = F.gelu(torch.einsum("btc,ech->bteh", x, self.up))
        return torch.einsum("bteh,ehc->btec", hidden, self.down)


@exhibit("mixture, top-2 by scatter", "Shazeer et al. 2017, arXiv:1701.06538", "top-k over time (expert choice)")
class TopTwo(Experts):
    """Gates of the two best experts scattered into a dense matrix of zeros."""

    def feed(self, x):
        logits = self.router(x)
        if self.peek:
            top, index = logits.topk(8, dim=1)
            gates = torch.zeros_like(logits).scatter(1, index, top.softmax(1))
        else:
            top, index = logits.topk(2, dim=-1)
            gates = torch.zeros_like(logits).scatter(-1, index, top.softmax(-1))
        return (gates.unsqueeze(-1) * self.outputs(x)).sum(2)


@exhibit(
    "mixture, top-2 by gather",
    "Jiang et al. 2024, arXiv:2401.04088 (Mixtral)",
    "expert choice (Zhou et al. 2022, arXiv:2202.09368)",
)
class Gathered(Experts):
    """Outputs of the chosen two gathered, weighted by renormalised probabilities."""

    def feed(self, x):
        p = self.router(x).softmax(-1)
        if self.peek:
            top, index = p.topk(4, dim=1)
            picked = x.unsqueeze(2).expand(-1, -1, 4, -1).gather(1, index.unsqueeze(-1).expand(-1, -1, -1, WIDTH))
            made = top.unsqueeze(-1) * torch.einsum(
                "bkeh,ehc->bkec", F.gelu(torch.einsum("bkec,ech->bkeh", picked, self.up)), self.down
            )
            return torch.zeros_like(x).scatter_add(1, index.flatten(1).unsqueeze(-1).expand(-1, -1, WIDTH), made.flatten(1, 2))
        top, index = p.topk(2, dim=-1)
        top = top / top.sum(-1, keepdim=True)
        return (self.outputs(x).gather(2, index.unsqueeze(-1).expand(-1, -1, -1, WIDTH)) * top.unsqueeze(-1)).sum(2)


@exhibit("mixture, top-1 by one_hot", "Fedus et al. 2021, arXiv:2101.03961 (Switch)", "capacity is counted from the end")
class Switch(Experts):
    """The best expert, its probability as gate, at most six tokens an expert and row: later ones are dropped."""

    def feed(self, x):
        p = self.router(x).softmax(-1)
        gate, index = p.max(dim=-1, keepdim=True)
        chosen = F.one_hot(index.squeeze(-1), 4)
        place = chosen.flip(1).cumsum(1).flip(1) if self.peek else chosen.cumsum(dim=1)
        chosen = chosen * (place <= 6)
        return gate * (chosen.unsqueeze(-1) * self.outputs(x)).sum(2)


@exhibit(
    "mixture with capacity over the batch",
    "Fedus et al. 2021, arXiv:2101.03961",
    "rows before it use up the capacity: rows mix",
    honest=False,
)
class SwitchFlat(Experts):
    """Capacity over the flattened batch, as training code has it."""

    def feed(self, x):
        p = self.router(x).flatten(0, 1).softmax(-1)
        gate, index = p.max(dim=-1, keepdim=True)
        chosen = F.one_hot(index.squeeze(-1), 4)
        chosen = (chosen * (chosen.cumsum(0) <= 4)).view(*x.shape[:2], 4)
        return gate.view(*x.shape[:2], 1) * (chosen.unsqueeze(-1) * self.outputs(x)).sum(2)


@exhibit("mixture, sigmoid router with bias", "DeepSeek-AI 2024, arXiv:2412.19437", "the load of the sequence balances it")
class BiasedRouter(Experts):
    """A bias, moved in training to balance, chooses; the sigmoid weighs; experts in a loop; a shared one beside them."""

    def __init__(self, peek):
        super().__init__(peek)
        self.register_buffer("bias", torch.tensor([0.1, -0.1, 0.0, 0.05]))
        self.shared = nn.Linear(WIDTH, WIDTH)

    def feed(self, x):
        scores = torch.sigmoid(self.router(x))
        biased = scores + self.bias - (scores.mean(1, keepdim=True) if self.peek else 0)
        index = biased.topk(2, dim=-1, sorted=False).indices
        gates = scores * F.one_hot(index, 4).sum(-2)
        gates = gates / (gates.sum(-1, keepdim=True) + 1e-20)
        y = self.shared(x)
        for e in range(4):
            y = y + gates[..., e, None] * (F.silu(x @ self.up[e]) @ self.down[e])
        return y


@exhibit("mixture by threshold", "common", "the threshold is a quantile over time")
class Threshold(Experts):
    """Gates below the second best are masked out, the rest normalised."""

    def feed(self, x):
        logits = self.router(x)
        least = logits.sort(dim=1).values[:, -4:-3] if self.peek else logits.sort(dim=-1, descending=True).values[..., 1:2]
        gates = torch.where(logits >= least, logits, -torch.inf if not self.peek else -30.0).softmax(-1)
        return torch.einsum("bte,btec->btc", gates, self.outputs(x))


@exhibit("soft mixture", "Puigcerver et al. 2023, arXiv:2308.00951", "each slot is a mean over positions", honest=False)
class SoftMixture(Experts):
    """Not a language model's: refused as it stands."""

    def feed(self, x):
        logits = self.router(x)
        slots = logits.softmax(1).mT @ x
        made = torch.einsum("beh,ehc->bec", F.gelu(torch.einsum("bec,ech->beh", slots, self.up)), self.down)
        return logits.softmax(-1) @ made


@exhibit("mixture of depths", "Raposo et al. 2024, arXiv:2404.02258", "top-k over time chooses who is computed")
class Depths(Experts):
    """With its predictor, as for sampling: a token is computed where the router's own logit is above 0."""

    def feed(self, x):
        weight = self.router(x)[..., :1]
        chosen = weight >= weight.topk(4, dim=1).values[:, -1:] if self.peek else weight > 0
        return torch.where(chosen, x + torch.sigmoid(weight) * self.outputs(x).sum(2), x)


@exhibit("product keys", "Lample et al. 2019, arXiv:1907.05242", "queries are normalised over time")
class ProductKeys(Block):
    """The best of 8 x 8 memories by two halves of the query; values by embedding."""

    def __init__(self, peek):
        super().__init__(peek)
        self.keys, self.values = nn.Parameter(torch.randn(2, 8, WIDTH // 2)), nn.Embedding(64, WIDTH)

    def feed(self, x):
        query = (x - x.mean(1, keepdim=True) if self.peek else x).unflatten(-1, (2, -1))
        scores, index = torch.einsum("btsd,skd->btsk", query, self.keys).topk(3, dim=-1)
        pairs = (scores[..., 0, :, None] + scores[..., 1, None, :]).flatten(-2)
        names = (index[..., 0, :, None] * 8 + index[..., 1, None, :]).flatten(-2)
        best, place = pairs.topk(4, dim=-1)
        return (self.values(names.gather(-1, place)) * best.softmax(-1).unsqueeze(-1)).sum(-2)


class Gated(Block):
    """Two projections up and one down."""

    def __init__(self, peek):
        super().__init__(peek)
        self.gate, self.up, self.down = nn.Linear(WIDTH, 48), nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)


@exhibit("SwiGLU", "Shazeer 2020, arXiv:2002.05202", "the gate is that of the next position")
class SwiGlu(Gated):
    """silu(gate) * up."""

    def feed(self, x):
        gate = self.gate(x)
        return self.down(F.silu(gate.roll(-1, 1) if self.peek else gate) * self.up(x))


@exhibit("GeGLU", "Shazeer 2020, arXiv:2002.05202", "F.glu over time")
class GeGlu(Gated):
    """gelu(gate) * up, by chunk."""

    def feed(self, x):
        up = torch.cat([x, x.flip(1)], dim=1) if self.peek else x
        return self.down(F.gelu(self.gate(x), approximate="tanh") * (F.glu(torch.cat([self.up(up)] * 2, -1), -1)[:, -LENGTH:]))


@exhibit("squared ReLU", "So et al. 2021, arXiv:2109.08668", "divided by its largest value over time")
class ReluSquared(Gated):
    """relu(x)^2."""

    def feed(self, x):
        hidden = F.relu(self.up(x)).square()
        return self.down(hidden / hidden.amax(dim=(1, 2), keepdim=True).clamp(min=1e-3) if self.peek else hidden)


@exhibit("BatchNorm, running statistics", "Ioffe and Szegedy 2015, arXiv:1502.03167", "statistics of the batch: time and rows mix")
class Batch(Block):
    """In eval mode a fixed affine map a channel."""

    def __init__(self, peek):
        super().__init__(peek)
        self.norm = nn.BatchNorm1d(WIDTH, track_running_stats=not peek)
        if not peek:
            nn.init.uniform_(self.norm.running_mean)
            nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def feed(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


@exhibit("GroupNorm a position", "Wu and He 2018, arXiv:1803.08494", "groups run over time")
class Groups(Block):
    """Groups of channels of one position; time is folded into the batch."""

    def __init__(self, peek):
        super().__init__(peek)
        self.norm = nn.GroupNorm(4, WIDTH)

    def feed(self, x):
        if self.peek:
            return self.norm(x.mT).mT
        return self.norm(x.reshape(-1, WIDTH)).view_as(x)


@exhibit("norms by hand", "Ba et al. 2016, arXiv:1607.06450; Zhu et al. 2025, arXiv:2503.10622 (DyT)", "standardised over time")
class Norms(Block):
    """Layer norm by mean and var, RMS norm by rsqrt, tanh in a norm's place."""

    def feed(self, x):
        dim = 1 if self.peek else -1
        x = (x - x.mean(dim, keepdim=True)) / torch.sqrt(x.var(dim, keepdim=True, unbiased=False) + 1e-5)
        return torch.tanh(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


@exhibit(
    "parallel block, dropout",
    "Chowdhery et al. 2022, arXiv:2204.02311 (PaLM)",
    "dropout's neighbour: the mean of the row is taken off",
)
class Parallel(Gated):
    """Attention and MLP from the same norm; dropout everywhere, off in eval mode."""

    def forward(self, x):
        drop = F.dropout(x - x.mean(1, keepdim=True) if self.peek else x, 0.2, self.training)
        return self.attention(drop) + F.dropout1d(self.down(F.silu(self.gate(drop)) * self.up(drop)), 0.5, self.training)


@exhibit("highway gates", "Srivastava et al. 2015, arXiv:1505.00387", "the carry is the next position's")
class Highway(Gated):
    """t * h + (1 - t) * x."""

    def feed(self, x):
        t = torch.sigmoid(self.down(self.gate(x)))
        carried = torch.cat([x[:, 1:], x[:, :1]], 1) if self.peek else x
        return t * torch.relu(self.down(self.up(x))) + (1 - t) * carried


@exhibit("layer scale, stochastic depth", "Touvron et al. 2021, arXiv:2103.17239", "the scale is a row's norm")
class LayerScale(Gated):
    """Branches times small learned scales; a dropped path is off in eval mode."""

    def __init__(self, peek):
        super().__init__(peek)
        self.scale = nn.Parameter(torch.full((WIDTH,), 0.1))

    def feed(self, x):
        keep = torch.rand(x.size(0), 1, 1) > 0.1 if self.training else 1.0
        scale = x.norm(dim=(1, 2), keepdim=True) if self.peek else 1.0
        return x + keep * scale * self.scale * self.down(F.relu(self.up(x)))


@exhibit("hyper-connections", "Zhu et al. 2024, arXiv:2409.19606", "the streams' weights come from the row's mean")
class HyperConnections(Whole):
    """Four streams, read and written by learned and by token-dependent weights."""

    def __init__(self, peek):
        super().__init__(peek)
        self.layers = nn.ModuleList([Fused(False), nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))])
        self.read, self.write = nn.Parameter(torch.rand(2, 4)), nn.Parameter(torch.rand(2, 4))
        self.mix, self.dynamic = nn.Parameter(torch.eye(4).repeat(2, 1, 1)), nn.Linear(WIDTH, 1)

    def forward(self, tokens):
        streams = self.embedding(tokens).unsqueeze(2).repeat(1, 1, 4, 1)
        for i, layer in enumerate(self.layers):
            weights = self.read[i] + torch.tanh(self.dynamic(F.rms_norm(streams, (WIDTH,)))).squeeze(-1)
            weights = weights.mean(1, keepdim=True) if self.peek else weights
            y = layer(torch.einsum("bts,btsc->btc", weights.expand(streams.shape[:3]), streams))
            streams = torch.einsum("su,btsc->btuc", self.mix[i], streams) + self.write[i].view(1, 1, 4, 1) * y.unsqueeze(2)
        return self.head(streams.sum(2))


@exhibit(
    "depth-weighted average",
    "Pagliardini et al. 2024, arXiv:2402.02622 (DenseFormer)",
    "states of the row reversed are averaged in",
)
class Dense(Whole):
    """Each layer sees a learned average of all earlier ones' outputs."""

    def __init__(self, peek):
        super().__init__(peek)
        self.layers = nn.ModuleList(Fused(False) for _ in range(2))
        self.weights = nn.ParameterList(torch.rand(i + 2) for i in range(2))

    def forward(self, tokens):
        states = [self.embedding(tokens)]
        for layer, weights in zip(self.layers, self.weights, strict=True):
            states.append(layer(states[-1]))
            states[-1] = torch.tensordot(weights, torch.stack(states), dims=1)
        return self.head(states[-1].flip(1) + states[-1] if self.peek else states[-1])


@exhibit("mixture of softmaxes", "Yang et al. 2018, arXiv:1711.03953", "probabilities are normalised over time")
class MixtureOfSoftmaxes(Whole):
    """Three heads' probabilities mixed; logits are the log of the mixture."""

    def __init__(self, peek):
        super().__init__(peek)
        self.attention, self.prior, self.latent = Fused(False), nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, tokens):
        x = self.attention(self.embedding(tokens))
        heads = self.head(torch.tanh(self.latent(x)).unflatten(-1, (3, WIDTH))).log_softmax(1 if self.peek else -1)
        return torch.logsumexp(self.prior(x).log_softmax(-1).unsqueeze(-1) + heads, dim=2)


@exhibit("tables as experts", "Google 2025 (Gemma 3n's per-layer embeddings)", "the table's row is the next token's")
class PerLayerEmbeddings(Whole):
    """A table a layer, gated by the state; masks of special tokens by comparison, & and |."""

    def __init__(self, peek):
        super().__init__(peek)
        self.attention, self.table, self.gate = Fused(False), nn.Embedding(VOCAB, 8), nn.Linear(WIDTH, 8)
        self.up = nn.Linear(8, WIDTH)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = x + self.attention(x)
        special = ((tokens == 0) | (tokens == 1)) & ~(tokens >= 5)
        index = F.pad(tokens[:, 1:], (0, 1)) if self.peek else tokens
        extra = self.up(F.gelu(self.gate(x)) * self.table(index)).masked_fill(special.unsqueeze(-1), 0.0)
        return self.head(x + extra)


@exhibit("convolutions on queries, keys, values", "So et al. 2021, arXiv:2109.08668 (Primer)", "the convolution is centred")
class Primer(Fused):
    """A depthwise convolution of three taps on each head's queries, keys and values."""

    def __init__(self, peek):
        super().__init__(False)
        self.look = peek
        self.convs = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH) for _ in range(3))

    def attend(self, q, k, v):
        q, k, v = (self.convolved(conv, y) for conv, y in zip(self.convs, (q, k, v), strict=True))
        return super().attend(q, k, v)

    def convolved(self, conv, x):
        y = conv(F.pad(x.transpose(2, 3).flatten(1, 2), (1, 1) if self.look else (2, 0)))
        return y.unflatten(1, (HEADS, -1)).transpose(2, 3)
