"""`milepost documents`: commands that manage a document store and measure its search."""

from __future__ import annotations

import contextlib
import re
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import current, session_options
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.tables import print_records
from milepost.cli.rendering.terminal import clean
from milepost.core.errors import InvalidInputError
from milepost.documents.commands import (
    DATABASE,
    LIMIT,
    MODE_NAMES,
    OWNER,
    DocumentRow,
    document_filter,
    document_uri,
    query_documents,
    reads_store,
    require_documents,
    short_uri,
    translate_errors,
)

if TYPE_CHECKING:
    from milepost.documents.retrieval import Mode


_ID: Final = re.compile("[0-9a-f]{32}")


@click.group("documents")
@session_options
def documents() -> None:
    """Manage ingested documents."""


@documents.command("ls")
@click.argument("text", default="")
@document_filter
@LIMIT
@DATABASE
@session_options
def ls(
    text: str,
    under: str | None,
    format: str | None,
    since: str | None,
    where: DocumentRow | None,
    owner: str | None,
    limit: int,
    database: str | None,
) -> int:
    """List documents by URI; TEXT selects those whose URI or title contains it."""
    context = current()
    found = query_documents(
        "list_documents",
        database,
        text=text,
        under=document_uri(under),
        format=format,
        since=since,
        where=where,
        owner=owner,
        limit=limit,
    )
    rows = [
        (
            short_uri(one["uri"]), clean(one["title"]), one["format"],
            formatting.number(one["chunk_count"]), _when(one["ingested_at"], utc=context.utc),
        )
        for one in found
    ]  # fmt: skip
    nothing = "No documents match." if text or under or format or since or where or owner else "No documents yet."
    heading = ("DOCUMENT", "TITLE", "FORMAT", "CHUNKS", "INGESTED")
    print_records(context, found, heading, rows, nothing=nothing, right=("CHUNKS",), optional=("INGESTED", "TITLE"))
    return exit_codes.OK


@documents.command("show")
@click.argument("name", metavar="ID|PATH|URI")
@OWNER
@DATABASE
@session_options
def show(name: str, owner: str | None, database: str | None) -> int:
    """Show a document: its origin, size, pages, warnings and number of chunks."""
    context = current()
    found = _find(name, owner, database)
    if context.json:
        echo_json(found)
        return exit_codes.OK
    for title, value in (
        ("id", found["document_id"]), ("uri", found["uri"]), ("root", found["root"]), ("owner", found["owner"]),
        ("metadata", ", ".join(f"{name}={value}" for name, value in found["metadata"].items())), ("title", found["title"]),
        ("format", found["format"]), ("size", formatting.units(found["size"], None, "byte")), ("pages", found["pages"]),
        ("failed pages", found["failed_pages"]), ("warnings", ", ".join(found["warnings"])),
        ("chunks", found["chunk_count"]), ("truncated", found["truncated"]),
        ("ingested", _when(found["ingested_at"], utc=context.utc)), ("content", f"sha256:{found['content_hash']}"),
    ):  # fmt: skip
        if value not in (None, "", 0):
            echo(f"{title:14}{value}")
    return exit_codes.OK


@documents.command("rm")
@click.argument("names", metavar="ID|PATH|URI...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@OWNER
@DATABASE
@session_options
def rm(names: tuple[str, ...], yes: bool, owner: str | None, database: str | None) -> int:
    """Delete documents from the index, with their chunks and entities. The files are not touched."""
    context = current()
    found = [_find(name, owner, database) for name in names]
    count = formatting.plural(len(found), "document")
    if not yes and not context.json and not click.confirm(f"Delete {count}?", default=False):
        return exit_codes.OK
    with translate_errors():
        for one in found:
            if reads_store(database):
                from milepost.documents import delete_document

                delete_document(one["document_id"], database=database)
            else:
                context.client.request("DELETE", f"/api/documents/{one['document_id']}")
            if context.json:
                echo_json({"document_id": one["document_id"], "deleted": True})
    if not context.json:
        echo(f"Deleted {count}.")
    return exit_codes.OK


def _find(name: str, owner: str | None, database: str | None) -> DocumentRow:
    """Return the document with this id, path, URI or key. Raises ClickException if it does not exist, or several do."""
    uri = document_uri(name)
    listed = query_documents("list_documents", database, under=uri, owner=owner, limit=2)
    found = [one for one in listed if one["uri"] == uri]
    if len(found) > 1:
        raise click.ClickException(f"several owners have {name!r}; give the id (milepost documents ls --json)")
    if found:
        return found[0]
    with translate_errors():
        if reads_store(database):
            from milepost.documents import get_document

            known = get_document(name, owner=owner, database=database)
            if known is not None:
                return asdict(known)
        elif _ID.fullmatch(name):
            with contextlib.suppress(InvalidInputError):  # it does not exist
                answer: DocumentRow = current().client.request("GET", f"/api/documents/{name}")
                if owner in (None, answer["owner"]):
                    return answer
    raise click.ClickException(f"no document {name!r}; list them: milepost documents ls")


def _when(text: str, *, utc: bool) -> str:
    return formatting.clock(datetime.fromisoformat(text), utc=utc)


@documents.command("measure")
@click.argument("questions", metavar="QUESTIONS.csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--mode",
    "modes",
    type=MODE_NAMES,
    multiple=True,
    help="Measure this mode; may be repeated (default: all).",
)
@DATABASE
@session_options
def measure(questions: Path, modes: tuple[Mode, ...], database: str | None) -> int:
    """Measure the search with questions whose answers are known.

    QUESTIONS.csv has the columns question, answer (a regular expression that the text of a correct hit matches), and
    optionally file (a glob of the file name) and kind (a group with figures of its own).
    """
    context = current()
    if not reads_store(database):
        raise InvalidInputError("--database", "required with a server URL, because a server cannot measure its search")
    with translate_errors():
        from milepost.documents.retrieval import MODES, Searcher, open_for_search
        from milepost.documents.search_quality import measure as measure_search
        from milepost.documents.search_quality import read_questions

        require_documents(database)
        asked = read_questions(questions)
        with open_for_search(database) as store:
            searcher = Searcher(store)
            searcher.search(asked[0].text)  # loads the model and the vectors
            found = [
                (mode, quality)
                for mode in modes or (MODES if store.has_words() else ("meaning",))
                for quality in measure_search(partial(searcher.search, mode=mode), asked)
            ]
    rows = [
        (
            mode, quality.kind or "all", formatting.number(quality.questions), f"{quality.hit_at_1:.2f}",
            f"{quality.hit_at_5:.2f}", f"{quality.mrr:.2f}", f"{quality.seconds * 1000:.0f} ms",
        )
        for mode, quality in found
    ]  # fmt: skip
    heading = ("MODE", "KIND", "QUESTIONS", "HIT@1", "HIT@5", "MRR", "TIME")
    print_records(
        context,
        [{"mode": mode, **asdict(quality)} for mode, quality in found],
        heading,
        rows,
        nothing="",
        right=heading[2:],
    )
    return exit_codes.OK
