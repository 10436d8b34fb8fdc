"""Log records that say whose they are: the job, its attempt and its trace. Owns the names of these fields and their form as
JSON; where they are written is the application's.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from milepost.tracking import belonging
from milepost.tracking.tracing import current_trace, trace_id

FIELDS = ("job_id", "job_type", "attempt", "trace_id")


class JobContext(logging.Filter):
    """Gives each record `job_id`, `job_type`, `attempt` and `trace_id`: of the run whose code logs, else None.

    For a handler: ``handler.addFilter(JobContext())``, with a format such as ``%(job_id)s %(message)s``. What a record has
    already, by ``extra=``, stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        for name, value in _here().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: `at` (UTC), `level`, `logger`, `message`, the fields of its job, `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        here = _here()
        for name in FIELDS:
            value = getattr(record, name, here[name])
            if value is not None:
                line[name] = value
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _here() -> dict[str, Any]:
    run = belonging.current()
    if run is None:
        return {**dict.fromkeys(FIELDS), "trace_id": trace_id(current_trace())}
    trace = trace_id(current_trace() or run.trace)
    return {"job_id": run.job_id, "job_type": run.job_type, "attempt": run.attempt, "trace_id": trace}
