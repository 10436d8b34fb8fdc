"""A client of MCP tasks, written with the official SDK only."""

from __future__ import annotations

from typing import Any, Literal

from mcp.client import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict

TERMINAL = ("completed", "failed", "cancelled")


class Task(Result):
    """A CreateTaskResult or the result of tasks/get; what its model does not name is kept as it came."""

    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"] = "task"
    task_id: str
    status: str


class Answer(Result):
    """Any result, as it came."""

    model_config = ConfigDict(extra="allow")

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TaskParams(RequestParams):
    model_config = ConfigDict(extra="allow")
    task_id: str


class TaskRequest(Request[TaskParams, str]):
    name_param = "taskId"


async def not_resolved(task: Task, context: ClaimContext) -> CallToolResult:
    raise AssertionError("these tests read tasks themselves")


class TaskExtension(ClientExtension):
    identifier = "io.modelcontextprotocol/tasks"

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Task, resolve=not_resolved)]


def task_client(server: Any, **options: Any) -> Client:
    """Return a client that declares the tasks extension."""
    return Client(server, extensions=[TaskExtension()], **options)


async def start(client: Client, tool: str, **arguments: Any) -> Task:
    """Call a tool that must become a task."""
    task = await client.session.call_tool(tool, arguments, allow_claimed=True)
    assert isinstance(task, Task), task
    return task


async def call(client: Client, method: str, task_id: str, **params: Any) -> dict[str, Any]:
    """Send tasks/get, tasks/cancel or tasks/update, and return the fields of its result."""
    request = TaskRequest(method=method, params=TaskParams(task_id=task_id, **params))
    return (await client.session.send_request(request, Answer)).fields
