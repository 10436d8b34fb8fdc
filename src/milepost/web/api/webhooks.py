"""Create, list, delete, test and replay webhooks."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.query.filters import parse_filter
from milepost.stores.ids import new_job_id
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import encoded
from milepost.web.http.problems import Problem
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN
from milepost.web.webhooks import registry
from milepost.web.webhooks.addresses import public_address
from milepost.web.webhooks.delivery import WebhookSender, begin
from milepost.web.webhooks.messages import message_for
from milepost.web.webhooks.registry import Delivery, WebhookEndpoint

JSON = "application/json"
MAX_REPLAYED = 1000


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

    @router.get("/api/webhooks", dependencies=admin, response_model=schemas.WebhookList, responses=schemas.problems(),
                tags=["webhooks"], summary="List webhooks with their pending deliveries")  # fmt: skip
    async def list_webhooks() -> Response:
        shown = [
            {**hook.to_dict(), **await registry.pending(context.store, hook.id)}
            for hook in await registry.all_hooks(context.store)
        ]
        return Response(encoded({"webhooks": shown}), media_type=JSON)

    @router.post("/api/webhooks", dependencies=admin, status_code=201, response_model=schemas.NewWebhook,
                 responses=schemas.problems(), tags=["webhooks"],
                 summary="Create a webhook; its secret is returned only once")  # fmt: skip
    async def create_webhook(request: Request, body: schemas.WebhookBody) -> Response:
        registry.validate_url(body.url)
        await public_address(body.url)
        await begin(context.store)
        hook = await registry.create(context.store, body.url, tuple(body.events), body.q)
        sender.wake()
        await audit(context.store, principal_of(request), "webhook.create", hook.id, url=hook.url)
        return Response(encoded({**hook.to_dict(), "secret": hook.secret}), 201, media_type=JSON)

    @router.delete("/api/webhooks/{hook_id}", dependencies=admin, status_code=204, response_class=Response,
                   responses=schemas.problems(404), tags=["webhooks"], summary="Delete a webhook")  # fmt: skip
    async def delete_webhook(request: Request, hook_id: str) -> Response:
        if not await registry.delete(context.store, hook_id):
            raise Problem(404, "Webhook not found")
        await audit(context.store, principal_of(request), "webhook.delete", hook_id)
        return Response(status_code=204)

    @router.post("/api/webhooks/{hook_id}/test", dependencies=admin, response_model=schemas.WebhookTested,
                 responses=schemas.problems(404), tags=["webhooks"], summary="Send a test message")  # fmt: skip
    async def test_webhook(hook_id: str) -> Response:
        hook = await known(hook_id)
        body = json.dumps({"type": "milepost.test", "data": {"webhook": hook.id}})
        delivery = Delivery(hook.id, f"msg_test_{new_job_id()}", body, await context.store.now())
        status, problem = await sender.post(hook, delivery)
        taken = 200 <= status < 300
        return Response(encoded({"taken": taken, "status": status or None, "problem": problem}), media_type=JSON)

    @router.post("/api/webhooks/{hook_id}/replay", dependencies=admin, response_model=schemas.WebhookReplayed,
                 responses=schemas.problems(404), tags=["webhooks"],
                 summary="Send messages for ended jobs again, with their original ids")  # fmt: skip
    async def replay_webhook(request: Request, hook_id: str, body: schemas.ReplayBody) -> Response:
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
        return Response(encoded({"queued": count, "next_cursor": page.next_cursor}), media_type=JSON)
