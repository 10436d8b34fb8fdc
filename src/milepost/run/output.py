"""`run.output`: buffered text, which the heartbeat writes once a second into a ring of chunks beside the record."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from milepost.core.errors import InvalidInputError
from milepost.core.output import OutputPosition, encode_chunk, output_prefix
from milepost.core.serialization import printable
from milepost.core.transitions import plan_output
from milepost.run.crash_report import redacted
from milepost.stores.protocol import Store, Write
from milepost.stores.scan import scan_all
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.run.run import Run

FLUSH_SECONDS = 1.0
"""The time between two writes of the output of a run, of which the last chunk is an event in the feed."""
BUFFERED_CHARACTERS = 1024 * 1024
"""The most characters that wait for a write. The oldest are dropped, as from the ring."""
CHUNK_CHARACTERS = 16 * 1024
FULL_CHARACTERS = 4 * 1024
"""A chunk with at least this much text does not grow any more, so that little is written again."""


class Output:
    """The output of one run. `add` is thread-safe; the rest is called by what writes for the run."""

    def __init__(self, run: Run, ring_bytes: int) -> None:
        record = run._job.record
        self._run = run
        self._ring_bytes = ring_bytes
        self._segment = int(record.get("segments") or 0)
        self._at = OutputPosition(run.fence)
        self._offset = 0
        self._current = ""
        self.has_earlier = "output_bytes" in record
        """Whether the chunks of earlier runs are still to be read with `know_earlier`, so that the ring counts them."""
        self._ring: deque[tuple[str, int]] = deque()
        self._ring_size = 0
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._size = self._lost = 0
        self._flush_at = 0.0

    def add(self, text: str, lost: int = 0) -> None:
        """Add text, after `lost` characters that were dropped before."""
        with self._lock:
            if lost:
                self._lost += self._size + lost
                self._waiting.clear()
                self._size = 0
            self._waiting.append(text)
            self._size += len(text)
            while self._size > BUFFERED_CHARACTERS:
                oldest = self._waiting.popleft()
                rest = oldest[self._size - BUFFERED_CHARACTERS :]
                if rest:
                    self._waiting.appendleft(rest)
                self._size -= len(oldest) - len(rest)
                self._lost += len(oldest) - len(rest)

    def take(self) -> tuple[str, int]:
        """Return the text since the last call, and the number of characters that were dropped before it."""
        with self._lock:
            text, lost = "".join(self._waiting), self._lost
            self._waiting.clear()
            self._size = self._lost = 0
        return text, lost

    def is_due(self, now: float) -> bool:
        """Return whether there is text to write now, on the monotonic clock of the caller."""
        if not self._size or now < self._flush_at or self.has_earlier:
            return False
        self._flush_at = now + FLUSH_SECONDS
        return True

    def know_earlier(self, store: Store) -> None:
        """Count the chunks of earlier runs in the ring. Raises StoreError."""
        found = run_sync(self._sizes(store))
        self._ring.extendleft(reversed(found))
        self._ring_size += sum(size for _, size in found)
        self.has_earlier = False

    async def _sizes(self, store: Store) -> list[tuple[str, int]]:
        """Return the keys and characters of the stored chunks."""
        return [(item.key, len(item.value)) async for item in scan_all(store, output_prefix(self._run.job_id))]

    def writes(self, new_operation_id: Callable[[], str]) -> list[Write]:
        """Return the writes of the text since the last call; all but the last one are silent."""
        text, lost = self.take()
        if lost:
            self._next_chunk(lost)
        pieces = list(self._pieces(self._current + text)) if text else []
        writes: list[Write] = []
        for index, piece in enumerate(pieces):
            key = self._at.key(self._run.job_id)
            added = len(piece.encode()) - len(self._current.encode())
            plan = plan_output(
                new_operation_id(),
                self._run.token,
                key=key,
                chunk=encode_chunk(self._run.attempt, self._segment, self._offset, piece),
                added=added,
                erased=self._displaced(key, added),
                silent=index < len(pieces) - 1,
            )
            writes.append(Write(self._run.job_id, plan, answer=False))
            self._current = piece
            if len(piece) >= FULL_CHARACTERS:
                self._next_chunk()
        return writes

    def _pieces(self, text: str) -> Iterable[str]:
        for start in range(0, len(text), CHUNK_CHARACTERS):
            yield text[start : start + CHUNK_CHARACTERS]

    def _next_chunk(self, lost: int = 0) -> None:
        self._offset += len(self._current) + lost
        if self._current or lost:
            self._at = self._at._replace(number=self._at.number + 1)
        self._current = ""

    def _displaced(self, key: str, added: int) -> tuple[str, ...]:
        """Count new text of a chunk in the ring; return the keys of the oldest chunks, which it displaces."""
        size = self._ring.pop()[1] if self._ring and self._ring[-1][0] == key else 0
        self._ring.append((key, size + added))
        self._ring_size += added
        gone: list[str] = []
        while self._ring_size > self._ring_bytes and len(self._ring) > 1:
            oldest, size = self._ring.popleft()
            self._ring_size -= size
            gone.append(oldest)
        return tuple(gone)


class OutputMixin:
    """Adds `output` to a Run."""

    def output(self, text: str) -> None:
        """Stream text, such as the tokens of a language model, to the readers of the job: ``run.output(token)``.

        It never waits: the text is written once a second, and when the run ends. Readers (``jobs.output(job_id)``,
        ``jobs.follow_output(job_id)``, the API, the command line, the dashboard) get it in order, each character once. The
        job keeps the newest text, 1 MiB unless MILEPOST_OUTPUT_BYTES says otherwise, until it is deleted. A new attempt
        starts over. Raises InvalidInputError for anything but a str, and in a forked process. A cancellation point.
        """
        run = cast("Run", self)
        run._refuse_fork("output")
        run._check_cancel()
        if not isinstance(text, str):
            raise InvalidInputError("text", f"{text!r:.40} is not a str; write run.output(str(value))")
        text = redacted(text, run)
        run._add_output(printable(text, 4 * len(text)))  # the buffer keeps its newest characters

    def _add_output(self, text: str, lost: int = 0) -> None:
        """Add text to the output of the run."""
        run = cast("Run", self)
        if run._output is None:
            with run._making:
                if run._output is None:
                    run._output = Output(run, run._output_bytes)
        if text or lost:
            run._output.add(text, lost)
