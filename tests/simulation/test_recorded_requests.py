"""The requests of a run, replayed on SQLite and on a real Redis server, have the answers of the memory store."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from milepost.core.job import Job
from milepost.core.transitions.change import TransitionType
from milepost.stores.protocol import Store
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.conformance.moved_clocks import ServerClock, clocked_store
from tests.redis_server import RedisServer
from tests.simulation.seams import installed
from tests.simulation.simulation import Simulation
from tests.simulation.world import Choices, World

pytestmark = pytest.mark.slow
SEEDS = range(1, 7)
"""Runs with a failover are left out: only the simulated server forgets what its clock was."""
OWN_FIELDS = frozenset(("recent_ops",))
"""It has operation ids of the store itself, with which it cancels the children of a job that has ended."""
COMPARED = frozenset(
    ("apply", "heartbeat", "sweep", "purge", "get", "count", "counts", "draining_leases", "kv_get", "kv_put")
)
"""The requests whose answers are the same in all stores. Lists are not: in Redis no two jobs are created at the same time."""
REPLAYED = COMPARED | {"kv_change", "kv_delete", "kv_put_if", "kv_scan", "set_limit"}
TOKEN = re.compile(r"\b\d+:[\w-]{11}(?![\w-])")
TIME = re.compile(r"(?<!\d)17\d{14}(?!\d)")
VERSION = re.compile(r"(?:^|version=)(\d+)(?=$|')")
CLOSE = 10_000
"""Microseconds by which two stores may differ: in Redis each change has its own."""


class Request(NamedTuple):
    """A request, when it came by the server's clock, and its answer as text."""

    now: int
    method: str
    args: Any
    kwargs: Any
    answer: str


def record(seed: int) -> list[Request]:
    """Run a seed and return the requests that the server executed, or nothing if it had a failover."""
    world = World(Choices(seed))
    with installed(world):
        simulation = Simulation(world)
        server, requests = simulation.server, list[Request]()
        observe = server.on_request

        def note(method: str, args: Any, kwargs: Any, answer: Any) -> None:
            observe(method, args, kwargs, answer)
            # The entries of workers expire soon: in Redis by the clock of the machine, which cannot be moved.
            if method in REPLAYED and not str(args[:1]).startswith("('worker/"):
                now = world.wall_clock + server.clock_offset
                requests.append(Request(now, method, args, kwargs, shown(answer)))

        server.on_request = note
        with mock.patch.object(server, "fail_over", wraps=server.fail_over) as fail_over:
            try:
                simulation.run()
            finally:
                world.close()
    assert simulation.rules.violation is None
    return [] if fail_over.called else requests


def shown(answer: Any) -> str:
    """Return an answer as text, with what is due, what groups close and draining leases in one order."""
    if isinstance(answer, Job):
        fields = sorted((name, text) for name, text in answer.record.items() if name not in OWN_FIELDS)
        return f"{answer.job_id} {fields}"
    if isinstance(answer, Mapping):
        return str(sorted((str(key), shown(value)) for key, value in answer.items()))
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        fields = {name: getattr(answer, name) for name in answer._fields if name != "now"}
        if "due" in fields:
            fields["due"] = sorted(map(shown, answer.due))
        return f"{type(answer).__name__} {[f'{name}={shown(value)}' for name, value in fields.items()]}"
    if isinstance(answer, list | tuple):
        items = [shown(item) for item in answer]
        return str(sorted(items) if all(type(item) is tuple for item in answer) else items)
    return str(answer)


def replay(requests: list[Request], store: Store, clock: FrozenClock) -> int:
    """Send the requests to a store, at their times, and compare the answers; return how many were equal.

    Stores choose their own fences and versions of keys: one of the recorded run stands for that of this store.
    """
    tokens: dict[str, str] = {}
    versions: dict[tuple[str, str], str] = {}
    equal = 0
    for request in requests:
        clock.move_to(request.now)
        args, kwargs = translated(request.args, tokens), translated(request.kwargs, tokens)
        if kwargs.get("version"):
            kwargs["version"] = int(versions.get((args[0], str(kwargs["version"])), 0)) or kwargs["version"]
        answer, recorded = shown(run_sync(getattr(store, request.method)(*args, **kwargs))), request.answer
        if request.method in ("kv_put", "kv_get"):
            found = zip(VERSION.findall(recorded), VERSION.findall(answer), strict=False)
            versions.update({(args[0], one): other for one, other in found})
            answer, recorded = VERSION.sub("", answer), VERSION.sub("", recorded)
        if request.method in COMPARED:
            context = f"{request.method} {request.args} {request.kwargs}"
            assert plain(answer) == plain(recorded), context
            times = zip(TIME.findall(answer), TIME.findall(recorded), strict=True)
            assert all(abs(int(one) - int(other)) < CLOSE for one, other in times), context
            equal += 1
            tokens.update(zip(TOKEN.findall(recorded), TOKEN.findall(answer), strict=True))
    return equal


def before_tie(requests: list[Request]) -> Iterator[Request]:
    """Yield the requests until two jobs for workers are created at the same time: then stores claim them in other orders."""
    created = 0
    for request in requests:
        if request.method == "apply":
            makes = [write.change for write in request.args[0] if write.change.transition.name == "create"]
            makes = [change for change in makes if "external" not in change.values]
            if len(makes) > 1 or (makes and created == request.now):
                return
            created = request.now if makes else created
        yield request


def without_repeated_claims(requests: list[Request]) -> Iterator[Request]:
    """Yield the requests, repeated claims without the claim: what a repeated claim answers is up to each store."""
    claims = set[str]()
    for request in requests:
        if request.method == "apply" and len(request.args) > 1 and request.args[1] is not None:
            claim = request.args[1].operation_id
            if claim in claims:
                outcomes = request.answer.rpartition("'claimed=")[0]
                yield request._replace(args=request.args[:1], answer=f"{outcomes}'claimed=[]', 'next_due=None']")
                continue
            claims.add(claim)
        yield request


def plain(answer: str) -> str:
    """Return an answer without its tokens and times."""
    return TIME.sub("", TOKEN.sub("", answer))


def translated(value: Any, tokens: Mapping[str, str]) -> Any:
    """Return arguments of a request with the tokens of another store."""
    if isinstance(value, str):
        return TOKEN.sub(lambda found: tokens.get(found[0], found[0]), value)
    if isinstance(value, TransitionType):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(translated(item, tokens) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(translated(item, tokens) for item in value)
    if isinstance(value, dict):
        return {name: translated(item, tokens) for name, item in value.items()}
    return value


@pytest.fixture(scope="module")
def runs() -> list[list[Request]]:
    """Return the recorded requests of runs."""
    return [list(without_repeated_claims(requests)) for seed in SEEDS if (requests := record(seed))]


def test_sqlite_answers_as_the_memory_store(runs: list[list[Request]], tmp_path: Path) -> None:
    for number, requests in enumerate(runs):
        clock = FrozenClock()
        store = SQLiteStore(tmp_path / f"{number}.db", blocking=True, synchronous="NORMAL", clock=clock)
        try:
            assert replay(requests, store, clock) > 300
        finally:
            run_sync(store.close())


@pytest.mark.service("redis-server")
def test_redis_answers_as_the_memory_store(
    runs: list[list[Request]], redis_server: RedisServer, redis_namespace: str
) -> None:
    clock = ServerClock(redis_server, redis_namespace)
    equal = 0
    for number, requests in enumerate(runs):
        store = clocked_store(redis_server.url, f"{redis_namespace}.{number}", clock, blocking=True)
        try:
            equal += replay(list(before_tie(requests)), store, clock)
        finally:
            run_sync(store.close())
    assert equal > 300
