"""Authentication of requests: ``none()``, ``api_keys()`` or a FastAPI dependency. There is no default.

A dependency raises for unknown callers, and returns a `Principal`, a string, or an object with an `id` for users.
`Depends(auth.principal)` protects an application's own routes with the same authentication.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import cached_property
from time import monotonic
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer, SecurityScopes
from fastapi.security.base import SecurityBase

from milepost.core.errors import InvalidInputError, StoreError
from milepost.core.job import Job
from milepost.core.serialization import single_line
from milepost.stores.protocol import Store
from milepost.web.http.problems import RETRY_LATER, Problem
from milepost.web.security.api_keys import ApiKeyStore, ShareLinkStore
from milepost.web.security.local_access import FOREIGN_HOST, LocalAccess, names_loopback, reached_by_loopback
from milepost.web.security.principals import ADMIN, ANYONE, Principal, as_principal

log = logging.getLogger("milepost.audit")
log.addHandler(logging.NullHandler())

COOKIE, SECURE_COOKIE = "milepost_session", "__Host-milepost_session"
"""Cookie names for http and https. Browsers keep a `__Host-` cookie from other hosts and from plain http."""
BEFORE_BODY = "before_body"
"""The attribute of a dependency with the function that a route calls before it reads the body of a request."""
MAX_DEPENDENCY_STREAM_SECONDS: Final = 300.0
"""How long a stream of an application's user stays open. Only a new request runs the dependency again."""
_PROXY = frozenset({b"forwarded", b"via", b"x-real-ip"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

# For OpenAPI only; `ApiKeys` reads the request.
_CREDENTIALS = [
    Security(HTTPBearer(auto_error=False, scheme_name="milepost_key", description="API key: mp_<id>_<secret>")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="milepost_key_header")),
    Security(
        APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="milepost_session", description="POST /api/session")
    ),
]


class NoAuth:
    """No authentication: every caller that reaches the server may do everything.

    A forwarded request comes from another machine. A request to a loopback address under a foreign host name comes from
    a page of another site (DNS rebinding). Both are refused unless `behind_proxy` says that a proxy in front authorises
    requests.
    """

    kind = "none"
    keyed = False

    def __init__(self, *, behind_proxy: bool = False) -> None:
        self.behind_proxy = behind_proxy

    async def principal(self, request: Request, authenticator: Authenticator) -> Principal:
        """Return the principal that may do everything. Raises Problem 403, 421."""
        if not self.behind_proxy:
            refuse_forwarded(request)
            if reached_by_loopback(request.scope) and not names_loopback(request.scope):
                raise Problem(421, FOREIGN_HOST)
        if request.method not in _SAFE:
            refuse_forgery(request, ambient=False)
        return ANYONE


class ApiKeys:
    """API keys in `Authorization: Bearer` or `X-API-Key`, the session cookie of the dashboard, and share links."""

    kind = "keys"
    keyed = True

    async def principal(self, request: Request, authenticator: Authenticator) -> Principal:
        """Return the principal of a request. Raises Problem 401, 403."""
        found: Principal | None = None
        token = key_in(request)
        if token:
            found = await authenticator.keys.find(token) or (
                authenticator.local.find(token) if authenticator.local is not None else None
            )
        elif (share := _share_token(request)) is not None:
            found = await authenticator.share_links.find(share)
        elif (cookie := request.cookies.get(cookie_name(request))) is not None:
            found = await authenticator.keys.of_session(cookie)
            if found is None and authenticator.local is not None:
                found = authenticator.local.of_session(cookie)
            if found is not None and request.method not in _SAFE:
                refuse_forgery(request, ambient=True)
        if found is None:
            headers = {"WWW-Authenticate": "Bearer"}
            if not token:
                text = "An API key is required: send Authorization: Bearer mp_..."
                raise Problem(401, text, headers=headers, missing="api_key")
            log_refused(request, token)
            raise Problem(401, "The API key is not valid", headers=headers)
        return found


def key_in(request: Request) -> str:
    """Return the key in the headers of a request. Browsers add neither of these headers on their own."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def log_refused(request: Request, token: str) -> None:
    """Log a refused key: the client and the key id, never the secret."""
    kind, _, rest = token.partition("_")
    shown = f"{kind}_{rest.partition('_')[0]}" if kind == "mp" and "_" in rest else "malformed"
    client = request.client.host if request.client is not None else "unknown client"
    log.warning("sign-in refused: client %s, key %s", single_line(client, 100), single_line(shown, 40))


def cookie_name(request: Request) -> str:
    """Return the name of the session cookie for the scheme of a request."""
    return SECURE_COOKIE if request.url.scheme == "https" else COOKIE


def _share_token(request: Request) -> str | None:
    query = request.scope.get("query_string", b"")
    return dict(parse_qsl(query.decode("latin-1"))).get("share") if b"share=" in query else None


class Dependency:
    """A FastAPI dependency of the application. Share links are not accepted beside it."""

    kind = "custom"
    keyed = True

    def __init__(self, dependency: Callable[..., Any]) -> None:
        self.dependency = dependency


Auth = NoAuth | ApiKeys | Dependency


def none(*, behind_proxy: bool = False) -> NoAuth:
    """Return an authentication that accepts every caller, for use on your own machine.

    Forwarded requests, and foreign `Host` names on loopback addresses, are refused unless `behind_proxy` says that a
    proxy authorises requests.
    """
    return NoAuth(behind_proxy=behind_proxy)


def api_keys() -> ApiKeys:
    """Return an authentication by API keys (`milepost keys create`), which are kept in the job store."""
    return ApiKeys()


def as_auth(auth: Any) -> Auth:
    """Return the authentication for the argument `auth=`. Raises InvalidInputError."""
    if isinstance(auth, NoAuth | ApiKeys | Dependency):
        return auth
    if auth.__class__.__name__ == "Depends" and getattr(auth, "dependency", None):
        auth = auth.dependency
    if isinstance(auth, SecurityBase):
        raise InvalidInputError(
            "auth",
            f"{type(auth).__name__} only reads a credential; pass a dependency that verifies it and returns the user",
        )
    if callable(auth) and auth is not none and auth is not api_keys:
        return Dependency(auth)
    raise InvalidInputError(
        "auth", "pass milepost.web.auth.none(), milepost.web.auth.api_keys() or a FastAPI dependency"
    )


def auth_from_name(name: str | None) -> Auth:
    """Return the authentication that MILEPOST_AUTH names. Raises InvalidInputError."""
    if name == "none":
        return NoAuth()
    if name == "keys":
        return ApiKeys()
    problem = "is not set" if name is None else f"{name!r:.40} is not valid"
    raise InvalidInputError(
        "MILEPOST_AUTH", f"{problem}; set it to 'keys' (milepost keys create) or, on your own machine, to 'none'"
    )


class Authenticator:
    """Authenticates requests, checks scopes, and stores the principal in `request.state`."""

    def __init__(self, auth: Auth, store: Callable[[], Store]) -> None:
        self.auth = auth
        self.local: LocalAccess | None = None
        """Set by `milepost serve` on a loopback address."""
        self._store = store

    @cached_property
    def keys(self) -> ApiKeyStore:
        """The API keys of the store."""
        return ApiKeyStore(self._store())

    @cached_property
    def share_links(self) -> ShareLinkStore:
        """The share links of the store."""
        return ShareLinkStore(self._store(), self.keys)

    async def enter(self, request: Request, scope: str | None, *, link: bool = False) -> Principal:
        """Authenticate a request that no dependency authenticates. Raises Problem 401, 403."""
        assert not isinstance(self.auth, Dependency), "FastAPI resolves dependencies"
        return self.admit(request, await self.auth.principal(request, self), scope, link=link)

    async def permits(self, request: Request, scope: str) -> bool:
        """Return whether the caller of an unprotected route has a scope. With a dependency the answer is False."""
        if isinstance(self.auth, Dependency):
            return False
        try:
            await self.enter(request, scope)
        except Problem:
            return False
        return True

    def admit(self, request: Request, principal: Principal, scope: str | None, *, link: bool = False) -> Principal:
        """Check that a principal has a scope (None for any), and return the principal. Raises Problem 403.

        A share link is accepted only by routes that show its job; these pass `link=True`.
        """
        if principal.job_id is not None and not link:
            raise Problem(403, "A share link gives access to one job only")
        if scope is not None and not principal.may(scope):
            raise Problem(403, f"This request requires the scope {scope}", scope=scope)
        if scope == ADMIN and principal.restricted:
            text = "This request requires an admin not restricted to labels, types, queues or a maximum priority"
            raise Problem(403, text, scope=scope)
        request.state.principal = principal
        return principal

    def revalidator(self, request: Request, scope: str) -> Callable[[], Awaitable[bool]] | None:
        """Return a check that re-validates the caller later, because a key may be revoked while its stream is open.

        Return None if every caller is accepted.
        """
        if isinstance(self.auth, NoAuth):
            return None
        if isinstance(self.auth, Dependency):
            until = monotonic() + MAX_DEPENDENCY_STREAM_SECONDS

            async def recent() -> bool:
                return monotonic() < until

            return recent

        async def still() -> bool:
            try:
                await self.enter(request, scope, link=True)
            except StoreError:
                return True  # an unavailable store says nothing about the key
            except Problem:
                return False
            return True

        return still

    def require(self, scope: str | None, *, link: bool = False) -> Any:
        """Return a dependency that requires a scope (None for any), and with `link` also accepts share links."""
        if isinstance(self.auth, Dependency):
            known = Depends(self.auth.dependency)

            async def admit(request: Request, user: Any = known) -> None:
                self.admit(request, principal_from(request, user), scope, link=link)

            return Depends(admit)

        async def enter(request: Request) -> None:
            await self.enter(request, scope, link=link)

        async def enter_with_key(
            request: Request,
            bearer: Any = _CREDENTIALS[0],
            header: Any = _CREDENTIALS[1],
            cookie: Any = _CREDENTIALS[2],
        ) -> None:
            await self.enter(request, scope, link=link)

        chosen = enter_with_key if self.auth.keyed else enter
        setattr(chosen, BEFORE_BODY, enter)
        return Depends(chosen)

    def admit_to_application(self, request: Request, found: Principal, scopes: SecurityScopes) -> Principal:
        """Authorise a caller of an application's own route. Raises Problem 403."""
        for scope in (None, *scopes.scopes):
            self.admit(request, found, scope)
        return found


async def principal(request: Request, scopes: SecurityScopes) -> Principal:
    """Return the caller of an application's own route: ``Depends(auth.principal)``, after ``attach(app, ...)``.

    ``Security(auth.principal, scopes=["jobs:write"])`` also requires scopes. Raises HTTPException 401, 403, 503.
    """
    context = getattr(request.app.state, "milepost", None)
    if context is None or isinstance(context.authenticator.auth, Dependency):
        raise RuntimeError(
            "Depends(auth.principal) requires attach(app, jobs, auth=...) on the same application, "
            "and the entry that attach adds to app.dependency_overrides"
        )
    try:
        found: Principal = await context.authenticator.enter(request, None)
    except StoreError:
        raise Problem(503, "The job store is unavailable", headers=RETRY_LATER) from None
    admitted: Principal = context.authenticator.admit_to_application(request, found, scopes)
    return admitted


async def job_or_404(
    request: Request, job_id: str, caller: Annotated[Principal, Security(principal, scopes=["jobs:read"])]
) -> Job:
    """Return the job of an application's own route ``/.../{job_id}``: ``Depends(auth.job_or_404)``.

    Raises HTTPException 401, 403, 503, and the same 404 for a job that does not exist or that the caller may not see.
    """
    try:
        job: Job = await request.app.state.milepost.visible_job(request, job_id)
    except StoreError:
        raise Problem(503, "The job store is unavailable", headers=RETRY_LATER) from None
    return job


def principal_by_dependency(
    authenticator: Authenticator, dependency: Callable[..., Any]
) -> Callable[..., Awaitable[Principal]]:
    """Return the replacement of `principal` for an application that authenticates with its own dependency.

    FastAPI resolves dependencies from signatures only, so the application's dependency must be part of one.
    """
    known = Depends(dependency)

    async def principal(request: Request, scopes: SecurityScopes, user: Any = known) -> Principal:
        return authenticator.admit_to_application(request, principal_from(request, user), scopes)

    return principal


def principal_from(request: Request, user: Any) -> Principal:
    """Return the principal for the value of an application's dependency. Raises Problem 401, 403."""
    if request.method not in _SAFE:
        refuse_forgery(request, ambient=False)
    found = as_principal(user)
    if found is None:
        # For the developer: to the client this looks like a wrong password.
        log.warning("auth dependency returned %s without an id; request refused", type(user).__name__)
        raise Problem(401, "Not signed in")
    return found


def refuse_forwarded(request: Request) -> None:
    """Refuse a request that a proxy forwarded. Raises Problem 403."""
    for name, _ in request.scope["headers"]:
        if name in _PROXY or name.startswith(b"x-forwarded-"):
            raise Problem(
                403,
                f"Forwarded requests ({name.decode('latin-1')}) are refused because this server has no authentication; "
                "start it with --auth keys or MILEPOST_AUTH=keys",
            )


def refuse_forgery(request: Request, *, ambient: bool) -> None:
    """Refuse a state-changing request that a page of another origin made with a user's browser. Raises Problem 403.

    Browsers report where a request comes from in `Sec-Fetch-Site`, older ones in `Origin`. With `ambient` credentials
    (a cookie) one of the two is required. A key in a header cannot be forged. Basic, Digest and Negotiate credentials
    can, because browsers send them on their own.
    """
    headers = request.headers
    if not ambient and key_in(request):
        return
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        if fetch_site in ("same-origin", "none") and not (ambient and fetch_site == "none"):
            return
        raise Problem(403, f"Cross-origin requests are not allowed (Sec-Fetch-Site: {fetch_site:.40})")
    origin = headers.get("origin")
    if origin is None:
        if not ambient:
            return
        raise Problem(
            403,
            "A request with a session cookie requires the header Sec-Fetch-Site: same-origin, or Origin; "
            "a program should send an API key (Authorization: Bearer) instead of the cookie",
        )
    scheme, _, host = origin.partition("://")
    # https is accepted on http too: a proxy that terminates TLS may not say so.
    if scheme not in (request.url.scheme, "https") or host != headers.get("host", ""):
        server = f"{request.url.scheme}://{headers.get('host', '')}"
        raise Problem(
            403,
            f"Cross-origin requests are not allowed: Origin is {origin:.100}, this server is {server:.100}; "
            "a proxy must pass the Host header",
        )
