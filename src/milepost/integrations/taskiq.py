"""Taskiq: `TaskiqTaskQueue(broker)` runs submitted jobs in the event loop of Taskiq's workers, sync handlers in threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from typing import Any

from milepost.core.errors import JobTimedOut, MissingExtraError, RunStop
from milepost.core.job import Job
from milepost.core.serialization import seconds
from milepost.forks import reset_after_fork
from milepost.stores.protocol import Store
from milepost.worker.dispatcher import LOST_AFTER, Dispatcher, TaskQueueUnavailableError
from milepost.worker.handlers import Application
from milepost.worker.message_delivery import adeliver
from milepost.worker.message_execution import NotDelivered

try:
    from taskiq import AsyncBroker, TaskiqEvents
    from taskiq.exceptions import TaskiqError
except ImportError as missing:
    raise MissingExtraError("taskiq", "milepost.integrations.taskiq") from missing

log = logging.getLogger("milepost.task_queue")

SEND_SECONDS = 10.0


class TaskiqTaskQueue:
    """Runs jobs on the workers of a Taskiq broker: ``jobs = Jobs(url, task_queue=TaskiqTaskQueue(broker))``.

    Messages are sent in the event loop in which the broker was started, or else in the loop of a separate thread.
    `lost_after`: when a message without a start counts as lost (default one hour). Requires the extra `taskiq`.
    """

    def __init__(
        self, broker: AsyncBroker, *, name: str = "taskiq", lost_after: float | timedelta | str = LOST_AFTER
    ) -> None:
        self.name = name
        self.lost_after = seconds(lost_after, "lost_after")
        self.broker = broker
        self._forget_loop()
        reset_after_fork(self)

    def _forget_loop(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: threading.Thread | None = None
        self._started = False
        """Whether the broker was started in the loop of `_own`."""
        self._lock = threading.Lock()
        self._starting = threading.Lock()

    def after_fork(self) -> None:
        """Leave the event loop to the parent, which alone runs it. It is kept: to end it would disturb the parent."""
        self._of_parent = self._loop
        self._forget_loop()

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Register the task and the handlers of broker events."""
        store: list[Store] = []

        async def run(job_id: str, job_type: str) -> None:
            dispatcher.disable_thread()
            if not store:
                store.append(app.store.with_blocking(blocking=False))
            try:
                await adeliver(app, self, job_id, job_type, store=store[0])
            except JobTimedOut as error:
                raise TimeoutError(str(error)) from None
            except (NotDelivered, RunStop):
                return

        async def on_start(_: Any) -> None:
            self._loop = asyncio.get_running_loop()

        async def on_worker(_: Any) -> None:
            dispatcher.register_worker(1)

        async def on_end(_: Any) -> None:
            await asyncio.to_thread(dispatcher.end)

        self._task = self.broker.register_task(run, task_name="milepost.run")
        for event in (TaskiqEvents.CLIENT_STARTUP, TaskiqEvents.WORKER_STARTUP):
            self.broker.add_event_handler(event, on_start)
        self.broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, on_worker)
        self.broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, on_end)

    def send(self, job: Job) -> None:
        """Send the message. Raises TaskQueueUnavailableError, also for a call in the sending event loop."""
        self._enqueue(job.job_id, job.job_type)

    def requeue(self, job_id: str, job_type: str, delay: float) -> None:
        """Send the message again without delay, which Taskiq lacks. Raises TaskQueueUnavailableError."""
        self._enqueue(job_id, job_type)

    def _enqueue(self, job_id: str, job_type: str) -> None:
        loop = self._running_loop()
        if self._is_running(loop):
            raise TaskQueueUnavailableError("cannot submit with Jobs inside the broker's event loop; use AsyncJobs")
        sending = asyncio.run_coroutine_threadsafe(self._send(job_id, job_type), loop)
        try:
            sending.result(SEND_SECONDS)
        except (TaskiqError, OSError, TimeoutError) as error:
            sending.cancel()
            raise TaskQueueUnavailableError(str(error.__cause__ or error) or type(error).__name__) from error

    @staticmethod
    def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the caller runs in this loop."""
        try:
            return asyncio.get_running_loop() is loop
        except RuntimeError:
            return False

    async def _send(self, job_id: str, job_type: str) -> None:
        await self._task.kiq(job_id, job_type)

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """Return None: Taskiq cannot stop code. Async code is cancelled at its next await anyway."""
        return None

    def is_exit(self, error: BaseException) -> bool:
        """Return False: a worker's shutdown cancels its tasks, which the delivery detects."""
        return False

    def close(self) -> None:
        """Shut down the broker if it was started here, and end its event loop."""
        with self._lock:
            thread, self._own = self._own, None
            if thread is None or self._loop is None:
                return
            loop, self._loop, self._started = self._loop, None, False
        ending = asyncio.run_coroutine_threadsafe(self.broker.shutdown(), loop)
        try:
            ending.result(SEND_SECONDS)
        except Exception as error:  # noqa: BLE001 - brokers raise errors of their clients, and the loop must end
            log.warning("%s: failed to shut down the broker: %s", self.name, error)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SEND_SECONDS)
        if not thread.is_alive():
            loop.close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.new_event_loop()
                self._own = threading.Thread(target=self._loop.run_forever, name="milepost-taskiq-loop", daemon=True)
                self._own.start()
                self._started = False
            loop, is_own = self._loop, self._own is not None
        with self._starting:
            if is_own and not self._started:
                starting = asyncio.run_coroutine_threadsafe(self.broker.startup(), loop)
                try:
                    starting.result(SEND_SECONDS)
                except Exception as error:  # brokers raise errors of their clients
                    starting.cancel()
                    raise TaskQueueUnavailableError(str(error) or type(error).__name__) from error
                self._started = True
        return loop
