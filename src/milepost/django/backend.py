"""The backend of Django's Tasks API on milepost."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.utils import timezone

from milepost.app import Jobs
from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.django import checks, tasks_api
from milepost.django.execution import handler_of
from milepost.django.handlers import DjangoHandlers
from milepost.django.results import result_of, update
from milepost.django.task import MilepostTask, find_task, import_tasks, known_tasks, options_of
from milepost.manager.validation import submit_fields
from milepost.run.run import Run
from milepost.settings import settings
from milepost.stores.sync_bridge import run_sync
from milepost.worker.handlers import ConfiguredHandler, Handlers

_lock = threading.Lock()
_handlers: dict[str, Handlers] = {}
_jobs: dict[tuple[str, ...], Jobs] = {}
"""What the backends of all threads share: Django makes a backend for each thread."""


class Backend(tasks_api.BaseTaskBackend):
    """Runs Django's tasks as milepost jobs: ``TASKS = {"default": {"BACKEND": "milepost.django.Backend", "OPTIONS": {...}}}``.

    Options: `url` is the store (default: MILEPOST_URL, else REDIS_URL, else in memory). `database` is an alias of
    DATABASES with PostgreSQL instead: its jobs are in that database, and enqueue belongs to the transaction. `namespace`
    keeps the jobs of this application apart in a shared store (default: MILEPOST_NAMESPACE, else "milepost").

    With a `url`, tasks that are enqueued inside ``atomic()`` are submitted when it commits.
    """

    task_class = MilepostTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self.database: str | None = self.options.get("database")

    # --- the store ---

    @property
    def jobs(self) -> Jobs:
        """Return the jobs of this backend. Raises ImproperlyConfigured for invalid OPTIONS."""
        for problem in checks.option_errors(self):
            raise ImproperlyConfigured(f"{problem.msg} {problem.hint}")
        defaults = settings.current()
        namespace = self.options.get("namespace", defaults.namespace)
        url = self._database_url() if self.database is not None else self.options.get("url", defaults.store_url)
        with _lock:
            key = (self.alias, url, namespace)
            if key not in _jobs:
                handlers = _handlers.setdefault(self.alias, DjangoHandlers())
                _jobs[key] = Jobs(url, options=replace(defaults, namespace=namespace), handlers=handlers)
            return _jobs[key]

    def _database_url(self) -> str:
        """Return the URL of the database of DATABASES, as it is now: a test run replaces its name."""
        from psycopg import pq

        # The other parameters are Django's and psycopg's own.
        names = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        names -= {"application_name", "client_encoding"}  # the store sets them
        params = connections[self.database].get_connection_params()
        given = {name: str(value) for name, value in params.items() if value is not None and name in names}
        return "postgresql://?" + urlencode(given, quote_via=quote)

    def register_all(self) -> list[str]:
        """Import the tasks of the installed apps, make handlers for all known tasks, and return their job types."""
        import_tasks()
        for task in tuple(known_tasks.values()):
            self._handler(task)
        return list(self.jobs.handlers)

    def served_queues(self) -> list[str] | None:
        """Return the queues of TASKS and those of the handlers that `jobs.job` registered; None if TASKS allows all queues."""
        if not self.queues:
            return None
        own = [one for one in self.jobs.handlers.values() if one.job_type not in known_tasks]
        return sorted({*self.queues, *(one.type_options.queue or one.job_type for one in own)})

    def _handler(self, task: Any) -> Any:
        known_tasks.setdefault(task.module_path, task)
        handlers = self.jobs.handlers
        if task.module_path not in handlers:
            handlers.add(handler_of(known_tasks[task.module_path], self))
        return handlers[task.module_path]

    # --- the Tasks API ---

    def validate_task(self, task: Any) -> None:
        """Check that the backend can run a task. Raises InvalidTask."""
        super().validate_task(task)
        if task.func.__module__ == "__main__":
            raise tasks_api.InvalidTask(
                f"{task.name} is in __main__, which workers cannot import; move it to a module."
            )
        try:
            submit_fields(task.module_path, params=None, **options_of(task))
        except InvalidInputError as error:
            raise tasks_api.InvalidTask(str(error)) from error

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Submit a task and return its result; inside ``atomic()`` the task exists if and when the transaction commits.

        With the option `database` the job is written in the transaction itself. Otherwise, and for tasks with `after`,
        it is submitted right after the commit, and the result has `enqueued_at` from then on. Raises TypeError for
        arguments that are not JSON, and InvalidInputError.
        """
        self.validate_task(task)
        jobs = self.jobs
        if not jobs.store.shared and not jobs.handlers:
            self.register_all()  # the worker thread of a store in memory serves the queues of the handlers that there are
        result = tasks_api.TaskResult(
            task=task, id=jobs.runtime.ids.new_job_id(), status=tasks_api.TaskResultStatus.READY, enqueued_at=None,
            started_at=None, last_attempted_at=None, finished_at=None, args=args, kwargs=kwargs, backend=self.alias,
            errors=[], worker_ids=[],
        )  # fmt: skip
        target = self._target(task, result.id)
        connection = connections[self.database or DEFAULT_DB_ALIAS]
        if not connection.in_atomic_block:
            self._submit(result)
        elif self.database is not None and "after" not in target.given:
            self._enqueued(result, jobs.using(connection).submit(target, args=result.args, kwargs=result.kwargs))
        else:
            run_sync(
                jobs._async.submissions.build(target, (result.args, result.kwargs), {})
            )  # refuse it before the commit
            transaction.on_commit(lambda: self._submit(result), using=connection.alias)
        return result

    def child_fields(self, task: Any, run: Run, args: Any, kwargs: Any) -> dict[str, str]:
        """Return the fields of a child of a run for a task. Raises InvalidTask, InvalidInputError, and TypeError as enqueue."""
        self.validate_task(task)
        args, kwargs = tasks_api.normalize_json([list(args), kwargs])
        return self._target(task).child_fields(run, args=args, kwargs=kwargs)

    def _submit(self, result: Any) -> None:
        """Submit the task of a result, after the ids of the results in its `after`, which are final only now."""
        target = self._target(result.task, result.id)
        self._enqueued(result, self.jobs.submit(target, args=result.args, kwargs=result.kwargs))

    def _target(self, task: Any, job_id: str | None = None) -> ConfiguredHandler[Any, Any]:
        """Return what to submit for a task."""
        target: ConfiguredHandler[Any, Any] = self._handler(task).options(
            job_id=job_id,
            queue=task.queue_name,
            priority=task.priority,
            not_before=_aware(task.run_after),
            **options_of(task),
        )
        return target

    def _enqueued(self, result: Any, job: Job) -> None:
        """Make a result that of its job. Send the signal unless the job is an earlier one with the same unique key."""
        if job.job_id == result.id:
            update(result, job, result.task, self.alias)
            tasks_api.task_enqueued.send(type(self), task_result=result)
        else:
            update(result, job, find_task(job.job_type) or result.task, self.alias)

    def get_result(self, result_id: str) -> Any:
        """Return the result of a task. Raises TaskResultDoesNotExist, also for a job that is no task of this project."""
        jobs = self.jobs
        connection = None if self.database is None else connections[self.database]
        is_open = connection is not None and connection.in_atomic_block
        job = jobs.using(connection).get_job(result_id) if is_open else jobs.get_job(result_id)
        task = None if job is None else find_task(job.job_type)
        if job is None or task is None:
            raise tasks_api.TaskResultDoesNotExist(result_id)
        return result_of(job, task, self.alias)

    def check(self, **kwargs: Any) -> list[Any]:
        """Return what is wrong with the configuration, without a connection. `manage.py check --deploy` asks the store."""
        return checks.configuration_messages(self)


def milepost_backends() -> list[Backend]:
    """Return the backends of TASKS that run tasks as jobs of milepost."""
    return [backend for backend in tasks_api.task_backends.all() if isinstance(backend, Backend)]


def _aware(moment: datetime | None) -> datetime | None:
    """Return a `run_after` with its time zone, which is left out where USE_TZ is off."""
    return timezone.make_aware(moment) if moment is not None and timezone.is_naive(moment) else moment
