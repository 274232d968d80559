"""train.py: what it computes by two ways is the same by both, and the gpu preset fits together where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from conftest import ROOT

HARNESS = ROOT / "harness"
os.environ["AUTORESEARCH_PRESET"] = "tiny"
sys.path.insert(0, str(HARNESS))
import train  # noqa: E402

LINES = 350  # a newcomer and an agent read all of it


def printed(preset: str, code: str, folder: Path) -> str:
    """By a process that has the preset's constants, with train, prepare and torch imported."""
    header = f"import sys; sys.path.insert(0, {str(HARNESS)!r})\nimport torch, prepare, train\n"
    environment = {"AUTORESEARCH_PRESET": preset, "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    done = subprocess.run([sys.executable, "-c", header + code], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_read_in_one_sitting():
    assert len((HARNESS / "train.py").read_text().splitlines()) <= LINES


@pytest.mark.parametrize("tokens", [1, 511, 512, 1300])
def test_the_loss_in_chunks_is_the_cross_entropy_with_its_gradients(tokens: int):
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, 24, generator=generator).requires_grad_()
    weight = torch.randn(70, 24, generator=generator).requires_grad_()
    targets = torch.randint(70, (tokens,), generator=generator)
    ours = train.HeadLoss.apply(x, weight, targets)
    plain = F.cross_entropy(x @ weight.mT, targets)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(3 * ours, (x, weight)), torch.autograd.grad(3 * plain, (x, weight)))


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 16, 16)])
def test_muon_steps_are_orthogonal(shape: tuple[int, int, int]):
    muon = train.Muon([torch.zeros(2, 2)], 1, 0, torch.float32)
    values = torch.linalg.svdvals(muon.orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_takes_matrices_of_one_shape_as_it_does_one():
    start = [torch.randn(6, 9, generator=torch.Generator().manual_seed(number)) for number in range(3)]
    together, alone = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    optimizers = [train.Muon(together, 0.1, 0.1, torch.float32), *(train.Muon([p], 0.1, 0.1, torch.float32) for p in alone)]
    for _ in range(3):
        for p in (*together, *alone):
            p.grad = p.detach().cos()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(together, alone)


def test_attention_by_products_is_pytorchs_own():
    q, k, v = torch.randn(3, 2, 4, 10, 8, generator=torch.Generator().manual_seed(0))
    span = torch.zeros(1, 10, 10).masked_fill(torch.ones(10, 10).triu(1) > 0, -torch.inf)
    torch.testing.assert_close(train.attend(q, k, v, span), train.attend(q, k, v, None))


@pytest.mark.slow
def test_flex_attention_trains_what_is_scored_with_a_bias(tmp_path: Path):
    code = """
torch.manual_seed(0)
model = train.GPT(prepare.VOCAB_SIZE)
for block in model.blocks:
    torch.nn.init.normal_(block.attention.proj.weight, std=0.2)  # it starts as zero, where nothing mixes
torch.nn.init.normal_(model.lm_head.weight)
tokens = torch.randint(prepare.VOCAB_SIZE, (2, prepare.MAX_SEQ_LEN))
model.use_flex_attention("cpu")
assert any(train.SHORT)
with torch.no_grad():
    trained, scored = model.train()(tokens), model.eval()(tokens)
print((trained - scored).abs().max().item(), scored.std().item())
"""
    furthest, spread = map(float, printed("tiny", code, tmp_path).split())
    assert furthest < 1e-3 < 0.1 < spread


@pytest.mark.slow
def test_the_gpu_preset_fits_together(tmp_path: Path):
    """Shapes, types and devices of logits, loss and the exported graph, on a CUDA device that need not be there."""
    code = """
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

class Indexing(TorchFunctionMode):
    # By operators: in a build without CUDA, indexing itself looks for the device.
    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is not torch.Tensor.__getitem__:
            return function(*arguments, **(options or {}))
        tensor, index = arguments
        index, at = index if isinstance(index, tuple) else (index,), 0
        for number, part in enumerate(index):
            if part is ...:
                at = tensor.dim() - (len(index) - number - 1)
            elif isinstance(part, int):
                tensor = tensor.select(at, part)
            else:
                tensor, at = torch.ops.aten.slice(tensor, at, part.start, part.stop), at + 1
        return tensor

model = train.GPT(prepare.VOCAB_SIZE)
with FakeTensorMode(), Indexing(), torch.no_grad():
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
            setattr(module, name, torch.nn.Parameter(fake) if tensor.requires_grad else fake)
    tokens = torch.zeros(prepare.EVAL_BATCH, prepare.MAX_SEQ_LEN, dtype=torch.int64, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss, logits = model.train()(tokens, tokens), model.eval()(tokens)
    graph = torch.export.export(model, (tokens,), strict=False).graph
(output,) = next(iter(reversed(graph.nodes))).args[0]
for tensor in (loss, logits, output.meta["val"]):
    print(tuple(tensor.shape), tensor.dtype, tensor.device)
"""
    logits = "(16, 2048, 8192) torch.float32 cuda:0"
    assert printed("gpu", code, tmp_path).splitlines() == ["() torch.float32 cuda:0", logits, logits]
