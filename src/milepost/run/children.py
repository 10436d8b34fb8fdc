"""Children of a run: jobs that it makes under keys, buffers and waits for.

The id of a child follows from its parent and its key, so that a run that starts again finds what it has made. A child is
made in one step with the check that its parent runs under the token that makes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, get_args

from milepost.core.errors import (
    ChildFailedError,
    InputChangedError,
    InvalidInputError,
    JobNotFoundError,
    JobSuspended,
    StoreError,
)
from milepost.core.job import Job
from milepost.core.placement import AFTER, after_groups
from milepost.core.serialization import KIB, US, from_json, to_json, validate_key
from milepost.core.values import MemberCounts
from milepost.run.child_store import content
from milepost.run.steps import KEY_BYTES
from milepost.run.suspension import refuse_elsewhere
from milepost.run.usage import budget_holders

if TYPE_CHECKING:
    from milepost.run.run import Run

P = ParamSpec("P")
OnChildError = Literal["raise", "collect"]

BUFFERED = 500
BUFFERED_BYTES = 4 * 1024 * KIB
"""Children are made at this number or size, in requests that exceed neither by more than one child."""
MAX_WAITING_BYTES = 64 * 1024 * KIB
"""The size limit of children that async code has added and that are not yet made, since it cannot wait for the store."""
FLUSH_INTERVAL = 1.0
"""Seconds after which a buffered child is made at the latest."""
RESIDENT_SECONDS = 5.0
"""Seconds for which a run waits in place while all of its open children run."""
PARENT_ID_CHARACTERS = 40
DIGEST_BYTES = 16
_SHOWN = 5
_LIMIT = 64 * 1024 * 1024


class ChildTarget(Protocol[P]):
    """What a child runs: a handler, alone or with options."""

    def child_fields(self, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, str]:
        """Return the fields of a child of a run for this handler, with validated parameters. Raises InvalidInputError."""


def child_id(parent_id: str, kind: str, key: str, restarts: str = "") -> str:
    """Return the id of a child, which other jobs cannot have. Other ones follow from a retry from the start."""
    text = "\0".join((parent_id, kind, key, restarts)).encode()
    digest = b64encode(hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest(), b"-_").decode().rstrip("=")
    return f"{parent_id[:PARENT_ID_CHARACTERS]}.{digest}"


class ChildJobs:
    """The children of a run. Thread-safe; all but `add` may block."""

    def __init__(self, run: Run) -> None:
        if run._job.run_by == "external" and not run._can_suspend:
            raise InvalidInputError(
                "run.submit_child()",
                "a task under @tracked would occupy its worker while it waits for children; make it a handler of jobs.job",
            )
        self._run = run
        self._restarts = run._job.record.get("restarts", "")
        self.group = f"children:{run.job_id}"
        self._used: set[str] = set()
        self._is_joined = False
        self._buffer: list[tuple[str, dict[str, str]]] = []
        self._bytes = 0
        self._adding = threading.Lock()
        self._existing: dict[str, str] | None = None
        """The children of earlier segments that stay as they are, with a digest of their content; read at the first flush."""
        self._has_waiting = False
        """Whether a child has `after`."""
        self._flushing = threading.Lock()
        self._timer: threading.Timer | None = None
        self._error: BaseException | None = None

    @classmethod
    def of(cls, run: Run) -> ChildJobs:
        """Return the children of a run, which are made at the first one."""
        with run._making:
            if run._children is None:
                run._children = cls(run)
            return run._children

    @property
    def generation(self) -> str:
        """Return what children of this attempt have in `parent_attempt`: how often the parent was restarted, and the attempt."""
        return f"{self._restarts}.{self._run.attempt}"

    def id_of(self, key: str) -> str:
        """Return the id of the child with a key."""
        return child_id(self._run.job_id, "child", key, self._restarts)

    def add(self, key: str, target: ChildTarget[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Add a child to those that are to be made, and return its id."""
        run = self._run
        validate_key(key, "key", KEY_BYTES)
        if not hasattr(target, "child_fields"):
            raise InvalidInputError("handler", f"{target!r:.60} is not a handler; pass the decorated function")
        self._raise_late_error()
        fields = self._completed(key, target.child_fields(run, *args, **kwargs))
        size = _size(fields)
        timer: threading.Timer | None = None
        with self._adding:
            if key in self._used:
                raise InvalidInputError(
                    "key", f"{key!r:.80} was used twice; add the item to it, for example f{key + ':{doc.id}'!r:.80}"
                )
            if self._bytes + size > MAX_WAITING_BYTES:
                raise InvalidInputError(
                    "run.submit_child()",
                    f"{self._bytes + size} bytes of children are not yet made, the limit is {MAX_WAITING_BYTES}; "
                    "await asyncio.sleep(0.1) every few hundred children, or pass smaller parameters",
                )
            self._used.add(key)
            self._is_joined = False
            self._has_waiting |= AFTER in fields["labels"]
            self._buffer.append((self.id_of(key), fields))
            self._bytes += size
            if self._timer is None:
                self._timer = timer = threading.Timer(FLUSH_INTERVAL, self._flush_late)
        if timer is not None:
            timer.daemon = True
            timer.start()
        return self.id_of(key)

    @property
    def is_full(self) -> bool:
        """Return whether the buffer should be flushed."""
        return len(self._buffer) >= BUFFERED or self._bytes >= BUFFERED_BYTES

    def _next_request(self) -> list[tuple[str, dict[str, str]]]:
        """Return the children to make next, which stay in the buffer until they are made."""
        found, size = self._buffer[:BUFFERED], 0
        for number, (_, fields) in enumerate(found, 1):
            size += _size(fields)
            if size >= BUFFERED_BYTES:
                return found[:number]
        return found

    def _remove(self, made: Sequence[tuple[str, dict[str, str]]]) -> None:
        with self._adding:
            del self._buffer[: len(made)]
            self._bytes -= sum(_size(fields) for _, fields in made)

    def _completed(self, key: str, fields: dict[str, str]) -> dict[str, str]:
        """Return the fields of a child with those that follow from its parent."""
        record, own = self._run._job.record, fields.get("labels", "")
        awaited = {self.group, f"job:{self._run.job_id}"}.intersection(after_groups(own))
        if awaited:
            raise InvalidInputError(
                "after", f"{awaited.pop()!r:.170} would never close: a parent of the job is in it; omit it"
            )
        names = {pair.partition("=")[0] for pair in own.split(US)}
        inherited = [
            pair for pair in record.get("labels", "").split(US)
            if pair and not pair.startswith(":") and pair.partition("=")[0] not in names
        ]  # fmt: skip
        pairs = [f":parent_id={self._run.job_id}", *filter(None, own.split(US)), *inherited]
        kept = {"detached": "1"} if record.get("children") == "keep" else {}
        above = record.get("ancestors")
        if above is None or "usage_budget" in record:
            above = self._run.job_id if above is None else US.join((above, self._run.job_id))
        kept["ancestors"] = above
        if holders := budget_holders(self._run.job_id, record):
            kept["budgets_above"] = US.join(holders)
        return {**fields, "labels": US.join(pairs), "child_key": key, "parent_attempt": self.generation, **kept}

    def flush_in_thread(self) -> None:
        """Begin to make the children that are buffered, without waiting: the event loop continues."""
        if self._flushing.locked():
            return  # that thread also makes those that were added meanwhile; the timer is for what it misses
        threading.Thread(target=self._flush_late, name="milepost-children", daemon=True).start()

    def _flush_late(self) -> None:
        try:
            self.flush()
        except BaseException as error:  # noqa: BLE001 - raised in the code of the run at its next call
            self._error = error

    def _raise_late_error(self) -> None:
        if (error := self._error) is not None:
            self._error = None
            raise error

    def flush(self) -> None:
        """Make the children that are buffered, and return when the store has them. Raises as a checkpoint does,
        InputChangedError for a child that exists with other parameters, and InvalidInputError for one that would wait for itself.
        """
        with self._flushing:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            if self._existing is None and self._buffer:
                self._existing = self._read_existing()
            while batch := self._next_request():
                new = [child for child in batch if not self._exists(*child)]
                reply = self._ask({"make": new}) if new else []
                if isinstance(reply, dict):
                    raise InvalidInputError(*next(iter(reply.items())))
                self._remove(batch)
                for (_, fields), changed in zip(new, reply, strict=True):
                    if changed is not None:
                        self._refuse(fields["child_key"], changed)
        self._raise_late_error()

    def finish(self) -> None:
        """Make the children that are buffered, as `flush`, and note how many are open if the code has not waited for them."""
        self.flush()
        if not self._is_joined and not self._run._is_finishing:
            with contextlib.suppress(StoreError):  # the end of the run needs the store, too
                self._run._open_children = self._ask({"open": True}).get("", 0)

    def _read_existing(self) -> dict[str, str]:
        """Return the children that need no write, in pages. Code that starts for the first time has none, and asks for none."""
        job, found, after = self._run._job, {}, None
        if job.attempt == 1 and not job.crashes and "ran" not in job.record:
            return {}
        while True:
            page, after = self._ask({"existing": after, "parent_attempt": self.generation})
            found.update(page)
            if after is None:
                return found

    def _exists(self, job_id: str, fields: dict[str, str]) -> bool:
        existing = self._existing or {}
        return job_id in existing and existing[job_id] == content(fields)

    def _refuse(self, key: str, problem: str) -> None:
        remedy = "use another key, or start again: milepost retry --from-start, retry_job(job_id, from_start=True)"
        raise InputChangedError(problem, remedy, f"child {key!r:.80}")

    # --- waiting ---

    def must_wait(self, since: float, now: float) -> bool:
        """Return whether a child is open. Raises JobSuspended if the run can be suspended and it is worth while."""
        if not self._open_counts().get(""):
            self._is_joined = True
            return False
        is_pending = now - since >= RESIDENT_SECONDS or self._ask({"pending": True})
        if self._has_waiting and is_pending and (problem := self._ask({"join": True})):
            raise InvalidInputError("run.join()", problem)
        if self._run._can_suspend and is_pending:
            self._run._suspend(JobSuspended(groups=(self.group,)), "join()")
        return True

    def _open_counts(self) -> dict[str, int]:
        found: dict[str, int] = self._ask({"counts": True})
        return found

    def counts(self) -> MemberCounts:
        """Return the exact numbers of the children whose keys the code has used in this segment."""
        counts = MemberCounts.of(self._open_counts())
        if counts.total == len(self._used) and not self._restarts:
            return counts
        states: dict[str, int] = {}
        for job in self.pages():
            state = job.status.value if job.is_terminal else ""
            states[state] = states.get(state, 0) + 1
        return MemberCounts.of(states)

    def pages(self, statuses: Sequence[str] = ()) -> Iterator[Job]:
        """Yield the children, newest first, read in pages: those that this code made, no others with this `parent_id`.

        A child of an earlier segment whose key the code no longer uses is left out.
        """
        after: Any = None
        while True:
            found, after = self._ask({"page": after, "statuses": list(statuses)})
            jobs = [Job.stored(job_id, record) for job_id, record in found]
            yield from (one for one in jobs if one.child_key in self._used and one.job_id == self.id_of(one.child_key))
            if after is None:
                return

    def get(self, key: str) -> Job:
        """Return the child with a key. Raises JobNotFoundError."""
        record = self._ask({"get": self.id_of(key)})
        if record is None:
            raise JobNotFoundError(self.id_of(key), f"Child {key!r:.80} not found; run.submit_child makes it")
        return Job.stored(self.id_of(key), record)

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._run._kept_work.spent():
            reply = self._run._checkpoint_writer.children(self._run, to_json(request, "children", _LIMIT))
        return from_json(reply)

    def check(self, counts: MemberCounts) -> None:
        """Raise ChildFailedError if a child has failed or was cancelled."""
        bad = counts.failed + counts.cancelled
        if not bad:
            return
        keys: list[str] = []
        for job in self.pages(("failed", "cancelled")):
            keys.append(f"{job.child_key or job.job_id} ({job.error or job.status.value})")
            if len(keys) == _SHOWN:
                break
        more = f" and {bad - len(keys)} more" if bad > len(keys) else ""
        raise ChildFailedError(f"{bad} of {counts.total} children did not complete: {', '.join(keys)}{more}", counts)


def _size(fields: dict[str, str]) -> int:
    return sum(map(len, fields.values()))


def refuse_join(run: Run, errors: str) -> None:
    """Raise InvalidInputError where a run cannot wait for its children, and for another word than those of `errors`."""
    if errors not in get_args(OnChildError):
        raise InvalidInputError("errors", f"{errors!r:.40} must be 'raise' or 'collect'")
    run._refuse_fork("join")
    refuse_elsewhere(run, "join")
    run.check()
