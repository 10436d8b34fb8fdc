"""Streams of all clients of this process, from one subscription to the event feed.

Each event is encoded once. After an outage, after lost feed events, and when a job was silent for long, the records
themselves are compared with what clients were sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

from starlette.responses import Response

from milepost.core.errors import StoreError
from milepost.core.events import LIFECYCLE_KINDS, Event
from milepost.core.job import Job
from milepost.core.serialization import compact_json
from milepost.manager.feed_follower import FeedFollower, FeedNews
from milepost.manager.watch import is_final, snapshot
from milepost.settings import Settings
from milepost.signals import shutdown
from milepost.web.http.problems import RETRY_LATER, Problem, not_found
from milepost.web.live import sse
from milepost.web.live.list_subscriptions import Describe, ListHub
from milepost.web.live.sse import Frame, StreamClient
from milepost.web.security.principals import ANYONE, Principal, limit_reached

log = logging.getLogger("milepost.web.live.hub")
log.addHandler(logging.NullHandler())

A = TypeVar("A")

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

    __slots__ = ("checked_at_tick", "clients", "created_at", "job_id", "version")

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.clients: set[StreamClient] = set()
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
        for client in self.clients:
            client.push(frame)


def event_frame(event: Event, read: int = 0) -> Frame:
    """Return an event as a frame. The stream adds the id, because it knows when the job was created."""
    wire = sse.frame(event.kind, compact_json(event.to_dict()).encode("utf-8", "replace"))
    return Frame(event.version, event.kind in NEVER_DROPPED, wire, event.kind, event.at, read)


class Hub:
    """The streams of one server process."""

    def __init__(
        self,
        follower: FeedFollower,
        *,
        clients_max: int = MAX_CLIENTS,
        settings: Callable[[], Settings] = Settings,
        describe: Describe | None = None,
    ) -> None:
        self._follower = follower
        self.store = follower.store
        self._channels: dict[str, Channel] = {}
        self.lists = ListHub(follower, describe)
        self._clients_max = clients_max
        self._clients = 0
        self._settings = settings
        self._streams_by_principal: Counter[str] = Counter()
        self._ticking: asyncio.Task[None] | None = None
        self._checks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticks = 0
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
            raise Problem(503, text, headers=RETRY_LATER)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A new event loop (a test, a reload): the clients of the old one are gone.
            self._loop, self._ticking, self._clients = loop, None, 0
            self._streams_by_principal.clear()
            self._channels.clear()
            self.lists.clear()
        most = self._settings().max_streams
        if not principal.unlimited and self._streams_by_principal[principal.name] >= most:
            raise limit_reached("Too many open streams", most, 5)
        self._streams_by_principal[principal.name] += 1
        self._clients += 1
        try:
            if self._ticking is None:
                # A mounted application has no lifespan, but its open streams would delay the server's shutdown too.
                shutdown.add(self.close_soon)
                self._ticking = loop.create_task(self._tick())
            await self._follower.subscribe(self._receive)
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
            self._clients = 0
            self._follower.unsubscribe(self._receive)
            if self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None
                shutdown.remove(self.close_soon)

    def listen(self, job_id: str, client: StreamClient) -> Channel:
        """Send every event of a job to a client from now on."""
        channel = self._channels.get(job_id)
        if channel is None:
            channel = self._channels[job_id] = Channel(job_id)
        channel.checked_at_tick = self._ticks
        channel.clients.add(client)
        return channel

    def stop_listening(self, channel: Channel, client: StreamClient) -> None:
        """Send a client no more events."""
        channel.clients.discard(client)
        if not channel.clients and self._channels.get(channel.job_id) is channel:
            del self._channels[channel.job_id]

    def open(self) -> None:
        """Accept clients: the server is starting, perhaps again in the same process."""
        self.closing = False

    def close(self) -> None:
        """End every stream now, because the server is shutting down."""
        self.closing = True
        for client in self._all_clients():
            client.push(sse.CLOSE)
            if self._loop is not None and self._loop.is_running():
                self._loop.call_later(CLOSE_GRACE_SECONDS, client.cut)

    def close_soon(self) -> None:
        """Call `close` from a signal handler or another thread."""
        self.closing = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)

    def _all_clients(self) -> list[StreamClient]:
        return [*(client for c in self._channels.values() for client in c.clients), *self.lists.clients()]

    def _receive(self, news: FeedNews) -> None:
        """Send events to their clients. After lost events or an outage, and at the end of a job, check the records."""
        if news.error is not None:
            return
        doubtful = [one for event in news.events if (one := self._dispatch(event)) is not None]
        self.reads += news.caught_up
        if news.lost or news.resumed:
            doubtful = list(self._channels.values())
        if doubtful:
            task = asyncio.get_running_loop().create_task(self._check(doubtful))
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _check(self, channels: list[Channel]) -> None:
        """Compare jobs with what their clients were sent, again at the next tick if the store is unavailable."""
        try:
            await self._reconcile(channels)
        except Exception as error:
            if not isinstance(error, StoreError):
                # A defect must not stop the streams of all clients.
                log.exception("unexpected error in the event hub; continuing")
            for channel in channels:
                channel.checked_at_tick = self._ticks - RECHECK_TICKS

    def _dispatch(self, event: Event) -> Channel | None:
        """Send an event to its clients. Return the channel if it may be the last event of the job."""
        channel = self._channels.get(event.job_id)
        if channel is None:
            return None
        channel.checked_at_tick = self._ticks
        channel.version = event.version
        channel.publish(event_frame(event, self.reads))
        return channel if event.is_last_word and event.kind != "deleted" else None

    async def _reconcile(self, channels: list[Channel]) -> None:
        """Compare jobs with what their clients were sent, and send the difference."""
        store = self.store()
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
            wire = event_frame(snapshot(job)).wire
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
            for client in self._all_clients():
                if client.sending_since is not None:
                    if now - client.sending_since > sse.SLOW_SECONDS:
                        client.abandon()
                elif now - client.last_sent_at > sse.KEEP_ALIVE_SECONDS - TICK_SECONDS:
                    client.push(Frame(0, False, sse.KEEP_ALIVE))
            silent = [
                c for c in self._channels.values() if self._ticks - c.checked_at_tick >= RECHECK_TICKS and c.version
            ]
            for channel in silent:
                channel.checked_at_tick = self._ticks
            await self._check(silent)


class JobReader(StreamClient, Generic[A]):
    """The streaming response of one job after a position. It listens to the channel of the job from its creation on."""

    def __init__(self, hub: Hub, job_id: str, after: A, principal: Principal, allowed: sse.Allowed | None) -> None:
        super().__init__(principal, allowed)
        self._hub = hub
        self._after = after
        self._channel = hub.listen(job_id, self)

    def release(self) -> None:
        """Unsubscribe the client."""
        self._hub.stop_listening(self._channel, self)
        self._hub.leave(self.principal)

    @classmethod
    async def start(
        cls,
        hub: Hub,
        job_id: str,
        after: A,
        *,
        reconnect: bool = False,
        principal: Principal = ANYONE,
        allowed: sse.Allowed | None = None,
    ) -> Response:
        """Return the stream of a job, or a 204 to a client that reconnected and has seen everything of an ended job.

        Raises Problem 404 if there is no such job that the principal may see.
        """
        await hub.enter(principal)
        stream = cls(hub, job_id, after, principal, allowed)
        try:
            job = await hub.store().get(job_id)
            if job is None or not principal.sees(job):
                raise not_found()
            has_news = await stream.open(job)
        except BaseException:
            stream.release()
            raise
        if reconnect and not has_news:
            stream.release()
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        return stream

    async def open(self, job: Job) -> bool:
        """Read the beginning of the stream; return whether it has anything to send, now or later."""
        raise NotImplementedError
