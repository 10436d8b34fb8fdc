"""Tasks: an MCP extension that makes the calls of chosen tools jobs, and answers tasks/get, tasks/cancel, tasks/update.

A task is the record of its job: nothing else is stored, so a task survives its server and is visible in the dashboard.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import anyio
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import principal_components
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding, ToolBinding
from mcp.server.mcpserver import require_client_extension
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ElicitResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from milepost.app import AsyncJobs, Jobs
from milepost.core.errors import IllegalTransitionError, InvalidInputError, JobNotFoundError, RejectedError, StoreError
from milepost.core.job import Job, JobStatus
from milepost.integrations.mapping import MCP
from milepost.mcp.task_fields import (
    Convert,
    answer_of,
    detailed_task,
    error_text,
    open_questions,
    plain_result,
    task_fields,
    tool_result,
)
from milepost.web.context import open_jobs
from milepost.worker.handlers import ConfiguredHandler, Handler

EXTENSION = "io.modelcontextprotocol/tasks"
OWNER_LABEL = "mcp.owner"
"""The label that binds a job to its caller: a hash of the caller's identity, or LOCAL without authentication."""
LOCAL = "local"

Context = ServerRequestContext[Any, Any]


class TaskParams(RequestParams):
    """The parameters of tasks/get and tasks/cancel."""

    task_id: str


class UpdateParams(TaskParams):
    """The parameters of tasks/update."""

    input_responses: dict[str, Any]


class ToolCall:
    """A running tools/call: whether its client supports tasks, and the job that became its task."""

    def __init__(self, context: Context, supports_tasks: bool) -> None:
        self.context = context
        self.supports_tasks = supports_tasks
        self.job: Job | None = None


_tool_call: ContextVar[ToolCall | None] = ContextVar("milepost_tool_call", default=None)


class Tasks(Extension):
    """The extension `io.modelcontextprotocol/tasks` of an `MCPServer`, over the jobs of an application.

    ``MCPServer("media", extensions=[tasks], lifespan=jobs.lifespan())`` serves the tools that `tool` registered before.
    `principal` returns the identity of the caller of a request; the default is the client, issuer and subject of its
    access token. Only the caller that created a task can read or change it. Callers without an identity share theirs.
    """

    identifier = EXTENSION

    def __init__(self, jobs: AsyncJobs | Jobs, *, principal: Callable[[Context], str | None] | None = None) -> None:
        self.jobs, _ = open_jobs(jobs)
        self._handlers = jobs
        self._principal = principal or token_principal
        self._tools: dict[str, ToolBinding] = {}
        self._required: set[str] = set()
        self._converters: dict[str, Convert] = {}

    def tool(self, *, required: bool = False, **options: Any) -> Callable[[Any], Handler[Any, Any]]:
        """Return a decorator that makes a handler, or a function with a Run as its first parameter, a tool.

        With `required` a client without tasks is refused; else it waits for the result. `options` are those of
        `MCPServer.tool` (name, title, description, annotations). Options of the job belong to ``@jobs.job(...)``.
        """

        def register(function: Any) -> Handler[Any, Any]:
            handler: Handler[Any, Any] = function if isinstance(function, Handler) else self._handlers.job(function)
            name = options.get("name") or handler.job_type
            if name in self._tools:
                raise InvalidInputError("name", f"the tool {name!r} is already registered")
            call = self._tool_function(handler, name)
            binding = ToolBinding(call, kwargs={**options, "name": name})
            metadata = Tool.from_function(
                call, name=name, structured_output=options.get("structured_output")
            ).fn_metadata
            self._tools[name] = binding
            self._converters[handler.job_type] = metadata.convert_result  # type: ignore[assignment]
            if required:
                self._required.add(name)
            return handler

        return register

    def _tool_function(self, handler: Handler[Any, Any], name: str) -> Callable[..., Awaitable[Any]]:
        """Return the function of a tool: the parameters of the handler without the Run."""
        signature = inspect.signature(handler.function, eval_str=True)
        parameters = list(signature.parameters.values())[1:]

        async def call(**arguments: Any) -> Any:
            return await self.run(handler, **arguments)

        call.__name__, call.__doc__ = name, handler.__doc__
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in parameters} | {
            "return": signature.return_annotation
        }
        return call

    async def run(self, target: Handler[Any, Any] | ConfiguredHandler[Any, Any], /, *args: Any, **kwargs: Any) -> Any:
        """Submit a job in a tool function, and return what the function returns.

        The call becomes a task if its client supports tasks, else this waits for the end of the job and reports its
        progress. Raises ToolError for invalid parameters and for a job that failed or was cancelled.
        """
        call = _tool_call.get()
        owner = self._owner(call.context) if call is not None else LOCAL
        given = target.given if isinstance(target, ConfiguredHandler) else {}
        labels = {**(given.get("labels") or {}), OWNER_LABEL: owner}
        new_id = self.jobs.runtime.ids.new_job_id()
        configured = target.options(labels=labels, job_id=given.get("job_id") or new_id)
        try:
            job = await self.jobs.submit(configured, *args, **kwargs)
        except RejectedError as error:
            raise ToolError(str(error)) from error
        except StoreError as error:
            raise MCPError(INTERNAL_ERROR, "The job store is unavailable; repeat the call later") from error
        if job.labels.get(OWNER_LABEL) != owner:
            raise ToolError("another caller has a job with the same unique_key; repeat the call when it has ended")
        if call is not None and call.supports_tasks:
            call.job = job
            return CallToolResult(content=[], is_error=True)  # replaced by the task; an error is not validated
        return await self._wait(job, call, is_own=job.job_id == new_id)

    async def _wait(self, job: Job, call: ToolCall | None, *, is_own: bool) -> Any:
        """Return the result of a job for a client without tasks. A cancelled call cancels the job that it created.

        Other calls may wait for a job that has its `unique_key` or `job_id` from the tool.
        """
        reported = -1.0
        try:
            async for event in self.jobs.watch(job.job_id):
                # The protocol requires that progress increases; it begins anew in a new attempt.
                if call is not None and event.progress is not None and event.progress > reported:
                    reported = event.progress
                    await call.context.session.report_progress(reported, 1.0, event.message)
        except anyio.get_cancelled_exc_class():
            if is_own:
                with anyio.CancelScope(shield=True):
                    await self._cancel(job.job_id, "the client cancelled the call")
            raise
        ended = await self.jobs.wait(job.job_id)
        if ended.status is JobStatus.CANCELLED:
            raise ToolError(ended.activity or "the job was cancelled")
        if MCP.status_of(ended) == "failed":
            raise ToolError(error_text(ended))
        return tool_result(ended, self._converters.get(ended.job_type, plain_result))

    async def _cancel(self, job_id: str, reason: str) -> None:
        try:
            await self.jobs.cancel_job(job_id, reason, by="mcp")
        except (IllegalTransitionError, JobNotFoundError):
            pass  # it has ended

    # --- the extension ---

    def tools(self) -> Sequence[ToolBinding]:
        """See Extension."""
        return list(self._tools.values())

    def methods(self) -> Sequence[MethodBinding]:
        """See Extension."""
        versions = frozenset(MODERN_PROTOCOL_VERSIONS)
        return [
            MethodBinding("tasks/get", TaskParams, self._get_task, versions),
            MethodBinding("tasks/cancel", TaskParams, self._cancel_task, versions),
            MethodBinding("tasks/update", UpdateParams, self._update_task, versions),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> HandlerResult:
        """Answer with a task if the tool submitted a job for a client that supports tasks."""
        if params.name in self._required:
            require_client_extension(ctx, EXTENSION)
        call = ToolCall(ctx, supports_tasks(ctx))
        before = _tool_call.set(call)
        try:
            result = await call_next(ctx)
        finally:
            _tool_call.reset(before)
        if call.job is None:
            return result
        return {"resultType": "task", **task_fields(call.job, self.jobs.ttl, may_ask=may_ask(ctx))}

    async def _get_task(self, ctx: Context, params: TaskParams) -> HandlerResult:
        job = await self._task_job(ctx, params)
        convert = self._converters.get(job.job_type, plain_result)
        return detailed_task(job, self.jobs.ttl, convert, may_ask=may_ask(ctx))

    async def _cancel_task(self, ctx: Context, params: TaskParams) -> HandlerResult:
        job = await self._task_job(ctx, params)
        await self._cancel(job.job_id, "the client cancelled the task")
        return {}

    async def _update_task(self, ctx: Context, params: UpdateParams) -> HandlerResult:
        job = await self._task_job(ctx, params)
        questions = open_questions(job)
        for key in questions.keys() & params.input_responses.keys():  # unknown keys are ignored
            try:
                response = ElicitResult.model_validate(params.input_responses[key])
                if response.action == "accept":  # a question that is declined stays open
                    value = answer_of(questions[key], response.content or {})
                    await self.jobs.answer(job.job_id, key, value, by="mcp")
            except (InvalidInputError, ValidationError) as error:
                raise MCPError(INVALID_PARAMS, f"inputResponses.{key}: {error}") from error
            except RejectedError:
                pass  # the first answer counts, and an expired question has none
        return {}

    async def _task_job(self, ctx: Context, params: TaskParams) -> Job:
        """Return the job of a task. Raises MCPError, the same for an unknown task and for one of another caller."""
        require_client_extension(ctx, EXTENSION)
        name = ctx.request.headers.get(MCP_NAME_HEADER) if ctx.request is not None else params.task_id
        if decode_header_value(name) != params.task_id:
            raise MCPError(HEADER_MISMATCH, "the header Mcp-Name must be the taskId of the request")
        try:
            job = await self.jobs.get_job(params.task_id)
        except StoreError as error:
            raise MCPError(INTERNAL_ERROR, "The job store is unavailable; repeat the request later") from error
        if job is None or job.labels.get(OWNER_LABEL) != self._owner(ctx):
            raise MCPError(INVALID_PARAMS, "Unknown task: it does not exist, has expired, or belongs to another caller")
        return job

    def _owner(self, ctx: Context) -> str:
        principal = self._principal(ctx)
        return LOCAL if principal is None else hashlib.sha256(principal.encode()).hexdigest()[:32]


def supports_tasks(ctx: Context) -> bool:
    """Return whether the client of a request declared the tasks extension, in a protocol version that has it."""
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities is not None else None
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and EXTENSION in (declared or {})


def may_ask(ctx: Context) -> bool:
    """Return whether the client of a request can show its user a form."""
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and capabilities.elicitation is not None


def token_principal(_: Context) -> str | None:
    """Return the identity in the access token of the current request, or None without one."""
    token = get_access_token()
    return None if token is None else "\n".join(part or "" for part in principal_components(token))
