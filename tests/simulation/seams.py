"""Replaces time, threads, randomness and process ids in the modules of milepost while a world runs.

Most code gets its clock and ids from `milepost.run.runtime`. What remains uses these standard modules by their names.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import milepost.run.heartbeat
import milepost.run.process_identity
import milepost.run.track
import milepost.stores.ids
import milepost.worker.dispatcher
import milepost.worker.event_loop
import milepost.worker.worker
from milepost.forks import Instances
from milepost.run.heartbeat_state import ReportedRun
from milepost.stores.clock import Clock
from milepost.stores.ids import Ids
from tests.simulation.world import Process, VirtualThread, World, WorldOver


class VirtualClock(Clock):
    """The clock of a world, to be given to a `Runtime`."""

    def __init__(self, world: World) -> None:
        self.monotonic = lambda: world.now / 1e6 + 1000.0
        self.time = lambda: world.wall_clock / 1e6
        self.wait = lambda event, timeout=None: event.wait(timeout)


class Module:
    """Another module under the same name: some names replaced, the others as they are.

    A thread that an earlier test left behind gets the real ones: it is no part of the world.
    """

    def __init__(self, real: Any, **replaced: Any) -> None:
        self._real, self._replaced, self._thread = real, replaced, threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if name in self._replaced and threading.get_ident() == self._thread:
            return self._replaced[name]
        return getattr(self._real, name)


class Waits:
    """The waiting threads of something."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiters: deque[VirtualThread] = deque()

    def wait_until(self, is_ready: Callable[[], bool], timeout: float | None) -> bool:
        world = self.world
        end = None if timeout is None else world.now + max(1, math.ceil(timeout * 1e6))  # each wait takes time
        while not is_ready():
            if end is not None and world.now >= end:
                return False
            thread = world.current
            if thread is not None:
                self.waiters.append(thread)
            try:
                world.wait(None if end is None else (end - world.now) / 1e6)
            finally:
                if thread in self.waiters:  # time is over: what wakes one of them has to find one that still waits
                    self.waiters.remove(thread)
        return True

    def wake_one(self) -> None:
        if self.waiters:
            self.world.wake(self.waiters.popleft())

    def wake_all(self) -> None:
        while self.waiters:
            self.wake_one()


class _Event:
    world: World

    def __init__(self) -> None:
        self._is_set, self._waits = False, Waits(self.world)

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._waits.wake_all()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._waits.wait_until(lambda: self._is_set, timeout)


class _Lock:
    world: World

    def __init__(self) -> None:
        self._is_locked, self._waits = False, Waits(self.world)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self.world.is_over:
            raise WorldOver
        if not self._is_locked:
            self._is_locked = True
            return True
        if not blocking:
            return False
        if not self._waits.wait_until(lambda: not self._is_locked, None if timeout < 0 else timeout):
            return False
        self._is_locked = True
        return True

    def release(self) -> None:
        self._is_locked = False
        self._waits.wake_one()

    def locked(self) -> bool:
        return self._is_locked

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


class _Semaphore:
    world: World

    def __init__(self, value: int) -> None:
        self._value, self._waits = value, Waits(self.world)

    def acquire(self) -> None:
        self._waits.wait_until(lambda: self._value > 0, None)
        self._value -= 1

    def release(self) -> None:
        self._value += 1
        self._waits.wake_one()


class _Thread:
    world: World

    def __init__(
        self, target: Any = None, args: Any = (), kwargs: Any = None, name: str = "thread", daemon: bool = False
    ) -> None:
        self.name = name
        self._call = lambda: target(*args, **(kwargs or {}))
        self._thread: VirtualThread | None = None

    def start(self) -> None:
        if self.world.is_over:
            raise WorldOver
        self._thread = self.world.process().start(self._call, self.name)

    def is_alive(self) -> bool:
        return self._thread is not None and not self._thread.is_done

    def join(self, timeout: float | None = None) -> None:
        thread = self._thread
        if thread is not None and not thread.is_done and self.world.current is not None:
            thread.joiners.append(self.world.current)
            self.world.wait(timeout)


class _Timer(_Thread):
    def __init__(self, interval: float, function: Callable[[], object]) -> None:
        super().__init__(lambda: self._waits.wait_until(lambda: self._is_cancelled, interval) or function())
        self._waits, self._is_cancelled = Waits(self.world), False

    def cancel(self) -> None:
        self._is_cancelled = True
        self._waits.wake_all()


class _Queue:
    world: World

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waits = Waits(self.world)

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._waits.wake_one()

    def get(self, timeout: float | None = None) -> Any:
        if not self._waits.wait_until(lambda: bool(self._items), timeout):
            raise queue.Empty
        return self._items.popleft()


def _modules(world: World) -> dict[str, tuple[Any, Any]]:
    """Return what stands for each standard module, by name."""
    clock = VirtualClock(world)
    event, lock, semaphore, thread, timer, simple_queue = (
        type(kind.__name__, (kind,), {"world": world}) for kind in (_Event, _Lock, _Semaphore, _Thread, _Timer, _Queue)
    )

    def ident() -> int:
        return world.current.ident if world.current is not None else 0

    def pid() -> int:
        return world.current.process.pid if world.current is not None else os.getpid()

    times = {"monotonic": clock.monotonic, "perf_counter": clock.monotonic, "time": clock.time, "sleep": world.sleep}
    times["time_ns"] = lambda: world.wall_clock * 1000
    return {
        "time": (time, Module(time, **times)),
        "threading": (
            threading,
            Module(threading, Event=event, Lock=lock, Semaphore=semaphore, Thread=thread, Timer=timer, get_ident=ident),
        ),
        "queue": (queue, Module(queue, SimpleQueue=simple_queue)),
        "random": (random, Module(world.entropy)),
        "os": (os, Module(os, getpid=pid, urandom=world.entropy.randbytes)),
    }


def _source_by_process(world: World) -> property:
    """Return an attribute of generators with which each virtual process is a source of operation ids of its own."""
    sources: dict[Process | None, Any] = {}
    of_world = threading.get_ident()

    def read(ids: Ids) -> Any:
        if threading.get_ident() != of_world:
            return vars(ids)["_source"]
        process = world.current.process if world.current is not None else None
        if process not in sources:
            sources[process] = ids._new_source()
        return sources[process]

    def write(ids: Ids, source: Any) -> None:
        vars(ids)["_source"] = source

    return property(read, write)


def _is_known_dead(world: World, name: str) -> bool:
    pid = name.split(":")[1]
    return any(str(process.pid) == pid and not process.is_alive for process in world.processes)


def _reported(world: World) -> Callable[..., None]:
    """Return `Logger.exception` that halts the world: an error that milepost survives is a defect, too."""

    def exception(self: logging.Logger, message: str, *args: object, **options: Any) -> None:
        error = sys.exc_info()[1]
        if world.current is not None and not world.is_over and isinstance(error, Exception):
            world.report(error)

    return exception


def _warned(world: World) -> Callable[..., None]:
    """Return `Logger.warning` that passes the warnings of virtual threads to the rules."""

    def warning(self: logging.Logger, message: str, *args: object, **options: Any) -> None:
        if world.current is not None and not world.is_over:
            world.on_warning(self.name, message % args if args else message)

    return warning


def _do_nothing(self: object) -> None:
    pass


@contextmanager
def installed(world: World) -> Iterator[None]:
    """Let the code of milepost run in a world."""
    modules = _modules(world)
    patches: list[Any] = []
    for name, module in sorted(sys.modules.items()):
        if name.startswith("milepost."):
            for attribute, (real, virtual) in modules.items():
                if getattr(module, attribute, None) is real:
                    patches.append(mock.patch.object(module, attribute, virtual))
    new_lock = modules["threading"][1].Lock

    def randbytes(count: int) -> bytes:
        return bytes(modules["os"][1].urandom(count))

    def time_ns() -> int:
        return int(modules["time"][1].time_ns())

    patches += [
        mock.patch.object(milepost.run.heartbeat, "ReportedRun", lambda *args: ReportedRun(*args, lock=new_lock())),
        mock.patch.object(logging.Logger, "exception", _reported(world)),
        mock.patch.object(logging.Logger, "warning", _warned(world)),
        mock.patch.object(milepost.worker.event_loop.LoopWatchdog, "start", new=_do_nothing),
        mock.patch.object(Ids, "_source", _source_by_process(world), create=True),
        mock.patch.object(milepost.stores.ids.SYSTEM_IDS, "_random", randbytes),
        mock.patch.object(milepost.stores.ids.SYSTEM_IDS, "_time_ns", time_ns),
        mock.patch.object(milepost.run.track, "is_known_dead", partial(_is_known_dead, world)),
        mock.patch.object(milepost.worker.dispatcher, "_dispatchers", Instances()),  # it is looked at when Python exits
        mock.patch.object(milepost.worker.worker, "_numbers", iter(range(1, 1 << 30))),
    ]
    for patch in patches:
        patch.start()
    milepost.run.process_identity._name.cache_clear()
    milepost.run.process_identity._fallback_id.cache_clear()
    milepost.stores.ids.SYSTEM_IDS.restart()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
        milepost.stores.ids.SYSTEM_IDS.restart()
        milepost.run.process_identity._name.cache_clear()
        milepost.run.process_identity._fallback_id.cache_clear()


__all__ = ["Module", "Process", "VirtualClock", "Waits", "installed"]
