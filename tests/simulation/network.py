"""The store as a server of the simulated world, and the clients that reach it over a network that delays and loses messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from milepost.core.defaults import RENEWALS_PER_LEASE, RETRY_PAUSE
from milepost.core.errors import OutcomeUnknownError, StoreUnavailableError
from milepost.settings import Settings
from milepost.stores.memory.store import MemoryStore
from milepost.stores.sync_bridge import run_sync
from tests.simulation.world import Process, World

READS = frozenset(
    [
        "get",
        "select",
        "oldest",
        "count",
        "counts",
        "events",
        "feed",
        "limits",
        "held_slots",
        "claimable_jobs",
        "draining_leases",
        "rollups",
        "kv_get",
        "kv_scan",
        "member_counts",
        "check_health",
        "now",
        "wait_for_work",
    ]
)
DELAYS = (0.0005, 0.005, 0.05, 0.3, 1.2, 3.0)
"""Seconds that a message may take. The longest arrive after their sender has given up, as TCP does it after a path loss."""
REPORT_INTERVAL = 0.5
"""Seconds between two beats of a process."""
RETRY_WITHIN = RETRY_PAUSE + 0.1
"""Seconds between two tries of a request during an outage, at most, with the time that these take."""

Observer = Callable[[str, Any, Any, Any, Any], None]


class Server:
    """The real memory store behind a network. It may be unavailable; its clock may jump; it may forget.

    `on_write` is called with each write: the id, the change, the records before and after it, and the result.
    `on_sweep` with the result of each sweep that was not skipped. `on_request` with each request that is executed: the method,
    its arguments and the answer. `on_call` with each request before it is sent, `on_reply` with each reply that comes in
    time, `on_no_reply` with the thread whose request is given up, `on_purge` with the records that were removed.
    """

    def __init__(self, world: World, *, sweep_limit: int = 200) -> None:
        self.world = world
        self.clock_offset = 0
        self.down_until = 0
        self.clock_steps: list[int] = []
        """When its clock stepped."""
        self.outages: list[tuple[int, int]] = []
        """When each outage began and ended."""
        self.connections = 0
        """Changes when all connections are cut."""
        self.requester = ""
        """The thread whose request is executed."""
        self.requesting: Any = None
        """Its process."""
        self.on_write: Observer = lambda *args: None
        self.on_sweep: Callable[[Any], None] = lambda result: None
        self.on_request: Callable[[str, Any, Any, Any], None] = lambda *args: None
        self.on_call: Callable[[Process, str, Any], None] = lambda *args: None
        self.on_reply: Callable[[Process, str, Any, Any], None] = lambda *args: None
        self.on_no_reply: Callable[[Any], None] = lambda thread: None
        self.on_purge: Callable[[dict[str, Any]], None] = lambda removed: None
        self._sweep_limit = sweep_limit
        self._waiters: list[tuple[Callable[[], Any], int, Callable[[Any], None]]] = []
        self.start_empty()

    def clock_stepped_within(self, micros: float) -> bool:
        """Return whether its clock stepped less than these microseconds ago."""
        return bool(self.clock_steps) and self.world.now - self.clock_steps[-1] < micros

    def clock_stepped_unseen(self, settings: Settings) -> bool:
        """Return whether its clock stepped at most a lease ago, and soon after another step or an outage, or before one.

        An outage since then is no time: no run renews its lease in it. One that begins before the next renewals, and lasts
        until a lease after the step, looks like rare sweeps.
        """
        lease = settings.lease * 1e6
        renewed = lease / RENEWALS_PER_LEASE + settings.heartbeat * 1e6  # more would hide the bug "outage within hold"
        renewed_by_all = lease / RENEWALS_PER_LEASE + REPORT_INTERVAL * 1e6

        def passed(at: int) -> int:
            return self.world.now - at - sum(end - max(begin, at) for begin, end in self.outages if end > at)

        recent = [at for at in self.clock_steps if passed(at) < lease]
        for at, (begin, end) in product(recent, self.outages):
            if 0 <= at - end < lease or (0 <= begin - at < renewed and end - at >= lease):
                return True
        return any(passed(at) - passed(then) < renewed_by_all for at, then in pairwise(recent))

    def was_missed(self, since: int) -> bool:
        """Return whether, since the first outage after a time, it was available only for less than until a next try."""
        ends = [since, *(end for _, end in self.outages if end > since)]
        begins = [*(max(begin, since) for begin, end in self.outages if end > since), self.world.now]
        times = [begin - end for end, begin in zip(ends, begins, strict=True)]
        return any(times[1:-1]) and max(times[1:]) <= RETRY_WITHIN * 1e6

    def start_empty(self) -> None:
        """Start with no records, as a server without persistence does."""
        self.store = MemoryStore(blocking=True, clock=lambda: self.world.wall_clock + self.clock_offset)
        self.memory = self.store._memory
        write = self.store._write

        async def once(look: Callable[[], Any], timeout: float, *, feed: bool, blocking: bool) -> Any:
            return look if timeout else (await look())[0]  # the virtual network waits

        self.memory.waiters.wait = once  # type: ignore[method-assign]

        def observed(job_id: str, change: Any, answer: bool, *, whole: bool = False) -> Any:
            before = self.memory.records.get(job_id)
            result = write(job_id, change, answer, whole=whole)
            self.on_write(job_id, change, before, self.memory.records.get(job_id), result)
            return result

        self.store._write = observed  # type: ignore[method-assign]

    @property
    def is_up(self) -> bool:
        return self.world.now >= self.down_until

    def execute(self, method: str, args: Any, kwargs: Any) -> Any:
        """Return the reply to a request."""
        if method == "sweep":
            kwargs = {**kwargs, "limit": min(self._sweep_limit, kwargs.get("limit", 200))}
        before = dict(self.memory.records) if method == "purge" else {}
        answer = run_sync(getattr(self.store, method)(*args, **kwargs))
        if before and (removed := {job_id: before[job_id] for job_id in before.keys() - self.memory.records.keys()}):
            self.on_purge(removed)
        self.on_request(method, args, kwargs, answer)
        if method == "sweep" and not answer.skipped:
            self.on_sweep(answer)
        if method not in READS:
            self._wake_waiters()
        return answer

    def wait(self, method: str, args: Any, kwargs: Any, timeout: float, reply: Callable[[Any], None]) -> None:
        """Reply to a request that waits when there is something to say, or when time is over."""
        look = run_sync(getattr(self.store, method)(*args, **kwargs))
        self._waiters.append((look, self.world.now + int(timeout * 1e6), reply))
        self.world.post(timeout * 1e6, self._wake_waiters)
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        waiting = []
        for waiter in self._waiters:
            look, until, reply = waiter
            answer, pause = run_sync(look())
            if pause is None or self.world.now >= until:
                reply(answer)
            else:
                waiting.append(waiter)
        self._waiters = waiting

    # --- faults ---

    def stop(self, seconds: float) -> None:
        """Be unavailable for a while, and cut all connections."""
        self.world.note(f"server is down for {seconds:g} s")
        now = self.world.now
        self.down_until = now + int(seconds * 1e6)
        # One that begins within another one continues it.
        began = next((begin for begin, end in self.outages if end >= now), now)
        self.outages = [*((begin, end) for begin, end in self.outages if end < now), (began, self.down_until)]
        self.connections += 1
        self._waiters = []

    def step_clock(self, seconds: float) -> None:
        """Set the clock ahead or back."""
        self.world.note(f"server's clock steps by {seconds:+g} s")
        self.clock_offset += int(seconds * 1e6)
        self.clock_steps.append(self.world.now)

    def fail_over(self, seconds: float) -> None:
        """Be replaced by a replica with the same records, which does not know what the clock was."""
        self.stop(seconds)
        self.memory.now = 0


class Conditions:
    """What the network does: it is asked at each message. This one is perfect."""

    is_active = False

    def stop(self) -> None:
        """Be perfect from now on."""

    def delay(self, direction: str, thread: str) -> float:
        """Return the seconds that a message takes."""
        return DELAYS[0]

    def loss(self, process: Process, thread: str) -> str:
        """Return what is lost: "" or "request" or "reply"."""
        return ""

    def request_point(self, process: Process) -> None:
        """Called in a process before and after each of its requests: it may crash or pause there."""


class NetworkStore:
    """A store over the network. As the Redis store, it repeats a request unchanged until it has a reply or no time left."""

    url = "sim://server"
    shared = True

    def __init__(
        self,
        server: Server,
        conditions: Conditions,
        *,
        blocking: bool,
        report_interval: float = REPORT_INTERVAL,
        reply_timeout: float = 1.0,
        unsent_budget: float = 1.0,
        sent_budget: float = 6.0,
    ) -> None:
        self.blocking, self.report_interval = blocking, report_interval
        self._server = server
        self._conditions = conditions
        self._world = server.world
        self._times = {"reply_timeout": reply_timeout, "unsent_budget": unsent_budget, "sent_budget": sent_budget}

    def with_blocking(self, *, blocking: bool) -> NetworkStore:
        return NetworkStore(
            self._server, self._conditions, blocking=blocking, report_interval=self.report_interval, **self._times
        )

    async def close(self) -> None:
        pass

    if TYPE_CHECKING:

        def __getattr__(self, method: str) -> Any: ...

    async def _request(self, method: str, args: Any, kwargs: Any) -> Any:
        world, process = self._world, self._world.process()
        began, pause, is_sent = world.now, 0.02, False
        self._server.on_call(process, method, kwargs)
        while True:
            self._conditions.request_point(process)
            if self._server.is_up and not process.is_cut:
                is_sent = True
                has_reply, reply = await self._exchange(process, method, args, kwargs)
                if has_reply:
                    if isinstance(reply, Exception):
                        raise reply
                    self._server.on_reply(process, method, kwargs, reply)
                    self._conditions.request_point(process)
                    return reply
            is_unknown = is_sent and method not in READS
            wait = pause * (0.5 + world.entropy.random() / 2)
            pause = min(RETRY_PAUSE, pause * 2)
            budget = self._times["sent_budget" if is_unknown else "unsent_budget"]
            if (world.now - began) / 1e6 + wait > budget:
                self._server.on_no_reply(world.current)
                error = OutcomeUnknownError if is_unknown else StoreUnavailableError
                raise error(f"{method}: no reply from the server")
            if self.blocking:
                world.sleep(wait)
            else:
                await asyncio.sleep(wait)

    async def _exchange(self, process: Process, method: str, args: Any, kwargs: Any) -> tuple[bool, Any]:
        """Send a request once; return whether the reply came in time, and the reply."""
        world, server = self._world, self._server
        thread = world.current
        assert thread is not None, "sent by a thread"
        connection = server.connections
        there = self._conditions.delay("there", thread.name)
        back = self._conditions.delay("back", thread.name)
        lost = self._conditions.loss(process, thread.name)
        loop = None if self.blocking else asyncio.get_running_loop()
        future = loop.create_future() if loop is not None else None
        received: list[Any] = []
        waits = args[2] if method == "wait_for_work" else kwargs.get("timeout", 0.0)

        def settle() -> None:
            if future is not None and not future.done():
                future.set_result(None)

        def receive(answer: Any) -> None:
            received.append(answer)
            if loop is None:
                world.wake(thread)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(settle)

        def reply(answer: Any) -> None:
            if lost != "reply" and not process.is_cut and server.connections == connection:
                world.post(back * 1e6, lambda: receive(answer), process)

        def arrive() -> None:
            if lost == "request" or process.is_cut or not server.is_up or server.connections != connection:
                return
            if method != "wait_for_work":
                world.note(f"{thread.name} -> {method}" + (" (reply lost)" if lost else ""))
            server.requester, server.requesting = thread.name, process
            if waits:
                server.wait(method, args, kwargs, waits, reply)
                return
            try:
                answer = server.execute(method, args, kwargs)
            except Exception as error:
                answer = error
            reply(answer)

        world.post(there * 1e6, arrive)  # it arrives whether or not its sender lives by then
        limit = self._times["reply_timeout"] + waits
        if loop is None:
            end = world.now + int(limit * 1e6)
            while not received and world.now < end:
                world.wait((end - world.now) / 1e6)
        else:
            timer = loop.call_later(limit, settle)
            try:
                await future  # type: ignore[misc]
            finally:
                timer.cancel()
        return bool(received), received[0] if received else None


def _request_of(method: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    def request(self: NetworkStore, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return self._request(method, args, kwargs)

    return request


for _name in dir(MemoryStore):
    if not _name.startswith("_") and not hasattr(NetworkStore, _name):
        setattr(NetworkStore, _name, _request_of(_name))
