"""Schemas of limits."""

from __future__ import annotations

from pydantic import Field, model_validator

from milepost.core.limits import MAX_LIMIT
from milepost.core.rate import MAX_PERIOD
from milepost.web.schemas.fields import RequestModel, ResponseModel, Whole


class LimitSettings(RequestModel):
    """At most `running` jobs with the limit key run at once, `per_partition` of each partition, and start at the rate; null
    is no limit."""

    running: Whole | None = Field(None, ge=0, le=MAX_LIMIT, examples=[8])
    per_partition: Whole | None = Field(None, ge=1, le=MAX_LIMIT, examples=[2])
    rate: str | None = Field(None, description="Starts per period.", max_length=40, examples=["500/min"])

    @model_validator(mode="after")
    def _sets_one(self) -> LimitSettings:
        if self.running is None and self.per_partition is None and self.rate is None:
            raise ValueError("running, per_partition or rate must be set; DELETE removes a limit")
        return self


class GateClosing(RequestModel):
    """For how long no job with the limit key starts."""

    seconds: float = Field(ge=0, le=MAX_PERIOD, examples=[30])


class LimitRecord(ResponseModel):
    """A limit with its use: the number of jobs that run under it, also by partition, and of those that wait for nothing but a
    worker, the limit, the rate or the gate.
    """

    key: str
    running: int | None
    per_partition: int | None
    leases: int
    partitions: dict[str, int]
    rate: str | None
    gate_until: str | None
    claimable: int


class LimitList(ResponseModel):
    """All limits, by key."""

    limits: list[LimitRecord]
