"""Scores lexicon.json: how often it names the winner of games of seasons that nobody has shown it.

    python score.py FOLDER      # of sealed.tsv; lexicon.json and season1.tsv lie where it is called

The file is data: it is parsed as JSON within bounds, and nothing of it is executed. The seasons are gone through once, day by day.
On a day all its games are forecast first, from results and notes of earlier days; then ratings learn the results; then the notes of
the day are taken in. So a forecast knows nothing of its own day or of a later one, whatever the file says.

A forecast is the probability that the home side wins, the logistic function of

    (home_points + rating of the home side - rating of the away side) / points_per_logit + weight * (its notes - the other's notes)

where a side's notes, those written since its last game, count the weights of their words: times the weight of their source, halved
every half_life_days, and times `negation` where one of `negators` is among the `reach` words before, in the same claim.
"""

import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

VALIDATION, HOLDOUT = (2, 3, 4), (5,)  # seasons
WORDS, NEGATORS, ABOUT = 80, 8, 2000  # at most: words with a weight, negators, characters of the comment
LARGEST = 30  # weight, in tenths
NOTES, TEAMS = 20, 5  # of the public season that have a word, for it to be known
SOURCES = ("press", "fan", "club")
BOUNDS = {
    "ratings": {
        "home_points": (0.0, 10.0),  # what playing at home is worth
        "rate": (0.0, 0.5),  # how much of a surprise a rating learns
        "margin_cap": (1.0, 40.0),  # the most that a surprise counts
        "carry": (0.0, 1.0),  # how much of a rating the next season keeps
        "points_per_logit": (2.0, 100.0),
    },
    "notes": {
        "weight": (0.0, 2.0),
        "half_life_days": (0.2, 100.0),
        **{source: (0.0, 2.0) for source in SOURCES},
        "negation": (-1.0, 1.0),
        "reach": (0.0, 4.0),
    },
}
"""Every setting, and what it may be."""


class RefusedError(Exception):
    """The file is not one that can be scored; the text says why, and quotes nothing that is sealed."""


@dataclass(frozen=True)
class Note:
    season: int
    day: int
    team: str
    source: str
    claims: list[list[str]]  # words


@dataclass(frozen=True)
class Game:
    season: int
    day: int
    home: str
    away: str
    margin: int  # of the home side

    @property
    def home_wins(self) -> bool:
        return self.margin > 0


@dataclass
class Lexicon:
    ratings: dict[str, float]
    notes: dict[str, float]
    negators: frozenset[str]
    threshold: float
    words: dict[str, float] = field(default_factory=dict[str, float])


def read_season(text: str) -> list[Note | Game]:
    """What happened, in order."""
    events: list[Note | Game] = []
    for line in text.splitlines():
        season, kind, day, *rest = line.split("\t")
        if kind == "note":
            team, source, said = rest
            claims = [re.findall(r"[a-z]+", claim) for claim in said.lower().split(",")]
            events.append(Note(int(season), int(day), team, source, claims))
        else:
            home, away, points, against = rest
            events.append(Game(int(season), int(day), home, away, int(points) - int(against)))
    return events


def known_words(public: Iterable[Note | Game]) -> set[str]:
    """The words of the public season that are about the game and not about a team: enough notes, on enough teams, have them."""
    notes: dict[str, int] = defaultdict(int)
    teams: dict[str, set[str]] = defaultdict(set)
    for event in public:
        if isinstance(event, Note):
            for word in {word for claim in event.claims for word in claim}:
                notes[word] += 1
                teams[word].add(event.team)
    return {word for word in notes if notes[word] >= NOTES and len(teams[word]) >= TEAMS}


def word_table(public: list[Note | Game]) -> str:
    """words.tsv: each known word with how many notes and teams have it, and how many notes on sides that then won and lost."""
    known = known_words(public)
    notes, teams = {word: 0 for word in known}, {word: set[str]() for word in known}
    won, lost = dict(notes), dict(notes)
    unread: dict[str, list[set[str]]] = defaultdict(list)
    for event in sorted(public, key=lambda event: (event.day, isinstance(event, Note))):  # a note of a game's day comes after it
        if isinstance(event, Note):
            said = {word for claim in event.claims for word in claim} & known
            unread[event.team].append(said)
            for word in said:
                notes[word] += 1
                teams[word].add(event.team)
        else:
            for team, count in ((event.home, won if event.home_wins else lost), (event.away, lost if event.home_wins else won)):
                for word in (word for said in unread.pop(team, []) for word in said):
                    count[word] += 1
    rows = [f"{word}\t{notes[word]}\t{len(teams[word])}\t{won[word]}\t{lost[word]}" for word in sorted(known)]
    return "\n".join(["word\tnotes\tteams\twon\tlost", *rows]) + "\n"


def parse(text: str, known: set[str]) -> Lexicon:
    """The lexicon in a file's text. Raises RefusedError, and nothing else."""
    try:
        content = json.loads(text, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"lexicon.json is no JSON that can be used: {str(error)[:200]}") from error
    _members(content, "lexicon.json", {"ratings", "notes", "threshold", "words"}, optional={"about"})
    if not isinstance(content.get("about", ""), str) or len(content.get("about", "")) > ABOUT:
        raise RefusedError(f"about must be a text of at most {ABOUT} characters")
    settings: dict[str, dict[str, float]] = {}
    for name, bounds in BOUNDS.items():
        also = {"negators"} if name == "notes" else set[str]()
        _members(content[name], name, {*bounds, *also})
        settings[name] = {key: _number(content[name][key], f"{name}.{key}", *bound) for key, bound in bounds.items()}
    if settings["notes"]["reach"] % 1:
        raise RefusedError("notes.reach must be a whole number of words")
    negators = content["notes"]["negators"]
    if not isinstance(negators, list) or len(negators) > NEGATORS or not all(isinstance(word, str) for word in negators):
        raise RefusedError(f"notes.negators must be a list of at most {NEGATORS} words")
    weights = content["words"]
    if not isinstance(weights, dict) or len(weights) > WORDS:
        raise RefusedError(f"words must be an object of at most {WORDS} words and their weights")
    if unknown := sorted({*weights, *negators} - known):
        shown = ", ".join(ascii(word)[:40] for word in unknown[:12])
        raise RefusedError(
            f"words.tsv does not list, for fewer than {NOTES} notes or {TEAMS} teams of season1.tsv have them: {shown}"
        )
    words = {word: _tenths(weight, word) for word, weight in weights.items()}
    threshold = _number(content["threshold"], "threshold", 0.3, 0.7)
    return Lexicon(settings["ratings"], settings["notes"], frozenset(negators), threshold, words)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len({*names}) < len(names):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def _members(value: object, name: str, needed: set[str], optional: frozenset[str] | set[str] = frozenset()) -> None:
    if not isinstance(value, dict):
        raise RefusedError(f"{name} must be a JSON object")
    if missing := sorted(needed - value.keys()):
        raise RefusedError(f"{name} lacks {', '.join(missing)}")
    if more := sorted(value.keys() - needed - optional):
        raise RefusedError(f"{name} has what nothing reads: {', '.join(ascii(key)[:40] for key in more[:12])}")


def _number(value: object, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN is not within either
        raise RefusedError(f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def _tenths(value: object, word: str) -> float:
    number = _number(value, f"the weight of {word}", -LARGEST / 10, LARGEST / 10)
    if round(number * 10) / 10 != number:
        raise RefusedError(f"the weight of {word} must be a multiple of 0.1")
    return number


class Forecaster:
    """Goes through the seasons once, forward."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon = lexicon
        self.ratings: dict[str, float] = defaultdict(float)
        self.unread: dict[str, list[tuple[int, float]]] = defaultdict(list)  # day and sum of each note since the team's last game
        self.season = 0

    def forecast(self, events: Iterable[Note | Game]) -> Iterator[tuple[Game, float]]:
        """Each game with the probability that its home side wins. Raises ValueError where a day comes after a later one."""
        today = -1
        for day, happened in groupby(events, key=lambda event: event.day):
            if day <= today:
                raise ValueError(f"day {day} comes after day {today}")
            today = day
            happened = list(happened)
            self._begin(happened[0].season)
            games = [event for event in happened if isinstance(event, Game)]
            for game in games:
                yield game, self.probability(game)
            for game in games:
                self._learn(game)
            for event in happened:
                if isinstance(event, Note):
                    self.unread[event.team].append((event.day, self.sentiment(event)))

    def probability(self, game: Game) -> float:
        ratings, weight = self.lexicon.ratings, self.lexicon.notes["weight"]
        logit = self._expected(game) / ratings["points_per_logit"]
        logit += weight * (self._notes(game.home, game.day) - self._notes(game.away, game.day))
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))

    def sentiment(self, note: Note) -> float:
        """The weights of a note's words, by its source."""
        settings, total = self.lexicon.notes, 0.0
        reach = int(settings["reach"])
        for claim in note.claims:
            for place, word in enumerate(claim):
                if weight := self.lexicon.words.get(word, 0.0):
                    negated = not self.lexicon.negators.isdisjoint(claim[max(0, place - reach) : place])
                    total += weight * (settings["negation"] if negated else 1.0)
        return settings[note.source] * total

    def _notes(self, team: str, day: int) -> float:
        return sum(0.5 ** ((day - written) / self.lexicon.notes["half_life_days"]) * value for written, value in self.unread[team])

    def _expected(self, game: Game) -> float:
        """Margin in points."""
        return self.lexicon.ratings["home_points"] + self.ratings[game.home] - self.ratings[game.away]

    def _learn(self, game: Game) -> None:
        ratings = self.lexicon.ratings
        surprise = max(-ratings["margin_cap"], min(ratings["margin_cap"], game.margin - self._expected(game)))
        self.ratings[game.home] += ratings["rate"] * surprise
        self.ratings[game.away] -= ratings["rate"] * surprise
        self.unread[game.home], self.unread[game.away] = [], []

    def _begin(self, season: int) -> None:
        if season != self.season:
            self.season = season
            for team in self.ratings:
                self.ratings[team] *= self.lexicon.ratings["carry"]


def accuracy(forecasts: Iterable[tuple[Game, float]], threshold: float = 0.5) -> float:
    """Share of the games whose winner is named: the home side from the threshold on."""
    hits = [(probability >= threshold) == game.home_wins for game, probability in forecasts]
    return sum(hits) / len(hits)


def brier(forecasts: Iterable[tuple[Game, float]]) -> float:
    """Mean squared error of the probabilities: 0 is perfect, 0.25 is to say 50 % of every game."""
    errors = [(probability - game.home_wins) ** 2 for game, probability in forecasts]
    return sum(errors) / len(errors)


def evaluate(lexicon: Lexicon, events: list[Note | Game]) -> dict[str, Any]:
    """The answer: accuracy on the validation and holdout seasons, and figures of the former."""

    def backtest(lexicon: Lexicon, *seasons: int) -> list[tuple[Game, float]]:
        return [(game, p) for game, p in Forecaster(lexicon).forecast(events) if game.season in seasons]

    both = backtest(lexicon, *VALIDATION, *HOLDOUT)
    chosen = [(game, p) for game, p in both if game.season in VALIDATION]
    silent = replace(lexicon, notes=lexicon.notes | {"weight": 0.0})
    level = replace(lexicon, ratings=lexicon.ratings | {"rate": 0.0})
    details = {
        "brier": brier(chosen),
        "without_notes": accuracy(backtest(silent, *VALIDATION), lexicon.threshold),
        "without_ratings": accuracy(backtest(level, *VALIDATION), lexicon.threshold),
    }
    return {
        "score": accuracy(chosen, lexicon.threshold),
        "holdout": accuracy([(game, p) for game, p in both if game.season in HOLDOUT], lexicon.threshold),
        "details": {name: round(value, 4) for name, value in details.items()},  # each further digit would tell of single games
    }


def main(folder: Path) -> None:
    public = read_season(Path("season1.tsv").read_text(encoding="utf-8"))
    try:
        try:
            text = Path("lexicon.json").read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RefusedError("lexicon.json is no UTF-8") from error
        lexicon = parse(text, known_words(public))
    except RefusedError as refusal:
        print(json.dumps({"refused": str(refusal)}))
        return
    print(json.dumps(evaluate(lexicon, public + read_season((folder / "sealed.tsv").read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
