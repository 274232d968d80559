"""The causality probe, against models that are honest and models that peek in ways made to slip past it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from autoresearch_mcp.errors import RefusedError
from autoresearch_mcp.evaluate.bpb import PROBE_ROUNDS, PROBE_SHARE, CausalityProbe, Model, checked, measure

VOCAB, BATCH, SEQ_LEN = 64, 16, 48
TABLE = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))


def bigram(tokens: torch.Tensor) -> torch.Tensor:
    return TABLE[tokens]


def following(tokens: torch.Tensor) -> torch.Tensor:
    return F.one_hot(tokens.roll(-1, 1), VOCAB).float()


def real_text(rng: np.random.Generator) -> np.ndarray:
    """Rows that the bigram model finds plausible: drawn from it."""
    rows = rng.integers(VOCAB, size=(4 * BATCH, SEQ_LEN + 1))
    chances = TABLE.softmax(-1).numpy().astype(np.float64)
    for position in range(SEQ_LEN):
        for row in rows:
            row[position + 1] = rng.choice(VOCAB, p=chances[row[position]] / chances[row[position]].sum())
    return rows


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return real_text(np.random.default_rng(1))


def scored(model: Model, rows: np.ndarray, seed: int) -> float:
    token_bytes = np.ones((2, VOCAB), dtype=np.int32)
    probe = CausalityProbe(model, len(rows) // BATCH, np.random.default_rng(seed))
    return measure(model, rows, token_bytes, BATCH, "cpu", probe).bpb


def prefix_mean(tokens: torch.Tensor) -> torch.Tensor:
    counts = F.one_hot(tokens, VOCAB).float().cumsum(1)
    return bigram(tokens) + counts / torch.arange(1, tokens.shape[1] + 1).view(1, -1, 1)


@pytest.mark.parametrize("model", [bigram, prefix_mean])
def test_honest_models_pass_whatever_is_drawn(model: Model, rows: np.ndarray):
    assert all(0 < scored(model, rows, seed) < 10 for seed in range(20))


def peek(tokens: torch.Tensor) -> torch.Tensor:
    return bigram(tokens) + 9 * following(tokens)


def peek_where_plausible(tokens: torch.Tensor) -> torch.Tensor:
    logits = bigram(tokens)
    likely = (logits.softmax(-1) * following(tokens)).sum(-1, keepdim=True) > 1 / VOCAB
    return logits + 9 * likely * following(tokens)


def peek_ten_ahead(tokens: torch.Tensor) -> torch.Tensor:
    return bigram(tokens) + F.one_hot(tokens.roll(-10, 1), VOCAB)


def peek_in_the_second_half(tokens: torch.Tensor) -> torch.Tensor:
    late = torch.arange(tokens.shape[1]).view(1, -1, 1) > tokens.shape[1] // 2
    return bigram(tokens) + 9 * late * following(tokens)


def peek_a_little(tokens: torch.Tensor) -> torch.Tensor:
    return bigram(tokens) + 0.01 * following(tokens)


def mix_rows(tokens: torch.Tensor) -> torch.Tensor:
    return bigram(tokens) + bigram(tokens.roll(1, 0)).mean(1, keepdim=True)


def count_of_the_batch(tokens: torch.Tensor) -> torch.Tensor:
    return bigram(tokens) + F.one_hot(tokens, VOCAB).float().mean((0, 1))


@pytest.mark.parametrize(
    "model", [peek, peek_where_plausible, peek_ten_ahead, peek_in_the_second_half, peek_a_little, mix_rows, count_of_the_batch]
)
def test_models_that_peek_are_caught_whatever_is_drawn(model: Model, rows: np.ndarray):
    for seed in range(20):
        with pytest.raises(RefusedError) as caught:
            scored(model, rows, seed)
        assert caught.value.failure == "not_causal"


def test_a_refusal_says_the_same_whatever_the_sealed_text_is(rows: np.ndarray):
    said: set[str] = set()
    for seed in range(10):
        with pytest.raises(RefusedError) as caught:
            scored(peek, rows, seed)
        said.add(str(caught.value))
    assert len(said) == 1 and not any(character.isdigit() for character in said.pop())


@pytest.mark.parametrize("value", [-1e300, float("nan"), float("inf")])
def test_a_logit_that_is_no_number_in_float32_blinds_nothing(value: float, rows: np.ndarray):
    def blinding(tokens: torch.Tensor) -> torch.Tensor:
        logits = peek(tokens).double()
        logits[..., -1] = value
        return logits

    with pytest.raises(RefusedError) as caught:
        scored(blinding, rows, 0)
    assert caught.value.failure == "nan"


def test_a_probed_output_that_is_no_number_is_no_pass(rows: np.ndarray):
    """A model that answers NaN when, and only when, it is probed."""
    real = {tuple(row) for row in rows[:, :-1].tolist()}

    def nan_on_others(tokens: torch.Tensor) -> torch.Tensor:
        known = all(tuple(row) in real for row in tokens.tolist())
        return bigram(tokens) if known else bigram(tokens) * float("nan")

    with pytest.raises(RefusedError):
        scored(nan_on_others, rows, 0)


def test_a_model_that_is_certain_can_be_probed(rows: np.ndarray):
    assert scored(lambda tokens: torch.full((*tokens.shape, VOCAB), -1e4).index_fill(-1, torch.tensor([3]), 1e4), rows, 0) > 0


@pytest.mark.parametrize("batches", [1, 2, PROBE_ROUNDS, 50, 400])
def test_every_round_takes_place(batches: int):
    calls: list[int] = []

    def counting(tokens: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return bigram(tokens)

    probe = CausalityProbe(counting, batches, np.random.default_rng(0))
    tokens = torch.randint(VOCAB, (BATCH, SEQ_LEN))
    for _ in range(batches):
        probe(tokens, bigram(tokens))
    assert len(calls) == max(PROBE_ROUNDS, batches // PROBE_SHARE)


def test_outputs_of_another_shape_or_kind_are_refused():
    with pytest.raises(RefusedError, match="one for every token"):
        checked(torch.zeros(2, 3, 4), 2, 3, 5)
    with pytest.raises(RefusedError, match="finite"):
        checked(torch.full((2, 3, 4), float("nan")), 2, 3, 4)
    with pytest.raises(RefusedError, match="floating-point"):
        checked(torch.zeros(2, 3, 4, dtype=torch.int64), 2, 3, 4)


def test_bits_per_byte_of_a_uniform_model_is_known():
    """With equal logits every token costs log2(vocab) bits; special tokens are not scored; a short last batch is filled up."""
    vocab, rows = 8, np.array([[0, 1, 2, 7], [0, 3, 4, 5], [0, 1, 1, 1]], dtype=np.uint16)
    token_bytes = np.array([[1, 2, 3, 1, 1, 4, 1, 0], [1, 2, 3, 1, 1, 5, 1, 0]], dtype=np.int32)

    def uniform(tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*tokens.shape, vocab)

    found = measure(uniform, rows, token_bytes, batch=2, device="cpu")
    scored, n_bytes, n_decoded = 8, 2 + 3 + 1 + 1 + 4 + 2 + 2 + 2, 2 + 3 + 1 + 1 + 5 + 2 + 2 + 2
    assert found.bpb == pytest.approx(scored * 3 / n_bytes) and found.by_decoded == pytest.approx(scored * 3 / n_decoded)
    assert found.n_bytes == n_bytes


def test_how_much_another_text_would_differ_is_known(one_thread: None):
    """Against what many texts of the same kind really differ by."""
    draw, vocab = np.random.default_rng(0), 8
    token_bytes = np.array([[1, 2, 3, 1, 1, 4, 1, 2]] * 2, dtype=np.int32)
    weights = torch.from_numpy(draw.normal(size=(vocab, vocab)))

    def model(tokens: torch.Tensor) -> torch.Tensor:
        return weights[tokens]

    def text() -> np.ndarray:  # rows with a kind of their own, as documents have
        kinds = draw.dirichlet(np.full(vocab, 0.3), size=40)
        return np.stack([draw.choice(vocab, size=33, p=kind) for kind in kinds]).astype(np.uint16)

    found = [measure(model, text(), token_bytes, batch=8, device="cpu") for _ in range(300)]
    assert np.std([one.bpb for one in found]) == pytest.approx(np.mean([one.error for one in found]), rel=0.15)
