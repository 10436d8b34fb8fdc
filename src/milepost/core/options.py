"""What a submit may set: the kind of each value, its bounds, and how it is written into a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import US, labels_text, seconds, to_json, to_micros, validate_key
from milepost.core.usage import encode_usage, millionths

Kind = Literal["whole", "time", "duration", "choice", "text", "groups", "labels", "object", "amounts"]

YEAR = 365 * 86400
_TYPES: dict[Kind, str] = {
    "whole": "int",
    "time": "datetime",
    "duration": "float | timedelta | str",
    "text": "str",
    "groups": "Sequence[str | Job | Awaited]",
    "labels": "Mapping[str, str]",
    "object": "Mapping[str, Any]",
    "amounts": "Mapping[str, float]",
}


class Awaited(Protocol):
    """What a job can follow: a batch. `awaited` is its group."""

    @property
    def awaited(self) -> str:
        """Return the group, as in ``group:NAME``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """How a field is set at submit. `manual` and `worker` say whether the job is one that its caller or a worker runs.

    `choices` are those of a "choice", its default first; `low` and `high` bound a "whole", and `low` a "duration", in microseconds. `default` is the value that is
    not stored, `flag` the option of `milepost submit` with its `help`.
    """

    kind: Kind
    manual: bool = False
    worker: bool = True
    http: bool = True
    """Whether the body of ``POST /api/jobs`` may hold it."""
    low: int = 0
    high: int = 0
    limit: int = 512
    """The most bytes of a "text"."""
    choices: tuple[str, ...] = ()
    default: Any = None
    flag: str = ""
    help: str = ""

    @property
    def annotation(self) -> str:
        """The type of the option in Python, as source text."""
        if self.kind == "choice":
            return f"Literal[{', '.join(map(repr, self.choices))}]"
        return _TYPES[self.kind]

    def write(self, name: str, value: Any) -> str | None:
        """Return the stored text of a value, None for one that is not stored. Raises InvalidInputError."""
        if self.kind == "object":
            return to_json(json_object(value, name), name)
        if value is None:
            return None
        match self.kind:
            case "whole":
                text = str(self._whole(name, value))
            case "time":
                if not isinstance(value, datetime):
                    raise InvalidInputError(name, f"{value!r:.60} is not a datetime with a timezone")
                text = str(to_micros(value, name))
            case "duration":
                micros = int(seconds(value, name) * 1_000_000)
                if micros < self.low:
                    raise InvalidInputError(name, f"{value!r:.40} must be more than 0; omit it for no limit")
                text = str(micros)
            case "choice":
                if value not in self.choices:
                    raise InvalidInputError(name, f"{value!r:.40} must be {' or '.join(map(repr, self.choices))}")
                text = value
            case "amounts":
                return encode_usage(millionths(value, name))
            case "labels":
                return labels_text(value) or None
            case "groups":
                return US.join(self._groups(name, value)) or None
            case _:
                text = validate_key(value, name, self.limit)
        return None if value == self.default else text

    def _whole(self, name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise InvalidInputError(name, f"{value!r:.40} must be a whole number from {self.low} to {self.high}")
        return value

    def _entries(self, name: str, value: Any) -> list[Any]:
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > self.high:
            raise InvalidInputError(name, f"{value!r:.40} must be a list of at most {self.high} jobs or groups")
        return list(map(_group, value))

    def _groups(self, name: str, value: Any) -> list[str]:
        found = dict.fromkeys(self._entries(name, value))
        for one in found:
            if not isinstance(one, str):
                raise InvalidInputError(name, f"{one!r:.60} must be a Job, a batch, or text such as 'job:ID'")
            validate_key(one, name, self.limit)
            if not one.startswith(self.choices):
                kinds = " or ".join(self.choices)
                raise InvalidInputError(
                    name, f"{one!r:.60} must begin with {kinds}, for example {_corrected(one, self.choices):.60}"
                )
        return list(found)

    def sent(self, name: str, value: Any) -> Any:
        """Return a value as a client sends it in JSON. Raises InvalidInputError."""
        match self.kind:
            case "time" if isinstance(value, datetime):
                return value.isoformat()
            case "duration" if value is not None:
                return seconds(value, name)
            case "object":
                return json_object(value, name)
            case "labels" | "amounts" if isinstance(value, Mapping):
                return dict(value)
            case "groups" if value is not None:
                return self._entries(name, value)
        return value


def _group(value: Any) -> Any:
    """Return the group ``job:ID`` of a Job, and that of a batch; any other value as it is."""
    if (group := getattr(value, "awaited", None)) is not None:
        return group
    job_id = getattr(value, "job_id", None)
    return value if job_id is None else f"job:{job_id}"


def with_awaited(first: Any, after: Any) -> Any:
    """Return what is given as `after` with one more entry before it. A value that is no list is left to be refused."""
    if after is None:
        return [first]
    return after if isinstance(after, str) or not isinstance(after, Sequence) else [first, *after]


def _corrected(group: str, kinds: tuple[str, ...]) -> str:
    """Return what was probably meant by a group that begins with none of these kinds: ``job:a`` for ``Jobs:a`` and for ``a``."""
    from difflib import get_close_matches

    written, _, name = group.strip().partition(":")
    meant = get_close_matches(f"{written.lower()}:", kinds, n=1) if name else []
    return f"{meant[0]}{name.strip()}" if meant else f"{kinds[0]}{group.strip()}"


def validate_type_name(job_type: object) -> str:
    """Return a job type that a server gets by its name. Raises InvalidInputError for a handler."""
    if not isinstance(job_type, str):
        raise InvalidInputError(
            "job_type", f"must be the name of a type, such as 'load', not {type(job_type).__name__}"
        )
    return job_type


def json_object(value: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Return a mapping as a dict, None as an empty one. Raises InvalidInputError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInputError(name, f"is a {type(value).__name__}; must be a dict")
    return dict(value)


QUEUE_BYTES = 128
