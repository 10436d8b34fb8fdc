"""Sign-in, API keys and share links."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from milepost.core.defaults import PRIORITY_MAX
from milepost.core.job import Job
from milepost.web import schemas
from milepost.web.auth import cookie_name, log_refused, refuse_forgery
from milepost.web.context import WebContext, job_url, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.http.problems import Problem
from milepost.web.schemas.fields import RequestModel, ResponseModel
from milepost.web.security.api_keys import MAX_LINKS_PER_JOB, SESSION_SECONDS, Link, TooManySessionsError
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN, CANCEL, READ, WRITE, limit_reached


class SessionBody(RequestModel):
    """The API key to sign in with."""

    key: str = Field(min_length=1, max_length=200)


class Session(ResponseModel):
    """The caller's identity and permissions, and whether this server searches documents."""

    id: str | None
    scopes: list[str]
    labels: dict[str, str]
    types: list[str]
    queues: list[str]
    max_priority: int | None
    auth: str
    documents: bool


class ApiKeyBody(RequestModel):
    """A new API key. `expires_in` is in seconds. With `labels` it sees only jobs that have them; with `types` and
    `queues` it submits and retries only jobs of these types and in these queues. Its jobs have at most `max_priority`.
    """

    name: str = Field(min_length=1, max_length=200)
    scopes: list[Literal["jobs:read", "jobs:write", "jobs:delete", "jobs:cancel", "jobs:answer", "admin"]] = Field(
        min_length=1, max_length=6, examples=[["jobs:read", "jobs:write"]]
    )
    labels: dict[str, str] | None = None
    types: list[str] | None = Field(None, max_length=100, examples=[["summary"]])
    queues: list[str] | None = Field(None, max_length=100, examples=[["gpu"]])
    max_priority: int | None = Field(None, ge=-PRIORITY_MAX, le=PRIORITY_MAX)
    expires_in: float | None = Field(None, gt=0, le=100 * 366 * 86400)


class ApiKey(ResponseModel):
    """An API key without its secret."""

    id: str
    name: str
    scopes: list[str]
    labels: dict[str, str]
    types: list[str]
    queues: list[str]
    max_priority: int | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewApiKey(ApiKey):
    """An API key with its secret, which is returned only once."""

    secret: str


class ApiKeyList(ResponseModel):
    """All API keys."""

    keys: list[ApiKey]


class ShareBody(RequestModel):
    """The validity of a link in seconds, and whether it may cancel the job."""

    expires_in: float = Field(default=7 * 86400.0, gt=0, le=30 * 86400)
    may_cancel: bool = False


class ShareLink(ResponseModel):
    """A share link without its token. `by` is its creator."""

    id: str
    by: str | None
    may_cancel: bool
    created_at: str
    expires_at: str


class Share(ShareLink):
    """A new share link with its token, which is returned only once."""

    token: str
    path: str


class ShareList(ResponseModel):
    """The valid share links of a job."""

    links: list[ShareLink]


def add_access(router: APIRouter, context: WebContext) -> None:
    """Add the routes for sign-in, API keys and share links."""
    admin, read = [context.authenticator.require(ADMIN)], [context.authenticator.require(READ)]
    anybody = [context.authenticator.require(None, link=True)]
    kind = context.authenticator.auth.kind

    @router.get("/api/session", dependencies=anybody, response_model=Session, responses=schemas.problems(),
                tags=["access"], summary="Get the caller's identity and permissions")  # fmt: skip
    async def get_session(request: Request) -> Response:
        principal = principal_of(request)
        body = {
            "id": "share" if principal.job_id is not None else principal.id,
            "scopes": sorted(principal.scopes),
            "labels": dict(principal.labels),
            "types": sorted(principal.types),
            "queues": sorted(principal.queues),
            "max_priority": principal.max_priority,
            "job_id": principal.job_id,
            "auth": kind,
            "documents": context.has_documents,
        }
        return JsonResponse(body)

    @router.post("/api/session", status_code=204, response_class=Response, responses=schemas.problems(404),
                 tags=["access"], summary="Sign in with an API key or the token of a sign-in link; sets a cookie")  # fmt: skip
    async def sign_in(request: Request, body: SessionBody) -> Response:
        refuse_forgery(request, ambient=False)
        if kind != "keys":
            raise Problem(404, "This server does not use API keys")
        most = context.manager.settings.max_sessions
        try:
            session = await context.authenticator.keys.sign_in(body.key, most)
        except TooManySessionsError:
            raise limit_reached("Too many sessions are signed in with this key", most, 60) from None
        if session is None and context.authenticator.local is not None:
            session = context.authenticator.local.sign_in(body.key)
        if session is None:
            log_refused(request, body.key)
            raise Problem(401, "The API key is not valid", headers={"WWW-Authenticate": "Bearer"})
        answer = Response(status_code=204)
        answer.set_cookie(
            cookie_name(request),
            session,
            max_age=int(SESSION_SECONDS),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @router.delete("/api/session", status_code=204, response_class=Response, responses=schemas.problems(),
                   tags=["access"], summary="Sign out")  # fmt: skip
    async def sign_out(request: Request) -> Response:
        name = cookie_name(request)
        session = request.cookies.get(name)
        refuse_forgery(request, ambient=session is not None)
        if session is not None:
            await context.authenticator.keys.sign_out(session)
            if context.authenticator.local is not None:
                context.authenticator.local.sign_out(session)
        answer = Response(status_code=204)
        answer.delete_cookie(name, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer

    @router.get("/api/keys", dependencies=admin, response_model=ApiKeyList, responses=schemas.problems(),
                tags=["access"], summary="List API keys, without their secrets")  # fmt: skip
    async def list_keys() -> Response:
        return JsonResponse({"keys": [key.to_dict() for key in await context.authenticator.keys.all()]})

    @router.post("/api/keys", dependencies=admin, status_code=201, response_model=NewApiKey,
                 responses=schemas.problems(), tags=["access"], summary="Create an API key; its secret is returned only once")  # fmt: skip
    async def create_key(request: Request, body: ApiKeyBody) -> Response:
        if kind == "none":
            # Such a key would also be valid on every other server of this store.
            raise Problem(
                403,
                "This server has no authentication, so it does not create API keys; use `milepost keys create` with the store's URL",
            )
        key, secret = await context.authenticator.keys.create(
            body.name,
            body.scopes,
            labels=body.labels,
            types=body.types or (),
            queues=body.queues or (),
            max_priority=body.max_priority,
            expires_in=body.expires_in,
        )
        details = {"scopes": key.scopes, "labels": dict(key.labels), "types": key.types, "queues": key.queues}
        await audit(context.store, principal_of(request), "key.create", key.id, **details)
        return JsonResponse({**key.to_dict(), "secret": secret}, 201)

    @router.delete("/api/keys/{key_id}", dependencies=admin, status_code=204, response_class=Response,
                   responses=schemas.problems(404), tags=["access"], summary="Revoke an API key")  # fmt: skip
    async def revoke_key(request: Request, key_id: str) -> Response:
        if not await context.authenticator.keys.revoke(key_id):
            raise Problem(404, "Key not found")
        await audit(context.store, principal_of(request), "key.revoke", key_id)
        return Response(status_code=204)

    def needs_keys() -> None:
        if kind != "keys":
            raise Problem(409, "Share links require auth=api_keys()")

    def shown(request: Request, job_id: str, link: Link, token: str) -> Response:
        path = f"{job_url(request, job_id)}?share={token}"
        return JsonResponse({**link.to_dict(), "token": token, "path": path}, 201)

    async def own_link(request: Request, job: Job, link_id: str) -> Link:
        """Return a link that the caller may revoke: their own, or any with `jobs:write`. Raises Problem 403, 404."""
        found = next(
            (link for link in await context.authenticator.share_links.links_to(job) if link.id == link_id), None
        )
        if found is None:
            raise Problem(404, "Share link not found")
        if found.by != principal_of(request).id and not principal_of(request).may(WRITE):
            raise Problem(403, f"Revoking a link of another user requires the scope {WRITE}", scope=WRITE)
        return found

    def may_cancel(request: Request, asked: bool) -> None:
        if asked and not principal_of(request).may(CANCEL):
            raise Problem(403, f"This request requires the scope {CANCEL}", scope=CANCEL)

    @router.get("/api/jobs/{job_id}/share", dependencies=read, response_model=ShareList,
                responses=schemas.problems(404, 409), tags=["access"], summary="List the valid share links of a job")  # fmt: skip
    async def list_links(request: Request, job_id: str) -> Response:
        job = await context.visible_job(request, job_id)
        needs_keys()
        links = [link.to_dict() for link in await context.authenticator.share_links.links_to(job)]
        return JsonResponse({"links": links})

    @router.post("/api/jobs/{job_id}/share", dependencies=read, status_code=201, response_model=Share,
                 responses=schemas.problems(404, 409), tags=["access"], summary="Create a share link: access to one job without a key")  # fmt: skip
    async def share(request: Request, job_id: str, body: ShareBody | None = None) -> Response:
        job = await context.visible_job(request, job_id)
        needs_keys()
        asked = body if body is not None else ShareBody()
        may_cancel(request, asked.may_cancel)
        share_links = context.authenticator.share_links
        if len(await share_links.links_to(job)) >= MAX_LINKS_PER_JOB:
            raise Problem(409, f"The job has {MAX_LINKS_PER_JOB} share links; revoke one first")
        link, token = await share_links.create(
            job, asked.expires_in, by=principal_of(request).id, may_cancel=asked.may_cancel
        )
        await audit(
            context.store, principal_of(request), "job.share", job_id, link=link.id, may_cancel=asked.may_cancel
        )
        return shown(request, job_id, link, token)

    @router.post("/api/jobs/{job_id}/share/{link_id}/rotate", dependencies=read, status_code=201,
                 response_model=Share, responses=schemas.problems(404, 409), tags=["access"],
                 summary="Replace a share link by a new one with the same expiry")  # fmt: skip
    async def rotate_link(request: Request, job_id: str, link_id: str) -> Response:
        job = await context.visible_job(request, job_id)
        needs_keys()
        old = await own_link(request, job, link_id)
        may_cancel(request, old.may_cancel)
        if not await context.authenticator.share_links.revoke(old):
            raise Problem(404, "Share link not found")  # replaced by a concurrent request
        left = max(0.0, (old.expires - await context.store.now()) / 1_000_000)
        link, token = await context.authenticator.share_links.create(
            job, left, by=principal_of(request).id, may_cancel=old.may_cancel
        )
        await audit(context.store, principal_of(request), "job.share.rotate", job_id, link=link.id, replaces=link_id)
        return shown(request, job_id, link, token)

    @router.delete("/api/jobs/{job_id}/share/{link_id}", dependencies=read, status_code=204, response_class=Response,
                   responses=schemas.problems(404, 409), tags=["access"], summary="Revoke a share link immediately")  # fmt: skip
    async def revoke_link(request: Request, job_id: str, link_id: str) -> Response:
        job = await context.visible_job(request, job_id)
        needs_keys()
        await context.authenticator.share_links.revoke(await own_link(request, job, link_id))
        await audit(context.store, principal_of(request), "job.share.revoke", job_id, link=link_id)
        return Response(status_code=204)
