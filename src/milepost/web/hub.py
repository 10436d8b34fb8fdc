"""The hub: one subscription to the store's feed for a whole process, however many clients listen.

Owns who listens to which job, and that each event is encoded once. It reads the feed while anybody listens. After an
outage, or when the feed lost events, or when a job has been silent for long, it looks at the records themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from milepost.core.errors import StoreError
from milepost.core.events import LIFECYCLE_KINDS, Event
from milepost.core.job import Job
from milepost.manager.watching import has_last_word, snapshot
from milepost.stores.protocol import Store
from milepost.web import sse
from milepost.web.boards import Boards
from milepost.web.problems import Problem
from milepost.web.sse import Frame, Reader
from milepost.web.wire import event_data
from milepost.worker.shutdown import shutdown

log = logging.getLogger("milepost.web.hub")
log.addHandler(logging.NullHandler())

FEED_STEP = 5.0
TICK = 1.0
LOOK_AGAIN = 15
"""Ticks after which the record of a silent job is looked at itself."""
CLIENTS_MAX = 20_000
CLOSE_WITHIN = 0.5
"""Seconds that clients have at a shutdown to take what was sent to them."""
ALWAYS = LIFECYCLE_KINDS | {"checkpoint"}
CATCH_UP, RESET = "catch-up", "reset"


class Channel:
    """Those who listen to one job, and the newest version that they were told of."""

    __slots__ = ("job_id", "looked", "readers", "version")

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.readers: set[Reader] = set()
        self.version = 0
        self.looked = 0

    def tell(self, frame: Frame) -> None:
        """Push a frame to all."""
        for reader in self.readers:
            reader.push(frame)


def event_frame(event: Event) -> Frame:
    """An event as a frame, its version as the id."""
    wire = sse.frame(event.kind, event_data(event), event.version)
    return Frame(event.version, event.kind in ALWAYS, wire, event.kind)


class Hub:
    """One subscription to the feed of a store, for the clients of this process."""

    def __init__(self, store: Callable[[], Store], *, clients_max: int = CLIENTS_MAX) -> None:
        self._store = store
        self._channels: dict[str, Channel] = {}
        self.boards = Boards(store)
        self._clients_max = clients_max
        self._clients = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ready: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticks = 0
        self._hears = False
        self.closing = False

    @property
    def clients(self) -> int:
        """How many clients listen."""
        return self._clients

    async def enter(self) -> None:
        """Count a client in and be sure that the feed is read. Raises Problem 503 when there are too many."""
        if self.closing or self._clients >= self._clients_max:
            text = "The server is shutting down" if self.closing else "Too many streams are open"
            raise Problem(503, text, headers={"Retry-After": "5"})
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Another event loop than before (a test, a reload): what belonged to the old one is gone with it.
            self._loop, self._tasks, self._ready, self._clients = loop, [], None, 0
            self._channels.clear()
            self.boards.clear()
        self._clients += 1
        if self._ready is None:
            self._ready = loop.create_future()
            self._tasks = [loop.create_task(self._read(self._ready)), loop.create_task(self._tick())]
            if not self._hears:
                # Also without a lifespan, which a mounted application does not have: open streams hold up the server's end.
                shutdown.add(self.close_soon)
                self._hears = True
        try:
            await asyncio.shield(self._ready)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Count a client out; the last one ends the subscription."""
        self._clients -= 1
        if self._clients <= 0:
            for task in self._tasks:
                task.cancel()
            self._tasks, self._ready, self._clients = [], None, 0
            if self._hears:
                shutdown.remove(self.close_soon)
                self._hears = False

    def listen(self, job_id: str, reader: Reader) -> Channel:
        """Tell a reader of every event of a job from now on."""
        channel = self._channels.get(job_id)
        if channel is None:
            channel = self._channels[job_id] = Channel(job_id)
        channel.looked = self._ticks
        channel.readers.add(reader)
        return channel

    def forget(self, channel: Channel, reader: Reader) -> None:
        """Tell a reader nothing any more."""
        channel.readers.discard(reader)
        if not channel.readers and self._channels.get(channel.job_id) is channel:
            del self._channels[channel.job_id]

    def open(self) -> None:
        """Let clients in: the server starts, perhaps once more in the same process."""
        self.closing = False

    def close(self) -> None:
        """End every stream, now: the server goes away."""
        self.closing = True
        readers = self._readers()
        for reader in readers:
            reader.push(sse.CLOSE)
            if self._loop is not None and self._loop.is_running():
                self._loop.call_later(CLOSE_WITHIN, reader.cut)

    def close_soon(self) -> None:
        """`close`, from a signal handler or another thread."""
        self.closing = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)

    def _readers(self) -> list[Reader]:
        return [*(reader for c in self._channels.values() for reader in c.readers), *self.boards.readers()]

    async def _read(self, ready: asyncio.Future[None]) -> None:
        store, position, lost = self._store(), None, False
        while True:
            try:
                if position is None:
                    position = (await store.feed(None)).position
                    self.boards.position = position
                    if not ready.done():
                        ready.set_result(None)
                news = await store.feed(position, timeout=FEED_STEP)
                position = news.position
                if news.lost or lost:
                    await self._look_at(list(self._channels.values()))
                    self.boards.reset()
                    lost = False
                ended = [c for c in map(self._dispatch, news.events) if c is not None]
                self.boards.position = position
                if ended:
                    await self._look_at(ended)
            except StoreError as error:
                if not ready.done():
                    self._give_up(ready, error)
                    return
                if not lost:
                    log.warning("the feed cannot be read; streams wait: %s", error)
                lost = True
                await asyncio.sleep(1.0)
            except Exception as error:
                if not ready.done():
                    self._give_up(ready, error)
                    return
                # A defect here must not silence every stream of the process.
                log.exception("the hub met an unexpected error; it goes on")
                lost = True
                await asyncio.sleep(1.0)

    def _give_up(self, ready: asyncio.Future[None], error: Exception) -> None:
        """Tell those who wait that the feed cannot be read; the next client begins anew, perhaps before they have left."""
        ready.set_exception(error)
        ready.exception()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._tasks, self._ready = [], None

    def _dispatch(self, event: Event) -> Channel | None:
        """Tell those who listen; the channel, when this may have been the job's last word."""
        self.boards.note(event)
        channel = self._channels.get(event.job_id)
        if channel is None:
            return None
        channel.looked = self._ticks
        channel.version = event.version
        channel.tell(event_frame(event))
        if event.kind == "deleted":
            channel.tell(sse.END)
            return None
        return channel if event.is_last_word else None

    async def _look_at(self, channels: list[Channel]) -> None:
        """Compare jobs with what their listeners were told, and tell them the difference."""
        store = self._store()
        for channel in channels:
            told = channel.version
            job = await store.get(channel.job_id)
            if channel.version != told and (job is None or job.version < channel.version):
                continue  # more was told while this was read: it is old, and no sign of a store that lost something
            self._compare(channel, job)

    def _compare(self, channel: Channel, job: Job | None) -> None:
        if job is None:
            channel.tell(event_frame(Event(channel.job_id, channel.version + 1, "deleted")))
            channel.tell(sse.END)
            return
        if job.version > channel.version:
            channel.tell(Frame(job.version, True, b"", CATCH_UP))
        elif job.version < channel.version:
            # The store lost what it had, or the id was used again: begin anew.
            wire = sse.frame("snapshot", event_data(snapshot(job)), job.version)
            channel.tell(Frame(job.version, True, wire, RESET))
        channel.version = job.version
        if has_last_word(job):
            channel.tell(sse.END)

    async def _tick(self) -> None:
        """Once a second: keep-alives, readers that do not read, jobs that have been silent for long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            self._ticks += 1
            now = loop.time()
            for reader in self._readers():
                if reader.sending_since is not None:
                    if now - reader.sending_since > sse.SLOW_SECONDS:
                        reader.abandon()
                elif now - reader.heard_at > sse.KEEP_ALIVE_SECONDS - TICK:
                    reader.push(Frame(0, False, sse.KEEP_ALIVE))
            silent = [c for c in self._channels.values() if self._ticks - c.looked >= LOOK_AGAIN and c.version]
            for channel in silent:
                channel.looked = self._ticks
            try:
                await self._look_at(silent)
            except StoreError:
                continue
