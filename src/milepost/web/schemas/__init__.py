"""Request and response schemas. Requests are validated with them; responses are written as bytes and only documented by
them.
"""

from __future__ import annotations

from milepost.web.schemas.fields import Json, Problem, When, problems
from milepost.web.schemas.jobs import (
    AnswerBody,
    Attempts,
    BulkBody,
    BulkDone,
    CancelBody,
    Done,
    EventRecord,
    JobList,
    JobRecord,
    Logs,
    OutputRecord,
    RetryBody,
    SubmitBody,
    UpdateBody,
)

__all__ = [
    "AnswerBody",
    "Attempts",
    "BulkBody",
    "BulkDone",
    "CancelBody",
    "Done",
    "EventRecord",
    "JobList",
    "JobRecord",
    "Json",
    "Logs",
    "OutputRecord",
    "Problem",
    "RetryBody",
    "SubmitBody",
    "UpdateBody",
    "When",
    "problems",
]
