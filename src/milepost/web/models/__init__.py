"""The shapes of requests and answers, as OpenAPI shows them. Requests are checked by them; answers are written as bytes
elsewhere, and tests hold the two together.
"""

from __future__ import annotations

from milepost.web.models.access import (
    HookBody,
    HookList,
    HookReplayed,
    HookShape,
    HookTested,
    KeyBody,
    KeyList,
    KeyShape,
    NewHook,
    NewKey,
    ReplayBody,
    SessionBody,
    SessionShape,
    Share,
    ShareBody,
)
from milepost.web.models.jobs import (
    Attempts,
    BulkBody,
    BulkDone,
    CancelBody,
    Done,
    EventShape,
    JobList,
    JobRecord,
    Logs,
    RetryBody,
    StageShape,
    SubmitBody,
    UpdateBody,
)
from milepost.web.models.overview import Doctor, Failures, JobTypes, JobTypeShape, LimitBody, Purged, Stats, Workers
from milepost.web.models.problems import ProblemShape, problems
from milepost.web.models.shapes import Json, When

__all__ = [
    "Attempts",
    "BulkBody",
    "BulkDone",
    "CancelBody",
    "Doctor",
    "Done",
    "EventShape",
    "Failures",
    "HookBody",
    "HookList",
    "HookReplayed",
    "HookShape",
    "HookTested",
    "JobList",
    "JobRecord",
    "JobTypeShape",
    "JobTypes",
    "Json",
    "KeyBody",
    "KeyList",
    "KeyShape",
    "LimitBody",
    "Logs",
    "NewHook",
    "NewKey",
    "ProblemShape",
    "Purged",
    "ReplayBody",
    "RetryBody",
    "SessionBody",
    "SessionShape",
    "Share",
    "ShareBody",
    "StageShape",
    "Stats",
    "SubmitBody",
    "UpdateBody",
    "When",
    "Workers",
    "problems",
]
