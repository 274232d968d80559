"""prepare.py and corpora.py: splits, packing, tokenizer, downloads, and what train.py uses of it."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HARNESS = Path(__file__).parent.parent.parent / "harness"

os.environ["AUTORESEARCH_PRESET"] = "tiny"
sys.path.insert(0, str(HARNESS))
import corpora  # noqa: E402
import prepare  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "tiny"
    prepare.prepare(out)
    return out


def test_the_corpus_is_small_in_the_repository_and_large_enough_in_text():
    splits = corpora.embedded(corpora.EMBEDDED)
    assert corpora.EMBEDDED.stat().st_size < 4_000_000
    assert sum(len(text.encode()) for texts in splits.values() for text in texts) > 5_000_000
    assert (HARNESS / "corpus" / "LICENSE.md").exists() and (HARNESS / "corpus" / "build.py").exists()


@pytest.mark.slow
def test_no_document_and_no_long_passage_is_in_two_splits():
    splits = corpora.embedded(corpora.EMBEDDED)
    assert all(len(texts) >= 5 for texts in splits.values())
    passages = {
        split: {text[i : i + 300] for text in texts for i in range(0, len(text) - 300, 300)} for split, texts in splits.items()
    }
    for split in ("val", "holdout"):
        train = "\n".join(splits["train"])
        sample = sorted(passages[split])[:400]
        assert sum(passage in train for passage in sample) <= 2  # presidents quote, but no document is there twice
    assert not passages["val"] & passages["holdout"]


def test_the_split_is_fixed():
    splits = corpora.embedded(corpora.EMBEDDED)
    digest = hashlib.sha256(
        json.dumps({name: [len(text) for text in texts] for name, texts in splits.items()}).encode()
    ).hexdigest()
    assert {name: len(texts) for name, texts in splits.items()} == {"train": 214, "val": 9, "holdout": 14}
    assert digest == "90c1b5578be49b8029b4de12095249ea3fa572dff7d7ec91d01c2ab3db4d4c4e"


documents = st.lists(st.lists(st.integers(1, 99), max_size=40), min_size=1, max_size=30)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(documents, st.integers(3, 12))
def test_packing_loses_and_invents_nothing(texts: list[list[int]], row_len: int):
    rows = list(corpora.pack_rows([[0, *text] for text in texts], row_len, bos=0))
    assert all(len(row) == row_len and row[0] == 0 for row in rows)
    packed = Counter(int(token) for row in rows for token in row if token)
    given_tokens = Counter(token for text in texts for token in text)
    assert not packed - given_tokens
    left = sum((given_tokens - packed).values())
    assert left < row_len  # at most the last, unfilled row


def test_prepared_files_are_what_meta_says(tiny: Path):
    meta = json.loads((tiny / "meta.json").read_text())
    for split, facts in meta["splits"].items():
        rows = np.fromfile(tiny / f"{split}.bin", dtype=meta["dtype"]).reshape(-1, meta["seq_len"] + 1)
        assert len(rows) == facts["rows"] and rows.max() < meta["vocab_size"]
        assert hashlib.sha256((tiny / f"{split}.bin").read_bytes()).hexdigest() == facts["sha256"]
    assert meta["splits"]["val"]["tokens"] == prepare.EVAL_TOKENS
    assert not list(tiny.glob("*.pkl")) and not list(tiny.glob("*.pt"))


def test_preparing_again_changes_nothing_and_is_deterministic(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before = (tiny / "train.bin").stat().st_mtime_ns
    prepare.prepare(tiny)
    assert "ready" in capsys.readouterr().out and (tiny / "train.bin").stat().st_mtime_ns == before
    prepare.prepare(tmp_path / "again")
    for name in ("train.bin", "val.bin", "holdout.bin", "tokenizer.json", "token_bytes.npy"):
        assert (tiny / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_the_tokenizer_gives_back_what_it_gets_and_counts_raw_bytes(tiny: Path):
    tokenizer = prepare.Tokenizer.from_directory(tiny)
    text = "The year 1865 — naïve café, 你好! \r\n\tend"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    raw, decoded = np.load(tiny / "token_bytes.npy")
    assert raw[tokenizer.encode(text)].sum() == len(text.encode())
    assert decoded[tokenizer.encode("你")].sum() > 3  # parts of a character decode to U+FFFD, three bytes each
    assert tokenizer.get_vocab_size() == prepare.VOCAB_SIZE and raw[tokenizer.get_bos_token_id()] == 0
    assert tokenizer.encode(["a", "b"], prepend=7)[0][0] == 7


HOURS = 1e6  # a budget that no test outlasts


@pytest.fixture
def tokenizer(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> prepare.Tokenizer:
    """With what the dataloader needs besides: data, device, a clock that has not begun and a budget that does not end."""
    monkeypatch.setenv("AUTORESEARCH_DATA", str(tiny))
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cpu")
    monkeypatch.setattr(prepare, "_clock_started", None)
    monkeypatch.setattr(prepare, "TIME_BUDGET", prepare.Budget(HOURS))
    return prepare.Tokenizer.from_directory(tiny)


def spend_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_clock_started", prepare.time.monotonic() - prepare.TIME_BUDGET)


def test_the_dataloader_gives_every_row_once_an_epoch(tiny: Path, tokenizer: prepare.Tokenizer):
    rows = np.fromfile(tiny / "train.bin", dtype=prepare.TOKEN_DTYPE).reshape(-1, prepare.MAX_SEQ_LEN + 1)
    batches = len(rows) // 5
    given: Counter[bytes] = Counter()
    for x, y, epoch in islice(prepare.make_dataloader(tokenizer, 5, prepare.MAX_SEQ_LEN), batches):
        assert x.shape == y.shape == (5, prepare.MAX_SEQ_LEN) and epoch == 1 and (x[:, 1:] == y[:, :-1]).all()
        assert (x[:, 0] == tokenizer.get_bos_token_id()).all()
        given.update(bytes(x[i].numpy().astype(rows.dtype)) + bytes(y[i, -1:].numpy().astype(rows.dtype)) for i in range(5))
    assert sum(given.values()) == batches * 5 > len(rows) - 5
    assert not given - Counter(map(bytes, rows))


def test_the_dataloaders_windows_are_parts_of_rows(tokenizer: prepare.Tokenizer):
    short, _, _ = next(prepare.make_dataloader(tokenizer, 2, prepare.MAX_SEQ_LEN // 4))
    assert short.shape == (2, prepare.MAX_SEQ_LEN // 4)
    with pytest.raises(SystemExit, match="divisor"):
        prepare.make_dataloader(tokenizer, 2, 7)


@pytest.mark.parametrize("parts", [1, 4])
def test_batches_can_be_viewed_flat(tokenizer: prepare.Tokenizer, parts: int):
    x, y, _ = next(prepare.make_dataloader(tokenizer, 3, prepare.MAX_SEQ_LEN // parts))
    assert x.view(-1).shape == y.view(-1).shape == (3 * prepare.MAX_SEQ_LEN // parts,)


def test_for_ends_with_the_budget(tokenizer: prepare.Tokenizer, monkeypatch: pytest.MonkeyPatch):
    seen = 0
    for _ in prepare.make_dataloader(tokenizer, 2, prepare.MAX_SEQ_LEN):
        seen += 1
        if seen == 3:
            spend_the_budget(monkeypatch)
    assert seen == 3


def test_next_gives_nothing_new_after_the_budget_and_does_not_fail(tokenizer: prepare.Tokenizer, monkeypatch: pytest.MonkeyPatch):
    loader = prepare.make_dataloader(tokenizer, 2, prepare.MAX_SEQ_LEN)
    first, second = next(loader), next(loader)
    assert not (first[0] == second[0]).all()
    spend_the_budget(monkeypatch)
    assert next(loader) is second and next(loader) is second
    assert not list(loader)


def test_the_budget_is_a_number_until_it_is_spent(tokenizer: prepare.Tokenizer, monkeypatch: pytest.MonkeyPatch):
    budget = prepare.Budget("300")
    assert f"{budget}s" == "300.0s" and budget == 300 and budget * 2 == 600 and budget - 1 == 299
    for spent in (0, 0.5, 299.9, 300, 301.5):
        assert (spent < budget, spent <= budget, spent > budget, spent >= budget) == (
            spent < 300, spent <= 300, spent > 300, spent >= 300,
        )  # fmt: skip
        assert (budget > spent, budget >= spent, budget < spent, budget <= spent) == (
            spent < 300, spent <= 300, spent > 300, spent >= 300,
        )  # fmt: skip
        assert spent / budget == spent / 300


def test_a_clock_that_left_out_its_first_steps_reaches_the_budget_with_ours(
    tokenizer: prepare.Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    spend_the_budget(monkeypatch)
    own = prepare.TIME_BUDGET * 0.8
    assert own >= prepare.TIME_BUDGET and not own < prepare.TIME_BUDGET
    assert min(own / prepare.TIME_BUDGET, 1.0) == 1.0


def test_a_missing_folder_says_what_to_run(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"prepare\.py --preset tiny"):
        prepare.Tokenizer.from_directory(tmp_path)


# --- the gpu preset's downloads, against a server on this machine that speaks as the hub does ---


class Hub:
    """Serves small parquet shards under the names Karpathy's have, and misbehaves as told."""

    def __init__(self, texts: dict[str, list[str]]):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.files: dict[str, bytes] = {}
        for name, documents in texts.items():
            sink = io.BytesIO()
            pq.write_table(pa.table({"text": documents}), sink, row_group_size=4)
            self.files[name] = sink.getvalue()
        self.requests: list[tuple[str, str, str | None]] = []
        self.fail_next: list[str] = []
        self.cut_next: list[str] = []
        self.corrupt: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.reply(body=False)

            def do_GET(self) -> None:
                self.reply(body=True)

            def reply(self, body: bool) -> None:
                name = self.path.rsplit("/", 1)[-1].split("?")[0]
                hub.requests.append((self.command, name, self.headers.get("Range")))
                if self.path.startswith("/api/"):
                    siblings = [{"rfilename": file} for file in hub.files]
                    content = json.dumps({"id": "karpathy/climbmix-400b-shuffle", "sha": "a" * 40, "siblings": siblings}).encode()
                    if "/tree/" in self.path:
                        content = json.dumps(
                            [{"type": "file", "path": file, "size": len(data), "oid": "0" * 40} for file, data in hub.files.items()]
                        ).encode()
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                elif name in hub.files:
                    if body and name in hub.fail_next:
                        hub.fail_next.remove(name)
                        self.send_response(500)
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    whole = hub.files[name]
                    etag = hashlib.sha256(whole).hexdigest()
                    if name in hub.corrupt:
                        whole = whole[:100] + b"XXXX" + whole[104:]
                    start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
                    content = whole[start:]
                    self.send_response(206 if start else 200)
                    self.send_header("ETag", f'"{etag}"')
                    self.send_header("X-Repo-Commit", "a" * 40)
                    self.send_header("Accept-Ranges", "bytes")
                    if start:
                        self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
                else:
                    content = b""
                    self.send_response(404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body and name in hub.cut_next:
                    hub.cut_next.remove(name)
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    self.connection.close()
                elif body:
                    self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    splits = corpora.embedded(corpora.EMBEDDED)
    shards = {f"shard_{i:05d}.parquet": splits["train"][i * 8 : i * 8 + 8] for i in range(3)}
    shards["shard_06541.parquet"] = splits["holdout"]
    shards["shard_06542.parquet"] = splits["val"]
    made = Hub(shards)
    yield made
    made.server.shutdown()


GPU = (  # the gpu preset with less to score, so that small shards are enough
    "import sys, runpy, os; sys.argv = ['prepare.py', *sys.argv[1:]]; sys.path.insert(0, {harness!r}); import prepare; "
    "import huggingface_hub.constants as hub; hub.DOWNLOAD_CHUNK_SIZE = 8192; "
    "prepare.EVAL_TOKENS = 16 * prepare.MAX_SEQ_LEN; prepare.corpora.time.sleep = lambda s: None; prepare.main()"
)


def prepare_gpu(hub: Hub, out: Path, shards: int = 3) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "AUTORESEARCH_PRESET": "gpu", "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(out.parent / "hf"),
        "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    command = [
        sys.executable,
        "-c",
        GPU.format(harness=str(HARNESS)),
        "--preset",
        "gpu",
        "--out",
        str(out),
        "--num-shards",
        str(shards),
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_shards_are_downloaded_tokenised_and_split(hub: Hub, tmp_path: Path):
    result = prepare_gpu(hub, tmp_path / "out" / "gpu")
    assert result.returncode == 0, result.stdout + result.stderr
    meta = json.loads((tmp_path / "out" / "gpu" / "meta.json").read_text())
    assert meta["seq_len"] == 2048 and meta["vocab_size"] == 8192 and meta["splits"]["val"]["rows"] == 16
    fetched = {name for method, name, _ in hub.requests if method == "GET" and name.endswith(".parquet")}
    assert fetched == set(hub.files)


@pytest.mark.slow
def test_a_broken_download_is_tried_again_and_resumed(hub: Hub, tmp_path: Path):
    hub.fail_next = ["shard_00001.parquet"]
    hub.cut_next = ["shard_00002.parquet"]
    result = prepare_gpu(hub, tmp_path / "out" / "gpu")
    assert result.returncode == 0, result.stdout + result.stderr
    assert any(name == "shard_00002.parquet" and start for _, name, start in hub.requests), "the second part alone was asked for"
    before = len(hub.requests)
    (tmp_path / "out" / "gpu" / "meta.json").unlink()
    assert prepare_gpu(hub, tmp_path / "out" / "gpu").returncode == 0
    assert not any(method == "GET" and name.endswith(".parquet") for method, name, _ in hub.requests[before:]), "shards are kept"


@pytest.mark.slow
def test_a_damaged_shard_is_removed_and_named(hub: Hub, tmp_path: Path):
    hub.corrupt = {"shard_06542.parquet"}
    result = prepare_gpu(hub, tmp_path / "out" / "gpu")
    assert result.returncode != 0 and "shard_06542.parquet is damaged" in result.stderr and "SHA-256" in result.stderr
    assert not (tmp_path / "out" / "gpu").exists()
    hub.corrupt = set()
    assert prepare_gpu(hub, tmp_path / "out" / "gpu").returncode == 0


@pytest.mark.slow
def test_no_connection_is_a_clear_error_and_leaves_nothing_half_done(hub: Hub, tmp_path: Path):
    hub.server.shutdown()
    hub.server.server_close()
    result = prepare_gpu(hub, tmp_path / "out" / "gpu")
    assert (
        result.returncode != 0
        and "check the connection" in result.stderr
        and "Traceback" not in result.stderr.split("prepare.py:")[-1]
    )
    assert not (tmp_path / "out" / "gpu").exists()
