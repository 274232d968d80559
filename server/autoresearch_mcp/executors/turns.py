"""The actor by which runs get into a Ray cluster: in turn by session, and no more of them than there is room for.

Which of the actors that wait is next, Ray says nothing about, and of sixteen sessions one may get nothing all night. So a run waits
in the cluster's table, and is given to Ray when a node has room: in turn is the session that was served longest ago, and of one
session the run that came first. What has no room holds back whatever comes after it and wants some of the same, or it would never
have any. One run that has no room yet is with Ray all the same, so that a cluster grows that can. Whoever has held a run to its
end is told the next one, if that wants the room which it has (remote.py), and where none waits, stays for one until its room is
wanted otherwise. What this actor must know is in the table: where it dies, Ray starts it anew, and of two that are told the same
run it is the one's who is first noted as its holder; those that stay ask again.
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from autoresearch_mcp.executors.remote import RENEW, Remote
from autoresearch_mcp.executors.table import (
    AGREED,
    KINDS,
    NAMESPACE,
    RUN,
    STAY,
    WAITING,
    Order,
    Table,
    Ticket,
    actors_of,
    never_begun,
    nodes_of,
    place,
)
from autoresearch_mcp.text import one_line

NAME = f"queue-{AGREED}"
EVERY, IDLE, PAUSE = 0.2, 5.0, 0.1  # seconds between looks for room: while runs wait, while none does, and at least
LAG = 1.0  # seconds until what a run has been given is missing from what Ray says is free
SETTLED = 15.0  # and after which one that has not begun had no room after all
LOOK = 3.0  # seconds that Ray has to tell how a run ended
REASON = 300  # characters of that
REMEMBERED = 1000  # runs of which it can be asked
RECENT = 0.1  # seconds for which what was seen of the cluster is taken to be so, by those that ask in one moment
SILENT = 3 * RENEW  # seconds after which one that stays, and has not asked again, does not

Room = Mapping[str, float]
"""Of a node, by kind; or what a run wants of one."""


@dataclass
class Given:
    """A run that Ray has and that has not begun."""

    wanted: Room
    at: float = 0.0
    """When it was given; 0 where that was before this process."""
    early: bool = True
    """Whether there was no room for it then."""


@dataclass
class Idle:
    """An actor that has held a run to its end and stays for another."""

    node: str
    kept: Room
    at: float
    """When it asked last."""
    told: str = ""
    """The run that it will hear of when it asks again."""
    leaves: bool = False
    """Whether it will hear then that its room is wanted."""


def still_free(given: Sequence[Given], free: Sequence[Room], now: float) -> list[dict[str, float]]:
    """What of that which Ray says is free is no run's that has been given just now."""
    left = [dict(room) for room in free]
    for one in given:
        if not one.early and now - one.at < LAG and (node := place(one.wanted, left)) is not None:
            for kind, count in one.wanted.items():
                left[node][kind] -= count
    return left


def in_the_way(wanted: Room, free: Mapping[str, Room], idle: Mapping[str, Idle]) -> list[str]:
    """Those who must leave so that a node has room for a run, as few as that takes; nobody where one has, or none would have."""

    def has_room(node: str, without: Mapping[str, Idle]) -> bool:
        left = _with({node: free[node]}, [(node, one.kept) for one in without.values()])
        return place(wanted, list(left.values())) is not None

    found: list[list[str]] = []
    for node in free:
        leaving = {actor: one for actor, one in idle.items() if one.node == node and one.kept.keys() & wanted.keys()}
        if has_room(node, leaving):
            for actor in list(leaving):
                fewer = {other: one for other, one in leaving.items() if other != actor}
                leaving = fewer if has_room(node, fewer) else leaving
            found.append(list(leaving))
    return min(found, key=len, default=list[str]())


class Turns:
    """Which of the runs that wait is given to Ray next."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        """Of each session the number of the turn in which it was served last."""
        self._turn = 0

    def next(
        self,
        waiting: Mapping[str, Ticket],
        given: Sequence[Given],
        there: Sequence[Room],
        free: Sequence[Room],
        now: float,
        kept: Room | None = None,
    ) -> tuple[str, bool] | None:
        """The run in turn that can be given, and whether there is no room for it yet; None where there is none.

        `there` and `free` are all of each node, and what Ray says is free of it. With `kept`, a part of what is free that somebody
        keeps, None where the run in turn wants anything else.
        """
        found = self._next(waiting, given, there, free, now)
        if found is None or (kept is not None and (found[1] or waiting[found[0]].wanted != kept)):
            return None
        self._turn += 1
        self._served[waiting[found[0]].line] = self._turn
        return found

    def _next(
        self, waiting: Mapping[str, Ticket], given: Sequence[Given], there: Sequence[Room], free: Sequence[Room], now: float
    ) -> tuple[str, bool] | None:
        left = still_free(given, free, now)
        early = [one.wanted for one in given if one.early or now - one.at > SETTLED]
        early = [wanted for wanted in early if place(wanted, there) is not None]
        held: set[str] = set()

        def turn(name: str) -> tuple[int, float, str]:
            return self._served.get(waiting[name].line, -1), waiting[name].since, name

        for name in sorted(waiting, key=turn):
            wanted = waiting[name].wanted
            unlike = [other for other in early if other != wanted and other.keys() & wanted.keys()]
            if place(wanted, there) is None:  # no node is large enough, and none may ever be
                if all(one.wanted != wanted for one in given):
                    return name, True
                continue
            if not unlike and not held & wanted.keys():
                if place(wanted, left) is not None:
                    return name, False
                if wanted not in early:
                    return name, True
            held |= wanted.keys()
        return None


class Queue:
    """The actor."""

    def __init__(self) -> None:
        import ray

        self._ray: Any = ray
        self._table, self._turns, self._asked = Table(), Turns(), threading.Event()
        self._waiting: dict[str, Ticket] = {}
        self._given: dict[str, Given] | None = None
        """None: not known yet."""
        self._taken: dict[str, float] = {}
        """The runs that were told to an actor, and when: until it is noted as their holder."""
        self._idle: dict[str, Idle] = {}
        """By the name of the actor."""
        self._seen: dict[str, tuple[float, Any]] = {}
        """What was seen of the cluster, and when."""
        self._handles: dict[str, Any] = {}
        """By these Ray tells why a run has ended."""
        self._lock = threading.Lock()
        threading.Thread(target=self._keep, daemon=True).start()

    def come(self) -> None:
        """A run has come, or somebody asks whether this actor is there."""
        self._asked.set()

    def why(self, name: str) -> str:
        """Ray's own account of how a run ended; nothing where it has none."""
        if (handle := self._handles.get(name)) is not None:
            try:
                self._ray.get(handle.look.remote(name, {}), timeout=LOOK)
            except Exception as error:
                return one_line(str(error), REASON)
        return ""

    def kept(self) -> list[Room]:
        """The room of those that stay for a run."""
        with self._lock:
            return [one.kept for one in self._staying().values()]

    def take(self, actor: str, node: str, kept: Room, stays: bool) -> str | None:
        """The run that an actor goes on with which has done its own, if the one in turn wants what it keeps of its node. STAY where
        none waits, and it `stays` for one: it is called then, and asks again in RENEW seconds in any case.
        """
        with self._lock:
            before = self._idle.pop(actor, None)
            if actor not in self._recent(actors_of) or node in self._recent(_draining):
                if before is not None:
                    self._taken.pop(before.told, None)
                    self._asked.set()
                return None
            if before is not None and before.told:
                return before.told
            self._see()
            given = self._given = self._not_begun()
            alike = [(its.early, name) for name, its in given.items() if its.wanted == kept and name not in self._taken]
            name = next((name for early, name in alike if early), None)
            if name is None:
                free = _with(self._recent(_free), [(node, kept)])
                there = self._recent(nodes_of)
                turn = self._turns.next(self._waiting, list(given.values()), there, list(free.values()), time.monotonic(), kept)
                name = turn[0] if turn else None
            if name is None and not self._waiting and not any(its.early for its in given.values()):
                name = next((name for _, name in alike), None)  # it is about to begin elsewhere, and begins sooner here
            if name is not None:
                self._waiting.pop(name, None)
                self._taken[name] = time.monotonic()
                self._handles[name] = self._handles.get(actor)
            elif stays and not (before and before.leaves) and not self._is_wanted(kept):
                self._idle[actor] = Idle(node, kept, time.monotonic())
                return STAY
            return name

    def _keep(self) -> None:
        while True:
            try:
                with self._lock:
                    self._look()
            except Exception as error:  # the head is away: all of it is seen again
                print(f"no run was placed: {type(error).__name__}: {error}", file=sys.stderr)
            time.sleep(PAUSE)
            self._asked.wait(EVERY if self._waiting else IDLE)
            self._asked.clear()

    def _look(self) -> None:
        """Gives Ray the runs that wait and for which there is room, or tells them to who stays for them."""
        idle = self._staying() if self._idle else {}
        self._see()
        if not self._waiting:
            return
        given = self._given = self._not_begun()
        there = nodes_of(self._ray)
        free = _free(self._ray)
        while True:
            now = time.monotonic()
            with_idle = _with(free, [(one.node, one.kept) for one in idle.values()])
            turn = self._turns.next(self._waiting, list(given.values()), there, list(with_idle.values()), now)
            if turn is None:
                return
            name, early = turn
            ticket = self._waiting.pop(name)
            actor = None if early else next((actor for actor, one in idle.items() if one.kept == ticket.wanted), None)
            if actor is not None:
                idle.pop(actor).told, self._taken[name] = name, now
                self._handles[name] = self._handles.get(actor)
                self._call(actor)
                continue
            self._give(name, ticket)
            left = dict(zip(free, still_free(list(given.values()), list(free.values()), now), strict=True))
            leaving = [] if early else in_the_way(ticket.wanted, left, idle)
            for actor in leaving:  # Ray has it in hand, and places it when they have left
                idle.pop(actor).leaves = True
                self._call(actor)
            given[name] = Given(ticket.wanted, now, early or bool(leaving))

    def _staying(self) -> dict[str, Idle]:
        """Those of whom nothing is wanted yet. What was told to one that is gone waits again."""
        now, names, draining = time.monotonic(), self._recent(actors_of), self._recent(_draining)
        for actor, one in list(self._idle.items()):
            if actor not in names or one.node in draining or now - one.at > SILENT:
                self._taken.pop(self._idle.pop(actor).told, None)
        return {actor: one for actor, one in self._idle.items() if not one.told and not one.leaves}

    def _is_wanted(self, kept: Room) -> bool:
        """Whether a run waits for some of the room that somebody keeps."""
        there, now = self._recent(nodes_of), time.monotonic()
        given = [one for name, one in (self._given or {}).items() if name not in self._taken]
        waiting = [ticket.wanted for ticket in self._waiting.values()]
        pending = [one.wanted for one in given if one.early or now - one.at > SETTLED]
        return any(wanted.keys() & kept.keys() and place(wanted, there) is not None for wanted in (*waiting, *pending))

    def _call(self, actor: str) -> None:
        with suppress(Exception):  # it asks again in any case, or is gone, and its run is seen to wait again
            self._ray.get_actor(actor, namespace=NAMESPACE).called.remote()

    def _see(self) -> None:
        """Which runs wait."""
        now = time.monotonic()
        self._taken = {name: at for name, at in self._taken.items() if now - at < SETTLED}
        there = (name for name in self._table.entries(WAITING) if name not in self._taken)
        found = {name: self._waiting.get(name) or self._ticket(name) for name in there}
        self._waiting = {name: ticket for name, ticket in found.items() if ticket is not None}

    def _recent(self, look: Callable[[Any], Any]) -> Any:
        """What a look at the cluster shows, or has shown just now: when many runs end at once, all who held them ask."""
        at, found = self._seen.get(look.__name__, (-RECENT, None))
        if time.monotonic() - at >= RECENT:
            found = look(self._ray)
            self._seen[look.__name__] = time.monotonic(), found
        return found

    def _ticket(self, name: str) -> Ticket | None:
        """None where it has been taken out meanwhile, or cannot be read: such a run is lost."""
        content = self._table.get(WAITING, name)
        try:
            return None if content is None else Ticket.read(content)
        except (ValueError, TypeError) as error:
            print(f"{name} has no ticket that can be read: {error}", file=sys.stderr)
            self._table.drop(WAITING, name)
            return None

    def _not_begun(self) -> dict[str, Given]:
        """The runs that Ray has and that have not begun."""
        if self._given == {}:
            return {}
        there = actors_of(self._ray)  # now: one that was given a moment ago would be forgotten
        if self._given is None:
            given: dict[str, Given] = {}
            for name in there:
                if name.startswith(RUN) and (order := self._table.get(name, "order")) is not None:
                    with suppress(Exception):  # an order of another version, which has a queue of its own
                        given[name] = Given(Order.unpickled(order).wanted)
            self._given = given
        return {name: one for name, one in self._given.items() if name in there and self._table.get(name, "holder") is None}

    def _give(self, name: str, ticket: Ticket) -> None:
        wanted = ticket.wanted
        if self._table.get(name, "holder") is not None:  # it was taken, and this actor died
            self._table.drop(WAITING, name)
            return
        options: dict[str, Any] = {
            "name": name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "max_restarts": 0,
            "max_concurrency": 4,
            "scheduling_strategy": "SPREAD",
            "num_cpus": wanted.get("CPU", 0),
            "num_gpus": wanted.get("GPU", 0),
            "resources": {kind: count for kind, count in wanted.items() if kind not in KINDS},
        }
        try:
            self._handles[name] = (
                self._ray.remote(Remote).options(**options).remote(name, self._ray.get_runtime_context().current_actor)
            )
            if self._table.get(name, "ended") is not None:  # stopped by somebody who found no actor yet
                self._ray.kill(self._handles[name])
        except self._ray.exceptions.ActorAlreadyExistsError:  # it was given, and this actor died
            pass
        except ValueError as error:  # no order that Ray takes: a resource with a name of Ray's own
            refused = never_begun(ticket.run, f"Ray does not take it: {one_line(str(error), REASON)}")
            self._table.put(name, "ended", refused.model_dump_json().encode(), overwrite=False)
        self._table.drop(WAITING, name)  # last, so that it is there at every moment
        while len(self._handles) > REMEMBERED:
            self._handles.pop(next(iter(self._handles)))


def _free(ray: Any) -> Mapping[str, Room]:
    """What Ray says is free, by node, without those that are to go."""
    draining = _draining(ray)
    return {node: room for node, room in ray._private.state.available_resources_per_node().items() if node not in draining}


def _draining(ray: Any) -> Mapping[str, Any]:
    """The nodes that are to go."""
    return ray._private.state.state.get_draining_nodes()


def _with(free: Mapping[str, Room], kept: Sequence[tuple[str, Room]]) -> dict[str, dict[str, float]]:
    """What would be free, by node, if this that is kept of nodes were too."""
    found = {node: dict(room) for node, room in free.items()}
    for node, room in kept:
        for kind, count in room.items() if node in found else ():
            found[node][kind] = found[node].get(kind, 0.0) + count
    return found


def queue(ray: Any) -> Any:
    """The actor of a cluster, new or as it is there."""
    options = {"name": NAME, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached", "num_cpus": 0}
    return ray.remote(Queue).options(**options, max_restarts=-1, max_concurrency=8).remote()
