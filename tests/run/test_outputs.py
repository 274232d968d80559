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
from conftest import ended, lay_out, run, spec_of

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
    assert outputs.remove(place / "work")
    assert (place / "outside" / "result").read_text() == "secret"


def test_a_folder_that_is_renamed_meanwhile_leads_nowhere_else(place: Path):
    """Between any two looks the folder on the way is the run's own, a link to one outside, or not there."""
    work = place / "work"
    (work / "sub" / "result").write_text("own")
    (work / "link").symlink_to("../outside")
    stop = threading.Event()

    def rename() -> None:
        while not stop.is_set():
            for old, new in (("sub", "aside"), ("link", "sub"), ("sub", "link"), ("aside", "sub")):
                os.rename(work / old, work / new)

    swapping = threading.Thread(target=rename)
    swapping.start()
    taken: set[bytes] = set()
    try:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            try:
                taken.add(take(place, "sub/result"))
            except OSError:
                continue
    finally:
        stop.set()
        swapping.join()
    assert taken == {b"own"}


def nested(folder: Path, depth: int) -> int:
    """Makes folders in folders, which no path reaches, and returns a descriptor of the last."""
    folder.mkdir(exist_ok=True)
    at = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 60, dir_fd=at)
        inner = os.open("d" * 60, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    return at


def test_no_depth_mode_or_name_hinders_removing(place: Path):
    work = place / "work"
    deepest = nested(work / "deep", 5000)
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=deepest))
    os.close(deepest)
    os.mkdir(os.fsencode(work) + b"/odd \xff\n name")
    (work / "sub" / "result").mkdir()
    (work / "sub" / "result" / "more").touch()
    (work / ".removed-1").mkdir()
    (work / ".removed-1" / "in the way").touch()
    (work / ".removed-2").touch()
    (work / "link").symlink_to("../outside")
    for closed in (work / "sub" / "result", work / "sub", work):
        closed.chmod(0)
    assert outputs.remove(work) and outputs.remove(work)
    assert not os.path.lexists(work)
    assert (place / "outside" / "result").read_text() == "secret"


@pytest.mark.slow
def test_removing_ends_after_a_straggler_does(place: Path):
    stop = threading.Event()

    def write_on() -> None:
        at = os.open(place / "work", os.O_RDONLY)
        number = 0
        while not stop.is_set():
            number += 1
            try:
                os.mkdir(f"new{number}", dir_fd=at)
                os.close(os.open(f"new{number}/file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
            except OSError:
                continue
        os.close(at)

    straggler = threading.Thread(target=write_on)
    straggler.start()
    threading.Timer(0.5, stop.set).start()
    assert outputs.remove(place / "work")
    stop.set()
    straggler.join()
    assert not (place / "work").exists()


def test_removing_gives_up_in_time(place: Path):
    for number in range(50):
        (place / "work" / str(number)).touch()
    assert not outputs.remove(place / "work", patience=0)
    assert (place / "work").exists()


def test_what_a_run_put_in_the_place_of_its_folders_is_not_emptied(tmp_path: Path):
    spec = lay_out(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    (spec.work / "tmp").symlink_to(other)
    (spec.work / "result.txt").write_text("1")
    outputs.remove_all(spec)
    assert (other / "kept").exists()
    assert not spec.work.exists() and not spec.scoring.exists() and spec.path.exists()


@pytest.mark.parametrize("place", ["", "tmp/", "sub/sub/"])
def test_nothing_but_logs_and_the_result_is_left_of_a_run(toy: Make, place: str):
    session = toy(
        f"import os\nos.makedirs('{place}more')\nopen('{place}more/file', 'w').close()\nopen('result.txt', 'w').write('1')\n"
    )
    run(session)
    spec = spec_of(session, 1)
    assert ended(session).score == 1.0
    assert not [path for path in spec.folder.iterdir() if path.is_dir()] and spec.log.exists()


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


@pytest.mark.slow
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
        ("open('result.txt', 'w').write('')\n", "gave no answer"),
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
