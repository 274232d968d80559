"""What follows when an agent has ended, or has stood still: another start now, another one later, or the end of the night. Pure.

An agent that added to the ledger is started again at once, for it works; its context was full, it thought that it was done, or it
asked. One that did not is started again after FIRST_PAUSE seconds, then after twice as long each time, up to LONGEST_PAUSE. Nobody
is there to mend what is wrong, so the night gives up: after FEW such starts in a row where no start of the night has called a tool
(a wrong key, an unknown option, a server that does not start); after MANY where one has, for then it did work, and the network may
come back: that takes some two hours of pauses. A limit of the model's provider says nothing about the agent and is waited for, from
LIMIT_PAUSE to LONGEST_LIMIT seconds, all night if need be.

The price: an agent that adds one row a start, and says nothing useful, is started a thousand times a night and more; its bill is
shown by the count of starts, and bounded by the provider's. A limit is known by its words in the output of an agent that failed
or stood still; where it is worded otherwise, the night gives up after MANY.
"""

import re
from dataclasses import dataclass, replace

AT_ONCE = 2.0  # seconds, even for an agent that works: its files and sockets are let go
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
LIMIT_PAUSE, LONGEST_LIMIT = 60.0, 1800.0
FEW, MANY = 5, 20  # starts in a row without a new row
LAST_WORDS = 2000  # characters at the end of the output that are searched for what went wrong

# As Claude Code 2.1, Codex 0.169 and Gemini CLI 0.61 word it; 429 is "too many requests" (RFC 6585), 529 Anthropic's "overloaded".
_LIMIT = re.compile(
    r"(?:status|code|error|rejected)\W{1,6}(?:429|529)\b|too many requests|rate.?limit|overloaded|resource.?exhausted|quota"
    r"|(?:usage|session|weekly|hourly|daily|hit your) limit|limit reached",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Ended:
    """One start of the agent, when it is over."""

    status: int | None
    """Its exit status; None where it had stood still and was ended."""
    output: str
    """The end of what it printed."""
    called: bool
    """Whether it has called a tool of ours."""
    recorded: bool
    """Whether the ledger has grown by its doing: a run that was on before ends by itself, and the server repeats runs unasked."""

    @property
    def limited(self) -> bool:
        failed = self.status != 0 or not self.recorded  # a script around an agent may swallow its status
        return failed and _LIMIT.search(self.output[-LAST_WORDS:]) is not None

    @property
    def asked(self) -> bool:
        return self.status == 0 and self.output.rstrip(" \n\t*_`'\")").endswith("?")

    @property
    def kind(self) -> str:
        """How it ended, in a word that is counted."""
        return "limited" if self.limited else "stalled" if self.status is None else "failed" if self.status else "ended"

    def reason(self) -> str:
        """Why it is over, in the words of the log and of the next start's prompt."""
        if self.limited:
            return "its model's provider has a limit"
        if self.status is None:
            return "it stood still: no call while no run was on"
        if self.asked:
            return "it asked a question and ended"
        return "it ended by itself" if self.status == 0 else f"it failed (exit status {self.status})"


@dataclass(frozen=True)
class Patience:
    """What is known of all starts so far."""

    called: bool = False
    """Whether a tool has been called tonight."""
    fruitless: int = 0
    """Starts in a row that added nothing to the ledger, limits aside."""
    limits: int = 0
    """Limits in a row."""


@dataclass(frozen=True)
class Next:
    pause: float | None
    """Seconds until the next start; None where there is none."""
    advice: str = ""
    """What a human should do, where there is none."""


def after(patience: Patience, ended: Ended) -> tuple[Patience, Next]:
    """What is known after one more start, and what comes next."""
    known = replace(patience, called=patience.called or ended.called, fruitless=0 if ended.recorded else patience.fruitless)
    if ended.limited:
        known = replace(known, limits=1 if ended.recorded else patience.limits + 1)
        return known, Next(_doubled(LIMIT_PAUSE, known.limits, LONGEST_LIMIT))
    known = replace(known, limits=0)
    if ended.recorded:
        return known, Next(AT_ONCE)
    known = replace(known, fruitless=known.fruitless + 1)
    if known.fruitless < (MANY if known.called else FEW):
        return known, Next(_doubled(FIRST_PAUSE, known.fruitless, LONGEST_PAUSE))
    if known.called:
        return known, Next(None, f"{MANY} starts in a row added nothing to the ledger. See what the agent said last, in the log.")
    return known, Next(
        None,
        f"The agent was started {FEW} times and never called a tool. Start it by hand with the same command and see what it says: "
        "a key, an option, a permission or the server is wrong.",
    )


def _doubled(first: float, times: int, longest: float) -> float:
    """`first` at the first time, twice as much at each further one, `longest` at most."""
    return min(first * 2.0 ** min(times - 1, 30), longest)
