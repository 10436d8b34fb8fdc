"""Validation of submits, against the handlers of the application or the published types."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.options import json_object
from milepost.core.serialization import PARAMS_BYTES, to_json, validate_labels
from milepost.manager.validation import submit_fields
from milepost.run.param_types import check_schema, plain
from milepost.stores.protocol import Store
from milepost.stores.refused_groups import refuse_foreign_batches
from milepost.worker.handlers import OPTIONS, ConfiguredHandler, Handler, Handlers, TypeOptions, validate_options
from milepost.worker.parameters import OWNER_LABEL, operator_only, refuse_operator_only
from milepost.worker.registry import JobType, announce, published_type, read_type

CACHE_SECONDS = 5.0
"""Seconds for which a published type is not read again."""
ONE_DICT = 'a submit by name takes one dict of parameters: submit("name", {"index": 1})'


class Submission(NamedTuple):
    """A validated submit: the fields of the new record, and what to do about its id and unique key."""

    fields: dict[str, str]
    job_id: str | None
    on_duplicate: str


@dataclass(frozen=True, eq=False)
class _TypeSpec:
    """How to validate a submit of one job type; `own` has its defaults."""

    job_type: str
    check: Callable[[Mapping[str, Any]], dict[str, Any]]
    secrets: tuple[str, ...]
    own: TypeOptions | JobType
    task_queue: str | None
    schema: Mapping[str, Any]
    origin: str | None

    def template(self, options: dict[str, Any]) -> Submission:
        """Return a submit without parameters: the given options over the defaults of the type."""
        own = self.own
        chosen = {name: value for name, value in options.items() if value is not None}
        job_id, on_duplicate = chosen.pop("job_id", None), chosen.pop("on_duplicate", "return")
        defaults = {
            "max_attempts": own.max_attempts,
            "timeout": own.timeout,
            "on_lost": own.on_lost,
            "queue": own.queue,
            "priority": own.priority,
        }
        if own.labels or "labels" in chosen:
            chosen["labels"] = {**own.labels, **validate_labels(chosen.get("labels"))}
        fields = submit_fields(
            self.job_type, params=None, task_queue=self.task_queue, origin=self.origin, **{**defaults, **chosen}
        )
        owner_label: str = self.schema.get(OWNER_LABEL, "")
        if self.origin == "api" and owner_label in chosen.get("labels", ()):
            fields["owner_label"] = owner_label
        return Submission(fields, job_id, on_duplicate)

    @cached_property
    def default_template(self) -> Submission:
        """Return the template without options. It has no trace, since it is shared."""
        template = self.template({})
        template.fields.pop("trace", None)
        return template

    def with_params(self, template: Submission, params: Mapping[str, Any]) -> Submission:
        """Return a template with validated parameters."""
        if self.origin == "api":
            refuse_operator_only(params, self.schema)
        values = self.check(params)
        fields = {**template.fields, "params": to_json(values, "params", PARAMS_BYTES) if values else "{}"}
        kept = [name for name in self.secrets if name in values]
        if kept:
            fields["secrets"] = "\x1f".join(kept)
        return Submission(fields, template.job_id, template.on_duplicate)


def _spec_of(handler: Handler[Any, Any], task_queue: str | None, origin: str | None) -> _TypeSpec:
    params = handler.parameters
    return _TypeSpec(
        handler.job_type, params.check, params.secrets, handler.type_options, task_queue, handler.schema, origin
    )


def child_fields(
    handler: Handler[Any, Any],
    given: Mapping[str, Any],
    origin: str,
    task_queue: str | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, str]:
    """Return the fields of a child, on this task queue, of a run whose job has this origin. Raises InvalidInputError."""
    for name in ("job_id", "unique_key", "parent_id", "on_duplicate"):
        if given.get(name) is not None:
            raise InvalidInputError(name, "a child is found by its key; omit it")
    known = _spec_of(handler, task_queue, origin if origin != "local" else None)
    return known.with_params(known.template(dict(given)), handler.parameters.bind(args, kwargs)).fields


class SubmissionBuilder:
    """Validates submits for one application, against its own handlers first and then against published types.

    `origin` is the origin of the records: ``api`` if the submits come from HTTP requests.
    """

    def __init__(
        self, handlers: Handlers, store: Store, task_queue: str | None = None, origin: str | None = None
    ) -> None:
        self._handlers = handlers
        self._origin = origin
        self._task_queue = task_queue
        self._store = store
        self._own: dict[Handler[Any, Any], _TypeSpec] = {}
        self._seen: dict[str, tuple[float, _TypeSpec]] = {}

    async def build(
        self,
        target: Handler[Any, Any] | ConfiguredHandler[Any, Any] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Submission:
        """Return one validated submit, in any of its three forms. Raises InvalidInputError, UnknownJobTypeError."""
        if isinstance(target, str):
            if len(args) > 1:
                raise InvalidInputError("params", ONE_DICT)
            params, chosen = json_object(args[0] if args else None, "params"), validate_options(kwargs, f"; {ONE_DICT}")
            known = await self._named(target)
        else:
            handler, chosen = _configured(target)
            _refuse_options(handler, kwargs)
            params = handler.parameters.bind(args, kwargs)
            known = await self._of_handler(handler)
        if "after" in chosen:
            await refuse_foreign_batches(self._store, chosen["after"])
        return known.with_params(known.template(chosen) if chosen else known.default_template, params)

    async def build_many(
        self,
        target: Handler[Any, Any] | ConfiguredHandler[Any, Any] | str,
        many: Iterable[Mapping[str, Any]],
        options: Mapping[str, Any],
    ) -> list[Submission]:
        """Return validated submits that differ only in their parameters, which are given as dicts."""
        chosen = validate_options(options)
        if isinstance(target, str):
            known = await self._named(target)
        else:
            handler, before = _configured(target)
            known, chosen = await self._of_handler(handler), {**before, **chosen}
        if "after" in chosen:
            await refuse_foreign_batches(self._store, chosen["after"])
        template = known.template(chosen)
        return [known.with_params(template, json_object(params, "params")) for params in many]

    async def default_queue(self, job_type: str) -> str:
        """Return the default queue of a type. Raises UnknownJobTypeError."""
        return (await self._named(job_type)).own.queue or job_type

    async def serves(self, job_type: str, labels: Mapping[str, str], origin: str) -> bool:
        """Return whether a caller bound to labels may start jobs of a type and origin. Raises UnknownJobTypeError.

        A type that works on data of the operator serves only owners, with jobs of requests: callers bound to its owner
        label and to no other. An empty value of the label is no owner.
        """
        schema = (await self._named(job_type)).schema
        is_owner = set(labels) == {schema.get(OWNER_LABEL)} and all(labels.values())
        return not operator_only(schema) or (is_owner and origin == "api")

    async def _of_handler(self, handler: Handler[Any, Any]) -> _TypeSpec:
        known = self._own.get(handler)
        if known is None:
            await announce(self._store, published_type(handler, self._task_queue))
            known = _spec_of(handler, self._task_queue, self._origin)
            self._own[handler] = known
        return known

    async def _named(self, name: str) -> _TypeSpec:
        """Return the spec of a type of this application, or of a published type."""
        if name in self._handlers:
            return await self._of_handler(self._handlers[name])
        until, known = self._seen.get(name, (0.0, None))
        if known is None or until < time.monotonic():
            found = await read_type(self._store, name)

            def check(params: Mapping[str, Any]) -> dict[str, Any]:
                values: dict[str, Any] = plain(params)
                check_schema(values, found.schema)
                return values

            known = _TypeSpec(found.name, check, found.secrets, found, found.task_queue, found.schema, self._origin)
            self._seen[name] = (time.monotonic() + CACHE_SECONDS, known)
        return known


def _refuse_options(handler: Handler[Any, Any], given: Mapping[str, Any]) -> None:
    """Raise InvalidInputError, with the remedy, for an option of the submit among the parameters of a handler."""
    for name in given:
        if name in OPTIONS and name not in handler.parameters.names:
            function = handler.function.__name__
            raise InvalidInputError(
                name, f"is an option, not a parameter of {function}; write submit({function}.options({name}=...), ...)"
            )


def _configured(target: object) -> tuple[Handler[Any, Any], dict[str, Any]]:
    """Return the handler of a submit and the options that it carries."""
    if isinstance(target, ConfiguredHandler):
        return target.handler, target.given
    if isinstance(target, Handler):
        return target, {}
    raise InvalidInputError(
        "job_type", f"{target!r:.60} is neither the name of a job type nor a function decorated with @jobs.job"
    )
