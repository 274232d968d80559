"""Who may look at the page: links that work once, and the cookies that they are exchanged for.

Both are signed with a secret of the workspace that no client of the tools has, so nothing about them is kept in memory: a server
that starts again knows the cookies of the one before, and any command may make a link for a server that runs. Whoever has the
secret's file can make them all; to shut everybody out, delete it.
"""

import hashlib
import hmac
import secrets
import time
from contextlib import suppress
from pathlib import Path

from autoresearch_mcp.errors import NotFoundError, WorkspaceError
from autoresearch_mcp.files import write_atomic
from autoresearch_mcp.workspace import Workspace

LINK_SECONDS, COOKIE_SECONDS = 15 * 60, 30 * 24 * 3600
ADDRESS = "page-address"
USED = "page-links"  # folder of the links that were used and have not yet run out


class Links:
    """Of one workspace."""

    def __init__(self, workspace: Workspace, sealed: bool = False):
        """`sealed`: of a page that tells of the holdout, which another's cookie does not open."""
        self._cookie = "cookie of what is sealed" if sealed else "cookie"
        self._secret = workspace.page_secret().encode()
        self._used, self._address = workspace.state_dir / USED, workspace.state_dir / ADDRESS
        name = hashlib.sha256(str(workspace.root).encode()).hexdigest()[:8]
        self.cookie_name = f"autoresearch-{name}{'-sealed' if sealed else ''}"
        """Cookies do not know ports: two workspaces served on one machine must not overwrite each other's."""

    def make(self) -> str:
        """What a link carries, to be used once and soon."""
        return self._signed("link", LINK_SECONDS)

    def to(self, address: str) -> str:
        """A link to a page that is served there."""
        return f"{address}/?key={self.make()}"

    def serve_at(self, address: str) -> None:
        """Notes where the page is served, for whoever wants a link to it."""
        write_atomic(self._address, address.encode(), 0o600)

    def served(self) -> str:
        """Where it was last served. Raises NotFoundError."""
        try:
            return self._address.read_text(encoding="ascii")
        except OSError as error:
            raise NotFoundError("No page of this workspace has been served. Run: autoresearch-mcp dashboard") from error

    def exchange(self, key: str) -> str | None:
        """A cookie for a link's key; None where the key was used, is too old or is none. Raises WorkspaceError where it cannot be
        noted that it is used: then it is not.
        """
        if not self._holds("link", key):
            return None
        note = self._used / key.partition(".")[0]
        try:
            self._used.mkdir(mode=0o700, exist_ok=True)
            _forget_old(self._used)
            note.touch(exist_ok=False)
        except OSError as error:
            if note.exists():  # it was used, however short ago
                return None
            raise WorkspaceError(f"{self._used} cannot be written: {error}. Free disk space, or make the folder yours.") from error
        return self._signed(self._cookie, COOKIE_SECONDS)

    def knows(self, cookie: str) -> bool:
        return self._holds(self._cookie, cookie)

    def _signed(self, kind: str, seconds: int) -> str:
        what = f"{secrets.token_hex(16)}.{int(time.time()) + seconds}"
        return f"{what}.{self._signature(kind, what)}"

    def _signature(self, kind: str, what: str) -> str:
        return hmac.new(self._secret, f"{kind}:{what}".encode(), hashlib.sha256).hexdigest()

    def _holds(self, kind: str, given: str) -> bool:
        what, _, signature = given.rpartition(".")
        name, _, until = what.partition(".")
        if not hmac.compare_digest(self._signature(kind, what).encode(), signature.encode("utf-8", errors="replace")):
            return False
        return name.isalnum() and until.isdigit() and time.time() < int(until)


def _forget_old(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 2 * LINK_SECONDS:
                path.unlink()
