"""Query documents on a server or in the document store, and map errors to CLI messages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final, Literal

import click

from milepost.cli.context import current
from milepost.core.errors import InvalidInputError, MilepostError, MissingExtraError

DocumentRow = dict[str, Any]
URL_PARAMETERS: Final = {"query": "q"}
"""Parameters whose URL name differs from the Python name."""
MAX_ROWS: Final = 1000
MAX_QUERY_CHARACTERS: Final = 2000


def query_documents(
    what: Literal["search", "entities", "neighbours", "communities"], database: str | None, **question: Any
) -> list[DocumentRow]:
    """Return the rows of a query as dicts: from the session's server, or from the document store with `database` or
    without a server."""
    context = current()
    with translate_errors():
        if database is not None or not context.is_server:
            from milepost import documents

            require_documents(database)
            return [asdict(row) for row in getattr(documents, what)(**question, database=database)]
        _check_bounds(question)
        given = {URL_PARAMETERS.get(name, name): value for name, value in question.items() if value is not None}
        answer: dict[str, list[DocumentRow]] = context.client.request("GET", f"/api/documents/{what}", params=given)
        (rows,) = answer.values()
        return rows


def _check_bounds(question: DocumentRow) -> None:
    """Raise an error for queries beyond the limits of a server, naming the option."""
    if question.get("limit", 0) > MAX_ROWS:
        raise InvalidInputError(
            "--limit",
            f"a server returns at most {MAX_ROWS:,} rows; pass --database to read the document store directly",
        )
    if any(len(words) > MAX_QUERY_CHARACTERS for words in question.values() if isinstance(words, str)):
        raise click.UsageError(f"a server accepts queries of at most {MAX_QUERY_CHARACTERS:,} characters")


def require_documents(database: str | None) -> None:
    """Raise ClickException if a named document store file does not exist; opening it would create an empty one."""
    if database is not None and "://" not in database and not os.path.exists(database):
        raise click.ClickException(
            f"no document store at {database}; create it with: milepost run ingestion PATH... database={database}"
        )


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn a missing extra or a failed query of `milepost.documents` into a one-line error."""
    try:
        yield
    except (MilepostError, UnicodeEncodeError):  # invalid UTF-8 is reported by `run_program`
        raise
    except ModuleNotFoundError as missing:
        if missing.name is not None and missing.name.partition(".")[0] == "milepost":
            raise
        raise MissingExtraError("documents", "querying documents") from missing
    except (ValueError, OSError, RuntimeError) as error:
        from milepost.documents.http_endpoint import EndpointError

        if isinstance(error, RuntimeError) and not isinstance(error, EndpointError):
            raise
        raise click.ClickException(" ".join(str(error).split())) from None
