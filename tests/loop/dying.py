"""Does one step of the loop and dies by SIGKILL at a given point of it. Run by test_deaths.py as a process of its own.

python dying.py WORKSPACE STEP MODULE:NAME before|after [COUNT]
"""

import importlib
import os
import signal
import sys
from pathlib import Path

from conftest import open_session


def arm(point: str, moment: str, count: int) -> None:
    module_name, name = point.split(":")
    owner = importlib.import_module(module_name)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)
    calls = 0

    def deadly(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if moment == "before" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, last, deadly)


def main(workspace: str, step: str, point: str, moment: str, count: str = "1") -> None:
    session = open_session(Path(workspace))
    arm(point, moment, int(count))
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
