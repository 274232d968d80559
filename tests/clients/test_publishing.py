"""What registries and desktop clients read about the package, and that it says the truth."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from autoresearch_mcp import __version__
from clients import programs
from conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # one installs Node programs, one a PyTorch


def test_every_file_names_the_version():
    server, manifest = json.loads((ROOT / "server.json").read_text()), json.loads((ROOT / "mcpb" / "manifest.json").read_text())
    bundle = tomllib.loads((ROOT / "mcpb" / "pyproject.toml").read_text())["project"]
    assert {server["version"], server["packages"][0]["version"], manifest["version"], bundle["version"]} == {__version__}
    assert bundle["dependencies"] == [f"autoresearch-mcp=={__version__}"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_registrys_entry_is_ours_to_claim_and_short_enough():
    server = json.loads((ROOT / "server.json").read_text())
    assert len(server["description"]) <= 100  # the registry's limit
    assert f"<!-- mcp-name: {server['name']} -->" in (ROOT / "README.md").read_text()  # by which it sees that the package is ours


def test_the_registrys_entry_starts_the_server(tmp_path: Path):
    """The command line a client makes of server.json, with the package's own command in place of uvx."""
    package = json.loads((ROOT / "server.json").read_text())["packages"][0]
    given = {"--workspace": str(tmp_path / "workspace"), "--preset": "tiny"}
    arguments: list[str] = []
    for argument in package["packageArguments"]:
        arguments += [argument["value"]] if argument["type"] == "positional" else [argument["name"], given[argument["name"]]]
    command = [str(Path(sys.executable).with_name(package["identifier"])), *arguments]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert 'preset = "tiny"' in (tmp_path / "workspace" / "autoresearch.toml").read_text()


@pytest.mark.slow
@pytest.mark.needs("npm")
def test_the_bundle_packs(tmp_path: Path):
    target = tmp_path / "autoresearch.mcpb"
    packed = subprocess.run(
        [str(programs.installed() / "mcpb"), "pack", str(ROOT / "mcpb"), str(target)],
        env=programs.environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert packed.returncode == 0, packed.stdout + packed.stderr
    assert {"manifest.json", "main.py", "pyproject.toml"} <= set(zipfile.ZipFile(target).namelist())


def wheel_in(folder: Path) -> Path:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.needs("pip")
def test_pipx_installs_a_server_that_answers(tmp_path: Path):
    places = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "PIPX_MAN_DIR": str(tmp_path / "man")}
    pins = {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    command = [
        sys.executable,
        "-m",
        "pipx",
        "install",
        "--pip-args=--no-compile",
        "--python",
        sys.executable,
        str(wheel_in(tmp_path)),
    ]
    made = subprocess.run(command, env=os.environ | places | pins, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    program = tmp_path / "bin" / "autoresearch-mcp"
    assert subprocess.check_output((program, "--version"), text=True).strip() == f"autoresearch-mcp {__version__}"

    research = str(tmp_path / "research")
    for arguments in (["init", research, "--preset", "tiny"], ["prepare", "--workspace", research]):
        made = subprocess.run([str(program), *arguments], capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr

    async def go() -> None:
        server = StdioServerParameters(command=str(program), args=["serve", "--workspace", research], env=dict(os.environ))
        async with Client(stdio_client(server)) as client:
            assert "read_train" in {tool.name for tool in (await client.list_tools()).tools}
            status = (await client.call_tool("status", {})).structured_content
            assert status and status["next"] == "call run_experiment with no change, to run the baseline"

    anyio.run(go)
    shutil.rmtree(tmp_path / "pipx")  # it holds a PyTorch


@pytest.mark.needs("pip")
def test_the_wheel_alone_makes_a_workspace(tmp_path: Path):
    """As from uvx or pipx: nothing of the checkout is there."""
    wheel = wheel_in(tmp_path)
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    for task, file in (("default", "train.py"), ("notes", "notes.md")):
        command = [sys.executable, "-c", "import autoresearch_mcp.cli as cli; print(cli.__file__); cli.main()"]
        made = subprocess.run(
            [*command, "init", str(tmp_path / task), "--task", task], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert made.returncode == 0 and str(installed) in made.stdout, made
        assert (tmp_path / task / file).is_file()
    assert (tmp_path / "default" / "corpus" / "annual_messages.jsonl.xz").is_file()
