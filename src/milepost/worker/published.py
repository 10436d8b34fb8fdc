"""What workers publish on the shelf: the schema of each type that they have, and themselves. Owns the keys ``type/`` and
``worker/`` and their form; knows no handler code and runs nothing.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from milepost.core.encoding import from_json, to_json
from milepost.core.errors import UnknownJobType
from milepost.stores.protocol import Item, Shelf
from milepost.worker.handlers import Handler

TYPE_KEPT = 30 * 86_400.0
"""Seconds that a type stays published after the last worker that had it was seen."""


@dataclass(frozen=True, slots=True)
class JobType:
    """A published type: the JSON schema of its parameters, its docstring and its defaults. `timeout` in seconds."""

    name: str
    doc: str = ""
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "object"})
    secrets: tuple[str, ...] = ()
    max_attempts: int = 1
    timeout: float | None = None
    on_lost: str = "retry"
    isolation: str | None = None
    concurrency: int | None = None
    priority: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    engine: str | None = None
    """The engine whose workers run it; None: milepost's own."""
    limit: int | None = None
    """The most runs at once as set for all workers, which comes before `concurrency`."""
    paused: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {name: getattr(self, name) for name in _NAMES} | {"secrets": list(self.secrets)}


_NAMES = tuple(JobType.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class WorkerEntry:
    """A living worker as it describes itself. Times are seconds since 1970 by the worker's own clock."""

    name: str
    host: str
    pid: int
    since: float
    seen: float
    types: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    concurrency: int = 1
    draining: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {name: getattr(self, name) for name in WorkerEntry.__dataclass_fields__} | {
            "types": list(self.types),
            "running": list(self.running),
        }


def type_of(handler: Handler[Any, Any], engine: str | None = None) -> JobType:
    """The type of a handler, and the engine that runs it."""
    options = handler.type_options
    return JobType(
        handler.job_type,
        doc=doc_of(handler.function),
        schema=handler.parameters.schema,
        secrets=tuple(handler.parameters.secrets),
        max_attempts=options.max_attempts,
        timeout=options.timeout,
        on_lost=options.on_lost,
        isolation=options.isolation,
        concurrency=options.concurrency,
        priority=options.priority,
        labels=dict(options.labels),
        engine=engine,
    )


def doc_of(function: Any) -> str:
    """The docstring of the code of a type."""
    return inspect.cleandoc(function.__doc__ or "")


async def publish(shelf: Shelf, types: Iterable[JobType]) -> None:
    """Publish some types. What is set for all workers, a limit or a pause, is kept elsewhere."""
    for known in types:
        text = {name: value for name, value in known.to_dict().items() if name not in ("limit", "paused")}
        await shelf.shelf_put(f"type/{known.name}", to_json(text, "type", 1024 * 1024), ttl=TYPE_KEPT)


async def read_type(shelf: Shelf, name: str) -> JobType:
    """The published type of a name. Raises UnknownJobType that lists those that there are."""
    item = await shelf.shelf_get(f"type/{name}")
    if item is None:
        raise UnknownJobType(name, tuple(known.name for known in await read_types(shelf)))
    return _type(item)


async def read_types(shelf: Shelf) -> list[JobType]:
    """The published types, by name."""
    return [_type(item) for item in await shelf.shelf_scan("type/")]


def _type(item: Item) -> JobType:
    known = {name: value for name, value in from_json(item.value).items() if name in _NAMES}
    known["secrets"] = tuple(known.get("secrets", ()))
    return JobType(**known)


async def read_workers(shelf: Shelf) -> list[WorkerEntry]:
    """The workers that were seen lately, by name."""
    found = []
    for item in await shelf.shelf_scan("worker/"):
        data = from_json(item.value)
        known = {name: data[name] for name in WorkerEntry.__dataclass_fields__ if name in data}
        for name in ("types", "running"):
            known[name] = tuple(known.get(name, ()))
        found.append(WorkerEntry(**known))
    return found


async def write_worker(shelf: Shelf, entry: WorkerEntry, ttl: float) -> None:
    """Say that a worker lives."""
    await shelf.shelf_put(f"worker/{entry.name}", to_json(entry.to_dict(), "worker", 1024 * 1024), ttl=ttl)


async def remove_worker(shelf: Shelf, name: str) -> None:
    """Say that a worker has ended."""
    await shelf.shelf_delete(f"worker/{name}")


def this_host() -> tuple[str, int]:
    """The host and pid that a worker names."""
    return socket.gethostname(), os.getpid()
