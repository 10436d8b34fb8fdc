"""System checks: what is wrong with TASKS, each with its remedy, and for `check --deploy` the state of the stores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from milepost.core.errors import MilepostError
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.django.backend import Backend

OPTIONS = ("url", "database", "namespace")


def option_errors(backend: Backend) -> Iterator[CheckMessage]:
    """Yield what is wrong with the OPTIONS of a backend."""
    where, options = f"TASKS[{backend.alias!r}]['OPTIONS']", backend.options
    for name in options:
        if name not in OPTIONS:
            yield Error(f"{where}: {name!r} is not an option.", hint=f"Use {', '.join(OPTIONS)}.", id="milepost.E001")
    if "url" in options and "database" in options:
        yield Error(f"{where} has both url and database.", hint="Remove one of them.", id="milepost.E002")
    elif backend.database is not None:
        if backend.database not in connections.settings:
            names = ", ".join(connections.settings)
            yield Error(f"{where}: no database {backend.database!r}.", hint=f"Use one of {names}.", id="milepost.E003")
        elif connections[backend.database].vendor != "postgresql":
            yield Error(
                f"{where}: database {backend.database!r} is not PostgreSQL.",
                hint="Use url instead of database, for example 'sqlite:///jobs.db'.",
                id="milepost.E004",
            )


def configuration_messages(backend: Backend) -> list[CheckMessage]:
    """Return what is wrong with the configuration of a backend, without a connection to its store."""
    found = list(option_errors(backend))
    if found:
        return found
    try:
        store = backend.jobs.store
    except (MilepostError, ImproperlyConfigured) as error:
        hint = "Set TASKS OPTIONS url, for example 'sqlite:///jobs.db'."
        return [Error(f"TASKS[{backend.alias!r}]: {error}", hint=hint, id="milepost.E005")]
    if not store.shared:
        text = f"TASKS[{backend.alias!r}]: tasks are kept in the memory of each process, where workers do not see them."
        hint = "Set OPTIONS url, for example 'sqlite:///jobs.db', or MILEPOST_URL."
        found.append(Warning(text, hint=hint, id="milepost.W001"))
    if not apps.is_installed("milepost.django"):
        text = "milepost.django is not in INSTALLED_APPS, so manage.py has no milepost_worker and the admin no jobs."
        found.append(Warning(text, hint="Add 'milepost.django' to INSTALLED_APPS.", id="milepost.W002"))
    return found


def check_stores(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Connect to the store of each backend, and return what its health check finds."""
    from milepost.django.backend import milepost_backends

    found: list[CheckMessage] = []
    for backend in milepost_backends():
        if any(message.is_serious() for message in backend.check()):
            continue
        where = f"TASKS[{backend.alias!r}]"
        try:
            report = run_sync(backend.jobs.store.check_health())
        except MilepostError as error:
            hint = "Start the store, or correct its address in OPTIONS."
            found.append(Error(f"{where}: {error}", hint=hint, id="milepost.E006"))
        else:
            found += [Warning(f"{where}: {text}", id="milepost.W003") for text in report.warnings]
    return found
