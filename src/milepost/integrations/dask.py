"""Dask: `DaskTaskQueue(address, "myapp:jobs")` runs submitted jobs in the threads of a Dask cluster's workers.

A message is a task of the cluster whose result is not read. It names the application, which the worker imports. The
scheduler keeps messages in memory only: those lost by its restart are sent again after `lost_after`.

    dask worker tcp://scheduler:8786 --preload milepost.integrations.dask myapp:jobs

starts a worker that is listed under Workers and dispatches leftover jobs.
"""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import timedelta

from milepost.core.errors import MissingExtraError
from milepost.integrations.application_reference import ReferencedTaskQueue, dispatcher_of, run_message
from milepost.stores.ids import new_nonce
from milepost.worker.dispatcher import LOST_AFTER, Dispatcher, TaskQueueUnavailableError

try:
    import click
    from distributed import Client, Worker, WorkerPlugin, fire_and_forget
except ImportError as missing:
    raise MissingExtraError("dask", "milepost.integrations.dask") from missing

CONNECT_SECONDS = 5.0


class DaskTaskQueue(ReferencedTaskQueue):
    """Runs jobs on a Dask cluster: ``jobs = Jobs(url, task_queue=DaskTaskQueue("tcp://scheduler:8786", "myapp:jobs"))``.

    `app` is the application as MODULE:NAME, which workers import. `resources`: what a job takes of the resources that
    workers declare, e.g. ``{"GPU": 1}``. `lost_after`: when a message without a start counts as lost (default one hour).
    Requires the extra `dask`.
    """

    def __init__(
        self,
        address: str,
        app: str,
        *,
        resources: dict[str, float] | None = None,
        name: str = "dask",
        lost_after: float | timedelta | str = LOST_AFTER,
    ) -> None:
        super().__init__(app, name, lost_after)
        self.address = address
        self._resources = resources
        self._client: Client | None = None
        self._pid = 0
        self._lock = threading.Lock()

    def _send(self, job_id: str, job_type: str) -> None:
        try:
            client = self._connected()
            key = f"milepost-{job_id}-{new_nonce()}"  # a key of a task that ran before would return its result
            task = client.submit(run, self._reference, job_id, job_type, key=key, pure=False, resources=self._resources)
            fire_and_forget(task)  # type: ignore[no-untyped-call]
        except Exception as error:  # Dask raises the errors of its transports
            raise TaskQueueUnavailableError(str(error) or type(error).__name__) from error

    def _connected(self) -> Client:
        """Return the client of this process. Raises OSError while it has no connection: Dask would keep the message."""
        with self._lock:
            if self._pid != os.getpid() or self._client is None or self._client.status == "closed":
                self._client = Client(  # type: ignore[no-untyped-call]
                    self.address, timeout=CONNECT_SECONDS, set_as_default=False
                )
                self._pid = os.getpid()
            if self._client.status != "running":
                raise ConnectionError(f"no connection to {self.address}")
            return self._client

    def close(self) -> None:
        """Close the client of this process."""
        with self._lock:
            client, self._client = self._client, None
            if client is not None and self._pid == os.getpid():
                client.close()  # type: ignore[no-untyped-call]


def run(reference: str, job_id: str, job_type: str) -> None:
    """Run a job in a thread of a worker; messages call this function."""
    run_message(dispatcher_of(reference, DaskTaskQueue), job_id, job_type, threading.get_ident())


class _Registration(WorkerPlugin):
    """Lists a worker while it lives."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def setup(self, worker: Worker) -> None:
        """Register the worker process."""
        self._dispatcher.register_worker(worker.state.nthreads)

    async def teardown(self, worker: Worker) -> None:
        """Unregister the worker process."""
        await asyncio.to_thread(self._dispatcher.end)


@click.command()
@click.argument("app")
async def dask_setup(worker: Worker, app: str) -> None:
    """Register a worker; Dask calls this for ``--preload milepost.integrations.dask MODULE:NAME``."""
    await worker.plugin_add(_Registration(dispatcher_of(app, DaskTaskQueue)), name=f"milepost {app}")
