"""What a step of train.py holds of memory, by preset and without the hardware: its forward on tensors without storage.

    python benchmarks/memory.py                     the table: each preset for a GPU against the memory that it is for
    python benchmarks/memory.py step PRESET [ROWS]  the estimate for one preset, in MiB, as JSON; ROWS sequences in a pass
    python benchmarks/memory.py take PRESET ROWS    what tensors take at the most in two steps of that, really made on the CPU

Counted are weights, gradients and the optimizer's states; what autograd keeps for the backward, in bfloat16 where it is trained in,
attention by a fused kernel; the gradient of the logits, where they exist; of the evaluator, which scores on the same GPU while the
run still holds its own, the logits in float32 three times; and CONTEXT for each of the two processes. torch.compile keeps less: for
a run of this model the estimate is high. tests/harness/test_memory.py holds it against what the same steps really take.
"""

import json
import os
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

HARNESS = Path(__file__).resolve().parents[1] / "harness"
PRESETS = ("gpu-8", "gpu-12", "gpu-24", "gpu-40", "gpu", "gpu-141")
CONTEXT = 0.6 * 2**30  # bytes of a CUDA context with PyTorch's kernels: 0.4 to 0.6 GiB on the cards that people report of


def fused(q, k, v, span):
    """Attention that keeps nothing of shape (T, T), like the kernels on a GPU; what is masked does not matter here."""
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(q, k, v, is_causal=True)


def step(rows: int | None) -> dict[str, float]:
    """MiB by part, of the preset in the environment."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    sys.path.insert(0, str(HARNESS))
    import prepare
    import train

    rows = rows or train.DEVICE_BATCH_SIZE

    train.attend = fused
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model = train.GPT(prepare.VOCAB_SIZE)
        tokens = torch.zeros(rows, prepare.MAX_SEQ_LEN, dtype=torch.int64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(tokens, tokens)
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    weights = sum(4 * p.numel() for p in model.parameters())
    matrices = sum(4 * p.numel() for p in model.blocks.parameters())  # Muon has one state for each, AdamW two
    logits = 4 * rows * prepare.MAX_SEQ_LEN * prepare.VOCAB_SIZE if train.LOGIT_CAP else 0  # else they are never there as a whole
    scored = 4 * prepare.EVAL_BATCH * prepare.MAX_SEQ_LEN * prepare.VOCAB_SIZE
    found = {
        "states": 2 * weights + 2 * (weights - matrices) + matrices,
        "activations": sum(storage.nbytes() for key, storage in kept.items() if key not in own),
        "logits": logits,
        "evaluator": weights + 3 * scored,
        "contexts": 2 * CONTEXT,
    }
    return {name: round(value / 2**20, 1) for name, value in found.items()} | {"rows": rows, "for": prepare.MEMORY_GB * 1024}


def take(rows: int) -> float:
    """MiB that tensors hold at the most in two steps on real ones, by PyTorch's own account of every allocation."""
    import torch

    sys.path.insert(0, str(HARNESS))
    import prepare
    import train

    train.attend = fused
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        model = train.GPT(prepare.VOCAB_SIZE)
        optimizers = model.optimizers()
        tokens = torch.randint(prepare.VOCAB_SIZE, (rows, prepare.MAX_SEQ_LEN))
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(tokens, tokens)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad(set_to_none=True)
    held = accumulate(event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    return max(held) / 2**20


def ask(what: str, preset: str, *rows: int) -> dict[str, float]:
    """The same in a process of its own, for train.py is of one preset."""
    command = [sys.executable, __file__, what, preset, *map(str, rows)]
    environment = os.environ | {"AUTORESEARCH_PRESET": preset}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


PARTS = ("states", "activations", "logits", "evaluator", "contexts")


def table() -> None:
    print("| preset | sequences a pass | states | activations | logits | evaluator | contexts | together | of |")
    print("|---|---|---|---|---|---|---|---|---|")
    for preset in PRESETS:
        found = ask("step", preset)
        parts = " | ".join(f"{found[part] / 1024:.1f}" for part in PARTS)
        together = sum(found[part] for part in PARTS)
        print(f"| `{preset}` | {found['rows']:.0f} | {parts} | {together / 1024:.1f} GiB | {together / found['for']:.0%} |")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["step", _, *rows]:
            print(json.dumps(step(int(rows[0]) if rows else None)))
        case ["take", _, rows]:
            print(json.dumps({"taken": take(int(rows))}))
        case _:
            table()
