"""What a session knows of its scores on one class of hardware: how good the best is, how noisy a run, what a candidate has shown.
Pure: fed run by run and verdict by verdict, so that asking costs nothing. Scores are gains here, as in noise.py.

The class's noise must hold the differences between its machines: where a candidate ran on others than the best ever did, and no
file's runs have told of such a difference yet, the best is run again (CROSSINGS times in a row at most, for where it runs is not
ours to say).

What was kept by the greedy rule is known as its runs say, without shrinking or drift: so old sessions read as they always did.
"""

from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean

from autoresearch_mcp.record.noise import Estimate, Level, Noise, grown, succeed

CROSSINGS = 2
DISCOVERY = 2.0  # standard errors from which on a keep was for a better score, and not for a shorter file


@dataclass
class Standing:
    greedy: bool
    noise: Noise = field(default_factory=Noise)
    scores: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    """Of candidates, by experiment, in the order their runs ended; the best's are in its level."""
    baseline: Level | None = None
    """As it was known when the first change took its place; None where none has."""
    machines: set[str] = field(default_factory=set[str])
    """That any run was on."""
    crossed: bool = False
    """Whether runs of one file were on several: then the noise holds what differs between machines."""
    _on: dict[int, set[str]] = field(default_factory=dict[int, set[str]])
    """Machines of each candidate."""
    _best_on: set[str] = field(default_factory=set[str])
    _in_a_row: int = 0
    """Runs of the best since a candidate's."""
    _best: Level | None = None
    _peak: float | None = None
    _ended: int = 0
    _seen: int = 0

    @property
    def best(self) -> Level | None:
        """As far as it is known now; None where the best never ran on this hardware."""
        if self._best is None or self.greedy:
            return self._best
        return self._best.later(self._ended - self._seen)

    @property
    def peak(self) -> float | None:
        """The best level that anything kept ever had: what is no worse than that has not drifted."""
        known = [mean for mean in (self._peak, self._best.mean if self._best else None) if mean is not None]
        return max(known) if known else None

    def is_apart(self, experiment: int) -> bool:
        """Whether a candidate's runs tell of other machines as much as of the file, and the best is to run again."""
        return not self.crossed and self._best_on.isdisjoint(self._on.get(experiment, ())) and self._in_a_row < CROSSINGS

    def forget(self, experiment: int) -> None:
        """Of a candidate that was not kept; what it told of the noise stays."""
        self.scores.pop(experiment, None)
        self._on.pop(experiment, None)

    def ended(self, experiment: int, gain: float, of_best: bool, machine: str = "") -> None:
        """Takes in a run that counts."""
        known = self._best_on if of_best else self._on.setdefault(experiment, set())
        known.add(machine)
        self.machines.add(machine)
        self.crossed = self.crossed or len(known) > 1
        self._in_a_row = self._in_a_row + 1 if of_best else 0
        if of_best:
            if (best := self.best) is None:
                self._best = Level(gain, 1.0)
            else:
                self._best, squares = best.told(gain)
                self.noise = self.noise.more(squares)
            self._ended += 1
            self._seen = self._ended
            return
        self._ended += 1
        scores = self.scores.setdefault(experiment, [])
        scores.append(gain)
        if len(scores) > 1:
            self.noise = self.noise.more(grown(scores))

    def gain(self, experiment: int) -> Estimate | None:
        """Of a candidate over the best; None where they did not both run here."""
        scores, best = self.scores.get(experiment), self.best
        return self._estimate(fmean(scores) - best.mean, 1 / len(scores) + best.spread) if scores and best else None

    def keep(self, experiment: int) -> bool:
        """Makes a candidate the best; says whether by a better score. Where it never ran, the best is unknown from now on."""
        before, gain, scores = self.best, self.gain(experiment), self.scores.pop(experiment, None)
        self._seen, self._best_on = self._ended, self._on.pop(experiment, set())
        if scores is None:
            self._peak, self._best = self.peak, None
            return False
        if before is None or gain is None:
            self._best = Level(fmean(scores), 1 / len(scores), len(scores))
            return False
        if self.baseline is None:
            self.baseline = before
        self._peak = self.peak
        self._best, self.noise = succeed(scores, before, self.noise, None if self.greedy else gain)
        return gain.value > DISCOVERY * gain.error

    @property
    def score(self) -> Estimate | None:
        """What the best scores."""
        return self._estimate(best.mean, best.spread) if (best := self.best) is not None else None

    @property
    def total(self) -> Estimate | None:
        """What all that was kept has gained over the baseline; None before there is anything."""
        if self.baseline is None or (best := self.best) is None:
            return None
        return self._estimate(best.mean - self.baseline.mean, best.spread + self.baseline.spread)

    def _estimate(self, value: float, spread: float) -> Estimate:
        return Estimate(value, sqrt((self.noise.variance or 0.0) * spread), self.noise.degrees)
