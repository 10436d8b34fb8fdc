"""Virtual child processes of workers: what the operating system does for both sides, and its faults.

The code of both sides is that of milepost, in the child from its main program on. Virtual are the spawn, the socket pair, the
two files, signals, and the exit status. Nothing of it is shared with other processes but what these pass on.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import milepost.run.context
from milepost.worker import child_main, child_protocol, process_pool
from milepost.worker.event_loop import _of_run
from tests.simulation.child_signals import BLOCKED, ChildSignals
from tests.simulation.child_socket import SocketEnd, VirtualFile
from tests.simulation.seams import Module, Waits
from tests.simulation.world import Process, VirtualLoop, WorldOver

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SPAWN_SECONDS = (0.05, 0.2, 1.2)
"""How long an interpreter takes to start."""
IMPORT_SECONDS = (0.01, 0.3, 1.5)
"""How long a child takes to import the code of its first job."""
NOTICE_SECONDS = (0.0, 0.002, 0.3)
"""When the parent notices an exit: before or after it has read the last messages."""
PAUSE_SECONDS = (0.8, 4.0, 9.0)
SPAWN_FAILS, SLOW, ORPHAN, KEPT_SOCKET, FAULT = 0.05, 0.2, 0.3, 0.1, 0.3
MOMENTS = ("", "before", "midst", "after", "after")
CRASH, CRASH_AT_END, IDLE_CRASH = 0.015, 0.2, 0.15
"""How often a child is killed at a message: at any, at that with its outcome, and before it gets its next job."""
SLOW_AT_END = 0.7
"""How often the last message of a killed child is slow, so that its exit may be noticed first."""
FAULTS = ("kill", "kill", "pause", "terminate")
PEAK_KILOBYTES = 51_200


class VirtualChild(Process):
    """A child process. A fault of its parent is a fault of its own, and without its parent it is cut off."""

    def __init__(self, children: Children, parent: Process, arguments: list[str]) -> None:
        self.parent = parent
        number = parent.memory["children"] = parent.memory.get("children", 0) + 1
        super().__init__(children.world, f"{parent.name}.{parent.pid % 100}.{number}")
        self.arguments = arguments
        self.memory["worker"] = parent.memory["worker"]
        self.signals = ChildSignals(self, children.choose)
        self.status: int | None = None
        """How it ended: its exit code, or the negative number of a signal."""
        self.ready_at = 0
        """When its interpreter has started."""
        self.is_noticed = self.is_reaped = self.dies_with_parent = self.has_imported = False
        self.noticed = Waits(children.world)
        self.socket: SocketEnd = children.descriptors[int(arguments[0])]
        self.socket.owner = self
        self._children = children

    @property
    def owner(self) -> Process:
        return self.parent

    @property
    def is_cut(self) -> bool:
        return self.parent.is_cut or not self.parent.is_alive

    @is_cut.setter
    def is_cut(self, value: bool) -> None:
        pass

    @property
    def disturbed_at(self) -> int:
        return max(self._disturbed_at, self.parent.disturbed_at)

    @disturbed_at.setter
    def disturbed_at(self, value: int) -> None:
        self._disturbed_at = value

    @property
    def fault_at(self) -> int:
        return max(self._fault_at, self.parent.fault_at)

    @fault_at.setter
    def fault_at(self, value: int) -> None:
        self._fault_at = value

    @property
    def stands_still_until(self) -> int:
        return max(self.paused_until, self.parent.paused_until)

    def run_main(self) -> None:
        """Run the main program, and exit."""
        child_main.main()
        self.end(0)

    def send(self, number: int) -> None:
        """Send it a signal."""
        if number == signal.SIGKILL:
            self.end(-number)
        elif self.world.current is not None and self.world.current.process is self:
            self.signals.take(number)
        else:
            self.world.post(0, partial(self.signals.take, number), self)

    def end(self, status: int) -> None:
        """Exit, or be killed by a signal; if this process is the current one, this does not return."""
        if not self.is_alive:
            return
        self.status = status
        self._children.on_exit(self)
        self.world.crash(self)


class ChildLoop(VirtualLoop):
    """The event loop of async code in a child, whose run ends after the threads that it has started."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        call: Future[Any] = _of_run(Future())

        def run() -> None:
            if not call.set_running_or_notify_cancel():
                return
            try:
                call.set_result(func(*args))
            except WorldOver:
                raise
            except BaseException as raised:
                call.set_exception(raised)

        self._world.process().start(run, "executor")
        return asyncio.wrap_future(call, loop=self)


class Children:
    """The child processes of all workers. Their faults are chosen; without faults they start and end as they should."""

    def __init__(self, simulation: Simulation) -> None:
        self.world, self._simulation = simulation.world, simulation
        self.rules = simulation.rules.children
        self.living: list[VirtualChild] = []
        self.descriptors: dict[int, Any] = {}
        self._by_pid: dict[int, VirtualChild] = {}
        self._die_with_parent = self.world.choose("death signal", 2) == 0
        """Whether the system kills a child when its parent ends, as Linux does."""
        self.bounds = {
            "JOBS_PER_CHILD": (process_pool, (100, 3)[self.world.choose("jobs per child", 2)]),
            "IDLE_SECONDS": (process_pool, (process_pool.IDLE_SECONDS, 1.0)[self.world.choose("idle children", 2)]),
        }
        """Bounds of milepost that are made small in some runs."""
        self._turn = 0
        self.world.post(1_500_000, self._tick)

    def choose(self, label: str, options: int, chance: float | None = None) -> int:
        """Choose while there are faults; else 0."""
        return self.world.choose(label, options, chance) if self._simulation.conditions.is_active else 0

    def add(self, file: Any) -> int:
        """Return a descriptor."""
        number = 1_000_000 + len(self.descriptors)
        self.descriptors[number] = file
        return number

    # --- what the parent calls ---

    def socket_pair(self) -> tuple[SocketEnd, SocketEnd]:
        """Return the two ends of a new connection."""
        ends = SocketEnd(self), SocketEnd(self)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        ends[0].owner = self.world.process()
        return ends

    def spawn(self, command: list[str], **options: Any) -> SimpleNamespace:
        """Start a child. Raises OSError."""
        parent = self.world.process()
        refused = self.choose(f"no child:{parent.name}", 3, SPAWN_FAILS)
        if refused == 1:
            self.world.note(f"{parent.name}: no child process can be started")
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        child = VirtualChild(self, parent, command[4:])
        slow = self.choose(f"spawn:{child.name}", len(SPAWN_SECONDS), SLOW)
        self._by_pid[child.pid] = child
        self.living.append(child)
        self.world.note(f"{child.name} is started")
        child.ready_at = self.world.now + int(SPAWN_SECONDS[slow] * 1e6)
        self._delay(child, SPAWN_SECONDS[slow])
        self.world.post(SPAWN_SECONDS[slow] * 1e6, lambda: child.start(child.run_main), child)
        parent.memory["has_no_thread"] = refused == 2
        return SimpleNamespace(pid=child.pid, returncode=None, kill=lambda: child.end(-signal.SIGKILL), wait=bool)

    def block(self, how: int, numbers: Iterable[int]) -> Any:
        """Block signals, or set those that are blocked; return those that were."""
        memory = self.world.process().memory
        before, memory[BLOCKED] = memory.get(BLOCKED, frozenset()), frozenset(numbers)
        return before

    def thread(self, **options: Any) -> Any:
        """Return the thread that waits for a child. Raises RuntimeError."""
        if self.world.process().memory["has_no_thread"]:
            raise RuntimeError("can't start new thread")
        return child_protocol.threading.Thread(**options)

    def _delay(self, child: VirtualChild, seconds: float) -> None:
        """Expect less of a child that something slow happens to, and its worker to begin jobs late."""
        if seconds > 0.5:
            child.fault_at = self.world.now + int(seconds * 1e6)
            child.parent.memory["slow_until"] = max(child.parent.memory.get("slow_until", 0), child.fault_at)

    def wait_id(self, kind: int, pid: int, options: int) -> None:
        """Wait until a child has ended and this is noticed."""
        child = self._by_pid[pid]
        child.noticed.wait_until(lambda: child.is_noticed, None)

    def reap(self, pid: int, options: int) -> tuple[int, int, SimpleNamespace]:
        """Return the status of a child that has ended, as `os.wait4` does."""
        child = self._by_pid[pid]
        assert child.status is not None, "it has ended"
        child.is_reaped = True
        status = -child.status if child.status < 0 else child.status << 8
        return pid, status, SimpleNamespace(ru_maxrss=PEAK_KILOBYTES)

    def kill_group(self, pid: int, number: int) -> None:
        """Send a signal to a child. It has no children of its own."""
        child = self._by_pid[pid]
        if child.is_reaped:
            raise ProcessLookupError(errno.ESRCH, "No such process")
        if child.is_alive:
            self.world.note(f"{self.world.process().name}: {signal.Signals(number).name} to {child.name}")
            if self.world.process() is child.parent:
                self.rules.on_signal(child, number)
            child.send(number)

    # --- what the child calls ---

    def current(self) -> VirtualChild:
        """Return the child whose code runs now."""
        child = self.world.process()
        assert isinstance(child, VirtualChild), "called in a child"
        return child

    def die_with(self, pid: int) -> None:
        """Do what `_die_with` of the main program does."""
        child = self.current()
        child.dies_with_parent = self._die_with_parent
        if not child.parent.is_alive:
            child.end(1)

    def find_handler(self, find: Callable[..., Any], reference: str, setup: str | None) -> Any:
        """Return a handler, after the time that the import of its module takes."""
        child = self.current()
        if not child.has_imported:
            child.has_imported = True
            seconds = IMPORT_SECONDS[self.choose(f"import:{child.name}", len(IMPORT_SECONDS), SLOW)]
            self._delay(child, seconds)
            if seconds > 1.0 and self.choose(f"orphan:{child.name}", 2, ORPHAN):
                self.world.post(seconds / 2 * 1e6, lambda: self._simulation.kill(child.parent))
            self.world.sleep(seconds)
        return find(reference, setup)

    def on_message(self, end: SocketEnd, data: bytes) -> None:
        """Tell the rules of a message. A child may be killed before it is sent, in its midst, or after it."""
        sender = self.world.process()
        if not isinstance(sender, VirtualChild):
            assert isinstance(end.peer.owner, VirtualChild), "a parent sends to a child"
            child = end.peer.owner
            is_given_job = self.rules.on_message_to(child, data)
            if is_given_job and self.choose(f"idle:{child.name}", 2, IDLE_CRASH):
                child.end(-signal.SIGKILL)  # a moment before
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")
            end.transmit(data)
            return
        chance = CRASH_AT_END if self.rules.is_outcome(data) else CRASH
        moment = MOMENTS[self.choose(f"crash:{sender.name}", len(MOMENTS), chance)]
        if moment == "midst":
            end.transmit(data[: len(data) // 2])
        elif moment != "before":
            self.rules.on_message_from(sender, data)
            end.transmit(data, SLOW_AT_END if moment else None)
        if moment:
            sender.end(-signal.SIGKILL)

    # --- ends ---

    def on_exit(self, child: VirtualChild) -> None:
        """Close the socket of a child that ends, and let its parent notice its exit."""
        self.living.remove(child)
        self.world.note(f"{child.name} ends with {child.status}")
        self.rules.on_exit(child)
        if not self.choose(f"kept socket:{child.name}", 2, KEPT_SOCKET):  # else a process that it has started keeps it
            child.socket.close()
        seconds = NOTICE_SECONDS[self.choose(f"exit:{child.name}", len(NOTICE_SECONDS), 0.5)]

        def notice() -> None:
            child.is_noticed = True
            child.noticed.wake_all()

        self.world.post(seconds * 1e6, notice, child.parent)

    def on_parent_death(self, parent: Process) -> None:
        """Close the sockets of a process that ends, and kill its children if the system does so."""
        for child in [child for child in self.living if child.parent is parent]:
            child.socket.peer.close()
            if child.dies_with_parent:
                child.send(signal.SIGKILL)
            else:
                self.rules.on_orphan(child)

    # --- faults ---

    def _tick(self) -> None:
        if not self._simulation.conditions.is_active:
            return
        self._turn += 1
        turn = f"children@{self._turn}"
        self.world.post(1_000_000, self._tick)
        kind = self.choose(f"fault:{turn}", len(FAULTS) + 1, FAULT)
        place, moment = self.choose(f"victim:{turn}", 8), self.choose(f"moment:{turn}", 1000)
        seconds = PAUSE_SECONDS[self.choose(f"seconds:{turn}", len(PAUSE_SECONDS))]
        if kind:
            self.world.post(moment * 1000, partial(self._happen, FAULTS[kind - 1], place, seconds))

    def _happen(self, fault: str, place: int, seconds: float) -> None:
        if not self.living:
            return
        child = self.living[place % len(self.living)]
        child.fault_at = self.world.now
        if fault == "pause":
            self.world.pause(child, seconds)
            self._delay(child, seconds)
        else:
            self.world.note(f"{fault} {child.name}")
            child.send(signal.SIGKILL if fault == "kill" else signal.SIGTERM)

    # --- seams ---

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let workers start virtual children."""
        for_pool = {"waitid": self.wait_id, "wait4": self.reap, "killpg": self.kill_group}
        for_child = {
            "killpg": self.kill_group,
            "kill": self.kill_group,
            "getpgrp": lambda: self.current().pid,
            "pwrite": lambda file, data, at: self.descriptors[file].write_at(data, at),
            "ftruncate": lambda file, size: self.descriptors[file].truncate(size),
        }
        for_signals = {
            "signal": lambda number, handler: self.current().signals.handle(number, handler),
            "getsignal": lambda number: self.current().signals.handler(number),
            "pthread_sigmask": lambda how, numbers: self.current().signals.unblock(how, numbers),
        }
        find = child_main.find_handler
        select = lambda readers, writers, others, timeout: (  # noqa: E731
            [one for one in readers if one.wait_until_readable(timeout)],
            [],
            [],
        )
        patches = [
            (process_pool, "os", Module(process_pool.os, **for_pool)),
            (process_pool, "threading", Module(process_pool.threading, Thread=self.thread)),
            (process_pool, "socket", Module(process_pool.socket, socketpair=self.socket_pair)),
            (process_pool, "subprocess", Module(process_pool.subprocess, Popen=self.spawn)),
            (process_pool, "tempfile", Module(tempfile, TemporaryFile=lambda prefix: VirtualFile(self))),
            (child_main, "os", Module(child_main.os, **for_child)),
            (process_pool, "signal", Module(signal, pthread_sigmask=self.block)),
            (child_main, "signal", Module(signal, **for_signals)),
            (child_main, "socket", Module(child_main.socket, socket=lambda fileno: self.descriptors[fileno])),
            (child_main, "sys", _Arguments(self)),
            (child_main, "faulthandler", Module(child_main.faulthandler, enable=lambda **options: None)),
            (child_main, "_die_with", self.die_with),
            (child_main, "find_handler", partial(self.find_handler, find)),
            (child_main, "run_in_new_loop", lambda work: ChildLoop(self.world).run(work)),
            (child_protocol, "select", Module(child_protocol.select, select=select)),
            (milepost.run.context, "set_process_run", lambda run: None),  # there is one real process
        ]
        with ExitStack() as stack:
            for module, name, value in patches:
                stack.enter_context(mock.patch.object(module, name, value))
            yield


class _Arguments(Module):
    """`sys`, with the arguments of the current child."""

    def __init__(self, children: Children) -> None:
        super().__init__(child_main.sys)
        self._children = children

    @property
    def argv(self) -> list[str]:
        return ["", *self._children.current().arguments]
