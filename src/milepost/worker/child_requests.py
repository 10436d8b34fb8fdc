"""What the run of a child process requests of its worker, which has the store."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from milepost.core.errors import BudgetExceededError, InvalidInputError, JobSuspended, RunStop, StoreError
from milepost.run.checkpoints import CheckpointWriter, Parts
from milepost.run.report import usage_text
from milepost.run.run import Run
from milepost.worker.child_protocol import Message, ParentConnection, decode_stop, decode_wait


class _PendingRequest:
    """What the worker was asked to write or to read for a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.answered = threading.Event()
        self.error: BaseException | None = None
        self.text: str | None = None


class ParentCheckpointWriter(CheckpointWriter):
    """Sends the checkpoints, steps and questions of a run to the worker, which writes them and replies when the store has them."""

    lease_end = math.inf
    """When the lease of the run ends if it is not renewed, on the monotonic clock."""

    def __init__(self, connection: ParentConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _PendingRequest] = {}

    def checkpoint(self, run: Run, text: str) -> None:
        self._ask(run, {"is": "checkpoint", "text": text, **run_details(run), "report": run._report()})

    async def acheckpoint(self, run: Run, text: str) -> None:
        await asyncio.to_thread(self.checkpoint, run, text)

    def stop_if_expired(self, run: Run) -> None:
        if (
            time.monotonic() >= self.lease_end
        ):  # the worker may have renewed it, or have stood still as long as this process
            with contextlib.suppress(RunStop):
                self._ask(run, {"is": "lease"})

    def checkpoint_within(self, run: Run, text: str, using: object) -> None:
        self._ask(run, {"is": "using"})  # a suspect is released, and runs in the worker next
        raise InvalidInputError(
            "using", 'a handler with isolation="process" has no connection to the store; use isolation="thread"'
        )

    def now(self, run: Run) -> int:
        return int(self._ask(run, {"is": "now"}) or 0)

    def children(self, run: Run, request: str) -> str:
        return self._ask(run, {"is": "children", "request": request}) or ""

    def read(self, run: Run, key: str) -> str | None:
        return self._ask(run, {"is": "read", "key": key})

    async def aread(self, run: Run, key: str) -> str | None:
        return await asyncio.to_thread(self.read, run, key)

    def keep_step(self, run: Run, steps: str, key: str, parts: Parts) -> None:
        self._ask(run, {"is": "step", "steps": steps, "key": key, "step_parts": list(parts), "usage": usage_text(run)})

    def write_question(self, run: Run, values: Mapping[str, Any]) -> bool:
        return self._ask(run, {"is": "question", "values": dict(values)}) == "1"

    def read_questions(self, run: Run) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self._ask(run, {"is": "questions"}) or "{}")
        return found

    def ask_to_raise(self, run: Run, holder: str) -> JobSuspended | BudgetExceededError:
        reply = json.loads(self._ask(run, {"is": "budget", "holder": holder, "usage": usage_text(run)}) or "")
        return BudgetExceededError(reply["error"]) if "error" in reply else decode_wait(reply)

    def _ask(self, run: Run, request: Message) -> str | None:
        """Send a request to the worker; return the text of its reply, or raise its error."""
        number, pending = next(self._numbers), _PendingRequest(run)
        self._waiting[number] = pending
        self._connection.send({**request, "n": number, "token": run.token})
        pending.answered.wait()
        if pending.error is not None:
            raise pending.error
        return pending.text

    def answer(self, message: Message) -> None:
        """Take the reply to a request: it is written, the run is stopped, or the store has rejected it."""
        pending = self._waiting.pop(message["n"])
        if message.get("stop") is not None:
            pending.run.stop(decode_stop(message["stop"]))
            pending.error = pending.run._stop_reasons[0]
        elif "refused" in message:
            pending.error = StoreError(message["refused"])
        pending.text = message.get("text")
        pending.answered.set()


def run_details(run: Run) -> Message:
    """Return where the code of a run is, as a part of a message."""
    return {
        "stage": run._stage_name,
        "item": run._last_item,
        "log": list(run.recent_log),
        "checkpoint_at": run._checkpoint_at,
    }
