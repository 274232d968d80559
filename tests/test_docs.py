"""The pages say what is true: what they show is tried, what they name is there, and none says what another says."""

import importlib.util
import re
import shlex
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from autoresearch_mcp.cli import app
from autoresearch_mcp.connect import CLIENTS, Server, plan
from autoresearch_mcp.create import create
from autoresearch_mcp.sections import FAILURES, LEVELS
from autoresearch_mcp.task import parse_task
from conftest import ROOT, open_session, run

DOCS = ROOT / "docs"
SERVER = ROOT / "server" / "autoresearch_mcp"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
WRITTEN = [page for page in PAGES if page.name != "reference.md"]  # by hand
README_LINES = 130  # three screens
FENCE = re.compile(r"^ *```(?P<language>\w*) *(?P<name>\S*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"autoresearch-mcp ([a-z-]+(?: .*)?)")
GROUP: Any = typer.main.get_command(app)


def ids(page: Path) -> str:
    return page.name


def writer(name: str) -> ModuleType:
    """The script that writes a page."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def section(page: Path, heading: str) -> str:
    return page.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", ["reference", "attacks"])
def test_a_page_that_is_written_from_the_code_is_what_the_code_says(name: str):
    assert writer(name).page() == (DOCS / f"{name}.md").read_text(), "run `make docs`"


def test_every_command_is_in_the_reference():
    text = (DOCS / "reference.md").read_text()
    assert [name for name in GROUP.commands if f"### autoresearch-mcp {name}" not in text] == []


def test_the_readme_fits_three_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), target
        assert not anchor or anchor in anchors(aim), target


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=ids)
def test_a_page_opens_with_whom_it_is_for_and_the_readme_links_it(page: Path):
    title, blank, first = page.read_text().splitlines()[:3]
    assert title.startswith("# ") and not blank and first.startswith("For whoever ")
    assert f"(docs/{page.name})" in (ROOT / "README.md").read_text()


def test_no_page_repeats_another():
    lines = Counter(line for page in WRITTEN for line in {line.strip() for line in page.read_text().splitlines()} if len(line) > 60)
    assert [line for line, count in lines.items() if count > 1] == []


@pytest.mark.parametrize("page", WRITTEN, ids=ids)
def test_commands_that_are_shown_have_such_options(page: Path):
    text = page.read_text()
    shown = [fence["body"] for fence in FENCE.finditer(text) if fence["language"] == "sh"]
    shown += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for line in "\n".join(shown).splitlines():
        if (match := COMMAND.search(line)) is None or line.startswith("#"):
            continue
        name, *arguments = shlex.split(match[1], comments=True)
        command = GROUP.commands[name]
        command.make_context(name, arguments)  # raises for an option that is not there, or an argument that is missing


@pytest.mark.parametrize("page", WRITTEN, ids=ids)
def test_make_targets_that_are_shown_are_there(page: Path):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make\s(\w+)", page.read_text(), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", WRITTEN, ids=ids)
def test_files_that_are_named_are_there(page: Path):
    """Those of ours: by their path in the repository, in the package, or beside the page."""
    for name in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|toml|db)|[\w./-]+/)`", page.read_text()):
        if not name.startswith((".", "/")):
            assert any((place / name).exists() for place in (ROOT, SERVER, page.parent)), name


def test_the_rooms_are_named():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = [path for path in SERVER.rglob("*/") if path.is_dir() and list(path.glob("*.py"))]
    assert [room.name for room in rooms if f"`{room.relative_to(ROOT)}/`" not in text] == []


def test_every_failure_and_every_level_is_explained():
    for page, heading, names in (
        ("operations.md", "A run without a score", FAILURES),
        ("trust.md", "The sandbox", LEVELS),
    ):
        first_cells = " ".join(re.findall(r"^\| (.*?) \|", section(DOCS / page, heading), re.MULTILINE))
        assert set(re.findall(r"`(\w+)`", first_cells)) == set(names)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_files_of_each_client_are_named(client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CODEX_HOME", raising=False)
    (row,) = re.findall(rf"^\| `{client}` \|.*$", (DOCS / "clients.md").read_text(), re.MULTILINE)
    for edit in plan(client, Server(["serve"]), tmp_path / "folder", tmp_path / "home"):
        assert edit.path.name in row


@pytest.mark.slow
@pytest.mark.parametrize("heading", ["A file and its score", "A program that is run"])
def test_the_tasks_that_are_shown_run(heading: str, tmp_path: Path):
    folder = tmp_path / "task"
    folder.mkdir()
    for fence in FENCE.finditer(section(DOCS / "tasks.md", heading)):
        if fence["name"]:
            (folder / fence["name"]).write_text(fence["body"])
    task = parse_task((folder / "autoresearch.toml").read_text())
    for name in (task.files.editable, *task.files.read_only):
        if not (folder / name).exists():  # the page shows the TOML of a bundled task
            (folder / name).write_bytes((ROOT / "examples" / task.name / name).read_bytes())
    session = open_session(create(tmp_path / "workspace", str(folder)).root)
    run(session, "baseline")
    assert session.keep().experiment is not None
