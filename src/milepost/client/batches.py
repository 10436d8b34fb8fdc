"""Batches of a server: those of `Jobs.batch`, over HTTP."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from milepost.app.batches import AsyncBatch, OnError
from milepost.client.decoding import AccessDeniedError
from milepost.client.transport import Call, send
from milepost.core.options import validate_type_name, with_awaited
from milepost.core.values import MemberCounts

if TYPE_CHECKING:
    from milepost.client.client import AsyncClient


class AsyncClientBatch(AsyncBatch):
    """A batch of jobs on a server: ``async with client.batch("import-42") as batch``. Jobs are named by their types."""

    def __init__(self, client: AsyncClient, name: str, labels: Mapping[str, str] | None, on_error: OnError) -> None:
        super().__init__(client, name, labels, on_error)  # type: ignore[arg-type] # what it calls of AsyncJobs, a client has
        self._client = client

    @property
    def store(self) -> None:
        """Return None: the batch is on a server."""
        return None

    async def submit(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Create a job of a type in the batch and return it. The arguments are those of AsyncClient.submit."""
        return await super().submit(validate_type_name(target), *args, **kwargs)

    async def submit_many(self, target: Any, params: Iterable[Mapping[str, Any]], **options: Any) -> list[str]:
        """Create jobs of one type in the batch, one request after the other, and return their ids."""
        return [(await self.submit(target, one, **options)).job_id for one in params]

    async def then(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Create a job that starts when the batch has ended, and return it. See AsyncBatch.then."""
        after = with_awaited(self.awaited, kwargs.pop("after", None))
        return await self._client.submit(target, *args, **kwargs, after=after)

    async def counts(self) -> MemberCounts:
        """Return the exact numbers of members by what became of them. Raises JobNotFoundError."""
        found = await self._send("GET", f"/{quote(self.name, safe='')}", None)
        return MemberCounts(**{name: found[name] for name in MemberCounts.__dataclass_fields__})

    async def _refuse_unopened(self) -> None:
        """Raise JobNotFoundError for a handle of a batch that does not exist, as far as the key may see batches."""
        if self._opened_by is None:
            with contextlib.suppress(AccessDeniedError):
                await self.counts()

    async def open(self) -> None:
        """Open the batch, or continue one that is open. Raises IllegalTransitionError for a closed one."""
        await self._send("POST", "", {"name": self.name, "labels": self._labels or None})
        self._opened_by = os.getpid()

    async def report(self) -> None:
        """Say that the process which has the batch open is alive."""
        await self._send("POST", "", {"name": self.name})

    async def _close(self) -> None:
        await self._send("POST", f"/{quote(self.name, safe='')}/close", {})

    async def fail(self, text: str) -> None:
        """Fail the batch, if it is open, and cancel its open members."""
        await self._send("POST", f"/{quote(self.name, safe='')}/close", {"error": text})

    async def _send(self, method: str, path: str, body: Any) -> Any:
        call = Call(
            method, f"/api/batches{path}", body=body, job_id=self.name, safe=True
        )  # repeating it changes nothing
        return (await send(self._client._transport, call)).json()
