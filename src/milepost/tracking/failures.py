"""The crash dossier: what a person needs to know of an attempt that ended badly. Owns its form; knows no store."""

from __future__ import annotations

import logging
import os
import socket
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol, cast

from milepost.core.encoding import ERROR_BYTES, FAILURE_BYTES, cut, one_line, printable, safe_str, seconds, to_json
from milepost.core.errors import InvalidInput, Retry
from milepost.core.job import FailureKind, Job
from milepost.tracking.process import versions

log = logging.getLogger("milepost.tracking")

DOSSIER_BYTES = 4 * FAILURE_BYTES
SHORT_BYTES = FAILURE_BYTES // 8
"""What of a long text is kept where the whole does not fit into the dossier."""


class Teller(Protocol):
    """What a dossier needs of a run: a Run of this process, or what stands for one in a child process."""

    attempt: int
    checkpoint_at: str | None
    masks: tuple[str, ...]
    redact: Callable[[str], str] | None

    @property
    def stage_name(self) -> str | None:
        """The innermost open stage."""

    @property
    def last_item(self) -> str | None:
        """The key of the item that finished last."""

    @property
    def recent_log(self) -> Iterable[str]:
        """Its newest log lines."""


def dossier(kind: FailureKind, message: str, **known: Any) -> str:
    """A failure as JSON text; what is None is left out."""
    fields = {"kind": kind.value, "message": printable(message), "at": datetime.now(UTC).isoformat(), **known}
    fields = {name: value for name, value in fields.items() if value is not None}
    try:
        return to_json(fields, "failure", DOSSIER_BYTES)
    except InvalidInput:  # each quote in a text takes two bytes, and each control character six
        return to_json({name: _shortened(value) for name, value in fields.items()}, "failure", DOSSIER_BYTES)


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [cut(line, SHORT_BYTES // 8) for line in value]
    return cut(value, SHORT_BYTES) if isinstance(value, str) else value


def of_exception(
    error: BaseException, run: Teller | None, kind: FailureKind = FailureKind.ERROR, stack: str | None = None
) -> tuple[str, str]:
    """The one-line error and the dossier of an exception that ended a run in this process.

    `stack` stands in place of its traceback: where code is that goes on.
    """
    text = shown(safe_str(error), run)
    name = type(error).__name__
    line = one_line(text if text else name, ERROR_BYTES)
    known = of_run(run) if run is not None else {}
    return line, dossier(
        kind,
        text,
        type=f"{type(error).__module__}.{name}" if type(error).__module__ != "builtins" else name,
        traceback=printable(shown(stack if stack is not None else _traceback(error), run)),
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=versions(),
        **{"peak_memory": peak_memory(), **known},
    )


def masked(text: str, masks: tuple[str, ...]) -> str:
    """A text without the values of secret parameters."""
    for secret in masks:
        text = text.replace(secret, "***")
    return text


def shown(text: str, run: Teller | None) -> str:
    """A text of the run as others may see it: without its secrets, and as its redaction hook leaves it."""
    if run is None:
        return text
    if run.masks:
        text = masked(text, run.masks)
    if run.redact is None:
        return text
    try:
        return str(run.redact(text))
    except Exception as error:  # noqa: BLE001 - the hook is the user's; what it could not read nobody sees
        return f"*** (the redaction hook raised {type(error).__name__})"


@lru_cache
def redaction(reference: str | None) -> Callable[[str], str] | None:
    """The redaction hook ``module:function`` of the settings. Raises InvalidInput when there is none of that name."""
    if reference is None:
        return None
    module, _, name = reference.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InvalidInput("redact", f"{reference!r:.200} cannot be imported: {one_line(error, 200)}") from error
    if not callable(found):
        raise InvalidInput("redact", f"{reference!r:.200} is not a function")
    return cast("Callable[[str], str]", found)


def asked_delay(error: BaseException | None) -> float | None:
    """The seconds after which a Retry asks for the next attempt; None for the usual wait, as for what is no duration."""
    if not isinstance(error, Retry) or error.delay is None:
        return None
    if isinstance(error.delay, int | float) and error.delay <= 0:
        return 0.0
    try:
        return seconds(error.delay, "delay")
    except InvalidInput as problem:
        log.warning("Retry: %s; the next attempt waits as usual", problem)
        return None


def of_run(run: Teller) -> dict[str, Any]:
    """What a run tells of itself."""
    return {
        "attempt": run.attempt,
        "last_stage": run.stage_name,
        "last_item": run.last_item,
        "last_log": list(run.recent_log),
        "last_checkpoint_at": run.checkpoint_at,
    }


def of_record(job: Job, kind: FailureKind, message: str, **known: Any) -> str:
    """The dossier of a run that can no longer speak, from its record."""
    open_stages = [stage.name for stage in job.stages if stage.ended_at is None]
    facts: dict[str, Any] = {
        "attempt": job.attempt,
        "last_stage": open_stages[-1] if open_stages else None,
        "last_checkpoint_at": job.checkpoint_at.isoformat() if job.checkpoint_at is not None else None,
        "host": (job.worker or "").split(":")[0] or None,
    }
    return dossier(kind, message, **{**facts, **known})


def _traceback(error: BaseException) -> str:
    """The traceback; a `str()` that raises does not spoil it."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - the exception is the user's, and formatting calls its code
        return "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}: {safe_str(error)}"


def peak_memory() -> int | None:
    """The largest resident size that this process had, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if os.uname().sysname == "Darwin" else int(peak) * 1024
