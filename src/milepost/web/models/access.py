"""The shapes of access and of webhooks."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from milepost.web.models.shapes import Answer, Asked, Ended


class SessionBody(Asked):
    """A key to sign in with."""

    key: str = Field(min_length=1, max_length=200)


class SessionShape(Answer):
    """Who is asking, and what they may do."""

    id: str | None
    scopes: list[str]
    labels: dict[str, str]
    auth: str


class KeyBody(Asked):
    """A new key. `expires_in` is in seconds; with `labels` it sees only jobs that carry them."""

    name: str = Field(min_length=1, max_length=200)
    scopes: list[Literal["jobs:read", "jobs:write", "jobs:delete", "admin"]] = Field(
        min_length=1, max_length=4, examples=[["jobs:read", "jobs:write"]]
    )
    labels: dict[str, str] | None = None
    expires_in: float | None = Field(None, gt=0, le=100 * 366 * 86400)


class KeyShape(Answer):
    """A key without its secret."""

    id: str
    name: str
    scopes: list[str]
    labels: dict[str, str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewKey(KeyShape):
    """A key with its secret, which is shown this once."""

    secret: str


class KeyList(Answer):
    """All keys."""

    keys: list[KeyShape]


class ShareBody(Asked):
    """How long a link holds, in seconds, and whether it may cancel."""

    expires_in: float = Field(7 * 86400.0, gt=0, le=30 * 86400)
    may_cancel: bool = False


class Share(Answer):
    """A link to one job."""

    token: str
    path: str
    expires_at: str


class HookBody(Asked):
    """A new webhook, for the ends of jobs that a filter selects."""

    url: str = Field(min_length=1, max_length=2000, examples=["https://example.org/hooks/milepost"])
    events: list[Ended] = Field(default_factory=lambda: list(get_args(Ended)), min_length=1, max_length=3)
    q: str = Field("", max_length=2000)


class HookShape(Answer):
    """A webhook without its secret; `waiting` messages are still to be sent."""

    id: str
    url: str
    events: list[str]
    q: str
    created_at: str
    disabled: str | None
    waiting: int | None = None


class HookList(Answer):
    """All webhooks."""

    webhooks: list[HookShape]


class NewHook(HookShape):
    """A webhook with the secret that signs its messages, which is shown this once."""

    secret: str


class HookTested(Answer):
    """How the receiver answered."""

    taken: bool
    status: int | None
    problem: str


class ReplayBody(Asked):
    """Which ends are sent again, at most 1,000 a call."""

    q: str = Field("created:1d", max_length=2000)
    cursor: str | None = Field(None, max_length=400)


class HookReplayed(Answer):
    """How many were queued."""

    queued: int
    next_cursor: str | None
