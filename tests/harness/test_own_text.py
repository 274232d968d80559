"""own_text.py: a folder of one's own documents as three splits that share nothing."""

import gzip
import json
import lzma
import os
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "harness"))
import own_text

WORDS = [f"word{number}" for number in range(2000)]


def document(seed: int, words: int = 200) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


def lines(*texts: str) -> str:
    return "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts)


def read(folder: Path, scored: int = 2000) -> dict[str, list[str]]:
    return {split: list(texts()) for split, texts in own_text.splits(folder, scored).items()}


def test_every_kind_of_file_is_read_and_the_rest_is_left(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "B.MD").write_text("two")
    (tmp_path / "c.jsonl").write_text(lines("three", " ", "four") + "\n")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.write(lines("five"))
    with lzma.open(tmp_path / "e.jsonl.xz", "wt") as file:
        file.write(lines("six"))
    pq.write_table(pa.table({"id": [1, 2, 3], "text": ["seven", None, "eight"]}), tmp_path / "f.parquet")
    (tmp_path / "g.pdf").write_bytes(b"\xff")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "h.txt").write_text("hidden")
    assert list(own_text.documents(tmp_path)) == ["one", "three", "four", "five", "two", "six", "seven", "eight"]


def test_nothing_is_in_two_splits_or_twice_in_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    texts = [document(seed) for seed in range(300)]
    (tmp_path / "a.jsonl").write_text(lines(*texts))
    (tmp_path / "b.jsonl").write_text(lines(*(text.replace(" ", "\n  ") for text in texts[:50])))
    found = read(tmp_path)
    assert sorted(text for split in found.values() for text in split) == sorted(texts)
    assert len(found["train"]) > 4 * len(found["val"]) > 0 and found["holdout"]
    assert "300 documents" in capsys.readouterr().out
    assert read(tmp_path) == found, "drawn from the documents themselves"


def test_what_is_added_moves_few(tmp_path: Path):
    texts = [document(seed) for seed in range(400)]
    (tmp_path / "a.jsonl").write_text(lines(*texts))
    before, added = read(tmp_path), [document(seed) for seed in range(400, 440)]
    (tmp_path / "0.jsonl").write_text(lines(*added))
    after = read(tmp_path)
    assert set(after["val"]) <= set(before["val"]) | set(added)
    assert len(set(before["train"]) - set(after["train"])) <= len(added)


def test_a_document_that_is_nearly_one_that_is_scored_on_is_never_trained_on(tmp_path: Path):
    texts = [document(seed) for seed in range(200)]
    (tmp_path / "a.jsonl").write_text(lines(*texts))
    found = read(tmp_path)
    changed = [f"{text.upper()}! {document(number + 1000, 40)}" for number, text in enumerate(found["val"] + found["holdout"])]
    inside = [f"{document(number + 2000)} {text} {document(number + 3000)}" for number, text in enumerate(found["val"])]
    (tmp_path / "b.jsonl").write_text(lines(*changed, *inside))
    again = read(tmp_path)
    kept = [text for split in again.values() for text in split]
    assert len(kept) <= len(texts) + len(changed) and set(kept) <= {*texts, *changed, *inside}
    sealed = {split: [own_text.sequences(text) for text in again[split]] for split in ("val", "holdout")}
    for others, against in (("train", sealed["val"] + sealed["holdout"]), ("holdout", sealed["val"])):
        for mine in map(own_text.sequences, again[others]):
            assert all(len(mine & theirs) < own_text.OVERLAP * min(len(mine), len(theirs)) for theirs in against)


def test_few_long_documents_give_every_split_some(tmp_path: Path):
    for count in (12, 40):
        (tmp_path / "a.jsonl").write_text(lines(*(document(seed, 5000) for seed in range(count))))
        found = read(tmp_path, 1000)
        assert all(found.values()) and len(found["train"]) >= count / 2


def test_short_documents_are_compared_whole(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(
        lines(*(f"{word} again" for word in WORDS[:500]), *(f"{word.upper()}, again!" for word in WORDS[:500]))
    )
    found = read(tmp_path, 100)
    seen = {split: {text.lower().replace(",", "").rstrip("!") for text in texts} for split, texts in found.items()}
    assert not seen["train"] & seen["val"] and not seen["train"] & seen["holdout"] and not seen["val"] & seen["holdout"]


def test_one_long_file_is_cut_into_documents_between_its_paragraphs(tmp_path: Path):
    paragraphs = [document(seed, 100) for seed in range(400)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    found = list(own_text.documents(tmp_path))
    assert len(found) > 20 and all(len(text) <= 2 * own_text.PART for text in found)
    assert "".join(found) == "\n\n".join(paragraphs)
    assert all(text.endswith("\n") for text in found[:-1])
    assert "".join(own_text.parts("x" * 55_555)) == "x" * 55_555
    assert all(read(tmp_path).values())


def test_little_text_is_told_and_as_much_as_can_be_is_scored_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.jsonl").write_text(lines(*(document(seed, 50) for seed in range(400))))
    found = read(tmp_path, 1_000_000)
    assert "about 30.0 MB give 1000000 tokens" in capsys.readouterr().out
    assert len(found["val"]) == pytest.approx(80, abs=2)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', 'a.jsonl cannot be read: line 2 is no JSON object with a string "text"'),
        ("a.jsonl", b"nothing\n", "line 1 is no JSON object"),
        ("a.jsonl", b'["text"]\n', "line 1 is no JSON object"),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, "line 1 is no JSON object"),
        ("a.jsonl", b'{"text": "a \\ud800"}\n', "line 1 has half a character"),
        ("a.txt", b"\xff\xfe", "a.txt cannot be read: 'utf-8' codec"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz cannot be read"),
        ("a.jsonl.xz", b"no xz", "a.jsonl.xz cannot be read"),
        ("a.parquet", b"no parquet", "a.parquet cannot be read"),
        ("a.pdf", b"", "has no .txt, .md, .jsonl or .parquet file (it has: .pdf)"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, name: str, content: bytes, said: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        read(tmp_path)
    assert said in str(ended.value)
    assert any(step in str(ended.value) for step in ("Mend it", "Name another folder"))


def test_a_table_without_text_and_a_folder_that_is_none_are_named(tmp_path: Path):
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SystemExit, match=r"no column `text` \(it has: body\)"):
        read(tmp_path)
    pq.write_table(pa.table({"text": [b"x"]}), tmp_path / "a.parquet")
    with pytest.raises(SystemExit, match=r"holds no strings \(it holds: binary\)"):
        read(tmp_path)
    with pytest.raises(SystemExit, match="is no folder"):
        read(tmp_path / "b")


def test_a_mark_of_the_encoding_is_no_text_and_any_name_will_do(tmp_path: Path):
    with open(os.fsencode(tmp_path) + b"/\xff.txt", "wb") as file:
        file.write(b"\xef\xbb\xbfone")
    assert list(own_text.documents(tmp_path)) == ["one"] and own_text.digest(tmp_path)


def test_in_scripts_without_spaces_a_changed_copy_is_near_too():
    text = "".join(chr(random.Random(number).randrange(0x4E00, 0x9000)) for number in range(500))
    one, other = own_text.sequences(text), own_text.sequences(f"{text[:250]}\u4e00{text[251:]}")
    assert len(one & other) > 0.9 * len(one)


def test_another_text_is_another_digest(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    first = own_text.digest(tmp_path)
    (tmp_path / "b.pdf").write_text("one")
    assert own_text.digest(tmp_path) == first
    (tmp_path / "a.txt").write_text("two")
    assert own_text.digest(tmp_path) != first
