"""Tries: find the corpus where this package is installed or checked out, whose documents are those of val and holdout.
Against: sealed data
Ends: crash error
Needs: landlock
"""

import glob
import site
import sys

roots = {*sys.path, *site.getsitepackages(), *glob.glob("@SITE@"), "@CHECKOUT@"}
for root in roots:
    for path in (
        *glob.glob(f"{root}/autoresearch_mcp*/**", recursive=True),
        f"{root}/autoresearch_mcp/tasks/harness/corpus/annual_messages.jsonl.xz",
        f"{root}/harness/corpus/annual_messages.jsonl.xz",
        f"{root}/autoresearch_mcp/data.py",
    ):
        try:
            open(path, "rb").read(10)
            print("BREACH: read", path)
        except OSError as error:
            print(path, error)
try:
    import autoresearch_mcp

    print("BREACH: imported", autoresearch_mcp)
except ImportError as error:
    print(error)
