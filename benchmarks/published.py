"""
What harness/train.py is measured against (baseline.py): a plain GPT with the hyperparameters of autoresearch's published baseline
(Karpathy 2026, https://github.com/karpathy/autoresearch): 64 channels a layer, heads of 128, windows SSSL, Muon at 0.04, AdamW at
0.6, 0.004 and 0.5. The batch is scaled to the preset. It does not change when train.py does.
"""

import math
import time
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from prepare import (
    MAX_SEQ_LEN,
    MEMORY_GB,
    PRESET,
    SEED,
    TIME_BUDGET,
    Tokenizer,
    declare,
    elapsed,
    evaluate_bpb,
    make_dataloader,
    pick_device,
    synthetic_batch,
)

# ---------------------------------------------------------------------------
# Hyperparameters: of the three columns only the workspace's preset counts
# ---------------------------------------------------------------------------


def by_preset(tiny, cpu, gpu):
    return {"tiny": tiny, "cpu": cpu, "cpu-8": cpu}.get(PRESET, gpu)


# Model
DEPTH = by_preset(2, 4, 8)
MODEL_DIM = 64 * DEPTH
HEAD_DIM = 128
WINDOW_PATTERN = "SSSL"  # attention span by layer: L sees the whole context, S half of it; the last layer is always L
LOGIT_CAP = 15.0  # logits are squashed smoothly into (-cap, cap)

# Optimisation
DEVICE_BATCH_SIZE = by_preset(128, 8, 2 ** int(math.log2(0.8 * MEMORY_GB * 2048 / MAX_SEQ_LEN)))  # sequences in one forward pass
TOTAL_BATCH_SIZE = by_preset(2**13, 2**11, 2**19)  # tokens in one optimiser step
MATRIX_LR = 0.04  # Muon: the matrices inside the blocks
EMBEDDING_LR = 0.6  # AdamW: token and value embeddings
UNEMBEDDING_LR = 0.004  # AdamW: the output head
SCALAR_LR = 0.5  # AdamW: per-layer scalars
WEIGHT_DECAY = 0.2  # of the matrices
ADAM_BETAS = (0.8, 0.95)
WARMUP_RATIO = 0.0  # share of the budget in which the learning rate rises
WARMDOWN_RATIO = 0.5  # share of the budget in which it falls to zero

# ---------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------


@dataclass
class GPTConfig:
    vocab_size: int
    sequence_len: int = MAX_SEQ_LEN
    n_layer: int = DEPTH
    n_embd: int = MODEL_DIM
    n_head: int = MODEL_DIM // HEAD_DIM
    window_pattern: str = WINDOW_PATTERN


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def apply_rotary(x, cos, sin):
    """Rotates pairs of channels by position. x (B, H, T, D); cos and sin (T, D/2). Su et al. 2021, arXiv:2104.09864."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], dim=-1)


def has_value_embedding(layer, n_layer):
    return layer % 2 == (n_layer - 1) % 2  # every other layer, the last one always


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        gated = has_value_embedding(layer, config.n_layer)
        self.value_gate = nn.Linear(32, config.n_head, bias=False) if gated else None

    def forward(self, x, value_embedding, cos, sin, mask):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)
        if value_embedding is not None:
            # Mixes a per-token value in, by a gate per head in (0, 2) that starts at 1. Zhou et al. 2024, arXiv:2410.17897.
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :32]))
            v = v + (gate.unsqueeze(-1) * value_embedding.view(B, T, self.n_head, -1)).transpose(1, 2)
        q, k = norm(apply_rotary(q, cos, sin)), norm(apply_rotary(k, cos, sin))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x):
        return self.proj(F.relu(self.fc(x)).square())  # ReLU squared: So et al. 2021, arXiv:2109.08668


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x, value_embedding, cos, sin, mask):
        x = x + self.attention(norm(x), value_embedding, cos, sin, mask)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.value_embeddings = nn.ModuleDict(
            {
                str(layer): nn.Embedding(config.vocab_size, config.n_embd)
                for layer in range(config.n_layer)
                if has_value_embedding(layer, config.n_layer)
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))  # how much of the stream each layer takes over
        self.x0_lambdas = nn.Parameter(torch.full((config.n_layer,), 0.1))  # and how much of the first embedding

        head_dim = config.n_embd // config.n_head
        frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2) / head_dim)
        angles = torch.outer(torch.arange(config.sequence_len), frequencies)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        # A short-span layer sees the last half context. True where a query (row) may look at a key (column).
        ones = torch.ones(config.sequence_len, config.sequence_len, dtype=torch.bool)
        self.register_buffer("short_mask", ones.tril().triu(1 - config.sequence_len // 2), persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        bound = math.sqrt(3 / self.config.n_embd)  # uniform with standard deviation 1/sqrt(n_embd)
        nn.init.normal_(self.wte.weight)
        nn.init.normal_(self.lm_head.weight, std=0.001)
        for embedding in self.value_embeddings.values():
            nn.init.uniform_(embedding.weight, -bound, bound)
        for block in self.blocks:
            nn.init.uniform_(block.attention.qkv.weight, -bound, bound)
            nn.init.uniform_(block.mlp.fc.weight, -bound, bound)
            nn.init.zeros_(block.attention.proj.weight)  # every block starts as the identity
            nn.init.zeros_(block.mlp.proj.weight)
            if block.attention.value_gate is not None:
                nn.init.zeros_(block.attention.value_gate.weight)

    def is_short(self, layer):
        pattern = self.config.window_pattern
        return pattern[layer % len(pattern)] == "S" and layer != self.config.n_layer - 1

    def forward(self, tokens, targets=None):
        """Logits float32 (B, T, vocab) of tokens int64 (B, T); with targets, the mean loss in nats instead."""
        T = tokens.size(1)
        cos, sin, short_mask = self.cos[:T], self.sin[:T], self.short_mask[:T, :T]
        x = x0 = norm(self.wte(tokens))
        for i, block in enumerate(self.blocks):
            x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0
            table = self.value_embeddings[str(i)] if has_value_embedding(i, self.config.n_layer) else None
            mask = short_mask if self.is_short(i) else None
            x = block(x, None if table is None else table(tokens), cos, sin, mask)
        logits = self.lm_head(norm(x)).float()
        logits = LOGIT_CAP * torch.tanh(logits / LOGIT_CAP)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def optimizers(self):
        """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for the matrices, AdamW for the rest."""
        matrices = [p for p in self.blocks.parameters() if p.ndim == 2 and min(p.shape) > 16]
        gates = [p for p in self.blocks.parameters() if p.ndim == 2 and min(p.shape) <= 16]
        embeddings = [self.wte.weight, *self.value_embeddings.parameters()]
        width = (self.config.n_embd / 768) ** -0.5  # AdamW's rates were tuned at width 768
        muon = torch.optim.Muon(matrices, lr=MATRIX_LR, weight_decay=WEIGHT_DECAY, momentum=0.95, adjust_lr_fn="original")
        adamw = torch.optim.AdamW(
            [
                {"params": embeddings, "lr": EMBEDDING_LR * width},
                {"params": [self.lm_head.weight, *gates], "lr": UNEMBEDDING_LR * width},
                {"params": [self.resid_lambdas, self.x0_lambdas], "lr": SCALAR_LR},
            ],
            betas=ADAM_BETAS,
            eps=1e-10,
            weight_decay=0.0,
            fused=True,
        )
        for optimizer in (muon, adamw):
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        return [muon, adamw]


# ---------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------


def lr_multiplier(progress):
    """Learning rate as a share of its full value, at `progress` (0 to 1) of the budget."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    return min(1.0, max(0.0, (1 - progress) / WARMDOWN_RATIO))


def main():
    t_start = time.monotonic()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = pick_device()
    # bfloat16 pays where the hardware multiplies it fast; a CPU without such units is faster in float32.
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")

    tokenizer = Tokenizer.from_directory()
    model = GPT(GPTConfig(vocab_size=tokenizer.get_vocab_size())).to(device)
    num_params = sum(p.numel() for p in model.parameters())
    tokens_per_pass = DEVICE_BATCH_SIZE * MAX_SEQ_LEN
    passes = max(1, TOTAL_BATCH_SIZE // tokens_per_pass)
    print(f"device: {device}, {num_params / 1e6:.2f} M parameters, {passes} x {tokens_per_pass} tokens a step")

    with autocast:
        declare(model)  # from here on only its weights can change

    # Start-up is free, up to a limit, as long as no training data is here: compile and warm up on synthetic batches.
    compiled = torch.compile(model) if device == "cuda" else model
    for _ in range(3 if device == "cuda" else 1):
        x, y = synthetic_batch(DEVICE_BATCH_SIZE, MAX_SEQ_LEN)
        with autocast:
            compiled(x, y).backward()
    model.zero_grad(set_to_none=True)
    optimizers = model.optimizers()

    loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")  # the clock runs from here
    step, pass_in_step, smooth, losses = 0, 0, 0.0, []
    for x, y, epoch in loader:  # ends when the budget does
        with autocast:
            loss = compiled(x, y)
        (loss / passes).backward()
        losses.append(loss.detach())
        pass_in_step += 1
        if pass_in_step < passes:
            continue
        multiplier = lr_multiplier(elapsed() / TIME_BUDGET)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * multiplier
            optimizer.step()
        model.zero_grad(set_to_none=True)
        train_loss = torch.stack(losses).mean().item()
        if not math.isfinite(train_loss):
            raise FloatingPointError(f"training loss is {train_loss} at step {step}")
        smooth = 0.9 * smooth + 0.1 * train_loss
        step, pass_in_step, losses = step + 1, 0, []
        if step % 10 == 0 or step == 1:
            debiased = smooth / (1 - 0.9**step)
            print(f"step {step:05d} ({elapsed() / TIME_BUDGET:.0%}) | loss: {debiased:.6f} | epoch: {epoch}", flush=True)
    training_seconds = elapsed()

    with autocast:
        val_bpb = evaluate_bpb(model, tokenizer)

    print("---")
    print(f"val_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {training_seconds:.1f}")
    print(f"total_seconds:    {time.monotonic() - t_start:.1f}")
    if device == "cuda":
        print(f"peak_vram_mb:     {torch.cuda.max_memory_allocated() / 2**20:.1f}")
    print(f"total_tokens_M:   {step * passes * tokens_per_pass / 1e6:.2f}")
    print(f"num_steps:        {step}")
    print(f"num_params_M:     {num_params / 1e6:.2f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
