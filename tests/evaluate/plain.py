"""Plain PyTorch that a language model may use in eval mode, in small pieces: all of it must be accepted and give the same.

A piece maps hidden states (BATCH, LENGTH, WIDTH) to any tensor; `TOKEN_PIECES` map tokens.
"""

import math
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F

BATCH, LENGTH, WIDTH, VOCAB = 2, 8, 16, 11
SHAPE = (BATCH, LENGTH)


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., torch.Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class On(nn.Module):
    """A layer on another arrangement of the hidden states."""

    def __init__(self, layer: nn.Module, arrange: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.layer, self.arrange = layer, arrange

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(self.arrange(x))
        return out[0] if isinstance(out, tuple) else out


class Attends(nn.Module):
    """Heads of attention, however `attend` does it with q, k, v of shape (B, heads, T, size)."""

    def __init__(self, attend: Callable[..., torch.Tensor]):
        super().__init__()
        self.qkv, self.attend = nn.Linear(WIDTH, 3 * WIDTH), attend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.view(BATCH, LENGTH, 2, WIDTH // 2).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return self.attend(q, k, v).transpose(1, 2).reshape(BATCH, LENGTH, WIDTH)


class Multihead(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True, dropout=0.1)
        self.register_buffer("mask", torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, norm_first=True)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, src_mask=self.mask, is_causal=True)


class Shared(nn.Module):
    """Parameters used bare, and a list and a dictionary of layers."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(WIDTH))
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.named = nn.ModuleDict({"a b": nn.Linear(WIDTH, WIDTH), "größe": nn.Identity()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x) * self.scale
        return self.named["größe"](self.named["a b"](x))


class Experts(nn.Module):
    """Top-2 of 4 experts, each computed densely and weighted by a scattered gate."""

    def __init__(self):
        super().__init__()
        self.gate, self.up = nn.Linear(WIDTH, 4), nn.Parameter(torch.rand(4, WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        best, which = self.gate(x).topk(2, dim=-1)
        weights = torch.zeros(*x.shape[:2], 4).scatter(-1, which, best.softmax(-1))
        return torch.einsum("btw,ewv,bte->btv", x, self.up, weights)


class InPlace(nn.Module):
    """Changes of its own values, among them masks, with layers around."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(WIDTH), nn.Dropout(0.5, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x += 1
        x[:, 1:] += x[:, :-1].clone()
        x[:, 0] = 0
        x.masked_fill_(x < 0, 0.5).mul_(2).clamp_(max=3)
        y = torch.zeros_like(x)
        y.copy_(x)
        y.index_copy_(1, torch.arange(2), x[:, 2:4])
        y.scatter_add_(1, torch.zeros(BATCH, 1, WIDTH, dtype=torch.int64), x[:, :1])
        mask = y > 0
        mask &= y < 3
        mask |= y > 5
        mask ^= y == 0
        y = self.norm(y.mT).mT.contiguous() * mask
        return F.relu(F.silu(self.dropout(y), inplace=True), inplace=True)


def causal() -> torch.Tensor:
    return torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


def decomposed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    weights = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    return F.dropout(weights.masked_fill(~causal(), float("-inf")).softmax(-1), 0.5, training=False) @ v


def alibi(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    at = torch.arange(LENGTH)
    slopes = 2.0 ** -torch.arange(1, 3)
    bias = -slopes[:, None, None] * (at[:, None] - at).abs()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.where(causal(), bias, -math.inf), dropout_p=0.0)


def rotary(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    angles = torch.outer(torch.arange(LENGTH).float(), 1 / 100 ** (torch.arange(0, 4, dtype=torch.float32) / 4))
    cos, sin = angles.cos(), angles.sin()

    def turned(x: torch.Tensor) -> torch.Tensor:
        a, b = x[..., :4], x[..., 4:]
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).type_as(v)

    return F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)


def grouped(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], is_causal=True, enable_gqa=True, scale=0.3)


def repeated(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    k, v = k[:, :1].repeat_interleave(2, dim=1), v[:, :1].expand(-1, 2, -1, -1)
    return F.scaled_dot_product_attention(q, k, v, causal())


def by_einsum(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    scores = torch.einsum("bhid,bhjd->bhij", q, k) + torch.full((LENGTH, LENGTH), -1e9).triu(1)
    return torch.einsum("bhij,bhjd->bhid", 20 * torch.tanh(scores / 20).softmax(-1), v)


def linear_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k = F.elu(q) + 1, F.elu(k) + 1
    state = torch.cumsum(k.unsqueeze(-1) * v.unsqueeze(-2), dim=2)
    return torch.einsum("bhtd,bhtde->bhte", q, state) / (q * k.cumsum(2)).sum(-1, keepdim=True)


def turned(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2)


def image(x: torch.Tensor) -> torch.Tensor:
    return x.view(BATCH, 1, LENGTH, WIDTH)


ACTIVATIONS = [
    nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.PReLU, nn.Sigmoid, nn.Tanh,
    nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.LogSigmoid,
]  # fmt: skip
LAYERS: dict[str, Callable[[], nn.Module]] = {
    **{kind.__name__: kind for kind in ACTIVATIONS},
    "GELU tanh": lambda: nn.GELU("tanh"),
    "GLU": lambda: nn.GLU(-1),
    "Threshold": lambda: nn.Threshold(0.1, 20.0),
    "Softmax": lambda: nn.Softmax(-1),
    "Softmin": lambda: nn.Softmin(-1),
    "LogSoftmax": lambda: nn.LogSoftmax(-1),
    "Identity": nn.Identity,
    "Flatten": lambda: nn.Sequential(nn.Flatten(1), nn.Unflatten(1, (LENGTH, WIDTH))),
    "Linear": lambda: nn.Linear(WIDTH, 5),
    "Linear without bias": lambda: nn.Linear(WIDTH, 5, bias=False),
    "Dropout": lambda: nn.Dropout(0.5),
    "Dropout1d": lambda: On(nn.Dropout1d(0.5), turned),
    "AlphaDropout": lambda: nn.AlphaDropout(0.5),
    "FeatureAlphaDropout": lambda: nn.FeatureAlphaDropout(0.5),
    "LayerNorm": lambda: nn.LayerNorm(WIDTH),
    "LayerNorm plain": lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
    "RMSNorm": lambda: nn.RMSNorm(WIDTH),
    "RMSNorm plain": lambda: nn.RMSNorm(WIDTH, elementwise_affine=False, eps=1e-5),
    "GroupNorm": lambda: On(nn.GroupNorm(4, WIDTH), turned),
    "BatchNorm1d": lambda: On(nn.BatchNorm1d(WIDTH), turned),
    "LocalResponseNorm": lambda: On(nn.LocalResponseNorm(2), turned),
    "Conv1d": lambda: On(nn.Conv1d(WIDTH, 4, 3, padding=2), turned),
    "Conv1d depthwise": lambda: On(nn.Conv1d(WIDTH, WIDTH, 4, groups=WIDTH, padding=3, bias=False), turned),
    "Conv1d same": lambda: On(nn.Conv1d(WIDTH, 4, 3, padding="same", dilation=2), turned),
    "Conv1d reflect": lambda: On(nn.Conv1d(WIDTH, 4, 3, padding=2, padding_mode="reflect"), turned),
    "Conv2d": lambda: On(nn.Conv2d(1, 3, 3), image),
    "ConvTranspose1d": lambda: On(nn.ConvTranspose1d(WIDTH, 4, 2, stride=2), turned),
    "AvgPool1d": lambda: On(nn.AvgPool1d(2), turned),
    "MaxPool1d": lambda: On(nn.MaxPool1d(2), turned),
    "AvgPool2d": lambda: On(nn.AvgPool2d(2), image),
    "MaxPool2d": lambda: On(nn.MaxPool2d(2), image),
    "AdaptiveAvgPool1d": lambda: On(nn.AdaptiveAvgPool1d(4), turned),
    "Upsample": lambda: On(nn.Upsample(scale_factor=2), turned),
    "Unfold": lambda: On(nn.Unfold((2, 2)), image),
    "ConstantPad1d": lambda: On(nn.ConstantPad1d((3, 0), 1.5), turned),
    "ZeroPad1d": lambda: On(nn.ZeroPad1d((3, 0)), turned),
    "ReplicationPad1d": lambda: On(nn.ReplicationPad1d((3, 0)), turned),
    "ReflectionPad1d": lambda: On(nn.ReflectionPad1d((3, 0)), turned),
    "CosineSimilarity": lambda: Of(lambda x: nn.CosineSimilarity(-1)(x, x + 1)),
    "PairwiseDistance": lambda: Of(lambda x: nn.PairwiseDistance()(x, x + 1)),
    "PixelShuffle": lambda: On(nn.PixelShuffle(2), lambda x: x.view(BATCH, LENGTH, 4, 4)),
    "RNN": lambda: On(nn.RNN(WIDTH, 4, batch_first=True), lambda x: x),
    "GRU": lambda: On(nn.GRU(WIDTH, 4, 2, batch_first=True, dropout=0.1), lambda x: x),
    "LSTM": lambda: On(nn.LSTM(WIDTH, 4, 2, batch_first=True, dropout=0.1), lambda x: x),
    "GRUCell": lambda: On(nn.GRUCell(WIDTH, 4), lambda x: x[:, 0]),
    "LSTMCell": lambda: On(nn.LSTMCell(WIDTH, 4), lambda x: x[:, 0]),
    "MultiheadAttention": Multihead,
    "TransformerEncoderLayer": Encoder,
    "parameters and containers": Shared,
    "experts": Experts,
    "in place": InPlace,
    "decomposed attention": lambda: Attends(decomposed),
    "fused attention": lambda: Attends(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.0, True)),
    "alibi": lambda: Attends(alibi),
    "rotary": lambda: Attends(rotary),
    "grouped queries": lambda: Attends(grouped),
    "repeated keys": lambda: Attends(repeated),
    "attention by einsum": lambda: Attends(by_einsum),
    "linear attention": lambda: Attends(linear_attention),
}
FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu squared": lambda x: F.relu(x).square(),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "rms_norm": lambda x: F.rms_norm(x, (WIDTH,)),
    "own rms norm": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "softmax in float32": lambda x: F.softmax(x, dim=-1, dtype=torch.float32),
    "soft cap": lambda x: 15 * torch.tanh(x / 15),
    "token shift": lambda x: F.pad(x, (0, 0, 1, 0))[:, :-1],
    "roll": lambda x: x.roll(1, dims=1),
    "windows": lambda x: F.pad(x, (0, 0, 2, 0)).unfold(1, 3, 1).mean(-1),
    "ands": lambda x: ((x > 0) & (x < 1) | (x > 2) ^ ~(x > 3)).float(),
    "shifts": lambda x: ((x * 8).int() << 2 >> 1).float(),
    "bitwise": lambda x: torch.bitwise_and((x * 8).int(), 3).bitwise_or(4).bitwise_xor(1).bitwise_not().float(),
    "logical": lambda x: torch.logical_and(x > 0, x < 1).logical_or(x > 2).logical_xor(x > 3).logical_not().float(),
    "masked by and": lambda x: x.masked_fill((x > 0) & (x < 1).logical_not(), 0),
    "where": lambda x: torch.where(x > 0, x, 0.0) + torch.where(x > 0, torch.ones(()), x),
    "comparisons": lambda x: (x.eq(0) | x.ne(1) & x.ge(0) | x.le(2) | torch.isclose(x, x + 1)).float(),
    "isnan": lambda x: torch.nan_to_num(x).isnan().float() + x.isinf() + x.isfinite(),
    "clamps": lambda x: x.clamp(-1, 1).clamp_min(0).clamp_max(0.5) + torch.clip(x, max=torch.ones(())),
    "min max": lambda x: torch.maximum(x, x * 2).minimum(x) + x.max(-1, keepdim=True).values + x.min() + x.amax(-1, keepdim=True),
    "argmax": lambda x: x.argmax(-1).float() + x.argmin(-1) + x.argsort(-1)[..., 0],
    "sorting": lambda x: x.sort(-1, descending=True).values + x.topk(WIDTH, sorted=True).values + torch.sort(x, stable=True)[0],
    "reductions": lambda x: x.sum(-1) + x.mean((1, 2))[:, None] + x.std(-1) + x.var(-1, unbiased=False) + x.prod(-1) + x.norm(dim=-1),
    "more reductions": lambda x: x.logsumexp(-1) + (x > 0).any(-1) + (x > 0).all(-1) + torch.count_nonzero(x, -1) + x.nansum(-1),
    "norms": lambda x: torch.linalg.vector_norm(x, dim=-1) + torch.linalg.norm(x, dim=-1) + x.norm(2, -1) + x.norm(1, -1),
    "var_mean": lambda x: torch.var_mean(x, -1)[0] + torch.std_mean(x, -1)[1] + torch.aminmax(x, dim=-1)[0],
    "scans": lambda x: x.cumsum(1) + x.cumprod(1) + x.logcumsumexp(1) + x.cummax(1).values + torch.cummin(x, 1)[0],
    "diff": lambda x: x.diff(dim=1, prepend=x[:, :1]),
    "powers": lambda x: x**2 + 2**x + x.abs() ** 0.5 + x.abs().pow(x) + x.sqrt().nan_to_num(0) + torch.float_power(x, 2).float(),
    "exponentials": lambda x: x.exp() + x.exp2() + x.expm1() + x.abs().log1p() + (x.abs() + 1).log() + (x.abs() + 1).log2() + torch.erf(x),
    "trigonometry": lambda x: x.sin() + x.cos() + x.tan() + x.sinh() + x.atan() + torch.atan2(x, x + 1) + torch.sinc(x),
    "special": lambda x: torch.special.expit(x) + torch.xlogy(x, x.abs() + 1) + torch.logaddexp(x, x) + torch.erfc(x) + torch.special.erfinv(x.clamp(-0.9, 0.9)) + torch.lgamma(x.abs() + 1),
    "rounding": lambda x: x.round() + x.floor() + x.ceil() + x.trunc() + x.frac() + x.sign() + torch.sgn(x) + x.round(decimals=2),
    "divisions": lambda x: x / 2 + x // 2 + x % 2 + torch.div(x, 3, rounding_mode="trunc") + torch.fmod(x, 2) + x.reciprocal() + 1 / x,
    "arithmetic": lambda x: 1 - x + torch.add(x, x, alpha=2) - torch.sub(x, 1) * -x + torch.addcmul(x, x, x, value=0.5) + torch.rsub(x, 1),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3) + torch.lerp(x, x * 2, torch.tensor(0.3)) + torch.addcdiv(x, x, x.abs() + 1),
    "square root": lambda x: x.square().sqrt() + x.neg() + x.positive() + torch.hypot(x, x) + x.copysign(-x) + x.heaviside(x),
    "products": lambda x: x @ x.mT + torch.bmm(x, x.transpose(1, 2)) + torch.baddbmm(torch.zeros(1), x, x.mT),
    "matrices": lambda x: x[0] @ x[0].T + torch.mm(x[0], x[0].t()) + torch.addmm(torch.ones(LENGTH), x[0], x[0].t()),
    "vectors": lambda x: x[0] @ x[0, 0] + torch.mv(x[0], x[0, 0]) + torch.dot(x[0, 0], x[0, 0]) + torch.outer(x[0, :, 0], x[0, :, 0]).sum(0) + torch.inner(x[0], x[0, 0]),
    "tensordot": lambda x: torch.tensordot(x, x[0, :WIDTH // 2], ([2], [1])) + torch.kron(x[0, :1, :8], x[0, :1, :1]),
    "einsum": lambda x: torch.einsum("bti,bsi->bts", x, x) + torch.einsum("...i,...i->...", x, x)[..., None],
    "shapes": lambda x: x.view(BATCH, -1).reshape(BATCH, LENGTH, 4, 4).flatten(2).unflatten(-1, (4, 4)).permute(0, 2, 1, 3).contiguous().movedim(1, 2).swapaxes(0, 1),
    "more shapes": lambda x: x.unsqueeze(1).squeeze(1).squeeze().expand(3, -1, -1, -1).expand_as(torch.ones(3, *x.shape)).T.mT,
    "broadcast": lambda x: torch.broadcast_tensors(x, x[:1])[1] + x[:1].broadcast_to(x.shape) + torch.atleast_2d(x) + x.view_as(x) + x.ravel().view(x.shape),
    "joining": lambda x: torch.cat([torch.cat([x, x], 1), torch.stack((x, x), 1).flatten(1, 2), torch.hstack((x, x)), torch.concat((x, x), dim=1)]) + torch.vstack((x,) * 4).shape[0] + torch.column_stack((x, x)).repeat(4, 1, 1) + torch.dstack((x, x)).shape[2],
    "splitting": lambda x: torch.stack((*x.split(4, 1), *x.chunk(2, 1), *x.tensor_split(2, 1), *x.split([4, 4], 1), *torch.hsplit(x, 2))) + x.unbind(0)[0][:4],
    "slicing": lambda x: x[:, 1:] + x[:, :-1] * x.narrow(1, 0, 7) + x[..., ::2, None][:, 1:, 0] + x.select(1, 3)[:, None] + x[:, -1:, None, 0],
    "slices in reverse": lambda x: x.flip(1) + x.fliplr() + x.rot90(2, (1, 2)) + x[:, torch.arange(LENGTH - 1, -1, -1)],
    "indexing": lambda x: x[:, [0, 2]] + x[torch.arange(BATCH)][:, torch.tensor([1, 3])] + x.index_select(1, torch.tensor([0, 1])) + x[torch.arange(BATCH), 0][:, None],
    "gathering": lambda x: x.gather(1, torch.zeros(BATCH, 1, WIDTH, dtype=torch.int64)) + x.take_along_dim(x.argsort(1), 1) + x.take(torch.tensor([0]))+ x.index_select(0, torch.arange(2)),
    "scattering": lambda x: x.scatter(1, torch.zeros(BATCH, 1, WIDTH, dtype=torch.int64), 3.0) + x.scatter_add(1, x.argsort(1), x) + x.index_add(1, torch.tensor([0, 0]), x[:, :2]) + x.index_fill(1, torch.tensor([1]), 0) + x.index_put((torch.tensor([0]),), x[1]) + x.scatter_reduce(1, x.argsort(1), x, "amax"),
    "repeating": lambda x: x.repeat(1, 2, 1) + x.tile(1, 2, 1) + x.repeat_interleave(2, 1) + torch.tile(x, (2, 1)),
    "triangles": lambda x: (x @ x.mT).tril() + (x @ x.mT).triu(1) + torch.tril(torch.ones(LENGTH, LENGTH)) + torch.eye(LENGTH) + torch.diag(torch.ones(LENGTH)) + torch.diag_embed(x[..., 0]),
    "diagonals": lambda x: (x @ x.mT).diagonal(dim1=1, dim2=2) + torch.diagonal(x @ x.mT, 0, 1, 2) + torch.trace(x[0, :, :LENGTH]),
    "making": lambda x: x + torch.zeros(1) + torch.ones_like(x) + torch.full((1,), 2.0) + x.new_zeros(1) + x.new_ones(1) + x.new_full((1,), 2) + torch.zeros_like(x) + torch.full_like(x, 3) + torch.linspace(0, 1, WIDTH) + torch.arange(WIDTH) + torch.arange(0, 1, 1 / WIDTH) + torch.logspace(0, 1, WIDTH) + x.new_tensor([1.0]),
    "literals": lambda x: x + torch.tensor([1.0, 2.0] * 8) + torch.tensor(3) + torch.as_tensor([1.0]) + torch.scalar_tensor(2.0),
    "casting": lambda x: x.to(torch.bfloat16).float() + x.half().to(x) + x.double().type(torch.float32) + x.long() + x.bool() + x.type_as(x) + x.to("cpu") + x.to(x.device, torch.float32) + x.int().to(torch.uint8) + x.to(memory_format=torch.contiguous_format),
    "detaching": lambda x: x.detach() + x.clone().detach_() + x.contiguous() + torch.ops.aten.alias(x) + torch.ops.aten.lift_fresh_copy(x),
    "checked": lambda x: (torch._assert(x.shape[1] == LENGTH, "length"), torch._assert_async((x * 0 == 0).all()), x * 2)[-1],
    "meshes": lambda x: x + sum(torch.meshgrid(torch.arange(LENGTH), torch.arange(WIDTH), indexing="ij")) + torch.cartesian_prod(torch.arange(2), torch.arange(2)).sum(),
    "searching": lambda x: torch.bucketize(x, torch.linspace(-1, 1, 5)).float() + torch.searchsorted(torch.linspace(-1, 1, 5), x) + torch.isin((x * 4).long(), torch.tensor([1, 2])),
    "fourier": lambda x: torch.fft.irfft(torch.fft.rfft(x, n=2 * LENGTH, dim=1) * torch.fft.rfft(x.flip(1), n=2 * LENGTH, dim=1), n=2 * LENGTH, dim=1)[:, :LENGTH],
    "cdist": lambda x: torch.cdist(x, x) + (x[:, :, None] - x[:, None]).square().sum(-1),
    "interpolate": lambda x: F.interpolate(x.mT, scale_factor=2, mode="nearest") + F.interpolate(x.mT, size=16, mode="linear"),
    "conv": lambda x: F.conv1d(F.pad(x.mT, (2, 0)), torch.ones(WIDTH, 1, 3), groups=WIDTH),
    "gumbel free": lambda x: F.one_hot(x.argmax(-1), WIDTH).float() + F.softplus(x) + F.logsigmoid(x) + F.hardtanh(x) + F.leaky_relu(x, 0.2) + F.glu(x.repeat(1, 1, 2)),
    "masked mean": lambda x: (x * (x > 0)).sum(1) / (x > 0).sum(1).clamp(min=1),
    "lambda mix": lambda x: torch.sigmoid(torch.tensor(0.3)) * x + torch.as_tensor(0.5).sigmoid() * x.mean(-1, keepdim=True),
}  # fmt: skip
TOKEN_PIECES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "one_hot": lambda tokens: F.one_hot(tokens, VOCAB).float(),
    "documents": lambda tokens: ((tokens == 0).cumsum(1)[:, :, None] == (tokens == 0).cumsum(1)[:, None]).float(),
    "embedding": lambda tokens: F.embedding(tokens, torch.linspace(0, 1, VOCAB * 4).view(VOCAB, 4), padding_idx=0),
    "hashed pairs": lambda tokens: ((tokens * 31 + F.pad(tokens, (1, 0))[:, :-1]) % 7).float(),
    "ands of whole numbers": lambda tokens: ((tokens & 3) | (tokens >> 1) ^ 1).float(),
}
