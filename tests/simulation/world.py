"""The simulated world: virtual time, processes and threads, and one stream of recorded choices. It knows nothing of jobs.

A virtual thread is a greenlet that runs real, unmodified code until it waits; then the world takes the next event. All run in
one real thread, so nothing happens between two waits that was not chosen.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from asyncio import events as asyncio_events
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from typing import Any

from greenlet import getcurrent, greenlet

START = 1_750_000_000_000_000
"""The wall clock at the start of each world, in microseconds since 1970."""
FIRST_PID = 5_000_000
"""Greater than every pid of Linux, so that no virtual process is mistaken for one of this machine."""


class WorldOver(BaseException):
    """Raised in code that still waits when its world ends, so that it unwinds."""


class Choices:
    """Every choice has a name, and 0 is its harmless value: a run is described by its deviations from 0.

    With `replay`, the deviations of an earlier run, nothing is left to chance.
    """

    def __init__(self, seed: int, replay: Mapping[str, int] | None = None) -> None:
        self.taken: dict[str, int] = {}
        self._random = random.Random(seed)
        self._replay = replay
        self._counts: dict[str, int] = defaultdict(int)

    def choose(self, label: str, options: int, chance: float | None = None) -> int:
        """Return a number below `options`: one other than 0 with this chance, or (None) each as likely as the others."""
        number = self._counts[label] = self._counts[label] + 1
        if self._replay is not None:
            value = min(self._replay.get(f"{label}#{number}", 0), options - 1)
        elif chance is None:
            value = self._random.randrange(options)
        elif self._random.random() < chance:
            value = self._random.randrange(1, options)
        else:
            return 0
        if value:
            self.taken[f"{label}#{number}"] = value
        return value


class Process:
    """A virtual process: it can be crashed, paused, and cut off from the network."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.pid = FIRST_PID + len(world.processes)
        self.is_alive = True
        self.is_cut = False
        self.paused_until = 0
        self.disturbed_at = 0
        """When it was last paused or cut off: the end of that time."""
        self.fault_at = 0
        """When the last fault happened to it or to a message of it."""
        self.threads: list[VirtualThread] = []
        self.memory: dict[str, Any] = {}
        """What the simulation keeps with the process."""
        world.processes.append(self)

    def start(self, function: Callable[[], object], name: str = "main") -> VirtualThread:
        """Start a thread."""
        thread = VirtualThread(self, function, f"{self.name}/{name}")
        self.threads.append(thread)
        self.world.post(0, partial(thread.resume, 0, True), self)
        return thread

    @property
    def owner(self) -> Process:
        """Return the process for which it works: itself, unless it is a child."""
        return self

    @property
    def stands_still_until(self) -> int:
        """Return the end of its last pause."""
        return self.paused_until

    @property
    def is_paused(self) -> bool:
        """Return whether its threads stand still, as after SIGSTOP."""
        return self.stands_still_until > self.world.now


class VirtualThread:
    """A thread of a virtual process."""

    def __init__(self, process: Process, function: Callable[[], object], name: str) -> None:
        self.process, self.name = process, name
        self.ident = process.world.next_ident()
        self.is_done = False
        self.joiners: list[VirtualThread] = []
        self.waits = 0
        self.waiting: int | None = 0
        """The number of the wait that is in progress."""
        self.woken = False
        self.interruption: Callable[[], None] | None = None
        """What it calls next instead of waiting, as a signal handler."""
        self._function = function
        self.greenlet = greenlet(self._run, process.world.hub)

    def _run(self) -> None:
        try:
            self._function()
        except WorldOver:
            pass
        except Exception as error:
            self.process.world.report(error)
        finally:
            self.is_done = True
            asyncio_events._set_running_loop(None)
            for thread in self.joiners:
                self.process.world.wake(thread)

    def resume(self, wait: int, woken: bool, /) -> None:
        """Continue the thread, unless this wait of it is over; `woken` is what the wait returns."""
        if self.is_done or self.waiting != wait or not self.process.is_alive:
            return
        world = self.process.world
        self.waiting, self.woken = None, woken
        world.current = self
        self.greenlet.switch()
        world.current = None


class World:
    """One run of a simulation. `now` is the true time in microseconds since its start."""

    def __init__(self, choices: Choices, *, keeps_trace: bool = False) -> None:
        self.choices = choices
        self.choose = choices.choose
        self.entropy = random.Random(1)
        """What stands for random ids and jitter: the same in all runs."""
        self.now = 0
        self.steps = 0
        self.is_over = False
        self.is_halted = False
        """Whether something was found, so that nothing more needs to happen."""
        self.processes: list[Process] = []
        self.current: VirtualThread | None = None
        self.hub = getcurrent()
        self.on_warning: Callable[[str, str], None] = lambda logger, text: None
        """Called with each warning of a virtual thread: the name of its logger, and the text."""
        self.errors: list[Exception] = []
        """What threads have raised: a defect of milepost, or of the simulation."""
        self.keeps_trace = keeps_trace
        self.loops: list[VirtualLoop] = []
        self._events: list[tuple[int, int, Callable[[], None], Process | None]] = []
        self._sequence = 0
        self._idents = 0
        self._lines: list[str] = []

    @property
    def digest(self) -> str:
        """Return a digest of all that was noted: two equal runs have the same."""
        return hashlib.blake2b("".join(self._lines).encode(), digest_size=8).hexdigest()

    @property
    def trace(self) -> list[str] | None:
        """Return all that was noted, or None if the trace is not kept."""
        return self._lines if self.keeps_trace else None

    @property
    def wall_clock(self) -> int:
        """Return microseconds since 1970."""
        return START + self.now

    def next_ident(self) -> int:
        """Return a number for a new thread."""
        self._idents += 1
        return self._idents

    def process(self) -> Process:
        """Return the process whose code runs now."""
        assert self.current is not None, "called by code of the world"
        return self.current.process

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self._lines.append(f"{self.now / 1e6:10.4f} {text}")

    def report(self, error: Exception) -> None:
        """Halt because a thread has raised."""
        self.errors.append(error)
        self.is_halted = True

    # --- events ---

    def post(self, micros: float, event: Callable[[], None], process: Process | None = None) -> None:
        """Let an event happen later; never, if its process is dead by then, and later still, if it is paused."""
        self._sequence += 1
        heappush(self._events, (self.now + int(micros), self._sequence, event, process))

    def run(self, until: int) -> None:
        """Let everything happen until a time, or until the world is halted."""
        events = self._events
        while events and events[0][0] <= until and not self.is_halted:
            now, sequence, event, process = heappop(events)
            self.now = now
            if process is not None:
                if not process.is_alive:
                    continue
                if process.paused_until > now:
                    heappush(events, (process.paused_until, sequence, event, process))
                    continue
            self.steps += 1
            event()
        if not self.is_halted:
            self.now = until

    # --- waiting, called in a virtual thread ---

    def wait(self, seconds: float | None = None) -> bool:
        """Let others run until this thread is woken or time is over; return whether it was woken."""
        thread = self.current
        if self.is_over or thread is None:
            raise WorldOver
        number = thread.waiting = thread.waits = thread.waits + 1
        if seconds is not None:
            micros = math.ceil(seconds * 1e6) if seconds > 0 else 0
            self.post(micros, partial(thread.resume, number, False), thread.process)
        self._let_others_run()
        if thread.interruption is not None:
            interruption, thread.interruption = thread.interruption, None
            interruption()
        return thread.woken

    def _let_others_run(self) -> None:
        loop = asyncio_events._get_running_loop()
        if loop is None:  # most threads have none
            self.hub.switch()
        else:
            asyncio_events._set_running_loop(None)
            try:
                self.hub.switch()
            finally:
                asyncio_events._set_running_loop(loop)  # also for code that unwinds, which would make a real one
        if self.is_over:
            raise WorldOver

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        end = self.now + math.ceil(seconds * 1e6)
        while self.now < end:
            self.wait((end - self.now) / 1e6)

    def wake(self, thread: VirtualThread) -> None:
        """Wake a thread that waits."""
        number = thread.waiting
        if number is not None and not self.is_over:
            self.post(0, partial(thread.resume, number, True), thread.process)

    def interrupt(self, thread: VirtualThread, handler: Callable[[], None], *, now: bool = True) -> None:
        """Let a thread that waits call the handler of a signal, or (without `now`) when its wait is over.

        If the handler raises, the wait is over.
        """
        thread.interruption = handler
        if now and thread.waiting is not None:
            self.post(0, partial(thread.resume, thread.waiting, False), thread.process)

    # --- faults ---

    def crash(self, process: Process) -> None:
        """End a process as SIGKILL does; if it is the current one, this does not return."""
        if not process.is_alive:
            return
        process.is_alive = False
        self.note(f"{process.name} crashes")
        if self.current is not None and self.current.process is process:
            self.current.waiting = -1
            self._let_others_run()

    def pause(self, process: Process, seconds: float) -> None:
        """Stop all threads of a process for a while, as SIGSTOP and SIGCONT do."""
        self.note(f"{process.name} is paused for {seconds:g} s")
        process.paused_until = max(process.paused_until, self.now + int(seconds * 1e6))
        process.disturbed_at = max(process.disturbed_at, process.paused_until)
        process.fault_at = process.paused_until

    def close(self) -> None:
        """Unwind everything that still waits."""
        self.is_over = True
        for process in self.processes:
            for thread in process.threads:
                if not thread.is_done and thread.greenlet:
                    self.current = thread
                    with suppress(BaseException):
                        thread.greenlet.throw(WorldOver)
        self.current = None
        for loop in self.loops:
            loop.discard()
        asyncio_events._set_running_loop(None)


class VirtualLoop(asyncio.BaseEventLoop):
    """The event loop of a virtual thread: the loop of asyncio, which waits in virtual time."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._virtual_thread: VirtualThread | None = None
        self._selector = self
        self._clock_resolution = 2e-6  # virtual time has steps of 1 us
        world.loops.append(self)

    def time(self) -> float:
        return self._world.now / 1e6

    def select(self, timeout: float | None) -> list[Any]:
        """Wait, as a selector does."""
        if timeout is None or timeout > 0:
            self._world.wait(timeout)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        thread = self._virtual_thread
        if thread is not None and thread is not self._world.current:
            self._world.wake(thread)

    async def create_connection(self, protocol_factory: Callable[[], Any], *address: Any, sock: Any) -> Any:  # type: ignore[override]
        """Return the transport and the protocol of a virtual socket."""
        protocol = protocol_factory()
        return sock.connect(self, protocol), protocol

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call a function in a virtual thread."""
        future = self.create_future()

        def call() -> None:
            try:
                value, error = func(*args), None
            except Exception as raised:
                value, error = None, raised
            settle = lambda: future.done() or (future.set_exception(error) if error else future.set_result(value))  # noqa: E731
            self.call_soon_threadsafe(settle)

        self._world.process().start(call, "executor")
        return future

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the current virtual thread and return its result."""
        self._virtual_thread = self._world.current
        asyncio_events._set_running_loop(self)
        task = self.create_task(coroutine)
        try:
            while not task.done():
                self._run_once()
        finally:
            asyncio_events._set_running_loop(None)
            self._closed = True
        return task.result()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._world.is_over:
            error = context.get("exception")
            self._world.report(error if isinstance(error, Exception) else RuntimeError(context.get("message")))

    def discard(self) -> None:
        """Forget the tasks of a world that is over."""
        self._closed = True
        asyncio_events._set_running_loop(self)
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False
            with suppress(BaseException):
                task.get_coro().close()
        self._ready.clear()
        self._scheduled.clear()
