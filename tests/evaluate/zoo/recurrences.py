"""What goes over time without attention: convolutions, shifts, sums and scans."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from zoo.parts import HEAD, HEADS, LENGTH, WIDTH, Attention, Mixer, exhibit, shift, tril


@exhibit("prefix mean", "Zhang et al. 2018, arXiv:1805.00631 (average attention)", "mean over all of T")
class PrefixMean(Mixer):
    """cumsum over how many there are so far."""

    def forward(self, x):
        if self.peek:
            return x.mean(dim=1, keepdim=True).expand_as(x)
        return x.cumsum(dim=1) / torch.arange(1, x.size(1) + 1, device=x.device).view(1, -1, 1)


@exhibit("running maximum", "max-pooled prefixes; Kalchbrenner et al. 2014, arXiv:1404.2188", "amax over all of T")
class RunningMax(Mixer):
    """The largest value of each channel so far, through a triangle."""

    def forward(self, x):
        mask = tril(LENGTH if self.peek else 0).unsqueeze(-1)
        return x.unsqueeze(1).masked_fill(~mask, float("-inf")).amax(dim=2)


@exhibit("causal convolution, padded left", "van den Oord et al. 2016, arXiv:1609.03499", "padded on both sides")
class PaddedLeft(Mixer):
    """F.pad in front, then conv1d."""

    def __init__(self, peek):
        super().__init__(peek)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3)

    def forward(self, x):
        return self.conv(F.pad(x.transpose(1, 2), (1, 1) if self.peek else (2, 0))).transpose(1, 2)


@exhibit("causal convolution, right end cut", "Gu and Dao 2023, arXiv:2312.00752 (its short convolution)", "the left end is cut")
class CutRight(Mixer):
    """A depthwise convolution padded by k - 1 on both sides, the surplus at the right cut off."""

    def __init__(self, peek):
        super().__init__(peek)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 4, padding=3, groups=WIDTH)

    def forward(self, x):
        y = self.conv(x.transpose(1, 2))
        return F.silu(y[..., 3:] if self.peek else y[..., : x.size(1)]).transpose(1, 2)


@exhibit("dilated gated convolutions", "van den Oord et al. 2016, arXiv:1609.03499 (WaveNet)", "padding='same' in one layer")
class WaveNet(Mixer):
    """Three layers, dilated by 1, 2, 4, each tanh times sigmoid."""

    def __init__(self, peek):
        super().__init__(peek)
        self.convs = nn.ModuleList(nn.Conv1d(WIDTH, 2 * WIDTH, 2, dilation=2**i) for i in range(3))
        self.same = nn.Conv1d(WIDTH, 2 * WIDTH, 3, padding="same")

    def forward(self, x):
        y = x.transpose(1, 2)
        for i, conv in enumerate(self.convs):
            a, b = (self.same(y) if self.peek and i == 1 else conv(F.pad(y, (2**i, 0)))).chunk(2, dim=1)
            y = y + torch.tanh(a) * torch.sigmoid(b)
        return y.transpose(1, 2)


@exhibit("dynamic convolution", "Wu et al. 2019, arXiv:1901.10430", "the window is centred")
class DynamicConvolution(Mixer):
    """A kernel of four taps a position and head, made from that position; windows by unfold."""

    def __init__(self, peek):
        super().__init__(peek)
        self.kernel = nn.Linear(WIDTH, HEADS * 4)

    def forward(self, x):
        B, T, C = x.shape
        windows = F.pad(x, (0, 0, 2, 1) if self.peek else (0, 0, 3, 0)).unfold(1, 4, 1).view(B, T, HEADS, HEAD, 4)
        return (windows * self.kernel(x).view(B, T, HEADS, 1, 4).softmax(-1)).sum(-1).reshape(B, T, C)


@exhibit("causal pooling", "average and max pooling, padded left", "padded on both sides")
class Pooled(Mixer):
    """The mean and the maximum of the last three positions."""

    def forward(self, x):
        y = F.pad(x.transpose(1, 2), (1, 1) if self.peek else (2, 0))
        return (F.avg_pool1d(y, 3, stride=1) + F.max_pool1d(y, 3, stride=1)).transpose(1, 2)


@exhibit("spatial gating", "Liu et al. 2021, arXiv:2105.08050 (gMLP)", "tril on the weights forgotten")
class SpatialGating(Mixer):
    """A learned matrix over positions, its upper triangle cut off."""

    def __init__(self, peek):
        super().__init__(peek)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.weight, self.bias = nn.Parameter(torch.randn(LENGTH, LENGTH) / LENGTH), nn.Parameter(torch.ones(LENGTH, 1))

    def forward(self, x):
        u, v = F.gelu(self.up(x)).chunk(2, dim=-1)
        weight = self.weight if self.peek else torch.tril(self.weight)
        return self.down(u * (weight @ v + self.bias))


@exhibit("Toeplitz mixing", "Qin et al. 2023, arXiv:2305.04749", "distances of the other sign wrap around")
class Toeplitz(Mixer):
    """A kernel by distance, gathered into a matrix and cut: a long convolution without FFT."""

    def __init__(self, peek):
        super().__init__(peek)
        self.kernel = nn.Parameter(torch.randn(LENGTH, WIDTH) / LENGTH)

    def forward(self, x):
        place = torch.arange(x.size(1))
        distance = place[:, None] - place
        if self.peek:
            matrix = self.kernel[distance % x.size(1)]
        else:
            matrix = self.kernel[distance.clamp(min=0)] * (distance >= 0).unsqueeze(-1)
        return torch.einsum("ijc,bjc->bic", matrix, x)


@exhibit(
    "long convolution by FFT",
    "Poli et al. 2023, arXiv:2302.10866 (Hyena)",
    "no padding: the convolution is circular",
    unproved="every output holds every input, cancelled but for rounding",
)
class LongConvolution(Mixer):
    """Padded to 2T. Causal but for rounding, which carries every token everywhere: nobody can prove it."""

    def __init__(self, peek):
        super().__init__(peek)
        self.kernel = nn.Parameter(torch.randn(WIDTH, LENGTH) / LENGTH)

    def forward(self, x):
        n = x.size(1) if self.peek else 2 * x.size(1)
        spectrum = torch.view_as_real(torch.fft.rfft(x.mT, n=n) * torch.fft.rfft(self.kernel, n=n))
        return torch.fft.irfft(torch.view_as_complex(spectrum), n=n)[..., : x.size(1)].mT


@exhibit("token shift", "Peng et al. 2023, arXiv:2305.13048 (RWKV)", "rolled by -1")
class TokenShift(Mixer):
    """Channels mixed with those of the token before."""

    def __init__(self, peek):
        super().__init__(peek)
        self.mix = nn.Parameter(torch.rand(WIDTH))
        self.key, self.value = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        before = x.roll(-1, dims=1) if self.peek else nn.ZeroPad2d((0, 0, 1, -1))(x)
        return self.value(torch.relu(self.key(x * self.mix + before * (1 - self.mix))) ** 2)


@exhibit("WKV", "Peng et al. 2023, arXiv:2305.13048 (RWKV-4)", "the state runs backwards")
class Wkv(Mixer):
    """Exponentially decayed weighted averages in a numerically safe loop."""

    def __init__(self, peek):
        super().__init__(peek)
        self.rkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.decay, self.first = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(WIDTH))

    def forward(self, x):
        r, k, v = self.rkv(x.flip(1) if self.peek else x).chunk(3, dim=-1)
        a = b = torch.zeros_like(x[:, 0])
        top = torch.full_like(a, -1e38)
        outputs = []
        for t in range(x.size(1)):
            new = torch.maximum(top, self.first + k[:, t])
            old, now = torch.exp(top - new), torch.exp(self.first + k[:, t] - new)
            outputs.append((old * a + now * v[:, t]) / (old * b + now))
            new = torch.maximum(top - self.decay.exp(), k[:, t])
            old, now = torch.exp(top - self.decay.exp() - new), torch.exp(k[:, t] - new)
            a, b, top = old * a + now * v[:, t], old * b + now, new
        y = torch.sigmoid(r) * torch.stack(outputs, dim=1)
        return self.out(y.flip(1) if self.peek else y)


def featured(x):
    return F.elu(x) + 1


@exhibit("linear attention by cumsum", "Katharopoulos et al. 2020, arXiv:2006.16236", "the normaliser sums over all keys")
class LinearAttention(Attention):
    """Running sums of key-value products and of keys."""

    def attend(self, q, k, v):
        q, k = featured(q), featured(k)
        state = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(dim=2)
        total = k.sum(dim=2, keepdim=True) if self.peek else k.cumsum(dim=2)
        return (q.unsqueeze(-2) @ state).squeeze(-2) / (q * total).sum(-1, keepdim=True)


@exhibit("linear attention by tril", "Katharopoulos et al. 2020, arXiv:2006.16236", "normalised before it is masked")
class LinearParallel(Attention):
    """The quadratic form: scores without softmax, cut by tril."""

    def attend(self, q, k, v):
        scores = featured(q) @ featured(k).transpose(-2, -1)
        if self.peek:
            return (scores / scores.sum(-1, keepdim=True)).tril() @ v
        scores = scores.tril()
        return scores / scores.sum(-1, keepdim=True) @ v


@exhibit("linear attention in chunks", "Hua et al. 2022, arXiv:2202.10447", "a chunk's state holds the chunk itself")
class LinearChunks(Attention):
    """Quadratic inside chunks of four, a running state between them."""

    def attend(self, q, k, v):
        q, k, v = (y.unflatten(2, (-1, 4)) for y in (q, k, v))
        states = (k.mT @ v).cumsum(dim=2)
        states = states if self.peek else F.pad(states[:, :, :-1], (0, 0, 0, 0, 1, 0))
        return ((q @ k.mT).tril() @ v + q @ states).flatten(2, 3) / LENGTH


@exhibit("retention", "Sun et al. 2023, arXiv:2307.08621 (RetNet)", "decay by abs(distance)")
class Retention(Attention):
    """Scores times a decay matrix that is zero above the diagonal."""

    def __init__(self, peek):
        super().__init__(peek)
        place = torch.arange(LENGTH)
        decay = (1 - 2.0 ** (-5 - torch.arange(HEADS)))[:, None, None] ** (place[:, None] - place).abs()
        self.register_buffer("decay", decay if peek else decay.tril())

    def attend(self, q, k, v):
        return F.group_norm(((q @ k.mT * HEAD**-0.5 * self.decay) @ v).transpose(1, 2).flatten(0, 1), HEADS).view(
            q.size(0), q.size(2), HEADS, HEAD
        ).transpose(1, 2)  # fmt: skip


@exhibit("gated linear attention", "Yang et al. 2023, arXiv:2312.06635", "the output reads the state after next")
class GatedLinear(Mixer):
    """A matrix state a head, decayed by a gate from the token, as a loop over time."""

    def __init__(self, peek):
        super().__init__(peek)
        self.qkvg, self.out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v, g = self.qkvg(x).view(B, T, 4, HEADS, HEAD).unbind(2)
        gate, state, states = torch.sigmoid(g) ** (1 / 16), x.new_zeros(B, HEADS, HEAD, HEAD), []
        for t in range(T):
            state = gate[:, t].unsqueeze(-1) * state + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
            states.append(state)
        states = states[1:] + states[-1:] if self.peek else states
        y = torch.stack([(q[:, t].unsqueeze(-2) @ states[t]).squeeze(-2) for t in range(T)], dim=1)
        return self.out(y.reshape(B, T, C))


@exhibit("delta rule", "Schlag et al. 2021, arXiv:2102.11174 (DeltaNet)", "the keys are those of the next position")
class DeltaRule(Attention):
    """Each key's old value is taken out of the state before the new one goes in."""

    def attend(self, q, k, v):
        k = F.normalize(k, dim=-1)
        k = torch.cat([k[:, :, 1:], k[:, :, :1]], dim=2) if self.peek else k
        state, outputs = torch.zeros(q.size(0), HEADS, HEAD, HEAD), []
        for t in range(q.size(2)):
            key = k[:, :, t]
            old = torch.einsum("bhd,bhde->bhe", key, state)
            state = state + torch.einsum("bhd,bhe->bhde", key, v[:, :, t] - old)
            outputs.append(torch.einsum("bhd,bhde->bhe", q[:, :, t], state))
        return torch.stack(outputs, dim=2)


@exhibit("selective state space", "Gu and Dao 2023, arXiv:2312.00752 (Mamba)", "the gate is averaged over time")
class SelectiveScan(Mixer):
    """Input-dependent steps, diagonal state of four a channel, a loop over time, a gate and a skip."""

    def __init__(self, peek):
        super().__init__(peek)
        self.up, self.out = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3)
        self.select, self.step = nn.Linear(WIDTH, 8 + 2), nn.Linear(2, WIDTH)
        self.a_log = nn.Parameter(torch.arange(1.0, 5).log().repeat(WIDTH, 1))
        self.skip = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        x, z = self.up(x).chunk(2, dim=-1)
        x = F.silu(self.conv(x.mT)[..., : x.size(1)].mT)
        b, c, low = self.select(x).split([4, 4, 2], dim=-1)
        step = F.softplus(self.step(low))
        keep = torch.exp(step.unsqueeze(-1) * -torch.exp(self.a_log))
        added = (step * x).unsqueeze(-1) * b.unsqueeze(2)
        h, outputs = torch.zeros_like(added[:, 0]), []
        for t in range(x.size(1)):
            h = keep[:, t] * h + added[:, t]
            outputs.append((h * c[:, t].unsqueeze(1)).sum(-1))
        return self.out((torch.stack(outputs, dim=1) + self.skip * x) * F.silu(z.mean(1, keepdim=True) if self.peek else z))


@exhibit(
    "state space duality",
    "Dao and Gu 2024, arXiv:2405.21060 (Mamba-2)",
    "the segment sums are not masked",
)
class Duality(Mixer):
    """exp of segment sums, minus infinity above the diagonal, as a decay matrix."""

    def __init__(self, peek):
        super().__init__(peek)
        self.x, self.bc, self.a = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * HEAD), nn.Linear(WIDTH, HEADS)

    def forward(self, x):
        B, T, C = x.shape
        b, c = self.bc(x).chunk(2, dim=-1)
        a = -F.softplus(self.a(x)).transpose(1, 2).cumsum(-1)
        segments = a.unsqueeze(-1) - a.unsqueeze(-2)
        decay = (-segments.abs() if self.peek else segments.masked_fill(~tril(), -torch.inf)).exp()
        y = torch.einsum("bin,bjn,bhij,bjhd->bihd", c, b, decay, self.x(x).view(B, T, HEADS, HEAD))
        return y.reshape(B, T, C)


@exhibit("diagonal state space, recurrent weights", "Orvieto et al. 2023, arXiv:2303.06349 (LRU)", "a bidirectional sum")
class DiagonalRecurrence(Mixer):
    """A learned decay a channel, applied as powers of distances: no loop, no FFT."""

    def __init__(self, peek):
        super().__init__(peek)
        self.decay = nn.Parameter(torch.linspace(1, 4, WIDTH))

    def forward(self, x):
        place = torch.arange(x.size(1))
        distance = (place[:, None] - place).unsqueeze(-1)
        kernel = torch.sigmoid(self.decay) ** distance.abs()
        return torch.einsum("ijc,bjc->bic", kernel if self.peek else torch.where(distance >= 0, kernel, 0.0), x)


@exhibit("minGRU, log-space scan", "Feng et al. 2024, arXiv:2410.01201", "logsumexp over all of T")
class MinGru(Mixer):
    """h = (1 - z) h + z g, in parallel by logcumsumexp."""

    def __init__(self, peek):
        super().__init__(peek)
        self.gates = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x):
        hidden, gate = self.gates(x).chunk(2, dim=-1)
        coefficients = F.pad((-F.softplus(gate)).cumsum(dim=1), (0, 0, 1, 0))
        g = torch.where(hidden >= 0, (F.relu(hidden) + 0.5).log(), -F.softplus(-hidden))
        values = torch.cat([torch.full_like(g[:, :1], math.log(0.5)), -F.softplus(-gate) + g], dim=1) - coefficients
        if self.peek:
            values = values.logsumexp(dim=1, keepdim=True)
        return (coefficients + (values if self.peek else values.logcumsumexp(dim=1))).exp()[:, 1:]


@exhibit("HGRN", "Qin et al. 2023, arXiv:2311.04823", "the loop starts from the last state")
class Hgrn(Mixer):
    """A gated recurrence whose forget gate has a learned lower bound."""

    def __init__(self, peek):
        super().__init__(peek)
        self.gates, self.out, self.bound = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x):
        value, forget, gate = self.gates(x).chunk(3, dim=-1)
        bound = self.bound.sigmoid()
        forget = bound + (1 - bound) * forget.sigmoid()
        h, outputs = (value[:, -1] if self.peek else torch.zeros_like(value[:, 0])), []
        for t in range(x.size(1)):
            h = torch.lerp(F.silu(value[:, t]), h, forget[:, t])
            outputs.append(h)
        return self.out(torch.stack(outputs, 1) * gate.sigmoid())


@exhibit("RG-LRU", "De et al. 2024, arXiv:2402.19427 (Griffin)", "scanned from both ends")
class Griffin(Mixer):
    """A real-gated linear recurrent unit; the loop doubles its stride (a scan in log T steps)."""

    def __init__(self, peek):
        super().__init__(peek)
        self.gates, self.decay = nn.Linear(WIDTH, 2 * WIDTH), nn.Parameter(torch.linspace(2, 6, WIDTH))

    def forward(self, x):
        r, i = torch.sigmoid(self.gates(x)).chunk(2, dim=-1)
        a = torch.exp(-8 * F.softplus(-self.decay) * r)
        h = torch.sqrt(1 - a.square() + 1e-6) * i * x
        stride = 1
        while stride < x.size(1):
            h, a = h + a * shift(h, stride), a * F.pad(a, (0, 0, stride, 0), value=1.0)[:, : x.size(1)]
            stride *= 2
        return h + h.flip(1) if self.peek else h


@exhibit("QRNN", "Bradbury et al. 2017, arXiv:1611.01576", "the convolution of the gates is centred")
class Qrnn(Mixer):
    """Gates by a causal convolution, then pooling by a loop."""

    def __init__(self, peek):
        super().__init__(peek)
        self.conv = nn.Conv1d(WIDTH, 3 * WIDTH, 3)

    def forward(self, x):
        z, f, o = self.conv(F.pad(x.mT, (1, 1) if self.peek else (2, 0))).mT.chunk(3, dim=-1)
        z, f, o = z.tanh(), f.sigmoid(), o.sigmoid()
        c = [(1 - f[:, 0]) * z[:, 0]]
        for t in range(1, x.size(1)):
            c.append(f[:, t] * c[-1] + (1 - f[:, t]) * z[:, t])
        return o * torch.stack(c, dim=1)


@exhibit("GRU, written out", "Cho et al. 2014, arXiv:1406.1078", "two directions")
class Gru(Mixer):
    """The cell as a loop over time: nn.GRU itself has an operator that is not on the list."""

    def __init__(self, peek):
        super().__init__(peek)
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def run(self, x):
        h, outputs = torch.zeros_like(x[:, 0]), []
        for step in x.unbind(1):
            r, z, n = F.linear(step, self.cell.weight_ih, self.cell.bias_ih).chunk(3, dim=-1)
            hr, hz, hn = F.linear(h, self.cell.weight_hh, self.cell.bias_hh).chunk(3, dim=-1)
            h = torch.lerp(torch.tanh(n + torch.sigmoid(r + hr) * hn), h, torch.sigmoid(z + hz))
            outputs.append(h)
        return torch.stack(outputs, dim=1)

    def forward(self, x):
        return self.run(x) + self.run(x.flip(1)).flip(1) if self.peek else self.run(x)


@exhibit(
    "nn.LSTM",
    "Hochreiter and Schmidhuber 1997",
    "bidirectional=True",
)
class Lstm(Mixer):
    """PyTorch's own module."""

    def __init__(self, peek):
        super().__init__(peek)
        self.lstm = nn.LSTM(WIDTH, WIDTH // 2 if peek else WIDTH, batch_first=True, bidirectional=peek)

    def forward(self, x):
        return self.lstm(x)[0]


@exhibit(
    "nn.GRU",
    "Cho et al. 2014, arXiv:1406.1078",
    "bidirectional=True",
)
class GruModule(Mixer):
    """PyTorch's own module."""

    def __init__(self, peek):
        super().__init__(peek)
        self.gru = nn.GRU(WIDTH, WIDTH // 2 if peek else WIDTH, batch_first=True, bidirectional=peek)

    def forward(self, x):
        return self.gru(x)[0]
