"""Who may: signing in and out, keys, share links."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.core.encoding import moment
from milepost.web import models
from milepost.web.audit import audit
from milepost.web.auth import COOKIE, ApiKeys, NoAuth, refuse_forgery
from milepost.web.keys import SESSION_SECONDS
from milepost.web.principals import ADMIN, CANCEL, WRITE
from milepost.web.problems import Problem
from milepost.web.site import Site, place_of, who
from milepost.web.wire import encoded

JSON = "application/json"


def add_access(router: APIRouter, site: Site) -> None:
    """Add the calls about access."""
    anybody, admin, write = [site.gate.need(None)], [site.gate.need(ADMIN)], [site.gate.need(WRITE)]
    kind = "none" if isinstance(site.gate.auth, NoAuth) else "keys" if isinstance(site.gate.auth, ApiKeys) else "custom"

    @router.get("/api/session", dependencies=anybody, response_model=models.SessionShape, responses=models.problems(),
                tags=["access"], summary="Who is asking, and what they may do")  # fmt: skip
    async def get_session(request: Request) -> Response:
        principal = who(request)
        body = {
            "id": principal.id,
            "scopes": sorted(principal.scopes),
            "labels": dict(principal.labels),
            "job_id": principal.job_id,
            "auth": kind,
        }
        return Response(encoded(body), media_type=JSON)

    @router.post("/api/session", status_code=204, response_class=Response, responses=models.problems(404),
                 tags=["access"], summary="Sign in with a key: sets a cookie")  # fmt: skip
    async def sign_in(request: Request, body: models.SessionBody) -> Response:
        refuse_forgery(request, ambient=False)
        if kind != "keys":
            raise Problem(404, "There is nothing to sign in to: keys are not in use here")
        session = await site.gate.keys.sign_in(body.key)
        if session is None:
            raise Problem(401, "The key is not valid", headers={"WWW-Authenticate": "Bearer"})
        answer = Response(status_code=204)
        answer.set_cookie(
            COOKIE,
            session,
            max_age=int(SESSION_SECONDS),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @router.delete("/api/session", status_code=204, response_class=Response, responses=models.problems(),
                   tags=["access"], summary="Sign out")  # fmt: skip
    async def sign_out(request: Request) -> Response:
        refuse_forgery(request, ambient=COOKIE in request.cookies)
        if COOKIE in request.cookies:
            await site.gate.keys.sign_out(request.cookies[COOKIE])
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer

    @router.get("/api/keys", dependencies=admin, response_model=models.KeyList, responses=models.problems(),
                tags=["access"], summary="All keys, without their secrets")  # fmt: skip
    async def list_keys() -> Response:
        return Response(encoded({"keys": [key.to_dict() for key in await site.gate.keys.all()]}), media_type=JSON)

    @router.post("/api/keys", dependencies=admin, status_code=201, response_model=models.NewKey,
                 responses=models.problems(), tags=["access"], summary="Make a key; its secret is shown this once")  # fmt: skip
    async def create_key(request: Request, body: models.KeyBody) -> Response:
        key, secret = await site.gate.keys.create(
            body.name, body.scopes, labels=body.labels, expires_in=body.expires_in
        )
        await audit(site.store, who(request), "key.create", key.id, scopes=key.scopes, labels=dict(key.labels))
        return Response(encoded({**key.to_dict(), "secret": secret}), 201, media_type=JSON)

    @router.delete("/api/keys/{key_id}", dependencies=admin, status_code=204, response_class=Response,
                   responses=models.problems(404), tags=["access"], summary="Revoke a key")  # fmt: skip
    async def revoke_key(request: Request, key_id: str) -> Response:
        if not await site.gate.keys.revoke(key_id):
            raise Problem(404, "Key not found")
        await audit(site.store, who(request), "key.revoke", key_id)
        return Response(status_code=204)

    @router.post("/api/jobs/{job_id}/share", dependencies=write, status_code=201, response_model=models.Share,
                 responses=models.problems(404, 409), tags=["access"], summary="A signed link to one job")  # fmt: skip
    async def share(request: Request, job_id: str, body: models.ShareBody | None = None) -> Response:
        await site.visible(request, job_id)
        if kind != "keys":
            raise Problem(409, "Share links need auth=api_keys(): nobody else would read their token")
        asked = body if body is not None else models.ShareBody(expires_in=7 * 86_400.0)
        if asked.may_cancel and not who(request).may(CANCEL):
            raise Problem(403, f"This needs the scope {CANCEL}", scope=CANCEL)
        token, expires = await site.gate.sharing.token(job_id, asked.expires_in, may_cancel=asked.may_cancel)
        await audit(site.store, who(request), "job.share", job_id, may_cancel=asked.may_cancel)
        path = f"{place_of(request, job_id)}?share={token}"
        shown = {"token": token, "path": path, "expires_at": moment(expires).isoformat()}
        return Response(encoded(shown), 201, media_type=JSON)
