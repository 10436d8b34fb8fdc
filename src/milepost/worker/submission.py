"""From a submit to the fields of a record: parameters checked, defaults of the type filled in. Owns the order of who
decides (the submit, then the handler, then milepost); knows no way to write it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInput
from milepost.manager.requests import mapping, submit_fields
from milepost.stores.protocol import Shelf
from milepost.worker.handlers import Configured, Handler, Handlers, checked_options
from milepost.worker.published import JobType, read_type
from milepost.worker.readers import plain
from milepost.worker.schema import check_schema

SEEN_FOR = 5.0
"""Seconds for which a published type is not read again."""


class Submission(NamedTuple):
    """A checked submit: the fields of the new record, and what to do about its id and unique key."""

    fields: dict[str, str]
    job_id: str | None
    on_duplicate: str


class Submissions:
    """Checks submits for one application, against its own handlers first and then against what workers publish."""

    def __init__(self, handlers: Handlers, shelf: Shelf, engine: str | None = None) -> None:
        self._handlers = handlers
        self._engine = engine
        self._shelf = shelf
        self._seen: dict[str, tuple[float, JobType]] = {}

    async def make(
        self,
        target: Handler[Any, Any] | Configured[Any, Any] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Submission:
        """Check one submit, in any of its three forms. Raises InvalidInput, UnknownJobType."""
        if isinstance(target, Configured):
            return self._with_handler(target.handler, args, kwargs, target.chosen)
        if isinstance(target, Handler):
            return self._with_handler(target, args, kwargs, {})
        if not isinstance(target, str):
            raise InvalidInput(
                "job_type", f"{target!r:.60} is neither the name of a type nor a function with @jobs.job"
            )
        if len(args) > 1:
            raise InvalidInput("params", 'a submit by name takes one dict of parameters: submit("name", {"index": 1})')
        params = mapping(args[0] if args else None, "params")
        options = checked_options(kwargs)
        if target in self._handlers:
            return self._with_handler(self._handlers[target], (), params, options)
        return self._with_type(await self._published(target), params, options)

    async def make_by_name(
        self, target: Handler[Any, Any] | Configured[Any, Any] | str, params: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Submission:  # fmt: skip
        """Check one submit whose parameters and options are in dicts, whatever its form."""
        if isinstance(target, str):
            return await self.make(target, (params,), options)
        configured = target if isinstance(target, Configured) else Configured(target, {})
        return await self.make(configured.options(**options), (), mapping(params, "params"))

    def _with_handler(
        self,
        handler: Handler[Any, Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
    ) -> Submission:
        parameters = handler.parameters
        params = parameters.check(parameters.bind(args, kwargs))
        own = handler.type_options
        return _submission(handler.job_type, params, parameters.secrets, own, options, self._engine)

    def _with_type(self, known: JobType, params: dict[str, Any], options: dict[str, Any]) -> Submission:
        values = plain(params)
        check_schema(values, known.schema)
        return _submission(known.name, values, known.secrets, known, options, known.engine)

    async def _published(self, name: str) -> JobType:
        until, known = self._seen.get(name, (0.0, None))
        if known is None or until < time.monotonic():
            known = await read_type(self._shelf, name)
            self._seen[name] = (time.monotonic() + SEEN_FOR, known)
        return known


def _submission(
    job_type: str,
    params: dict[str, Any],
    secrets: tuple[str, ...],
    own: Any,
    options: dict[str, Any],
    engine: str | None,
) -> Submission:
    """`own` has the defaults of the type: TypeOptions or JobType."""
    chosen = {name: value for name, value in options.items() if value is not None}
    job_id, on_duplicate = chosen.pop("job_id", None), chosen.pop("on_duplicate", "return")
    defaults = {
        "max_attempts": own.max_attempts,
        "timeout": own.timeout,
        "on_lost": own.on_lost,
        "priority": own.priority,
    }
    if own.labels or "labels" in chosen:
        chosen["labels"] = {**own.labels, **chosen.get("labels", {})}
    kept = tuple(name for name in secrets if name in params)
    fields = submit_fields(job_type, params=params, secrets=kept, engine=engine, **{**defaults, **chosen})
    return Submission(fields, job_id, on_duplicate)
