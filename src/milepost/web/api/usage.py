"""What jobs have spent: by type, day or label, and by one job with its descendants."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from milepost.core.errors import InvalidInputError
from milepost.core.ledger import OnBudget, UsageReport
from milepost.manager.usage import usage_report
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.schemas.fields import ResponseModel
from milepost.web.security.principals import READ


class Usage(ResponseModel):
    """What jobs spent from the day `since` to the day `until`, both included, in UTC: amounts by name, by group and in all.

    Groups are types, days, or values of a label; jobs without the label are under "". `complete` is false if earlier days
    of the period are no longer kept. `label_names` has the names of the labels of these jobs.
    """

    since: str
    until: str
    by: str
    groups: dict[str, dict[str, float]]
    total: dict[str, float]
    complete: bool
    label_names: list[str]


class JobUsage(ResponseModel):
    """What the runs of a job, its descendants, and both have spent: amounts by name. And the budget of the job, which covers
    its descendants, with what happens once it is spent; null without a budget."""

    own: dict[str, float]
    descendants: dict[str, float]
    total: dict[str, float]
    budget: dict[str, float]
    on_budget: OnBudget | None


def add_usage(router: APIRouter, context: WebContext) -> None:
    """Add the routes for usage."""
    read = context.authenticator.require(READ)

    @router.get("/api/usage", dependencies=[read], response_model=Usage, responses=schemas.problems(),
                tags=["usage"], summary="Get what jobs have spent, by type, day or label")  # fmt: skip
    async def usage(
        request: Request,
        by: Annotated[str, Query(max_length=200, description="`type`, `day` or `label:NAME`.")] = "type",
        since: Annotated[str | None, Query(max_length=10, examples=["2026-11-01"])] = None,
        until: Annotated[str | None, Query(max_length=10, examples=["2026-11-30"])] = None,
        job_type: Annotated[str | None, Query(max_length=128)] = None,
        label: Annotated[list[str] | None, Query(max_length=16, description="`NAME=VALUE`; may be repeated.")] = None,
    ) -> Response:
        wanted = dict(map(_pair, label or []))
        own = principal_of(request).labels
        report = await usage_report(context.store, by, since, until, job_type, {**wanted, **own})
        if any(own.get(name, value) != value for name, value in wanted.items()):
            report = UsageReport(report.since, report.until, by, complete=report.complete)
        return JsonResponse(report.to_dict())

    @router.get("/api/jobs/{job_id}/usage", dependencies=[context.authenticator.require(READ, link=True)],
                response_model=JobUsage, responses=schemas.problems(404), tags=["jobs"],
                summary="Get what a job and its descendants have spent")  # fmt: skip
    async def job_usage(request: Request, job_id: str) -> Response:
        await context.visible_job(request, job_id)
        return JsonResponse((await context.manager.job_usage(job_id)).to_dict())


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise InvalidInputError("label", f"{text!r:.60} must be NAME=VALUE")
    return name, value
