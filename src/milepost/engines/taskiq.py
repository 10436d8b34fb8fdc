"""Taskiq: `TaskiqEngine(broker)` runs submitted jobs in the event loop of its workers, sync handlers in threads. Owns the
task that takes the messages, and the loop through which they are sent.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from typing import Any

from milepost.core.encoding import seconds
from milepost.core.errors import JobTimedOut, MissingExtra, Stop
from milepost.core.job import Job
from milepost.stores.protocol import Store
from milepost.worker.application import Application
from milepost.worker.delivery import NotDelivered, adeliver
from milepost.worker.engine import LOST_AFTER, EngineUnavailable, Handing

try:
    from taskiq import AsyncBroker, TaskiqEvents
    from taskiq.exceptions import TaskiqError
except ImportError as missing:
    raise MissingExtra("taskiq", "milepost.engines.taskiq") from missing

log = logging.getLogger("milepost.engine")

SEND_SECONDS = 10.0


class TaskiqEngine:
    """Runs jobs on the workers of a Taskiq broker: ``jobs = Jobs(url, engine=TaskiqEngine(broker))``.

    Messages are sent in the event loop in which the broker was started; where it was started in none, in one of a thread
    of its own. `lost_after`: when a message without a start counts as lost (default one hour). Needs the extra `taskiq`.
    """

    def __init__(
        self, broker: AsyncBroker, *, name: str = "taskiq", lost_after: float | timedelta | str = LOST_AFTER
    ) -> None:
        self.name = name
        self.lost_after = seconds(lost_after, "lost_after")
        self.broker = broker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: threading.Thread | None = None
        self._started = False
        """Whether the broker was started in the loop of a thread of ours."""
        self._lock = threading.Lock()
        self._starting = threading.Lock()

    def serve(self, app: Application, handing: Handing) -> None:
        """Make the task, and hear of the broker's life."""
        store: list[Store] = []

        async def run(job_id: str, job_type: str) -> None:
            handing.rest()
            if not store:
                store.append(app.store.twin(blocking=False))
            try:
                await adeliver(app, self, job_id, job_type, store=store[0])
            except JobTimedOut as error:
                raise TimeoutError(str(error)) from None
            except (NotDelivered, Stop):
                return

        async def on_start(_: Any) -> None:
            self._loop = asyncio.get_running_loop()

        async def on_worker(_: Any) -> None:
            handing.at_work(1)

        async def on_end(_: Any) -> None:
            await asyncio.to_thread(handing.end)

        self._task = self.broker.register_task(run, task_name="milepost.run")
        for event in (TaskiqEvents.CLIENT_STARTUP, TaskiqEvents.WORKER_STARTUP):
            self.broker.add_event_handler(event, on_start)
        self.broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, on_worker)
        self.broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, on_end)

    def hand_over(self, job: Job) -> None:
        """Send the message. Raises EngineUnavailable; so does a call in the very loop that is to send it."""
        loop = self._running_loop()
        if asyncio._get_running_loop() is loop:
            raise EngineUnavailable("a blocking submit in the broker's event loop; use AsyncJobs there")
        sending = asyncio.run_coroutine_threadsafe(self._send(job), loop)
        try:
            sending.result(SEND_SECONDS)
        except (TaskiqError, OSError, TimeoutError) as error:
            sending.cancel()
            raise EngineUnavailable(str(error.__cause__ or error) or type(error).__name__) from error

    async def _send(self, job: Job) -> None:
        await self._task.kiq(job.job_id, job.job_type)

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """Taskiq has no means: async code is cancelled at its next await, code in a thread stops when it looks."""
        return None

    def is_exit(self, error: BaseException) -> bool:
        """A worker that ends cancels its tasks, which the delivery hears by itself."""
        return False

    def close(self) -> None:
        """Shut the broker down where it was started here, and end the loop of that."""
        with self._lock:
            thread, self._own = self._own, None
            if thread is None or self._loop is None:
                return
            loop, self._loop, self._started = self._loop, None, False
        ending = asyncio.run_coroutine_threadsafe(self.broker.shutdown(), loop)
        try:
            ending.result(SEND_SECONDS)
        except Exception as error:  # noqa: BLE001 - a broker raises what its client does, and the loop is to end
            log.warning("the broker of %s did not shut down: %s", self.name, error)
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
                except Exception as error:  # a broker raises what its client does
                    starting.cancel()
                    raise EngineUnavailable(str(error) or type(error).__name__) from error
                self._started = True
        return loop
