"""Who may: the ways in which an application says it. ``auth=`` has no default.

`none()` lets everybody do everything; `api_keys()` asks for a key of the store, a session or a share link; anything else
that can be called is taken as a FastAPI dependency, which raises for those it does not know and gives the others: a
`Principal`, a text, or an object with an `id`. Owns how a request tells who it comes from; the keys are `keys.Keys`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer

from milepost.core.errors import InvalidInput, StoreError
from milepost.stores.protocol import Store
from milepost.web.keys import Keys
from milepost.web.principals import ADMIN, ANYONE, Principal, as_principal
from milepost.web.problems import Problem
from milepost.web.sharing import Sharing

COOKIE = "milepost_session"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

# What OpenAPI says of the ways in; the request is read by `ApiKeys`.
_WAYS = [
    Security(HTTPBearer(auto_error=False, scheme_name="milepost_key", description="A key: mp_<id>_<secret>")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="milepost_key_header")),
    Security(
        APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="milepost_session", description="POST /api/session")
    ),
]


class NoAuth:
    """Everybody may do everything."""

    keyed = False

    async def principal(self, request: Request, keys: Keys, sharing: Sharing) -> Principal:
        """Who asks: anybody, but not a page of another origin in somebody's browser."""
        if request.method not in _SAFE:
            refuse_forgery(request, ambient=False)
        return ANYONE


class ApiKeys:
    """A key in `Authorization: Bearer` or `X-API-Key`, the session cookie of the dashboard, or a share link."""

    keyed = True

    async def principal(self, request: Request, keys: Keys, sharing: Sharing) -> Principal:
        """Who asks. Raises Problem 401."""
        headers = request.headers
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        found: Principal | None = None
        if token:
            found = await keys.find(token)
        elif (share := _share_token(request)) is not None:
            found = await sharing.find(share)
        elif (cookie := request.cookies.get(COOKIE)) is not None:
            found = await keys.of_session(cookie)
            if found is not None and request.method not in _SAFE:
                refuse_forgery(request, ambient=True)
        if found is None:
            text = "The key is not valid" if token else "A key is needed: Authorization: Bearer mp_..."
            raise Problem(401, text, headers={"WWW-Authenticate": "Bearer"})
        return found


def _share_token(request: Request) -> str | None:
    query = request.scope.get("query_string", b"")
    return dict(parse_qsl(query.decode("latin-1"))).get("share") if b"share=" in query else None


class Dependency:
    """A FastAPI dependency of the application. Share links of this store are taken beside it only by `api_keys()`."""

    keyed = True

    def __init__(self, dependency: Callable[..., Any]) -> None:
        self.dependency = dependency


Auth = NoAuth | ApiKeys | Dependency


def none() -> NoAuth:
    """Everybody who reaches the server may do everything: for one's own machine."""
    return NoAuth()


def api_keys() -> ApiKeys:
    """Keys made with `milepost keys create`, kept in the store of the jobs."""
    return ApiKeys()


def as_auth(auth: Any) -> Auth:
    """What `auth=` was given, understood. Raises InvalidInput with the remedy."""
    if isinstance(auth, NoAuth | ApiKeys | Dependency):
        return auth
    if inspect.isclass(type(auth)) and auth.__class__.__name__ == "Depends" and getattr(auth, "dependency", None):
        return Dependency(auth.dependency)
    if callable(auth) and auth is not none and auth is not api_keys:
        return Dependency(auth)
    raise InvalidInput("auth", "give milepost.web.auth.none(), milepost.web.auth.api_keys() or a FastAPI dependency")


def named_auth(name: str | None) -> Auth:
    """What MILEPOST_AUTH says. Raises InvalidInput with the remedy."""
    if name == "none":
        return NoAuth()
    if name == "keys":
        return ApiKeys()
    problem = "is not set" if name is None else f"{name!r:.40} is neither"
    raise InvalidInput(
        "MILEPOST_AUTH", f"{problem}; set it to 'keys' (milepost keys create) or, on a machine of your own, 'none'"
    )


class Gate:
    """Lets requests in: finds the principal, asks for the scope, and leaves the principal in `request.state`."""

    def __init__(self, auth: Auth, store: Callable[[], Store]) -> None:
        self.auth = auth
        self._store = store
        self._keys: Keys | None = None
        self._sharing: Sharing | None = None

    @property
    def keys(self) -> Keys:
        """The keys of the store."""
        if self._keys is None:
            self._keys = Keys(self._store())
        return self._keys

    @property
    def sharing(self) -> Sharing:
        """The share links of the store."""
        if self._sharing is None:
            self._sharing = Sharing(self._store())
        return self._sharing

    async def enter(self, request: Request, scope: str | None) -> Principal:
        """Let a request in without a dependency; only where `auth` is one of our own. Raises Problem 401, 403."""
        assert not isinstance(self.auth, Dependency), "a dependency is FastAPI's to resolve"
        return self._admit(request, await self.auth.principal(request, self.keys, self.sharing), scope)

    def _admit(self, request: Request, principal: Principal, scope: str | None) -> Principal:
        if scope is not None and not principal.may(scope):
            raise Problem(403, f"This needs the scope {scope}", scope=scope)
        if scope == ADMIN and principal.bound:
            raise Problem(403, "This needs an admin without a binding to labels", scope=scope)
        request.state.principal = principal
        return principal

    def watch(self, request: Request, scope: str) -> Callable[[], Awaitable[bool]] | None:
        """How to ask, later on, whether who was let in still may: a key may be revoked while its stream is open."""
        if not isinstance(self.auth, ApiKeys):
            return None

        async def still() -> bool:
            try:
                await self.enter(request, scope)
            except StoreError:
                return True  # a store that is away tells nothing of a key
            except Problem:
                return False
            return True

        return still

    def need(self, scope: str | None) -> Any:
        """A dependency that lets in who has a scope (None: whoever is known)."""
        if isinstance(self.auth, Dependency):
            known = Depends(self.auth.dependency)

            async def admit(request: Request, user: Any = known) -> None:
                if request.method not in _SAFE:
                    refuse_forgery(request, ambient=False)
                self._admit(request, as_principal(user), scope)

            return Depends(admit)

        async def enter(request: Request) -> None:
            await self.enter(request, scope)

        async def enter_with_key(
            request: Request, bearer: Any = _WAYS[0], header: Any = _WAYS[1], cookie: Any = _WAYS[2]
        ) -> None:
            await self.enter(request, scope)

        return Depends(enter_with_key if self.auth.keyed else enter)


def refuse_forgery(request: Request, *, ambient: bool) -> None:
    """Refuse an unsafe request that a page of another origin made with somebody's browser. Raises Problem 403.

    A browser tells where a request comes from in `Sec-Fetch-Site`, older ones in `Origin`. With `ambient` credentials (a
    cookie) one of the two must be there; a request that shows a key of its own cannot be forged.
    """
    headers = request.headers
    if not ambient and ("authorization" in headers or "x-api-key" in headers):
        return
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site in ("same-origin", "none") and not (ambient and site == "none"):
            return
        raise Problem(403, "The request comes from another origin")
    origin = headers.get("origin")
    if origin is None and not ambient:
        return
    if origin is not None and origin.partition("://")[2] == headers.get("host", ""):
        return
    raise Problem(403, "The request comes from another origin")
