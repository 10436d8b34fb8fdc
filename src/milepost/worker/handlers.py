"""Handlers: the functions that run jobs, with the options of their job type, and the application that has them."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack

from milepost.core.errors import InvalidInputError
from milepost.core.limits import ready_name
from milepost.core.options import QUEUE_BYTES
from milepost.core.schedule import Schedule
from milepost.core.serialization import Duration, labels_text, seconds, validate_job_type, validate_key
from milepost.manager.options import SubmitFields
from milepost.manager.validation import submit_fields
from milepost.run.async_run import AsyncRun
from milepost.run.retry_rules import Errors, RetryRules
from milepost.run.run import Run
from milepost.run.runtime import Runtime
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.worker.end_hooks import EndHooks, Hook
from milepost.worker.generator_handlers import streamed
from milepost.worker.parameters import OWNER_LABEL, Parameters, check_return_type, parameters_of, run_type_of

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
Isolation = Literal["process", "thread"]
OnDuplicate = Literal["return", "refuse", "supersede"]


class SubmitOptions(SubmitFields, total=False):
    """The options of a submit: those of `SubmitFields`, and these.

    - `on_duplicate`: what happens if a pending or running job has the same `unique_key`: "return" that job (default),
      "refuse", or "supersede" it.
    - `job_id`: the id of the new job (default: generated).
    """

    on_duplicate: OnDuplicate
    job_id: str | None


class HandlerOptions(TypedDict, total=False):
    """The options of a job type, given where its handler is registered.

    - `max_attempts`: how many attempts may end with an error (default 1).
    - `timeout`: the limit of one attempt: seconds, a timedelta or text such as "2h".
    - `on_lost`: "retry" (default) or "fail" a job whose process died.
    - `isolation`: "process" for a child process; by default async functions run in the worker's event loop and sync
      functions in threads.
    - `concurrency`: the maximum number of concurrent runs of this type over all workers.
    - `queue`: the queue of its jobs (default: the one with the name of the type).
    - `priority`, `labels`: the defaults of its jobs.
    - `retry_on`, `no_retry_on`: the exception classes that are retried (default: all), or not.
    - `backoff`: `Backoff(...)`, or a function that returns the delay after an attempt.
    - `on_completed`, `on_failed`: a function, sync or async, which is called with the ended job after the store has
      accepted its end; for a failure only if it is final. Not called if the process of the worker dies before.
    - `stream`: True for a generator, sync or async, whose texts are the output of the job (`run.output`). What a sync one
      returns is the result.
    """

    max_attempts: int
    timeout: Duration | None
    on_lost: Literal["retry", "fail"]
    isolation: Isolation | None
    concurrency: int | None
    queue: str | None
    priority: int
    labels: Mapping[str, str] | None
    retry_on: Errors | None
    no_retry_on: Errors
    backoff: Callable[[int], Duration]
    on_completed: Hook | None
    on_failed: Hook | None
    stream: bool


OPTIONS = frozenset(SubmitOptions.__annotations__)


def validate_options(options: Mapping[str, Any], remedy: str = "") -> dict[str, Any]:
    """Return the options of a submit. Raises InvalidInputError for an unknown one, with the remedy, or an invalid one."""
    for name in options:
        if name not in OPTIONS:
            raise InvalidInputError(name, f"is not an option of submit{remedy}; options: {', '.join(sorted(OPTIONS))}")
    if options.get("on_duplicate") not in (None, "return", "refuse", "supersede"):
        raise InvalidInputError(
            "on_duplicate", f"{options['on_duplicate']!r:.40} must be 'return', 'refuse' or 'supersede'"
        )
    return dict(options)


@dataclass(frozen=True, slots=True)
class TypeOptions:
    """The defaults of a job type.

    `timeout` is in seconds; `concurrency` is the maximum number of concurrent runs over all workers.
    """

    max_attempts: int = 1
    timeout: float | None = None
    on_lost: Literal["retry", "fail"] = "retry"
    isolation: Isolation | None = None
    concurrency: int | None = None
    queue: str | None = None
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    retry: RetryRules = field(default_factory=RetryRules)
    hooks: EndHooks | None = None
    stream: bool = False

    @classmethod
    def of(cls, **options: Unpack[HandlerOptions]) -> TypeOptions:
        """Return the options of a registration. Raises InvalidInputError for an unknown or invalid one."""
        given: dict[str, Any] = dict(options)
        for name in given:
            if name not in HandlerOptions.__annotations__:
                known = ", ".join(HandlerOptions.__annotations__)
                raise InvalidInputError(name, f"is not an option of a handler; options: {known}")
        rules = {name: given.pop(name) for name in ("retry_on", "no_retry_on", "backoff") if name in given}
        hooks = {name: given.pop(name) for name in ("on_completed", "on_failed") if name in given}
        if given.get("timeout") is not None:
            given["timeout"] = seconds(given["timeout"], "timeout")
        given["labels"] = dict(given.get("labels") or {})
        return cls(**given, retry=RetryRules(**rules), hooks=EndHooks(**hooks) if hooks else None)

    def __post_init__(self) -> None:
        submit_fields(
            "x", params=None, max_attempts=self.max_attempts, priority=self.priority, on_lost=self.on_lost,
            timeout=self.timeout,
        )  # fmt: skip
        labels_text(self.labels)
        if self.queue is not None:
            validate_key(self.queue, "queue", QUEUE_BYTES)
        if self.isolation not in (None, "process", "thread"):
            raise InvalidInputError("isolation", f"{self.isolation!r:.40} must be 'process', 'thread' or None")
        limit = self.concurrency
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidInputError("concurrency", f"{limit!r:.40} must be a whole number of at least 1, or None")


class Handler(Generic[P, R_co]):
    """The handler of a job type. Calling it calls its function, so that it can be tested as one."""

    def __init__(self, job_type: str, function: Callable[Concatenate[AsyncRun, P], R_co], options: TypeOptions) -> None:
        self.job_type = validate_job_type(job_type)
        is_function: bool = inspect.isroutine(function)
        if not is_function:
            raise InvalidInputError("handler", f"{function!r:.80} is not a function; define one that calls it")
        is_generator = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
        self.function: Callable[Concatenate[Any, P], R_co] = streamed(function) if is_generator else function
        self.type_options = options
        self.parameters: Parameters = parameters_of(self.function)
        if is_generator is not options.stream:
            problem = "yields no text, but has stream=True" if options.stream else "is a generator; give stream=True to stream its texts, or return a result instead of yielding"  # fmt: skip
            raise InvalidInputError("handler", f"{function.__qualname__} {problem}")
        if not is_generator:
            check_return_type(function)
        self.is_async = inspect.iscoroutinefunction(self.function)
        self.run_type = run_type_of(self.function)
        """What the function gets as its first parameter."""
        self.reference = f"{function.__module__}:{function.__qualname__}"
        functools.update_wrapper(self, function)
        if self.is_async and hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(self)
        if options.isolation == "process":
            self.require_importable()
        if options.isolation == "thread" and self.is_async:
            raise InvalidInputError("isolation", f"{function.__qualname__} is async and runs in the worker's event loop; "
                                            "omit isolation or use 'process'")  # fmt: skip

    def __call__(self, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.function(run, *args, **kwargs)

    def options(self, **options: Unpack[SubmitOptions]) -> ConfiguredHandler[P, R_co]:
        """Return the handler with options for one submit: ``reindex.options(priority=5)``."""
        return ConfiguredHandler(self, validate_options(options))

    def child_fields(self, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, str]:
        """Return the fields of a child of a run for this handler, with validated parameters. Raises InvalidInputError."""
        return self.options().child_fields(run, *args, **kwargs)

    @property
    def ready_name(self) -> str:
        """Return the name under which workers claim the jobs of its default queue."""
        return ready_name(self.job_type, self.type_options.queue)

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the parameters; `x-owner-label` is the label whose value owns the results."""
        owner = self.parameters.owner_label()
        return self.parameters.schema if owner is None else {**self.parameters.schema, OWNER_LABEL: owner}

    @property
    def is_importable(self) -> bool:
        """Return whether another process finds this function by its name, once its module is imported.

        A task of Django, a method and a function of ``jobs.job("x")(function)`` keep their name for themselves.
        """
        found = _named_handler(self.reference)
        return (
            self._why_not_importable() is None and found is not None and inspect.unwrap(found) is inspect.unwrap(self)
        )

    def require_importable(self) -> None:
        """Raise InvalidInputError, with the remedy, if another process cannot import the function."""
        why = self._why_not_importable()
        if why is not None:
            raise InvalidInputError("isolation", f"{self.reference} cannot run in a child process: {why}")

    def _why_not_importable(self) -> str | None:
        module, _, name = self.reference.partition(":")
        if module == "__main__":
            return "it is in __main__ (a script or notebook); move it to a module and import it"
        if "<locals>" in name or "<lambda>" in name:
            return "it is defined inside a function; move it to module level"
        return None

    def __repr__(self) -> str:
        return f"<Handler {self.job_type} {self.reference}>"


@dataclass(frozen=True, slots=True)
class ConfiguredHandler(Generic[P, R_co]):
    """A handler with the options of one submit, made by `Handler.options`."""

    handler: Handler[P, R_co]
    given: dict[str, Any]

    def options(self, **options: Unpack[SubmitOptions]) -> ConfiguredHandler[P, R_co]:
        """Return the handler with further options."""
        return ConfiguredHandler(self.handler, {**self.given, **validate_options(options)})

    def child_fields(self, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, str]:
        """Return the fields of a child of a run for this handler, with these options. Raises InvalidInputError."""
        from milepost.worker.submission import child_fields  # which imports this module

        task_queue = run._task_queues.get(self.handler.job_type)
        return child_fields(self.handler, self.given, run.origin, task_queue, args, kwargs)


Submittable = Handler[P, R_co] | ConfiguredHandler[P, R_co]


class Handlers(Mapping[str, Handler[Any, Any]]):
    """The handlers of an application, by job type."""

    process_setup: str | None = None
    """The ``module:function`` that a child process calls before it imports a handler, as a web framework may need."""

    def __init__(self) -> None:
        self._by_type: dict[str, Handler[Any, Any]] = {}
        self.schedules: dict[str, Schedule] = {}
        """The declared schedules, by name."""

    def __getitem__(self, job_type: str) -> Handler[Any, Any]:
        return self._by_type[job_type]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._by_type))

    def __len__(self) -> int:
        return len(self._by_type)

    def served(self, queues: Iterable[str] | None) -> dict[str, Handler[Any, Any]]:
        """Return the handlers that serve these queues, by the names under which their jobs are claimed.

        None: for each type the queue with its name, and its default queue. A queue with the name of a type is served for
        this type and those of which it is the default queue, any other queue for all types.
        """
        if queues is None:
            return dict(self._by_type) | {handler.ready_name: handler for handler in self._by_type.values()}
        served: dict[str, Handler[Any, Any]] = {}
        for queue in queues:
            validate_key(queue, "queues", QUEUE_BYTES)
            for name, handler in self._by_type.items():
                if queue not in self._by_type or queue in (name, handler.type_options.queue):
                    served[ready_name(name, queue)] = handler
        return served

    def job(self, job_type: str | None = None, **options: Unpack[HandlerOptions]) -> Callable[[Any], Handler[Any, Any]]:
        """Return a decorator that registers the handler of a job type (default: the name of the function)."""
        type_options = TypeOptions.of(**options)

        def register(function: Any) -> Handler[Any, Any]:
            return self.add(Handler(job_type or _name_of(function), function, type_options))

        return register

    def add(self, handler: Handler[P, R_co]) -> Handler[P, R_co]:
        """Add a handler and return it. Raises InvalidInputError if the type has another one.

        A reload of the same function replaces it.
        """
        known = self._by_type.get(handler.job_type)
        if known is not None and known.reference != handler.reference:
            raise InvalidInputError("job_type", f"{handler.job_type!r} already has the handler {known.reference}")
        self._by_type[handler.job_type] = handler
        return handler

    def add_schedule(self, schedule: Schedule) -> Schedule:
        """Add a declared schedule and return it. Raises InvalidInputError if its name has another one."""
        known = self.schedules.setdefault(schedule.name, schedule)
        if known.digest != schedule.digest:
            raise InvalidInputError("name", f"{schedule.name!r} is declared twice; use another name")
        return known


def package_of(function: Callable[..., Any]) -> str:
    """Return the top-level package of a function, which is also the logger above those of its modules."""
    return function.__module__.partition(".")[0]


def _name_of(function: Any) -> str:
    """Return the name of a function as its job type. Raises InvalidInputError, with the remedy, if it has none."""
    name = getattr(function, "__name__", "<lambda>")
    if name == "<lambda>":
        raise InvalidInputError("job_type", f"{function!r:.60} has no name; write jobs.job('name')(...)")
    return str(name)


def find_handler(reference: str, setup: str | None = None) -> Handler[Any, Any]:
    """Import and return the handler ``module:qualname``, after its `process_setup`. Raises InvalidInputError, with the remedy."""
    if setup is not None:
        _set_up(setup)
    importlib.import_module(reference.partition(":")[0])
    found = _named_handler(reference)
    if found is None:
        raise unnamed_error(reference)
    return found


@cache
def _set_up(reference: str) -> None:
    """Call a function ``module:name``, once in this process."""
    module, _, name = reference.partition(":")
    getattr(importlib.import_module(module), name)()


def unnamed_error(reference: str) -> InvalidInputError:
    """Return the error for a function whose name leads to something else, so that a child process cannot run it."""
    return InvalidInputError(
        "isolation", f"{reference} is not the decorated handler; keep the handler under the name of its function"
    )


def _named_handler(reference: str) -> Handler[Any, Any] | None:
    """Return the handler that an imported module has under this name, or None."""
    module, _, name = reference.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, Handler) else None


class Application(Protocol):
    """A `Jobs` or `AsyncJobs`."""

    @property
    def handlers(self) -> Handlers:
        """Return the handlers by job type."""

    @property
    def store(self) -> Store:
        """Return the store of the jobs."""

    @property
    def settings(self) -> Settings:
        """Return the settings, such as lease, heartbeat and grace period."""

    @property
    def runtime(self) -> Runtime:
        """Return the heartbeat, shared with the manager, and what it works with."""


def code_release(settings: Settings, handlers: Mapping[str, Handler[Any, Any]]) -> str | None:
    """Return MILEPOST_RELEASE, else the version of the first distribution that is named as the package of a handler."""
    if settings.release is not None:
        return settings.release
    packages = dict.fromkeys(package_of(handler.function) for handler in handlers.values())
    return next((version for version in map(_version, packages) if version is not None), None)


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        return None
