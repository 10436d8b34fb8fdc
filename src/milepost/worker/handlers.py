"""Handlers: the functions that jobs run, with the options of their type. Owns registration and what it refuses; knows no
store and runs nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack

from milepost.core.encoding import job_type_text, labels_text, seconds
from milepost.core.errors import InvalidInput
from milepost.manager.requests import submit_fields
from milepost.tracking.run import Run
from milepost.worker.parameters import Parameters, parameters_of

P = ParamSpec("P")
R = TypeVar("R")
Isolation = Literal["process", "thread"]
OnDuplicate = Literal["return", "refuse", "supersede"]


class SubmitOptions(TypedDict, total=False):
    """What a submit may say beside the parameters."""

    priority: int
    labels: Mapping[str, str] | None
    metadata: Mapping[str, Any] | None
    unique_key: str | None
    on_duplicate: OnDuplicate
    not_before: datetime | None
    not_after: datetime | None
    max_attempts: int | None
    timeout: float | timedelta | str | None
    on_lost: Literal["retry", "fail"] | None
    job_id: str | None
    parent_id: str | None
    trace: str | None


OPTIONS = frozenset(SubmitOptions.__annotations__)


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a submit. Raises InvalidInput for one that is none."""
    for name in options:
        if name not in OPTIONS:
            raise InvalidInput(name, f"is not an option of submit; there are: {', '.join(sorted(OPTIONS))}")
    if options.get("on_duplicate") not in (None, "return", "refuse", "supersede"):
        raise InvalidInput("on_duplicate", f"{options['on_duplicate']!r:.40} must be 'return', 'refuse' or 'supersede'")
    return dict(options)


@dataclass(frozen=True, slots=True)
class TypeOptions:
    """The defaults of a job type. `timeout` in seconds; `concurrency` is the most runs at once, over all workers."""

    max_attempts: int = 1
    timeout: float | None = None
    on_lost: Literal["retry", "fail"] = "retry"
    isolation: Isolation | None = None
    concurrency: int | None = None
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        submit_fields("x", params=None, max_attempts=self.max_attempts, priority=self.priority, on_lost=self.on_lost)
        labels_text(self.labels)
        if self.isolation not in (None, "process", "thread"):
            raise InvalidInput("isolation", f"{self.isolation!r:.40} must be 'process', 'thread' or None")
        most = self.concurrency
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise InvalidInput("concurrency", f"{most!r:.40} must be a whole number of at least 1, or None")


class Handler(Generic[P, R]):
    """A function that runs jobs of one type. Calling it calls the function, so that it can be tested as one."""

    def __init__(self, job_type: str, function: Callable[Concatenate[Run, P], R], options: TypeOptions) -> None:
        self.job_type = job_type_text(job_type)
        self.function = function
        self.type_options = options
        self.parameters: Parameters = parameters_of(function)
        self.is_async = inspect.iscoroutinefunction(function)
        self.reference = f"{function.__module__}:{function.__qualname__}"
        functools.update_wrapper(self, function)
        if self.is_async and hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(self)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise InvalidInput(
                "handler", f"{function.__qualname__} is a generator; return a result instead of yielding"
            )
        if options.isolation == "process":
            self.refuse_unless_importable()
        if options.isolation == "thread" and self.is_async:
            raise InvalidInput("isolation", f"{function.__qualname__} is async and runs in the worker's event loop; "
                                            "leave isolation out, or use 'process'")  # fmt: skip

    def __call__(self, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(run, *args, **kwargs)

    def options(self, **options: Unpack[SubmitOptions]) -> Configured[P, R]:
        """This handler with options for one submit: ``jobs.submit(reindex.options(priority=5), index="docs")``."""
        return Configured(self, checked_options(options))

    @property
    def is_importable(self) -> bool:
        """Whether another process can find the function by its name."""
        return self._why_not_importable() is None

    def refuse_unless_importable(self) -> None:
        """Raise InvalidInput, with the remedy, when another process cannot find the function."""
        why = self._why_not_importable()
        if why is not None:
            raise InvalidInput("isolation", f"{self.reference} cannot run in a process of its own: {why}")

    def _why_not_importable(self) -> str | None:
        module, _, name = self.reference.partition(":")
        if module == "__main__":
            return "it is in __main__ (a script or a notebook); move it into a module and import it from there"
        if "<locals>" in name or "<lambda>" in name:
            return "it is defined inside a function; move it to the top of a module"
        return None

    def __repr__(self) -> str:
        return f"<Handler {self.job_type} {self.reference}>"


@dataclass(frozen=True, slots=True)
class Configured(Generic[P, R]):
    """A handler with the options of one submit. Made by `Handler.options`."""

    handler: Handler[P, R]
    chosen: dict[str, Any]

    def options(self, **options: Unpack[SubmitOptions]) -> Configured[P, R]:
        """The same with more options."""
        return Configured(self.handler, {**self.chosen, **checked_options(options)})


class Handlers(Mapping[str, Handler[Any, Any]]):
    """The handlers of an application, by job type."""

    def __init__(self) -> None:
        self._by_type: dict[str, Handler[Any, Any]] = {}

    def __getitem__(self, job_type: str) -> Handler[Any, Any]:
        return self._by_type[job_type]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._by_type))

    def __len__(self) -> int:
        return len(self._by_type)

    def chosen(self, queues: Iterable[str] | None) -> dict[str, Handler[Any, Any]]:
        """The handlers of some types (None: of all). Raises InvalidInput for a type that has none."""
        chosen = None if queues is None else tuple(queues)
        for name in chosen or ():
            if name not in self._by_type:
                raise InvalidInput("queues", f"{name!r} has no handler here; there are: {', '.join(self) or 'none'}")
        return {name: self._by_type[name] for name in (self if chosen is None else chosen)}

    def job(
        self,
        job_type: str | None = None,
        *,
        max_attempts: int = 1,
        timeout: float | timedelta | str | None = None,
        on_lost: Literal["retry", "fail"] = "retry",
        isolation: Isolation | None = None,
        concurrency: int | None = None,
        priority: int = 0,
        labels: Mapping[str, str] | None = None,
    ) -> Callable[[Callable[Concatenate[Run, P], R]], Handler[P, R]]:
        """Register a function as the handler of a job type (default: its name)."""
        options = TypeOptions(
            max_attempts,
            None if timeout is None else seconds(timeout, "timeout"),
            on_lost,
            isolation,
            concurrency,
            priority,
            dict(labels or {}),
        )

        def register(function: Callable[Concatenate[Run, P], R]) -> Handler[P, R]:
            return self.add(Handler(job_type or function.__name__, function, options))

        return register

    def add(self, handler: Handler[P, R]) -> Handler[P, R]:
        """Take a handler. Raises InvalidInput when its type has another one; the same function may come again (a reload)."""
        known = self._by_type.get(handler.job_type)
        if known is not None and known.reference != handler.reference:
            raise InvalidInput("job_type", f"{handler.job_type!r} is handled by {known.reference} already")
        self._by_type[handler.job_type] = handler
        return handler


def find_handler(reference: str) -> Handler[Any, Any]:
    """Import the handler of ``module:qualname``. Raises InvalidInput, with the remedy, when it is not found there."""
    module, _, name = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Handler):
        raise InvalidInput(
            "isolation", f"{reference} is not the decorated function; keep it under the name that it was defined with"
        )
    return found
