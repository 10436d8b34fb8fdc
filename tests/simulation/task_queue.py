"""A virtual task queue: messages come late, twice or never, and again when the process that had them was killed.

Everything else is the code of milepost: the dispatch, the deliveries, and the execution of messages.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from milepost import Job
from milepost.core.errors import InvalidInputError, RunStop
from milepost.worker.dispatcher import Dispatcher, TaskQueueUnavailableError
from milepost.worker.handlers import Application
from milepost.worker.message_delivery import deliver
from milepost.worker.message_execution import NotDelivered
from tests.simulation.world import Process, VirtualThread

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

NAME = "virtual"
LOST_AFTER = 20.0
"""Seconds after which a message counts as lost. Longer than all that delays a job otherwise."""
CONSUMERS = ("consumer-0", "consumer-1")
THREADS = 2
SEND_SECONDS = (0.001, 0.1, 0.7)
"""How long a send takes."""
TRANSIT_SECONDS = (0.002, 0.3, 2.0, 9.0)
"""How long a message is on its way. The longest come when the job has ended or has its next attempt."""
RETURN_SECONDS = (0.5, 4.0, 30.0)
"""When the messages of a killed process come again. Some task queues notice its death late."""
SLOW, LOST, TWICE, REFUSED = 0.15, 0.06, 0.06, 0.03


class Interrupted(BaseException):
    """Raised by the task queue in code that it ends."""


class Message(NamedTuple):
    """A message, which only names its job."""

    job_id: str
    job_type: str


class Broker:
    """The messages of all processes. Its faults are chosen; without faults each message comes once and at once."""

    def __init__(self, simulation: Simulation) -> None:
        self.world, self._simulation = simulation.world, simulation
        self.down_until = 0
        self.sent: dict[str, set[str]] = {}
        """The versions of the records of each job for which a message was sent."""
        self.lost_at: dict[str, int] = {}
        """When a message of a job was last lost."""
        self.working: set[VirtualThread] = set()
        """The threads whose code can be interrupted now."""
        self._transit: list[Message] = []
        self._waiting: list[Message] = []
        self._taken: dict[Process, list[Message]] = {}
        self._takers: list[VirtualThread] = []
        self._interrupted: set[VirtualThread] = set()

    def has(self, job_id: str) -> bool:
        """Return whether a message of a job is on its way, waits, or is being delivered."""
        taken = [message for messages in self._taken.values() for message in messages]
        return any(message.job_id == job_id for message in (*self._transit, *self._waiting, *taken))

    # --- messages ---

    def send(self, message: Message, delay: float = 0.0) -> None:
        """Send a message from the current thread. Raises TaskQueueUnavailableError."""
        choose, name = self._choose, self.world.process().name
        self.world.sleep(SEND_SECONDS[choose(f"send:{name}", len(SEND_SECONDS), SLOW)])
        if self.world.now < self.down_until or choose(f"refused:{name}", 2, REFUSED):
            raise TaskQueueUnavailableError("no broker")
        if choose(f"message lost:{name}", 2, LOST):
            self.lost_at[message.job_id] = self.world.now
            self.world.note(f"{name}: message of {message.job_id[-6:]} is lost")
            return
        for _ in range(1 + choose(f"message twice:{name}", 2, TWICE)):
            seconds = TRANSIT_SECONDS[choose(f"transit:{name}", len(TRANSIT_SECONDS), SLOW)]
            self._post(message, delay + seconds)

    def _choose(self, label: str, options: int, chance: float | None = None) -> int:
        return self.world.choose(label, options, chance) if self._simulation.conditions.is_active else 0

    def _post(self, message: Message, seconds: float) -> None:
        self._transit.append(message)

        def arrive() -> None:
            self._transit.remove(message)
            self._waiting.append(message)
            while self._takers:
                self.world.wake(self._takers.pop())

        self.world.post(seconds * 1e6, arrive)

    def take(self, process: Process) -> Message:
        """Wait for a message, and return it. It comes again if the process dies before `acknowledge`."""
        while not self._waiting:
            if self.world.current is not None:
                self._takers.append(self.world.current)
            self.world.wait()
        message = self._waiting.pop(0)
        self._taken.setdefault(process, []).append(message)
        if self.world.current is not None:
            self.world.note(f"{self.world.current.name} has the message of {message.job_id[-6:]}")
        return message

    def acknowledge(self, process: Process, message: Message) -> None:
        """Forget a message."""
        self._taken[process].remove(message)

    def stop(self, seconds: float) -> None:
        """Accept no message for a while."""
        self.world.note(f"broker is down for {seconds:g} s")
        self.down_until = self.world.now + int(seconds * 1e6)

    def on_crash(self, process: Process) -> None:
        """Deliver the messages of a killed process again, later."""
        for message in self._taken.pop(process, []):
            self._post(message, RETURN_SECONDS[self._choose(f"return:{process.name}", len(RETURN_SECONDS))])

    # --- code ---

    def work(self, seconds: float) -> None:
        """Sleep as code that the task queue can interrupt."""
        thread, end = self.world.current, self.world.now + int(seconds * 1e6)
        assert thread is not None, "called by code"
        self.working.add(thread)
        while self.world.now < end and thread not in self._interrupted:
            self.world.wait((end - self.world.now) / 1e6)
        self.working.discard(thread)
        if thread in self._interrupted:
            self._interrupted.discard(thread)
            raise Interrupted

    def interrupt(self, thread: VirtualThread) -> None:
        """Raise Interrupted in code that works."""
        if thread in self.working:
            self._interrupted.add(thread)
            self.world.wake(thread)


class VirtualTaskQueue:
    """The task queue of one process."""

    name = NAME
    lost_after = LOST_AFTER

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Do nothing: `consume` delivers."""

    def send(self, job: Job) -> None:
        """Send the message, unless the parameters are refused."""
        if job.job_type == "queued_refused":
            raise InvalidInputError("n", "is refused by the task queue")
        self._broker.sent.setdefault(job.job_id, set()).add(job.record["version"])
        self._broker.send(Message(job.job_id, job.job_type))

    def requeue(self, job_id: str, job_type: str, delay: float) -> None:
        """Send the message again."""
        self._broker.send(Message(job_id, job_type), delay)

    def stop(self, message: VirtualThread, *, hard: bool) -> str | None:
        """Interrupt the thread; it may take no notice of the first time."""
        if hard or self._broker.world.choose(f"soft:{message.process.name}", 2):
            self._broker.interrupt(message)
        return "interrupted"

    def is_exit(self, error: BaseException) -> bool:
        """Return whether the task queue has raised the error."""
        return isinstance(error, Interrupted)

    def close(self) -> None:
        """Do nothing."""


def consume(simulation: Simulation, process: Process) -> None:
    """Deliver messages in some threads, until the process is to end."""
    broker = simulation.broker
    assert broker is not None, "a consumer has a broker"
    jobs = simulation.queue_jobs(process)
    app, dispatcher = jobs._async, jobs._async.dispatcher
    assert dispatcher is not None, "with a task queue"
    process.memory["heartbeat"] = app.runtime.heartbeat
    process.memory["dispatcher"] = dispatcher
    dispatcher.register_worker(THREADS)
    for number in range(THREADS):
        process.start(_deliveries(simulation, broker, process, app, dispatcher), f"thread-{number}")


def _deliveries(
    simulation: Simulation, broker: Broker, process: Process, app: Application, dispatcher: Dispatcher
) -> Callable[[], None]:
    def run() -> None:
        while "is_drained" not in process.memory:
            message = broker.take(process)
            began = broker.world.now
            with suppress(ValueError, RunStop, Interrupted, NotDelivered):  # the record has the outcome
                deliver(app, dispatcher.task_queue, *message, broker.world.current)
            broker.acknowledge(process, message)
            simulation.rules.queue.on_delivered(message.job_id, began)

    return run


def drain(broker: Broker, process: Process) -> None:
    """End the code of a process that takes no further message, as at a shutdown of a task queue's worker."""
    for thread in list(broker.working):
        if thread.process is process:
            broker.interrupt(thread)
    process.start(process.memory["dispatcher"].end, "shutdown")
