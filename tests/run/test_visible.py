"""What a run can read is what is listed: every readable file is looked into, at every level."""

import base64
import bz2
import io
import json
import lzma
import os
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.data import cache_root
from autoresearch_mcp.doctor import examine
from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run import sandbox, visible
from autoresearch_mcp.run.cell import Cell
from autoresearch_mcp.run.levels import Confinement
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import parse_task
from conftest import ROOT, TOY, ended, git, log_of, open_session, run

Make = Callable[..., Session]
CONFINED = [pytest.param(level, marks=pytest.mark.needs(level)) for level in ("landlock", "bubblewrap")]
LOOK = Path(__file__).with_name("look_everywhere.py")
DONE = "open('result.txt', 'w').write('1')\n"
PIECE = 64


def with_packages(*names: str) -> str:
    return TOY.replace("[run]\n", f"[run]\npackages = {json.dumps(names)}\n")


# --- rules ---


def test_the_nearest_word_counts(tmp_path: Path):
    for path in ("usr/lib/python3/dist-packages/numpy", "usr/lib/x86", "usr/src"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "usr/lib/one.so").touch()
    (tmp_path / "usr/lib/away").symlink_to("../src")
    packages = tmp_path / "usr/lib/python3/dist-packages"
    ruled = visible.rules([tmp_path / "usr/lib", packages / "numpy", tmp_path / "missing"], [packages, tmp_path / "usr", tmp_path])
    assert ruled == [(tmp_path / "usr/lib", True), (packages, False), (packages / "numpy", True)]
    assert visible.allowed(ruled) == [tmp_path / "usr/lib/one.so", packages / "numpy", tmp_path / "usr/lib/x86"]


def test_links_on_the_way_are_known_and_what_is_below_them_has_one_name(tmp_path: Path):
    (tmp_path / "real" / "bin").mkdir(parents=True)
    (tmp_path / "real" / "bin" / "python").touch()
    (tmp_path / "venv").symlink_to("real")
    (tmp_path / "python").symlink_to(tmp_path / "venv" / "bin" / "python")
    shown = [tmp_path / "python"]
    ruled = visible.rules(shown, [tmp_path / "venv" / "bin"])
    assert ruled == [(tmp_path / "real" / "bin" / "python", True)]
    assert visible.links(shown, ruled) == {
        tmp_path / "python": str(tmp_path / "venv" / "bin" / "python"),
        tmp_path / "venv": "real",
    }


def test_neither_this_package_nor_what_only_it_needs_is_among_what_a_run_imports():
    names = set(visible.entries(()))
    assert {"torch", "numpy", "numpy.libs", "tiktoken", "safetensors", "sympy"} <= names
    assert not [name for name in names if re.match("autoresearch|mcp|matplotlib|pip|pyarrow|pydantic", name, re.IGNORECASE)]
    assert not [path for path in visible.entries(()).values() if not path.exists()]


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes what an installed package of this test's own says of itself."""
    folder = tmp_path / "site-packages" / "ours-1.0.dist-info"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(visible, "package_folders", lambda: (folder.parent,))

    def write(requires: str, record: str) -> None:
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n{requires}")
        if record:
            (folder / "RECORD").write_text(record)

    return write


def test_a_package_that_is_still_being_installed_is_found_when_it_is_there(described: Callable[[str, str], None]):
    described("", "")
    assert "ours" not in visible.entries(["ours"])
    described("", "ours/__init__.py,,\n")
    assert "ours" in visible.entries(["ours"])


def test_a_package_that_says_nonsense_of_itself_is_named_and_ends_no_process(described: Callable[[str, str], None]):
    described("Requires-Dist: no, such: thing\n", "ours/__init__.py,,\n")
    with pytest.raises(ValueError, match="the package ours says of itself cannot be read"):
        visible.entries(["ours"])
    visible.get_ready(["ours"])


@pytest.mark.parametrize("level", CONFINED)
def test_what_is_private_stays_so_below_what_is_shown(level: str, tmp_path: Path):
    """As in a container that keeps its checkout below /usr and its packages there too."""
    kept = (
        "usr/lib/a",
        "usr/app/secret",
        "usr/app/data/given",
        "usr/lib/python3/dist-packages/listed/b",
        "usr/lib/python3/dist-packages/c",
    )
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    folder, packages = tmp_path / "folder", tmp_path / "usr/lib/python3/dist-packages"
    folder.mkdir()
    code = f"""
for name in {kept!r}:
    try:
        print(open({str(tmp_path)!r} + "/" + name).read())
    except OSError:
        pass
    try:
        open({str(tmp_path)!r} + "/" + name + "-new", "w")
        print("written", name)
    except OSError:
        pass
"""
    confinement = Confinement(
        folder, [tmp_path / "usr", packages / "listed", tmp_path / "usr/app/data"], [packages, tmp_path / "usr/app"]
    )
    command = sandbox.wrap(level, [sys.executable, "-I", "-c", code], confinement)
    result = subprocess.run(command, cwd=folder, env=sandbox.environment(folder, "x"), capture_output=True, text=True)
    assert result.stdout.split() == ["usr/lib/a", "usr/app/data/given", "usr/lib/python3/dist-packages/listed/b"], result.stderr


# --- packages of a task ---


@pytest.mark.slow
@pytest.mark.parametrize("level", ["none", *CONFINED])
@pytest.mark.parametrize("options", [[], ["-I"]])
def test_a_run_imports_what_is_listed_and_nothing_else(level: str, options: list[str], toy: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(sandbox.OVERRIDE, level)
    sandbox.detect.cache_clear()
    work = "import sys, numpy, tomlkit\nprint(sys.prefix, tomlkit.__file__)\ntry:\n    import matplotlib\nexcept ImportError:\n    print('gone')\n"
    toml = with_packages("tomlkit").replace('["{python}", "work.py"]', json.dumps(["{python}", *options, "work.py"]))
    session = toy(work + DONE, toml=toml)
    run(session)
    sandbox.detect.cache_clear()
    assert ended(session).score == 1.0 and ended(session).enforcement == level, log_of(session, 1)
    assert "gone" in log_of(session, 1) and "/python" in log_of(session, 1)


@pytest.mark.slow
def test_a_run_that_misses_an_installed_package_says_how_to_list_it(toy: Make):
    session = toy("import numpy\nimport matplotlib.pyplot\n" + DONE)
    run(session)
    assert ended(session).failure == "error"
    assert 'can add "matplotlib" to packages below [run]' in ended(session).excerpt


@pytest.mark.parametrize(
    "output", ["No module named 'nowhere_at_all'", "No module named 'autoresearch_mcp'", "No module named 'os'", ""]
)
def test_nothing_is_advised_where_listing_would_not_help(output: str):
    assert visible.hint(output, ()) is None


def test_a_package_that_is_not_installed_is_refused_before_anything_is_made(task_folder: Callable[..., Path], tmp_path: Path):
    with pytest.raises(TaskError, match="pip install no-such-package-here"):
        create(tmp_path / "workspace", str(task_folder(with_packages("no-such-package-here"))))
    assert not (tmp_path / "workspace").exists()


@pytest.mark.slow
def test_a_package_that_has_gone_is_found_by_doctor_and_refuses_the_run(toy: Make, tmp_path: Path):
    """Installed when the workspace was made, and not any more."""
    session = toy(DONE, toml=with_packages("tomlkit"))
    text = (session.workspace.root / "autoresearch.toml").read_text().replace("tomlkit", "no-such-package-here")
    (session.workspace.root / "autoresearch.toml").write_text(text)
    git(session.workspace.root, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qam", "another")
    session = open_session(session.workspace.root, "again")
    (found,) = [check for check in examine(session.workspace.root) if check.name == "run.packages"]
    assert found.level == "error" and "pip install no-such-package-here" in found.fix
    run(session)
    assert ended(session).outcome == "refused" and "pip install no-such-package-here" in ended(session).excerpt


@pytest.mark.parametrize("name", ["autoresearch-mcp", "Autoresearch_MCP", "../torch", "torch>=2"])
def test_what_cannot_be_listed(name: str):
    with pytest.raises(TaskError, match="packages"):
        parse_task(with_packages(name))


# --- every readable file ---


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A run of the default task with its data, laid out in a workspace and not started."""
    folder = tmp_path_factory.mktemp("default")
    session = open_session(create(folder / "workspace", str(ROOT / "harness"), "tiny").root)
    session.data.prepare(session.workspace.root)
    runs = session.workspace.state_dir / "runs" / "1"
    for name in ("work", "scoring"):
        (runs / name / "tmp").mkdir(parents=True)
    return RunSpec(
        run=1,
        experiment=1,
        tag="test",
        seed=1,
        task=session.task,
        folder=runs,
        ledger=session.ledger.path,
        results=session.results.path,
        data=session.data.path,
        enforcement="none",
    )


def text_of(data: Path, split: str) -> bytes:
    """A split's text, row after row."""
    tokenizer, meta = json.loads((data / "tokenizer.json").read_text()), json.loads((data / "meta.json").read_text())
    tokens = [base64.b64decode(token) for token in tokenizer["ranks"]] + [b"\0" * 16] * len(tokenizer["special"])
    rows = np.fromfile(data / f"{split}.bin", dtype=meta["dtype"]).reshape(-1, meta["seq_len"] + 1)
    return b"\0".join(b"".join(tokens[token] for token in row) for row in rows.tolist())


CLEAN: list[np.ndarray] = [np.empty((0, 4), np.int64)]
"""Files that were looked into at another level, and held nothing: they are the same files."""


def index_of(data: Path) -> bytes:
    """What must not be found: sealed text, of it what the training text lacks, and all token files."""
    train, sealed = text_of(data, "train"), text_of(data, "val") + bytes(PIECE) + text_of(data, "holdout")
    sealed = sealed[: len(sealed) // PIECE * PIECE]
    fresh = [(piece := sealed[at : at + PIECE]) not in train and any(piece) for at in range(0, len(sealed), PIECE)]
    tokens = b"".join((data / f"{split}.bin").read_bytes()[: 4 << 20] for split in ("val", "holdout", "train"))
    fresh += [len(set(tokens[at : at + PIECE])) > 8 for at in range(0, len(tokens) - PIECE + 1, PIECE)]
    assert sum(fresh) > 1000
    packed = io.BytesIO()
    np.savez(packed, sealed=np.frombuffer(sealed + tokens, np.uint8), fresh=np.array(fresh), clean=np.concatenate(CLEAN))
    return packed.getvalue()


def candidates(spec: RunSpec) -> str:
    """Files that a run might reach by name where it cannot list their folders, found from outside."""
    home = Path.home()
    roots = {
        *visible.package_folders(),
        *visible.system(),
        ROOT,
        spec.results.parent,
        cache_root(),
        home / ".cache",
        home / ".config",
    }
    roots |= {Path(sys.prefix), Path(sys.base_prefix), Path("/opt"), Path("/etc")}
    paths = {str(root) for root in roots if root.is_file()}
    for root in roots:
        paths |= {os.path.join(folder, name) for folder, _, files in os.walk(root) for name in files}
    return "\0".join(sorted(paths))


def look_everywhere(spec: RunSpec, level: str, paths: str, *roots: str) -> list[str]:
    """What the run prints that looks into every file it can read: those that hold something sealed, and how many they were."""
    spec = spec.model_copy(update={"enforcement": level})
    assert spec.data is not None
    log = BoundedLog(spec.log, 1 << 20)
    with tempfile.TemporaryFile() as index, tempfile.TemporaryFile() as named, tempfile.TemporaryFile() as clean:
        (spec.work / LOOK.name).write_text(LOOK.read_text())
        for file, content in ((index, index_of(spec.data)), (named, os.fsencode(paths))):
            file.write(content)
            file.seek(0)
        child, ours = Cell(spec).start_run(["{python}", LOOK.name, *roots], log)
        with ours:
            socket.send_fds(ours, [b"."], [index.fileno(), named.fileno(), clean.fileno()])
            status = child.process.wait(900)
        clean.seek(0)
        CLEAN.extend([np.load(clean)] if status == 0 else [])
    child.drain()
    child.end()
    printed = spec.log.read_text().splitlines()
    assert status == 0 and printed, printed
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("level", CONFINED)
def test_whoever_looks_finds_what_is_there(level: str, spec: RunSpec):
    """Else finding nothing would mean nothing: text and tokens, wrapped in each way, in a folder that can be read."""
    assert spec.data is not None
    text, tokens = text_of(spec.data, "val")[1000:1400], (spec.data / "holdout.bin").read_bytes()[1001:1301]
    wheel, tar = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("corpus.jsonl.xz", lzma.compress(text))
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        member = tarfile.TarInfo("inner.bz2")
        member.size = len(packed := bz2.compress(tokens))
        archive.addfile(member, io.BytesIO(packed))
    hidden = {"plain": b"x" * 33 + text, "tokens": bytes(77) + tokens, "ours.whl": wheel.getvalue(), "tar.gz": tar.getvalue()}
    for name, content in hidden.items():
        (spec.work / name).write_bytes(content)
    (spec.work / "half").write_bytes(text[:80])
    try:
        *found, looked = look_everywhere(spec, level, str(spec.work / "plain"), str(spec.work))
    finally:
        for name in (*hidden, "half"):
            (spec.work / name).unlink()
    assert sorted(found) == sorted(f"found {spec.work / name}" for name in hidden), looked


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("level", CONFINED)
def test_no_readable_file_holds_a_token_file_or_sealed_text(level: str, spec: RunSpec):
    *found, looked = look_everywhere(spec, level, candidates(spec))
    assert not found, found
    assert (files := re.match(r"looked at (\d+) files", looked)) and int(files.group(1)) > 5000, looked
