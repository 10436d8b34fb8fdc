"""`manage.py milepost_worker`: run the enqueued tasks of a backend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import autoreload

from milepost.core.errors import MilepostError
from milepost.django.backend import Backend
from milepost.django.tasks_api import DEFAULT_TASK_BACKEND_ALIAS, task_backends
from milepost.stores.factory import redact_url
from milepost.worker.worker import Worker, run_loop


class Command(BaseCommand):
    """Runs a worker until SIGTERM or Ctrl-C, with a restart when code changes in DEBUG."""

    help = "Run enqueued tasks until SIGTERM or Ctrl-C; a second signal stops at once. With DEBUG, restart when code changes."

    def add_arguments(self, parser: CommandParser) -> None:
        """See BaseCommand."""
        parser.add_argument(
            "--backend", default=DEFAULT_TASK_BACKEND_ALIAS, help="Alias in TASKS (default: %(default)s)."
        )
        parser.add_argument(
            "-q", "--queue", action="append", dest="queues", metavar="QUEUE",
            help="Serve only this queue (default: those of TASKS and of handlers of jobs.job); may be repeated.",
        )  # fmt: skip
        parser.add_argument("-c", "--concurrency", type=int, help="Maximum number of concurrent tasks (default 10).")
        parser.add_argument("--max-jobs", type=int, metavar="N", help="End after N starts of tasks.")
        parser.add_argument(
            "--exit-when-idle", metavar="TIME", help="End after TIME without a task (for example 30, 5m)."
        )
        parser.add_argument("--noreload", action="store_true", help="Do not restart when code changes.")

    def handle(self, *args: Any, **options: Any) -> None:
        """See BaseCommand."""
        ends_itself = options["max_jobs"] is not None or options["exit_when_idle"] is not None
        if settings.DEBUG and not options["noreload"] and not ends_itself:
            _run_with_reloader(lambda: self._worker(**options))
        else:
            self._worker(**options).run()

    def _worker(
        self, *, backend: str, queues: list[str] | None, concurrency: int | None, max_jobs: int | None,
        exit_when_idle: str | None, **_: Any,
    ) -> Worker:  # fmt: skip
        """Return the worker that the options ask for. Raises CommandError."""
        if backend not in task_backends.settings:
            raise CommandError(f"--backend: TASKS has no {backend!r}; use one of {', '.join(task_backends.settings)}")
        found = task_backends[backend]
        if not isinstance(found, Backend):
            raise CommandError(f"--backend: {backend!r} is {type(found).__name__}, not milepost.django.Backend")
        try:
            types = found.register_all()
            queues = queues or found.served_queues()
            worker = found.jobs.worker(
                queues=queues,
                concurrency=concurrency,
                max_jobs=max_jobs,
                exit_when_idle=exit_when_idle,
            )
        except MilepostError as error:
            raise CommandError(str(error)) from error
        if not types:
            raise CommandError("no tasks: decorate a function in the module tasks of an installed app with @task")
        shown = ", ".join(queues or ["those of the tasks"])
        self.stdout.write(
            f"milepost worker: {len(worker.handlers)} tasks, queues {shown}, from {redact_url(found.jobs.store.url.partition('#')[0])}"
        )
        return worker


def _run_with_reloader(make_worker: Callable[[], Worker]) -> None:
    """Run a worker beside Django's reloader, which has the main thread. A restart or Ctrl-C releases its running tasks."""
    running: list[tuple[Worker, threading.Thread]] = []

    def run() -> None:
        worker = make_worker()
        running.append((worker, threading.current_thread()))
        run_loop(worker)

    try:
        autoreload.run_with_reloader(run)
    finally:  # the reloader raises SystemExit for a restart
        for worker, thread in running:
            worker.stop()
            thread.join(worker.settings.grace + 1)
