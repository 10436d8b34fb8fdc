"""A TCP proxy that drops replies after the server has executed the requests.

It runs in its own thread. It only drops replies to requests that may have changed something: a script call of Redis, a
COMMIT of PostgreSQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

CALL = b"EVALSHA"
COMMITTED = b"COMMIT\0"  # the reply to a COMMIT, whose request may name a prepared statement instead
CHUNK = 65536


class Proxy:
    """`lose(n)` drops the next n replies and cuts their connections; `delay` holds every reply for that many seconds.

    `hang` leaves those connected that are, and carries nothing for them any more, as a router does that has forgotten them.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_lose = 0
        self._hold: tuple[float, int] = (0.0, 0)
        self._hung: set[asyncio.Task[None]] = set()
        self.lost = 0
        self.delayed = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def lose(self, count: int = 1) -> None:
        """Lose the next replies to calls."""
        self._loop.call_soon_threadsafe(self._set_lose, count)

    def delay(self, seconds: float, count: int = 1) -> None:
        """Hold the next replies for that time."""
        self._loop.call_soon_threadsafe(self._set_hold, seconds, count)

    def hang(self) -> None:
        """Carry nothing more for the existing connections; new ones are served."""
        self._loop.call_soon_threadsafe(lambda: self._hung.update(self._tasks))

    def _set_lose(self, count: int) -> None:
        self._to_lose += count

    def _set_hold(self, seconds: float, count: int) -> None:
        self._hold = (seconds, count)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._carry(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        asked = [False]
        me = asyncio.current_task()

        async def requests() -> None:
            while data := await reader.read(CHUNK):
                if me in self._hung:
                    continue
                asked[0] = asked[0] or CALL in data
                server_writer.write(data)
                await server_writer.drain()

        async def replies() -> None:
            while data := await server_reader.read(CHUNK):
                called, asked[0] = asked[0] or COMMITTED in data, False
                if me in self._hung:
                    continue
                if called and self._to_lose > 0:
                    self._to_lose -= 1
                    self.lost += 1
                    return
                seconds, left = self._hold
                if called and left > 0:
                    self._hold = (seconds, left - 1)
                    self.delayed += 1
                    await asyncio.sleep(seconds)
                writer.write(data)
                await writer.drain()

        both = [asyncio.ensure_future(requests()), asyncio.ensure_future(replies())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            server_writer.close()
