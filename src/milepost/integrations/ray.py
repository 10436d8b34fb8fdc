"""Ray: `RayTaskQueue("ray://head:10001", "myapp:jobs")` runs submitted jobs as tasks of a Ray cluster.

Ray ends the tasks of a program that ends. So a message goes to a named actor of the cluster, the sender, which starts the
tasks and lives until it is ended. It is listed under Workers and dispatches leftover jobs. The first message starts it, or

    python -m milepost.integrations.ray myapp:jobs

which also replaces the one of an earlier release.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from milepost.core.errors import MissingExtraError
from milepost.integrations.application_reference import (
    ReferencedTaskQueue,
    checked_reference,
    dispatcher_of,
    run_message,
)
from milepost.worker.dispatcher import LOST_AFTER, Dispatcher, TaskQueueUnavailableError
from milepost.worker.handlers import Application

try:
    import ray
    from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RayError
except ImportError as missing:
    raise MissingExtraError("ray", "milepost.integrations.ray") from missing

NAMESPACE = "milepost"
SEND_SECONDS = 30.0
"""The sender's first message may wait until its process has started and imported the application."""


class RayTaskQueue(ReferencedTaskQueue):
    """Runs jobs on a Ray cluster: ``jobs = Jobs(url, task_queue=RayTaskQueue("ray://head:10001", "myapp:jobs"))``.

    `address` is an argument of `ray.init`; with another address than ``ray://`` a lost cluster ends the process, as Ray
    does with each program that is part of one. If the program has called `ray.init` itself, its connection is used.

    `app` is the application as MODULE:NAME, which the cluster imports. `options` are those of a Ray task, such as
    ``{"num_cpus": 2, "num_gpus": 1}``; `runtime_env` is that of Ray. `lost_after`: when a message without a start counts as
    lost (default one hour). Requires the extra `ray`.
    """

    def __init__(
        self,
        address: str,
        app: str,
        *,
        options: Mapping[str, Any] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        name: str = "ray",
        lost_after: float | timedelta | str = LOST_AFTER,
    ) -> None:
        super().__init__(app, name, lost_after)
        self.address = address
        self._options = dict(options or {})
        self._runtime_env = dict(runtime_env or {})
        self._sender: Any = None
        self._is_connected = False
        """Whether the connection was made here."""
        self._lock = threading.Lock()

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Keep the name of the sender; the cluster imports the application by its name."""
        self._name = f"{app.settings.namespace} {self._reference}"

    def _send(self, job_id: str, job_type: str) -> None:
        with self._lock:
            try:
                try:
                    self._send_once(job_id, job_type)
                except ActorDiedError:  # replaced, or ended by an operator
                    self._sender = None
                    self._send_once(job_id, job_type)
            except (RayError, OSError, RuntimeError, ValueError, TimeoutError) as error:
                self._sender = None
                if not isinstance(error, RayActorError | GetTimeoutError):  # the connection may be lost
                    self._disconnect()
                raise TaskQueueUnavailableError(str(error) or type(error).__name__) from error

    def _send_once(self, job_id: str, job_type: str) -> None:
        if self._sender is None:
            self._connect()
        ray.get(self._sender.send.remote(job_id, job_type), timeout=SEND_SECONDS)

    def _connect(self) -> None:
        if not ray.is_initialized():
            ray.init(self.address, namespace=NAMESPACE, runtime_env=self._runtime_env, log_to_driver=False)
            self._is_connected = True
        sender = ray.remote(num_cpus=0, max_restarts=-1)(_Sender).options(
            name=self._name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            runtime_env=self._runtime_env,
        )
        self._sender = sender.remote(self._reference, self._options)

    def restart_sender(self) -> None:
        """End the sender, if there is one, and start one with the code of today. Raises the errors of Ray."""
        with self._lock:
            self._connect()
            with suppress(ValueError):  # there is none
                ray.kill(ray.get_actor(self._name, namespace=NAMESPACE))
            self._connect()
            ray.get(self._sender.ping.remote(), timeout=SEND_SECONDS)

    def _disconnect(self) -> None:
        self._sender = None
        if self._is_connected:
            self._is_connected = False
            ray.shutdown()

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """Raise an exception in the thread, or kill the process, which runs only this job. The lease then expires."""
        if hard:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().stop(message, hard=hard)

    def close(self) -> None:
        """Close the connection if it was made here; the sender continues."""
        with self._lock:
            self._disconnect()


def run(reference: str, job_id: str, job_type: str) -> None:
    """Run a job in a process of the cluster; messages call this function."""
    dispatcher = dispatcher_of(reference, RayTaskQueue)
    dispatcher.disable_thread()
    run_message(dispatcher, job_id, job_type, threading.get_ident())


class _Sender:
    """The actor that starts the tasks of an application. milepost repeats tasks, so Ray does not."""

    def __init__(self, reference: str, options: dict[str, Any]) -> None:
        self._reference = reference
        self._run = ray.remote(run).options(**{"max_retries": 0, **options})
        cpus = ray.cluster_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
        dispatcher_of(reference, RayTaskQueue).register_worker(int(cpus) or 1)

    def send(self, job_id: str, job_type: str) -> None:
        """Start the task of a job, which waits for a free place."""
        self._run.remote(self._reference, job_id, job_type)

    def ping(self) -> None:
        """Do nothing: the reply says that the sender has started."""


def main() -> None:
    """Start or replace the sender of an application."""
    parser = argparse.ArgumentParser(prog="python -m milepost.integrations.ray", description=main.__doc__)
    parser.add_argument("app", help="the application as MODULE:NAME, whose task queue is a RayTaskQueue")
    reference = parser.parse_args().app
    task_queue = dispatcher_of(checked_reference(reference), RayTaskQueue).task_queue
    assert isinstance(task_queue, RayTaskQueue)
    task_queue.restart_sender()
    task_queue.close()
    sys.stdout.write(f"the sender of {reference} has started\n")


if __name__ == "__main__":
    from milepost.integrations.ray import main as start  # the module that the application imports

    start()
