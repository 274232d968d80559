"""How much data a program may carry, wherever in its text it hides."""

import base64
import random

import pytest

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.sizes import check_size, literal_bytes
from autoresearch_mcp.sections import Files
from autoresearch_mcp.task import bundled_tasks, parse_task
from conftest import ROOT, replace, run

FILES = Files(editable="train.py")
DATA = random.Random(0).randbytes(20_000)
TEXT = base64.b32encode(DATA).decode()
PARTS = [f"d{i}{TEXT[i : i + 60]}".replace("=", "") for i in range(0, len(TEXT), 60)]


@pytest.mark.parametrize(
    "text",
    [
        f"x = {DATA!r}\n",
        f"x = {TEXT!r}\n",
        f'"""{TEXT}"""\n',
        f"def f():\n    {TEXT!r}\n",
        f'y = 1\nx = f"{TEXT}{{y}}"\n',
        f"x = {hex(int.from_bytes(DATA))}\n",
        f"x = {list(DATA)}\n",
        f"x = {[float(byte) for byte in DATA[:4000]]}\n",
        "".join(f"x += {TEXT[i : i + 9]!r}\n" for i in range(0, len(TEXT), 9)),
        "".join(f"# {part}\n" for part in PARTS),
        "class D:\n" + "".join(f"    {part} = 0\n" for part in PARTS),
        f"f({', '.join(f'{part}=0' for part in PARTS)})\n",
        "def f():\n    global " + ", ".join(PARTS) + "\n",
        "".join(f"import {part} as y\n" for part in PARTS),
        "match x:\n    case A(" + ", ".join(f"{part}=_" for part in PARTS) + "):\n        pass\n",
        "match x:\n" + "".join(f"    case {{1: _, **{part}}}:\n        pass\n" for part in PARTS),
        "".join(f"x = 0.{int.from_bytes(DATA[i : i + 100])}\n" for i in range(0, len(DATA), 100)),
    ],
    ids=lambda text: text[:12],
)
def test_data_is_found_where_it_hides(text: str):
    with pytest.raises(NotAllowedError, match="data belongs into what `prepare` makes"):
        check_size(FILES.model_copy(update={"editable_bytes": 2**20}), text)


def test_what_is_bundled_passes_with_room_to_spare():
    train = (ROOT / "harness" / "train.py").read_text()
    assert literal_bytes(train) < FILES.literal_bytes / 2
    for folder in bundled_tasks().values():
        task = parse_task((folder / "autoresearch.toml").read_text())
        check_size(task.files, (folder / task.files.editable).read_text())


def test_a_file_of_another_language_has_a_size_alone():
    check_size(Files(editable="notes.md"), TEXT)
    with pytest.raises(NotAllowedError, match="131073 bytes; it may have 131072"):
        check_size(Files(editable="notes.md"), "x" * 131_073)


def test_a_patch_that_brings_data_changes_nothing(toy):
    session: Session = toy()
    run(session)
    session.keep()
    before = session.read()
    with pytest.raises(NotAllowedError, match="literal_bytes"):
        replace(session, f"x = {TEXT!r}\n")
    assert session.read() == before
    session.worktree.path.write_text(f"x = {TEXT!r}\n")
    with pytest.raises(NotAllowedError, match="literal_bytes"):
        session.run_experiment("by another way")
