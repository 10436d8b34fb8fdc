"""Log records with the job that they belong to: a filter for any format, and a JSON formatter."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from milepost.run import context
from milepost.run.otel import current_trace, trace_id

FIELDS = ("job_id", "job_type", "attempt", "trace_id")


class JobContext(logging.Filter):
    """A logging filter that adds the fields of the current job to each record.

    The fields are `job_id`, `job_type`, `attempt` and `trace_id`; outside of a run they are None. Use it as
    ``handler.addFilter(JobContext())`` with a format such as ``%(job_id)s %(message)s``. Fields given by ``extra=``
    stay.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields and let the record pass."""
        for name, value in _job_fields().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    The keys are `at` (UTC), `level`, `logger`, `message`, the fields of the job and `traceback`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        here = _job_fields()
        for name in FIELDS:
            value = getattr(record, name, here[name])
            if value is not None:
                line[name] = value
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _job_fields() -> dict[str, Any]:
    run = context.current()
    if run is None:
        return {**dict.fromkeys(FIELDS), "trace_id": trace_id(current_trace())}
    trace = trace_id(current_trace() or run.trace)
    return {"job_id": run.job_id, "job_type": run.job_type, "attempt": run.attempt, "trace_id": trace}


__all__ = ["JobContext", "JsonFormatter"]
