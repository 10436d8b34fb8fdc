"""Steps: the kept values of `run.step`, which the next attempt gets instead of calling the function again.

The values are in the record, so that a run which lost its lease can add none. When they become many, they move into a
part beside the record, under a name that only this attempt uses.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from milepost.core.errors import InputChangedError, InvalidInputError, JobReleased
from milepost.core.serialization import KIB, from_json, to_json, validate_key
from milepost.run.crash_report import masked
from milepost.run.item_content import digest, shown
from milepost.run.results import PART_BYTES, KeptResult, ResultCodec, part_key, part_names, read_part

if TYPE_CHECKING:
    from milepost.run.run import Run

OnChange = Literal["raise", "rerun"]

KEY_BYTES = 200
VALUE_BYTES = 1024 * KIB
"""The size limit of one value."""
JOB_BYTES = 8 * 1024 * KIB
"""The size limit of all values of a job, with their keys."""
MAX_STEPS = 1000
_TEXT_BYTES = 64 * 1024 * KIB
_VALUE_REMEDY = "keep large values elsewhere and return their place"
_CHANGE_REMEDY = (
    'give on_change="rerun" to call the function again, or start again without kept steps: '
    "milepost retry --from-start, retry_job(job_id, from_start=True)"
)
_current: ContextVar[Step | None] = ContextVar("milepost_step", default=None)


class Steps:
    """The steps of a run: what earlier attempts kept, and what this one adds. Thread-safe; reads and writes block."""

    def __init__(self, run: Run) -> None:
        record: Mapping[str, str] = run._job.record
        self._run = run
        self._at_start = record.get("steps")
        self._identity = (record.get("created", ""), record.get("restarts", ""))
        self._used: set[str] = set()
        self._kept: dict[str, KeptResult] | None = None
        self._newest: list[KeptResult] = []
        self._parts: dict[str, int] = {}
        self.lock = threading.Lock()
        """Held during a write, since the store applies the writes of steps and questions in the order of their ids."""

    @classmethod
    def of(cls, run: Run) -> Steps:
        """Return the steps of a run, which are made at its first one."""
        with run._making:
            if run._steps is None:
                run._steps = cls(run)
            return run._steps

    def begin(self, key: str) -> None:
        """Note that a key is in use. Raises InvalidInputError if this attempt has used it before."""
        with self.lock:
            if key in self._used:
                raise InvalidInputError(
                    "key",
                    f"{key!r:.80} was used twice; add the item to it, for example f{key + ':{doc.id}'!r:.80}",
                )
            self._used.add(key)

    def take_back(self, key: str) -> None:
        """Note that a call kept nothing, so that it may be repeated."""
        self._used.discard(key)

    def find(self, key: str) -> KeptResult | None:
        """Return the kept value of a key, or None."""
        with self.lock:
            return self._all().get(key)

    def keep(self, entry: KeptResult) -> None:
        """Keep a value, and return when the store has it. Raises what a checkpoint raises, and InvalidInputError."""
        with self.lock:
            kept = {**self._all(), entry.key: entry}
            if len(kept) > MAX_STEPS:
                raise InvalidInputError(
                    "key", f"{len(kept)} steps, the limit of a job is {MAX_STEPS}; use run.map for many items"
                )
            if (size := sum(one.size for one in kept.values())) > JOB_BYTES:
                raise InvalidInputError(
                    f"step {entry.key!r:.80}", f"the kept values of this job take {size} bytes, the limit is {JOB_BYTES}; {_VALUE_REMEDY}"
                )  # fmt: skip
            newest, parts = [*self._newest, entry], self._parts
            written: list[tuple[str, str]] = []
            if sum(one.size for one in newest) > PART_BYTES:
                prefix = f"steps.{self._run.fence}"
                number = parts.get(prefix, 0)
                written = [(part_key(self._run.job_id, f"{prefix}.{number}"), to_json(newest, "steps", _TEXT_BYTES))]
                newest, parts = [], {**parts, prefix: number + 1}
            text = to_json({"values": newest, "parts": parts}, "steps", _TEXT_BYTES)
            name = to_json({"key": masked(entry.key, self._run._secret_values)}, "key")
            self._run._checkpoint_writer.keep_step(self._run, text, name, written)
            self._kept, self._newest, self._parts = kept, newest, parts

    def identify(self, key: str, arguments: str) -> str:
        """Return the idempotency key of a step: the same in each attempt, another one after a retry from the start."""
        parts = (self._run.job_id, *self._identity, key, arguments)
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def _all(self) -> dict[str, KeptResult]:
        if self._kept is None:
            kept = from_json(self._at_start) if self._at_start else {}
            found: dict[str, KeptResult] = {}
            for part in part_names(kept):
                key = part_key(self._run.job_id, part)
                found.update((one.key, one) for one in read_part(self._run._checkpoint_writer.read(self._run, key)))
            self._newest = [KeptResult(*entry) for entry in kept.get("values", ())]
            found.update((one.key, one) for one in self._newest)
            self._parts = kept.get("parts", {})
            self._kept = found
            if found:
                self._run.log(f"resumed with {len(found)} kept step{'s' if len(found) > 1 else ''}")
        return self._kept


class Step:
    """One call of `run.step`."""

    def __init__(
        self, run: Run, key: str, function: Callable[..., Any], args: tuple[Any, ...], on_change: OnChange
    ) -> None:
        validate_key(key, "key", KEY_BYTES)
        if on_change not in ("raise", "rerun"):
            raise InvalidInputError("on_change", f"{on_change!r:.40} must be 'raise' or 'rerun'")
        if not callable(function):
            raise InvalidInputError("function", f"{function!r:.60} is not callable; write run.step(key, function, ...)")
        self._steps = Steps.of(run)
        self._run = run
        self._key = key
        self._function = function
        self._args = args
        self._reruns = on_change == "rerun"
        self._codec = ResultCodec(function, "value of step", VALUE_BYTES, _VALUE_REMEDY)
        # An argument without a lasting content, such as the run or a client, is not compared.
        self._digest = digest([digest(argument) for argument in args]) or ""
        self.key = self._steps.identify(key, self._digest)
        """The idempotency key."""

    def call(self) -> Any:
        """Return the kept value, or call the function and keep what it returns."""
        with self._begun():
            kept = self._steps.find(self._key)
            if kept is not None and self._fits(kept):
                return self._load(kept)
            with self._current():
                value = self._function(*self._args)
            entry = self._entry(value)
            self._steps.keep(entry)
        self._check_cancel()
        return self._load(entry)

    async def acall(self) -> Any:
        """Do the same in an event loop: a function that is not async is called in a thread."""
        with self._begun():
            kept = await asyncio.to_thread(self._steps.find, self._key)
            if kept is not None and self._fits(kept):
                return self._load(kept)
            entry = await self._finish_at_deploy(self._acall_and_keep())
        self._check_cancel()
        return self._load(entry)

    async def _acall_and_keep(self) -> KeptResult:
        with self._current():
            if inspect.iscoroutinefunction(self._function):
                value = await self._function(*self._args)
            else:
                value = await asyncio.to_thread(self._function, *self._args)
        entry = self._entry(value)
        await asyncio.to_thread(self._steps.keep, entry)
        return entry

    async def _finish_at_deploy(self, call: Coroutine[Any, Any, KeptResult]) -> KeptResult:
        """Await a call. If the run is released it is finished although the code is cancelled, because it is paid for."""
        task = asyncio.create_task(call)
        ended: Future[None] | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                if ended is not None or not is_released(self._run):
                    task.cancel()
                    continue
                # The end of the run waits for this future as for a thread. A cancelled `asyncio.gather` waits for no task.
                ended = Future()
                self._run._threads.add(ended)
                ended.add_done_callback(self._run._threads.discard)
        if ended is None:
            return task.result()
        ended.set_result(None)
        raise asyncio.CancelledError from task.exception()

    @contextmanager
    def _begun(self) -> Iterator[None]:
        self._run.check()
        self._steps.begin(self._key)
        try:
            with self._run._kept_work.spent(keeps_errors=False):
                yield
        except BaseException:
            self._steps.take_back(self._key)
            raise

    @contextmanager
    def _current(self) -> Iterator[None]:
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def _check_cancel(self) -> None:
        with self._current():  # code that calls nothing more ends, even if a budget is spent that may be raised
            self._run._check_cancel()

    def _entry(self, value: Any) -> KeptResult:
        text, is_typed = self._codec.dump(value, self._key)
        return KeptResult(self._key, self._digest, self._shown(), text, is_typed)

    def _load(self, kept: KeptResult) -> Any:
        return self._codec.load(kept)

    def _fits(self, kept: KeptResult) -> bool:
        """Return whether the kept value is that of this call. Raises InputChangedError unless the function may be called again."""
        if kept.digest not in (None, self._digest):
            problem = f"was called with {kept.shown} in an earlier attempt, now with {self._shown()}"
        elif not self._codec.knows(kept):
            problem = f"has a kept value of a declared type, which {self._codec.name} no longer declares"
        else:
            return True
        if self._reruns:
            return False
        raise InputChangedError(problem, _CHANGE_REMEDY, f"step {self._key!r:.80}")

    def _shown(self) -> str:
        return masked(shown(self._args), self._run._secret_values)


def is_released(run: Run) -> bool:
    """Return whether the code of the run is asked to stop by a deploy."""
    return bool(run._stop_reasons) and isinstance(run._stop_reasons[0], JobReleased)


def is_in_step() -> bool:
    """Return whether the calling code belongs to a step."""
    return _current.get() is not None


def current_step_key() -> str:
    """Return the idempotency key of the step that the calling code belongs to. Raises InvalidInputError outside of one."""
    step = _current.get()
    if step is None:
        raise InvalidInputError("step_key", "exists only inside a function that run.step calls")
    return step.key
