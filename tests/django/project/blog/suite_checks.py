"""System checks, and the errors of the worker command: each with its remedy."""

from io import StringIO
from typing import Any
from unittest import mock

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import SimpleTestCase, override_settings

from milepost import Run
from milepost.django.checks import check_stores
from milepost.django.tasks_api import task_backends


def messages(**options: Any) -> list[str]:
    """Return what the check of a backend with these options finds: id, text and remedy."""
    with override_settings(TASKS={"default": {"BACKEND": "milepost.django.Backend", "OPTIONS": options}}):
        return [f"{one.id} {one.msg} {one.hint or ''}" for one in task_backends["default"].check()]


def own(run: Run) -> str:
    """Return what a handler of `jobs.job` returns."""
    return "own"


class Checks(SimpleTestCase):
    """What `manage.py check` reports."""

    databases = ("default",)

    def found(self, wanted: str, remedy: str, **options: Any) -> None:
        """Check that there is one message, with its id and its remedy."""
        (message,) = messages(**options)
        assert message.startswith(f"milepost.{wanted} "), message
        assert remedy in message, message

    def test_each_problem_has_its_remedy(self) -> None:
        self.found("E001", "Use url, database, namespace", urls="sqlite:///x.db")
        self.found("E002", "Remove one of them", url="sqlite:///x.db", database="default")
        self.found("E003", "Use one of default", database="other")
        self.found("E005", "sqlite:///jobs.db", url="mysql://localhost")
        self.found("E005", "sqlite:///jobs.db", url="redis://localhost", namespace="a b/{}")
        self.found("W001", "Set OPTIONS url", url="memory://")
        assert messages(url="sqlite:///x.db") == []
        assert messages(database="default") == [], "each command of manage.py said that there are issues"

    def test_database_must_be_postgresql(self) -> None:
        with mock.patch.object(connections["default"], "vendor", "sqlite"):
            self.found("E004", "Use url instead of database", database="default")

    def test_missing_app_is_reported(self) -> None:
        with self.modify_settings(INSTALLED_APPS={"remove": "milepost.django"}):
            self.found("W002", "Add 'milepost.django' to INSTALLED_APPS", url="sqlite:///x.db")

    def test_deploy_check_asks_the_store(self) -> None:
        unreachable = {"BACKEND": "milepost.django.Backend", "OPTIONS": {"url": "sqlite:////missing/folder/jobs.db"}}
        with override_settings(TASKS={"default": unreachable, "sqlite": settings.TASKS["sqlite"]}):
            (message,) = check_stores()
        assert (message.id, "Start the store" in message.hint) == ("milepost.E006", True)

    def test_invalid_options_are_refused_where_they_are_used(self) -> None:
        with (
            override_settings(TASKS={"default": {"BACKEND": "milepost.django.Backend", "OPTIONS": {"urls": "x"}}}),
            self.assertRaisesMessage(ImproperlyConfigured, "'urls' is not an option. Use url, database, namespace"),
        ):
            task_backends["default"].get_result("x")

    def test_worker_command_serves_handlers_of_jobs_job(self) -> None:
        jobs = task_backends["sqlite"].jobs
        jobs.job("own")(own)
        out = StringIO()
        try:
            call_command("milepost_worker", backend="sqlite", exit_when_idle="0.01", stdout=out)
            assert "queues default, own, slow," in out.getvalue()
            job = jobs.submit("own")
            call_command("milepost_worker", backend="sqlite", max_jobs=1)
            assert jobs.wait(job).result == "own"
        finally:
            del jobs.handlers._by_type["own"]
            jobs.close()

    def test_worker_command_names_what_is_wrong(self) -> None:
        immediate = {"BACKEND": settings.IMMEDIATE_BACKEND}
        with override_settings(TASKS={**settings.TASKS, "immediate": immediate}):
            for backend, wanted in (
                ("unknown", "TASKS has no 'unknown'"),
                ("immediate", "not milepost.django.Backend"),
            ):
                with self.assertRaisesMessage(CommandError, wanted):
                    call_command("milepost_worker", backend=backend)
        with self.assertRaisesMessage(CommandError, "concurrency"):
            call_command("milepost_worker", backend="sqlite", concurrency=0)
