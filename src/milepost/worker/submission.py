"""From a submit to the fields of a record: parameters checked, defaults of the type filled in. Owns the order of who
decides (the submit, then the handler, then milepost); knows no way to write it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from milepost.core.encoding import to_json
from milepost.core.errors import InvalidInput
from milepost.manager.requests import mapping, submit_fields
from milepost.stores.protocol import Shelf
from milepost.worker.handlers import Configured, Handler, Handlers, TypeOptions, checked_options
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


@dataclass(frozen=True, eq=False)
class _Known:
    """What a job type asks of a submit; `own` has its defaults."""

    job_type: str
    check: Callable[[Mapping[str, Any]], dict[str, Any]]
    secrets: tuple[str, ...]
    own: TypeOptions | JobType
    engine: str | None

    def form(self, options: dict[str, Any]) -> Submission:
        """A submit without its parameters: the options that were chosen, before the defaults of the type."""
        own = self.own
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
        fields = submit_fields(self.job_type, params=None, engine=self.engine, **{**defaults, **chosen})
        return Submission(fields, job_id, on_duplicate)

    @cached_property
    def plain_form(self) -> Submission:
        """The form of all submits that choose nothing. It is in no trace: what records a single submit sees to that."""
        form = self.form({})
        form.fields.pop("trace", None)
        return form

    def filled(self, form: Submission, params: Mapping[str, Any]) -> Submission:
        """A form with its parameters, which the type has checked."""
        values = self.check(params)
        fields = {**form.fields, "params": to_json(values, "params") if values else "{}"}
        kept = [name for name in self.secrets if name in values]
        if kept:
            fields["secrets"] = "\x1f".join(kept)
        return Submission(fields, form.job_id, form.on_duplicate)


class Submissions:
    """Checks submits for one application, against its own handlers first and then against what workers publish."""

    def __init__(self, handlers: Handlers, shelf: Shelf, engine: str | None = None) -> None:
        self._handlers = handlers
        self._engine = engine
        self._shelf = shelf
        self._own: dict[Handler[Any, Any], _Known] = {}
        self._seen: dict[str, tuple[float, _Known]] = {}

    async def make(
        self,
        target: Handler[Any, Any] | Configured[Any, Any] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Submission:
        """Check one submit, in any of its three forms. Raises InvalidInput, UnknownJobType."""
        if isinstance(target, str):
            if len(args) > 1:
                raise InvalidInput(
                    "params", 'a submit by name takes one dict of parameters: submit("name", {"index": 1})'
                )
            params, chosen = mapping(args[0] if args else None, "params"), checked_options(kwargs)
            known = await self._named(target)
        else:
            handler, chosen = _configured(target)
            params = handler.parameters.bind(args, kwargs)
            known = self._of_handler(handler)
        return known.filled(known.form(chosen) if chosen else known.plain_form, params)

    async def make_many(
        self,
        target: Handler[Any, Any] | Configured[Any, Any] | str,
        many: Iterable[Mapping[str, Any]],
        options: Mapping[str, Any],
    ) -> list[Submission]:
        """Check submits that differ in their parameters alone, which are in dicts whatever the form."""
        chosen = checked_options(options)
        if isinstance(target, str):
            known = await self._named(target)
        else:
            handler, before = _configured(target)
            known, chosen = self._of_handler(handler), {**before, **chosen}
        form = known.form(chosen)
        return [known.filled(form, mapping(params, "params")) for params in many]

    def _of_handler(self, handler: Handler[Any, Any]) -> _Known:
        known = self._own.get(handler)
        if known is None:
            asked = handler.parameters
            known = _Known(handler.job_type, asked.check, asked.secrets, handler.type_options, self._engine)
            self._own[handler] = known
        return known

    async def _named(self, name: str) -> _Known:
        """A type of this application, or one that some worker has published."""
        if name in self._handlers:
            return self._of_handler(self._handlers[name])
        until, known = self._seen.get(name, (0.0, None))
        if known is None or until < time.monotonic():
            found = await read_type(self._shelf, name)

            def check(params: Mapping[str, Any]) -> dict[str, Any]:
                values: dict[str, Any] = plain(params)
                check_schema(values, found.schema)
                return values

            known = _Known(found.name, check, found.secrets, found, found.engine)
            self._seen[name] = (time.monotonic() + SEEN_FOR, known)
        return known


def _configured(target: object) -> tuple[Handler[Any, Any], dict[str, Any]]:
    """The handler that a submit is for, and the options that it carries."""
    if isinstance(target, Configured):
        return target.handler, target.chosen
    if isinstance(target, Handler):
        return target, {}
    raise InvalidInput("job_type", f"{target!r:.60} is neither the name of a type nor a function with @jobs.job")
