"""One subscription to the store's feed per process, shared by all stream clients.

Each event is encoded once. After an outage, after lost feed events, and when a job was silent for long, the records
themselves are compared with what clients were sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from milepost.core.errors import StoreError
from milepost.core.events import LIFECYCLE_KINDS, Event, SeenEvents
from milepost.core.job import Job
from milepost.manager.watch import is_final, snapshot
from milepost.settings import Settings
from milepost.signals import shutdown
from milepost.stores.protocol import Store
from milepost.web.http.problems import Problem
from milepost.web.http.serialization import event_data
from milepost.web.live import sse
from milepost.web.live.list_subscriptions import Describe, ListHub
from milepost.web.live.sse import Frame, Reader
from milepost.web.security.principals import ANYONE, Principal
from milepost.web.security.quotas import limit_reached

log = logging.getLogger("milepost.web.live.hub")
log.addHandler(logging.NullHandler())

FEED_TIMEOUT = 5.0
FEED_LIMIT = 1000
TICK_SECONDS = 1.0
RECHECK_TICKS = 15
"""Ticks after which the record of a silent job is checked."""
MAX_CLIENTS = 20_000
CLOSE_GRACE_SECONDS = 0.5
"""Seconds that clients have at a shutdown to receive what was sent."""
NEVER_DROPPED = LIFECYCLE_KINDS | {"checkpoint"}
CATCH_UP, RESET, RECHECK = "catch-up", "reset", "look"
"""Frames that are not events: the record is newer than the last event, or older, or must be checked."""


class Channel:
    """The clients of one job id, the newest version they were sent, and the creation time of its job."""

    __slots__ = ("checked_at_tick", "created_at", "job_id", "readers", "version")

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.readers: set[Reader] = set()
        self.version = 0
        self.created_at: datetime | None = None
        self.checked_at_tick = 0

    def observe(self, job: Job) -> None:
        """Note the job of this id. If it was recreated, all clients check whether theirs is gone."""
        if self.created_at not in (None, job.created_at):
            self.version = 0
            self.publish(Frame(0, True, b"", RECHECK))
        self.created_at = job.created_at
        self.version = max(self.version, job.version)

    def publish(self, frame: Frame) -> None:
        """Send a frame to all clients."""
        for reader in self.readers:
            reader.push(frame)


def event_frame(event: Event, read: int = 0) -> Frame:
    """Return an event as a frame. The stream adds the id, because it knows when the job was created."""
    wire = sse.frame(event.kind, event_data(event))
    return Frame(event.version, event.kind in NEVER_DROPPED, wire, event.kind, event.at, read)


class Hub:
    """One subscription to the feed of a store, for the clients of this process."""

    def __init__(
        self,
        store: Callable[[], Store],
        *,
        clients_max: int = MAX_CLIENTS,
        settings: Callable[[], Settings] = Settings,
        describe: Describe | None = None,
    ) -> None:
        self._store = store
        self._channels: dict[str, Channel] = {}
        self.lists = ListHub(store, describe)
        self._clients_max = clients_max
        self._clients = 0
        self._settings = settings
        self._streams_by_principal: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._ready: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticks = 0
        self._listens_for_shutdown = False
        self.closing = False
        self.reads = 0
        """How often the feed was read to its end."""

    @property
    def clients(self) -> int:
        """The number of connected clients."""
        return self._clients

    async def enter(self, principal: Principal = ANYONE) -> None:
        """Count a client, and make sure that the feed is being read. Raises Problem 503 if the server has too many
        clients, and 429 if the principal has.
        """
        if self.closing or self._clients >= self._clients_max:
            text = "The server is shutting down" if self.closing else "Too many open streams"
            raise Problem(503, text, headers={"Retry-After": "5"})
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A new event loop (a test, a reload): the clients of the old one are gone.
            self._loop, self._tasks, self._ready, self._clients = loop, [], None, 0
            self._streams_by_principal.clear()
            self._channels.clear()
            self.lists.clear()
        most = self._settings().max_streams
        if not principal.unlimited and self._streams_by_principal[principal.name] >= most:
            raise limit_reached("Too many open streams", most, 5)
        self._streams_by_principal[principal.name] += 1
        self._clients += 1
        if self._ready is None:
            self._ready = loop.create_future()
            self._tasks = [loop.create_task(self._read(self._ready)), loop.create_task(self._tick())]
            if not self._listens_for_shutdown:
                # A mounted application has no lifespan, but its open streams would delay the server's shutdown too.
                shutdown.add(self.close_soon)
                self._listens_for_shutdown = True
        try:
            await asyncio.shield(self._ready)
        except BaseException:
            self.leave(principal)
            raise

    def leave(self, principal: Principal = ANYONE) -> None:
        """Uncount a client. The last one ends the subscription."""
        self._clients -= 1
        self._streams_by_principal[principal.name] -= 1
        if self._streams_by_principal[principal.name] <= 0:
            del self._streams_by_principal[principal.name]
        if self._clients <= 0:
            for task in self._tasks:
                task.cancel()
            self._tasks, self._ready, self._clients = [], None, 0
            if self._listens_for_shutdown:
                shutdown.remove(self.close_soon)
                self._listens_for_shutdown = False

    def listen(self, job_id: str, reader: Reader) -> Channel:
        """Send every event of a job to a client from now on."""
        channel = self._channels.get(job_id)
        if channel is None:
            channel = self._channels[job_id] = Channel(job_id)
        channel.checked_at_tick = self._ticks
        channel.readers.add(reader)
        return channel

    def stop_listening(self, channel: Channel, reader: Reader) -> None:
        """Send a client no more events."""
        channel.readers.discard(reader)
        if not channel.readers and self._channels.get(channel.job_id) is channel:
            del self._channels[channel.job_id]

    def open(self) -> None:
        """Accept clients: the server is starting, perhaps again in the same process."""
        self.closing = False

    def close(self) -> None:
        """End every stream now, because the server is shutting down."""
        self.closing = True
        readers = self._readers()
        for reader in readers:
            reader.push(sse.CLOSE)
            if self._loop is not None and self._loop.is_running():
                self._loop.call_later(CLOSE_GRACE_SECONDS, reader.cut)

    def close_soon(self) -> None:
        """Call `close` from a signal handler or another thread."""
        self.closing = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)

    def _readers(self) -> list[Reader]:
        return [*(reader for c in self._channels.values() for reader in c.readers), *self.lists.readers()]

    async def _read(self, ready: asyncio.Future[None]) -> None:
        store, position, lost, seen = self._store(), None, False, SeenEvents()
        while True:
            try:
                if position is None:
                    position = (await store.feed(None)).position
                    self.lists.position = position
                    if not ready.done():
                        ready.set_result(None)
                news = await store.feed(position, limit=FEED_LIMIT, timeout=FEED_TIMEOUT)
                position = news.position
                if news.lost or lost:
                    await self._reconcile(list(self._channels.values()))
                    self.lists.reset()
                    lost = False
                fresh = filter(seen.is_new, news.events)
                ended = [c for c in map(self._dispatch, fresh) if c is not None]
                self.lists.position = position
                if len(news.events) < FEED_LIMIT:
                    self.reads += 1
                if ended:
                    await self._reconcile(ended)
            except StoreError as error:
                if not ready.done():
                    self._give_up(ready, error)
                    return
                if not lost:
                    log.warning("feed unavailable; streams are paused: %s", error)
                lost = True
                await asyncio.sleep(1.0)
            except Exception as error:
                if not ready.done():
                    self._give_up(ready, error)
                    return
                # A defect must not stop the streams of all clients.
                log.exception("unexpected error in the event hub; continuing")
                lost = True
                await asyncio.sleep(1.0)

    def _give_up(self, ready: asyncio.Future[None], error: Exception) -> None:
        """Report to waiting clients that the feed cannot be read. The next client starts again."""
        ready.set_exception(error)
        ready.exception()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._tasks, self._ready = [], None

    def _dispatch(self, event: Event) -> Channel | None:
        """Send an event to its clients. Return the channel if it may be the last event of the job."""
        self.lists.record_change(event)
        channel = self._channels.get(event.job_id)
        if channel is None:
            return None
        channel.checked_at_tick = self._ticks
        channel.version = event.version
        channel.publish(event_frame(event, self.reads))
        return channel if event.is_last_word and event.kind != "deleted" else None

    async def _reconcile(self, channels: list[Channel]) -> None:
        """Compare jobs with what their clients were sent, and send the difference."""
        store = self._store()
        for channel in channels:
            before = channel.version
            job = await store.get(channel.job_id)
            if channel.version != before and (job is None or job.version < channel.version):
                continue  # newer events arrived during the read, so this record is outdated
            self._compare(channel, job)

    def _compare(self, channel: Channel, job: Job | None) -> None:
        if job is None:
            channel.publish(event_frame(Event(channel.job_id, channel.version + 1, "deleted")))
            return
        created_at = job.created_at
        if job.version > channel.version or created_at != channel.created_at:
            channel.publish(Frame(job.version, True, b"", CATCH_UP, created_at=created_at))
        elif job.version < channel.version:
            # The store lost data: send a snapshot again.
            wire = sse.frame("snapshot", event_data(snapshot(job)))
            channel.publish(Frame(job.version, True, wire, RESET, created_at=created_at))
        channel.version = job.version
        if is_final(job):
            channel.publish(sse.END._replace(created_at=created_at))

    async def _tick(self) -> None:
        """Once a second, send keep-alives, drop clients that do not read, and check jobs that were silent for long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._ticks += 1
            now = loop.time()
            for reader in self._readers():
                if reader.sending_since is not None:
                    if now - reader.sending_since > sse.SLOW_SECONDS:
                        reader.abandon()
                elif now - reader.last_sent_at > sse.KEEP_ALIVE_SECONDS - TICK_SECONDS:
                    reader.push(Frame(0, False, sse.KEEP_ALIVE))
            silent = [
                c for c in self._channels.values() if self._ticks - c.checked_at_tick >= RECHECK_TICKS and c.version
            ]
            for channel in silent:
                channel.checked_at_tick = self._ticks
            try:
                await self._reconcile(silent)
            except StoreError:
                continue
