"""The tools that the task scenarios of MCP's conformance suite call, over the store of MILEPOST_URL."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import AcceptedElicitation, Elicit, ElicitationResult, Resolve
from pydantic import BaseModel

from milepost import AsyncJobs, AsyncRun
from milepost.mcp import Tasks

jobs = AsyncJobs()
tasks = Tasks(jobs)


@tasks.tool()
async def slow_compute(run: AsyncRun, seconds: float, label: str = "") -> str:
    await asyncio.sleep(seconds)
    return f"{label} took {seconds:g} s"


@tasks.tool()
async def wait_for_file(run: AsyncRun, path: str) -> str:
    while not await anyio.Path(path).exists():
        await asyncio.sleep(0.05)
    return f"{anyio.Path(path).name} exists"


@tasks.tool(required=True)
async def failing_job(run: AsyncRun) -> str:
    raise ValueError("this job always fails")


@jobs.job
async def not_started(run: AsyncRun) -> str:
    return "this job is in a queue without workers"


@dataclass
class Confirmation:
    confirm: bool


@dataclass
class Signature:
    name: str
    confirm: bool


@tasks.tool()
async def confirm_delete(run: AsyncRun, filename: str) -> str:
    answer = await run.ask("confirm", f"Delete {filename}?", Confirmation)
    return f"{filename} deleted" if answer.confirm else f"{filename} kept"


@tasks.tool()
async def multi_input(run: AsyncRun) -> str:
    answers = await run.ask_all({key: (f"Who confirms the {key}?", Signature) for key in ("first", "second")})
    return " and ".join(answer.name for answer in answers.values() if answer.confirm)


@jobs.job
async def greeting(run: AsyncRun, name: str) -> str:
    return f"Hello, {name}!"


class Name(BaseModel):
    name: str


def user_name() -> Elicit[Name]:
    return Elicit("What is your name?", Name)


server = MCPServer("conformance", extensions=[tasks], lifespan=jobs.lifespan())


@server.tool()
def greet(name: str) -> str:
    return f"Hello, {name}!"


@server.tool()
async def protocol_error_job() -> str:
    late = not_started.options(queue="without-workers", expires_in=0.1)
    result: str = await tasks.run(late)
    return result


@server.tool()
async def test_tool_with_task(name: Annotated[ElicitationResult[Name], Resolve(user_name)]) -> str:
    answer = name.data.name if isinstance(name, AcceptedElicitation) else "anonymous"
    result: str = await tasks.run(greeting, name=answer)
    return result
