"""The MCP server of `milepost mcp`: tools that list, submit, read, wait for and cancel the jobs of a store or a server.

Each tool is a call of the HTTP API, in this process or of a server, so that the same scopes, labels and quotas apply. It
serves stdio or streamable HTTP.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import httpx
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import Field
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

import milepost
from milepost.client import AsyncClient
from milepost.core.addresses import is_loopback
from milepost.core.errors import InvalidInputError, MilepostError, WaitTimeoutError
from milepost.core.job import Job
from milepost.web import auth as auths
from milepost.web.app import create_app
from milepost.web.auth import Auth, key_in
from milepost.web.context import WebContext
from milepost.web.http.problems import response_for
from milepost.web.security.local_access import token_for
from milepost.web.server import OPEN_ACCESS_WARNING, choose_auth

MAX_WAIT_SECONDS = 60.0
IN_PROCESS_URL = "http://127.0.0.1"
INSTRUCTIONS = (
    "Jobs are long work that workers run. Submit a job with submit_job, follow it with wait_for_job until its status is "
    "completed, failed or cancelled, and read why it failed with read_log. A job with an open question in `questions` waits for "
    "answer_question."
)

JobId = Annotated[str, Field(description="The id of the job.")]
OpenClient = Callable[[str | None], AsyncClient]
"""Returns a client of the API for an API key, or for none."""


def make_server(
    open_client: OpenClient, lifespan: Callable[[Any], AbstractAsyncContextManager[None]]
) -> MCPServer[Any]:
    """Return the MCP server. A tool has the key of its HTTP request; over stdio that of the environment."""
    server: MCPServer[Any] = MCPServer(
        "milepost", instructions=INSTRUCTIONS, version=milepost.__version__, lifespan=lifespan, log_level="WARNING"
    )
    reads, changes = ToolAnnotations(read_only_hint=True), ToolAnnotations(destructive_hint=False)

    @asynccontextmanager
    async def client_of(context: Context[Any]) -> AsyncIterator[AsyncClient]:
        request = context.request_context.request
        client = open_client(key_in(request) if isinstance(request, Request) else None)
        try:
            yield client
        except MilepostError as error:
            raise ToolError(str(error)) from error
        finally:
            await client.close()

    @server.tool(annotations=reads)
    async def list_job_types(context: Context[Any]) -> dict[str, Any]:
        """List the job types that workers run, with the JSON schema of their parameters."""
        async with client_of(context) as client:
            found: dict[str, Any] = await client.request("GET", "/api/job-types")
            return found

    @server.tool(annotations=changes)
    async def submit_job(
        context: Context[Any],
        job_type: Annotated[str, Field(description="A job type of list_job_types.")],
        params: Annotated[dict[str, Any] | None, Field(description="Parameters that match the type's schema.")] = None,
        unique_key: Annotated[
            str | None, Field(description="While a job with this key has not ended, that job is returned instead.")
        ] = None,
        queue: Annotated[str | None, Field(description="The queue; by default that of the type.")] = None,
        priority: Annotated[int | None, Field(description="A greater number starts earlier.")] = None,
    ) -> dict[str, Any]:
        """Submit a job to the workers and return its record at once, with its job_id."""
        options = {"unique_key": unique_key, "queue": queue, "priority": priority}
        async with client_of(context) as client:
            return shown(await client.submit(job_type, params, **options))

    @server.tool(annotations=reads)
    async def list_jobs(
        context: Context[Any],
        filter: Annotated[str, Field(description='For example "type:reindex status:failed since:24h".')] = "",
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
    ) -> list[dict[str, Any]]:
        """List the newest jobs, optionally only those that match a filter."""
        async with client_of(context) as client:
            return [shown(job) for job in (await client.find(filter or None, limit)).jobs]

    @server.tool(annotations=reads)
    async def get_job(context: Context[Any], job_id: JobId) -> dict[str, Any]:
        """Return the record of a job: status, progress, result or error."""
        async with client_of(context) as client:
            return shown(await client.get_job(job_id), job_id)

    @server.tool(annotations=reads)
    async def wait_for_job(
        context: Context[Any],
        job_id: JobId,
        timeout_seconds: Annotated[float, Field(gt=0, le=MAX_WAIT_SECONDS)] = 30.0,
    ) -> dict[str, Any]:
        """Wait until a job has ended and return its record. After the timeout return it as it is; call again."""
        async with client_of(context) as client:
            try:
                return shown(await client.wait(job_id, timeout_seconds))
            except WaitTimeoutError:
                return shown(await client.get_job(job_id), job_id)

    @server.tool(annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=True))
    async def cancel_job(
        context: Context[Any],
        job_id: JobId,
        reason: Annotated[str | None, Field(description="Why, for the record.")] = None,
    ) -> dict[str, Any]:
        """Cancel a job. Its status is final at once; the receipt in the record tells when its code has stopped."""
        async with client_of(context) as client:
            return shown(await client.cancel_job(job_id, reason))

    @server.tool(annotations=changes)
    async def answer_question(
        context: Context[Any],
        job_id: JobId,
        key: Annotated[str, Field(description="The key of the question, from `questions` of the job.")],
        value: Annotated[Any, Field(description="The answer: JSON that fits the question's json_schema.")],
    ) -> dict[str, Any]:
        """Answer a question that a job waits for, in the name of a person who decided it. The job continues."""
        async with client_of(context) as client:
            return shown(await client.answer(job_id, key, value))

    @server.tool(annotations=reads)
    async def read_log(
        context: Context[Any],
        job_id: JobId,
        cursor: Annotated[int, Field(ge=0, description="The cursor of the last answer, to read only newer lines.")] = 0,
        limit: Annotated[int, Field(ge=1, le=1000)] = 200,
    ) -> dict[str, Any]:
        """Read the log lines of a job, oldest first, with the cursor for the next ones."""
        async with client_of(context) as client:
            shown(await client.get_job(job_id), job_id)
            found: dict[str, Any] = await client.request(
                "GET", f"/api/jobs/{job_id}/logs", params={"cursor": cursor, "limit": limit}
            )
            return found

    return server


def shown(job: Job | None, job_id: str = "") -> dict[str, Any]:
    """Return a record without the fields that say nothing. Raises ToolError if there is no such job."""
    if job is None:
        raise ToolError(f"No job has the id {job_id!r:.100}. It may have been deleted or expired")
    return {name: value for name, value in job.to_dict().items() if value not in (None, [], {}, "")}


def over_store(jobs: Any, auth: Auth, key: str | None) -> tuple[MCPServer[Any], WebContext]:
    """Return the MCP server over a store, and the context that authenticates its HTTP requests.

    `jobs` is a store URL, a manager or a `Jobs`. `key` is the key of callers that send none: over stdio it restricts what the client may do.
    """
    app = create_app(jobs, auth=auth)
    transport = httpx.ASGITransport(app)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with app.router.lifespan_context(app):
            yield

    def open_client(given: str | None) -> AsyncClient:
        return AsyncClient(IN_PROCESS_URL, key=given or key or "", transport=transport)

    context: WebContext = app.state.milepost
    return make_server(open_client, lifespan), context


def over_server(url: str, key: str | None) -> MCPServer[Any]:
    """Return the MCP server in front of a server, for stdio."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield

    return make_server(lambda _: AsyncClient(url, key=key), lifespan)


class Authenticated:
    """An ASGI application that admits only callers whom the context of the API accepts."""

    def __init__(self, app: ASGIApp, context: WebContext) -> None:
        self.app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._context.authenticator.enter(Request(scope), None)
            except Exception as error:
                answer = response_for(error)
                if answer is None:
                    raise
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)


def serve_stdio(url: str, is_server: bool, key: str | None) -> None:
    """Serve one client over stdio until it closes its end. `key` is the API key that limits it, None for no limit.

    Without a key the client may do what the user who started it may do with the store.
    """
    if is_server:
        if key is None:
            url, key = token_for(url)
        server = over_server(url, key)
    else:
        _require_shared(url)
        server, _ = over_store(url, auths.none() if key is None else auths.api_keys(), key)
    server.run("stdio")


def serve_http(url: str, host: str, port: int, auth: str | None) -> None:
    """Serve streamable HTTP at /mcp until a signal arrives. Callers send their API keys, if keys are required."""
    import uvicorn

    _require_shared(url)
    chosen = choose_auth(url, host, auth)
    server, context = over_store(url, chosen, None)
    if isinstance(chosen, auths.NoAuth) and not is_loopback(host):
        sys.stderr.write(OPEN_ACCESS_WARNING + "\n")
    # The authentication of the API refuses foreign host names; an address beyond this machine has names of its own.
    security = None if is_loopback(host) else TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(stateless_http=True, host=host, transport_security=security)
    uvicorn.run(
        Authenticated(app, context), host=host, port=port, log_level="warning", access_log=False, server_header=False
    )


def _require_shared(url: str) -> None:
    if url.startswith("memory:"):
        raise InvalidInputError("--url", "memory:// has no jobs of other processes; use sqlite:///jobs.db, redis://host or postgresql://host/db")  # fmt: skip
