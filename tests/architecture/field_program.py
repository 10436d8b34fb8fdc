"""Uses a field `colour` in every way in which a field of a job is used, and prints what each way gave, as JSON.

Run in a process of its own, with a copy of the source that has the field: ``python field_program.py STORE_URL``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
import time
from typing import Any

import uvicorn

from milepost import Jobs, Run
from milepost.cli.root_command import run_program
from milepost.client import Client
from milepost.web import auth, create_app
from milepost.web.http.json_body import row
from milepost.worker.handlers import SubmitOptions


def main(url: str) -> dict[str, Any]:
    """Return the colour that each way gave."""
    jobs = Jobs(url)

    @jobs.job("paint")
    def paint(run: Run) -> None:
        """Do nothing."""

    fence: Any = jobs.create_job("fence", "generic", colour="green")
    door: Any = jobs.submit(paint.options(colour="red"))
    wall: Any = jobs.submit("paint", colour="white")
    seen = {
        "create_job": fence.colour,
        "submit": door.colour,
        "submit by name": wall.colour,
        "get_job": getattr(jobs.get_job("fence"), "colour", None),
        "list_jobs": sorted(getattr(job, "colour", "") for job in jobs.list_jobs()),
        "to_dict": fence.to_dict()["colour"],
        "to_json": json.loads(fence.to_json())["colour"],
        "row": row(fence)["colour"],
        "SubmitOptions": "colour" in SubmitOptions.__annotations__,
    }
    with served(jobs) as server, Client(server) as client:
        made: Any = client.create_job("gate", colour="blue")
        seen |= {
            "client create_job": made.colour,
            "client get_job": getattr(client.get_job("fence"), "colour", None),
            "client list_jobs": sorted(getattr(job, "colour", "") for job in client.list_jobs()),
            "GET": client.request("GET", "/api/jobs/fence")["colour"],
            "POST": client.request("POST", "/api/jobs", body={"job_type": "paint", "colour": "pink"})["colour"],
            "OpenAPI": client.request("GET", "/api/openapi.json")["components"]["schemas"]["JobRecord"]["properties"]["colour"]["description"],
        }  # fmt: skip
        os.environ["MILEPOST_URL"] = server
        seen["cli submit"] = json.loads(called("submit", "paint", "--colour", "grey", "--json"))["colour"]
        seen["cli show"] = [line.split() for line in called("show", "fence").splitlines() if "colour" in line]
    return seen


@contextlib.contextmanager
def served(jobs: Jobs) -> Any:
    """Serve the API in a thread, and give its address."""
    server = uvicorn.Server(uvicorn.Config(create_app(jobs, auth=auth.none()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def called(*words: str) -> str:
    """Return the output of a command."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    with contextlib.redirect_stdout(out):
        code = run_program(list(words))
    said = out.detach().getvalue().decode()
    assert code == 0, said
    return said


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
