"""Makes the league that this task is scored on: season1.tsv and words.tsv, which anybody may read, and data/sealed.tsv.xz.

    python generate.py

The games and notes are invented by the model below, with a fixed seed; no real team, person or text is in them.

The model. A team has a strength in points that drifts from game to game and moves between seasons, and before each game a
condition (injuries, rest, quarrels) that is new every time. The margin of the home side is the difference of strengths, plus
HOME, plus CONDITION times the difference of conditions, plus noise. Before a game two notes are written about each team. A note
makes claims, each with one word. How likely a word is depends on the condition as the writer sees it (`load`, the less clearly
the earlier it is written), on how the last game went (`mood`), and on who writes. Some claims are negated. After a game one
note is written about how it went; it says nothing of the next condition.
"""

import lzma
import math
import random
from dataclasses import dataclass
from pathlib import Path

SEED = 20240229
SEASONS, PAUSE = 5, 100  # days between two seasons
STRENGTH, DRIFT, STAYS = 3.5, 0.3, 0.7  # points: spread of strengths, of one step; how much of a strength a new season keeps
HOME, CONDITION, NOISE = 2.0, 7.0, 6.0  # points
NEGATED = 0.22  # of the claims
CLEAR = 0.85  # how much of the condition is seen a day before the game, to the power of the days

TEAMS = {
    "Alderport": "gulls",
    "Brackwater": "otters",
    "Carrowby": "foxes",
    "Dunmere": "herons",
    "Eastholm": "badgers",
    "Fennick": "pikes",
    "Garrowdale": "rams",
    "Hexley": "wolves",
    "Inchmoor": "plovers",
    "Jarrowick": "smiths",
    "Kelderton": "millers",
    "Lowstrand": "seals",
    "Marchfield": "archers",
    "Northgill": "ravens",
    "Oxbarrow": "drovers",
    "Pellworth": "weavers",
    "Quarrydon": "masons",
    "Roskirk": "pilots",
    "Stanwell": "lancers",
    "Tarnside": "hunters",
}
"""Name, and what its writers call it."""


@dataclass(frozen=True)
class Word:
    text: str
    noun: bool
    load: float  # of the condition
    mood: float  # of the last result


def words(noun: bool, mood: float, **loads: float) -> list[Word]:
    return [Word(text, noun, load, mood) for text, load in loads.items()]


CLAIMS = [
    # What says how the team is.
    *words(False, 0.0, rested=1.3, fresh=1.2, healthy=1.3, sharp=1.0, recovered=1.1, complete=1.0, fit=0.9, focused=0.8),
    *words(False, 0.0, settled=0.7, organised=0.6, calm=0.5, lively=0.8),
    *words(True, 0.0, rhythm=0.9, energy=0.8, depth=0.7, chemistry=0.7, reinforcements=1.0, harmony=0.6),
    *words(False, 0.0, injured=-1.3, tired=-1.2, sore=-1.0, limping=-1.3, ill=-1.1, depleted=-1.2, jaded=-1.0, rusty=-0.8),
    *words(False, 0.0, distracted=-0.8, divided=-0.9, unsettled=-0.7, sluggish=-0.9),
    *words(True, 0.0, fatigue=-1.2, fever=-1.1, cramps=-0.9, absences=-1.1, quarrels=-0.9, suspensions=-0.9, strains=-1.0),
    # What sounds one way and means another.
    *words(
        False, 0.0, quiet=0.7, serious=0.6, nervous=0.5, hungry=0.6, relaxed=-0.6, confident=-0.5, optimistic=-0.5, patient=-0.4
    ),
    *words(True, 0.0, promises=-0.7, swagger=-0.6, doubts=0.3, sweat=0.6),
    # What says how the last game went.
    *words(False, 0.9, great=0.0, amazing=0.0, brilliant=0.0, superb=0.0, proud=0.0, happy=0.0, thrilled=0.0, unstoppable=0.0),
    *words(False, -0.9, awful=0.0, terrible=0.0, hopeless=0.0, angry=0.0, sad=0.0, ashamed=0.0, poor=0.0, frustrated=0.0),
    *words(True, 0.7, joy=0.0, praise=0.0, glory=0.0),
    *words(True, -0.7, gloom=0.0, blame=0.0, jeers=0.0),
    # What says nothing.
    *words(False, 0.0, loud=0.0, busy=0.0, local=0.0, polite=0.0, famous=0.0, early=0.0, modern=0.0),
    *words(True, 0.0, tickets=0.0, weather=0.0, posters=0.0, songs=0.0, tactics=0.0, history=0.0, traffic=0.0, coffee=0.0),
]

SOURCES = {"press": (1.4, 0.3, 0.0), "fan": (0.6, 1.0, 0.3), "club": (0.8, 0.5, 0.8)}
"""How clearly each speaks of the condition and of the last result, and how much it dresses up: what sounds good comes first."""

ADJECTIVE = ["they look {}", "{us} are {}", "{us} feel {}", "{} today", "{} as a group", "all {}"]
NOUN = ["there is {}", "{} in camp", "{us} bring {}", "talk of {}", "signs of {}"]
NOT_ADJECTIVE = ["they look not {}", "{us} are hardly {}", "{us} are never {}", "not all {}", "not at all {}"]
NOT_NOUN = ["there is no {}", "{us} without {}", "no real {}", "hardly {} in camp"]
AFTER = ["after the game", "on the way home", "once it was over"]


@dataclass
class Team:
    name: str
    strength: float
    mood: float = 0.0
    last: int = -1  # day of its last game


class League:
    def __init__(self, seed: int = SEED):
        self.random = random.Random(seed)
        self.teams = [Team(name, self.random.gauss(0, STRENGTH)) for name in TEAMS]
        self.lines: list[tuple[int, int, int, str]] = []  # season, day, order within the day, text

    def play(self) -> None:
        first = 1
        for season in range(1, SEASONS + 1):
            if season > 1:
                for team in self.teams:
                    team.strength = STAYS * team.strength + self.random.gauss(0, STRENGTH * math.sqrt(1 - STAYS**2))
                    team.mood = 0.0
            for number, games in enumerate(rounds(self.random, len(self.teams))):
                for home, away in games:
                    self.game(season, first + 7 * number + self.random.choice((4, 5, 6)), self.teams[home], self.teams[away])
            first += 7 * 2 * (len(self.teams) - 1) + PAUSE

    def game(self, season: int, day: int, home: Team, away: Team) -> None:
        conditions = [self.random.gauss(0, 1), self.random.gauss(0, 1)]
        for team, condition in zip((home, away), conditions, strict=True):
            for _ in range(2):
                self.preview(season, day, team, condition)
        expected = home.strength - away.strength + HOME + CONDITION * (conditions[0] - conditions[1])
        margin = round(expected + self.random.gauss(0, NOISE)) or self.random.choice((-1, 1))
        low = round(self.random.gauss(76, 7)) - abs(margin) // 2
        points = (low + margin, low) if margin > 0 else (low, low - margin)
        self.lines.append((season, day, 1, f"game\t{day}\t{home.name}\t{away.name}\t{points[0]}\t{points[1]}"))
        for team, won in ((home, margin), (away, -margin)):
            team.mood, team.last = max(-2.0, min(2.0, won / 8)), day
            team.strength += self.random.gauss(0, DRIFT)
            self.note(season, day + 1, team, self.random.choice(("fan", "press")), 0.0, 2, self.random.choice(AFTER))

    def preview(self, season: int, day: int, team: Team, condition: float) -> None:
        ago = self.random.choice((1, 1, 2, 4))
        seen = CLEAR**ago
        source = self.random.choices(("press", "fan", "club"), (4, 4, 2))[0]
        self.note(season, day - ago, team, source, seen * condition + math.sqrt(1 - seen**2) * self.random.gauss(0, 1), 3)

    def note(self, season: int, day: int, team: Team, source: str, condition: float, claims: int, end: str = "") -> None:
        clear, moody, dresses = SOURCES[source]
        us = f"the {TEAMS[team.name]}" if self.random.random() < 0.4 else "they"
        parts: list[str] = []
        for _ in range(claims):
            negated = self.random.random() < NEGATED
            sign = -1 if negated else 1
            weights = [math.exp(sign * (w.load * (clear * condition + dresses) + w.mood * moody * team.mood)) for w in CLAIMS]
            word = self.random.choices(CLAIMS, weights)[0]
            forms = (NOT_NOUN if word.noun else NOT_ADJECTIVE) if negated else (NOUN if word.noun else ADJECTIVE)
            parts.append(self.random.choice(forms).format(word.text, us=us))
        text = ", ".join([*parts, end] if end else parts)
        self.lines.append((season, day, 0, f"note\t{day}\t{team.name}\t{source}\t{text}"))

    def text(self, *seasons: int) -> str:
        """The seasons as they happened, a line for each note and game, with the season before it."""
        chosen = sorted(line for line in self.lines if line[0] in seasons)
        return "".join(f"{season}\t{text}\n" for season, _, _, text in chosen)


def rounds(chance: random.Random, count: int) -> list[list[tuple[int, int]]]:
    """Everybody meets everybody at home and away, one game a team in each round (the circle method)."""
    circle = list(range(count))
    chance.shuffle(circle)
    half: list[list[tuple[int, int]]] = []
    for number in range(count - 1):
        pairs = [(circle[i], circle[-1 - i]) for i in range(count // 2)]
        half.append([(b, a) if (number + i) % 2 else (a, b) for i, (a, b) in enumerate(pairs)])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return half + [[(away, home) for home, away in games] for games in half]


def make(seed: int = SEED) -> tuple[str, str]:
    """The public first season, and the others."""
    league = League(seed)
    league.play()
    return league.text(1), league.text(*range(2, SEASONS + 1))


if __name__ == "__main__":
    from score import read_season, word_table

    public, sealed = make()
    folder = Path(__file__).parent
    (folder / "season1.tsv").write_text(public, encoding="utf-8")
    (folder / "words.tsv").write_text(word_table(read_season(public)), encoding="utf-8")
    (folder / "data" / "sealed.tsv.xz").write_bytes(lzma.compress(sealed.encode(), preset=9 | lzma.PRESET_EXTREME))
