"""
Trains a small GPT for the budget and has it scored. The one file the agent edits; everything in it is fair game.
"""

import gc
import math
import time

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

# --- Hyperparameters: of the three columns only the workspace's preset counts; the third is for every GPU ---


def by_preset(tiny, cpu, gpu, cpu_8=None):
    return {"tiny": tiny, "cpu": cpu, "cpu-8": cpu if cpu_8 is None else cpu_8}.get(PRESET, gpu)


# Model
DEPTH = by_preset(2, 1, 8, cpu_8=2)  # layers
MODEL_DIM = by_preset(64, 192, 512)
HEAD_DIM = by_preset(16, 32, 128)
HEADS = MODEL_DIM // HEAD_DIM
WINDOW_PATTERN = "SSSL"  # attention span by layer: L sees the whole context, S half of it; the last layer is always L
POSITIONS = by_preset("rotary", "slopes", "rotary")  # slopes: a head pays less attention the farther it looks, at no cost a token
BIGRAMS = by_preset(0, 16384, 0)  # rows of the embedding that pairs of tokens are hashed into; 0: none
LOGIT_CAP = by_preset(15.0, 0.0, 15.0)  # logits are squashed smoothly into (-cap, cap); 0: they are not

SHORT = [WINDOW_PATTERN[layer % len(WINDOW_PATTERN)] == "S" and layer != DEPTH - 1 for layer in range(DEPTH)]
VALUED = [layer for layer in range(DEPTH) if layer % 2 == (DEPTH - 1) % 2]  # have value embeddings: every other one and the last

# Optimisation
DEVICE_BATCH_SIZE = by_preset(128, 16, 2 ** int(math.log2(0.8 * MEMORY_GB * 2048 / MAX_SEQ_LEN)))  # sequences in one forward pass
TOTAL_BATCH_SIZE = by_preset(2**13, 2**12, 2 ** min(19, 13 + int(math.log2(MEMORY_GB))))  # tokens in one optimiser step
MATRIX_LR = 0.02  # Muon: the matrices inside the blocks
EMBEDDING_LR = by_preset(0.3, 0.6, 0.3)  # AdamW: token, pair and value embeddings
UNEMBEDDING_LR = 0.004  # AdamW: the output head
SCALAR_LR = 0.02  # AdamW: per-layer scalars
WEIGHT_DECAY = 0.1  # of the matrices
ADAM_BETAS = by_preset((0.8, 0.95), (0.8, 0.98), (0.8, 0.95))
WARMDOWN_RATIO = by_preset(0.5, 0.75, 0.5)  # share of the budget in which it falls to zero

# --- Model ---


def norm(x):
    """Scales each vector of channels to unit variance. Of the two ways, the one that PyTorch has a fused kernel for."""
    return F.layer_norm(x, (x.size(-1),)) if x.device.type == "cpu" else F.rms_norm(x, (x.size(-1),))


def linear(inputs, outputs, scale=1.0):
    """A layer without bias whose weights are uniform with standard deviation scale / sqrt(inputs)."""
    layer = nn.Linear(inputs, outputs, bias=False)
    bound = scale * math.sqrt(3 / inputs)
    nn.init.uniform_(layer.weight, -bound, bound)
    return layer


def apply_rotary(x, cos, sin):
    """Rotates pairs of channels by position. x (B, T, H, D); cos and sin (T, 1, D/2). Su et al. 2021, arXiv:2104.09864."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], dim=-1)


def attend(q, k, v, span):
    """Attention, tensors (B, H, T, D). What a query may look at: a bias (H or 1, T, T), a BlockMask, or None, all not behind it."""
    if span is not None and not torch.is_tensor(span):
        return flex_attention.flex_attention(q, k, v, block_mask=span)
    if span is None or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=span, is_causal=span is None)
    scores = (q * q.size(-1) ** -0.5) @ k.mT  # on a CPU, at a short context, twice as fast as the fused kernel
    return torch.softmax(scores + span.to(scores.dtype), dim=-1).to(v.dtype) @ v


class Attention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.qkv = linear(MODEL_DIM, 3 * MODEL_DIM)
        self.proj = linear(MODEL_DIM, MODEL_DIM, scale=0)  # every block starts as the identity
        self.value_gate = linear(32, HEADS, scale=0) if layer in VALUED else None

    def forward(self, x, value_embedding, rotary, span):
        B, T, C = x.shape
        q, k, v = (part.view(B, T, HEADS, HEAD_DIM) for part in self.qkv(x).chunk(3, dim=-1))
        if value_embedding is not None:
            # Mixes a per-token value in, by a gate per head in (0, 2) that starts at 1. Zhou et al. 2024, arXiv:2410.17897.
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :32]))
            v = v + gate.unsqueeze(-1) * value_embedding.view(v.shape).to(v.dtype)
        q, k = norm(q), norm(k)
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        q, k, v = (part.to(v.dtype).transpose(1, 2) for part in (q, k, v))
        return self.proj(attend(q, k, v, span).transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = linear(MODEL_DIM, 4 * MODEL_DIM)
        self.proj = linear(4 * MODEL_DIM, MODEL_DIM, scale=0)

    def forward(self, x):
        return self.proj(F.relu(self.fc(x)).square())  # ReLU squared: So et al. 2021, arXiv:2109.08668


class Block(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.attention = Attention(layer)
        self.mlp = MLP()

    def forward(self, x, value_embedding, rotary, span):
        x = x + self.attention(norm(x), value_embedding, rotary, span)
        return x + self.mlp(norm(x))


class HeadLoss(torch.autograd.Function):
    """Mean cross-entropy in nats of an output head. It goes through the tokens in chunks, forward and backward at once, so that
    the logits of all of them never exist: on a CPU, writing and reading them costs more than the matrix products.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, chunk=512):
        if torch.is_autocast_enabled(x.device.type):
            x, weight = (tensor.to(torch.get_autocast_dtype(x.device.type)) for tensor in (x, weight))
        nats, grad_x, grad_weight = 0.0, torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
        for part, expected, grad in zip(x.split(chunk), targets[:, None].split(chunk), grad_x.split(chunk), strict=True):
            probabilities = torch.softmax(part @ weight.mT, dim=-1)
            nats = nats - probabilities.gather(1, expected).float().log().sum()
            probabilities.scatter_add_(1, expected, -torch.ones_like(expected, dtype=x.dtype))  # the gradient of the logits
            torch.mm(probabilities, weight, out=grad)
            grad_weight += probabilities.mT @ part
        ctx.save_for_backward(grad_x, grad_weight)
        return nats / len(x)

    @staticmethod
    def backward(ctx, grad):
        grad_x, grad_weight = ctx.saved_tensors
        grad = grad / len(grad_x)
        return grad_x * grad, grad_weight * grad, None, None


class GPT(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, MODEL_DIM)
        self.pairs = nn.Embedding.from_pretrained(torch.zeros(BIGRAMS, MODEL_DIM), freeze=False) if BIGRAMS else None
        self.blocks = nn.ModuleList(Block(layer) for layer in range(DEPTH))
        self.values = nn.ModuleDict({str(i): nn.Embedding(vocab_size, MODEL_DIM) for i in VALUED})
        for table in self.values.values():
            nn.init.normal_(table.weight, std=MODEL_DIM**-0.5)
        self.lm_head = linear(MODEL_DIM, vocab_size, scale=0.02)
        # How much each layer takes of the stream, of the first embedding and of the pair's.
        self.shares = nn.Parameter(torch.tensor([[1.0], [0.1], [0.1]]).repeat(1, DEPTH))

        places = torch.arange(MAX_SEQ_LEN)
        angles = torch.outer(places, 10000.0 ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)).unsqueeze(1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        # What a query (row) may look at (column), as a bias: all that is not behind it, or of that the last half context.
        distance = places.unsqueeze(1) - places
        slopes = 2.0 ** (-8 * torch.arange(1, HEADS + 1) / HEADS)  # Press et al. 2021, arXiv:2108.12409
        bias = -slopes.view(-1, 1, 1) * distance if POSITIONS == "slopes" else torch.zeros(1, 1, 1)
        behind, far = distance < 0, distance >= MAX_SEQ_LEN // 2
        self.register_buffer("long_bias", bias.masked_fill(behind, -math.inf), persistent=False)
        self.register_buffer("short_bias", bias.masked_fill(behind | far, -math.inf), persistent=False)
        self.block_mask = None

    def use_flex_attention(self, device):
        """Trains short spans by FlexAttention, which leaves out what is masked; with a bias it is computed and thrown away."""
        global flex_attention
        from torch.nn.attention import flex_attention  # takes a second to import, and serves GPUs alone

        near = lambda b, h, q, k: (q >= k) & (q - k < MAX_SEQ_LEN // 2)  # noqa: E731
        self.block_mask = flex_attention.create_block_mask(near, None, None, MAX_SEQ_LEN, MAX_SEQ_LEN, device=device)

    def span(self, layer, T):
        if self.block_mask is not None and self.training and SHORT[layer]:
            return self.block_mask
        if POSITIONS == "rotary" and not SHORT[layer]:
            return None
        return (self.short_bias if SHORT[layer] else self.long_bias)[:, :T, :T]

    def forward(self, tokens, targets=None):
        """Logits float32 (B, T, vocab) of tokens int64 (B, T); with targets, the mean loss in nats instead."""
        T = tokens.size(1)
        rotary = (self.cos[:T], self.sin[:T]) if POSITIONS == "rotary" else None
        x = x0 = norm(self.wte(tokens))
        pairs = self.pairs((F.pad(tokens[:, :-1], (1, 0)) * 7919 + tokens * 104729) % BIGRAMS) if BIGRAMS else 0.0
        for i, block in enumerate(self.blocks):
            x = self.shares[0, i] * x + self.shares[1, i] * x0 + self.shares[2, i] * pairs
            x = block(x, self.values[str(i)](tokens) if i in VALUED else None, rotary, self.span(i, T))
        x = norm(x)
        if targets is not None and not LOGIT_CAP:
            return HeadLoss.apply(x.flatten(0, 1), self.lm_head.weight, targets.flatten())
        logits = self.lm_head(x).float()
        logits = LOGIT_CAP * torch.tanh(logits / LOGIT_CAP) if LOGIT_CAP else logits
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def optimizers(self, dtype=torch.float32):
        """Muon for the matrices, in `dtype`, AdamW for the rest."""
        embeddings = [module.weight for module in self.modules() if isinstance(module, nn.Embedding)]
        width = (MODEL_DIM / 768) ** -0.5  # AdamW's rates were tuned at width 768
        muon = Muon(self.blocks.parameters(), MATRIX_LR, WEIGHT_DECAY, dtype)
        rates = [(embeddings, EMBEDDING_LR * width), ([self.lm_head.weight], UNEMBEDDING_LR * width), ([self.shares], SCALAR_LR)]
        groups = [{"params": params, "lr": lr} for params, lr in rates]
        adamw = torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=1e-10, weight_decay=0.0, fused=True)
        return [muon, adamw]


# --- Training ---

POLAR_EXPRESS = [(8.1566, -22.4833, 15.8788), (4.0429, -2.8089, 0.5000), (3.8917, -2.7725, 0.5061)]
POLAR_EXPRESS += [(3.2858, -2.3681, 0.4645), (2.3465, -1.7098, 0.4232)]


class Muon(torch.optim.Optimizer):
    """Steps of orthogonalised momentum, matrices of one shape at once. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/"""

    def __init__(self, params, lr, weight_decay, dtype, momentum=0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for shape in {p.shape for p in group["params"]}:
                matrices = [p for p in group["params"] if p.shape == shape]
                gradient = torch.stack([p.grad for p in matrices])
                state = self.state[matrices[0]]
                momentum = state.setdefault("momentum", gradient * 0).lerp_(gradient, 1 - group["momentum"])
                update = self.orthogonal(gradient.lerp_(momentum, group["momentum"]))
                step_size = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for p, direction in zip(matrices, update, strict=True):
                    p.mul_(1 - step_size * group["weight_decay"]).add_(direction, alpha=-step_size)

    def orthogonal(self, x):
        """The nearest matrices with all singular values 1, about. x (N, rows, columns)."""
        x = x.to(self.dtype)
        tall = x.size(1) > x.size(2)
        x = x.mT if tall else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-6)
        for a, b, c in POLAR_EXPRESS:  # odd polynomials that bring singular values to 1. Amsel et al. 2025, arXiv:2505.16932
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return (x.mT if tall else x).float()


def lr_multiplier(progress):
    """Learning rate as a share of its full value, at `progress` (0 to 1) of the budget."""
    return min(1.0, max(0.0, (1 - progress) / WARMDOWN_RATIO))


def main():
    t_start = time.monotonic()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = pick_device()
    # bfloat16 pays where the hardware multiplies it fast; a CPU without such units is faster in float32.
    fast = device == "cuda" or (device == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False))
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=fast)
    scored = torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")  # on CPUs alike, whatever they are

    tokenizer = Tokenizer.from_directory()
    model = GPT(tokenizer.get_vocab_size()).to(device)
    num_params = sum(p.numel() for p in model.parameters())
    tokens_per_pass = DEVICE_BATCH_SIZE * MAX_SEQ_LEN
    passes = max(1, TOTAL_BATCH_SIZE // tokens_per_pass)
    print(f"device: {device}, {num_params / 1e6:.2f} M parameters, {passes} x {tokens_per_pass} tokens a step")

    with scored:
        declare(model)  # from here on only its weights can change

    # Start-up is free, up to a limit, as long as no training data is here: compile and warm up on synthetic batches.
    if device == "cuda" and POSITIONS == "rotary":
        model.use_flex_attention(device)
    compiled = torch.compile(model) if device == "cuda" else model
    for _ in range(3 if device == "cuda" else 1):
        x, y = synthetic_batch(DEVICE_BATCH_SIZE, MAX_SEQ_LEN)
        with autocast:
            compiled(x, y).backward()
    model.zero_grad(set_to_none=True)
    optimizers = model.optimizers(torch.bfloat16 if fast else torch.float32)
    gc.collect()
    gc.freeze()  # what is here stays; to look through it again and again would stall steps
    gc.disable()

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
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * multiplier
            optimizer.step()
        model.zero_grad(set_to_none=True)
        step, pass_in_step = step + 1, 0
        if step % 10 and step != 1:
            continue  # a look at a loss waits for the device, so not at every step
        latest = torch.stack(losses).view(-1, passes).mean(1).tolist()
        for at, train_loss in enumerate(latest, step - len(latest) + 1):
            if not math.isfinite(train_loss):
                raise FloatingPointError(f"training loss is {train_loss} at step {at}")
            smooth = 0.9 * smooth + 0.1 * train_loss
        losses.clear()
        shown = f"loss: {smooth / (1 - 0.9**step):.6f} | epoch: {epoch}"
        print(f"step {step:05d} ({elapsed() / TIME_BUDGET:.0%}) | {shown}", flush=True)
    training_seconds = elapsed()

    with scored:
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
