"""Installs what package-lock.json names, by npm, into the folder of prepared data. The lock says by hash what each package is."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

data = Path(sys.argv[1])
for name in ("package.json", "package-lock.json"):
    shutil.copyfile(name, data / name)
npm = shutil.which("npm")
if npm is None:
    sys.exit("npm is not on PATH. Install Node.js 18.16 or later, with npm.")
subprocess.run([npm, "ci", "--prefix", str(data), "--ignore-scripts", "--no-audit", "--no-fund"], check=True)
# Last, for this file says that all is there.
(data / "installed.txt").write_text(hashlib.sha256((data / "package-lock.json").read_bytes()).hexdigest() + "\n")
