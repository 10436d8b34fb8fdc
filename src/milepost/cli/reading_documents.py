"""Asking the documents: a server for its own, else the document store; errors in the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from milepost.cli.session import current
from milepost.core.errors import MilepostError, MissingExtra

T = TypeVar("T")


def ask_documents(
    what: str,
    params: Mapping[str, Any],
    database: str | None,
    here: Callable[[], list[T]],
    read: Callable[[Mapping[str, Any]], T],
) -> list[T]:
    """The answer of ``GET /api/documents/{what}`` where the session has a server and no `database` is named, each row
    by `read`; else that of `here`."""
    session = current()
    with documents_answer():
        if database is not None or not session.is_server:
            return here()
        given = {name: value for name, value in params.items() if value is not None}
        answer = session.client.request("GET", f"/api/documents/{what}", params=given)
        (rows,) = answer.values()
        return [read(row) for row in rows]


@contextmanager
def documents_answer() -> Iterator[None]:
    """Around an import of `milepost.documents` and a query: a missing extra, or a bad query, in one line."""
    try:
        yield
    except MilepostError:
        raise
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtra("documents", "asking the documents") from missing
    except (ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from None
