"""What the events add up to: sessions, experiments, runs. Pure: a fold, fed event by event.

Whatever a step or a view asks of a whole night is kept up to date as events come in (the best, counts, places, lessons, noise), so
that it costs the same at experiment 20,000 as at 20. The price is memory: about 2 kB an event.
"""

from collections import Counter
from dataclasses import dataclass, field

from autoresearch_mcp.record.descriptions import Descriptions
from autoresearch_mcp.record.events import (
    Event,
    ExperimentCommitted,
    RunEnded,
    RunStarted,
    SessionStarted,
    Settled,
    VerdictGiven,
    Verified,
)
from autoresearch_mcp.record.experiments import ExperimentState, RunState
from autoresearch_mcp.record.noise import Noise, group
from autoresearch_mcp.record.standing import Standing

NEAREST = 2  # misses that are remembered, the best scores first
OF_WAVES = 256  # experiments, the latest, among which those of a wave are
SET_ASIDE = 2  # disturbed runs of an experiment that do not count, because it is run again; after that they do, with their mark


@dataclass(slots=True)
class Place:
    """What was tried in one place of the file."""

    tried: int = 0
    kept: int = 0
    nearest: ExperimentState | None = None
    """The one with the best score."""


@dataclass
class SessionState:
    started: SessionStarted
    at: float
    experiments: list[ExperimentState] = field(default_factory=list[ExperimentState])
    """In the order they were committed."""
    kept: list[ExperimentState] = field(default_factory=list[ExperimentState])
    """In the order they were kept: the path to the best."""
    estimates: dict[int, float] = field(default_factory=dict[int, float])
    """Of each that was kept: what it scores as far as was known while it was the best, which is less than its luck."""
    saved: float = 0.0
    """Seconds of training that ending hopeless runs early saved."""
    noises: dict[int, Noise] = field(default_factory=dict[int, Noise])
    """By experiment: what was known of the noise at its level, when it was discarded or another took its place."""
    since_best: int = 0
    """How many were judged and not kept since the last one that was."""
    near_misses: list[ExperimentState] = field(default_factory=list[ExperimentState])
    """The NEAREST with the best scores among those."""
    places: dict[str, Place] = field(default_factory=dict[str, Place])
    lessons: dict[str, int] = field(default_factory=dict[str, int])
    """What verdicts were told, each once, with the latest experiment that taught it; the latest last."""
    by_file: dict[str, list[ExperimentState]] = field(default_factory=dict[str, list[ExperimentState]])
    by_program: dict[str, list[ExperimentState]] = field(default_factory=dict[str, list[ExperimentState]])
    by_change: dict[str, list[ExperimentState]] = field(default_factory=dict[str, list[ExperimentState]])
    unsettled: list[ExperimentState] = field(default_factory=list[ExperimentState])
    """Judged, and git does not know it yet."""
    verified: list[Verified] = field(default_factory=list[Verified])
    standings: dict[str, Standing] = field(default_factory=dict[str, Standing])
    """What is known of scores, by class of hardware."""
    hardware: str = ""
    """The class of the latest run that counts."""
    tried: dict[int, int] = field(default_factory=dict[int, int])
    """By experiment: how many others had seen data before it did."""
    tells_holdout: bool = False
    """Whether any run has a score on the sealed holdout."""
    replicates: int = 0
    """Runs that an agent asked for and no verdict needed."""
    best_in_a_row: list[str] = field(default_factory=list[str])
    """Hardware of the best's runs since any other's."""
    discoveries: list[int] = field(default_factory=list[int])
    """After how many hypotheses something better was kept."""
    descriptions: Descriptions = field(default_factory=Descriptions)
    _running: dict[int, ExperimentState] = field(default_factory=dict[int, ExperimentState])
    _awaiting: dict[int, ExperimentState] = field(default_factory=dict[int, ExperimentState])
    _judged: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        self.sign = 1 if self.started.direction == "maximize" else -1
        """1 where higher is better, -1 where lower is."""

    @property
    def counts(self) -> dict[str, int]:
        """Experiments by label."""
        return dict(self._judged + Counter(experiment.label for experiment in self.awaiting))

    @property
    def best(self) -> ExperimentState | None:
        """The last one kept: when it was, nothing was known to be better."""
        return self.kept[-1] if self.kept else None

    @property
    def standing(self) -> Standing:
        """What is known on the hardware of the latest run."""
        return self.standing_on(self.hardware)

    def standing_on(self, hardware: str) -> Standing:
        known = self.standings.get(hardware)
        if known is None:
            known = self.standings[hardware] = Standing(self.started.confidence == "single")
        return known

    @property
    def best_score(self) -> float | None:
        """What the best scores, as far as is known: not its luckiest run."""
        level = self.standing.best
        if level is not None:
            return self.sign * level.mean
        return self.best.score if self.best else None

    @property
    def baseline_score(self) -> float | None:
        """What the baseline scores, as far as is known on the hardware of the best."""
        level = self.standing.baseline or (self.standing.best if len(self.kept) == 1 else None)
        if level is not None:
            return self.sign * level.mean
        return self.baseline.score if self.baseline else None

    @property
    def baseline(self) -> ExperimentState | None:
        """The first one kept."""
        return self.kept[0] if self.kept else None

    @property
    def baseline_seconds(self) -> list[dict[str, float]]:
        """How long each scored run of the baseline took, by phase."""
        runs = self.baseline.runs if self.baseline else []
        return [run.ended.seconds for run in runs if run.ended is not None and run.ended.score is not None]

    @property
    def running(self) -> list[tuple[ExperimentState, RunState]]:
        """Experiments with the run that is on, the oldest run first."""
        return [(experiment, run) for experiment in self._running.values() if (run := experiment.running)]

    @property
    def awaiting(self) -> list[ExperimentState]:
        """Experiments without a verdict, running or not, the oldest first."""
        return list(self._awaiting.values())

    @property
    def wave(self) -> list[ExperimentState]:
        """Those of them that were entered together."""
        return [experiment for experiment in self._awaiting.values() if experiment.committed.wave]

    @property
    def whole_wave(self) -> list[ExperimentState]:
        """The same with those of that wave that have their verdict; empty when none awaits one any more."""
        numbers = {experiment.committed.wave for experiment in self.wave}
        return [experiment for experiment in self.experiments[-OF_WAVES:] if experiment.committed.wave in numbers]

    @property
    def head_commit(self) -> str:
        """Where the branch must stand: at the best experiment, before one at the start."""
        return self.best.committed.commit if self.best else self.started.base_commit

    def noise_near(self, experiment: ExperimentState, hardware: str | None = None) -> Noise:
        """What is known of the noise at the level of an experiment, on the hardware of its latest run or another: as it was when it
        was judged, or as it is now.
        """
        hardware = experiment.hardware if hardware is None else hardware
        if experiment is self.best or experiment.verdict is None:
            return self.standing_on(hardware).noise
        known = self.noises.get(experiment.number, Noise())
        return known if hardware == experiment.hardware else group(experiment.by_hardware.get(hardware, []))

    def experiment(self, number: int) -> ExperimentState | None:
        """The experiment of that number; None where this session has none. Numbers grow, with gaps for other sessions'."""
        low, high = 0, len(self.experiments)
        while low < high:
            middle = (low + high) // 2
            if self.experiments[middle].number < number:
                low = middle + 1
            else:
                high = middle
        found = self.experiments[low] if low < len(self.experiments) else None
        return found if found and found.number == number else None

    # --- the fold ---

    def _commit(self, experiment: ExperimentState) -> None:
        event = experiment.committed
        self.experiments.append(experiment)
        self._awaiting[event.experiment] = experiment
        self.by_file.setdefault(event.file_sha256, []).append(experiment)
        if event.program_sha256 is not None:
            self.by_program.setdefault(event.program_sha256, []).append(experiment)
        if event.change_sha256 is not None:
            self.by_change.setdefault(event.change_sha256, []).append(experiment)
        for place in event.places:
            known = self.places.get(place)
            if known is None:
                known = self.places[place] = Place()
            known.tried += 1
        self.descriptions.add(event.experiment, event.description)

    def _start(self, experiment: ExperimentState, run: RunState) -> None:
        experiment.runs.append(run)
        self.replicates += run.started.purpose == "replicate"
        self._running[experiment.number] = experiment

    def _end(self, experiment: ExperimentState, run: RunState, event: RunEnded) -> None:
        self.tells_holdout |= event.holdout is not None
        run.ended = event
        if experiment.running is None:
            self._running.pop(experiment.number, None)
        self.saved += event.saved
        if not run.counts:
            return
        self.best_in_a_row = [*self.best_in_a_row, event.hardware] if experiment is self.best else []
        if event.score is None:
            if experiment.failed_looks:  # whoever stops what seems unlucky has tried it all the same
                self._try(experiment)
            return
        if event.disturbed and experiment.set_aside < SET_ASIDE:
            experiment.set_aside += 1
            return
        self._count(experiment, event.score, event)
        if len(experiment.scores) > 1:
            self.near_misses.sort(key=self._rank, reverse=True)
        for name in experiment.committed.places:
            place = self.places[name]
            if place.nearest is experiment:  # its mean may have become worse than another's
                others = (other for other in self.experiments if name in other.committed.places and other.score is not None)
                place.nearest = max(others, key=self._rank)
            elif place.nearest is None or self._rank(experiment) > self._rank(place.nearest):
                place.nearest = experiment

    def _count(self, experiment: ExperimentState, score: float, event: RunEnded) -> None:
        """A score that is evidence."""
        experiment.count(score, event.hardware)
        self._try(experiment)
        self.hardware = event.hardware
        standing, of_best = self.standing_on(event.hardware), experiment is self.best
        standing.ended(experiment.number, self.sign * score, of_best, event.machine)
        self._note_best()

    def _note_best(self) -> None:
        if self.best is not None and (score := self.best_score) is not None:
            self.estimates[self.best.number] = score

    def _try(self, experiment: ExperimentState) -> None:
        # The baseline is no hypothesis; a run more than a verdict needs is like one.
        self.tried.setdefault(experiment.number, max(0, len(self.tried) - 1) + self.replicates)

    def _judge(self, experiment: ExperimentState, event: VerdictGiven) -> None:
        experiment.verdict = event
        self._judged[experiment.label] += 1
        self._awaiting.pop(experiment.number, None)
        self.unsettled.append(experiment)
        if event.learned:
            self.lessons.pop(event.learned, None)
            self.lessons[event.learned] = experiment.number
        if experiment.kept:
            if self.best is not None:
                self.noises[self.best.number] = self.standing_on(self.best.hardware).noise
            change = len(self.kept) == 1  # from the baseline to the first that replaces it
            better = [standing.keep(experiment.number, event.simpler, change) for standing in self.standings.values()]
            if any(better):
                self.discoveries.append(self.tried[experiment.number])
            self.kept.append(experiment)
            self.best_in_a_row = []
            self._note_best()
            self.since_best, self.near_misses = 0, []
            for place in experiment.committed.places:
                self.places[place].kept += 1
            return
        self.noises[experiment.number] = self.standing_on(experiment.hardware).noise
        for standing in self.standings.values():
            standing.forget(experiment.number)
        self.since_best += 1
        misses = self.near_misses
        if experiment.score is not None and (len(misses) < NEAREST or self._rank(experiment) > self._rank(misses[-1])):
            self.near_misses = sorted([*self.near_misses, experiment], key=self._rank, reverse=True)[:NEAREST]

    def _settle(self, experiment: ExperimentState) -> None:
        experiment.settled = True
        self.unsettled.remove(experiment)

    def _rank(self, experiment: ExperimentState) -> float:
        return self.sign * (experiment.score or 0.0)


@dataclass
class LedgerState:
    sessions: dict[str, SessionState] = field(default_factory=dict[str, SessionState])
    experiments: dict[int, ExperimentState] = field(default_factory=dict[int, ExperimentState])
    runs: dict[int, RunState] = field(default_factory=dict[int, RunState])
    last_experiment: int = 0
    last_run: int = 0

    def apply(self, at: float, event: Event) -> None:
        """Takes the next event in. Raises KeyError for one that names what was never recorded."""
        match event:
            case ExperimentCommitted():
                experiment = ExperimentState(event, at)
                self.experiments[event.experiment] = experiment
                self.last_experiment = max(self.last_experiment, event.experiment)
                self.sessions[event.session]._commit(experiment)
            case RunStarted():
                run = RunState(event, at)
                self.runs[event.run] = run
                self.last_run = max(self.last_run, event.run)
                experiment = self._touched(event.experiment)
                self._session(experiment)._start(experiment, run)
            case RunEnded():
                run = self.runs[event.run]
                if run.ended is None:  # the first word counts
                    experiment = self._touched(run.started.experiment)
                    self._session(experiment)._end(experiment, run, event)
            case VerdictGiven():
                experiment = self._touched(event.experiment)
                self._session(experiment)._judge(experiment, event)
            case Settled():
                experiment = self.experiments[event.experiment]
                if not experiment.settled:
                    self._session(experiment)._settle(experiment)
            case Verified():
                self.sessions[event.session].verified.append(event)
            case SessionStarted():
                self.sessions[event.tag] = SessionState(event, at)
                self.last_experiment = max(self.last_experiment, event.experiments_before)
                self.last_run = max(self.last_run, event.runs_before)

    def _touched(self, number: int) -> ExperimentState:
        experiment = self.experiments[number]
        experiment.version += 1
        return experiment

    def _session(self, experiment: ExperimentState) -> SessionState:
        return self.sessions[experiment.committed.session]
