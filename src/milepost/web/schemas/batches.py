"""Schemas of batches."""

from __future__ import annotations

from pydantic import Field

from milepost.web.schemas.fields import ID_PATTERN, RequestModel, ResponseModel, Status


class BatchBody(RequestModel):
    """A batch to open, or to continue. Without `name` it gets a new one. Jobs join it with `group`."""

    name: str | None = Field(None, pattern=ID_PATTERN, examples=["import-42"])
    labels: dict[str, str] | None = None


class CloseBody(RequestModel):
    """With `error` the batch fails, and its open jobs are cancelled."""

    error: str | None = Field(None, min_length=1, max_length=1000)


class BatchCounts(ResponseModel):
    """A batch with the exact numbers of its jobs. `open` ones have not ended. `progress` is the part that has, from 0 to 1.

    `closed` is whether it accepts no more jobs. It ends, with its `status`, when it is closed and none is open.
    """

    name: str
    status: Status
    closed: bool
    total: int
    open: int
    completed: int
    failed: int
    cancelled: int
    progress: float = Field(ge=0, le=1)


class ClosedBatch(ResponseModel):
    """A batch that was closed, as in BatchCounts. A key without `jobs:read` gets no counts."""

    name: str
    status: Status
    closed: bool
    total: int | None = None
    open: int | None = None
    completed: int | None = None
    failed: int | None = None
    cancelled: int | None = None
    progress: float = Field(ge=0, le=1)
