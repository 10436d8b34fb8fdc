"""Asking the documents: a server for its own, else the document store; errors in the words of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final, Literal

import click

from milepost.cli.session import current
from milepost.core.errors import InvalidInput, MilepostError, MissingExtra

Row = dict[str, Any]
IN_A_URL: Final = {"query": "q"}
"""What is called otherwise in a URL than in Python."""
ROWS_MOST: Final = 1000
CHARACTERS_MOST: Final = 2000


def ask_documents(
    what: Literal["search", "entities", "neighbours", "communities"], database: str | None, **question: Any
) -> list[Row]:
    """The rows that answer a question, each as JSON has it: `what` of `milepost.documents`, or of the session's server
    where no `database` is named."""
    session = current()
    with documents_answer():
        if database is not None or not session.is_server:
            from milepost.documents import searching

            look_for(database)
            return [asdict(row) for row in getattr(searching, what)(**question, database=database)]
        _check_bounds(question)
        given = {IN_A_URL.get(name, name): value for name, value in question.items() if value is not None}
        answer: dict[str, list[Row]] = session.client.request("GET", f"/api/documents/{what}", params=given)
        (rows,) = answer.values()
        return rows


def _check_bounds(question: Row) -> None:
    """Refuse what no server answers, in the words of the command line."""
    if question.get("limit", 0) > ROWS_MOST:
        raise InvalidInput("--limit", f"a server gives at most {ROWS_MOST:,}; --database asks a document store itself")
    if any(len(words) > CHARACTERS_MOST for words in question.values() if isinstance(words, str)):
        raise click.UsageError(f"a server takes questions of at most {CHARACTERS_MOST:,} characters")


def look_for(database: str | None) -> None:
    """Refuse a document store that was named and is not there; to open it would make an empty one."""
    if database is not None and "://" not in database and not os.path.exists(database):
        raise click.ClickException(
            f"there is no document store {database}; this makes it: milepost run ingestion PATH... database={database}"
        )


@contextmanager
def documents_answer() -> Iterator[None]:
    """Around an import of `milepost.documents` and a query: a missing extra, or a bad query, in one line."""
    try:
        yield
    except (MilepostError, UnicodeEncodeError):  # words that are no UTF-8 are the program's to refuse
        raise
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtra("documents", "asking the documents") from missing
    except (ValueError, OSError, RuntimeError) as error:
        from milepost.documents.endpoint import EndpointError

        if isinstance(error, RuntimeError) and not isinstance(error, EndpointError):
            raise
        raise click.ClickException(" ".join(str(error).split())) from None
