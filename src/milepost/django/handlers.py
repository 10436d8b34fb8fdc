"""The handlers of a backend: its tasks and those of ``jobs.job``, run with Django set up and with fresh database connections."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections, reset_queries

from milepost.worker.handlers import Handler, Handlers

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class DjangoHandlers(Handlers):
    """Handlers whose code uses the models of the project, also in a child process."""

    process_setup = "django:setup"

    def add(self, handler: Handler[P, R_co]) -> Handler[P, R_co]:
        """See Handlers. A worker keeps its threads, so the function and the hooks get fresh database connections."""
        handler.function = _refreshing(handler.function)
        options = handler.type_options
        if options.hooks is not None:
            handler.type_options = replace(options, hooks=options.hooks.wrapped(_refreshing))
        return super().add(handler)


def _refreshing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with fresh database connections around each call."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _fresh_connections():
            return function(*args, **kwargs)

    @wraps(function)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        await _arefresh_connections()
        try:
            return await function(*args, **kwargs)
        finally:
            await sync_to_async(close_old_connections)()

    return acall if inspect.iscoroutinefunction(function) else call


@contextmanager
def _fresh_connections() -> Iterator[None]:
    """Close the database connections of this thread that are broken or too old, before and after a call."""
    reset_queries()
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@sync_to_async
def _arefresh_connections() -> None:
    """Do the same for the thread that the database calls of async code share."""
    reset_queries()
    close_old_connections()
