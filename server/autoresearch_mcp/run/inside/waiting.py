"""Inside a sandbox that nothing has run in: imports what the file of a run will want, and becomes that run.

    python waiting.py MODULE... [-- FILE ARGUMENT...]

With a file it begins as soon as the modules are there. Without one it waits: it writes a byte to the run's socket when the modules
are there, and the supervisor's one line on standard input, {"argv": [file, argument...], "environment": {...}}, is the start. From
there on everything is as if Python had been started with the file, and with this in its environment too. One process serves one
run. Where the line never comes, it ends.
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # this folder: nothing is imported from it

import builtins
import contextlib
import gc
import importlib
import importlib.machinery
import io
import json
import os
import types


def begin(argv: list[str], environment: dict[str, str]) -> None:
    """Runs a file as __main__."""
    os.environ.update(environment)
    path = os.path.abspath(argv[0])
    sys.argv[:] = argv
    sys.path.insert(0, os.path.dirname(path))
    main = types.ModuleType("__main__")
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    main.__dict__.update(__file__=path, __builtins__=builtins, __cached__=None, __annotations__={})
    sys.modules["__main__"] = main
    try:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
        exec(code, main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:  # told as Python itself would, without this file's frame
        trace = error.__traceback__
        error.__traceback__ = trace.tb_next if trace else None
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


def load(modules: list[str]) -> None:
    """Imports them. What imports make stays, so the garbage collector, which would take a fifth of the time, is not asked."""
    gc.disable()
    for name in modules:
        with contextlib.suppress(Exception, SystemExit):  # then the run finds out, if it wants it
            importlib.import_module(name)
    gc.freeze()
    gc.enable()


def wait() -> tuple[list[str], dict[str, str]] | None:
    """What comes on standard input; None where nothing does."""
    os.write(int(os.environ["AUTORESEARCH_SOCKET"]), b"\n")
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return None
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # what standard input is for every run
    os.close(nothing)
    told = json.loads(line)
    return told["argv"], told["environment"]


def main(words: list[str]) -> None:
    end = words.index("--") if "--" in words else len(words)
    load(words[:end])
    told = (words[end + 1 :], dict[str, str]()) if end < len(words) else wait()
    if told is not None:
        begin(*told)


if __name__ == "__main__":
    main(sys.argv[1:])
