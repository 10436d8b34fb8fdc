"""What each backend does with tasks, run by `manage.py test`: a class for each store."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import connection, transaction
from django.test import SimpleTestCase, TransactionTestCase, override_settings
from django.utils import timezone

from blog import tasks
from milepost import Jobs
from milepost.core.job import FailureKind
from milepost.core.transitions import plan_lease_expired, plan_start
from milepost.django import Backend, MilepostTask, tasks_api
from milepost.django.task import options_of
from milepost.django.tasks_api import InvalidTask, TaskResultDoesNotExist, task_backends
from milepost.run.crash_report import report_lost_run
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync

PATIENCE = 60
"""Seconds after which a test that waits has failed."""


class _Undone(Exception):
    """Raised to roll a transaction back."""


@contextmanager
def rolled_back(**options: Any) -> Any:
    """Open a transaction and roll it back."""
    try:
        with transaction.atomic(**options):
            yield
            raise _Undone
    except _Undone:
        pass


def other_connections(*, of_tasks: bool = False) -> int:
    """Return how many connections to the test database there are beside that of this thread: all, or those of Django."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND (application_name <> 'milepost' OR NOT %s)",
            [of_tasks],
        )
        return int(cursor.fetchone()[0])


def end_other_connections() -> None:
    """End the connections of Django to the test database beside that of this thread, as a restart of the server does."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND application_name <> 'milepost'"
        )


class StoreTests:
    """The tests for one store."""

    alias: str

    def setUp(self) -> None:
        """Take the backend, and listen to the signals."""
        self.backend: Backend = task_backends[self.alias]
        self.backend.register_all()
        self.signals: list[tuple[str, str, str]] = []
        self._receivers = []
        for name in ("task_enqueued", "task_started", "task_finished"):

            def receive(sender: type, task_result: Any, name: str = name, **_: Any) -> None:
                assert sender is Backend
                self.signals.append((name, task_result.id, str(task_result.status)))

            getattr(tasks_api, name).connect(receive, weak=False)
            self._receivers.append((getattr(tasks_api, name), receive))

    def tearDown(self) -> None:
        """Stop listening, and remove the jobs."""
        for signal, receive in self._receivers:
            signal.disconnect(receive)
        for job in self.backend.jobs.find(limit=100).jobs:
            self.backend.jobs.delete_job(job.job_id)

    def task(self, task: Any, **options: Any) -> Any:
        """Return a task of this backend, with options."""
        return task.using(backend=self.alias, **options)

    def finished(self, *results: Any, queues: tuple[str, ...] = ("default", "slow")) -> None:
        """Let a worker run until these results have finished, and their signals have been sent."""
        with self.backend.jobs.run_workers(queues=queues):
            for result in results:
                self.until(lambda result=result: self.refreshed(result).is_finished)
        for result in results:
            assert self.signals[-1][0] == "task_finished", self.signals
            assert result.id in {one for name, one, _ in self.signals if name == "task_finished"}

    def refreshed(self, result: Any) -> Any:
        """Return the result after a refresh."""
        result.refresh()
        return result

    def until(self, is_true: Callable[[], bool]) -> None:
        """Wait for a condition."""
        end = time.monotonic() + PATIENCE
        while not is_true():
            assert time.monotonic() < end
            time.sleep(0.01)

    def test_task_runs_and_its_result_is_read(self) -> None:
        result = self.task(tasks.add).enqueue(3, right=4)
        assert result.status == "READY"
        assert result.enqueued_at is not None
        assert (result.args, result.kwargs, result.attempts, result.errors) == ([3], {"right": 4}, 0, [])
        assert (result.started_at, result.last_attempted_at, result.finished_at) == (None, None, None)
        self.finished(result)
        assert result.status == "SUCCESSFUL"
        assert result.return_value == 7
        assert result.enqueued_at <= result.started_at <= result.finished_at
        assert result.last_attempted_at == result.started_at
        assert [bool(worker) for worker in result.worker_ids] == [True]
        again = self.backend.get_result(result.id)
        assert again == result
        assert again.task == self.task(tasks.add)
        assert [name for name, *_ in self.signals] == ["task_enqueued", "task_started", "task_finished"]
        assert [status for *_, status in self.signals] == ["READY", "RUNNING", "SUCCESSFUL"]
        assert self.task(tasks.add).get_result(result.id) == result

    def test_async_task_and_async_calls(self) -> None:
        @async_to_sync
        async def enqueue() -> Any:
            return await self.task(tasks.add_later).aenqueue(1, 2)

        @async_to_sync
        async def read(result: Any) -> Any:
            await result.arefresh()
            return await self.backend.aget_result(result.id)

        result = enqueue()
        self.finished(result)
        assert read(result).return_value == [3], "JSON has no tuples"

    def test_context_has_the_run(self) -> None:
        result = self.task(tasks.count).enqueue(20)
        self.finished(result)
        assert result.return_value == {"attempt": 1, "worker": result.worker_ids[0], "job": result.id}
        job = self.backend.jobs.get_job(result.id)
        assert (job.progress, job.job_type) == (1.0, "blog.tasks.count")
        assert job.params == {"args": [20], "kwargs": {}}

    def test_each_attempt_has_its_worker_and_error(self) -> None:
        result = self.task(tasks.fail_until, max_attempts=2).enqueue(2)
        self.finished(result)
        assert result.return_value == "done"
        assert (result.attempts, len(result.errors)) == (2, 1)
        assert result.errors[0].exception_class is LookupError
        assert "attempt 1" in result.errors[0].traceback
        assert result.started_at < result.last_attempted_at
        assert [name for name, *_ in self.signals].count("task_finished") == 1

    def test_task_that_was_lost_with_others_runs_again(self) -> None:
        """Regression: it failed, because a child process does not find the handler of a task by its name."""
        result = self.task(tasks.add).enqueue(1)
        start = plan_start(new_operation_id(), nonce=new_nonce(), lease=0, worker="gone:1:1:1")
        failure = report_lost_run(self.backend.jobs.get_job(result.id), FailureKind.LOST, "lost")
        lost = plan_lease_expired(
            new_operation_id(), error="lost", failure=failure, crash_loop=failure, crashes_left=None
        )
        for plan in (start, lost):
            self.until(lambda plan=plan: self.applied(result, plan))
        self.finished(result)
        assert (result.return_value, result.attempts) == (2, 2)

    def applied(self, result: Any, plan: Any) -> bool:
        """Apply a transition to the job of a result; return whether the store accepted it."""
        return bool(run_sync(self.backend.jobs.store.apply([Write(result.id, plan)])).outcomes[0].accepted)

    def test_children_of_a_task_are_tasks(self) -> None:
        result = self.task(tasks.add_in_children).enqueue([1, 2])
        self.finished(result)
        assert result.return_value == 5
        first, second = (job for job in self.backend.jobs.find().jobs if job.parent_id == result.id)
        assert {first.labels["number"], second.labels["number"]} == {"1", "2"}
        child = self.backend.get_result(first.job_id)
        assert (child.status, child.task.func, child.task.queue_name) == ("SUCCESSFUL", tasks.add.func, "slow")

    def test_failed_task(self) -> None:
        result, unserialisable = self.task(tasks.fail_until).enqueue(2), self.task(tasks.return_object).enqueue()
        with self.assertLogs(tasks_api.TaskError.__module__.rpartition(".")[0], "ERROR") as logs:
            self.finished(result, unserialisable)
        assert any("LookupError: attempt 1" in line for line in logs.output), "it ended with `NoneType: None`"
        assert result.status == "FAILED"
        assert unserialisable.errors[0].exception_class is TypeError
        with self.assertRaisesMessage(ValueError, "Task failed"):
            result.return_value  # noqa: B018

    def test_cancelled_task_is_failed_with_the_cancel_as_error(self) -> None:
        result = self.task(tasks.wait_for_cancel).enqueue()
        pending = self.task(tasks.add).enqueue(1)
        self.backend.jobs.cancel_job(pending.id)
        with self.backend.jobs.run_workers(queues=["default"]):
            self.until(lambda: self.backend.jobs.get_job(result.id).message == "waiting")
            self.backend.jobs.cancel_job(result.id, reason="not needed")
            self.until(lambda: self.signals[-1][0] == "task_finished")
        for one in (self.refreshed(result), self.refreshed(pending)):
            assert one.status == "FAILED"
            assert one.is_finished
            assert [error.exception_class.__name__ for error in one.errors] == ["JobCancelled"]
        assert "not needed" in result.errors[0].traceback
        assert (result.attempts, pending.attempts) == (1, 0)

    def test_queue_priority_and_run_after(self) -> None:
        low, high = self.task(tasks.slow, priority=-7).enqueue(), self.task(tasks.slow).enqueue()
        moment = timezone.now() + timedelta(days=1)
        later = self.task(tasks.slow, run_after=moment).enqueue()
        job = self.backend.jobs.get_job(low.id)
        assert (job.queue, job.priority) == ("slow", -7)
        with self.backend.jobs.run_workers(concurrency=1, queues=["slow"]):
            self.until(lambda: self.refreshed(low).is_finished and self.refreshed(high).is_finished)
        started = [one for name, one, _ in self.signals if name == "task_started"]
        assert started == [high.id, low.id]
        assert self.refreshed(later).status == "READY"
        assert self.backend.get_result(later.id).task == self.task(tasks.slow, run_after=moment)

    def test_unique_key_returns_the_known_task(self) -> None:
        first = self.task(tasks.add, unique_key="one").enqueue(1)
        second = self.task(tasks.count, unique_key="one").enqueue(2)
        assert second.id == first.id
        assert (second.task, second.args) == (self.task(tasks.add), [1])
        assert self.backend.jobs.count_jobs() == 1
        assert self.signals == [("task_enqueued", first.id, "READY")]

    def test_unique_key_in_a_transaction_keeps_the_later_tasks(self) -> None:
        known = self.task(tasks.add, unique_key="one").enqueue(1)
        with transaction.atomic():
            first = self.task(tasks.add, unique_key="one").enqueue(1)
            second = self.task(tasks.add, after=[first]).enqueue(2)
            third = self.task(tasks.add).enqueue(3)
        assert first.id == known.id
        assert self.backend.jobs.count_jobs() == 3
        self.finished(first, second, third)
        assert first.finished_at <= second.started_at

    def test_task_of_a_removed_queue(self) -> None:
        result = self.task(tasks.add, queue_name="slow").enqueue(1)
        with override_settings(TASKS={self.alias: {**settings.TASKS[self.alias], "QUEUES": ["default"]}}):
            assert task_backends[self.alias].get_result(result.id).task.queue_name == "slow"
            self.finished(result, queues=("slow",))
        assert result.return_value == 2

    def test_after_and_labels(self) -> None:
        first = self.task(tasks.add, labels={"user": "ana"}).enqueue(1)
        second = self.task(tasks.add, after=[first]).enqueue(2)
        assert self.backend.jobs.get_job(first.id).labels == {"user": "ana"}
        self.finished(first, second)
        assert first.finished_at <= second.started_at

    def test_rolled_back_enqueue_leaves_no_job(self) -> None:
        with rolled_back():
            self.task(tasks.add).enqueue(1)
            self.task(tasks.add, after=["group:x"]).enqueue(1)
        with transaction.atomic():
            with rolled_back():
                self.task(tasks.add).enqueue(1)
            kept = self.task(tasks.add).enqueue(1)
            with self.assertRaisesMessage(TypeError, "Unsupported type"):
                self.task(tasks.add).enqueue(object())
            assert self.backend.jobs.count_jobs() == 0, "invisible before the commit"
        assert self.backend.jobs.count_jobs() == 1
        assert kept.enqueued_at is not None
        assert self.backend.get_result(kept.id).args == [1]

    def test_unknown_ids_and_other_jobs_are_no_results(self) -> None:
        other = self.backend.jobs.create_job(job_type="not.a.task")
        for job_id in (other.job_id, "unknown", "0" * 300):
            with self.assertRaisesMessage(TaskResultDoesNotExist, job_id):
                self.backend.get_result(job_id)

    def test_connections_of_the_worker_are_closed(self) -> None:
        opened: list[int] = []

        def query(sender: type, task_result: Any, **_: Any) -> None:
            opened.append(other_connections(of_tasks=True))

        tasks_api.task_started.connect(query)
        with self.backend.jobs.run_workers(queues=["default"]):
            result = self.task(tasks.add).enqueue(1)
            self.until(lambda: self.refreshed(result).is_finished)
            self.until(lambda: other_connections(of_tasks=True) == 0)
        tasks_api.task_started.disconnect(query)
        assert len(opened) == 1


class Memory(TransactionTestCase):
    """In memory, for development: a thread of the process runs the tasks."""

    def test_task_runs_without_a_worker(self) -> None:
        result = tasks.add.using(backend="memory", queue_name="slow").enqueue(1)
        task_backends["memory"].jobs.wait(result.id, timeout=PATIENCE)
        result.refresh()
        assert result.return_value == 2


class SQLite(StoreTests, TransactionTestCase):
    """In SQLite."""

    alias = "sqlite"


class Redis(StoreTests, TransactionTestCase):
    """In Redis."""

    alias = "redis"


class PostgreSQL(StoreTests, TransactionTestCase):
    """In Django's own database."""

    alias = "default"

    def tearDown(self) -> None:
        """Close the connections, also those with which the heartbeat writes the last run to the history."""
        super().tearDown()
        self.until(lambda: self.backend.jobs.close() or other_connections() == 0)

    def test_all_parameters_of_libpq_are_used(self) -> None:
        params = connection.get_connection_params()
        params |= {"host": "unknown.invalid", "hostaddr": params["host"], "passfile": Path("missing")}
        with mock.patch.object(connection, "get_connection_params", return_value=params):
            jobs = self.backend.jobs
        try:
            assert jobs.count_jobs() == 0
        finally:
            jobs.close()

    def test_job_is_written_in_the_transaction(self) -> None:
        with transaction.atomic():
            result = self.task(tasks.add).enqueue(1)
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM milepost.jobs")
                assert cursor.fetchone() == (1,)
            assert self.backend.get_result(result.id) == result
        assert self.backend.get_result(result.id) == result

    def test_handler_in_a_child_process_uses_models(self) -> None:
        jobs = self.backend.jobs
        with jobs.run_workers(queues=["slow"]):
            job = jobs.wait(jobs.submit(tasks.label), timeout=PATIENCE)
        assert job.result == "auth.Group", job.error

    def test_handlers_run_after_their_connections_were_lost(self) -> None:
        """Regression: a thread of a worker kept its connection, so all handlers failed there after a restart of the server."""
        jobs = self.backend.jobs
        for handler in (tasks.count_groups, tasks.count_groups_later):
            tasks.counted_at_end.clear()
            with jobs.run_workers(queues=["slow"], concurrency=1):
                for number in (1, 2):
                    job = jobs.wait(jobs.submit(handler), timeout=PATIENCE)
                    assert job.result == 0, job.error
                    self.until(lambda number=number: len(tasks.counted_at_end) == number)
                    end_other_connections()


class Validation(SimpleTestCase):
    """What is refused, and the options of the task class."""

    def refused(self, remedy: str, **options: Any) -> None:
        """Check that these options of a task are refused with a text."""
        with self.assertRaisesMessage(InvalidTask, remedy):
            tasks.add.using(**options)

    def test_invalid_options_are_refused(self) -> None:
        self.refused("Queue", queue_name="unknown")
        self.refused("priority", priority=101)
        self.refused("max_attempts", max_attempts=0)
        self.refused("timeout", timeout="soon")
        self.refused("on_lost", on_lost="ignore")
        self.refused("labels", labels={"a b": "c"})
        self.refused("unique_key", unique_key="")

    def test_using_keeps_options(self) -> None:
        task = tasks.add.using(max_attempts=3).using(priority=2)
        assert isinstance(task, MilepostTask)
        assert (task.max_attempts, task.priority) == (3, 2)
        assert hash(task.using(labels={"a": "b"})) == hash(task)

    def test_after_takes_jobs_and_text(self) -> None:
        job = Jobs("memory://").create_job("nightly:20261126T020000Z")
        task = tasks.add.using(after=[job, "018f", "group:x"])
        assert options_of(task)["after"] == ["job:nightly:20261126T020000Z", "job:018f", "group:x"]
