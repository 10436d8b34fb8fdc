"""Schemas of limits."""

from __future__ import annotations

from pydantic import Field, model_validator

from milepost.core.limits import MAX_LIMIT
from milepost.web.schemas.fields import RequestModel, ResponseModel, Whole


class LimitSettings(RequestModel):
    """At most `running` jobs with the limit key run at once, and `per_partition` of each partition; null is no limit."""

    running: Whole | None = Field(None, ge=0, le=MAX_LIMIT, examples=[8])
    per_partition: Whole | None = Field(None, ge=1, le=MAX_LIMIT, examples=[2])

    @model_validator(mode="after")
    def _sets_one(self) -> LimitSettings:
        if self.running is None and self.per_partition is None:
            raise ValueError("running or per_partition must be a number; DELETE removes a limit")
        return self


class LimitRecord(ResponseModel):
    """A limit with its use: the number of jobs that run under it, also by partition."""

    key: str
    running: int | None
    per_partition: int | None
    leases: int
    partitions: dict[str, int]


class LimitList(ResponseModel):
    """All limits, by key."""

    limits: list[LimitRecord]
