"""One run of a seed: workers, a server process and callers on one store, their faults, and the rules that watch them."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from unittest import mock

from milepost import Jobs
from milepost.core.defaults import HEARTBEAT
from milepost.core.transitions import plan_create
from milepost.manager.sync import JobManager
from milepost.run import heartbeat_state, sweeper
from milepost.run.runtime import Runtime
from milepost.settings import Settings
from milepost.stores.ids import new_job_id, new_operation_id
from milepost.stores.protocol import Write
from milepost.worker.handlers import Handlers
from milepost.worker.worker import Worker
from tests.simulation import child_jobs, job_types, task_queue
from tests.simulation.callers import call, inspect
from tests.simulation.children import Children
from tests.simulation.faults import RETURN_SECONDS, Faults
from tests.simulation.http import CLIENT, HttpServer, ask
from tests.simulation.known_bugs import put_back
from tests.simulation.network import REPORT_INTERVAL, Conditions, NetworkStore, Server
from tests.simulation.rules import Rules
from tests.simulation.seams import VirtualClock, installed
from tests.simulation.task_queue import CONSUMERS, Broker, VirtualTaskQueue, consume
from tests.simulation.tracker import track
from tests.simulation.world import Choices, Process, VirtualLoop, World

SETTINGS = Settings(lease=6.0, heartbeat=REPORT_INTERVAL, sweep=1.5, grace=2.0, capture="none", job_ttl=3600.0)
"""A fifth of the default times, so that a run takes a fifth of the steps."""
SHORT_LEASE = replace(SETTINGS, lease=1.5, sweep=0.4, heartbeat=0.2, grace=0.5)
SHORT_RETENTION = 15.0
WORK_SECONDS = 32
REST_SECONDS = 240
"""The most time for the jobs to end when the faults are over. A job that kills its worker needs a few leases."""
LOOK_INTERVAL = 250_000
"""Microseconds between two looks whether all jobs have ended."""
INSPECTION_MICROS = 5_000_000
CONCURRENCY = 3
DRAINED_WITHIN = 9.0
TRACKERS = ("tracker-0", "tracker-1")
WITH_TASK_QUEUE = 3
"""Each third seed has a task queue. The others are the same runs as they would be without it."""
WITH_RARE_ORDERS = 10, 7
"""A seed with this remainder has requests, outages and cancels in orders that chance seldom makes."""
WITH_HTTP = 6
"""Each sixth seed also has a client that submits over HTTP."""
WITH_CHILDREN = 10
"""Each tenth seed also has jobs in child processes."""


@dataclass
class Outcome:
    """What a run was like. `deviations` describe it: with them as `replay` it happens again."""

    seed: int
    violation: tuple[str, str] | None
    digest: str
    steps: int
    writes: int
    simulated: float
    deviations: dict[str, int]
    trace: list[str] | None


class Simulation:
    """Two workers, a server process that sweeps, and two callers. `policy` is "pct" or "random", or "" for no faults."""

    def __init__(self, world: World, policy: str = "pct", seed: int = 1) -> None:
        self.world = world
        choose = world.choose
        self.settings = SETTINGS if choose("lease", 3, 0.5) < 2 else SHORT_LEASE
        if choose("retention", 2):
            self.settings = replace(self.settings, job_ttl=SHORT_RETENTION)
        self._max_jobs = (None, None, 8)[choose("max jobs", 3)]
        divisor, remainder = WITH_RARE_ORDERS
        self.has_rare_orders = seed % divisor == remainder
        if self.has_rare_orders:
            self.settings = replace(SHORT_LEASE, job_ttl=self.settings.job_ttl)
        request_size = (heartbeat_state.MAX_CHARACTERS, 400)[choose("request size", 2)]
        self.bounds = {
            "MAX_CHARACTERS": (heartbeat_state, 1 if self.has_rare_orders else request_size),
            "PURGE_BATCH": (sweeper, (sweeper.PURGE_BATCH, 2)[choose("purge batch", 2)]),
        }
        """Bounds of milepost that are made small in some runs: the module and value of each."""
        self.has_dependencies = choose("dependencies", 2) == 1
        """Whether callers use children, suspensions, `after` and a schedule, too."""
        self.broker = Broker(self) if seed % WITH_TASK_QUEUE == 0 else None
        self.server = Server(world, sweep_limit=(200, 4, 20)[choose("sweep limit", 3, 0.3)])
        self.rules = Rules(world, self.server, self.settings, job_types.LIMITS, CONCURRENCY)
        self.rules.reports_in_turn = self.has_rare_orders
        self.rules.watch_types(frozenset((*job_types.JOB_TYPES, *job_types.QUEUED, *job_types.IN_CHILD)))
        self.rules.queue.broker = self.broker
        self.conditions: Conditions = Faults(self, policy) if policy else Conditions()
        self.work_until = WORK_SECONDS * 1_000_000
        self.processes: dict[str, Process] = {}
        """The newest process of each name."""
        self._handlers = Handlers()
        job_types.register(self._handlers, self)
        self.children = Children(self) if seed % WITH_CHILDREN == 0 else None
        if self.children is not None:
            child_jobs.register(self._handlers, self)
            self.bounds |= self.children.bounds
        self._queued_handlers = Handlers()
        has_trackers = self.has_dependencies or self.has_rare_orders
        names = ["worker-0", "worker-1", "server", "caller-0", "caller-1", *(TRACKERS * has_trackers)]
        if self.broker is not None:
            job_types.register_queued(self._queued_handlers, self, self.broker)
            names += CONSUMERS
        self.has_http = seed % WITH_HTTP == 0
        if self.has_http:
            names.append(CLIENT)
        for name in names:
            self.start(name)

    # --- processes ---

    def start(self, name: str) -> None:
        """Start a process; what it does is in its name."""
        process = self.processes[name] = Process(self.world, name)
        process.disturbed_at = self.world.now
        kind = name.partition("-")[0]
        run = {
            "worker": self._work,
            "server": self._serve,
            "caller": lambda one: call(self, one),
            "tracker": lambda one: track(self, one),
            "consumer": lambda one: consume(self, one),
            "client": lambda one: ask(self, one),
        }[kind]
        process.start(lambda: run(process))

    def jobs(self, process: Process) -> Jobs:
        """Return the application of a process."""
        # The interval of the store counts if the settings have the default one.
        interval = REPORT_INTERVAL if self.settings.heartbeat == HEARTBEAT else self.settings.heartbeat / 2
        store = NetworkStore(self.server, self.conditions, blocking=True, report_interval=interval)
        runtime = Runtime(store, self.settings, self.settings.job_ttl, clock=VirtualClock(self.world))
        return Jobs(JobManager.of(runtime), handlers=self._handlers)

    def queue_jobs(self, process: Process) -> Jobs:
        """Return the application of a process whose jobs go to the task queue."""
        assert self.broker is not None, "a run with a task queue"
        manager = self.jobs(process).manager
        return Jobs(manager, handlers=self._queued_handlers, task_queue=VirtualTaskQueue(self.broker))

    def _work(self, process: Process) -> None:
        worker = Worker(self.jobs(process)._async, concurrency=CONCURRENCY, max_jobs=self._max_jobs)
        process.memory["worker"] = worker
        if self._max_jobs is not None:
            process.memory["max_jobs"] = self._max_jobs
        VirtualLoop(self.world).run(worker.serve())
        if "is_drained" not in process.memory:
            self.world.post(0, lambda: self.kill(process))  # another one starts in its place

    def _serve(self, process: Process) -> None:
        """Sweep, as the HTTP server does beside its requests, and answer these if there is a client."""
        if self.has_http:
            HttpServer(self, process).run()
        else:
            self.jobs(process)._async.runtime.heartbeat.retain()

    # --- faults ---

    def kill(self, process: Process) -> None:
        """Kill a process, which starts again after a while."""
        if not process.is_alive:
            return
        self.rules.on_crash(process)
        if self.broker is not None:
            self.broker.on_crash(process)
        if self.children is not None:
            self.children.on_parent_death(process)
        away = RETURN_SECONDS[self.world.choose(f"away:{process.name}", 3) if self.conditions.is_active else 0]
        self.world.post(away * 1e6, lambda: self.start(process.name))
        self.world.crash(process)

    def cut(self, process: Process, seconds: float) -> None:
        """Cut a process off from the server for a while."""
        self.world.note(f"{process.name} is cut off for {seconds:g} s")
        process.is_cut = True

        def mend() -> None:
            process.is_cut, process.fault_at = False, max(process.fault_at, self.world.now)
            process.disturbed_at = max(process.disturbed_at, self.world.now)

        self.world.post(seconds * 1e6, mend)

    def drain(self, process: Process) -> None:
        """Stop a worker as SIGTERM does, and start another one later."""
        worker, is_consumer = process.memory.get("worker"), "dispatcher" in process.memory
        is_stopping = "is_drained" in process.memory if worker is None else worker.is_stopping
        if is_stopping or not (worker or is_consumer) or not process.is_alive:
            return
        self.world.note(f"{process.name} drains")
        process.memory["is_drained"] = True
        if worker is not None:
            worker.stop()
        elif self.broker is not None:
            task_queue.drain(self.broker, process)

        def replace_process() -> None:
            if process.is_alive and self.processes[process.name] is process:
                self.kill(process)

        self.world.post(DRAINED_WITHIN * 1e6, replace_process)

    def add_undispatched(self, number: int) -> None:
        """Add jobs that wait for a task queue which no process has."""
        fields = {"type": "external", "run_by": "external", "task_queue": "celery", "dispatch_after": "1"}
        fields |= {"metadata": "{}", "message": ""}
        writes = [Write(new_job_id(), plan_create(fields, new_operation_id())) for _ in range(number)]
        self.server.requester = "task queue"
        self.server.execute("apply", (writes,), {})

    # --- the run ---

    def run(self) -> None:
        """Run to the end, or to the first violation."""
        world, rules = self.world, self.rules
        world.run(self.work_until)
        self.conditions.stop()
        settings = self.settings
        # What is overdue after this time, no sweep has found.
        settle_micros = int((2 * settings.lease + 4 * settings.sweep_interval + 2) * 1e6)
        # A process that was drained or killed at last has its successor then.
        replaced_at = self.work_until + int((DRAINED_WITHIN + 1) * 1e6)
        rest_until = self.work_until + REST_SECONDS * 1_000_000
        while not world.is_halted and world.now < rest_until:
            if not self.server.is_up or any(rules.rest.unfinished()):  # the last outage may end after the work
                world.run(world.now + LOOK_INTERVAL)
                continue
            world.run(max(world.now + settle_micros, replaced_at))
            # Else a late request has made a job pending, or a caller has ended the work with an outage.
            if not any(rules.rest.unfinished()) and self._is_calm_since(world.now - settle_micros):
                break
        if not world.is_halted:
            rules.rest.at_rest()
            reader = Process(world, "reader")
            thread, until = reader.start(lambda: inspect(self, reader)), world.now + INSPECTION_MICROS
            while not thread.is_done and not world.is_halted and world.now < until:
                world.run(world.now + LOOK_INTERVAL)
        if world.errors:
            raise world.errors[0]

    def _is_calm_since(self, time: int) -> bool:
        """Return whether the servers were available since then, and no living process stood still or was cut off."""
        downs = [server.down_until for server in (self.server, self.broker) if server is not None]
        return max(*downs, *(process.disturbed_at for process in self.world.processes if process.is_alive)) <= time


def run_seed(
    seed: int,
    *,
    policy: str = "pct",
    replay: Mapping[str, int] | None = None,
    bug: str | None = None,
    keeps_trace: bool = False,
) -> Outcome:
    """Run a seed, or the deviations of an earlier run of it; `bug` is one of `known_bugs`, to be put back."""
    gc.disable()  # what it would finalise, and when, differs from run to run
    gc.freeze()  # collect only what the run has made
    try:
        return _run_seed(seed, policy, replay, bug, keeps_trace)
    finally:
        gc.collect()
        gc.unfreeze()
        gc.enable()


def _run_seed(seed: int, policy: str, replay: Mapping[str, int] | None, bug: str | None, keeps_trace: bool) -> Outcome:
    choices = Choices(seed, replay)
    world = World(choices, keeps_trace=keeps_trace)
    with put_back(bug), installed(world):
        simulation = Simulation(world, policy, seed)
        with ExitStack() as stack:
            if simulation.children is not None:
                stack.enter_context(simulation.children.installed())
            for name, (module, value) in simulation.bounds.items():
                stack.enter_context(mock.patch.object(module, name, value))
            try:
                simulation.run()
            finally:
                end = world.now
                world.close()
    rules = simulation.rules
    return Outcome(
        seed, rules.violation, world.digest, world.steps, rules.writes, end / 1e6, choices.taken, world.trace
    )
