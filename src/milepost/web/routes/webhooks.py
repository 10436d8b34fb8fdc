"""Webhooks: made, listed, removed, tried, and sent again."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.stores.filters import parse_filter
from milepost.stores.ids import new_job_id
from milepost.web import hooks, models
from milepost.web.addresses import public_address
from milepost.web.audit import audit
from milepost.web.delivering import Deliverer, begin, message_of
from milepost.web.hooks import Delivery, Hook
from milepost.web.principals import ADMIN
from milepost.web.problems import Problem
from milepost.web.site import Site, who
from milepost.web.wire import encoded

JSON = "application/json"
REPLAYED_MAX = 1000


def add_webhooks(router: APIRouter, site: Site) -> None:
    """Add the calls about webhooks."""
    admin = [site.gate.need(ADMIN)]
    deliverer = Deliverer(lambda: site.store)
    site.background.append(lambda _: deliverer)

    async def known(hook_id: str) -> Hook:
        hook = await hooks.get(site.store, hook_id)
        if hook is None:
            raise Problem(404, "Webhook not found")
        return hook

    @router.get("/api/webhooks", dependencies=admin, response_model=models.HookList, responses=models.problems(),
                tags=["webhooks"], summary="All webhooks, with what is still to be sent to them")  # fmt: skip
    async def list_webhooks() -> Response:
        shown = [
            {**hook.to_dict(), "waiting": await hooks.waiting(site.store, hook.id)}
            for hook in await hooks.all_hooks(site.store)
        ]
        return Response(encoded({"webhooks": shown}), media_type=JSON)

    @router.post("/api/webhooks", dependencies=admin, status_code=201, response_model=models.NewHook,
                 responses=models.problems(), tags=["webhooks"],
                 summary="Make a webhook; its secret is shown this once")  # fmt: skip
    async def create_webhook(request: Request, body: models.HookBody) -> Response:
        hooks.address_text(body.url)
        await public_address(body.url)
        await begin(site.store)
        hook = await hooks.create(site.store, body.url, tuple(body.events), body.q)
        await audit(site.store, who(request), "webhook.create", hook.id, url=hook.url)
        return Response(encoded({**hook.to_dict(), "secret": hook.secret}), 201, media_type=JSON)

    @router.delete("/api/webhooks/{hook_id}", dependencies=admin, status_code=204, response_class=Response,
                   responses=models.problems(404), tags=["webhooks"], summary="Remove a webhook")  # fmt: skip
    async def delete_webhook(request: Request, hook_id: str) -> Response:
        if not await hooks.delete(site.store, hook_id):
            raise Problem(404, "Webhook not found")
        await audit(site.store, who(request), "webhook.delete", hook_id)
        return Response(status_code=204)

    @router.post("/api/webhooks/{hook_id}/test", dependencies=admin, response_model=models.HookTested,
                 responses=models.problems(404), tags=["webhooks"], summary="Send a test message, now")  # fmt: skip
    async def test_webhook(hook_id: str) -> Response:
        hook = await known(hook_id)
        body = json.dumps({"type": "milepost.test", "data": {"webhook": hook.id}})
        delivery = Delivery(hook.id, f"msg_test_{new_job_id()}", body, await site.store.now())
        status, problem = await deliverer.post(hook, delivery)
        taken = 200 <= status < 300
        return Response(encoded({"taken": taken, "status": status or None, "problem": problem}), media_type=JSON)

    @router.post("/api/webhooks/{hook_id}/replay", dependencies=admin, response_model=models.HookReplayed,
                 responses=models.problems(404), tags=["webhooks"],
                 summary="Send the ends of jobs again, with the ids that they had")  # fmt: skip
    async def replay_webhook(request: Request, hook_id: str, body: models.ReplayBody) -> Response:
        hook = await known(hook_id)
        if hook.disabled is not None:
            hook = await hooks.disable(site.store, hook, None)
        query = parse_filter(f"is:ended {body.q}").query
        page = await site.manager.find(query, REPLAYED_MAX, body.cursor)
        now, count = await site.store.now(), 0
        for job in page.jobs:
            if job.status.value in hook.events:
                message_id, text = message_of(job)
                await hooks.keep(site.store, Delivery(hook.id, message_id, text, now))
                count += 1
        await audit(site.store, who(request), "webhook.replay", hook_id, count=count)
        return Response(encoded({"queued": count, "next_cursor": page.next_cursor}), media_type=JSON)
