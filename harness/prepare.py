"""
The read-only half of the default task: constants, data, tokenizer, dataloader and evaluate_bpb.

    python prepare.py --preset tiny --out DIR     # one-time: get the text, train the tokenizer, write token files
    from prepare import ...                       # what train.py uses, on every run

Started by the server, train.py sees no data file at all: the training tokens arrive as a read-only descriptor when the
dataloader is made, and that moment starts the budget. Validation tokens never come here; evaluate_bpb exports the model and
the server's evaluator scores it. Started by hand (`python train.py`), the same functions read the prepared folder and score
in this process, which is for looking, not for the record.
"""

import argparse
import base64
import hashlib
import json
import lzma
import math
import os
import shutil
import socket
import sys
import tempfile
import time
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

# ---------------------------------------------------------------------------
# Constants (fixed by the preset that the workspace was made with)
# ---------------------------------------------------------------------------

PRESETS = {
    # seconds of training, context length, vocabulary, tokens scored, sequences per scored batch
    "tiny": dict(budget=8, seq_len=64, vocab=512, eval_tokens=2**14, eval_batch=32),  # tests and the demo
    "cpu": dict(budget=60, seq_len=256, vocab=4096, eval_tokens=2**16, eval_batch=16),  # a laptop
    "gpu": dict(budget=300, seq_len=2048, vocab=8192, eval_tokens=40 * 524288, eval_batch=16),  # as in autoresearch
}
PRESET = os.environ.get("AUTORESEARCH_PRESET", "cpu")
if PRESET not in PRESETS:
    sys.exit(f"prepare.py: AUTORESEARCH_PRESET is {PRESET!r}; choose one of {', '.join(PRESETS)}.")

MAX_SEQ_LEN = PRESETS[PRESET]["seq_len"]  # context length, tokens
TIME_BUDGET = float(os.environ.get("AUTORESEARCH_BUDGET") or PRESETS[PRESET]["budget"])  # training time, seconds
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
BOS_TOKEN = SPECIAL_TOKENS[0]

# The gpu preset's text: https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle
CLIMBMIX = "karpathy/climbmix-400b-shuffle"
MAX_SHARD = 6542  # index of the last shard
VAL_SHARD = MAX_SHARD  # validation text, the shard Karpathy pins
HOLDOUT_SHARD = MAX_SHARD - 1  # sealed: neither trained on nor shown to an agent
DEFAULT_TRAIN_SHARDS = 10
TOKENIZER_CHARS = 1_000_000_000  # text the tokenizer is trained on, at most
TOKENIZER_DOC_CHARS = 10_000  # of one document, at most
TINY_TRAIN_DOCUMENTS = 48  # the tiny preset prepares in seconds because it uses only these

FORMAT = 3  # of the prepared folder; a change here makes old folders stale

# ---------------------------------------------------------------------------
# Preparing data: text -> documents of three splits -> tokenizer -> packed rows of tokens
# ---------------------------------------------------------------------------


def embedded_documents(corpus: Path) -> dict[str, list[str]]:
    """The embedded corpus by split. All documents of one year go to one split, so none has a near twin in another."""
    splits: dict[str, list[str]] = {"train": [], "val": [], "holdout": []}
    with lzma.open(corpus, "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            draw = hashlib.sha256(f"year {document['year']}".encode()).digest()[0]
            split = "val" if draw < 16 else "holdout" if draw < 32 else "train"
            splits[split].append(document["text"])
    return splits


def climbmix_shards(out: Path, num_shards: int) -> dict[str, list[Path]]:
    """Downloads the shards (resumed, retried, in parallel, each put in place whole) and checks every one."""
    import pyarrow.parquet as pq
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    train = list(range(min(num_shards, HOLDOUT_SHARD)))
    wanted = {"train": train, "holdout": [HOLDOUT_SHARD], "val": [VAL_SHARD]}
    names = {split: [f"shard_{index:05d}.parquet" for index in indices] for split, indices in wanted.items()}
    if not sys.stderr.isatty():
        disable_progress_bars()
    attempts = 5
    for attempt in range(1, attempts + 1):
        try:
            folder = snapshot_download(
                CLIMBMIX,
                repo_type="dataset",
                allow_patterns=[name for group in names.values() for name in group],
                cache_dir=out / "shards",
                endpoint=os.environ.get("HF_ENDPOINT"),
                max_workers=8,
            )
            break
        except Exception as error:  # the network's failures come as many types; what has arrived stays for the next try
            if attempt == attempts:
                raise SystemExit(
                    f"prepare.py: the download failed {attempts} times ({type(error).__name__}: {error}). What has arrived "
                    "is kept: check the connection and run this again, or use the cpu preset, which needs no download."
                ) from error
            print(f"  attempt {attempt} of {attempts} failed ({type(error).__name__}); trying again in {2**attempt} s")
            time.sleep(2**attempt)
    shards = {split: [Path(folder) / name for name in group] for split, group in names.items()}
    for path in (path for group in shards.values() for path in group):
        try:
            # A blob's name is its ETag, for large files the SHA-256 of the content.
            etag = path.resolve().name
            if len(etag) == 64 and file_sha256(path) != etag:
                raise ValueError("its SHA-256 is not the one the server announced")
            pq.ParquetFile(path)
        except Exception as error:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise SystemExit(f"prepare.py: {path.name} is damaged ({error}) and was removed. Run this again.") from error
    return shards


def parquet_documents(paths: Iterable[Path]) -> Iterator[str]:
    """Documents of parquet shards, one row group in memory at a time."""
    import pyarrow.parquet as pq

    for path in paths:
        shard = pq.ParquetFile(path)
        for group in range(shard.num_row_groups):
            yield from shard.read_row_group(group, columns=["text"]).column("text").to_pylist()


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
    ranks = sorted((rank, bytes(token)) for token, rank in bpe.get_mergeable_ranks())
    content = {
        "pattern": bpe.get_pattern(),
        "ranks": [base64.b64encode(token).decode("ascii") for _, token in ranks],
        "special": SPECIAL_TOKENS,
    }
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


def pack_rows(documents: Iterable[list[int]], row_len: int, bos: int, max_rows: int | None = None) -> Iterator[np.ndarray]:
    """Packs token lists (each begins with BOS) into rows of row_len tokens that all begin with BOS, nothing padded.

    Best fit over a buffer of pieces, as Karpathy's loader does it on the fly. Differences: a document longer than what is
    left of a row is split, its remainder goes on behind a BOS of its own, and no token is thrown away.
    """
    buffer: list[tuple[int, int]] = []  # (length, key), sorted, so that the best fit is one bisection away
    pieces: dict[int, list[int]] = {}
    next_key = 0

    def add(tokens: list[int]) -> None:
        nonlocal next_key
        for start in range(1, max(len(tokens), 2), row_len - 1):
            piece = [bos, *tokens[start : start + row_len - 1]]
            if len(piece) > 1:
                pieces[next_key] = piece
                insort(buffer, (len(piece), next_key))
                next_key += 1

    source = iter(documents)
    exhausted = False
    made = 0
    while max_rows is None or made < max_rows:
        row: list[int] = []
        while len(row) < row_len:
            while not exhausted and len(buffer) < 1000:
                document = next(source, None)
                if document is None:
                    exhausted = True
                else:
                    add(document)
            if not buffer:
                return  # what is left does not fill a row
            space = row_len - len(row)
            fit = bisect_right(buffer, (space, next_key)) - 1
            _, key = buffer.pop(max(fit, 0))
            piece = pieces.pop(key)
            row += piece[:space]
            if len(piece) > space:
                add([bos, *piece[space:]])
        made += 1
        yield np.array(row)


def write_split(name: str, texts: Iterable[str], tokenizer: "Tokenizer", folder: Path, max_rows: int | None) -> dict:
    """Tokenises one split into a flat file of rows (rows x (MAX_SEQ_LEN + 1) tokens) and says what it wrote."""
    from tqdm import tqdm

    def tokens() -> Iterator[list[int]]:
        batch: list[str] = []
        bar = tqdm(texts, desc=f"tokenise {name}", unit="doc", disable=not sys.stderr.isatty())
        for text in bar:
            batch.append(text)
            if len(batch) == 64:
                yield from tokenizer.encode(batch, prepend=tokenizer.get_bos_token_id())
                batch = []
        yield from tokenizer.encode(batch, prepend=tokenizer.get_bos_token_id())

    rows = 0
    # Rows leave the packer in an order that its buffer decides; validation takes the first ones, training shuffles them.
    with open(folder / f"{name}.bin", "wb") as file:
        for row in pack_rows(tokens(), MAX_SEQ_LEN + 1, tokenizer.get_bos_token_id(), max_rows):
            file.write(row.astype(TOKEN_DTYPE).tobytes())
            rows += 1
    if rows == 0 or (max_rows is not None and rows < max_rows):
        raise SystemExit(f"prepare.py: the {name} split gives only {rows} rows of {MAX_SEQ_LEN + 1} tokens; it needs more text.")
    return {"rows": rows, "tokens": rows * MAX_SEQ_LEN, "sha256": file_sha256(folder / f"{name}.bin")}


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare(out: Path, num_shards: int, corpus: Path) -> None:
    """Makes the folder `out` whole or not at all; a folder that is already right is left alone."""
    recipe = {"format": FORMAT, "preset": PRESET, **PRESETS[PRESET]}
    del recipe["budget"]  # how long a run trains does not change the data
    recipe["source"] = CLIMBMIX if PRESET == "gpu" else f"embedded {file_sha256(corpus)}"
    recipe["shards"] = num_shards if PRESET == "gpu" else 0
    meta_path = out / "meta.json"
    if meta_path.exists() and json.loads(meta_path.read_text()).get("recipe") == recipe:
        print(f"data:       ready in {out}")
        return

    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    if PRESET == "gpu":
        shards = climbmix_shards(out.parent, num_shards)
        texts = {split: (lambda paths=paths: parquet_documents(paths)) for split, paths in shards.items()}
    else:
        splits = embedded_documents(corpus)
        if PRESET == "tiny":
            splits["train"] = splits["train"][:: len(splits["train"]) // TINY_TRAIN_DOCUMENTS][:TINY_TRAIN_DOCUMENTS]
        texts = {split: (lambda documents=documents: iter(documents)) for split, documents in splits.items()}

    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        print(f"tokenizer:  training {VOCAB_SIZE} tokens")
        train_tokenizer(texts["train"](), work)
        tokenizer = Tokenizer.from_directory(work)
        check = "Hello world! Numbers: 123. Unicode: naïve 你好"
        if tokenizer.decode(tokenizer.encode(check)) != check:
            raise SystemExit("prepare.py: the trained tokenizer does not give back what it was given; please report this.")
        np.save(work / "token_bytes.npy", token_byte_lengths(tokenizer), allow_pickle=False)
        written = {}
        for split, source in texts.items():
            rows = None if split == "train" else EVAL_TOKENS // MAX_SEQ_LEN
            if split == "holdout":
                rows = max(EVAL_BATCH, rows // 8)  # a second opinion needs less, and its time is added to every run
            written[split] = write_split(split, source(), tokenizer, work, rows)
            print(f"{split + ':':<11} {written[split]['tokens'] / 1e6:.2f} M tokens in {written[split]['rows']} rows")
        meta = {
            "recipe": recipe,
            "vocab_size": tokenizer.get_vocab_size(),
            "seq_len": MAX_SEQ_LEN,
            "eval_batch": EVAL_BATCH,
            "dtype": TOKEN_DTYPE.name,
            "splits": written,
        }
        (work / "meta.json").write_text(json.dumps(meta, indent=1))
        shutil.rmtree(out, ignore_errors=True)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"data:       ready in {out}, {time.monotonic() - started:.1f} s")


# ---------------------------------------------------------------------------
# What train.py uses
# ---------------------------------------------------------------------------

TOKEN_DTYPE = np.dtype(np.uint16 if VOCAB_SIZE <= 2**16 else np.uint32)


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
        _, (descriptor,) = _server.ask(op="data")
        source = open(descriptor, "rb")  # noqa: SIM115 (stays open behind the map)
    else:
        source = open(data_directory() / f"{split}.bin", "rb")  # noqa: SIM115
    if split == "train":
        _clock_started = time.monotonic()
    return np.memmap(source, dtype=TOKEN_DTYPE, mode="r").reshape(-1, MAX_SEQ_LEN + 1)


def make_dataloader(tokenizer: Tokenizer, B: int, T: int, split: str = "train"):
    """Yields (inputs, targets, epoch), int64 (B, T) on the device, until the budget is spent. Calling it starts the clock.

    Every row begins with BOS; rows are shuffled anew each epoch by the run's seed. T is MAX_SEQ_LEN or divides it.
    """
    if MAX_SEQ_LEN % T:
        sys.exit(f"prepare.py: make_dataloader was asked for T={T}; use MAX_SEQ_LEN ({MAX_SEQ_LEN}) or a divisor of it.")
    rows = _rows(split)  # at the call, not at the first batch: what follows is on the clock
    return _batches(rows, B, T)


def _batches(rows: np.ndarray, B: int, T: int):
    import torch

    device = pick_device()
    windows = MAX_SEQ_LEN // T  # of a row; with T = MAX_SEQ_LEN the row itself
    order_of = np.random.default_rng(SEED)
    epoch, queue = 0, np.empty(0, dtype=np.int64)
    while elapsed() < TIME_BUDGET:
        while len(queue) < B:
            epoch += 1
            queue = np.concatenate([queue, order_of.permutation(len(rows) * windows)])
        picked, queue = queue[:B], queue[B:]
        starts = (picked % windows) * T
        batch = rows[(picked // windows)[:, None], starts[:, None] + np.arange(T + 1)]
        tokens = torch.from_numpy(batch.astype(np.int64))
        if device == "cuda":
            tokens = tokens.pin_memory().to(device, non_blocking=True)
        elif device != "cpu":
            tokens = tokens.to(device)
        yield tokens[:, :-1], tokens[:, 1:], epoch


# ---------------------------------------------------------------------------
# Evaluation
# ---------------------------------------------------------------------------


def evaluate_bpb(model, tokenizer: Tokenizer, batch_size: int | None = None) -> float:
    """Validation bits per byte of `model`, a module that maps int64 (B, T) to logits (B, T, vocab) when called with no targets.

    Under the server the model is exported and submitted, once, and the evaluator answers. Its batch size, order and tokens
    are not ours to choose: `batch_size` is taken for the sake of Karpathy's signature and not used. Training ends here.
    """
    model = getattr(model, "_orig_mod", model).eval()  # what torch.compile wraps
    if _server is None:
        return score_in_process(model, tokenizer, "val")
    _server.ask(op="trained", digests=digests(model))  # from here on, other weights would not be taken
    export_model(model, Path("submission.safetensors"))
    reply, _ = _server.ask(op="submit")
    return float(reply["score"])


def tensor_digest(tensor) -> str:
    """SHA-256 of a tensor's bytes, whatever its shape and type."""
    import torch

    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def digests(model) -> list[str]:
    """SHA-256 of every parameter and buffer: what the run commits itself to when training ends."""
    return sorted({tensor_digest(tensor) for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()})


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
            logits = model(batch[:, :-1]).float()
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            lengths = token_bytes[targets.flatten()]
            nats += (losses.double() * (lengths > 0)).sum().item()
            n_bytes += int(lengths.sum())
    return nats / math.log(2) / n_bytes


def export_model(model, path: Path) -> None:
    """Writes the model as one safetensors file: weights as tensors, the ATen graph as JSON in its header.

    The graph comes from torch.export at the fixed shape (EVAL_BATCH, MAX_SEQ_LEN). Whatever torch.export cannot trace
    (data-dependent control flow, custom kernels) fails here: give the model a forward in plain PyTorch for eval mode.
    """
    import torch
    from safetensors.torch import save_file

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, tokens):
            return self.model(tokens)

    device = next(model.parameters()).device
    tokens = torch.zeros((EVAL_BATCH, MAX_SEQ_LEN), dtype=torch.int64, device=device)
    autocast = None
    if torch.is_autocast_enabled(device.type):
        autocast = str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            program = torch.export.export(Logits(), (tokens,), strict=False)
            if any(getattr(node.target, "_schema", None) and node.target._schema.is_mutable for node in program.graph.nodes):
                program = program.run_decompositions({})  # in-place operators become plain ones
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise RuntimeError(f"torch.export failed: {type(error).__name__}: {first}") from error

    inputs = []  # what stands for each placeholder: the tokens or a tensor of the file
    tensors: dict[str, torch.Tensor] = {}
    by_storage: dict[tuple, str] = {}  # tied weights are stored once
    signature = program.graph_signature
    for spec in signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            inputs.append({"name": spec.arg.name, "op": "tokens", "of": None})
            continue
        value = program.state_dict.get(spec.target)
        if value is None:
            value = program.constants[spec.target]
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if key not in by_storage:
            by_storage[key] = spec.target
            # A view of a larger storage is copied: safetensors would refuse shared memory.
            tensors[spec.target] = value.detach().cpu().contiguous().clone()
        inputs.append({"name": spec.arg.name, "op": "tensor", "of": by_storage[key]})
    mutated = [spec.target for spec in signature.output_specs if spec.kind.name != "USER_OUTPUT"]
    if mutated:
        raise RuntimeError(f"torch.export failed: the forward changes {mutated[0]}; a model must keep no state between calls")
    nodes = list(inputs)
    output = _encode_graph(program.graph_module, [{"ref": node["name"]} for node in inputs], nodes, "", None)
    nodes.append({"name": "output", "op": "output", "args": [output]})
    graph = {"format": 1, "shape": [EVAL_BATCH, MAX_SEQ_LEN], "autocast": autocast, "nodes": nodes}
    save_file(tensors, path, metadata={"graph": json.dumps(graph)})


def _encode_graph(module, inputs: list, nodes: list[dict], prefix: str, autocast: str | None):
    """Appends the module's operators to `nodes` as JSON and returns its output. Blocks of autocast are written out in place:
    their operators say which precision they run in ("off" for a block that switches it off)."""
    import torch

    values = {}  # name of a node -> how others refer to it

    def encode(value):
        if isinstance(value, torch.fx.Node):
            return values[value.name]
        if isinstance(value, (list, tuple)):
            return [encode(item) for item in value]
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            return {type(value).__name__: str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": "run"}  # the evaluator's own device takes its place
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise RuntimeError(f"torch.export failed: the graph has a {type(value).__name__} where a constant is needed")

    waiting = iter(inputs)
    for node in module.graph.nodes:
        operator = getattr(node.target, "__name__", str(node.target))
        if node.op == "placeholder":
            values[node.name] = next(waiting)
        elif node.op == "get_attr":
            values[node.name] = getattr(module, node.target)  # a block, used by the node that follows
        elif node.op == "call_function" and operator == "wrap_with_autocast":
            _, dtype, enabled, _, block, *given = node.args
            precision = str(dtype or torch.get_autocast_dtype(pick_device())).removeprefix("torch.") if enabled else "off"
            within = f"{prefix}{node.name}."
            values[node.name] = _encode_graph(values[block.name], encode(given), nodes, within, precision)
        elif node.op == "call_function" and operator == "wrap_with_set_grad_enabled":
            _, block, *given = node.args
            values[node.name] = _encode_graph(values[block.name], encode(given), nodes, f"{prefix}{node.name}.", autocast)
        elif node.op == "call_function" and operator == "getitem" and isinstance(values[node.args[0].name], list):
            values[node.name] = values[node.args[0].name][node.args[1]]
        elif node.op == "call_function":
            if not isinstance(node.target, torch._ops.OpOverload) and operator != "getitem":
                raise RuntimeError(f"torch.export failed: the graph has {operator}; give eval mode a forward in plain PyTorch")
            name = prefix + node.name
            kwargs = {key: encode(value) for key, value in node.kwargs.items()}
            overload = str(node.target) if operator != "getitem" else operator
            nodes.append({"name": name, "op": overload, "args": encode(node.args), "kwargs": kwargs, "autocast": autocast})
            values[node.name] = {"ref": name}
        elif node.op == "output":
            results = encode(node.args[0])
            return results[0] if prefix == "" and len(results) == 1 else results
    raise RuntimeError("torch.export failed: the graph has no output")


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare data and tokenizer of the default task.")
    parser.add_argument("--preset", choices=PRESETS, default=PRESET)
    parser.add_argument("--out", type=Path, help="folder to make; default: where train.py looks when run by hand")
    parser.add_argument("--corpus", type=Path, default=Path(__file__).parent / "corpus" / "annual_messages.jsonl.xz")
    parser.add_argument("--num-shards", type=int, default=DEFAULT_TRAIN_SHARDS, help="gpu preset: training shards to download")
    args = parser.parse_args()
    if args.preset != PRESET:  # the constants above follow the environment, so start over with it set
        os.environ["AUTORESEARCH_PRESET"] = args.preset
        os.execv(sys.executable, [sys.executable, __file__, *sys.argv[1:]])
    if args.num_shards < 1:
        parser.error("--num-shards must be at least 1")
    prepare((args.out or data_directory()).absolute(), args.num_shards, args.corpus)


if __name__ == "__main__":
    main()
