"""Where the folders of runs lie: outside every project. Tools look for their settings from a folder upwards (pyproject.toml,
package.json, Cargo.toml, a git repository), and what a run finds shall not depend on where somebody keeps a workspace.

Linux and macOS keep /var/tmp for what may be large and outlive a restart; every user may enter it, so that a run with an id of its
own needs no right for that. The paths are short, for a name of a socket has 107 bytes, and browsers make one below their temporary
folder. Where somebody else has our name there, the cache folder takes its place.
"""

import os
import stat
from pathlib import Path

from autoresearch_mcp.data import cache_root

SETTING = "AUTORESEARCH_RUNS"  # names another folder, on a larger disk for one
SHARED = Path("/var/tmp")


def root() -> Path:
    """The folder of all runs of this user, made where it is missing. Raises OSError."""
    if given := os.environ.get(SETTING):
        folder = Path(given).expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = SHARED / f"autoresearch-{os.getuid()}"
    if not SHARED.is_dir() or not _ours(folder):
        folder = cache_root() / "runs"
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _ours(folder: Path) -> bool:
    """Whether the folder, made if need be, is a real one that nobody else may write to."""
    try:
        folder.mkdir(mode=0o711, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
