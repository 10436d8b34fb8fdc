"""The registry of live workers and published job types, under the keys ``worker/`` and ``type/`` of the store."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from milepost.core.errors import InvalidInputError, StoreError, UnknownJobTypeError
from milepost.core.job import Job
from milepost.core.schedule import Schedule
from milepost.core.serialization import JOB_TYPE, from_json, to_json
from milepost.manager.schedules import declare
from milepost.run.param_types import check_schema
from milepost.stores.protocol import KeyValue, KeyValueStore, Store
from milepost.stores.scan import scan_all
from milepost.worker.handlers import Handler

LEFT_TO_NEWER_SECONDS = 10.0
"""About how long a job whose parameters only a newer release accepts waits before a worker may claim it again."""
ANNOUNCED_SECONDS = 86_400.0
"""Seconds for which jobs wait for the first worker of a release that submits them."""
REPUBLISH_AFTER = 3600.0
"""Seconds after which an unchanged type is published again, so that it does not expire."""
MAX_REPLACED = 20
TYPE_TTL = 30 * 86_400.0
"""Seconds that a type stays published after its last worker was seen."""


@dataclass(frozen=True, slots=True)
class JobType:
    """A published job type: the JSON schema of its parameters, its docstring and its defaults.

    `timeout` is in seconds.
    """

    name: str
    doc: str = ""
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "object"})
    secrets: tuple[str, ...] = ()
    max_attempts: int = 1
    timeout: float | None = None
    on_lost: str = "retry"
    isolation: str | None = None
    concurrency: int | None = None
    queue: str | None = None
    """The default queue of its jobs; None for the one with its name."""
    priority: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    task_queue: str | None = None
    """The task queue that runs it; None for milepost's own workers."""
    limit: int | None = None
    """The most concurrent runs as set for all workers, which overrides `concurrency`."""
    paused: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {name: getattr(self, name) for name in _NAMES} | {"secrets": list(self.secrets)}

    def text(self) -> dict[str, Any]:
        """Return the fields that workers publish, as JSON types."""
        return {name: value for name, value in self.to_dict().items() if name not in ("limit", "paused")}

    @property
    def digest(self) -> str:
        """Return a digest of the fields that workers publish, which identifies this version of the type."""
        return sha256(to_json(self.text(), "type", 1024 * 1024).encode()).hexdigest()[:16]


_NAMES = tuple(JobType.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class WorkerEntry:
    """The registration of a live worker. Times are seconds since 1970 by the worker's own clock."""

    name: str
    host: str
    pid: int
    since: float
    seen: float
    types: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    concurrency: int = 1
    draining: bool = False
    queues: tuple[str, ...] = ()
    """What it claims: a type, for the queue of that name, or ``type@queue``. Empty for a worker of a task queue."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {name: getattr(self, name) for name in WorkerEntry.__dataclass_fields__} | {
            "types": list(self.types),
            "running": list(self.running),
            "queues": list(self.queues),
        }


def published_type(handler: Handler[Any, Any], task_queue: str | None = None) -> JobType:
    """Return the job type of a handler, with the task queue that runs it."""
    options = handler.type_options
    return JobType(
        handler.job_type,
        doc=doc_of(handler.function),
        schema=handler.schema,
        secrets=tuple(handler.parameters.secrets),
        max_attempts=options.max_attempts,
        timeout=options.timeout,
        on_lost=options.on_lost,
        isolation=options.isolation,
        concurrency=options.concurrency,
        queue=options.queue,
        priority=options.priority,
        labels=dict(options.labels),
        task_queue=task_queue,
    )


def doc_of(function: Any) -> str:
    """Return the docstring of a function, without indentation."""
    return inspect.cleandoc(function.__doc__ or "")


async def publish(store: KeyValueStore, types: Iterable[JobType], history: dict[str, list[str]] | None = None) -> None:
    """Publish job types. A limit or a pause that was set for all workers is kept elsewhere.

    A published type lists the digests of the versions that it has replaced. A worker that finds its own version in that
    list is of an older release, and leaves the newer one in place while a worker of that release is alive. `history`
    keeps the list for a store that is emptied.
    """
    history = {} if history is None else history
    items = {item.key: item async for item in scan_all(store, "type/")}
    living: frozenset[str] | None = None
    for known in types:
        item = items.get(f"type/{known.name}")
        there = from_json(item.value) if item is not None else {}
        newest, replaced, digest = there.get("digest"), there.get("replaced", []), known.digest
        if newest == digest and time.time() - there.get("at", 0) < REPUBLISH_AFTER:
            continue
        if newest != digest and digest in replaced:
            living = await _living(store) if living is None else living
            if newest in living:
                continue
        before = [newest, *replaced, *history.get(known.name, ())]
        history[known.name] = [one for one in dict.fromkeys(before) if one not in (None, digest)][:MAX_REPLACED]
        text = known.text() | {"digest": digest, "replaced": history[known.name], "at": time.time()}
        await store.kv_put(
            f"type/{known.name}",
            to_json(text, "type", 1024 * 1024),
            version=item.version if item is not None else 0,
            ttl=TYPE_TTL,
        )


async def _living(store: KeyValueStore) -> frozenset[str]:
    """Return the digests of the types and schedules that live workers have."""
    workers = [from_json(item.value) async for item in scan_all(store, "worker/")]
    return frozenset(digest for worker in workers for digest in worker.get("digests", ()))


async def announce(store: KeyValueStore, known: JobType) -> None:
    """Store the version of a type that this process submits, if no worker has published it yet: it may be of a newer release."""
    item = await store.kv_get(f"type/{known.name}")
    if item is not None and known.digest not in _versions(item):
        text = to_json(known.text(), "type", 1024 * 1024)
        await store.kv_put(f"submitted/{known.name}@{known.digest}", text, ttl=ANNOUNCED_SECONDS)


def _versions(item: KeyValue) -> list[str]:
    """Return the digests of a published type and of the versions that it has replaced."""
    there = from_json(item.value)
    return [there.get("digest"), *there.get("replaced", ())]


async def delay_for_newer_release(store: KeyValueStore, handler: Handler[Any, Any], job: Job) -> float | None:
    """Return the seconds to leave a job whose parameters a handler rejects to a newer release, or None if none accepts them.

    That release has published its type, or so far only submits jobs of it.
    """
    own = published_type(handler, job.record.get("task_queue")).digest
    try:
        item = await store.kv_get(f"type/{handler.job_type}")
        newer = [item] if item is not None and from_json(item.value).get("digest") != own else []
        older = [own, *(_versions(item) if item is not None else ())]
        announced = scan_all(store, f"submitted/{handler.job_type}@")
        newer += [one async for one in announced if one.key.rpartition("@")[2] not in older]
        if not any(_accepts(one, job) for one in newer):
            return None
    except StoreError:
        return None
    return LEFT_TO_NEWER_SECONDS * (0.5 + random.random())


def _accepts(item: KeyValue, job: Job) -> bool:
    """Return whether a stored type accepts the parameters of a job."""
    try:
        check_schema(from_json(job.record.get("params", "{}")), _type(item).schema)
    except (InvalidInputError, ValueError, TypeError, KeyError):
        return False
    return True


async def is_published(store: KeyValueStore, name: str) -> bool:
    """Return whether a worker has published a type of this name."""
    return await _stored_type(store, name) is not None


async def read_type(store: KeyValueStore, name: str) -> JobType:
    """Return the published type of a name. Raises UnknownJobTypeError, which lists the published ones."""
    item = await _stored_type(store, name)
    if item is None:
        raise UnknownJobTypeError(name, tuple(known.name for known in await read_types(store)))
    return _type(item)


async def _stored_type(store: KeyValueStore, name: str) -> KeyValue | None:
    return await store.kv_get(f"type/{name}") if JOB_TYPE.match(name) else None


async def read_types(store: KeyValueStore) -> list[JobType]:
    """Return the published types, by name."""
    return [_type(item) async for item in scan_all(store, "type/")]


def _type(item: KeyValue) -> JobType:
    known = {name: value for name, value in from_json(item.value).items() if name in _NAMES}
    known["secrets"] = tuple(known.get("secrets", ()))
    return JobType(**known)


async def read_workers(store: KeyValueStore) -> list[WorkerEntry]:
    """Return the live workers, by name."""
    found = []
    async for item in scan_all(store, "worker/"):
        data = from_json(item.value)
        known = {name: data[name] for name in WorkerEntry.__dataclass_fields__ if name in data}
        for name in ("types", "running", "queues"):
            known[name] = tuple(known.get(name, ()))
        found.append(WorkerEntry(**known))
    return found


async def write_worker(
    store: KeyValueStore, entry: WorkerEntry, ttl: float, *, digests: Sequence[str] = (), version: int | None = None
) -> int | None:
    """Write the registration of a worker with the versions of its types; return the version of the entry.

    Return None if the store has lost the entry of version `version`.
    """
    text = to_json({**entry.to_dict(), "digests": list(digests)}, "worker", 1024 * 1024)
    return await store.kv_put(f"worker/{entry.name}", text, version=version, ttl=ttl)


async def remove_worker(store: KeyValueStore, name: str) -> None:
    """Remove the registration of a worker."""
    await store.kv_delete(f"worker/{name}")


def host_and_pid() -> tuple[str, int]:
    """Return the host and pid of this process."""
    return socket.gethostname(), os.getpid()


log = logging.getLogger("milepost.worker")

REGISTRATION_INTERVAL = 5.0
REGISTRATION_TTL = 4 * REGISTRATION_INTERVAL
PUBLISH_INTERVAL = 60.0
MAX_RUNNING_SHOWN = 100
UNREGISTER_TIMEOUT = 5.0


class WorkerRegistration:
    """Registers a worker in the store every few seconds, with its types and running jobs, and declares its schedules."""

    def __init__(
        self,
        store: Store,
        name: str,
        types: Collection[JobType],
        concurrency: int,
        running: Callable[[], tuple[tuple[str, ...], bool]],
        on_registered: Callable[[], None] = lambda: None,
        schedules: Collection[Schedule] = (),
        release: str | None = None,
        queues: Iterable[str] = (),
    ) -> None:
        self._store = store
        self._name = name
        self._types = types
        self._concurrency = concurrency
        self._running = running
        self._on_registered = on_registered
        self._since = time.time()
        self._publish_at = 0.0
        self._schedules = schedules
        self._release = release
        self._queues = tuple(queues)
        self._digests = [*(known.digest for known in types), *(one.digest for one in schedules)]
        self._history: dict[str, list[str]] = {}
        self._version: int | None = None

    async def keep_registered(self) -> None:
        """Renew the registration until cancelled. `on_registered` is called after the first attempt."""
        while True:
            try:
                await self.renew()
            except StoreError as error:
                log.debug("worker %s: registration not renewed: %s", self._name, error)
            self._on_registered()
            await asyncio.sleep(REGISTRATION_INTERVAL)

    async def renew(self) -> None:
        """Renew the registration, and from time to time publish the types and schedules. Raises StoreError."""
        running, draining = self._running()
        host, pid = host_and_pid()
        names = tuple(known.name for known in self._types)
        entry = WorkerEntry(
            self._name, host, pid, self._since, time.time(), names, running[:MAX_RUNNING_SHOWN], self._concurrency, draining,
            self._queues,
        )  # fmt: skip
        version = await write_worker(self._store, entry, REGISTRATION_TTL, digests=self._digests, version=self._version)
        if version is None:  # the store was emptied, so the published types are gone as well
            self._publish_at = 0.0
            version = await write_worker(self._store, entry, REGISTRATION_TTL, digests=self._digests)
        self._version = version
        if time.monotonic() >= self._publish_at:
            # After the entry: an older worker keeps the types of a newer one while that is registered.
            await publish(self._store, self._types, self._history)
            await declare(self._store, self._schedules, self._release, _living)
            self._publish_at = time.monotonic() + PUBLISH_INTERVAL

    async def unregister(self) -> None:
        """Remove the registration, because the worker has ended."""
        try:
            async with asyncio.timeout(UNREGISTER_TIMEOUT):
                await remove_worker(self._store, self._name)
        except (StoreError, TimeoutError) as error:
            log.warning("worker %s: not unregistered: %s", self._name, error)
