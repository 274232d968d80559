"""The example `sentiment`: an agent's way through a real server, files that cheat, and the figures of the scoring command."""

import importlib.util
import json
import lzma
import math
import random
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from statistics import mean
from types import ModuleType

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.trial import run_trial
from conftest import ROOT, connect, git, open_session, text_of

pytestmark = pytest.mark.slow  # a minute of runs; `make check` has none

TASK = ROOT / "examples" / "sentiment"
ATTACKS = sorted((TASK / "attacks").glob("*.json"))
SCORED = {
    "always_away",
    "always_home",
    "persuade",
    "shout",
    "weigh_the_filler",
}  # attacks that are lexicons; the others are refused
BASELINE, REACHED = 0.597, 0.703  # accuracy on the validation seasons


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sentiment_{name}", TASK / f"{name}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look for it there
    spec.loader.exec_module(loaded)
    return loaded


score, generate = module("score"), module("generate")
Note, Game, Lexicon, Forecaster = score.Note, score.Game, score.Lexicon, score.Forecaster
START = (TASK / "lexicon.json").read_text()
PUBLIC_TEXT = (TASK / "season1.tsv").read_text()
PUBLIC = score.read_season(PUBLIC_TEXT)
KNOWN = score.known_words(PUBLIC)
SEALED = lzma.decompress((TASK / "data" / "sealed.tsv.xz").read_bytes()).decode()
EVENTS = PUBLIC + score.read_season(SEALED)

# What the agent of the test tries, in turn.
UP = "rested fresh healthy sharp recovered complete fit focused settled organised calm lively rhythm energy depth chemistry reinforcements harmony"
DOWN = "injured tired sore limping ill depleted jaded rusty distracted divided unsettled sluggish fatigue fever cramps absences quarrels suspensions strains"


def block(old: str, new: str) -> str:
    return f"<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n"


def words_of(text: str) -> str:
    """The lines of a lexicon's words."""
    return text[text.index('"words": {\n') + len('"words": {\n') : text.index("  }\n}\n")]


CONDITION = ",\n".join([*(f'    "{word}": 2' for word in UP.split()), *(f'    "{word}": -2' for word in DOWN.split())]) + "\n"
WORDS = block(words_of(START), CONDITION)
NEGATORS = block(
    '    "negators": [],\n    "negation": 1,\n    "reach": 1\n',
    '    "negators": ["no", "not", "never", "hardly", "without"],\n    "negation": -1,\n    "reach": 3\n',
)
NEGATION = NEGATORS + block('    "weight": 0.1,\n', '    "weight": 0.2,\n')
CERTAIN = WORDS + NEGATORS + block('    "weight": 0.1,\n', '    "weight": 1.5,\n')
RATINGS = block(
    '    "rate": 0.02,\n    "margin_cap": 40,\n    "carry": 1,\n    "points_per_logit": 10\n',
    '    "rate": 0.05,\n    "margin_cap": 40,\n    "carry": 0.7,\n    "points_per_logit": 6\n',
)


def patched(text: str, *patches: str) -> str:
    for patch in patches:
        for part in patch.split("<<<<<<< SEARCH\n")[1:]:
            old, new = part.removesuffix(">>>>>>> REPLACE\n").split("=======\n")
            assert text.count(old) == 1
            text = text.replace(old, new)
    return text


IMPROVED = patched(START, WORDS, NEGATION, RATINGS)


# The whole path.


@pytest.fixture
def session(tmp_path: Path) -> Session:
    session = open_session(create(tmp_path / "workspace", str(TASK)).root)
    session.data.prepare(session.workspace.root)
    return session


def test_a_client_improves_the_lexicon_through_the_server(session: Session):
    anyio.run(whole_path, session)


async def whole_path(session: Session) -> None:
    root, branch = session.workspace.root, session.state.started.branch
    async with connect(root) as client:

        async def call(tool: str, /, **arguments: object) -> dict[str, object]:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
            shown.append(text_of(result))
            return result.structured_content or {}

        async def tries(patch: str | None, description: str) -> dict[str, object]:
            if patch:
                await call("apply_patch", patch=patch)
            await call("run_experiment", description=description, wait_seconds=0)
            result = await call("get_accuracy", wait_seconds=60)
            while result["status"] == "running":
                result = await call("get_accuracy", wait_seconds=60)
            return result

        async def is_refused(tool: str, /, **arguments: object) -> str:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            return text_of(result)

        shown: list[str] = []
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"read_lexicon", "apply_patch", "run_experiment", "get_accuracy", "keep", "discard"} <= names
        assert "season1.tsv" in (await call("read_reference", name="autoresearch.toml"))["content"]  # type: ignore[operator]
        assert "Alderport" in str(await call("read_reference", name="season1.tsv", start_line=1, end_line=20))
        for name in ("data/sealed.tsv.xz", "sealed.tsv", "generate.py"):
            await is_refused("read_reference", name=name)

        first = await tries(None, "baseline")
        assert first["status"] == "scored" and first["score"] == pytest.approx(BASELINE, abs=5e-4)
        await call("keep", learned="a general lexicon")

        certain = await tries(CERTAIN, "words of condition, negation, and certain of both")
        assert float(str(certain["score"])) > BASELINE + 0.05  # it names more winners, with probabilities that are worse than none
        assert "brier" in await is_refused("keep")
        await call("discard", learned="a heavier weight costs Brier score")

        scores = [float(str(first["score"]))]
        for patch, description in ((WORDS, "words of condition"), (NEGATION, "negation"), (RATINGS, "quicker ratings")):
            result = await tries(patch, description)
            assert (result["status"], result["suggestion"]) == ("scored", "keep"), result
            await call("keep", learned=description)
            scores.append(float(str(result["score"])))
        assert scores == sorted(scores) and scores[-1] == pytest.approx(REACHED, abs=1e-3)

        refused = await tries(block('    "rested": 2,\n', '    "rested": 2,\n    "gulls": 3,\n'), "the name of a team")
        assert refused["status"] == "refused" and "gulls" in str(refused)
        await call("discard")
        status = await call("status")
        assert (status["experiments"], status["kept"]) == (6, 4)
    assert session.text_at(git(root, "rev-parse", branch)) == IMPROVED
    runs = [run.ended for run in session.ledger.state().runs.values() if run.ended and run.ended.score is not None]
    holdouts = {f"{run.holdout:.6f}" for run in runs if run.holdout is not None}
    assert len(holdouts) >= 3 and not [text for text in shown if "holdout" in text and any(value in text for value in holdouts)]


# Files that cheat.


@pytest.mark.slow
@pytest.mark.parametrize("path", ATTACKS, ids=lambda path: path.stem)
def test_no_attack_gains(path: Path):
    assert "Tries: " in path.read_text()[:40]
    trial = run_trial(TASK, replace=path.read_bytes())
    ended = trial.runs[0].ended
    assert trial.changed == []
    if path.stem in SCORED:
        assert ended.score is not None and ended.holdout is not None
        assert (
            0.4
            < ended.score
            <= score.evaluate(lexicon(START), EVENTS)["score"]
            < score.evaluate(lexicon(IMPROVED), EVENTS)["score"]
        )
    else:
        assert (ended.outcome, ended.failure, ended.score) == ("refused", "refused", None)
        lines = set(SEALED.splitlines())
        assert not lines & set(trial.runs[0].scoring.splitlines())


def test_which_attacks_are_lexicons():
    """The quick half of the above: no process, only whether the file is taken."""
    taken = set[str]()
    for path in ATTACKS:
        try:
            lexicon(path.read_text())
            taken.add(path.stem)
        except score.RefusedError:
            pass
    assert taken == SCORED and len(ATTACKS) >= 20


# What the seasons tell, and whom.


def test_the_carried_seasons_are_what_the_model_makes():
    public, sealed = generate.make()
    assert public == PUBLIC_TEXT and sealed == SEALED
    assert generate.make(generate.SEED + 1)[0] != PUBLIC_TEXT
    assert score.word_table(PUBLIC) == (TASK / "words.tsv").read_text()


def test_seasons_are_whole_and_one_after_the_other():
    games = [event for event in EVENTS if isinstance(event, Game)]
    for season in (1, *score.VALIDATION, *score.HOLDOUT):
        pairs = [(game.home, game.away) for game in games if game.season == season]
        assert len(pairs) == len({*pairs}) == 20 * 19
    assert [event.season for event in EVENTS] == sorted(event.season for event in EVENTS)
    assert max(event.day for event in PUBLIC) < min(event.day for event in EVENTS if event.season == 2)
    assert not {*score.VALIDATION} & {*score.HOLDOUT} and min(score.VALIDATION) > 1


def test_nothing_sealed_is_in_what_the_agent_reads():
    sealed = {line for line in SEALED.splitlines() if "\tgame\t" in line or line.split("\t")[-1].count(",") == 2}
    for name in (*read_only(), "lexicon.json", "autoresearch.toml", "program.md"):
        assert not sealed & {*(TASK / name).read_text().splitlines()}


def read_only() -> list[str]:
    return tomllib.loads((TASK / "autoresearch.toml").read_text())["files"]["read_only"]


def test_the_known_words_name_no_team_and_no_game():
    names = {name.lower() for name in generate.TEAMS} | {*generate.TEAMS.values()}
    used = {word for event in PUBLIC if isinstance(event, Note) for claim in event.claims for word in claim}
    assert {*generate.TEAMS.values()} <= used and not names & KNOWN  # the notes do name teams
    assert not any(
        character.isdigit()
        for line in (PUBLIC_TEXT + SEALED).splitlines()
        if "\tnote\t" in line
        for character in line.split("\t")[-1]
    )
    assert {word.text for word in generate.CLAIMS} <= KNOWN


def test_a_word_is_known_from_twenty_notes_on_five_teams():
    def notes(count: int, teams: int) -> list[object]:
        return [Note(1, 1, f"team {number % teams}", "fan", [["word"]]) for number in range(count)]

    assert score.known_words(notes(20, 5)) == {"word"}
    assert score.known_words(notes(19, 5)) == score.known_words(notes(200, 4)) == set()


def test_data_that_was_changed_is_not_prepared(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sealed.tsv.xz").write_bytes(lzma.compress(SEALED.replace("\tfan\t", "\tpress\t", 1).encode()))
    command = [sys.executable, str(TASK / "prepare.py"), str(tmp_path / "out")]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0 and "not the file" in made.stderr and not (tmp_path / "out").exists()


# Figures.


def lexicon(text: str):
    return score.parse(text, KNOWN)


def plain(**changes: object):
    """A lexicon that says 50 % of everything, with changes."""
    ratings = {"home_points": 0.0, "rate": 0.0, "margin_cap": 40.0, "carry": 1.0, "points_per_logit": 10.0}
    notes = {"weight": 1.0, "half_life_days": 2.0, "press": 1.0, "fan": 0.5, "club": 0.0, "negation": -0.5, "reach": 1.0}
    for name, value in changes.items():
        (ratings if name in ratings else notes if name in notes else {})[name] = value
    return Lexicon(ratings, notes, frozenset({"not"}), 0.5, {"fresh": 2.0, "tired": -1.0})


def note(day: int, team: str, said: str, source: str = "press", season: int = 1):
    return Note(season, day, team, source, [claim.split() for claim in said.split(", ")])


def logits(events: list[object], **changes: object) -> list[float]:
    return [math.log(p / (1 - p)) for _, p in Forecaster(plain(**changes)).forecast(events)]


def test_accuracy_and_brier_by_hand():
    forecasts = [(Game(1, 1, "a", "b", margin), p) for margin, p in ((3, 0.8), (-3, 0.5), (5, 0.4), (-1, 0.1))]
    assert score.accuracy(forecasts) == 0.5  # right on 0.8 and 0.1; the home side is named from 0.5 on
    assert score.accuracy(forecasts, 0.4) == 0.75 and score.accuracy(forecasts, 0.51) == 0.75
    assert score.brier(forecasts) == pytest.approx((0.04 + 0.25 + 0.36 + 0.01) / 4)
    assert score.brier([(Game(1, 1, "a", "b", 1), 0.5)]) == 0.25


def test_a_note_by_hand():
    sentiment = Forecaster(plain()).sentiment
    assert sentiment(note(1, "a", "they look fresh")) == 2.0
    assert sentiment(note(1, "a", "they look not fresh, all tired")) == -0.5 * 2.0 - 1.0
    assert sentiment(note(1, "a", "not at fresh")) == 2.0  # beyond reach
    assert Forecaster(plain(reach=2.0)).sentiment(note(1, "a", "not at fresh")) == -1.0
    assert Forecaster(plain(reach=4.0)).sentiment(note(1, "a", "not, fresh")) == 2.0  # of another claim
    assert Forecaster(plain(reach=0.0)).sentiment(note(1, "a", "not fresh")) == 2.0
    assert sentiment(note(1, "a", "tired", "fan")) == -0.5 and sentiment(note(1, "a", "tired", "club")) == 0.0


def test_notes_fade_and_count_since_the_last_game():
    game = Game(1, 10, "a", "b", 1)
    assert logits([note(8, "a", "fresh"), game]) == pytest.approx([1.0])  # two days, one half-life
    assert logits([note(8, "b", "fresh"), game]) == pytest.approx([-1.0])
    assert logits([note(8, "a", "fresh"), game], weight=0.3) == pytest.approx([0.3])
    assert logits([note(8, "a", "fresh"), game, Game(1, 12, "a", "b", 1)]) == pytest.approx([1.0, 0.0])
    assert logits([note(10, "a", "fresh"), game, Game(1, 12, "a", "b", 1)]) == pytest.approx(
        [0.0, 1.0]
    )  # of the day itself: too late
    assert logits([game, note(10, "a", "fresh")]) == [0.0]


def test_ratings_by_hand():
    events = [Game(1, 1, "a", "b", 10), Game(1, 2, "b", "a", 3), Game(2, 300, "a", "b", 1)]
    # a +2, b -2. Then b is expected to lose by 4 and wins by 3, a surprise of 7: b -0.6, a +0.6. The new season keeps half.
    assert logits(events, rate=0.2, carry=0.5) == pytest.approx([0.0, -0.4, 0.06])
    assert logits(events[:2], rate=0.2, margin_cap=5.0) == pytest.approx([0.0, -0.2])
    assert logits(events[:1], home_points=3.0, points_per_logit=6.0) == pytest.approx([0.5])
    day = [Game(1, 1, "a", "b", 10), Game(1, 1, "a", "c", 10)]
    assert logits(day, rate=0.2) == [0.0, 0.0]  # results of the day itself are not known


def test_a_forecast_is_a_probability():
    events = [note(9, "a", "fresh " * 2000), Game(1, 10, "a", "b", -1)]
    [(_, p)] = Forecaster(plain(reach=0.0)).forecast(events)
    assert 0 < p <= 1 and score.brier([(events[1], p)]) <= 1


def test_days_must_not_go_back():
    with pytest.raises(ValueError, match="day 4 comes after day 5"):
        list(Forecaster(plain()).forecast([Game(1, 5, "a", "b", 1), Game(1, 4, "a", "b", 1)]))


@pytest.mark.parametrize("seed", range(3))
def test_no_forecast_knows_the_future(seed: int):
    """All results and notes from some day on are turned round: what was forecast up to that day stays, what follows does not."""
    chance = random.Random(seed)
    day = chance.choice(
        [event.day for event in EVENTS if isinstance(event, Game) and event.season in (*score.VALIDATION, *score.HOLDOUT)]
    )

    def turned(event) -> list[object]:
        if event.day < day:
            return [event]
        if isinstance(event, Game):  # and a word on the day itself
            late = [
                note(event.day, team, "rested", season=event.season) for team in (event.home, event.away)[: chance.randint(1, 2)]
            ]
            return [*late, replace(event, margin=-event.margin)]
        return [replace(event, claims=[["rested", "fresh"] if chance.random() < 0.5 else ["injured"]])]

    before = list(Forecaster(lexicon(IMPROVED)).forecast(EVENTS))
    after = list(Forecaster(lexicon(IMPROVED)).forecast([now for event in EVENTS for now in turned(event)]))
    told = [(game.day, p, q) for (game, p), (_, q) in zip(before, after, strict=True)]
    assert all(p == q for when, p, q in told if when <= day) and sum(when <= day for when, _, _ in told) > 380
    assert sum(p != q for when, p, q in told if when > day + 7) > 0.9 * sum(when > day + 7 for when, _, _ in told)


def test_a_season_is_scored_by_its_own_games():
    """The holdout's results move the holdout alone, and those of the public season no figure but by what the ratings learn."""
    flip = [replace(event, margin=-event.margin) if isinstance(event, Game) and event.season == 5 else event for event in EVENTS]
    whole, flipped = (score.evaluate(lexicon(IMPROVED), events) for events in (EVENTS, flip))
    assert whole["score"] == flipped["score"] and whole["details"] == flipped["details"] and whole["holdout"] != flipped["holdout"]
    unrated = replace(lexicon(IMPROVED), ratings=lexicon(IMPROVED).ratings | {"rate": 0.0})
    assert score.evaluate(unrated, EVENTS)["score"] == pytest.approx(whole["details"]["without_ratings"], abs=1e-4)
    by_hand = [(g, p) for g, p in Forecaster(lexicon(IMPROVED)).forecast(EVENTS) if 2 <= g.season <= 4]
    assert len(by_hand) == 1140 and whole["score"] == sum((p >= 0.5) == (g.margin > 0) for g, p in by_hand) / 1140


def test_what_helps_is_in_the_words():
    """The same weights on other words are worth nothing, and turned round they harm: on the sealed season too."""
    good = lexicon(IMPROVED)
    shuffled = list(good.words.values())
    random.Random(1).shuffle(shuffled)
    whole, mixed, turned, start = (
        score.evaluate(each, EVENTS)
        for each in (
            good,
            replace(good, words=dict(zip(good.words, shuffled, strict=True))),
            replace(good, words={word: -weight for word, weight in good.words.items()}),
            lexicon(START),
        )
    )
    for figure in ("score", "holdout"):
        assert whole[figure] > start[figure] + 0.08
        assert whole[figure] > mixed[figure] + 0.05 > turned[figure] + 0.05
    assert whole["details"]["brier"] < 0.21 < start["details"]["brier"] < 0.25 < turned["details"]["brier"]
    assert whole["score"] > whole["details"]["without_notes"] + 0.05


def test_the_readme_has_the_figures():
    rows = (TASK / "README.md").read_text()
    for text in (START, patched(START, WORDS), patched(START, WORDS, NEGATION), IMPROVED):
        result = score.evaluate(lexicon(text), EVENTS)
        assert f"| {result['score']:.3f} | {result['details']['brier']:.3f} | {result['holdout']:.3f} |" in rows
    home = score.evaluate(lexicon((TASK / "attacks" / "always_home.json").read_text()), EVENTS)
    assert f"| {home['score']:.3f} | | {home['holdout']:.3f} |" in rows


@pytest.mark.slow
def test_luck_does_not_reach_the_holdout():
    """Of blind additions the ten that gain most on the validation seasons gain less on the sealed one. Ten, for a single one may gain
    there by luck again: it is one season.
    """
    chance = random.Random(7)
    filler = sorted(KNOWN - {word.text for word in generate.CLAIMS})
    good = lexicon(IMPROVED)

    def scores(lexicon) -> list[float]:
        forecasts = list(Forecaster(lexicon).forecast(EVENTS))
        return [
            score.accuracy([(g, p) for g, p in forecasts if g.season in seasons]) for seasons in (score.VALIDATION, score.HOLDOUT)
        ]

    start, gains = scores(good), []
    for _ in range(40):
        words = good.words | {word: chance.randint(-10, 10) / 10 for word in chance.sample(filler, 12)}
        gains.append([now - before for now, before in zip(scores(replace(good, words=words)), start, strict=True)])
    best = sorted(gains, reverse=True)[:10]
    assert 0.005 < best[0][0] < 0.015  # the README says: about a per cent
    assert mean(sealed for _, sealed in best) < mean(shown for shown, _ in best)


# What the file may hold.


def test_the_starting_file_and_the_bounds_themselves_are_taken():
    assert len(lexicon(START).words) == 32 and lexicon(START).threshold == 0.5
    for section, bounds in score.BOUNDS.items():
        for name, ends in bounds.items():
            for end, beyond in zip(ends, (ends[0] - 0.01, ends[1] + 0.01), strict=True):
                content = json.loads(START)
                content[section][name] = end
                assert getattr(lexicon(json.dumps(content)), section)[name] == end
                content[section][name] = beyond
                with pytest.raises(score.RefusedError, match=name):
                    lexicon(json.dumps(content))


def changed(**changes: object) -> str:
    return json.dumps({**json.loads(START), **changes})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON"),
        ("0.99", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ("{}", "lacks notes"),
        (changed(words=None), "words must be an object"),
        (changed(words={word: 1 for word in sorted(KNOWN)[: score.WORDS + 1]}), "at most 80"),
        (changed(words={"fresh": 3.1}), "from -3 to 3"),
        (changed(words={"fresh": 0.05}), "multiple of 0.1"),
        (changed(words={"fresh": True}), "must be a number"),
        (changed(words={"fresh": 10**400}), "must be a number"),
        (changed(words={"fresh": "1"}), "must be a number"),
        (changed(words={"zebra": 1}), "zebra"),
        (changed(threshold=0.71), "threshold"),
        (changed(threshold=None), "threshold"),
        (changed(about=3), "about"),
        (changed(more=1), "'more'"),
        (changed(notes={**json.loads(START)["notes"], "reach": 1.5}), "whole number"),
        (changed(notes={**json.loads(START)["notes"], "negators": ["not"] * 9}), "at most 8"),
        (changed(notes={**json.loads(START)["notes"], "negators": [["not"]]}), "negators"),
        (changed(notes={**json.loads(START)["notes"], "negators": "not"}), "negators"),
        (changed(notes={**json.loads(START)["notes"], "negators": ["gulls"]}), "gulls"),
    ],
)
def test_what_is_refused(text: str, reason: str):
    with pytest.raises(score.RefusedError, match=reason):
        lexicon(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(sorted(KNOWN)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(sorted(KNOWN)), inner, max_size=3)
    ),
)


@given(
    st.sampled_from(
        [(), ("words",), ("ratings",), ("notes",), ("notes", "negators"), ("notes", "reach"), ("threshold",), ("about",)]
    ),
    JSON,
)
def test_whatever_the_file_holds_is_a_lexicon_or_a_refusal(path: tuple[str, ...], value: object):
    content = json.loads(START)
    if path:
        within = content
        for name in path[:-1]:
            within = within[name]
        within[path[-1]] = value
    try:
        taken = lexicon(json.dumps(content if path else value))
    except score.RefusedError as refusal:
        assert json.dumps(str(refusal)).isascii() and len(str(refusal)) < 1000
    else:
        assert all(math.isfinite(number) for number in [*taken.words.values(), *taken.ratings.values(), taken.threshold])


def test_weights_of_one_decimal_are_multiples_of_a_tenth():
    words = dict(zip(sorted(KNOWN), (number / 10 for number in range(-30, 31)), strict=False))
    assert lexicon(changed(words=words)).words == words
