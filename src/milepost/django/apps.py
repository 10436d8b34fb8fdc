"""The Django app: system checks, and the signals and checks of `django-tasks` where that package is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.core.checks import register
from django.db.models.signals import post_migrate

from milepost.django import tasks_api
from milepost.django.backend import milepost_backends
from milepost.django.checks import check_stores
from milepost.stores.sync_bridge import run_sync


class MilepostConfig(AppConfig):
    """The app ``milepost.django``."""

    name = "milepost.django"
    label = "milepost"
    verbose_name = "Milepost"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        package = tasks_api.Task.__module__.rpartition(".")[0]
        for module in ("checks", "signals"):
            import_module(f"{package}.{module}")
        register(check_stores, "milepost", deploy=True)
        post_migrate.connect(create_schemas, sender=self)


def create_schemas(using: str, **kwargs: Any) -> None:
    """Create the tables of jobs in a migrated database that has some, because enqueue finds them in its transaction."""
    for backend in milepost_backends():
        if backend.database == using:
            run_sync(backend.jobs.store.now())
            backend.jobs.close()  # a test run could not remove the database otherwise
