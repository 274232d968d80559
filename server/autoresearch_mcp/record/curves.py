"""Whether a run that is on is hopeless, far below every end that is plausible from there, or has diverged. Pure.

A curve is what a run has printed of its progress at MOMENTS equal parts of its budget; nobody knows what those numbers are, only
that a good run moves them where the best did. Moved the same way, downwards say, the rule at a moment is:

    hopeless if   y - DROPS * d  >  e + BEHIND * w

y    what the run stands at
d    the furthest that any earlier run still came down from that moment to its end
e    the worst end of the best experiment's runs
w    the way that they came, from the first moment on

So a run is ended that, coming down twice as far as any before it did from there, would end behind the best by more than a quarter
of all that the best has learned. That must hold of the numbers themselves, of what they are of the curve's own first number, and of
what they have come down from it: a change that prints another loss, twice as large or larger by one for all time, is compared by
the second or the third. FIRST moments pass before anything is ended, ENOUGH earlier runs must be known, and only what was printed
since the moment before counts.

It errs on purpose towards going on, as against rules that end the worse half (the median rule of Golovin and others 2017, Google
Vizier, KDD): those who prune for a search of many settings gain more from it than a night that tries one idea at a time, in which
a good idea lost is lost for good. The price and what it saves: benchmarks/pruning.py.

It has diverged, which is seen much earlier, if it has gone further from its first number the wrong way than any earlier run came
the right way, in the numbers themselves and in what they are of the first: if at the last AGAIN numbers in a row

    y  >  y0 + w    and    y / y0  >  1 + w'     (w' the longest way that a run came, of its own first number)

Noise goes back and forth around where a run stands, and that by a small share of what it has to learn; one number may be the work
of one batch. What has lost more than there is to learn, and again a twentieth of the budget later, is no noise. The price: a run
that diverges within the first twentieth begins there for us, and is left to the rule above.

Curves are untrusted, so this may only ever hurt a run: one that prints what is not so is ended, or not ended and then scored like
any other. An earlier run that lied can keep later ones from being ended, or have them ended; their scores it cannot touch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

MOMENTS = 20
FIRST, LAST = 8, 18  # moments between which a run may be ended: before, too little is known; after, too little is saved
ENOUGH = 3  # earlier runs
DROPS, BEHIND = 2.0, 0.25
AGAIN = 2  # numbers in a row that say that a run has diverged
KNOWN = 40  # earlier runs that are compared with, the latest

Points = Sequence[float | None]
Scale = Literal["as printed", "ratio", "difference"]


@dataclass(frozen=True)
class Earlier:
    """An undisturbed run that was scored."""

    hardware: str
    curve: list[float | None]
    best: bool
    """Whether it is one of the best experiment's."""


@dataclass(frozen=True)
class Hopeless:
    """Why a run is: all as the numbers that it printed."""

    stands: float
    reachable: float
    """Where it would end after DROPS times the furthest way."""
    needed: float
    """Where it would have to end, to be worth its time."""


def hopeless(curve: Points, earlier: Sequence[Earlier]) -> Hopeless | None:
    """Of a run whose last point is of this moment; None where it may go on."""
    moment = len(curve)
    if not FIRST <= moment <= LAST or curve[-1] is None:
        return None
    known = [one for one in earlier if len(one.curve) > moment and any(point is not None for point in one.curve[:moment])]
    if len(known) < ENOUGH or not any(one.best for one in known):
        return None
    found = [_behind(curve, known, scale) for scale in ("as printed", "ratio", "difference")]
    return found[0] if all(found) else None


@dataclass(frozen=True)
class Diverged:
    """Where a run stands that has: as the numbers that it printed."""

    stands: float
    began: float


def diverged(curve: Points, earlier: Sequence[Earlier]) -> Diverged | None:
    """Of a run whose last point is of this moment; None where it may go on."""
    printed = [point for point in curve if point is not None]
    if len(printed) <= AGAIN or curve[-1] is None:
        return None
    latest = printed[-AGAIN:]
    for scale in ("difference", "ratio"):
        ways = [(turned[0] - turned[-1], one.best) for one in earlier if (turned := _turned(one.curve, scale))]
        falls = median([way for way, best in ways if best] or [0.0])
        sign = 1 if falls > 0 else -1
        longest = max((sign * way for way, _ in ways), default=0.0)
        ours = _turned([printed[0], *latest], scale)
        if not falls or not ours or not all(sign * (point - ours[0]) > longest for point in ours[1:]):
            return None
    return Diverged(latest[-1], printed[0])


def _behind(curve: Points, known: Sequence[Earlier], scale: Scale) -> Hopeless | None:
    moment = len(curve)
    ours = _turned(curve, scale)
    others = [(turned, one.best) for one in known if (turned := _turned(one.curve, scale))]
    bests = [turned for turned, best in others if best]
    if not ours or not bests:
        return None
    falls = median(turned[0] - turned[-1] for turned in bests)
    sign = 1 if falls > 0 else -1
    if not falls:
        return None
    stands, furthest = ours[-1], max(sign * (turned[moment - 1] - turned[-1]) for turned, _ in others)
    reachable = stands - sign * DROPS * max(furthest, 0.0)
    needed = max((turned[-1] for turned in bests), key=lambda end: sign * end) + sign * BEHIND * abs(falls)
    return Hopeless(stands, reachable, needed) if sign * (reachable - needed) > 0 else None


def _turned(curve: Points, scale: Scale) -> list[float]:
    """The curve without gaps, each filled from beside it, in that relation to its first number; empty where there is none."""
    first = next((point for point in curve if point is not None), None)
    if first is None or (scale == "ratio" and first == 0):
        return []
    filled, latest = list[float](), first
    for point in curve:
        latest = latest if point is None else point
        filled.append(latest / first if scale == "ratio" else latest - first if scale == "difference" else latest)
    return filled
