"""What some tests need besides Python and git: one table of tools, how each is tried here, and how to get it.

A test marked `@pytest.mark.needs("bubblewrap")`, or whose fixture calls `require("bubblewrap")`, is skipped where the tool is not
there, and the end of the session says for each reason how many tests were skipped. A tool is there when it works, not when a file
of its name exists: that costs each worker process one try a tool, about a second. What the tests ask of it then may still fail.

AUTORESEARCH_TESTS_REQUIRE turns these skips into failures: "all", or names of tools with commas between. .ci/run sets it when it
has installed everything. One more tool is one more row here, and a line in .ci/run where something must be installed.
"""

import functools
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

REQUIRE = "AUTORESEARCH_TESTS_REQUIRE"
PATIENCE = 60  # seconds for one try: a busy machine is slow, and some networks never answer


@dataclass(frozen=True)
class Tool:
    works: Callable[[], bool]
    get: str
    """How to get it, in a few words."""


def enforces(level: str) -> Callable[[], bool]:
    """Whether a level of the sandbox passes its self-check, in a process of its own, as for a server."""
    code = f"from autoresearch_mcp.run.sandbox import detect; raise SystemExit(detect().level != {level!r})"
    return lambda: succeeds(sys.executable, "-c", code, AUTORESEARCH_SANDBOX=level)


def installs_packages() -> bool:
    """Whether pip finds a package on its index: the one that builds ours."""
    return succeeds(
        sys.executable, "-m", "pip", "install", "--retries=0", "--dry-run", "--ignore-installed", "--no-deps", "hatchling"
    )


def installs_programs() -> bool:
    """Whether the Node programs are installed, or npm finds one of them in its registry."""
    from clients import programs

    return (programs.folder() / "done").exists() or succeeds(*programs.NPM, "view", "@openai/codex", "name", "--fetch-retries=0")


def imports(*names: str) -> Callable[[], bool]:
    """Whether these modules can be imported, in a process of their own."""
    return lambda: succeeds(sys.executable, "-c", f"import {', '.join(names)}")


def browses() -> bool:
    """Whether Chromium loads a page, with the options that it is started with in a sandbox that allows no other inside."""
    options = ["--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage"]
    with tempfile.TemporaryDirectory(prefix="autoresearch-chromium-") as profile:
        return succeeds("chromium", *options, f"--user-data-dir={profile}", "--dump-dom", "about:blank")


def succeeds(*command: object, **environment: str) -> bool:
    try:
        return subprocess.run(
            [str(part) for part in command],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
        ).returncode == 0  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False


TOOLS = {
    "bubblewrap": Tool(enforces("bubblewrap"), "install it (Debian: apt install bubblewrap) and allow user namespaces"),
    "chromium": Tool(browses, "install it (Debian: apt install chromium)"),
    "landlock": Tool(
        enforces("landlock"), "use Linux 5.13 or later, with landlock in the kernel's list of security modules (lsm=)"
    ),
    "seatbelt": Tool(enforces("seatbelt"), "use macOS, where /usr/bin/sandbox-exec is part of the system"),
    "ray": Tool(
        imports("ray", "ray.job_submission", "aiohttp", "grpc"), "install it: .venv/bin/pip install -c constraints.txt -e '.[ray]'"
    ),
    "mlflow": Tool(
        imports("mlflow.tracking", "sqlalchemy", "alembic"), "install it: .venv/bin/pip install -c constraints.txt -e '.[mlflow]'"
    ),
    "wandb": Tool(imports("wandb"), "install it: .venv/bin/pip install -c constraints.txt -e '.[wandb]'"),
    "tensorboard": Tool(imports("tensorboard"), "install it: .venv/bin/pip install -c constraints.txt -e '.[tensorboard]'"),
    "npm": Tool(installs_programs, "let npm reach its registry, or name a mirror: npm config set registry URL"),
    "pip": Tool(installs_packages, "let pip reach its index, or name a mirror: pip config set global.index-url URL"),
}


@functools.cache
def works(name: str) -> bool:
    return TOOLS[name].works()


def require(name: str) -> None:
    """Skips the test that runs where the tool does not work; fails it where the tool is required."""
    if works(name):
        return
    reason = f"{name} does not work here; to get it: {TOOLS[name].get}"
    if {name, "all"} & required():
        pytest.fail(f"{reason}. {REQUIRE} asks for it.", pytrace=False)
    pytest.skip(reason)


def required() -> set[str]:
    return {name.strip() for name in os.environ.get(REQUIRE, "").split(",") if name.strip()}


# --- hooks ------------------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*tools): skipped where one of these does not work, see tests/needs.py")
    if unknown := required() - {"all", *TOOLS}:
        raise pytest.UsageError(f"{REQUIRE} names {', '.join(sorted(unknown))}; the tools are all, {', '.join(TOOLS)}.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            require(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.section("skipped, and why")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4} {'test' if count == 1 else 'tests'}: {reason}")
