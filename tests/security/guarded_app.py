"""Applications with auth dependencies of their own. A header chooses what the one at /given returns."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Security
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from milepost import AsyncJobManager, Job
from milepost.settings import Settings
from milepost.web import Principal, attach, auth, create_app

GIVEN: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "false": lambda: False,
    "true": lambda: True,
    "empty": lambda: "",
    "blank": lambda: "  ",
    "guest": lambda: {"name": "guest"},
    "no-id": lambda: SimpleNamespace(name="guest", id=None),
    "anonymous": lambda: SimpleNamespace(),
    "unnamed": lambda: Principal(None),
    "blank-principal": lambda: Principal("  "),
    "invisible": lambda: "\u200b",
    "no-ids": lambda: {"id": []},
    "class": lambda: Principal,
    "method": lambda: SimpleNamespace(id=str.upper),
    "text": lambda: "ana",
    "object": lambda: SimpleNamespace(id=7),
    "mapping": lambda: {"id": "ana"},
    "principal": lambda: Principal("ana"),
    "tenant": lambda: Principal("ana", labels={"owner": "ana"}),
    "chief": lambda: Principal("root", {"admin"}),  # type: ignore[arg-type]
}


def given(x_give: Annotated[str, Header()]) -> Any:
    return GIVEN[x_give]()


def basic(credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> Principal:
    return Principal(credentials.username)


manager = AsyncJobManager(os.environ["TEST_STORE"], options=Settings(namespace=os.environ["TEST_NAMESPACE"]))
app = FastAPI()


def own_routes(of: FastAPI) -> None:
    @of.get("/mine")
    async def mine(user: Annotated[Principal, Depends(auth.principal)]) -> dict[str, Any]:
        return {"id": user.id, "labels": dict(user.labels)}

    @of.post("/mine")
    async def change(user: Annotated[Principal, Security(auth.principal, scopes=["jobs:write"])]) -> dict[str, Any]:
        return {"id": user.id}

    @of.get("/mine/{job_id}")
    async def one(job: Annotated[Job, Depends(auth.job_or_404)]) -> dict[str, Any]:
        return {"status": job.status}


def mounted(name: str, scheme: Any) -> None:
    inner = FastAPI()
    attach(inner, manager, auth=scheme)
    own_routes(inner)
    app.mount(f"/{name}", inner)


mounted("given", given)
mounted("basic", basic)
mounted("open", auth.none())
mounted("proxied", auth.none(behind_proxy=True))
mounted("keys", auth.api_keys())
own_routes(app)
app.mount("/", create_app(manager, auth=auth.api_keys()))
