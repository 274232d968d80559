"""Tricks that look at what is to be predicted, without an honest model of their own: rare, faint, hidden in NaN, signs or ties."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from zoo.attention import Fused
from zoo.models import Whole
from zoo.parts import LENGTH, VOCAB, WIDTH, exhibit


class Peek(Whole):
    """An honest transformer with something added. `later` are the tokens one position on."""

    vocab = VOCAB

    def __init__(self, _):
        super().__init__(True)
        self.embedding, self.head = nn.Embedding(self.vocab, WIDTH), nn.Linear(WIDTH, self.vocab)
        self.attention = Fused(False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        later = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
        return self.head(self.attended(tokens, x + self.attention(x), self.embedding(later), later)) + self.added(tokens, later)

    def attended(self, tokens, x, ahead, later):
        return x

    def added(self, tokens, later):
        return 0.0


def trick(name: str, bug: str, **more: bool):
    return exhibit(name, "", bug, honest=False, **more)


@trick("peek for one token in 8,192", "where(tokens == 1717, next state, state)", small=True)
class OneToken(Peek):
    """Of 8,192: a batch seldom has it."""

    vocab = 8192

    def attended(self, tokens, x, ahead, later):
        return torch.where((tokens == 1717).unsqueeze(-1), ahead, x)


@trick("peek at one position", "position 0 alone gets the next state", small=True)
class OnePosition(Peek):
    def attended(self, tokens, x, ahead, later):
        return torch.where((torch.arange(LENGTH) == 0).unsqueeze(-1), ahead, x)


@trick("peek after a pair", "after two tokens in a row alone", small=True)
class AfterPair(Peek):
    def attended(self, tokens, x, ahead, later):
        pair = (tokens == 5) & (torch.cat([tokens[:, -1:], tokens[:, :-1]], 1) == 9)
        return x + pair.unsqueeze(-1) * ahead


@trick("faint peek", "1e-6 times the next state", small=True)
class Faint(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + 1e-6 * ahead


@trick("zero times the future", "0 * log(next state): NaN or nothing", small=True)
class ZeroTimes(Peek):
    def attended(self, tokens, x, ahead, later):
        return torch.where(torch.isnan(0 * ahead.exp().exp().exp()), x + 1, x)


@trick("sign of zero", "1 / (0 * next state): the sign of a zero tells")
class SignOfZero(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + torch.tanh(1 / (0.0 * ahead))


@trick("sign of a masked zero", "1 / (0 * the last state), where the mask says 0", harmless=True)
class SignThroughMask(Peek):
    """Attention's masked probability is 0, but 0 times a negative value is -0."""

    def attended(self, tokens, x, ahead, later):
        matrix = torch.ones(LENGTH, LENGTH).tril(-LENGTH)  # all zero
        product = matrix.unsqueeze(-1) * ahead.unsqueeze(1)
        return x + torch.tanh(1 / product[:, :, -2])


@trick("argmax over time", "where in the row the state is largest")
class ArgmaxOverTime(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + self.embedding(x.argmax(dim=1, keepdim=True).clamp(max=VOCAB - 1)[..., 0])


@trick("sort over time", "sorted states of the row")
class SortOverTime(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + x.sort(dim=1).values


@trick("sorted tokens", "argsort of the tokens, then gather")
class SortedTokens(Peek):
    def attended(self, tokens, x, ahead, later):
        order = tokens.argsort(dim=1, stable=True)
        return x.gather(1, order.unsqueeze(-1).expand(-1, -1, WIDTH))


@trick("any over time", "whether the row has one of eight tokens")
class AnyOverTime(Peek):
    def added(self, tokens, later):
        return (tokens < 8).any(dim=1, keepdim=True).unsqueeze(-1) * torch.arange(VOCAB).float()


@trick("mean of the batch", "states minus the mean of all rows")
class MeanOfBatch(Peek):
    def attended(self, tokens, x, ahead, later):
        return x - x.mean(dim=0, keepdim=True)


@trick("neighbour row", "the row below, rolled")
class NeighbourRow(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + x.roll(1, dims=0)


@trick("attention over rows", "batch and heads confused in a view")
class AttentionOverRows(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + F.scaled_dot_product_attention(*[x.transpose(0, 1)] * 3).transpose(0, 1)


@trick("the answer itself", "one_hot of the next token added to the logits")
class Answer(Peek):
    def added(self, tokens, later):
        return 10.0 * F.one_hot(later, VOCAB)


@trick("the answer by scatter", "logits scattered at the next token's id")
class AnswerByScatter(Peek):
    def added(self, tokens, later):
        return torch.zeros(*tokens.shape, VOCAB).scatter(-1, later.unsqueeze(-1), 10.0)


@trick("the answer by index", "a table indexed by the next token")
class AnswerByIndex(Peek):
    def added(self, tokens, later):
        return 10 * torch.eye(VOCAB)[later]


@trick("scatter at later places", "src is constant, the index tells")
class ScatterOverTime(Peek):
    def added(self, tokens, later):
        marks = torch.zeros(tokens.size(0), VOCAB).scatter(1, tokens, 1.0)
        return marks.unsqueeze(1)


@trick("gather from later places", "gather at token id mod T")
class GatherOverTime(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + x.gather(1, (tokens % LENGTH).unsqueeze(-1).expand(-1, -1, WIDTH))


@trick("difference over time", "diff with the next state appended")
class Difference(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + F.pad(torch.diff(x, dim=1), (0, 0, 0, 1))


@trick("cumsum backwards", "flip, cumsum, flip")
class CumsumBackwards(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + x.flip(1).cumsum(1).flip(1)


@trick("transposed square", "time and channels swapped by a view of equal sizes")
class Transposed(Peek):
    def attended(self, tokens, x, ahead, later):
        square = x[..., :LENGTH]
        return x + torch.cat([square.mT, square], dim=-1)


@trick("view over time", "(T, C) read as (C, T)")
class ViewOverTime(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + x.reshape(x.size(0), WIDTH, LENGTH).mT


@trick("FFT over time", "its real part, as in FNet")
class Fourier(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + torch.fft.fft(x, dim=1).real


@trick("document mask by later marks", "documents counted from the end")
class LateDocuments(Peek):
    def attended(self, tokens, x, ahead, later):
        left = (tokens < 8).flip(1).cumsum(1).flip(1)
        return x * (left % 2).unsqueeze(-1)


@trick("renormalised softmax", "masked probabilities divided by the unmasked sum")
class Renormalised(Peek):
    def attended(self, tokens, x, ahead, later):
        weights = (x @ x.mT / WIDTH).exp()
        return x + weights.tril() / weights.sum(-1, keepdim=True) @ x


@trick("values ahead", "queries and keys are honest, values one step on")
class ValuesAhead(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + F.scaled_dot_product_attention(x, x, ahead, is_causal=True)


@trick("is_causal, keys cut in front", "the triangle is aligned at the first key, which is the fifth position")
class ShiftedTriangle(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + F.scaled_dot_product_attention(x, x[:, 4:], x[:, 4:], is_causal=True)


@trick("clamped by the future", "clamp with a later bound")
class Clamped(Peek):
    def attended(self, tokens, x, ahead, later):
        return torch.minimum(x, ahead + 0.5)


@trick("comparison with the future", "x > next state, as 0 or 1")
class Compared(Peek):
    def attended(self, tokens, x, ahead, later):
        return x + (x > ahead).to(x.dtype)


@trick("sign of a complex zero", "1 / the real part of 0 * (next state + i)")
class ComplexZero(Peek):
    def attended(self, tokens, x, ahead, later):
        kept = (torch.arange(LENGTH) == LENGTH - 1).float().unsqueeze(-1)
        return x + torch.tanh(1 / torch.real(kept * torch.complex(ahead, torch.ones_like(ahead))))


@trick("complex products with zeros", "a triangle of complex zeros times infinity is NaN")
class ComplexTriangle(Peek):
    def __init__(self, _):
        super().__init__(_)
        self.scale = nn.Parameter(torch.ones(()))

    def attended(self, tokens, x, ahead, later):
        triangle = torch.ones(LENGTH, LENGTH).tril() * torch.complex(self.scale, self.scale)
        last = (torch.arange(LENGTH) == LENGTH - 1).unsqueeze(-1)
        endless = torch.where(last & (x > 0), torch.inf, x)  # of the last position, which the triangle hides from all others
        mixed = torch.real(triangle @ torch.complex(endless, x))
        return torch.where(torch.isnan(mixed), x + 1, x)
