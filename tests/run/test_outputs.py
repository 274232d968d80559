"""Outputs of a run are taken over as regular files, within bounds, and nothing that a run makes of its folder is followed."""

import os
import re
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run import outputs
from conftest import ended, lay_out, run

Make = Callable[..., Session]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run's folder beside one that is none of its business."""
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "result").write_text("secret")
    return tmp_path


def take(place: Path, name: str = "result", limit: int = 1 << 30) -> bytes:
    target = place / "scoring" / name
    outputs.take_over(place / "work", name, target, limit)
    return target.read_bytes()


def test_a_file_is_copied_and_replaces_what_was_there(place: Path):
    content = os.urandom(3 * outputs.BLOCK + 17)
    (place / "work" / "sub" / "result").write_bytes(b"before")
    assert take(place, "sub/result") == b"before"
    (place / "work" / "sub" / "result").write_bytes(content)
    assert take(place, "sub/result") == content


def link_to_a_file(work: Path) -> None:
    (work / "result").symlink_to("../outside/result")


def hard_link(work: Path) -> None:
    os.link(work.parent / "outside" / "result", work / "result")


def pipe(work: Path) -> None:
    os.mkfifo(work / "result")


def folder(work: Path) -> None:
    (work / "result").mkdir()


def nothing(work: Path) -> None:
    return


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (link_to_a_file, "is a link"),
        (hard_link, "2 names"),
        (pipe, "no regular file"),
        (folder, "no regular file"),
        (nothing, "No such file"),
    ],
)
def test_what_is_no_file_of_its_own_is_refused(place: Path, make: Callable[[Path], None], reason: str):
    make(place / "work")
    with pytest.raises(OSError, match=reason):
        take(place)
    assert not (place / "scoring" / "result").exists()


def test_a_folder_that_is_a_link_is_not_followed(place: Path):
    (place / "work" / "sub").rmdir()
    (place / "work" / "sub").symlink_to("../outside")
    with pytest.raises(OSError):
        take(place, "sub/result")
    outputs.remove(place / "work", "sub/result")
    assert (place / "outside" / "result").read_text() == "secret"


def test_removing_takes_what_lies_there_and_follows_no_link(place: Path):
    (place / "work" / "sub" / "result").mkdir()
    (place / "work" / "sub" / "result" / "more").touch()
    (place / "work" / "result").symlink_to("../outside")
    for name in ("sub/result", "result", "missing", "missing/too"):
        outputs.remove(place / "work", name)
    assert not os.path.lexists(place / "work" / "sub" / "result") and not os.path.lexists(place / "work" / "result")
    assert (place / "outside" / "result").read_text() == "secret"


def test_what_a_run_put_in_the_place_of_its_folders_is_not_emptied(tmp_path: Path):
    spec = lay_out(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    (spec.work / "tmp").symlink_to(other)
    (spec.work / "result.txt").write_text("1")
    outputs.remove_all(spec)
    assert (other / "kept").exists()
    assert not os.path.lexists(spec.work / "tmp") and not (spec.work / "result.txt").exists()


def test_a_sparse_file_is_refused_before_it_fills_the_disk(place: Path):
    with open(place / "work" / "result", "wb") as file:
        file.write(b"x")
        file.truncate(8 << 30)
    with pytest.raises(OSError, match="is sparse"):
        take(place, limit=16 << 30)
    assert not (place / "scoring" / "result").exists()


def test_a_file_that_grows_meanwhile_is_refused(place: Path):
    (place / "work" / "result").write_bytes(bytes(64 << 20))
    stop = threading.Event()

    def grow() -> None:
        with open(place / "work" / "result", "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"x" * 4096)
                time.sleep(0.0002)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(OSError, match="changed while it was taken over"):
            take(place)
    finally:
        stop.set()
        writer.join()
    assert not (place / "scoring" / "result").exists()


def test_a_large_file_takes_no_memory(place: Path):
    with open(place / "work" / "result", "wb") as file:
        for _ in range(256):
            file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outputs.take_over(place / "work", "result", place / "scoring" / "result", 1 << 30)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB on Linux, bytes on macOS


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("", "result.txt"),
        ("import os\nos.symlink('/etc/hostname', 'result.txt')\n", "result.txt"),
        ("import os\nos.mkfifo('result.txt')\n", "result.txt"),
        ("import os\nos.mkdir('result.txt')\n", "result.txt"),
        ("open('result.txt', 'w').write('not a number')\n", "no number"),
        ("open('result.txt', 'w').write('nan')\n", "no number|finite"),
        ("open('result.txt', 'w').write('1e999')\n", "finite"),
        ("open('result.txt', 'w').write('true')\n", "must be a number"),
        ("open('result.txt', 'w').write('')\n", "printed nothing"),
    ],
)
def test_a_run_without_a_usable_result_is_no_score(toy: Make, work: str, reason: str):
    session = toy(work)
    run(session)
    assert ended(session).score is None and ended(session).outcome in ("crash", "refused")
    assert re.search(reason, ended(session).excerpt), ended(session).excerpt


def test_an_output_larger_than_allowed_is_refused(toy: Make):
    session = toy("open('result.txt', 'w').write('1' + ' ' * 5000)\n", budget_seconds="20\noutput_bytes = 100")
    run(session)
    assert ended(session).score is None and "larger than 100 bytes" in ended(session).excerpt
