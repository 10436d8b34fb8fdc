"""The output of a job: text that its runs stream, in chunks in the key-value store, and positions in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.record_codec import results_prefix
from milepost.core.serialization import from_json, to_json

PATTERN = r"^[0-9]{1,20}\.[0-9]{1,9}\.[0-9]{1,9}$"


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of the output of a job, with the attempt and the segment (from 0) that wrote it.

    `offset` is the number of characters that the run wrote before it; a jump means that text is no longer kept. With
    `starts_over` it is the first text, after the position of the reader, of a run that began anew: readers discard what
    they show. `position` is where a reader continues after it.
    """

    text: str
    attempt: int
    segment: int
    offset: int
    starts_over: bool
    position: str

    def to_dict(self) -> dict[str, Any]:
        """Return the chunk as JSON types."""
        return asdict(self)


class OutputPosition(NamedTuple):
    """A position: the fence of a run, the number of a chunk of it, and how many of its characters were read."""

    fence: int = 0
    number: int = 0
    read: int = 0

    @classmethod
    def parse(cls, text: str | None) -> OutputPosition:
        """Return the position that a text names; None is the beginning. Raises InvalidInputError."""
        if text is None:
            return cls()
        if not isinstance(text, str) or not re.fullmatch(PATTERN, text):
            raise InvalidInputError("after", f"{text!r:.60} is not a position; use the `position` of a chunk")
        return cls(*map(int, text.split(".")))

    def key(self, job_id: str) -> str:
        """Return the key of the chunk. Keys are in the order of the output."""
        return f"{output_prefix(job_id)}{self.fence:020d}.{self.number:010d}"

    def before(self, job_id: str) -> str:
        """Return a key that only the keys of this chunk and of those after it follow."""
        return self._replace(number=self.number - 1).key(job_id) if self.number else self.key(job_id)[:-1]

    def __str__(self) -> str:
        return f"{self.fence}.{self.number}.{self.read}"


def output_prefix(job_id: str) -> str:
    """Return how the keys of the output of a job begin. They are deleted with the job, as its kept results are."""
    return f"{results_prefix(job_id)}output."


def encode_chunk(attempt: int, segment: int, offset: int, text: str) -> str:
    """Return the stored form of a chunk."""
    return to_json({"attempt": attempt, "segment": segment, "offset": offset, "text": text}, "output", 1 << 24)


def decode_chunks(items: Iterable[tuple[str, str]], after: OutputPosition) -> Iterator[OutputChunk]:
    """Yield what stored chunks, as (key, value) in order, add after a position, which may be that of the first of them."""
    last_fence, last_attempt = after.fence, None
    for key, value in items:
        fence, number = map(int, key.rpartition("output.")[2].split("."))
        found: dict[str, Any] = from_json(value)
        attempt, segment = found["attempt"], found["segment"]
        read = after.read if (fence, number) == after[:2] else 0
        # A later segment continues the output only of its own attempt. The run may have written nothing before it.
        starts_over = fence != last_fence and (segment == 0 or attempt != last_attempt)
        if text := found["text"][read:]:
            last_fence = fence
            position = OutputPosition(fence, number, len(found["text"]))
            yield OutputChunk(text, attempt, segment, found["offset"] + read, starts_over, str(position))
        last_attempt = attempt
