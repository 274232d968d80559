"""Does one step of the loop and dies by SIGKILL at a given point of it. Run by test_deaths.py as a process of its own.

python dying.py WORKSPACE STEP MODULE:NAME before|after
"""

import importlib
import os
import signal
import sys
from pathlib import Path

from conftest import open_session


def arm(point: str, moment: str) -> None:
    module_name, name = point.split(":")
    owner = importlib.import_module(module_name)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)

    def deadly(*args: object, **kwargs: object) -> object:
        if moment == "after":
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    setattr(owner, last, deadly)


def main(workspace: str, step: str, point: str, moment: str) -> None:
    session = open_session(Path(workspace))
    arm(point, moment)
    match step:
        case "apply":
            session.apply_patch("@@\n-open('result.txt', 'w').write('1.0')\n+open('result.txt', 'w').write('2.0')\n")
        case "run":
            session.run_experiment("two")
        case "keep":
            session.keep()
        case "discard":
            session.discard()
    sys.exit("the deadly point was never reached")


if __name__ == "__main__":
    main(*sys.argv[1:])
