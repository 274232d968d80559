"""A train.py in the shape of autoresearch's own: what it imports, how it makes its model, its loop, its clock and its summary.

Written anew and small, to be run in place of ours. A line that had to change ends in `was:` and what stood there, one that was added in
`new`; each of them is in docs/moving-over.md. Everything else is as somebody who knows nothing of this server would write it.
"""

import gc
import math
import time
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from prepare import (
    MAX_SEQ_LEN,
    TIME_BUDGET,
    Tokenizer,
    declare,
    evaluate_bpb,
    make_dataloader,
    pick_device,
)  # was: from prepare import ...

# ---------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------


@dataclass
class GPTConfig:
    sequence_len: int = 2048
    vocab_size: int = 32768
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    window_pattern: str = "SSSL"


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    half = x.shape[3] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=3)


def flash_attn_func(q, k, v, window_size):  # was: fa3 = get_kernel(repo).flash_attn_interface
    """Causal attention over a window, tensors (B, T, heads, D): what the kernel does, by PyTorch's own operator."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask = torch.ones(q.size(2), q.size(2), dtype=torch.bool, device=q.device).tril().triu(-window_size[0])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)


class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.head_dim = config.n_embd // config.n_head
        self.c_q = nn.Linear(config.n_embd, self.n_head * self.head_dim, bias=False)
        self.c_k = nn.Linear(config.n_embd, self.n_kv_head * self.head_dim, bias=False)
        self.c_v = nn.Linear(config.n_embd, self.n_kv_head * self.head_dim, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x, cos_sin, window_size):
        B, T, _ = x.size()
        q = self.c_q(x).view(B, T, self.n_head, self.head_dim)
        k = self.c_k(x).view(B, T, self.n_kv_head, self.head_dim)
        v = self.c_v(x).view(B, T, self.n_kv_head, self.head_dim)
        q, k = norm(rotate(q, *cos_sin)), norm(rotate(k, *cos_sin))
        y = flash_attn_func(q, k, v, window_size)  # was: fa3.flash_attn_func(q, k, v, causal=True, window_size=window_size)
        return self.c_proj(y.contiguous().view(B, T, -1))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attn = CausalSelfAttention(config)
        self.mlp = MLP(config)

    def forward(self, x, cos_sin, window_size):
        x = x + self.attn(norm(x), cos_sin, window_size)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        spans = {"L": (config.sequence_len, 0), "S": (config.sequence_len // 2, 0)}
        pattern = config.window_pattern
        self.window_sizes = [spans[pattern[i % len(pattern)]] for i in range(config.n_layer - 1)] + [spans["L"]]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "h": nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
        cos, sin = self.precompute_rotary()
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @torch.no_grad()
    def init_weights(self):
        """Everything that the meta device left empty."""
        bound = 3**0.5 * self.config.n_embd**-0.5
        nn.init.normal_(self.transformer.wte.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.001)
        for block in self.transformer.h:
            for layer in (block.attn.c_q, block.attn.c_k, block.attn.c_v, block.mlp.c_fc):
                nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(block.attn.c_proj.weight)
            nn.init.zeros_(block.mlp.c_proj.weight)
        self.resid_lambdas.fill_(1.0)
        self.cos, self.sin = self.precompute_rotary()
        self.transformer.wte.to(dtype=torch.bfloat16)

    def precompute_rotary(self, base=10000):
        device = self.transformer.wte.weight.device
        head_dim = self.config.n_embd // self.config.n_head
        inv_freq = 1.0 / base ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
        freqs = torch.outer(torch.arange(self.config.sequence_len, dtype=torch.float32, device=device), inv_freq)
        return freqs.cos().bfloat16()[None, :, None, :], freqs.sin().bfloat16()[None, :, None, :]

    def setup_optimizer(self, matrix_lr, embedding_lr, unembedding_lr, scalar_lr, betas, weight_decay):
        adamw = {"kind": "adamw", "betas": betas, "eps": 1e-10, "weight_decay": 0.0}
        muon = {"kind": "muon", "momentum": 0.95, "weight_decay": weight_decay}
        optimizer = MuonAdamW(
            [
                {"params": [self.lm_head.weight], "lr": unembedding_lr, **adamw},
                {"params": [self.transformer.wte.weight], "lr": embedding_lr, **adamw},
                {"params": [self.resid_lambdas], "lr": scalar_lr, **adamw},
                {"params": [*self.transformer.h.parameters()], "lr": matrix_lr, **muon},
            ]
        )
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def forward(self, idx, targets=None, reduction="mean"):
        T = idx.size(1)
        assert self.cos.size(1) >= T
        cos_sin = self.cos[:, :T], self.sin[:, :T]
        x = norm(self.transformer.wte(idx))
        for i, block in enumerate(self.transformer.h):
            x = block(self.resid_lambdas[i] * x, cos_sin, self.window_sizes[i])
        softcap = 15
        logits = self.lm_head(norm(x)).float()
        logits = softcap * torch.tanh(logits / softcap)
        if targets is not None:
            return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1, reduction=reduction)
        return logits


# ---------------------------------------------------------------------------
# Optimizer
# ---------------------------------------------------------------------------

COMPILE = dict(dynamic=False, disable=pick_device() != "cuda")  # was: dynamic=False


@torch.compile(fullgraph=True, **COMPILE)
def adamw_step(p, grad, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps):
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.lerp_(grad.square(), 1 - beta2)
    denominator = (exp_avg_sq / (1 - beta2**step)).sqrt() + eps
    p.add_(exp_avg / denominator * (-lr / (1 - beta1**step)))


@torch.compile(fullgraph=True, **COMPILE)
def muon_step(p, grad, momentum_buffer, momentum, lr, weight_decay):
    momentum_buffer.lerp_(grad, 1 - momentum)
    g = grad.lerp(momentum_buffer, momentum)
    x = g.mT if g.size(-2) > g.size(-1) else g
    x = x / (x.norm() + 1e-7)
    for _ in range(5):  # Newton-Schulz
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    x = x.mT if g.size(-2) > g.size(-1) else x
    p.mul_(1 - lr * weight_decay).add_(x * (-lr * max(1.0, p.size(-2) / p.size(-1)) ** 0.5))


class MuonAdamW(torch.optim.Optimizer):
    def __init__(self, param_groups):
        super().__init__(param_groups, defaults={})
        self._step = torch.tensor(0.0)

    @torch.no_grad()
    def step(self):
        self._step += 1
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if group["kind"] == "adamw":
                    if not state:
                        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                    moments = state["exp_avg"], state["exp_avg_sq"]
                    adamw_step(p, p.grad, *moments, self._step, group["lr"], *group["betas"], group["eps"])
                else:
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(p)
                    muon_step(p, p.grad, state["momentum_buffer"], group["momentum"], group["lr"], group["weight_decay"])


# ---------------------------------------------------------------------------
# Hyperparameters
# ---------------------------------------------------------------------------

ASPECT_RATIO = 32
HEAD_DIM = 16
WINDOW_PATTERN = "SL"
TOTAL_BATCH_SIZE = 2**10
DEVICE_BATCH_SIZE = 8
MATRIX_LR, EMBEDDING_LR, UNEMBEDDING_LR, SCALAR_LR = 0.02, 0.3, 0.004, 0.1
ADAM_BETAS = (0.8, 0.95)
WEIGHT_DECAY = 0.1
WARMDOWN_RATIO = 0.5
DEPTH = 2

# ---------------------------------------------------------------------------
# Setup
# ---------------------------------------------------------------------------

t_start = time.time()
torch.manual_seed(42)
torch.cuda.manual_seed(42)
torch.set_float32_matmul_precision("high")
device = torch.device(pick_device())  # was: device = torch.device("cuda")
autocast_ctx = torch.amp.autocast(device_type=device.type, dtype=torch.bfloat16)  # was: device_type="cuda"

tokenizer = Tokenizer.from_directory()
vocab_size = tokenizer.get_vocab_size()
print(f"Vocab size: {vocab_size:,}")

model_dim = DEPTH * ASPECT_RATIO
num_heads = model_dim // HEAD_DIM
config = GPTConfig(MAX_SEQ_LEN, vocab_size, DEPTH, num_heads, num_heads // 2, model_dim, WINDOW_PATTERN)
print(f"Model config: {asdict(config)}")

with torch.device("meta"):
    model = GPT(config)
model.to_empty(device=device)
model.init_weights()
num_params = sum(p.numel() for p in model.parameters())

tokens_per_fwdbwd = DEVICE_BATCH_SIZE * MAX_SEQ_LEN
assert TOTAL_BATCH_SIZE % tokens_per_fwdbwd == 0
grad_accum_steps = TOTAL_BATCH_SIZE // tokens_per_fwdbwd

optimizer = model.setup_optimizer(MATRIX_LR, EMBEDDING_LR, UNEMBEDDING_LR, SCALAR_LR, ADAM_BETAS, WEIGHT_DECAY)
model = torch.compile(model, **COMPILE)

with autocast_ctx:  # new
    declare(model)  # new
train_loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")
x, y, epoch = next(train_loader)  # one batch ahead, always

print(f"Time budget: {TIME_BUDGET}s")
print(f"Gradient accumulation steps: {grad_accum_steps}")


def get_lr_multiplier(progress):
    return min(1.0, (1.0 - progress) / WARMDOWN_RATIO)


def get_muon_momentum(step):
    frac = min(step / 300, 1)
    return (1 - frac) * 0.85 + frac * 0.95


# ---------------------------------------------------------------------------
# Training loop
# ---------------------------------------------------------------------------

t_start_training = time.time()
smooth_train_loss = 0
total_training_time = 0
step = 0

while True:
    device.type == "cuda" and torch.cuda.synchronize()  # was: torch.cuda.synchronize()
    t0 = time.time()
    for _ in range(grad_accum_steps):
        with autocast_ctx:
            loss = model(x, y)
        train_loss = loss.detach()
        loss = loss / grad_accum_steps
        loss.backward()
        x, y, epoch = next(train_loader)

    progress = min(total_training_time / TIME_BUDGET, 1.0)
    lrm = get_lr_multiplier(progress)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * lrm
        if group["kind"] == "muon":
            group["momentum"] = get_muon_momentum(step)
    optimizer.step()
    model.zero_grad(set_to_none=True)

    train_loss_f = train_loss.item()
    if math.isnan(train_loss_f) or train_loss_f > 100:
        print("FAIL")
        exit(1)

    device.type == "cuda" and torch.cuda.synchronize()  # was: torch.cuda.synchronize()
    t1 = time.time()
    dt = t1 - t0
    if step > 10:
        total_training_time += dt

    smooth_train_loss = 0.9 * smooth_train_loss + 0.1 * train_loss_f
    debiased = smooth_train_loss / (1 - 0.9 ** (step + 1))
    remaining = max(0, TIME_BUDGET - total_training_time)
    shown = f"loss: {debiased:.6f} | lrm: {lrm:.2f} | epoch: {epoch} | remaining: {remaining:.0f}s"
    print(f"\rstep {step:05d} ({100 * progress:.1f}%) | {shown}    ", end="", flush=True)

    # Collections stall a step; nothing made so far will die
    if step == 0:
        gc.collect()
        gc.freeze()
        gc.disable()
    elif (step + 1) % 5000 == 0:
        gc.collect()

    step += 1

    # The first steps, with their compilation, do not count
    if step > 10 and total_training_time >= TIME_BUDGET:
        break

print()

model.eval()
with autocast_ctx:
    val_bpb = evaluate_bpb(model, tokenizer, DEVICE_BATCH_SIZE)

t_end = time.time()
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {total_training_time:.1f}")
print(f"total_seconds:    {t_end - t_start:.1f}")
print(f"startup_seconds:  {t_start_training - t_start:.1f}")
print(f"peak_vram_mb:     {torch.cuda.max_memory_allocated() / 1024 / 1024:.1f}")
print(f"total_tokens_M:   {step * TOTAL_BATCH_SIZE / 1e6:.1f}")
print(f"num_steps:        {step}")
print(f"num_params_M:     {num_params / 1e6:.1f}")
print(f"depth:            {DEPTH}")
