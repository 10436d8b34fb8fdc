"""The crash report: what a person needs to know about an attempt that failed."""

from __future__ import annotations

import json
import logging
import os
import socket
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from milepost.core.errors import InvalidInputError
from milepost.core.job import FailureKind, Job
from milepost.core.serialization import (
    ERROR_BYTES,
    FAILURE_BYTES,
    MESSAGE_BYTES,
    RESULT_BYTES,
    from_json,
    printable,
    safe_str,
    single_line,
    to_json,
    truncate,
)
from milepost.run.process_identity import versions

if TYPE_CHECKING:
    from milepost.run.run import Run


log = logging.getLogger("milepost.run")

MAX_REPORT_BYTES = 4 * FAILURE_BYTES
SHORT_BYTES = FAILURE_BYTES // 8
"""The size to which long texts are cut where the whole report is too large."""
MIN_SECRET_LENGTH = 3
"""Shorter secrets are not masked in texts: they would mask half of every line."""
MIN_SECRET_LINE_LENGTH = 8
"""Shorter lines of a secret of several lines, such as a private key, are not masked in single lines of output."""
ALL = 1 << 30
LEAVES_SHOWN = 3
"""How many exceptions of a group are named in the error of a job."""


def crash_report(kind: FailureKind, message: str, **known: Any) -> str:
    """Return a crash report as JSON text, without the fields that are None."""
    fields = {"kind": kind.value, "message": printable(message), "at": datetime.now(UTC).isoformat(), **known}
    fields = {name: value for name, value in fields.items() if value is not None}
    try:
        return to_json(fields, "failure", MAX_REPORT_BYTES)
    except InvalidInputError:  # JSON escapes make the text longer
        return to_json({name: _shortened(value) for name, value in fields.items()}, "failure", MAX_REPORT_BYTES)


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [truncate(line, SHORT_BYTES // 8) for line in value]
    return truncate(value, SHORT_BYTES) if isinstance(value, str) else value


def report_exception(
    error: BaseException, run: Run | None, kind: FailureKind = FailureKind.ERROR, stack: str | None = None
) -> tuple[str, str]:
    """Return the one-line error and the crash report of an exception that ended a run in this process.

    `stack` replaces the traceback: where code is that has not stopped.
    """
    text = redacted(_text_of(error), run)
    name = type(error).__name__
    line = single_line(text if text else name, ERROR_BYTES)
    known = run_facts(run) if run is not None else {}
    return line, crash_report(
        kind,
        text,
        type=f"{type(error).__module__}.{name}" if type(error).__module__ != "builtins" else name,
        traceback=printable(redacted(stack if stack is not None else _traceback(error), run)),
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=versions(),
        **{"peak_memory": peak_memory(), **known},
    )


def _text_of(error: BaseException) -> str:
    """Return the text of an exception, with what its own text leaves out."""
    if isinstance(error, SystemExit):  # its text is its code alone, often "0"
        return f"the code called sys.exit({error.code!r})"
    if type(error).__str__ is KeyError.__str__:  # its text is the key alone
        return _named(error)
    if isinstance(error, BaseExceptionGroup):
        return f"{safe_str(error)}: {'; '.join(map(_named, leaves(error)[:LEAVES_SHOWN]))}"
    return safe_str(error)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in a group and in the groups in it."""
    found: list[BaseException] = []
    for inner in group.exceptions:
        found += leaves(inner) if isinstance(inner, BaseExceptionGroup) else [inner]
    return found


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {safe_str(error)}"


def secret_values_of(params: str, secrets: str) -> tuple[str, ...]:
    """Return the texts of secret parameters, longest first: as they are, on one line, line by line, and as literals."""
    values = from_json(params)
    found: set[str] = set()
    waiting = [values.get(name) for name in secrets.split("\x1f")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, str) and len(value) >= MIN_SECRET_LENGTH:
            found.update((value, single_line(value, ALL), repr(value)[1:-1], json.dumps(value)[1:-1]))
            found.add(json.dumps(value, ensure_ascii=False)[1:-1])
            if "\n" in value:
                found.update(line for line in map(str.strip, value.splitlines()) if len(line) >= MIN_SECRET_LINE_LENGTH)
    return tuple(sorted(found, key=len, reverse=True))


def masked(text: str, masks: tuple[str, ...]) -> str:
    """Return a text without the values of secret parameters."""
    for secret in masks:
        text = text.replace(secret, "***")
    return text


def masked_json(text: str, masks: tuple[str, ...]) -> str:
    """Return a JSON text without the values of secret parameters in its strings."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return masked(value, masks)
        if isinstance(value, list):
            return [walk(part) for part in value]
        if isinstance(value, dict):
            return {masked(name, masks): walk(part) for name, part in value.items()}
        return value

    return to_json(walk(from_json(text)), "result", RESULT_BYTES) if masked(text, masks) != text else text


def masked_line(value: object, masks: tuple[str, ...], limit: int = MESSAGE_BYTES) -> str:
    """Return a single line without secrets. They are masked first: a secret that is cut would be shown in part."""
    text = value if type(value) is str else safe_str(value)
    return single_line(masked(text, masks) if masks else text, limit)


def redacted(text: str, run: Run | None) -> str:
    """Return a text of the run with its secrets masked and its redaction hook applied."""
    if run is None:
        return text
    if run._secret_values:
        text = masked(text, run._secret_values)
    if run._redact is None:
        return text
    try:
        return str(run._redact(text))
    except Exception as error:  # noqa: BLE001 - user code may raise anything; the text is then withheld
        return f"*** (the redaction hook raised {type(error).__name__})"


@lru_cache
def load_redact_hook(reference: str | None) -> Callable[[str], str] | None:
    """Return the redaction hook ``module:function``. Raises InvalidInputError if it cannot be imported."""
    if reference is None:
        return None
    module, _, name = reference.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(
            "redact", f"{reference!r:.200} cannot be imported: {single_line(error, 200)}"
        ) from error
    if not callable(found):
        raise InvalidInputError("redact", f"{reference!r:.200} is not a function")
    return cast("Callable[[str], str]", found)


def run_facts(run: Run) -> dict[str, Any]:
    """Return the facts about a run that its crash report contains."""
    return {
        "attempt": run.attempt,
        "last_stage": redacted(run._stage_name, run) if run._stage_name is not None else None,
        "last_item": redacted(run._last_item, run) if run._last_item is not None else None,
        "last_log": list(run.recent_log),
        "last_checkpoint_at": run._checkpoint_at,
    }


def report_lost_run(job: Job, kind: FailureKind, message: str, **known: Any) -> str:
    """Return the crash report of a run that can no longer report, from its record."""
    open_stages = [stage.name for stage in job.stages if stage.ended_at is None]
    facts: dict[str, Any] = {
        "attempt": job.attempt,
        "last_stage": open_stages[-1] if open_stages else None,
        "last_checkpoint_at": job.checkpoint_at.isoformat() if job.checkpoint_at is not None else None,
        "host": (job.worker or "").split(":")[0] or None,
    }
    return crash_report(kind, message, **{**facts, **known})


def crash_loop_line(crashes: int, last: str) -> str:
    """Return the error of a job that fails because its budget of crashes is spent; `last` is what ended its last run."""
    return f"crashed {crashes} times; last: {last}" if crashes > 1 else last


def _traceback(error: BaseException) -> str:
    """Return the traceback, even if `str()` of the exception raises."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - formatting runs user code
        return "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}: {safe_str(error)}"


def peak_memory() -> int | None:
    """Return the largest resident size of this process in bytes, or None if the system does not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if os.uname().sysname == "Darwin" else int(peak) * 1024
