"""The crash dossier: what a person needs to know of an attempt that ended badly. Owns its form; knows no store."""

from __future__ import annotations

import os
import socket
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from milepost.core.encoding import ERROR_BYTES, FAILURE_BYTES, one_line, printable, safe_str, to_json
from milepost.core.job import FailureKind, Job
from milepost.tracking.process import versions

if TYPE_CHECKING:
    from milepost.tracking.run import Run

DOSSIER_BYTES = 4 * FAILURE_BYTES


def dossier(kind: FailureKind, message: str, **known: Any) -> str:
    """A failure as JSON text; what is None is left out."""
    fields = {"kind": kind.value, "message": printable(message), "at": datetime.now(UTC).isoformat(), **known}
    return to_json({name: value for name, value in fields.items() if value is not None}, "failure", DOSSIER_BYTES)


def of_exception(error: BaseException, run: Run | None, kind: FailureKind = FailureKind.ERROR) -> tuple[str, str]:
    """The one-line error and the dossier of an exception that ended a run in this process."""
    text = safe_str(error)
    name = type(error).__name__
    line = one_line(text if text else name, ERROR_BYTES)
    known = of_run(run) if run is not None else {}
    return line, dossier(
        kind,
        text,
        type=f"{type(error).__module__}.{name}" if type(error).__module__ != "builtins" else name,
        traceback=printable(_traceback(error)),
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=versions(),
        **{"peak_memory": peak_memory(), **known},
    )


def of_run(run: Run) -> dict[str, Any]:
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
