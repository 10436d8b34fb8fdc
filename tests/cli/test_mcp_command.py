"""`milepost mcp` over stdio, on every kind of store."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.cli.stores_fixture import StoreFixture, covers
from tests.cli.subprocesses import COMMAND

INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


@covers("mcp")
def test_mcp_submits_job(working: StoreFixture) -> None:
    working.called.append(("mcp",))
    with subprocess.Popen(
        [*COMMAND, "mcp"],
        env=working.environment,
        cwd=working.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def send(**message: Any) -> None:
            assert server.stdin is not None
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            server.stdin.flush()

        send(id=1, method="initialize", params=INITIALIZE)
        assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "milepost"
        send(method="notifications/initialized")
        submit = {"job_type": "count", "params": {"n": 2}}
        send(id=2, method="tools/call", params={"name": "submit_job", "arguments": submit})
        submitted = json.loads(server.stdout.readline())["result"]["structuredContent"]
        server.stdin.close()
    assert [job["job_id"] for job in working.rows("ls")] == [submitted["job_id"]]
