"""Schemas of sign-in, API keys, share links and webhooks."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from milepost.core.defaults import PRIORITY_MAX
from milepost.web.schemas.fields import FinalStatus, RequestModel, ResponseModel


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

    expires_in: float = Field(7 * 86400.0, gt=0, le=30 * 86400)
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
