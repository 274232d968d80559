"""What can be concluded from noisy scores: the one rule that keeps, discards or asks for another run. Pure statistics.

Scores here are *gains*: turned so that higher is better. A run's score is the file's own level plus noise of a variance that
nobody knows, on a machine that may drift. Three things are carried along, each by a few numbers, so a night costs no more than
its last run:

- *Noise*: the pooled variance of repeated runs with its degrees of freedom, so that a threshold is Student's t and not a guess.
  What was measured counts less with every improvement (FORGET), is taken to have grown by some of it (GROWS), and counts nothing
  where the level is another altogether (FAR): noise belongs to the level that it was measured at. Runs of one file that agree to
  the last digit, while others vary, tell nothing of it: that file sets its own seed, and all its runs are one.
- *Level*: the best's estimated score. It is a local level model, whose Kalman filter (Harvey 1989, Forecasting, Structural Time
  Series Models and the Kalman Filter, ch. 2) lets an old run say less about now (DRIFT). A new best enters with its advantage
  shrunk by 1 - SHRINK/t^2, an empirical Bayes estimate (Efron & Morris 1973, JASA 68:117): a winner was lucky as well as good.
- *Level of evidence*: each look at a candidate may go wrong with a probability that falls as hypotheses are tried and rises
  after each keep, as LORD does it (Javanmard & Montanari 2018, Annals of Statistics 46:526; Ramdas et al. 2017,
  arXiv:1710.00499). So a night of any length has a bounded number of false keeps, and one that finds something looks more
  boldly.

A candidate is looked at after each of its runs, MOST_RUNS at most. Each look has a share of its hypothesis' level, the first one
less, whoever asked for it, so that stopping early, going on, or an agent's own repeats gain nothing. (The shares of eight looks sum
to 1.5: looks at one growing sample go wrong together. What it all comes to is not only bounded but measured.) A candidate that
seems not even PASSES noise units better is discarded; that bar rises with its runs. What is run again is whatever is known less:
the candidate or the best, whose repeats in between also keep up with a machine that drifts.

The price: 1.4 runs an experiment where nothing helps, 2.5 where every third change helps by two noise units, and a third of
those missed (benchmarks/nights.py, which these constants were chosen by).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isclose, isfinite, sqrt
from statistics import fmean
from typing import Literal

MOST_RUNS = 8  # of a candidate
LOOK, FIRST_LOOK = 0.2, 0.08  # of a hypothesis' level, spent on each look after the first, and on the first
START, FADES = 0.024, 200  # level of the first hypothesis; hypotheses after which it has fallen to a third, by (1 + n / FADES)^-1.5
RETURNS = 0.01  # of that level, which each keep gives back to those after it
MOST = 0.05  # level of any hypothesis
PASSES = (0.4, 0.82, 0.08)  # noise units that a candidate must seem better by: after one run, after two, more with each further one
DRIFT = 0.002  # variance of the level per run that goes by, in units of the noise's
SHRINK = 1.5
FORGET = 0.77  # weight that noise keeps when a new best is found
GROWS = 0.018  # share by which its variance is then taken to have grown, for each noise unit of the gain
FAR, CLEAR = 1.5, 10  # ratio of two scores of one sign, and noise units between them, from which on their levels are different ones
FROZEN = 3  # runs that agree to the last digit, from which on another one of that file says nothing
# Level of an F test, and the degrees of freedom that it takes, to say that a level has a noise of its own.
QUIETER, ENOUGH_TO_TELL = 1e-3, 2
ENOUGH = 2  # degrees of freedom that the noise at a level needs before anything is judged there
ENOUGH_OF_BEST = 0.25  # spread of the best below which its repeats cannot decide on a candidate that is frozen
USUAL = 0.9  # confidence that START stands for
LARGEST = 1e290  # of a sum of squares: nothing that a run scores may break the fold over the ledger


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

    def less(self, weight: float, growth: float = 1.0) -> "Noise":
        return Noise(self.squares * weight * growth, self.degrees * weight)


@dataclass(frozen=True)
class Level:
    """What is known of a file's score."""

    mean: float
    spread: float
    """Variance of that knowledge, in units of the noise's."""
    runs: int = 1
    """Those that say it directly."""
    frozen: bool = False
    """Whether its runs all agree, so that another one says nothing."""

    def later(self, runs: int) -> "Level":
        """After so many runs of anything on the machine."""
        return replace(self, spread=self.spread + DRIFT * runs)

    def told(self, score: float) -> tuple["Level", float]:
        """After another run, and the squared deviation by which that run tells of the noise."""
        surprise, gain = score - self.mean, self.spread / (self.spread + 1)
        level = Level(self.mean + gain * surprise, self.spread * (1 - gain), self.runs + 1)
        return level, min(surprise * surprise / (1 + self.spread), LARGEST)


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
    looks, known, frozen = len(candidate), noise.variance, agree(candidate)
    runs, stands = 1 if frozen else looks, mean(candidate)
    difference = stands - best.mean
    frozen = frozen and looks >= FROZEN
    if known is None or (known and noise.degrees < ENOUGH):
        if looks >= most_runs or (frozen and best.frozen):
            return Decision("discard")
        return Decision("repeat", "best" if frozen else _less_known(runs, best), more=ENOUGH)
    if all(isclose(score, best.mean, rel_tol=1e-12, abs_tol=0) for score in candidate):
        return Decision("discard", gain=Estimate(0.0, 0.0, inf))
    if not known:
        return Decision("keep" if difference > stated else "discard", gain=Estimate(difference, 0.0, inf))
    if far(stands, best.mean, noise):
        if difference <= stated:
            return Decision("discard", gain=Estimate(difference, sqrt(known * (1 / runs + best.spread)), noise.degrees))
        if runs < 2 and looks < FROZEN:
            return Decision("repeat", gain=Estimate(difference, sqrt(known * (1 + best.spread)), noise.degrees), more=1)
        known = max(known, group(candidate).variance or 0.0)
    gain = Estimate(difference, sqrt(known * (1 / runs + best.spread)), noise.degrees)
    if _beyond(gain, stated) <= level * _share(looks):
        return Decision("keep", gain=gain)
    if difference < stated + _bar(looks) * sqrt(known) or looks >= most_runs:
        return Decision("discard", gain=gain)
    if frozen and (best.frozen or best.spread < ENOUGH_OF_BEST):
        return Decision("discard", gain=gain)
    which = "best" if frozen else _less_known(runs, best)
    return Decision("repeat", which, gain, _more(gain, looks, best, known, level, stated, most_runs))


def succeed(candidate: Sequence[float], best: Level, noise: Noise, gain: Estimate | None) -> tuple[Level, Noise]:
    """Level and noise when the candidate has become the best."""
    level = level_of(candidate)
    if gain is None or not gain.error:
        return level, noise
    if quieter(candidate, noise):
        return level, group(candidate)
    level = replace(level, mean=best.mean + shrunk(gain).value)
    if far(level.mean, best.mean, noise):  # only what it shows itself is of this level
        return level, group(candidate)
    units = max(gain.value, 0.0) / (noise.deviation or inf)
    return level, noise.less(FORGET, 1 + GROWS * units)


def shrunk(gain: Estimate) -> Estimate:
    """What a candidate that was kept is better by: it was chosen for its luck as well."""
    if not gain.error:
        return gain
    kept = max(0.0, 1 - SHRINK * (gain.error / gain.value) ** 2) if gain.value > 0 else 0.0
    return replace(gain, value=kept * gain.value)


def level_of(scores: Sequence[float]) -> Level:
    """What a file's own runs say of it."""
    runs = 1 if agree(scores) else len(scores)
    return Level(mean(scores), 1 / runs, runs, frozen=agree(scores) and len(scores) >= FROZEN)


def agree(scores: Sequence[float]) -> bool:
    """Whether several runs came out alike to the last digit."""
    return len(scores) > 1 and len(set(scores)) == 1


def grown(scores: Sequence[float]) -> float:
    """The squared deviation by which the last of a candidate's scores adds to the noise."""
    before = len(scores) - 1
    away = scores[-1] - mean(scores[:-1])
    return min(away * away * before / (before + 1), LARGEST)


def group(scores: Sequence[float]) -> Noise:
    """What runs of one file tell of the noise; nothing where they agree."""
    if len(scores) < 2 or agree(scores):
        return Noise()
    middle = mean(scores)
    return Noise(min(sum((score - middle) * (score - middle) for score in scores), LARGEST), len(scores) - 1)


def mean(scores: Sequence[float]) -> float:
    """Of any finite numbers: their sum may be too large for one."""
    try:
        return fmean(scores)
    except OverflowError:
        return sum(score / len(scores) for score in scores)


def far(one: float, other: float, noise: Noise) -> bool:
    """Whether two scores are so different that the noise at one says nothing of that at the other: clearly, and in size or sign."""
    smaller, larger = sorted((abs(one), abs(other)))
    return clear(one, other, noise) and ((one > 0) != (other > 0) or larger > FAR * smaller)


def quieter(scores: Sequence[float], noise: Noise) -> bool:
    """Whether runs of one file vary so much less among each other that the noise is not that of their level, by an F test: a time
    of a millisecond does not vary by the hundred that a time of a second did, whether or not the difference is clear of those.
    """
    own, known = group(scores), noise.variance
    if own.degrees < ENOUGH_TO_TELL or not own.squares or not known:
        return False
    from scipy.special import fdtr  # pyright: ignore[reportMissingTypeStubs]

    return float(fdtr(own.degrees, noise.degrees, (own.variance or 0.0) / known)) < QUIETER


def clear(one: float, other: float, noise: Noise) -> bool:
    """Whether no luck could make one score of the other."""
    return noise.deviation is not None and abs(one - other) > CLEAR * noise.deviation


def difference(one: Sequence[float], other: Sequence[float], noise: Noise) -> Estimate:
    """Of the means of two groups of runs that both have this noise; with an infinite error where nothing is known of it."""
    error = sqrt((noise.variance or 0.0) * (_left(one, noise) + _left(other, noise))) if noise.degrees else inf
    return Estimate(mean(one) - mean(other), error, noise.degrees)


def unequal(one: Sequence[float], other: Sequence[float], known: tuple[Noise, Noise] = (Noise(), Noise())) -> Estimate:
    """Of the means of two groups of runs that may be of different noise (Welch 1947, Biometrika 34:28). `known` is what else is
    known of each one's. A file whose runs agree while the other's vary sets its own seed, and is taken to be as noisy as the other.
    """
    noises = [
        (Noise(0.0, len(scores) - 1) if agree(scores) else group(scores)).more(more.squares, more.degrees)
        for scores, more in zip((one, other), known, strict=True)
    ]
    noisy = [noise for noise in noises if noise.squares]
    taken = [noise if noise.squares or not noisy else noisy[0] for noise in noises]
    shares = [(noise, _left(scores, noise)) for noise, scores in zip(taken, (one, other), strict=True)]
    return Estimate(mean(one) - mean(other), *sum_of_errors(shares))


def _left(scores: Sequence[float], noise: Noise) -> float:
    """The share of a run's variance that is left in the mean of these: all of it where they agree though the noise is not 0."""
    return 1.0 if noise.squares and agree(scores) else 1 / len(scores)


def sum_of_errors(parts: Sequence[tuple[Noise, float]]) -> tuple[float, float]:
    """The standard error and degrees of freedom of a sum of independent estimates, each with its noise and the share of that which
    is left in it (Satterthwaite 1946, Biometrics Bulletin 2:110). Infinite and 0 where a noise is not known.
    """
    if not all(noise.degrees for noise, _ in parts):
        return inf, 0.0
    variances = [(noise.variance or 0.0) * share for noise, share in parts]
    if not (total := sum(variances)):
        return 0.0, inf
    return sqrt(total), 1 / sum((v / total) ** 2 / noise.degrees for v, (noise, _) in zip(variances, parts, strict=True))


def _less_known(runs: int, best: Level) -> Literal["candidate", "best"]:
    return "best" if best.spread > 1 / runs and not best.frozen else "candidate"


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
