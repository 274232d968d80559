"""The example `discovery`: from bestsellers to diverse lists through a real client, every attack on it, and its figures by hand."""

import difflib
import importlib.util
import math
import shutil
import subprocess
import sys
import zlib
from base64 import b85encode
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.trial import Tried, data_of, read_folder, run_trial
from autoresearch_mcp.run.sandbox import detect
from conftest import ROOT, connect, git, open_session, text_of

pytestmark = pytest.mark.slow  # a minute of runs; `make check` has none

EXAMPLE = ROOT / "examples" / "discovery"
STEPS = Path(__file__).parent / "discovery"
ATTACKS = sorted((EXAMPLE / "attacks").glob("*.py"))
START, REACHED = 5.19, 67.25  # what README.md says
LIMITED = ("ndcg", "precision")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"discovery_{name}", EXAMPLE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


score, generate = load("score"), load("generate")


# --- the loop ---


def test_a_session_from_bestsellers_to_diverse_lists(tmp_path: Path):
    session = open_session(create(tmp_path / "workspace", "discovery").root)
    session.data.prepare(session.workspace.root)
    anyio.run(improve, session)


def patch(old: str, version: Path) -> str:
    new = version.read_text().splitlines(keepends=True)
    return "".join(difflib.unified_diff(old.splitlines(keepends=True), new, "a/recommend.py", "b/recommend.py"))


async def improve(session: Session) -> None:
    root, file = session.workspace.root, session.workspace.root / "recommend.py"
    async with connect(root) as client:

        async def call(tool: str, /, **arguments: object) -> dict[str, object]:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
            return result.structured_content or {}

        async def attempt(description: str, version: Path | None = None) -> tuple[float, dict[str, object]]:
            if version:
                await call("apply_patch", patch=patch(str((await call("read_recommend"))["content"]), version))
            result = await call("run_experiment", description=description, wait_seconds=0)
            while result["status"] == "running":
                result = await call("get_diversity", wait_seconds=60)
            assert result["status"] == "scored", result
            return float(str(result["score"])), result

        for sealed in ("readers.txt", "generate.py"):
            answer = await client.call_tool("read_reference", {"name": sealed})
            assert answer.is_error and "There is no reference" in text_of(answer)

        scores = [(await attempt("baseline"))[0]]
        await call("keep")
        better, result = await attempt("rank by who has read the same books", STEPS / "coreading.py")
        assert result["details"]["ndcg"] > 0.19, "tastes can be learned: bestsellers have 0.167"  # type: ignore[index]
        await call("keep", learned="readers with like histories are a better guide than the crowd")
        scores.append(better)

        more, result = await attempt("fill the last five places by a hash", EXAMPLE / "attacks" / "fill_the_late_places.py")
        assert more > 3 * scores[-1] and result["suggestion"] == "discard"
        refused = await client.call_tool("keep", {})
        assert refused.is_error and "beyond its limit" in text_of(refused)
        await call("discard", learned="what is only different is not relevant")

        scores.append((await attempt("add authors and subjects, let fame count less", STEPS / "hybrid.py"))[0])
        await call("keep")
        scores.append((await attempt("three sure books first, then rarer ones", STEPS / "reranked.py"))[0])
        await call("keep")

        assert scores == sorted(scores) and len(set(scores)) == 4
        assert (scores[0], scores[-1]) == pytest.approx((START, REACHED), rel=0.01)
        status = await call("status")
        assert (status["experiments"], status["kept"], status["best_experiment"]) == (5, 4, 5)
        assert git(root, "show", f"{session.state.started.branch}:recommend.py") == (STEPS / "reranked.py").read_text().strip()
    assert not file.samefile(STEPS / "reranked.py") and file.read_text() == (EXAMPLE / "recommend.py").read_text()
    ends = [run.ended for run in session.ledger.state().runs.values() if run.ended]
    assert all(end.holdout is not None for end in ends) and ends[-1].holdout == pytest.approx(64.16, rel=0.01)


# --- attacks ---


def tried(file: Path | bytes, preset: str | None = None) -> Tried:
    trial = run_trial(EXAMPLE, preset=preset, replace=file if isinstance(file, bytes) else file.read_bytes())
    assert trial.changed == []
    return trial.runs[0]


def ends(attack: Path) -> str:
    line = attack.read_text().splitlines()[1]
    assert line.startswith("# Ends: "), attack
    return line.removeprefix("# Ends: ")


@pytest.fixture(scope="module")
def baseline() -> Tried:
    return tried(EXAMPLE / "recommend.py")


def marked(attack: Path):
    waits = attack.stem in ("never_answer", "answer_without_end")
    return pytest.param(attack, id=attack.stem, marks=[pytest.mark.slow] if waits else [])


@pytest.mark.parametrize("attack", [marked(attack) for attack in ATTACKS if attack.stem != "carry_the_answers"])
def test_an_attack_gains_nothing(attack: Path, baseline: Tried):
    if "# Needs: a sandbox\n" in attack.read_text() and detect().level == "none":
        pytest.skip("this machine confines nothing")
    ended, end = (run := tried(attack)).ended, ends(attack)
    assert "BREACH" not in run.output + run.scoring
    if end.startswith("refused"):
        assert (ended.score, ended.outcome) == (None, "refused")
        assert any(words in ended.excerpt for words in end.split('"')[1::2]), ended.excerpt
        assert "b'" not in ended.excerpt, "a refusal repeats nothing of what the child said"
    elif end == "beyond a limit":
        assert any(ended.details[name] < baseline.ended.details[name] for name in LIMITED)
    else:
        assert end == "gains nothing"
        assert (ended.score, ended.holdout, ended.details) == (
            baseline.ended.score,
            baseline.ended.holdout,
            baseline.ended.details,
        )


def test_answers_by_heart_are_worth_nothing_to_fresh_readers():
    """Whoever has the repository can put its held-out books into the file; the preset `fresh` is for those."""
    packed = b85encode(zlib.compress((EXAMPLE / "readers.txt").read_bytes(), 9)).decode()
    text = (EXAMPLE / "attacks" / "carry_the_answers.py").read_text().replace("@READERS@", packed).encode()
    assert tried(text).ended.details["ndcg"] == 1, "else the attack would prove nothing"
    fresh = tried(text, "fresh").ended
    readers = score.read_readers(data_of(EXAMPLE, *read_folder(EXAMPLE, "fresh")).path / "readers.txt")["scored"]
    labels, best = score.read_labels(EXAMPLE / "catalogue.csv"), score.bestsellers(EXAMPLE / "community.txt")
    plain = [[book for book in best if book not in reader.past][:10] for reader in readers]
    assert fresh.score == pytest.approx(score.diversity(plain, labels))
    assert fresh.details["ndcg"] == pytest.approx(score.mean_ndcg(plain, readers), abs=0.0006)


# --- figures ---

LABELS = {"a": frozenset("xy"), "b": frozenset("xy"), "c": frozenset("yz"), "d": frozenset("w")}


def test_distance_and_coverage():
    assert score.distance(LABELS["a"], LABELS["b"]) == 0
    assert score.distance(LABELS["a"], LABELS["c"]) == pytest.approx(2 / 3)
    assert score.distance(LABELS["a"], LABELS["d"]) == 1
    assert score.intra_list_distance(["a", "b", "c"], LABELS) == pytest.approx((0 + 2 / 3 + 2 / 3) / 3)
    assert score.coverage([["a", "b"], ["b", "d"]], LABELS) == 3 / 4


def test_diversity_is_high_only_where_both_are():
    assert score.diversity([["a", "b"], ["a", "d"]], LABELS) == pytest.approx(100 * 2 * 0.5 * 0.75 / 1.25)
    assert score.diversity([["a", "b"]], LABELS) == 0, "one list of twins"
    assert score.diversity([["a", "d"], ["b", "d"], ["c", "d"]], LABELS) == pytest.approx(100)
    assert score.diversity([["a", "d"]] * 50, LABELS) == pytest.approx(100 * 2 * 0.5 / 1.5), "the same list for everybody"


def test_ndcg():
    assert score.ndcg("hxi", {"h", "i", "j"}) == pytest.approx(1.5 / (1 + 1 / math.log2(3) + 0.5))
    assert score.ndcg("xyh", {"h"}) == pytest.approx(0.5)
    assert (score.ndcg("hij", {"h", "i", "j", "k"}), score.ndcg("xyz", {"h"})) == (1, 0)
    assert score.ndcg("hx", {"h", "i"}) > score.ndcg("xh", {"h", "i"})
    readers = [score.Reader([], frozenset("h")), score.Reader([], frozenset("i"))]
    assert score.mean_ndcg(["hxy", "xyi"], readers) == pytest.approx(0.75)


def test_precision_counts_every_place_the_same():
    readers = [score.Reader([], frozenset("aej")), score.Reader([], frozenset("x"))]
    assert score.precision(["abcdefghij", "abcdefghij"], readers) == pytest.approx(3 / 20)
    assert score.precision(["bcdfghiaej"], readers[:1]) == score.precision(["aejbcdfghi"], readers[:1]) == pytest.approx(0.3)


BOOKS = {f"b{number}": frozenset("x") for number in range(20)}
TEN = [f"b{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no list"),
        ({book: 1 for book in TEN}, "no list"),
        ("b0b1b2b3b4", "no list"),
        (TEN[:9], "9 items"),
        ([*TEN, "b10"], "11 items"),
        ([*TEN[:9], 9], "no id"),
        ([*TEN[:9], True], "no id"),
        ([*TEN[:9], ["b9"]], "no id"),
        ([*TEN[:9], None], "no id"),
        ([*TEN[:9], "b9 "], "no id"),
        ([*TEN[:9], "\ud800"], "no id"),
        ([*TEN[:9], "b0"], "twice"),
        ([*TEN[:9], "b19"], "has read"),
    ],
)
def test_what_is_no_list_is_refused(value: object, reason: str):
    with pytest.raises(score.NoList, match=reason) as raised:
        score.checked(value, ["b18", "b19"], BOOKS)
    assert raised.value.failure == "refused"
    assert ":" not in str(raised.value), "what stands behind a colon is not shown"


def test_what_is_a_list_counts_as_it_is():
    assert score.checked(TEN[::-1], ["b18"], BOOKS) == TEN[::-1]


def test_readers_are_asked_for_in_another_order_each_time_and_answered_in_theirs():
    readers = [score.Reader([f"b{number}"], frozenset()) for number in range(10, 20)]
    orders: list[list[str]] = []

    def recommend(past: list[str], count: int) -> list[str]:
        orders[-1] += past
        return [past[0].replace("b1", "b"), *[book for book in TEN if book != past[0].replace("b1", "b")]][:count]

    for _ in range(8):
        orders.append([])
        lists = score.asked(recommend, readers, BOOKS)
        assert [books[0] for books in lists] == TEN
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) > 1  # eight equal ones: once in 10!^7


def test_a_list_that_depends_on_chance_is_refused(monkeypatch: pytest.MonkeyPatch):
    readers = [score.Reader([f"b{number}"], frozenset()) for number in range(10, 20)]
    started: list[int] = []

    def start(*_: object):
        started.append(len(started))
        number = started[-1]
        return lambda past, count: TEN if number == 0 or past != ["b13"] else TEN[::-1]

    monkeypatch.setattr(score, "Function", start)
    with pytest.raises(score.NoList, match="two lists for one reader"):
        score.lists_for(readers, BOOKS)
    monkeypatch.setattr(score, "Function", lambda *_: lambda past, count: TEN)
    assert score.lists_for(readers, BOOKS) == [TEN] * 10


# --- data ---


def test_the_generator_reproduces_the_carried_files(tmp_path: Path):
    done = subprocess.run([sys.executable, "-B", EXAMPLE / "generate.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("catalogue.csv", "community.txt", "readers.txt"):
        assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes()


def test_the_carried_readers_are_sound():
    labels, groups = score.read_labels(EXAMPLE / "catalogue.csv"), score.read_readers(EXAMPLE / "readers.txt")
    assert len(labels) == 600 and {name: len(readers) for name, readers in groups.items()} == {"scored": 100, "holdout": 100}
    pasts = [frozenset(reader.past) for readers in groups.values() for reader in readers]
    assert len(set(pasts)) == 200, "or a list could not be told from another reader's"
    for reader in [*groups["scored"], *groups["holdout"]]:
        assert len(reader.held_out) == 12 and 8 <= len(set(reader.past)) == len(reader.past) <= 16
        assert reader.held_out.isdisjoint(reader.past) and {*reader.past, *reader.held_out} <= set(labels)


def test_nothing_sealed_is_among_what_a_run_is_given():
    community = {frozenset(line.split()) for line in (EXAMPLE / "community.txt").read_text().splitlines()}
    groups = score.read_readers(EXAMPLE / "readers.txt")
    for reader in [*groups["scored"], *groups["holdout"]]:
        assert frozenset(reader.past) | reader.held_out not in community


def test_fresh_readers_are_others_each_time(tmp_path: Path):
    for name in ("prepare.py", "generate.py", "readers.txt"):
        shutil.copyfile(EXAMPLE / name, tmp_path / name)

    def prepared(folder: str, preset: str) -> str:
        subprocess.run([sys.executable, "-B", "prepare.py", folder, preset], cwd=tmp_path, check=True)
        return (tmp_path / folder / "readers.txt").read_text()

    assert prepared("carried", "carried") == (EXAMPLE / "readers.txt").read_text()
    texts = {prepared("one", "fresh"), prepared("other", "fresh"), (EXAMPLE / "readers.txt").read_text()}
    pasts = [line.split("|")[1] for text in texts for line in text.splitlines()]
    assert len(texts) == 3 and len(set(pasts)) == len(pasts) == 600
