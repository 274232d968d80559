"""
The read-only half of the default task: constants, data, tokenizer, dataloader and evaluate_bpb.

    python prepare.py --preset tiny --out DIR     # one-time: get the text (corpora.py), train the tokenizer, write token files
    from prepare import ...                       # what train.py uses, on every run

Started by the server, train.py sees no data file at all. declare commits it to its model's graph (export.py); then the training
tokens arrive as a read-only descriptor when the dataloader is made, and that moment starts the budget. Validation tokens never
come here; evaluate_bpb hands over the trained tensors and the server's evaluator scores them. Started by hand (`python train.py`),
the same functions read the prepared folder and score in this process, which is for looking, not for the record.
"""

import argparse
import base64
import json
import math
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

import corpora

# ---------------------------------------------------------------------------
# Constants (fixed by the preset that the workspace was made with)
# ---------------------------------------------------------------------------

# GiB of memory it is for, seconds of training, context length, vocabulary, tokens scored, sequences per scored batch
GPU = dict(memory=80, budget=300, seq_len=2048, vocab=8192, eval_tokens=40 * 524288, eval_batch=16)  # as in autoresearch
SMALL_GPU = GPU | dict(memory=8, seq_len=1024, eval_tokens=4 * 524288, eval_batch=8)
LAPTOP = dict(memory=2, budget=60, seq_len=256, vocab=4096, eval_tokens=272 * 256, eval_batch=16)
PRESETS = {
    "tiny": dict(memory=1, budget=8, seq_len=64, vocab=512, eval_tokens=2**14, eval_batch=32),  # tests and the demo
    "cpu": LAPTOP,
    "cpu-8": LAPTOP | dict(memory=4),  # eight cores and more
    "mps": SMALL_GPU | dict(seq_len=512),
    "gpu-8": SMALL_GPU,
    "gpu-12": SMALL_GPU | dict(memory=12),
    "gpu-24": GPU | dict(memory=24, eval_tokens=8 * 524288),
    "gpu-40": GPU | dict(memory=40),
    "gpu": GPU,
    "gpu-141": GPU | dict(memory=141),
}
PRESET = os.environ.get("AUTORESEARCH_PRESET", "cpu")
if PRESET not in PRESETS:
    sys.exit(f"prepare.py: AUTORESEARCH_PRESET is {PRESET!r}; choose one of {', '.join(PRESETS)}.")


class Budget(float):
    """Seconds that know when they are over: whatever is compared with them, or divided by them, counts as at least elapsed().

    For a train.py with a clock of its own. The original's leaves its first steps out; it would run on beyond the deadline and
    be killed there, with its learning rate not yet down. Like this its loop ends, and its schedule too, with the budget.
    """

    def __lt__(self, spent):  # spent > TIME_BUDGET
        return float(self) < max(spent, elapsed())

    def __le__(self, spent):  # spent >= TIME_BUDGET
        return float(self) <= max(spent, elapsed())

    def __gt__(self, spent):  # spent < TIME_BUDGET
        return float(self) > max(spent, elapsed())

    def __ge__(self, spent):  # spent <= TIME_BUDGET
        return float(self) >= max(spent, elapsed())

    def __rtruediv__(self, spent):  # spent / TIME_BUDGET
        return max(spent, elapsed()) / float(self)


MEMORY_GB = PRESETS[PRESET]["memory"]  # of the GPU, or that a run on a CPU may take
MAX_SEQ_LEN = PRESETS[PRESET]["seq_len"]  # context length, tokens
TIME_BUDGET = Budget(os.environ.get("AUTORESEARCH_BUDGET") or PRESETS[PRESET]["budget"])  # training time, seconds
EVAL_TOKENS = PRESETS[PRESET]["eval_tokens"]  # tokens of validation text that are scored
EVAL_BATCH = PRESETS[PRESET]["eval_batch"]  # sequences in one scored batch; the exported model has this fixed shape
VOCAB_SIZE = PRESETS[PRESET]["vocab"]  # with the special tokens
SEED = int(os.environ.get("AUTORESEARCH_SEED", "42"))  # chosen by the server, recorded with the run

# GPT-4's split pattern with numbers cut at two digits, as in Karpathy's nanochat and autoresearch
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = [f"<|reserved_{i}|>" for i in range(4)]

TOKENIZER_CHARS = 1_000_000_000  # text the tokenizer is trained on, at most
TOKENIZER_DOC_CHARS = 10_000  # of one document, at most

TOKEN_DTYPE = np.dtype(np.uint16 if VOCAB_SIZE <= 2**16 else np.uint32)  # of the token files
FORMAT = 3  # of the prepared folder; a change here makes old folders stale

# ---------------------------------------------------------------------------
# Preparing data: text -> documents of three splits -> tokenizer -> packed rows of tokens
# ---------------------------------------------------------------------------


def train_tokenizer(documents: Iterable[str], folder: Path) -> None:
    """Trains a byte-level BPE of VOCAB_SIZE tokens and saves it as data: base64 of each token's bytes, in rank order."""
    import rustbpe

    def excerpts() -> Iterator[str]:
        total = 0
        for document in documents:
            yield document[:TOKENIZER_DOC_CHARS]
            total += min(len(document), TOKENIZER_DOC_CHARS)
            if total >= TOKENIZER_CHARS:
                return

    bpe = rustbpe.Tokenizer()
    bpe.train_from_iterator(excerpts(), VOCAB_SIZE - len(SPECIAL_TOKENS), pattern=SPLIT_PATTERN)
    tokens = [base64.b64encode(bytes(token)).decode() for token, _ in sorted(bpe.get_mergeable_ranks(), key=lambda pair: pair[1])]
    content = {"pattern": bpe.get_pattern(), "ranks": tokens, "special": SPECIAL_TOKENS}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def token_byte_lengths(tokenizer: "Tokenizer") -> np.ndarray:
    """Bytes each token stands for, int32 (2, vocab): row 0 from its raw bytes, row 1 from decoding it alone.

    Row 0 is the truth. Row 1 is how Karpathy's prepare.py counts (a token that is part of a character decodes to U+FFFD,
    three bytes) and serves only to compare with published figures. Special tokens count 0 and are not scored.
    """
    raw = [len(token) for token in tokenizer.tokens]
    decoded = [len(token.decode("utf-8", errors="replace").encode("utf-8")) for token in tokenizer.tokens]
    special = [0] * len(SPECIAL_TOKENS)
    return np.array([raw + special, decoded + special], dtype=np.int32)


def write_split(name: str, texts: Iterable[str], tokenizer: "Tokenizer", folder: Path, max_rows: int | None) -> dict:
    """Tokenises one split into a flat file of rows (rows x (MAX_SEQ_LEN + 1) tokens) and says what it wrote."""
    from tqdm import tqdm

    bos = tokenizer.get_bos_token_id()

    def tokens() -> Iterator[list[int]]:
        bar = iter(tqdm(texts, desc=f"tokenise {name}", unit="doc", disable=not sys.stderr.isatty()))
        while batch := list(islice(bar, 64)):
            yield from tokenizer.encode(batch, prepend=bos)

    rows = 0
    with open(folder / f"{name}.bin", "wb") as file:
        for row in corpora.pack_rows(tokens(), MAX_SEQ_LEN + 1, bos, max_rows):
            file.write(row.astype(TOKEN_DTYPE).tobytes())
            rows += 1
    if rows == 0 or (max_rows is not None and rows < max_rows):
        raise SystemExit(f"prepare.py: the {name} split gives only {rows} rows of {MAX_SEQ_LEN + 1} tokens; it needs more text.")
    return {"rows": rows, "tokens": rows * MAX_SEQ_LEN, "sha256": corpora.file_sha256(folder / f"{name}.bin")}


def prepare(out: Path, corpus: Path = corpora.EMBEDDED, train_shards: int = corpora.TRAIN_SHARDS, text: Path | None = None) -> None:
    """Makes the folder `out` whole or not at all; a folder that is already right is left alone."""
    recipe = {"format": FORMAT, "preset": PRESET, **PRESETS[PRESET], **corpora.source(PRESET, corpus, train_shards, text)}
    del recipe["budget"], recipe["memory"]  # neither changes the data
    made = out / "meta.json"
    if made.exists() and json.loads(made.read_text()).get("recipe") == recipe:
        print(f"data:       ready in {out}")
        return

    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    texts = corpora.documents(PRESET, corpus, train_shards, out.parent / "shards", text, EVAL_TOKENS)
    scored = EVAL_TOKENS // MAX_SEQ_LEN  # rows; of the holdout less, a second opinion whose time is added to every run
    rows = {"train": None, "val": scored, "holdout": max(EVAL_BATCH, scored // 8 // EVAL_BATCH * EVAL_BATCH)}

    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        work = Path(temporary)
        print(f"tokenizer:  training {VOCAB_SIZE} tokens")
        train_tokenizer(texts["train"](), work)
        tokenizer = Tokenizer.from_directory(work)
        check = "Hello world! Numbers: 123. Unicode: naïve 你好"
        if tokenizer.decode(tokenizer.encode(check)) != check:
            raise SystemExit("prepare.py: the trained tokenizer does not give back what it was given; please report this.")
        np.save(work / "token_bytes.npy", token_byte_lengths(tokenizer), allow_pickle=False)
        meta = {"recipe": recipe, "vocab_size": tokenizer.get_vocab_size(), "seq_len": MAX_SEQ_LEN, "eval_batch": EVAL_BATCH}
        meta |= {"dtype": TOKEN_DTYPE.name, "splits": {}}
        for split, source in texts.items():
            written = meta["splits"][split] = write_split(split, source(), tokenizer, work, rows[split])
            print(f"{split + ':':<11} {written['tokens'] / 1e6:.2f} M tokens in {written['rows']} rows")
        (work / "meta.json").write_text(json.dumps(meta, indent=1))
        shutil.rmtree(out, ignore_errors=True)
        work.rename(out)
    print(f"data:       ready in {out}, {time.monotonic() - started:.1f} s")


# ---------------------------------------------------------------------------
# What train.py uses
# ---------------------------------------------------------------------------


def data_directory() -> Path:
    """The prepared folder; under the server only the part of it that is no secret."""
    given = os.environ.get("AUTORESEARCH_DATA")
    return Path(given) if given else Path.home() / ".cache" / "autoresearch-mcp" / "by-hand" / PRESET


class Tokenizer:
    """BPE through tiktoken. Loading it reads data, never a pickle."""

    def __init__(self, pattern: str, tokens: list[bytes], special: list[str]):
        import tiktoken

        self.tokens = tokens  # raw bytes of every ordinary token, in rank order
        self.enc = tiktoken.Encoding(
            name="autoresearch",
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
            special_tokens={name: len(tokens) + i for i, name in enumerate(special)},
        )
        self.bos_token_id = self.enc.encode_single_token(special[0])

    @classmethod
    def from_directory(cls, tokenizer_dir: Path | None = None) -> "Tokenizer":
        path = (tokenizer_dir or data_directory()) / "tokenizer.json"
        if not path.exists():
            sys.exit(f"prepare.py: {path} is missing. Run: python prepare.py --preset {PRESET} --out {path.parent}")
        content = json.loads(path.read_text())
        return cls(content["pattern"], [base64.b64decode(token) for token in content["ranks"]], content["special"])

    def get_vocab_size(self) -> int:
        return self.enc.n_vocab

    def get_bos_token_id(self) -> int:
        return self.bos_token_id

    def encode(self, text, prepend: int | None = None, num_threads: int = 8):
        """Token ids of a string, or a list of them for a list of strings; `prepend` is a token id put before each."""
        if isinstance(text, str):
            return ([] if prepend is None else [prepend]) + self.enc.encode_ordinary(text)
        rows = self.enc.encode_ordinary_batch(list(text), num_threads=num_threads)
        return rows if prepend is None else [[prepend, *row] for row in rows]

    def decode(self, ids) -> str:
        return self.enc.decode(ids)


class _Server:
    """The run's end of the control socket: one JSON object a line, descriptors beside it."""

    def __init__(self, descriptor: int):
        self.socket = socket.socket(fileno=descriptor)

    def ask(self, **message) -> tuple[dict, list[int]]:
        self.socket.sendall(json.dumps(message).encode() + b"\n")
        data, descriptors = b"", []
        while not data.endswith(b"\n"):
            part, passed, _, _ = socket.recv_fds(self.socket, 65536, 4)
            if not part:
                raise ConnectionError("the server closed the run's control socket")
            data += part
            descriptors += passed
        reply = json.loads(data)
        if "error" in reply:
            sys.exit(f"prepare.py: {reply['error']}")
        return reply, descriptors


_server = _Server(int(os.environ["AUTORESEARCH_SOCKET"])) if "AUTORESEARCH_SOCKET" in os.environ else None
_clock_started: float | None = None


def elapsed() -> float:
    """Seconds of the budget that are gone. Only for schedules and logs: the clock that counts is the server's."""
    return 0.0 if _clock_started is None else time.monotonic() - _clock_started


def pick_device() -> str:
    """cuda, mps or cpu, the best there is; AUTORESEARCH_DEVICE overrides."""
    import torch

    if chosen := os.environ.get("AUTORESEARCH_DEVICE"):
        return chosen
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def synthetic_batch(B: int, T: int):
    """Random tokens (inputs, targets), int64 (B, T) each, to warm up and compile on before the budget starts."""
    import torch

    device = pick_device()
    return tuple(torch.randint(VOCAB_SIZE, (B, T), device=device) for _ in range(2))


def _rows(split: str) -> np.ndarray:
    """Packed rows of one split, uint16 or uint32 (rows, MAX_SEQ_LEN + 1), as a memory map."""
    global _clock_started
    if _server is not None:
        if split != "train":
            sys.exit(f"prepare.py: the {split} tokens are never given to train.py; evaluate_bpb scores the model.")
        reply, (descriptor,) = _server.ask(op="data")
        source = open(descriptor, "rb")  # noqa: SIM115 (stays open behind the map)
        charged = float(TIME_BUDGET) - reply["budget"]  # what start-up took beyond what is free
    else:
        source = open(data_directory() / f"{split}.bin", "rb")  # noqa: SIM115
        charged = 0.0
    if split == "train":
        _clock_started = time.monotonic() - charged
    return np.memmap(source, dtype=TOKEN_DTYPE, mode="r").reshape(-1, MAX_SEQ_LEN + 1)


def make_dataloader(tokenizer: Tokenizer, B: int, T: int, split: str = "train") -> "Loader":
    """Batches (inputs, targets, epoch), int64 (B, T) on the device. Calling it starts the clock.

    Every row begins with BOS; rows are shuffled anew each epoch by the run's seed. T is MAX_SEQ_LEN or divides it.
    """
    if MAX_SEQ_LEN % T:
        sys.exit(f"prepare.py: make_dataloader was asked for T={T}; use MAX_SEQ_LEN ({MAX_SEQ_LEN}) or a divisor of it.")
    return Loader(_batches(_rows(split), B, T))  # rows at the call, not at the first batch: what follows is on the clock


class Loader:
    """What make_dataloader gives: new batches until the budget is spent.

    `for` ends there. `next` gives the last batch again, so that a loop which fetches ahead, as the original's does, can finish
    its step and look at the clock; nothing new is to be had from it.
    """

    def __init__(self, batches: Iterator):
        self._batches = batches
        self._latest = None

    def __next__(self):
        if self._latest is None or elapsed() < TIME_BUDGET:
            self._latest = next(self._batches)
        return self._latest

    def __iter__(self):
        while elapsed() < TIME_BUDGET:
            yield next(self)


def _batches(rows: np.ndarray, B: int, T: int) -> Iterator:
    import torch

    device = pick_device()
    windows = MAX_SEQ_LEN // T  # of a row; with T = MAX_SEQ_LEN the row itself
    order_of = np.random.default_rng(SEED)
    epoch, queue = 0, np.empty(0, dtype=np.int64)
    while True:
        while len(queue) < B:
            epoch += 1
            queue = np.concatenate([queue, order_of.permutation(len(rows) * windows)])
        picked, queue = queue[:B], queue[B:]
        starts = (picked % windows) * T
        batch = rows[(picked // windows)[:, None], starts[:, None] + np.arange(T + 1)].astype(np.int64)
        tokens = torch.from_numpy(np.stack([batch[:, :-1], batch[:, 1:]]))  # each contiguous, so that .view(-1) works on it
        if device == "cuda":
            tokens = tokens.pin_memory()
        x, y = tokens.to(device, non_blocking=True)
        yield x, y, epoch


# ---------------------------------------------------------------------------
# Evaluation
# ---------------------------------------------------------------------------


_declared = None  # what export.py remembers of the model that was declared


def declare(model) -> None:
    """Commits the run to `model`: the graph it is scored by, and the name, shape and type of every tensor in it. Call it once,
    before make_dataloader, on the model as it will be scored, under the autocast it will be scored under.

    The server checks the graph at once, so what cannot be scored ends here. From then on weights may change at will; what masks and
    positions are made of (buffers by which the model was proved causal) may not.
    """
    global _declared
    if _server is None:
        return
    import export

    _declared = export.declare(model, Path("declaration.safetensors"), (EVAL_BATCH, MAX_SEQ_LEN))
    reply, _ = _server.ask(op="declare")
    print("declared:  ", *(f"{name}: {value}" for name, value in reply["marks"].items()), flush=True)


def evaluate_bpb(model, tokenizer: Tokenizer, batch_size: int | None = None) -> float:
    """Validation bits per byte of `model`, a module that maps int64 (B, T) to logits (B, T, vocab) when called with no targets.

    Under the server its tensors are submitted, once, and scored by the declared graph; any module with the declared names will do,
    such as an average of weights. `batch_size` is taken for the sake of Karpathy's signature and not used. Training ends here.
    """
    if _server is None:
        return score_in_process(model.eval(), tokenizer, "val")
    import export

    if _declared is None:
        sys.exit("prepare.py: no model was declared. Call declare(model) before make_dataloader.")
    tensors = export.trained(model, _declared)
    _server.ask(op="trained", digests={name: export.tensor_digest(tensor) for name, tensor in tensors.items()})
    export.submit(tensors, Path("submission.safetensors"))  # others than these would not be taken any more
    return float(_server.ask(op="submit")[0]["score"])


def score_in_process(model, tokenizer: Tokenizer, split: str) -> float:
    """Plain evaluation over a prepared split: sum of bits over sum of bytes of the target tokens, special tokens aside."""
    import torch
    import torch.nn.functional as F

    device = next(model.parameters()).device
    token_bytes = torch.from_numpy(token_byte_lengths(tokenizer)[0]).to(device)
    rows = torch.from_numpy(_rows(split).astype(np.int64))
    nats, n_bytes = 0.0, 0
    with torch.no_grad():
        for batch in rows.split(EVAL_BATCH):
            batch = batch.to(device)
            targets = batch[:, 1:]
            logits = model(batch[:, :-1].contiguous()).float()
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            lengths = token_bytes[targets.flatten()]
            nats += (losses.double() * (lengths > 0)).sum().item()
            n_bytes += int(lengths.sum())
    return nats / math.log(2) / n_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare data and tokenizer of the default task.")
    parser.add_argument("--preset", choices=PRESETS, default=PRESET)
    parser.add_argument("--out", type=Path, help="folder to make; default: where train.py looks when run by hand")
    parser.add_argument(
        "--corpus", type=Path, default=corpora.EMBEDDED, help="other presets: text to use, as corpus/build.py writes it"
    )
    own = os.environ.get("AUTORESEARCH_TEXT")
    parser.add_argument(
        "--text", type=Path, default=own, help="folder of your own .txt, .md, .jsonl or .parquet files to use instead"
    )
    parser.add_argument("--num-shards", type=int, default=corpora.TRAIN_SHARDS, help="gpu preset: training shards to download")
    args = parser.parse_args()
    if args.preset != PRESET:  # the constants above follow the environment, so start over with it set
        os.environ["AUTORESEARCH_PRESET"] = args.preset
        os.execv(sys.executable, [sys.executable, __file__, *sys.argv[1:]])
    if args.num_shards < 1:
        parser.error("--num-shards must be at least 1")
    prepare((args.out or data_directory()).absolute(), args.corpus, args.num_shards, args.text)


if __name__ == "__main__":
    main()
