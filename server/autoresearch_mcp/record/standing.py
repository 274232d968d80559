"""What a session knows of its scores on one class of hardware: how good the best is, how noisy a run, what a candidate has shown.
Pure: fed run by run and verdict by verdict, so that asking costs nothing. Scores are gains here, as in noise.py.

The class's noise holds the differences between its machines, as far as one file ran on several. But all runs of a candidate may be
on one, and its advantage the machine's: `shared` has what it and the best showed where both ran. What runs tell of the noise counts
where they are near the best: one file that diverges must not make everything look like luck. Of a metric without noise it is the
best's own runs that say so.

What was kept by the greedy rule is known as its runs say, without shrinking or drift: so old sessions read as they always did.
"""

from dataclasses import dataclass, field, replace
from math import sqrt

from autoresearch_mcp.record.noise import (
    CLEAR,
    FROZEN,
    Estimate,
    Level,
    Noise,
    agree,
    clear,
    far,
    grown,
    level_of,
    mean,
    quieter,
    succeed,
    sum_of_errors,
)

ByMachine = dict[str, list[float]]
WELL_KNOWN = 8  # degrees of freedom from which on the noise is known well enough to say what is none
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
    _on: dict[int, ByMachine] = field(default_factory=dict[int, ByMachine])
    """Scores of each candidate."""
    _best_on: ByMachine = field(default_factory=ByMachine)
    _best_scores: list[float] = field(default_factory=list[float])
    _exact: bool = False
    """Whether runs of a best agreed, and nothing was ever known to vary: then the metric has no noise."""
    _varied: bool = False
    _baseline_noise: Noise | None = None
    """Where the level has changed since: the noise at the baseline's."""
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

    def shared(self, experiment: int) -> tuple[list[float], Level] | None:
        """Of the machines that a candidate and the best both ran on: its scores and the best's level. None where there is none."""
        ours = self._on.get(experiment, {})
        machines = [machine for machine in ours if machine in self._best_on]
        if not machines:
            return None
        scores, best = ([score for machine in machines for score in on[machine]] for on in (ours, self._best_on))
        return scores, level_of(best)

    def forget(self, experiment: int) -> None:
        """Of a candidate that was not kept; what it told of the noise stays."""
        self.scores.pop(experiment, None)
        self._on.pop(experiment, None)

    def ended(self, experiment: int, gain: float, of_best: bool, machine: str = "") -> None:
        """Takes in a run that counts."""
        known = self._best_on if of_best else self._on.setdefault(experiment, {})
        known.setdefault(machine, []).append(gain)
        self.machines.add(machine)
        self._ended += 1
        if of_best:
            self._told_of_best(gain)
            return
        scores = self.scores.setdefault(experiment, [])
        scores.append(gain)
        if len(scores) > 1 and not agree(scores):
            self._told_of_noise(scores)

    def _told_of_noise(self, scores: list[float]) -> None:
        """By the last of a candidate's runs. What no luck could be is none: what lies clearly away from the best or from itself."""
        squares, known = grown(scores), self.noise.variance
        if known and self._best is not None:
            if clear(mean(scores), self._best.mean, self.noise):
                return
            if squares > (most := CLEAR * CLEAR * known):
                if self.noise.degrees >= WELL_KNOWN:
                    return
                squares = most
        self._learn(squares)

    def _told_of_best(self, gain: float) -> None:
        self._best_scores.append(gain)
        best, self._seen = self.best, self._ended
        if best is None:
            self._best = Level(gain, 1.0)
        elif agree(self._best_scores) and not self.greedy:
            self._best = replace(best, frozen=len(self._best_scores) >= FROZEN)
        else:
            self._best, squares = best.told(gain)
            self._learn(squares)
        self._see_whether_exact()

    def _learn(self, squares: float) -> None:
        if self._exact:  # it is not, after all
            self._exact, self.noise = False, Noise()
        self._varied, self.noise = True, self.noise.more(squares)

    def _see_whether_exact(self) -> None:
        if not self._varied and agree(self._best_scores):
            self._exact, self.noise = True, Noise(0.0, len(self._best_scores) - 1)

    def gain(self, experiment: int) -> Estimate | None:
        """Of a candidate over the best; None where they did not both run here."""
        scores, best = self.scores.get(experiment), self.best
        return self._estimate(mean(scores) - best.mean, level_of(scores).spread + best.spread) if scores and best else None

    def keep(self, experiment: int, simpler: bool = False, from_baseline: bool = True) -> bool:
        """Makes a candidate the best; says whether by a better score. Where it never ran, the best is unknown from now on.

        `simpler`: because it is shorter, and so at the level of the best before it. `from_baseline`: whether that was the baseline.
        """
        before, gain, scores = self.best, self.gain(experiment), self.scores.pop(experiment, None)
        self._seen, self._best_on, self._peak = self._ended, self._on.pop(experiment, {}), self.peak
        self._best_scores = list(scores or ())
        if before is not None and self.baseline is None and from_baseline:
            self.baseline = before
        if scores is None:
            self._best = None
            return False
        if before is None or gain is None:
            self._best = level_of(scores)
            self._see_whether_exact()
            return False
        if simpler and not self.greedy:
            self._best = replace(level_of(scores), mean=before.mean, spread=1.0)  # it was not asked whether it is better
            return False
        noise = self.noise
        self._best, self.noise = succeed(scores, before, noise, None if self.greedy else gain)
        if self._baseline_noise is None and (far(self._best.mean, before.mean, noise) or quieter(scores, noise)):
            self._baseline_noise = noise
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
        if self._baseline_noise is None:
            return self._estimate(best.mean - self.baseline.mean, best.spread + self.baseline.spread)
        parts = [(self.noise, best.spread), (self._baseline_noise, self.baseline.spread)]
        return Estimate(best.mean - self.baseline.mean, *sum_of_errors(parts))

    def _estimate(self, value: float, spread: float) -> Estimate:
        return Estimate(value, sqrt((self.noise.variance or 0.0) * spread), self.noise.degrees)
