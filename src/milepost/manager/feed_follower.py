"""Read the event feed of a store once for all subscribers of this process.

A subscriber learns of new events, each once, of gaps, and of outages of the store. Without subscribers nothing is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from milepost.core.errors import StoreError
from milepost.core.events import Event, SeenEvents
from milepost.run.heartbeat import Outage
from milepost.stores.protocol import Store

log = logging.getLogger("milepost.manager.feed_follower")
log.addHandler(logging.NullHandler())

FEED_LIMIT = 1000
FEED_TIMEOUT = 5.0
RETRY_DELAY = 1.0
MAX_QUEUED_EVENTS = 10_000


class FeedNews(NamedTuple):
    """What one read of the feed found, or why it failed."""

    events: list[Event]
    """The new events, in order for each job."""
    after: str | None = None
    """The position before these events."""
    position: str | None = None
    """The position after them."""
    lost: bool = False
    """Events are missing, because the feed no longer has them. The records must be read instead."""
    resumed: bool = False
    """The store is available again. It may have lost its latest writes, with their events."""
    caught_up: bool = True
    """The feed has been read to its end."""
    began_at: float = 0.0
    """The monotonic time at which the read began: every event before that is in the feed up to `position`."""
    error: StoreError | None = None
    """The store is unavailable. This is reported after each attempt."""


Receive = Callable[[FeedNews], None]


class FeedFollower:
    """The one reader of a store's event feed in this process. It runs as a task while there are subscribers.

    Code over a blocking store calls `add` and `read` instead of `subscribe`.
    """

    def __init__(self, store: Callable[[], Store]) -> None:
        self.store = store
        self._opened: Store | None = None
        self._subscribers: list[Receive] = []
        self._position: str | None = None
        self._seen = SeenEvents()
        self._error: StoreError | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None

    @property
    def position(self) -> str | None:
        """The position up to which the subscribers know the feed, or None if it is not being read."""
        return self._position

    async def subscribe(self, receive: Receive) -> None:
        """Call `receive` with all news from now on. Raises StoreError, and forgets it, if the feed cannot be read.

        It must return soon: a subscriber that does more passes a `FeedQueue`. To subscribe again has no effect.
        """
        loop = asyncio.get_running_loop()
        if self._started is not None and self._started.get_loop() is not loop:
            self._subscribers.clear()  # those of an event loop that is gone (a test, a reload)
            self._forget()
        self.add(receive)
        if self._started is None:
            self._started = loop.create_future()
            self._task = loop.create_task(self._follow(self._started))
        await asyncio.shield(self._started)

    def unsubscribe(self, receive: Receive) -> None:
        """Give a subscriber no more news. The last one ends the reading."""
        if receive in self._subscribers:
            self._subscribers.remove(receive)
        if not self._subscribers and self._task is not None:
            self._task.cancel()
            self._forget()

    def add(self, receive: Receive) -> None:
        """Add a subscriber to a feed that is being read already, or by `read`."""
        if receive not in self._subscribers:
            self._subscribers.append(receive)

    async def read(self, timeout: float) -> bool:
        """Read the feed once, waiting up to `timeout` seconds, and give the subscribers what it has.

        The first read finds the current position. Return False if the store is unavailable.
        """
        after, began_at = self._position, time.monotonic()
        if self._opened is None:
            self._opened = self.store()
        try:
            found = await self._opened.feed(after, limit=FEED_LIMIT, timeout=timeout)
        except StoreError as error:
            self._error = error
            self._publish(FeedNews([], after, after, error=error))
            return False
        resumed, self._error = self._error is not None, None
        self._position = found.position
        events = list(filter(self._seen.is_new, found.events))
        caught_up = len(found.events) < FEED_LIMIT
        self._publish(FeedNews(events, after, found.position, found.lost, resumed, caught_up, began_at))
        return True

    def _publish(self, news: FeedNews) -> None:
        for receive in list(self._subscribers):
            try:
                receive(news)
            except Exception:
                # A defect of one subscriber must not stop the others.
                log.exception("unexpected error in a subscriber of the event feed; continuing")

    async def _follow(self, started: asyncio.Future[None]) -> None:
        try:
            self._position = (await self.store().feed(None)).position
        except Exception as error:  # noqa: BLE001 - all subscribers are waiting, and raise it
            self._subscribers.clear()
            self._forget()
            started.set_exception(error)
            started.exception()
            return
        started.set_result(None)
        outage = Outage(log, "its events follow when it is back", "event feed")
        while True:
            try:
                before = self._error
                if await self.read(FEED_TIMEOUT):
                    if before is not None:
                        outage.answered()
                    continue
                if self._error is not None:
                    outage.failed(self._error)
            except Exception:
                # A defect must not end the reading for all subscribers.
                log.exception("unexpected error while reading the event feed; continuing")
            await asyncio.sleep(RETRY_DELAY)

    def _forget(self) -> None:
        self._task, self._started, self._position, self._error = None, None, None, None
        self._seen = SeenEvents()


class FeedQueue:
    """A subscriber's news until it takes them. Beyond `MAX_QUEUED_EVENTS` events they are dropped and declared lost."""

    def __init__(self) -> None:
        self._news: FeedNews | None = None
        self._arrived = asyncio.Event()

    def __call__(self, news: FeedNews) -> None:
        """Add news to those that wait."""
        old = self._news
        if old is not None:
            events = [*old.events, *news.events]
            too_many = len(events) > MAX_QUEUED_EVENTS
            news = news._replace(
                events=[] if too_many else events,
                after=old.after,
                lost=old.lost or news.lost or too_many,
                resumed=old.resumed or news.resumed,
                began_at=news.began_at or old.began_at,
            )
        self._news = news
        self._arrived.set()

    async def take(self, timeout: float | None = None) -> FeedNews:
        """Wait for news and return them. After `timeout` seconds return empty ones, without a position."""
        try:
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        except TimeoutError:
            pass
        self._arrived.clear()
        news, self._news = self._news, None
        return FeedNews([]) if news is None else news
