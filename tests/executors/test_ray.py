"""Runs on a Ray cluster: a real one, of several raylets on this machine. What is killed here is really killed."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import needs
from autoresearch_mcp.data import cache_root
from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.executors import carrying, chosen, remote
from autoresearch_mcp.executors.carrying import Manifest
from autoresearch_mcp.executors.cluster import Cluster as Connected
from autoresearch_mcp.executors.jobs import Jobs, Told
from autoresearch_mcp.executors.local import HOSTS
from autoresearch_mcp.executors.ray import Link, RayExecutor, Unanswered
from autoresearch_mcp.executors.relay import MARK
from autoresearch_mcp.executors.remote import Remote
from autoresearch_mcp.executors.table import NAMESPACE, STAY, WAITING, Order, Ticket, Wants, packed, uses
from autoresearch_mcp.executors.turns import Given, Idle, Queue, Turns, in_the_way
from autoresearch_mcp.files import locked
from autoresearch_mcp.loop import batch
from autoresearch_mcp.loop.batch import Entry
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run import places
from autoresearch_mcp.run.hardware import Granted
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.sections import Run
from autoresearch_mcp.views import build
from conftest import (
    PATIENCE,
    TOY,
    WAITS_FOR_DATA,
    WORK,
    connect,
    ended,
    gone,
    is_decided,
    is_over,
    log_of,
    open_session,
    replace,
    run,
    spec_of,
    text_of,
    wait_for,
)

Make = Callable[..., Session]
ASKS = TOY.replace("[run]", "[run]\ncpus = 0\nresources = { seat = 1 }").replace("budget_seconds = 20", "budget_seconds = 120")
SLOW = "import time\nprint('up', flush=True)\ntime.sleep(300)\n"
ON_UNTIL_TOLD = "import os, time\nprint('up', flush=True)\nwhile not os.path.exists('go'):\n    time.sleep(0.02)\n" + WORK
SEATS = 4
pytestmark = [pytest.mark.slow, pytest.mark.needs("ray"), pytest.mark.timeout(600)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class OneMachine:
    """A cluster of raylets on this machine: a head without any room, and nodes with seats."""

    def __init__(self, port: int = 0, **system: Any):
        from ray._private.utils import get_ray_address_file
        from ray.cluster_utils import Cluster

        Path(get_ray_address_file(None)).parent.mkdir(exist_ok=True)  # Ray notes the address there, and makes no folder for it
        self._client_port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short, for it holds sockets
        self.cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "gcs_server_port": port or free_port(),
                "include_dashboard": True,
                "dashboard_port": free_port(),
                "dashboard_agent_listen_port": 0,
                "ray_client_server_port": self._client_port,
                "temp_dir": str(self.folder),
                "env_vars": {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},  # where jobs find their Python
                "_system_config": system or None,
            },
        )
        (self.folder / "ray_current_cluster").write_text(self.address)  # as `ray start` does; by it Ray's jobs find their cluster

    @property
    def address(self) -> str:
        return self.cluster.address

    @property
    def client(self) -> str:
        """For Ray Client."""
        return f"ray://127.0.0.1:{self._client_port}"

    @property
    def jobs(self) -> str:
        return f"http://{self.cluster.webui_url}"

    def add(self, env_vars: dict[str, str] | None = None, **options: Any) -> Any:
        environment = {remote.SETTING: "1"} | (env_vars or {})
        return self.cluster.add_node(num_cpus=2, env_vars=environment, **({"resources": {"seat": SEATS}} | options))

    def end(self) -> None:
        self.cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def one_at_a_time() -> Iterator[None]:
    """Whichever processes the tests are run by: raylets that have no processor for half a minute are declared dead."""
    with locked(Path(tempfile.gettempdir(), f"autoresearch-tests-of-ray-{os.getuid()}.lock"), "test", timeout=500):
        yield


@pytest.fixture(scope="module")
def machine() -> Iterator[OneMachine]:
    """For tests that leave it as it is."""
    needs.require("ray")
    made = OneMachine()
    made.add()
    made.add(resources={"bare": 1}, env_vars={"AUTORESEARCH_SANDBOX": "seatbelt"})
    yield made
    made.end()


@pytest.fixture
def own() -> Iterator[Callable[..., OneMachine]]:
    """For tests that break it."""
    all_of_them: list[OneMachine] = []

    def make(**options: Any) -> OneMachine:
        all_of_them.append(OneMachine(**options))
        return all_of_them[-1]

    yield make
    for one in all_of_them:
        one.end()


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Lets new sessions run on the cluster at an address."""

    def apply(address: str) -> None:
        chosen.on_cluster.cache_clear()
        monkeypatch.setenv(chosen.SETTING, "ray")
        monkeypatch.setenv(chosen.ADDRESS, address)

    yield apply
    chosen.on_cluster.cache_clear()


def order_of(wanted: dict[str, float]) -> Order:
    return Order(run=1, name="run-1", spec="", files={}, versions={}, wants=Wants(1, None, None), wanted=wanted)


def on_nodes() -> list[Path]:
    """What is left of runs on nodes: they share this machine's folder."""
    return [path for path in places.root().glob("ray-*") if path.is_dir()]


def let_go(session: Session, number: int) -> None:
    """Lets a run end that waits on its node to be told."""
    token = session.experiment(number).runs[-1].started.token
    folder = places.root() / f"ray-{token}" / "work"
    wait_for(folder.is_dir)
    (folder / "go").touch()


def up(session: Session, number: int) -> bool:
    session.progress(number)
    return "up" in log_of(session, number)


def waits_in_turn(session: Session, *scores: int) -> list[int]:
    """A wave of runs that each wait to be let go."""
    old = session.read().text
    texts = [ON_UNTIL_TOLD.replace("1.0", f"{score}.0") for score in scores]
    entries = [
        Entry(f"<<<<<<< SEARCH\n{old}=======\n{text}>>>>>>> REPLACE\n", f"to {score}")
        for text, score in zip(texts, scores, strict=True)
    ]
    return [number for number in batch.run_batch(session, entries) if isinstance(number, int)]


def hosts_of(session: Session, number: int) -> list[psutil.Process]:
    folder = str(places.root() / f"ray-{session.experiment(number).runs[-1].started.token}")
    found: list[psutil.Process] = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.cwd() == folder and HOSTS.intersection(one.cmdline()):
                found.append(one)
    return found


def link_of(address: str) -> psutil.Process:
    """The process that is connected to a cluster for this one."""
    link = chosen.on_cluster(address)._link  # pyright: ignore[reportPrivateUsage]
    assert link._process is not None  # pyright: ignore[reportPrivateUsage]
    return psutil.Process(link._process.pid)  # pyright: ignore[reportPrivateUsage]


# --- what is there, and what a run wants of it ---


@pytest.mark.parametrize(
    ("run", "nodes", "wanted", "capacity"),
    [
        (Run(), [{"CPU": 4}, {"CPU": 8}], {"CPU": 4}, 3),
        (Run(), [{"CPU": 4, "GPU": 2}, {"CPU": 8}], {"GPU": 1}, 2),
        (Run(device="cpu"), [{"CPU": 4, "GPU": 2}, {}], {"CPU": 4}, 1),
        (Run(gpus=2, cpus=3), [{"CPU": 8, "GPU": 4}, {"CPU": 3, "GPU": 4}], {"CPU": 3, "GPU": 2}, 3),
        (Run(device="gpu"), [{"CPU": 4}], {"GPU": 1}, 0),
        (Run(cpus=0), [{"CPU": 4}, {"CPU": 2}], {}, 6),
        (Run(cpus=0, resources={"board": 2}), [{"board": 5}, {"CPU": 1}], {"board": 2}, 2),
        (Run(), [], {"CPU": 1}, 0),
    ],
)
def test_what_a_run_asks_for_and_how_many_have_room(
    run: Run, nodes: list[dict[str, float]], wanted: dict[str, float], capacity: int
):
    wants = Wants(run.gpus, {"gpu": True, "cpu": False, "auto": None}[run.device], run.cpus, dict(run.resources))
    assert wants.of(nodes) == wanted
    assert wants.capacity(nodes) == capacity


def test_what_is_in_use_is_told_in_our_words():
    there = {"CPU": (1.5, 4.0), "GPU": (0.0, 2.0), "node:1.2.3.4": (0.0, 1.0), "memory": (0.0, 9e9), "board": (1.0, 1.0)}
    assert [(use.kind, use.there, use.used, use.waiting) for use in uses(there, {"board": 3})] == [
        ("core", 4, 2, 0),
        ("gpu", 2, 0, 0),
        ("board", 1, 1, 3),
    ]


@pytest.mark.parametrize(
    ("run", "wanted", "offered", "cores"),
    [
        (Run(), {"CPU": 4.0}, {"CPU": 4.0}, None),
        (Run(), {"CPU": 4.0}, {"CPU": 16.0}, 2),
        (Run(), {"CPU": 1.0}, {"CPU": 64.0}, 1),
        (Run(), {"GPU": 1.0}, {"CPU": 16.0, "GPU": 8.0}, None),
        (Run(cpus=3), {"CPU": 3.0}, {"CPU": 16.0}, 3),
        (Run(cpus=0), {}, {"CPU": 16.0}, 0),
    ],
)
def test_a_run_that_takes_a_node_is_held_to_as_much_of_a_larger_one(
    monkeypatch: pytest.MonkeyPatch, run: Run, wanted: dict[str, float], offered: dict[str, float], cores: int | None
):
    monkeypatch.setattr("autoresearch_mcp.executors.remote.granted", lambda: Granted((), 8.0, 8))
    order = order_of(wanted)
    given = SimpleNamespace(task=SimpleNamespace(run=run))
    assert Remote._cores(Remote.__new__(Remote), given, order, offered) == cores  # pyright: ignore[reportPrivateUsage]


# --- whose turn it is ---


def tickets(*given: str) -> dict[str, Ticket]:
    """Runs that came in this order, each named after its session, which asks for a seat or for as many as follow a colon."""
    found: dict[str, Ticket] = {}
    for since, word in enumerate(given):
        count, kind = re.fullmatch(r"\w+:?(\d*)(\w*)", word).groups()  # type: ignore[union-attr]
        found[word] = Ticket(run=1, line=word[0], since=float(since), wanted={kind or "seat": float(count or 1)})
    return found


class Room:
    """Nodes, and what a queue gives to them."""

    def __init__(self, *nodes: dict[str, float]):
        self.there, self.free = nodes, [dict(node) for node in nodes]
        self.turns, self.given, self.now = Turns(), dict[str, Given](), 100.0

    def place(self, waiting: dict[str, Ticket]) -> list[str]:
        """All that is given now, in this order; with a mark what there is no room for yet."""
        told: list[str] = []
        while (turn := self.turns.next(waiting, list(self.given.values()), self.there, self.free, self.now)) is not None:
            name, early = turn
            self.given[name] = Given(waiting.pop(name).wanted, self.now, early)
            told.append(f"{name}?" if early else name)
        return told

    def begin(self, *names: str) -> None:
        for name in names:
            wanted = self.given.pop(name).wanted
            node = next(node for node in self.free if all(node.get(kind, 0.0) >= count for kind, count in wanted.items()))
            for kind, count in wanted.items():
                node[kind] -= count


def test_sessions_take_turns_and_the_runs_of_one_come_in_their_order():
    assert Room({"seat": 6.0}).place(tickets("a1", "a2", "a3", "b1", "b2", "c1")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_session_that_comes_later_does_not_wait_for_all_of_the_first():
    room = Room({"seat": 1.0})
    waiting = tickets("a1", "a2", "a3", "a4")
    assert room.place(waiting) == ["a1", "a2?"], "one more than there is room for"
    room.begin("a1")
    assert room.place(waiting) == []
    waiting |= {"b1": Ticket(run=1, line="b", since=9.0, wanted={"seat": 1.0})}
    room.free = [{"seat": 1.0}]
    room.begin("a2")
    assert room.place(waiting) == ["b1?"]


def test_whoever_wants_much_is_not_passed_by_those_who_want_little():
    room = Room({"core": 4.0})
    waiting = tickets("a1:1core", "a2:1core", "a3:1core", "a4:1core", "a5:1core", "b1:4core", "a6:1core")
    assert room.place(waiting) == ["a1:1core", "b1:4core?"], "b waits in Ray, and nobody passes"
    room.begin("a1:1core")
    room.now += 60
    assert room.place(waiting) == []
    room.free = [{"core": 4.0}]
    room.begin("b1:4core")
    assert room.place(waiting) == ["a2:1core?"]


def test_what_has_room_on_no_node_is_not_given_though_all_together_have_it():
    room = Room({"core": 4.0}, {"core": 4.0})
    room.free = [{"core": 2.0}, {"core": 2.0}]
    waiting = tickets("a1:4core", "b1:4core", "c1:1core")
    assert room.place(waiting) == ["a1:4core?"]


def test_what_no_node_can_ever_take_holds_nobody_back():
    room = Room({"seat": 2.0})
    waiting = tickets("a1:8seat", "a2:8seat", "b1", "c1:1board", "d1")
    assert room.place(waiting) == ["a1:8seat?", "b1", "c1:1board?", "d1"]
    assert list(waiting) == ["a2:8seat"]


def test_what_was_given_and_does_not_begin_had_no_room_after_all():
    room = Room({"core": 4.0})
    assert room.place(tickets("a1:4core")) == ["a1:4core"]
    room.free, room.now = [{"core": 1.0}], room.now + 60  # somebody else's tasks
    assert room.place(tickets("b1:1core")) == []


def test_what_somebody_keeps_goes_to_the_run_in_turn_if_that_wants_just_it():
    room = Room({"core": 4.0})
    room.free = [{"core": 1.0}]  # of it, one that has just been done with
    told = [
        room.turns.next(tickets(*waiting), [], room.there, room.free, room.now, {"core": 1.0})
        for waiting in (["a1:1core", "b1:4core"], ["a2:1core", "b1:4core"], ["a3:1core"])
    ]
    assert told == [("a1:1core", False), None, ("a3:1core", False)], "a large one that is in turn is waited for"


class Table(dict[tuple[str, str], bytes]):
    """As the cluster's, here."""

    def entries(self, name: str) -> list[str]:
        return [entry for of, entry in self if of == name]

    def get(self, name: str, entry: str) -> bytes | None:  # type: ignore[override]
        return super().get((name, entry))

    def put(self, name: str, entry: str, content: bytes, overwrite: bool = True) -> None:
        if overwrite or (name, entry) not in self:
            self[name, entry] = content

    def drop(self, name: str, *entries: str) -> None:
        for entry in entries:
            self.pop((name, entry), None)


class Asked(Queue):
    """A queue on a cluster of one node with one seat, which the actor `run-0` has."""

    def __init__(self, *waiting: Ticket, pending: dict[str, Given] | None = None):
        self.actors, self.draining = {"run-0", *(pending or {})}, dict[str, int]()
        nodes = [{"NodeID": "n", "Alive": True, "Resources": {"seat": 1.0, "core": 2.0}}]
        state = SimpleNamespace(
            state=SimpleNamespace(get_draining_nodes=lambda: self.draining),
            available_resources_per_node=lambda: {"n": {"core": 2.0}},
        )
        named = [{"namespace": NAMESPACE, "name": name} for name in sorted(self.actors)]
        self._ray = SimpleNamespace(
            nodes=lambda: nodes,
            util=SimpleNamespace(list_named_actors=lambda **_: named),
            _private=SimpleNamespace(state=state),
        )
        self._table = Table()  # type: ignore[assignment]
        for ticket in waiting:
            self._table[WAITING, f"run-{ticket.run}"] = ticket.written()
        self._turns, self._waiting, self._given, self._taken = Turns(), {}, dict(pending or {}), {}
        self._handles, self._lock, self._idle = {}, threading.Lock(), {}
        self.called, self._asked, self._seen = list[str](), threading.Event(), {}
        self._call, self._recent = self.called.append, lambda look: look(self._ray)

    def told(self, kept: float = 1.0, stays: bool = False) -> str | None:
        return self.take("run-0", "n", {"seat": kept}, stays)

    def comes(self, ticket: Ticket) -> None:
        self._table[WAITING, f"run-{ticket.run}"] = ticket.written()
        self._look()


def seat(run: int, line: str = "a", count: float = 1.0) -> Ticket:
    return Ticket(run=run, line=line, since=float(run), wanted={"seat": count})


def test_who_is_done_is_told_the_run_in_turn_and_each_once():
    queue = Asked(seat(1), seat(2), seat(3, "b"))
    assert [queue.told(), queue.told(), queue.told(), queue.told()] == ["run-1", "run-3", "run-2", None]


def test_who_is_done_is_told_first_what_waits_for_room_in_ray():
    queue = Asked(seat(2), pending={"run-1": Given({"seat": 1.0})})
    assert [queue.told(), queue.told()] == ["run-1", "run-2"]
    assert Asked(seat(2), pending={"run-1": Given({"seat": 1.0, "core": 2.0})}).told() is None, "its room is for what waits longer"


def test_what_is_about_to_begin_elsewhere_is_told_only_where_nothing_waits():
    begins = Given({"seat": 1.0}, time.monotonic(), early=False)
    assert Asked(pending={"run-1": begins}).told() == "run-1"
    large = Given({"seat": 1.0, "core": 2.0})
    assert Asked(pending={"run-1": begins, "run-2": large}).told() is None


def test_nothing_is_told_to_who_is_gone_or_on_a_node_that_is_to_go():
    queue = Asked(seat(1))
    assert queue.take("run-7", "n", {"seat": 1.0}, True) is None
    queue.draining = {"n": 1}
    assert queue.told() is None
    queue.draining = {}
    assert queue.told() == "run-1"


def test_what_was_told_to_who_did_not_take_it_is_told_again(monkeypatch: pytest.MonkeyPatch):
    queue = Asked(seat(1), pending={"run-2": Given({"seat": 1.0})})
    assert [queue.told(), queue.told(), queue.told()] == ["run-2", "run-1", None]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert [queue.told(), queue.told()] == ["run-2", "run-1"]


@pytest.mark.parametrize("stopped", [False, True])
def test_what_is_stopped_while_it_is_given_to_ray_is_ended_by_the_queue(stopped: bool):
    queue, killed = Asked(seat(1)), list[str]()

    def begin(name: str, *_: object) -> str:
        if stopped:
            queue._table.put(name, "ended", b"{}")  # pyright: ignore[reportPrivateUsage]
        return name

    queue._ray.kill, queue._ray.exceptions = killed.append, SimpleNamespace(ActorAlreadyExistsError=KeyError)
    queue._ray.get_runtime_context = lambda: SimpleNamespace(current_actor=None)
    queue._ray.remote = lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=begin))
    queue._give("run-1", seat(1))  # pyright: ignore[reportPrivateUsage]
    assert killed == ["run-1"] * stopped and queue.told() is None, "nothing waits any more"


def test_who_stays_is_called_for_the_next_run_that_wants_as_much():
    queue = Asked()
    assert queue.told(stays=True) == STAY and queue.kept() == [{"seat": 1.0}] and queue.told(stays=True) == STAY
    queue.comes(seat(1))
    assert queue.called == ["run-0"] and queue.kept() == [], "it is spoken for"
    assert queue.told(stays=True) == "run-1" and queue.told(stays=False) is None


def test_who_stays_hears_of_its_run_though_it_was_about_to_leave():
    queue = Asked()
    assert queue.told(stays=True) == STAY
    queue.comes(seat(1))
    assert queue.told(stays=False) == "run-1"


def wants(run: int, **room: float) -> Ticket:
    return Ticket(run=run, line=f"session {run}", since=float(run), wanted=room)


@pytest.mark.parametrize(
    ("kept", "come", "given", "leaves"),
    [
        ({"seat": 1.0}, [wants(1, seat=1, core=1)], [1], True),
        ({"seat": 1.0}, [wants(1, core=1)], [1], False),  # that has room elsewhere
        ({"seat": 1.0}, [wants(1, seat=1, core=1), seat(2)], [1], True),  # and not for who comes after it
        ({"seat": 1.0, "core": 1.0}, [wants(1, core=2), wants(2, core=1)], [1, 2], True),  # of what is free the first has all
        ({"seat": 1.0}, [wants(1, seat=5)], [1], False),  # that no node has
        ({"seat": 1.0}, [wants(1, board=1)], [1], False),
    ],
)
def test_who_stays_leaves_where_its_room_is_wanted_otherwise_and_only_then(
    kept: dict[str, float], come: list[Ticket], given: list[int], leaves: bool, monkeypatch: pytest.MonkeyPatch
):
    queue, placed = Asked(), list[int]()

    def give(name: str, ticket: Ticket) -> None:
        placed.append(ticket.run)
        queue._table.drop(WAITING, name)  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(queue, "_give", give)
    assert queue.take("run-0", "n", kept, True) == STAY
    for ticket in come:
        queue._table[WAITING, f"run-{ticket.run}"] = ticket.written()  # pyright: ignore[reportPrivateUsage]
    queue._look()  # pyright: ignore[reportPrivateUsage]
    assert placed == given and queue.called == (["run-0"] if leaves else [])
    for ticket in come:  # whatever still waits
        queue._table.drop(WAITING, f"run-{ticket.run}")  # pyright: ignore[reportPrivateUsage]
    assert queue.take("run-0", "n", kept, True) == (None if leaves else STAY)


def test_a_run_that_was_given_a_moment_ago_is_not_forgotten_by_who_asks_then(monkeypatch: pytest.MonkeyPatch):
    queue = Asked()
    monkeypatch.setattr(queue, "_recent", partial(Queue._recent, queue))  # pyright: ignore[reportPrivateUsage]

    def give(name: str, ticket: Ticket) -> None:
        queue._ray.util.list_named_actors().append({"namespace": NAMESPACE, "name": name})
        queue._table.drop(WAITING, name)  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(queue, "_give", give)
    assert queue.told(stays=True) == STAY
    queue.comes(wants(1, seat=1, core=1))
    assert queue.told(stays=True) is None and set(queue._given or {}) == {"run-1"}  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("wanted", "free", "idle", "leave"),
    [
        ({"seat": 1.0}, {"n": {"seat": 1.0}}, {"a": ("n", {"seat": 1.0})}, []),
        ({"seat": 2.0}, {"n": {}}, {"a": ("n", {"seat": 1.0}), "b": ("n", {"seat": 2.0})}, ["b"]),
        ({"seat": 1.0, "core": 1.0}, {"n": {"core": 2.0}}, {"a": ("n", {"core": 1.0}), "b": ("n", {"seat": 1.0})}, ["b"]),
        (
            {"seat": 2.0},
            {"n": {}, "m": {}},
            {"a": ("n", {"seat": 1.0}), "b": ("n", {"seat": 1.0}), "c": ("m", {"seat": 2.0})},
            ["c"],
        ),
        ({"seat": 3.0}, {"n": {"seat": 1.0}}, {"a": ("n", {"seat": 1.0}), "b": ("m", {"seat": 3.0})}, []),
    ],
)
def test_no_more_leave_than_must(
    wanted: dict[str, float], free: dict[str, dict[str, float]], idle: dict[str, tuple[str, dict[str, float]]], leave: list[str]
):
    assert in_the_way(wanted, free, {actor: Idle(node, kept, 0.0) for actor, (node, kept) in idle.items()}) == leave


@pytest.mark.parametrize("how", ["draining", "dead", "dead and never asked again"])
def test_a_run_whose_actor_is_gone_before_it_heard_of_it_waits_again(how: str, monkeypatch: pytest.MonkeyPatch):
    queue = Asked()
    assert queue.told(stays=True) == STAY
    queue.comes(seat(1))
    if how == "draining":
        queue.draining["n"] = 1
    else:
        monkeypatch.setattr(queue._ray.util, "list_named_actors", lambda **_: [])
    if how == "dead and never asked again":
        queue._staying()  # pyright: ignore[reportPrivateUsage]
    else:
        assert queue.told(stays=True) is None
    queue._see()  # pyright: ignore[reportPrivateUsage]
    assert set(queue._waiting) == {"run-1"}  # pyright: ignore[reportPrivateUsage]


def test_what_is_given_to_ray_while_it_is_stopped_is_ended_by_who_stops_it(monkeypatch: pytest.MonkeyPatch):
    cluster, killed, table = object.__new__(Connected), list[str](), Table()
    table[WAITING, "run-1"] = seat(1).written()
    cluster.table, cluster.ray = table, SimpleNamespace(kill=killed.append)  # type: ignore[assignment]
    monkeypatch.setattr(cluster, "_actor", lambda name: "its actor" if table.get(name, "ended") else None)
    cluster.stop("run-1", 1)
    assert killed == ["its actor"] and table.entries(WAITING) == [] and table.get("run-1", "ended")


# --- data ---


class OfThisProcess:
    """Ray's calls without a cluster: an actor that holds pieces, and objects that are what was put."""

    def __init__(self, pieces: dict[int, bytes]):
        self.pieces, self.asked, self.killed = pieces, 0, False
        self.piece, self.lacking = self._method(lambda number: [pieces[number]]), self._method(self._lacking)

    @staticmethod
    def _method(call: Callable[..., Any]) -> Any:
        return SimpleNamespace(remote=call)

    def _lacking(self, count: int) -> list[int]:
        return [number for number in range(count) if number not in self.pieces]

    def get(self, what: Any, timeout: float = 0.0) -> Any:
        self.asked += 1
        return what

    def kill(self, actor: Any) -> None:
        self.killed = True


def never() -> bool:
    return False


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(carrying, "PIECE", 4)
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "train.bin").write_bytes(b"0123456789")
    (folder / "sub" / "empty").write_bytes(b"")
    return Manifest.of(folder, ["train.bin", "sub/empty"])


def test_data_comes_over_in_pieces_and_is_there_for_the_next_run(prepared: Manifest):
    assert prepared.pieces == [("sub/empty", 0), ("train.bin", 0), ("train.bin", 4), ("train.bin", 8)]
    sent = OfThisProcess({0: b"", 1: b"0123", 2: b"4567", 3: b"89"})
    folder = carrying.fetch(sent, sent, prepared, never)
    assert folder is not None
    assert (folder / "train.bin").read_bytes() == b"0123456789" and (folder / "sub" / "empty").read_bytes() == b""
    asked = sent.asked
    assert carrying.fetch(sent, sent, prepared, never) == folder and sent.asked == asked, "it is brought once to a node"


def test_data_that_comes_over_changed_is_used_by_no_run_and_sent_anew(prepared: Manifest):
    sent = OfThisProcess({0: b"", 1: b"0123", 2: b"4567", 3: b"88"})
    with pytest.raises(WorkspaceError, match="train.bin, 10 bytes, did not come over to this node as it was sent.*run it again"):
        carrying.fetch(sent, sent, prepared, never)
    assert sent.killed
    sent.pieces[3] = b"89"
    folder = carrying.fetch(sent, sent, prepared, never)
    assert folder is not None and (folder / "train.bin").read_bytes() == b"0123456789"


def test_data_that_nobody_brings_any_more_is_not_waited_for(prepared: Manifest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(carrying, "STALLED", 0.2)
    monkeypatch.setattr(carrying, "LOOK", 0.02)
    sent = OfThisProcess({0: b""})
    with pytest.raises(WorkspaceError, match="3 of 4 pieces are missing, and whoever brought them is gone. Run it again"):
        carrying.fetch(sent, sent, prepared, never)
    assert carrying.fetch(sent, sent, prepared, lambda: True) is None, "and a run that is stopped waits for nothing"


# --- the connection ---


SILENT = """
import sys, socket, time
from multiprocessing.connection import Connection
connection = Connection(socket.socket(fileno=int(sys.argv[1])).detach())
connection.send(("answer", None))
while True:
    method, arguments = connection.recv()
    time.sleep(float(method))
    connection.send(("answer", method))
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Link:
    """A link to something that takes as long to answer as it is told."""
    program = tmp_path / "silent.py"
    program.write_text(SILENT)
    popen = subprocess.Popen

    def started(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return popen([sys.executable, str(program), command[4]], **options)

    monkeypatch.setattr("autoresearch_mcp.executors.ray.subprocess.Popen", started)
    return Link("auto")


def test_nobody_waits_longer_than_they_said_for_a_cluster_and_late_answers_are_no_others(slow: Link):
    assert slow.call("0", patience=10) == "0"
    started = time.monotonic()
    with pytest.raises(Unanswered, match="takes long to answer"):
        slow.call("1.5", patience=0.2)
    for _ in range(5):
        with pytest.raises(WorkspaceError, match="takes long to answer"):
            slow.call("0", patience=0.2)
    assert time.monotonic() - started < 1.4, "those who only look do not each wait"
    time.sleep(1.5)
    assert slow.call("0.01", patience=1) == "0.01", "and when it is there again they hear it"
    assert slow.call("0.02", patience=10) == "0.02"


def test_a_cluster_that_hangs_is_tried_anew_and_later_each_time(slow: Link, monkeypatch: pytest.MonkeyPatch):
    assert slow.call("0", patience=10) == "0"
    monkeypatch.setattr("autoresearch_mcp.executors.ray.HUNG", 0.3)
    with pytest.raises(Unanswered):
        slow.call("60", patience=0.1)
    time.sleep(0.5)
    with pytest.raises(WorkspaceError, match="cannot be reached: no answer for 0 s"):
        slow.call("0", patience=3)
    with pytest.raises(WorkspaceError, match="cannot be reached"):
        slow.call("0", patience=3)
    slow._not_before = 0.0  # pyright: ignore[reportPrivateUsage]
    assert slow.call("0", patience=10) == "0"


# --- jobs ---


def test_what_a_job_tells_survives_its_death_in_the_middle_of_a_line():
    told = Told.of(
        "INFO something of Ray's\n"
        + f'{MARK}{{"here": true}}\n{MARK}{{"progress": "p", "logs": {{"output.log": "{packed(b"a" * 9)}"}}}}\n'
        + f'{MARK}{{"progress": "q", "logs": {{"output.log": "{packed(b"bc")}"}}}}\n{MARK}{{"ended": "tr'
    )
    assert (told.here, told.progress, told.logs, told.ended) == (True, "q", {"output.log": b"a" * 9 + b"bc"}, "")


class Submitted:
    """A cluster's job server: what was sent, how it stands, what it has told."""

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[str, str]] = {}
        self.sent: list[str] = []

    def submit_job(self, entrypoint: str, submission_id: str, runtime_env: object = None) -> str:
        self.sent.append(entrypoint)
        self.jobs[submission_id] = ("RUNNING", "")
        return submission_id

    def get_job_status(self, job: str) -> str:
        if job not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job} does not exist.")
        return self.jobs[job][0]

    def get_job_logs(self, job: str) -> str:
        return self.jobs[job][1]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made = Jobs.__new__(Jobs)
    made.__dict__ |= {"_client": Submitted(), "_runs": {}, "_orders": {}, "_census": None}
    monkeypatch.setattr("autoresearch_mcp.executors.jobs.PAUSE", 0.0)
    monkeypatch.setattr("autoresearch_mcp.executors.jobs.FRESH", 0.0)
    return made


def test_a_run_is_followed_for_as_long_as_it_may_be_there(jobs: Jobs):
    server: Submitted = jobs._client  # pyright: ignore[reportPrivateUsage]
    assert not jobs.is_alive("run-1", 1), "it never arrived"
    server.submit_job("", "run-1")
    assert jobs.is_alive("run-1", 1)
    for number in range(2, 9):  # each follower is there, and dies
        server.jobs[list(server.jobs)[-1]] = ("FAILED", f'{MARK}{{"here": true}}\n')
        assert jobs.is_alive("run-1", 1)
        assert f"run-1-again-{number}" in server.jobs
    server.jobs["run-1-again-8"] = ("SUCCEEDED", f'{MARK}{{"ended": "result"}}\n')
    assert not jobs.is_alive("run-1", 1) and jobs.collect("run-1", 1) == b"result"


def test_a_job_that_could_not_begin_is_sent_again_with_its_order(jobs: Jobs):
    server: Submitted = jobs._client  # pyright: ignore[reportPrivateUsage]
    jobs.start(order_of({}))
    server.jobs["run-1"] = ("FAILED", "no agent is there yet\n")
    assert jobs.is_alive("run-1", 1)
    server.jobs["run-1-again-2"] = ("FAILED", f'{MARK}{{"here": true}}\n')
    assert jobs.is_alive("run-1", 1)
    assert [" order.pickle" in sent for sent in server.sent] == [True, True, False], "what has begun is followed"


def test_a_run_whose_jobs_could_not_begin_has_not_begun_either(jobs: Jobs):
    server: Submitted = jobs._client  # pyright: ignore[reportPrivateUsage]
    server.submit_job("", "run-1")
    alive = True
    for _ in range(3):
        assert alive
        server.jobs[list(server.jobs)[-1]] = ("FAILED", "python: not found\n")
        alive = jobs.is_alive("run-1", 1)
    assert not alive
    lost = RunEnded.model_validate_json(jobs.collect("run-1", 1))
    assert lost.failure == "lost" and "need this package" in lost.excerpt and "python: not found" in lost.excerpt


# --- a run ---


def test_a_run_on_a_node_is_one_as_here(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    session = toy("print('hello from a node')\n" + WORK, ASKS)
    run(session)
    row, spec = ended(session), spec_of(session, 1)
    assert (row.outcome, row.score, row.enforcement) == ("scored", 1.0, detect().level)
    assert row.hardware and row.machine and spec.cluster == machine.address
    assert "hello from a node" in log_of(session, 1)
    assert on_nodes() == [] and not spec.work.exists()
    assert "scored" in session.results.text() or "keep" in session.results.text()
    assert session.keep().experiment is not None


def test_what_goes_on_is_told_and_a_stop_is_heard(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    session = toy(SLOW, ASKS)
    session.run_experiment("baseline")
    wait_for(lambda: up(session, 1))
    wait_for(lambda: session.progress(1).phase == "training")
    assert "seat" in session.progress(1).slot
    assert [(use.there, use.used) for use in session.executor.in_use() if use.kind == "seat"] == [(SEATS, 1)]
    session.stop()
    wait_for(lambda: is_over(session, 1))
    assert ended(session).failure == "killed" and ended(session).stopped
    wait_for(lambda: on_nodes() == [] and hosts_of(session, 1) == [])


def test_a_run_that_waits_for_room_is_queued_and_can_be_stopped(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    session = toy(WORK, ASKS.replace("seat = 1", "nowhere = 1"))
    session.run_experiment("baseline")
    assert not is_over(session, 1) and session.progress(1).phase == "queued"
    assert session.executor.capacity(session.task.run) == 0
    session.stop()
    wait_for(lambda: is_over(session, 1))
    assert ended(session).failure == "killed"


def test_a_run_that_no_node_can_take_says_so_and_never_began(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    session = toy(WORK, TOY.replace("[run]", "[run]\ncpus = 0\nresources = { nothing = 2 }"))
    session.run_experiment("baseline")
    wait_for(lambda: build.result(session).note)
    told = build.result(session)
    assert "no node of the cluster has 2 nothing (status shows what there is)" in told.body() and told.phase == "queued"
    wait_for(lambda: (build.result(session).elapsed or 0) > 0.5)
    session.stop()
    wait_for(lambda: is_over(session, 1))
    assert ended(session).failure == "killed" and ended(session).seconds["queued"] > 0.5
    assert build.result(session).enforcement is None


def test_an_order_that_never_arrived_is_lost_by_that_name(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    link = chosen.on_cluster(machine.address)._link  # pyright: ignore[reportPrivateUsage]
    ended_by = RunEnded.model_validate_json(link.call("collect", "run-that-never-came", 7))
    assert (ended_by.run, ended_by.failure) == (7, "lost") and "its order did not reach the cluster" in ended_by.excerpt


def test_a_wave_takes_all_seats_and_no_more(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    session = toy(WORK, ASKS)
    run(session)
    session.keep()
    numbers = waits_in_turn(session, *range(2, 8))
    assert len(numbers) == 6 and session.runs.room == 2 * SEATS
    wait_for(lambda: sum(up(session, number) for number in numbers[:SEATS]) == SEATS)
    assert not any(up(session, number) for number in numbers[SEATS:] if session.experiment(number).runs)
    for number in numbers:
        wait_for(lambda number=number: (session.advance(), session.experiment(number).running)[1])
        let_go(session, number)
    wait_for(lambda: (session.advance(), not session.state.running)[1])
    assert [session.experiment(number).score for number in numbers] == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    kept = session.keep().experiment
    assert kept is not None and kept.score == 7.0


def on_one_seat(own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make, idle: float = 1) -> Session:
    """A session with a baseline, on a cluster of its own that has room for one run and where whoever has held one stays so long."""
    one = own()
    one.add(resources={"seat": 1}, env_vars={remote.SETTING: str(idle)})
    choose(one.address)
    session = toy(WORK, ASKS)
    run(session)
    session.keep()
    return session


def holder_of(session: Session, number: int) -> psutil.Process:
    """The process of the actor that holds a run which is on."""
    folder = str(places.root() / f"ray-{session.experiment(number).runs[-1].started.token}")
    for one in psutil.process_iter(["cmdline", "name"]):
        with suppress(psutil.Error):
            if folder in " ".join([*(one.info["cmdline"] or []), one.cwd()]):
                for above in one.parents():
                    if above.cmdline()[0].startswith("ray::Remote"):
                        return above
    raise AssertionError(f"nobody holds the run of {number}")


def test_who_has_held_a_run_goes_on_with_the_next_that_wants_as_much(
    own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make
):
    session = on_one_seat(own, choose, toy)
    numbers = waits_in_turn(session, 2, 3, 4)
    holders: list[int] = []
    for number in numbers:
        wait_for(lambda number=number: (session.advance(), session.experiment(number).running)[1])
        wait_for(lambda number=number: up(session, number))
        holders.append(holder_of(session, number).pid)
        wait_for(lambda number=number: session.progress(number).phase == "training")
        let_go(session, number)
        wait_for(lambda number=number: is_over(session, number))
    assert len(set(holders)) == 1
    wait_for(lambda: not psutil.pid_exists(holders[0]))  # nothing is left for it to do
    assert [session.experiment(number).score for number in numbers] == [2.0, 3.0, 4.0]
    assert on_nodes() == []


def test_who_has_held_a_run_stays_a_while_for_the_next(own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make):
    session = on_one_seat(own, choose, toy, idle=100)
    pids: list[int] = []
    for score in (2, 3):
        (number,) = waits_in_turn(session, score)
        wait_for(lambda number=number: up(session, number))
        pids.append(holder_of(session, number).pid)
        let_go(session, number)
        wait_for(lambda number=number: is_over(session, number))
        session.keep()
        wait_for(lambda: [(use.used, use.there) for use in session.executor.in_use() if use.kind == "seat"] == [(0, 1)])
    assert pids[0] == pids[1]
    assert session.experiment(3).score == 3.0
    assert psutil.pid_exists(pids[0]) and on_nodes() == []


def test_who_stays_gives_way_to_a_run_that_wants_otherwise(
    own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make, tmp_path: Path
):
    session = on_one_seat(own, choose, toy, idle=100)
    (number,) = waits_in_turn(session, 2)
    wait_for(lambda: up(session, number))
    stays = holder_of(session, number).pid
    let_go(session, number)
    wait_for(lambda: is_over(session, number))
    (tmp_path / "task").rename(tmp_path / "task-before")
    (tmp_path / "workspace").rename(tmp_path / "workspace-before")
    other = toy(WORK, ASKS.replace("cpus = 0", "cpus = 1"))
    began = time.monotonic()
    run(other)
    assert ended(other).score == 1.0 and time.monotonic() - began < 60
    assert not psutil.pid_exists(stays)


def test_a_holder_that_dies_loses_the_run_that_is_on_and_none_besides(
    own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make
):
    session = on_one_seat(own, choose, toy)
    numbers = waits_in_turn(session, 2, 3, 4)
    wait_for(lambda: up(session, numbers[0]))
    let_go(session, numbers[0])
    wait_for(lambda: up(session, numbers[1]))
    holder_of(session, numbers[1]).kill()

    def over() -> bool:
        session.advance()
        for folder in on_nodes():
            if (folder / "work").is_dir():
                (folder / "work" / "go").touch()
        return not session.state.running

    wait_for(over)
    rows = [[run.ended.failure for run in session.experiment(number).runs if run.ended] for number in numbers]
    assert rows[0] == rows[2] == [None]
    assert rows[1][0] == "lost" and rows[1][1:] in ([], [None])
    assert on_nodes() == []


def test_runs_that_wait_are_placed_though_the_queue_has_died(
    own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make
):
    session = on_one_seat(own, choose, toy)
    numbers = waits_in_turn(session, 2, 3, 4)
    wait_for(lambda: up(session, numbers[0]))
    for each in psutil.process_iter(["cmdline"]):
        if (each.info["cmdline"] or [""])[0].startswith("ray::Queue"):
            each.kill()
    for number in numbers:
        wait_for(lambda number=number: (session.advance(), session.experiment(number).running)[1])
        let_go(session, number)
    wait_for(lambda: (session.advance(), not session.state.running)[1])
    assert [session.experiment(number).score for number in numbers] == [2.0, 3.0, 4.0]
    assert all(len(session.experiment(number).runs) == 1 for number in numbers), "none was lost"


def test_data_is_sent_once_and_what_is_sealed_stays_sealed(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    prepares = (
        WAITS_FOR_DATA.replace("'x').write_text('1')", "'x').write_text('1'); (p / 's').write_text('9')") + 'sealed = ["s"]\n'
    )
    toml = (ASKS + prepares).replace('command = ["{python}", "score.py"]', 'command = ["{python}", "score.py", "{data}"]')
    looks = "import os, pathlib\nfound = [str(p) for p in pathlib.Path(CACHE).rglob('s')] if os.path.exists(CACHE) else []\nprint('found', found)\n"
    session = toy(f"CACHE = {str(cache_root())!r}\n{looks}" + WORK, toml)
    session.data.prepare(session.workspace.root)
    run(session)
    row = ended(session)
    assert (row.outcome, row.score) == ("scored", 1.0), row.excerpt
    assert "found []" in log_of(session, 1)
    (folder,) = [path for path in (cache_root() / "data" / "by-hash").iterdir() if path.is_dir() and (path / "s").exists()]
    before = (folder / "x").stat().st_mtime_ns
    session.keep()
    replace(session, session.read().text.replace("'1.0'", "'2.0'"))
    run(session)
    assert ended(session, 2).score == 2.0 and (folder / "x").stat().st_mtime_ns == before


def test_a_node_of_another_version_refuses(
    machine: OneMachine, choose: Callable[[str], None], toy: Make, monkeypatch: pytest.MonkeyPatch
):
    choose(machine.address)
    monkeypatch.setattr("autoresearch_mcp.executors.ray.versions", lambda: {"autoresearch-mcp": "0.0.1"})
    session = toy(WORK, ASKS)
    session.run_experiment("baseline")
    wait_for(lambda: is_over(session, 1))
    row = ended(session)
    assert row.failure == "refused" and "the server autoresearch-mcp 0.0.1: install the same on both" in row.excerpt


def test_a_node_that_can_confine_nothing_refuses(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    session = toy(WORK, ASKS.replace("seat = 1", "bare = 1"))
    session.run_experiment("baseline")
    wait_for(lambda: is_over(session, 1))
    row = ended(session)
    assert row.failure == "refused" and "can confine no run, which could then reach Ray itself: install bubblewrap" in row.excerpt


ATTACK = """
import glob, os, socket
def tries(name, what):
    try:
        print(name, "REACHED", what())
    except Exception as error:
        print(name, "refused", type(error).__name__)
def connects(family, place):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(3)
        one.connect(place)
    return place
host, port = ADDRESS.rsplit(":", 1)
tries("port", lambda: connects(socket.AF_INET, (host, int(port))))
tries("loopback", lambda: connects(socket.AF_INET, ("127.0.0.1", int(port))))
for path in SOCKETS:
    tries("socket", lambda: connects(socket.AF_UNIX, path))
tries("session", lambda: os.listdir(SESSION))
tries("store", lambda: [open(path, "rb").read(1) for path in STORES] or 1 / 0)
tries("environment", lambda: [name for name in os.environ if name.startswith("RAY_")] or 1 / 0)
tries("module", lambda: __import__("ray").__name__)
def lent():
    found = []
    for name in range(3, 256):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
            found.append(str(socket.socket(fileno=os.dup(name)).getpeername()))
        except OSError:
            pass
    return [one for one in found if "ray" in one or "plasma" in one or "shm" in one] or 1 / 0
tries("descriptors", lent)
"""


@pytest.mark.parametrize("level", ["landlock", "bubblewrap"])
def test_a_run_reaches_nothing_of_ray(own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make, level: str):
    needs.require(level)
    one = own()
    node = one.add(env_vars={"AUTORESEARCH_SANDBOX": level})
    choose(one.address)
    sockets = [node._raylet_socket_name, node._plasma_store_socket_name]
    stores = [str(path) for path in Path("/dev/shm").glob("plasma*")]
    given = f"ADDRESS, SOCKETS, SESSION, STORES = {(one.address, sockets, node.get_session_dir_path(), stores)!r}\n"
    session = toy(given + ATTACK + WORK, ASKS)
    assert all(Path(path).exists() for path in sockets)
    run(session)
    assert ended(session).enforcement == level and ended(session).score == 1.0, ended(session).excerpt
    said = log_of(session, 1)
    assert "REACHED" not in said and said.count("refused") == 7 + len(sockets), said


# --- faults ---


def test_a_node_that_dies_loses_its_run_which_is_made_again(
    own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make
):
    one = own()
    first = one.add()
    choose(one.address)
    session = toy(ON_UNTIL_TOLD, ASKS)
    session.run_experiment("baseline")
    wait_for(lambda: up(session, 1))
    (host,) = hosts_of(session, 1)
    raylet = first.all_processes["raylet"][0].process
    raylet.kill()
    raylet.wait()  # a zombie looks alive to those who are to end with it
    wait_for(lambda: is_over(session, 1))
    assert ended(session).failure == "lost" and "node" in ended(session).excerpt
    wait_for(lambda: gone(host))
    one.cluster.remove_node(first, allow_graceful=False)
    one.add()
    session.run_experiment("once more")
    wait_for(lambda: up(session, 1))
    let_go(session, 1)
    wait_for(lambda: is_decided(session, 1))
    results = [(run.ended.outcome, run.ended.score) for run in session.experiment(1).runs if run.ended]
    assert results == [("crash", None), ("scored", 1.0)]
    wait_for(lambda: on_nodes() == [])


def test_whoever_started_a_run_may_die(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    session = toy(ON_UNTIL_TOLD, ASKS)
    session.run_experiment("baseline")
    wait_for(lambda: up(session, 1))
    os.kill(link_of(machine.address).pid, signal.SIGKILL)
    session.refresh()
    assert not is_over(session, 1), "what is not connected knows nothing"
    chosen.on_cluster.cache_clear()
    again = open_session(session.workspace.root)  # as another server, which never heard of it
    assert not is_over(again, 1)
    let_go(again, 1)
    wait_for(lambda: is_over(again, 1))
    assert ended(again).score == 1.0
    session.refresh()
    assert len(session.experiment(1).runs) == 1 and ended(session) == ended(again)


def test_a_run_whose_server_is_gone_is_recorded_when_one_comes(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.address)
    session = toy(WORK, ASKS)
    session.run_experiment("baseline")
    link_of(machine.address).kill()
    wait_for(lambda: on_nodes() == [] and not hosts_of(session, 1), PATIENCE)
    chosen.on_cluster.cache_clear()
    again = open_session(session.workspace.root)
    wait_for(lambda: is_over(again, 1))
    assert ended(again).score == 1.0


def restart_gcs(one: OneMachine) -> None:
    head = one.cluster.head_node
    head.kill_gcs_server()
    time.sleep(1)
    head.start_gcs_server()


def test_a_head_with_a_disk_may_be_restarted(
    own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make, tmp_path: Path
):
    one = own(gcs_storage="rocksdb", gcs_storage_path=str(tmp_path / "gcs"))
    one.add()
    choose(one.address)
    session = toy(ON_UNTIL_TOLD, ASKS)
    session.run_experiment("baseline")
    wait_for(lambda: up(session, 1))
    restart_gcs(one)
    assert not is_over(session, 1)
    let_go(session, 1)
    wait_for(lambda: is_over(session, 1))
    assert [(run.ended.outcome, run.ended.score) for run in session.experiment(1).runs if run.ended] == [("scored", 1.0)]


def test_a_head_that_forgets_loses_the_run_and_counts_nothing_twice(
    own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make
):
    one = own()
    one.add()
    choose(one.address)
    session = toy(ON_UNTIL_TOLD, ASKS)
    session.run_experiment("baseline")
    wait_for(lambda: up(session, 1))
    (host,) = hosts_of(session, 1)
    port = int(one.address.rpartition(":")[2])
    for process in one.cluster.head_node.all_processes.values():
        for each in process:
            os.kill(each.process.pid, signal.SIGKILL)
    assert not is_over(session, 1), "of a cluster that is not there nothing is known"
    one.end()
    own(port=port).add()
    wait_for(lambda: is_over(session, 1))
    wait_for(lambda: gone(host))
    session.refresh()
    assert [run.ended.failure for run in session.experiment(1).runs if run.ended] == ["lost"]


def test_a_cluster_that_is_not_there_is_said_so_and_nothing_is_lost(toy: Make, choose: Callable[[str], None]):
    choose("127.0.0.1:1")
    session = toy(WORK, ASKS)
    with pytest.raises(WorkspaceError, match="cluster at 127.0.0.1:1 cannot be reached.*serve --executor ray --address"):
        session.run_experiment("baseline")
    assert ended(session).failure == "lost"
    assert session.position().next


def test_without_ray_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    executor = RayExecutor("auto")
    assert executor.capacity(Run()) == 0 and executor.in_use() == []
    with pytest.raises(WorkspaceError, match=r"pip install 'autoresearch-mcp\[ray\]'"):
        executor._link.call("in_use")  # pyright: ignore[reportPrivateUsage]


# --- from a machine that is no part of the cluster ---


def test_a_run_by_ray_client_is_one_as_any(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.client)
    session = toy("print('hello by a client')\n" + WORK, ASKS)
    wait_for(
        lambda: session.executor.capacity(session.task.run) == SEATS
    )  # the first server that a head starts for a client may die
    run(session)
    assert (ended(session).outcome, ended(session).score) == ("scored", 1.0), ended(session).excerpt
    assert "hello by a client" in log_of(session, 1)


def jobs_of(machine: OneMachine) -> str:
    """What became of each of a cluster's jobs."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(machine.jobs)
    jobs = [(str(job.submission_id), str(job.status)) for job in client.list_jobs() if job.submission_id]
    return "\n".join(f"{job} {status}: {client.get_job_logs(job)[-1500:]}" for job, status in jobs)


def test_a_run_by_a_job_is_one_as_any(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    choose(machine.jobs)
    session = toy("print('hello by a job')\n" + WORK, ASKS + WAITS_FOR_DATA)
    session.data.prepare(session.workspace.root)
    run(session)
    assert (ended(session).outcome, ended(session).score) == ("scored", 1.0), ended(session).excerpt + jobs_of(machine)
    assert "hello by a job" in log_of(session, 1)
    wait_for(lambda: session.executor.capacity(session.task.run) == SEATS)  # a job counts, which nobody waits for
    assert [use.there for use in session.executor.in_use() if use.kind == "seat"] == [SEATS]


def test_a_job_may_end_before_its_run_and_a_run_may_be_stopped(machine: OneMachine, choose: Callable[[str], None], toy: Make):
    from ray.job_submission import JobSubmissionClient

    choose(machine.jobs)
    session = toy(SLOW, ASKS)
    session.run_experiment("baseline")
    wait_for(lambda: up(session, 1))
    name = f"run-{session.experiment(1).runs[0].started.token}"
    JobSubmissionClient(machine.jobs).stop_job(name)
    wait_for(lambda: JobSubmissionClient(machine.jobs).get_job_status(name) == "STOPPED")
    session.refresh()
    assert not is_over(session, 1)
    session.stop()
    wait_for(lambda: is_over(session, 1))
    assert ended(session).failure == "killed", ended(session).excerpt


def test_a_job_that_ray_sends_to_another_cluster_says_nothing_of_its_runs(
    machine: OneMachine, own: Callable[..., OneMachine], choose: Callable[[str], None], toy: Make
):
    from ray.job_submission import JobSubmissionClient

    other = own()
    choose(machine.jobs)
    session = toy(SLOW, ASKS)
    session.run_experiment("baseline")
    wait_for(lambda: up(session, 1))
    name = f"run-{session.experiment(1).runs[0].started.token}"
    told = machine.folder / "ray_current_cluster"
    told.write_text(other.address)
    try:
        jobs = JobSubmissionClient(machine.jobs)
        jobs.stop_job(name)
        wait_for(lambda: (session.refresh(), f"{name}-again-2" in {job.submission_id for job in jobs.list_jobs()})[1])
        wait_for(lambda: jobs.get_job_status(f"{name}-again-2") == "FAILED")
        assert "to another cluster" in jobs.get_job_logs(f"{name}-again-2")
        session.refresh()
        assert not is_over(session, 1)
    finally:
        told.write_text(machine.address)
    session.stop()
    wait_for(lambda: is_over(session, 1))
    assert ended(session).failure == "killed", ended(session).excerpt


# --- the whole way ---


@pytest.mark.anyio
async def test_a_client_sees_no_difference(machine: OneMachine, toy: Make):
    session = toy(WORK, ASKS)
    async with connect(session.workspace.root, "--executor", "ray", "--address", machine.address) as client:
        answer = await client.call_tool("run_experiment", {"description": "baseline", "wait_seconds": 100})
        assert not answer.is_error, text_of(answer)
        assert (answer.structured_content or {})["score"] == 1.0
        answer = await client.call_tool("keep", {})
        assert not answer.is_error, text_of(answer)
    assert spec_of(session, 1).cluster == machine.address
