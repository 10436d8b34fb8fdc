"""One connection for a blocking or an async caller, and the pool of them. A call sends its statements in one round trip."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import psycopg
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from milepost.forks import reset_after_fork

Rows = list[tuple[Any, ...]]
Call = tuple[str, Mapping[str, Any] | None]
"""A statement and its values."""

CONNECT_SECONDS = 5
PREPARE_THRESHOLD = 5
"""How often a connection runs a statement before the server prepares it."""
MOST_CONNECTIONS = 10
"""The most connections of a store object at one time; further callers wait."""


class Connection(Protocol):
    """A connection in autocommit mode. A coroutine of a blocking one never suspends."""

    @property
    def broken(self) -> bool:
        """Return whether it cannot be used any more."""

    async def run(self, *calls: Call) -> list[Rows]:
        """Run statements in one round trip and return the rows of each. After an error the rest is not run."""

    async def close(self) -> None:
        """Close it."""


class BlockingConnection:
    """A connection for one thread at a time."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    @property
    def broken(self) -> bool:
        return self._connection.closed

    async def run(self, *calls: Call) -> list[Rows]:
        if len(calls) == 1:
            return [_rows(self._connection.execute(*calls[0]))]
        return run_pipeline(self._connection, calls, self._connection.cursor)

    async def close(self) -> None:
        self._connection.close()


class AsyncConnection:
    """A connection for one task at a time."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection

    @property
    def broken(self) -> bool:
        return self._connection.closed

    async def run(self, *calls: Call) -> list[Rows]:
        if len(calls) == 1:
            return [await _rows_of(await self._connection.execute(*calls[0]))]
        return await run_async_pipeline(self._connection, calls, self._connection.cursor)

    async def close(self) -> None:
        await self._connection.close()


class ArrayDumper(Dumper):
    """Sends a list of strings, numbers, booleans and None as an array. The statement gives its type.

    Psycopg's own way, which looks at each value by itself, takes 2 to 40 times as long.
    """

    def dump(self, obj: Sequence[Any]) -> bytes:
        """Return the text of an array. Raises psycopg.DataError for NUL, UnicodeEncodeError for a lone surrogate."""
        encoding = self.connection.info.encoding if self.connection is not None else "utf-8"
        return _array(obj).encode(encoding)


def adapt(
    context: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | psycopg.Cursor[Any] | psycopg.AsyncCursor[Any],
) -> None:
    """Let a connection, with its cursors, or one cursor send lists with `ArrayDumper`."""
    context.adapters.register_dumper(list, ArrayDumper)


def _array(values: Sequence[Any]) -> str:
    if not values:
        return "{}"
    try:
        text = "\0".join(values)
    except TypeError:
        found = [
            "NULL" if value is None else _strings(value, 1) if isinstance(value, str) else str(value)
            for value in values
        ]
        return f"{{{','.join(found)}}}"
    return f"{{{_strings(text, len(values))}}}"


def _strings(joined: str, count: int) -> str:
    """Return strings, joined by NUL, as quoted elements."""
    if joined.count("\0") != count - 1:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    escaped = joined.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'"{escaped}"'


def run_pipeline(
    connection: psycopg.Connection[Any], calls: Sequence[Call], cursor: Callable[[], psycopg.Cursor[Any]]
) -> list[Rows]:
    """Send statements together, each with a new cursor, and return the rows of each. Raises the first error."""
    errors: list[psycopg.Error] = []
    with _collected(errors), connection.pipeline(), _collected(errors):
        cursors = [cursor().execute(*call) for call in calls]
    if errors:
        raise errors[0]
    return [_rows(one) for one in cursors]


async def run_async_pipeline(
    connection: psycopg.AsyncConnection[Any], calls: Sequence[Call], cursor: Callable[[], psycopg.AsyncCursor[Any]]
) -> list[Rows]:
    """Do the same with an async connection."""
    errors: list[psycopg.Error] = []
    with _collected(errors):
        async with connection.pipeline():
            with _collected(errors):
                cursors = [await cursor().execute(*call) for call in calls]
    if errors:
        raise errors[0]
    return [await _rows_of(one) for one in cursors]


@contextmanager
def _collected(errors: list[psycopg.Error]) -> Iterator[None]:
    """Collect errors inside and at the end of a pipeline; psycopg logs a warning if both raise one."""
    try:
        yield
    except psycopg.Error as error:
        errors.append(error)


def _rows(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Rows:
    return cursor.fetchall() if cursor.description is not None else []


async def _rows_of(cursor: psycopg.AsyncCursor[tuple[Any, ...]]) -> Rows:
    return await cursor.fetchall() if cursor.description is not None else []


def parameters(url: str) -> dict[str, Any]:
    """Return the parameters of a connection. Raises psycopg.ProgrammingError for an invalid URL.

    A URL with several hosts finds the one that accepts writes, so that a failover is followed. An environment
    variable of libpq, such as PGCONNECT_TIMEOUT, overrides the default of milepost.
    """
    given = conninfo_to_dict(url.partition("#")[0])
    defaults: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "application_name": "milepost"}
    if "," in str(given.get("host", "")):
        defaults["target_session_attrs"] = "read-write"
    in_environment = {option.keyword.decode() for option in Conninfo.get_defaults() if option.val != option.compiled}
    return {name: value for name, value in defaults.items() if name not in in_environment} | given


class Pool:
    """The idle connections of one store object. Safe for threads, event loops and across a fork."""

    def __init__(self, given: Mapping[str, Any], *, blocking: bool) -> None:
        self._given = given
        self._blocking = blocking
        self.prepares = True
        """False once a pooler was met that does not follow prepared statements."""
        self._reset()
        reset_after_fork(self)

    def _reset(self) -> None:
        self._idle: list[Connection] = []
        self._turns = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._loop_turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    def after_fork(self) -> None:
        """Keep the sessions of the parent, untouched."""
        _inherited.extend(self._idle)
        self._reset()

    def turn(self) -> AbstractAsyncContextManager[Any]:
        """Return a context in which one connection may be used."""
        if self._blocking:
            return _BlockingTurn(self._turns)
        loop = asyncio.get_running_loop()
        turns = self._loop_turns.get(loop)
        if turns is None:
            for other in [one for one in list(self._loop_turns) if one.is_closed()]:
                self._loop_turns.pop(other, None)
            turns = self._loop_turns.setdefault(loop, asyncio.Semaphore(MOST_CONNECTIONS))
        return turns

    def idle(self) -> Connection | None:
        """Take an idle connection, the one that was used last."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    async def connect(self) -> Connection:
        """Open a connection. Raises psycopg.Error."""
        options: dict[str, Any] = {
            "autocommit": True,
            "prepare_threshold": PREPARE_THRESHOLD if self.prepares else None,
        }
        if self._blocking:
            connection = psycopg.connect(**self._given, **options)
            adapt(connection)
            return BlockingConnection(connection)
        opened = await psycopg.AsyncConnection.connect(**self._given, **options)
        adapt(opened)
        return AsyncConnection(opened)

    def put_back(self, connection: Connection) -> None:
        """Keep a connection for the next use."""
        self._idle.append(connection)

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        if self._blocking:
            time.sleep(seconds)  # noqa: ASYNC251 - a blocking store never suspends
        else:
            await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close the idle connections."""
        while (connection := self.idle()) is not None:
            await connection.close()


class _BlockingTurn(nullcontext[None]):
    def __init__(self, turns: threading.BoundedSemaphore) -> None:
        self._turns = turns

    async def __aenter__(self) -> None:
        self._turns.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._turns.release()


_inherited: list[Connection] = []
