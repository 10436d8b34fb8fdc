"""Asking the document store: its errors in the words of the command line. Knows no query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from milepost.core.errors import MilepostError, MissingExtra


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
