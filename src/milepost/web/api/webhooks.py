"""Create, list, delete, test and replay webhooks."""

from __future__ import annotations

import json
from typing import Literal, get_args

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from milepost.query.filters import parse_filter
from milepost.stores.ids import new_job_id
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.http.problems import Problem
from milepost.web.schemas.fields import FinalStatus, RequestModel, ResponseModel
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN
from milepost.web.webhooks import registry
from milepost.web.webhooks.addresses import public_address
from milepost.web.webhooks.delivery import WebhookSender, begin
from milepost.web.webhooks.messages import message_for
from milepost.web.webhooks.registry import Delivery, WebhookEndpoint

MAX_REPLAYED = 1000


class WebhookBody(RequestModel):
    """A new webhook for the ends of jobs that match a filter, by default, for their questions (`asked`), or for those that stall (`stalled`)."""

    url: str = Field(min_length=1, max_length=2000, examples=["https://example.org/hooks/milepost"])
    events: list[FinalStatus | Literal["asked", "stalled"]] = Field(
        default_factory=lambda: list(get_args(FinalStatus)), min_length=1, max_length=5
    )
    q: str = Field("", max_length=2000)


class Webhook(ResponseModel):
    """A webhook without its secret. `waiting` is the number of pending deliveries. Of those that were not accepted, `next_at` is
    when the first is sent again, and `problem` what was wrong with it.
    """

    id: str
    url: str
    events: list[str]
    q: str
    created_at: str
    disabled: str | None
    waiting: int | None = None
    problem: str | None = None
    next_at: str | None = None


class WebhookList(ResponseModel):
    """All webhooks."""

    webhooks: list[Webhook]


class NewWebhook(Webhook):
    """A webhook with its signing secret, which is returned only once."""

    secret: str


class WebhookTested(ResponseModel):
    """The response of the receiver to a test message."""

    taken: bool
    status: int | None
    problem: str


class ReplayBody(RequestModel):
    """Which ended jobs to send again, at most 1,000 per request."""

    q: str = Field("created:1d", max_length=2000)
    cursor: str | None = Field(None, max_length=400)


class WebhookReplayed(ResponseModel):
    """The number of queued messages."""

    queued: int
    next_cursor: str | None


def add_webhooks(router: APIRouter, context: WebContext) -> None:
    """Add the routes for webhooks."""
    admin = [context.authenticator.require(ADMIN)]
    sender = WebhookSender(context.feed)
    context.background.append(lambda _: sender)

    async def known(hook_id: str) -> WebhookEndpoint:
        hook = await registry.get(context.store, hook_id)
        if hook is None:
            raise Problem(404, "Webhook not found")
        return hook

    @router.get("/api/webhooks", dependencies=admin, response_model=WebhookList, responses=schemas.problems(),
                tags=["webhooks"], summary="List webhooks with their pending deliveries")  # fmt: skip
    async def list_webhooks() -> Response:
        shown = [
            {**hook.to_dict(), **await registry.pending(context.store, hook.id)}
            for hook in await registry.all_hooks(context.store)
        ]
        return JsonResponse({"webhooks": shown})

    @router.post("/api/webhooks", dependencies=admin, status_code=201, response_model=NewWebhook,
                 responses=schemas.problems(), tags=["webhooks"],
                 summary="Create a webhook; its secret is returned only once")  # fmt: skip
    async def create_webhook(request: Request, body: WebhookBody) -> Response:
        registry.validate_url(body.url)
        await public_address(body.url)
        await begin(context.store)
        hook = await registry.create(context.store, body.url, tuple(body.events), body.q)
        sender.wake()
        await audit(context.store, principal_of(request), "webhook.create", hook.id, url=hook.url)
        return JsonResponse({**hook.to_dict(), "secret": hook.secret}, 201)

    @router.delete("/api/webhooks/{hook_id}", dependencies=admin, status_code=204, response_class=Response,
                   responses=schemas.problems(404), tags=["webhooks"], summary="Delete a webhook")  # fmt: skip
    async def delete_webhook(request: Request, hook_id: str) -> Response:
        if not await registry.delete(context.store, hook_id):
            raise Problem(404, "Webhook not found")
        await audit(context.store, principal_of(request), "webhook.delete", hook_id)
        return Response(status_code=204)

    @router.post("/api/webhooks/{hook_id}/test", dependencies=admin, response_model=WebhookTested,
                 responses=schemas.problems(404), tags=["webhooks"], summary="Send a test message")  # fmt: skip
    async def test_webhook(hook_id: str) -> Response:
        hook = await known(hook_id)
        body = json.dumps({"type": "milepost.test", "data": {"webhook": hook.id}})
        delivery = Delivery(hook.id, f"msg_test_{new_job_id()}", body, await context.store.now())
        status, problem = await sender.post(hook, delivery)
        taken = 200 <= status < 300
        return JsonResponse({"taken": taken, "status": status or None, "problem": problem})

    @router.post("/api/webhooks/{hook_id}/replay", dependencies=admin, response_model=WebhookReplayed,
                 responses=schemas.problems(404), tags=["webhooks"],
                 summary="Send messages for ended jobs again, with their original ids")  # fmt: skip
    async def replay_webhook(request: Request, hook_id: str, body: ReplayBody) -> Response:
        hook = await known(hook_id)
        if hook.disabled is not None:
            hook = await registry.disable(context.store, hook, None)
        query = parse_filter(f"is:ended {body.q}").query
        page = await context.manager.find(query, MAX_REPLAYED, body.cursor)
        now, count = await context.store.now(), 0
        for job in page.jobs:
            if job.status.value in hook.events:
                message_id, text = message_for(job)
                await registry.save_delivery(context.store, Delivery(hook.id, message_id, text, now))
                count += 1
        await audit(context.store, principal_of(request), "webhook.replay", hook_id, count=count)
        return JsonResponse({"queued": count, "next_cursor": page.next_cursor})
