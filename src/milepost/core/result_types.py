"""Type variables for the type checker: the result of a job, and which results a job returns as its handler did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from typing import Never

    from typing_extensions import TypeVar  # with defaults; type checkers know it, and the core has no dependencies

    R_co = TypeVar("R_co", covariant=True, default=Any)
    R = TypeVar("R", default=Any)

    class _JsonList(Protocol[R_co]):
        """A list of unchanging item type; a tuple is none, since it becomes a list."""

        def __iter__(self) -> Iterator[R_co]: ...
        def append(self, item: Never, /) -> None: ...

    Json: TypeAlias = "str | int | float | bool | _JsonList[Json] | Mapping[str, object] | None"
    JsonR = TypeVar("JsonR", bound=Json)
    """A type of which a value is stored and returned as it is, and not converted."""
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)
    R = TypeVar("R")
    JsonR = TypeVar("JsonR")
