"""What can be concluded from noisy scores: the one rule that keeps, discards or asks for another run. Pure statistics.

Scores here are *gains*: turned so that higher is better. A run's score is the file's own level plus noise of a variance that
nobody knows, on a machine that may drift. Three things are carried along, each by a few numbers, so a night costs no more than
its last run:

- *Noise*: the pooled variance of repeated runs with its degrees of freedom, so that a threshold is Student's t and not a guess.
  What was measured counts less with every improvement (FORGET), and nothing where the level is another altogether (FAR): noise
  belongs to the level that it was measured at.
- *Level*: the best's estimated score. It is a local level model, whose Kalman filter (Harvey 1989, Forecasting, Structural Time
  Series Models and the Kalman Filter, ch. 2) lets an old run say less about now (DRIFT). A new best enters with its advantage
  shrunk by 1 - SHRINK/t^2, an empirical Bayes estimate (Efron & Morris 1973, JASA 68:117): a winner was lucky as well as good.
- *Level of evidence*: each look at a candidate may go wrong with a probability that falls as hypotheses are tried and rises
  after each keep, as LORD does it (Javanmard & Montanari 2018, Annals of Statistics 46:526; Ramdas et al. 2017,
  arXiv:1710.00499). So a night of any length has a bounded number of false keeps, and one that finds something looks more
  boldly.

A candidate is looked at after each of its runs, MOST_RUNS at most. The bound on a look is one of a union over all looks
(Bonferroni, with the first counting less), so that stopping early, going on, or an agent's own repeats change nothing of it. A
candidate that seems not even PASSES noise units better is discarded; that bar rises with its runs. What is run again is
whatever is known less: the candidate or the best, whose repeats in between also keep up with a machine that drifts.

The price: 1.4 runs an experiment where nothing helps, 2.5 where every third change helps by two noise units, and a third of
those missed (benchmarks/nights.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isclose, isfinite, sqrt
from statistics import fmean, variance
from typing import Literal

MOST_RUNS = 8  # of a candidate
LOOK, FIRST_LOOK = 0.2, 0.08  # of a hypothesis' level, spent on each look after the first, and on the first
START, FADES = 0.019, 200  # level of the first hypothesis; hypotheses after which it has fallen to a third, by (1 + n / FADES)^-1.5
RETURNS = 0.01  # of that level, which each keep gives back to those after it
MOST = 0.05  # level of any hypothesis
PASSES = (0.5, 0.8, 0.08)  # noise units that a candidate must seem better by: after one run, after two, more with each further one
DRIFT = 0.002  # variance of the level per run that goes by, in units of the noise's
SHRINK = 1.5
FORGET = 0.77  # weight that noise keeps when a new best is found
FAR, CLEAR = 1.5, 10  # ratio of two scores of one sign, and noise units between them, from which on their levels are different ones
ENOUGH = 2  # degrees of freedom that the noise at a level needs before anything is judged there
USUAL = 0.9  # confidence that START stands for


@dataclass(frozen=True)
class Estimate:
    """A difference or a level with its standard error."""

    value: float
    error: float
    degrees: float
    """Of freedom; infinite where the error is known."""

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Student's."""
        reach = self.error * _quantile((1 + confidence) / 2, self.degrees) if self.error else 0.0
        return self.value - reach, self.value + reach

    @property
    def figures(self) -> list[float]:
        """The value, and the ends of its 95 % interval if there are any."""
        low, high = self.interval()
        return [self.value, low, high] if self.error and isfinite(high) else [self.value]


@dataclass(frozen=True)
class Noise:
    """Of one run's score, on one class of hardware."""

    squares: float = 0.0
    """Sum of squared deviations."""
    degrees: float = 0.0

    @property
    def variance(self) -> float | None:
        """None before anything was repeated."""
        return max(self.squares, 0.0) / self.degrees if self.degrees else None

    @property
    def deviation(self) -> float | None:
        return None if self.variance is None else sqrt(self.variance)

    def more(self, squares: float, degrees: float = 1.0) -> "Noise":
        return Noise(self.squares + squares, self.degrees + degrees)

    def less(self, weight: float) -> "Noise":
        return Noise(self.squares * weight, self.degrees * weight)


@dataclass(frozen=True)
class Level:
    """What is known of a file's score."""

    mean: float
    spread: float
    """Variance of that knowledge, in units of the noise's."""
    runs: int = 1
    """Those that say it directly."""

    def later(self, runs: int) -> "Level":
        """After so many runs of anything on the machine."""
        return replace(self, spread=self.spread + DRIFT * runs)

    def told(self, score: float) -> tuple["Level", float]:
        """After another run, and the squared deviation by which that run tells of the noise."""
        surprise, gain = score - self.mean, self.spread / (self.spread + 1)
        level = Level(self.mean + gain * surprise, self.spread * (1 - gain), self.runs + 1)
        return level, surprise * surprise / (1 + self.spread)


@dataclass(frozen=True)
class Decision:
    decision: Literal["keep", "discard", "repeat"]
    which: Literal["candidate", "best"] = "candidate"
    """Of which another run says most."""
    gain: Estimate | None = None
    """Over the best; None where nothing can be said of it."""
    more: int = 0
    """Runs after which it is decided, if they show what was seen so far."""


def significance(tried: int, keeps: Sequence[int], confidence: float = USUAL) -> float:
    """The level of a hypothesis before which `tried` others were; `keeps` says after how many each keep was."""

    def faded(hypotheses: int) -> float:
        return (1 + hypotheses / FADES) ** -1.5

    level = START * (faded(tried) + RETURNS * sum(faded(tried - keep) for keep in keeps))
    return min(level, MOST) * (1 - confidence) / (1 - USUAL)


def decide(
    candidate: Sequence[float], best: Level, noise: Noise, level: float, stated: float = 0.0, most_runs: int = MOST_RUNS
) -> Decision:
    """The verdict on a candidate with these scores (gains, in the order of its runs) against the best.

    `noise` holds what all runs so far tell, the candidate's included; `level` is `significance`; differences up to `stated` count
    as none.
    """
    runs, mean, known = len(candidate), fmean(candidate), noise.variance
    difference = mean - best.mean
    if known is None or (known and noise.degrees < ENOUGH):
        return Decision("repeat", _less_known(runs, best), more=ENOUGH)
    if not known or all(isclose(score, best.mean, rel_tol=1e-12, abs_tol=0) for score in candidate):
        return Decision("keep" if difference > stated else "discard", gain=Estimate(difference, 0.0, inf))
    if far(mean, best.mean, noise):
        if difference <= stated:
            return Decision("discard", gain=Estimate(difference, sqrt(known * (1 / runs + best.spread)), noise.degrees))
        if runs < 2:
            return Decision("repeat", gain=Estimate(difference, sqrt(known * (1 + best.spread)), noise.degrees), more=1)
        known = max(known, variance(candidate))
    gain = Estimate(difference, sqrt(known * (1 / runs + best.spread)), noise.degrees)
    if _beyond(gain, stated) <= level * _share(runs):
        return Decision("keep", gain=gain)
    if difference < stated + _bar(runs) * sqrt(known) or runs >= most_runs:
        return Decision("discard", gain=gain)
    return Decision("repeat", _less_known(runs, best), gain, _more(gain, runs, best, known, level, stated, most_runs))


def succeed(candidate: Sequence[float], best: Level, noise: Noise, gain: Estimate | None) -> tuple[Level, Noise]:
    """Level and noise when the candidate has become the best."""
    mean, runs = fmean(candidate), len(candidate)
    if gain is None or not gain.error:
        return Level(mean, 1 / runs, runs), noise
    kept = max(0.0, 1 - SHRINK * (gain.error / gain.value) ** 2) if gain.value > 0 else 0.0
    level = Level(best.mean + kept * gain.value, 1 / runs, runs)
    if far(level.mean, best.mean, noise):  # only what it shows itself is of this level
        return level, Noise(variance(candidate) * (runs - 1), runs - 1) if runs > 1 else Noise()
    return level, noise.less(FORGET)


def grown(scores: Sequence[float]) -> float:
    """The squared deviation by which the last of a candidate's scores adds to the noise."""
    before = len(scores) - 1
    return (scores[-1] - fmean(scores[:-1])) ** 2 * before / (before + 1)


def far(one: float, other: float, noise: Noise) -> bool:
    """Whether two scores of one sign are so different that the noise at one says nothing of that at the other."""
    clear = abs(one - other) > CLEAR * (noise.deviation or 0.0)
    return clear and one * other > 0 and not 1 / FAR <= one / other <= FAR


def difference(one: Sequence[float], other: Sequence[float], noise: Noise | None = None) -> Estimate:
    """Of the means of two groups of runs, with their own deviations and, where there is more, `noise`."""
    pooled = noise or Noise()
    for scores in (one, other):
        if len(scores) > 1:
            pooled = pooled.more(variance(scores) * (len(scores) - 1), len(scores) - 1)
    error = sqrt((pooled.variance or 0.0) * (1 / len(one) + 1 / len(other))) if pooled.degrees else inf
    return Estimate(fmean(one) - fmean(other), error, pooled.degrees)


def paired(one: Sequence[float], other: Sequence[float]) -> Estimate:
    """Of runs made in pairs: the mean of their differences."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    error = sqrt(variance(differences) / len(differences)) if len(differences) > 1 else inf
    return Estimate(fmean(differences), error, len(differences) - 1)


def _less_known(runs: int, best: Level) -> Literal["candidate", "best"]:
    return "best" if best.spread > 1 / runs else "candidate"


def _share(runs: int) -> float:
    return FIRST_LOOK if runs == 1 else LOOK


def _bar(runs: int) -> float:
    first, second, step = PASSES
    return first if runs == 1 else second + step * (runs - 2)


def _more(gain: Estimate, runs: int, best: Level, known: float, level: float, stated: float, most_runs: int) -> int:
    """How many runs decide, if the difference stays what it is."""
    more, spread = 0, best.spread
    while runs < most_runs:
        more += 1
        if spread > 1 / runs:
            spread = spread / (spread + 1)
        else:
            runs += 1
            if gain.value < stated + _bar(runs) * sqrt(known):
                break
        hoped = Estimate(gain.value, sqrt(known * (1 / runs + spread)), gain.degrees + more)
        if _beyond(hoped, stated) <= level * _share(runs):
            break
    return max(more, 1)


def _beyond(gain: Estimate, stated: float) -> float:
    """The probability of so large a difference where there is none beyond `stated`."""
    # Here, for its import takes a tenth of a second, and a server must start at once.
    from scipy.special import stdtr  # pyright: ignore[reportMissingTypeStubs]

    return float(1.0 - stdtr(gain.degrees, (gain.value - stated) / gain.error))


def _quantile(probability: float, degrees: float) -> float:
    from scipy.special import ndtri, stdtrit  # pyright: ignore[reportMissingTypeStubs]

    if degrees <= 0:
        return inf
    return float(ndtri(probability) if degrees == inf else stdtrit(degrees, probability))
