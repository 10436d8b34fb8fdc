"""The commands that query documents: `search`, `entities`, `neighbours`, `communities`, `draw`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.tables import print_records
from milepost.cli.rendering.terminal import MUTED, clean, glyph
from milepost.core.errors import InvalidInputError, MilepostError, MissingExtraError

F = TypeVar("F", bound=Callable[..., Any])
DocumentRow = dict[str, Any]
URL_PARAMETERS: Final = {"query": "q"}
"""Parameters whose URL name differs from the Python name."""
URL_PATHS: Final = {"list_documents": "/api/documents"}
"""Queries whose URL is not `/api/documents/` and the Python name."""
MAX_ROWS: Final = 1000
MAX_QUERY_CHARACTERS: Final = 2000
MAX_LINES, MAX_WIDTH = 3, 100
MIN_WORD_LENGTH = 3  # shorter words do not identify a passage

DATABASE = click.option(
    "--database", metavar="PATH|URL", help="Document store (default: MILEPOST_DOCUMENTS, else the user's own)."
)
LIMIT = click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=30, show_default=True, help="Maximum number of rows."
)
OWNER = click.option("--owner", metavar="VALUE", help="Only documents with this value of the owner label.")
MODE_NAMES = click.Choice(["hybrid", "meaning", "words"])


def _conditions(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> DocumentRow | None:
    """Return NAME=VALUE options as a dict of lists, or None without any."""
    from milepost.documents.store.filters import parsed_where

    try:
        return parsed_where(given) or None
    except InvalidInputError as error:
        raise click.BadParameter(error.problem) from None


def document_filter(function: F) -> F:
    """Add the options that restrict a command to some documents."""
    for option in (
        OWNER,
        click.option(
            "--where",
            metavar="NAME=VALUE",
            multiple=True,
            callback=_conditions,
            help="Only documents with this metadata; may be repeated.",
        ),
        click.option("--since", metavar="TIME", help="Only documents ingested at or after TIME (e.g. 2026-05-31)."),
        click.option("--format", metavar="FORMAT", help="Only documents of this format (e.g. pdf)."),
        click.option("--under", metavar="FOLDER|URI", help="Only documents below this folder, URI or key."),
    ):
        function = option(function)
    return function


def document_uri(name: str | None) -> str | None:
    """Return the URI of a local path, and any other name as it is."""
    if name is None or "://" in name or not (os.path.lexists(name) or os.path.isabs(name)):
        return name
    return Path(os.path.realpath(name)).as_uri()


@click.command("search")
@click.argument("words", metavar="QUERY...", nargs=-1, required=True)
@click.option(
    "-k", "--hits", type=click.IntRange(1, 1000), default=5, show_default=True, help="Maximum number of hits."
)
@click.option(
    "--mode",
    type=MODE_NAMES,
    default="hybrid",
    show_default=True,
    help="Rank by meaning, by the words of the query, or by both.",
)
@document_filter
@click.option("--per-document", is_flag=True, help="Show only the best hit of each document.")
@click.option("--min-score", type=float, help="Leave out hits with a lower score.")
@click.option("--context", type=click.IntRange(0, 5), default=0, help="Show the texts of N chunks around each hit.")
@click.option("--rerank", is_flag=True, help="Rank by the reranking server (MILEPOST_RERANK_URL).")
@DATABASE
@session_options
def search(
    words: tuple[str, ...],
    hits: int,
    mode: str,
    under: str | None,
    format: str | None,
    since: str | None,
    where: DocumentRow | None,
    owner: str | None,
    per_document: bool,
    min_score: float | None,
    context: int,
    rerank: bool,
    database: str | None,
) -> int:
    """Search the ingested documents by meaning and by words, best match first."""
    command = current()
    query = " ".join(words)
    if not query.strip():
        raise click.UsageError("QUERY is empty")
    restricted = {
        "under": document_uri(under), "format": format, "since": since, "where": where, "owner": owner,
        "min_score": min_score,
    }  # fmt: skip
    found = query_documents(
        "search",
        database,
        query=query,
        k=hits,
        mode=mode,
        per_document=per_document,
        context=context,
        rerank=rerank,
        **restricted,
    )
    if command.json:
        for hit in found:
            echo_json(hit)
        return exit_codes.OK
    if not found:
        nothing = "No documents yet. Ingest some: milepost run ingestion PATH..."
        if mode == "words" or any(value is not None for value in restricted.values()):
            nothing = "Nothing found. List the documents: milepost documents ls"
        command.console.print(nothing)
        return exit_codes.FAILED
    for at, hit in enumerate(found):
        if at:
            command.console.print()
        _print_hit(command, hit, query)
    return exit_codes.OK


def _print_hit(context: CommandContext, hit: DocumentRow, query: str) -> None:
    from rich.text import Text

    console = context.console
    place = [part for part in (short_uri(hit["uri"]), f"page {hit['page']}" if hit["page"] else "") if part]
    head = Text(f"{hit['score']:.2f}  ", MUTED).append(clean(hit["title"] or short_uri(hit["uri"])), "bold")
    inside = clean(hit["heading"] or "").removeprefix(clean(hit["title"] or "")).removeprefix(" > ")
    if inside:
        head.append(f" > {inside}")
    console.print(head)
    console.print(Text("      " + ", ".join(place), MUTED))
    width = min(console.width, MAX_WIDTH) - 6
    whole = " ".join(clean(hit["text"]).split())
    start = 0 if hit["before"] or hit["after"] else best_excerpt_start(whole, query, MAX_LINES * width)
    shown = f"{glyph(console, 'ellipsis')} {whole[start:]}" if start else whole
    around = {name: [" ".join(clean(text).split()) for text in hit[name]] for name in ("before", "after")}
    lines = len(whole) if hit["before"] or hit["after"] else MAX_LINES
    for text, style in (*((t, MUTED) for t in around["before"]), (shown, ""), *((t, MUTED) for t in around["after"])):
        for line in list(Text(text, style).wrap(console, width))[:lines]:
            line.rstrip()
            console.print(Text("      ").append_text(line))


def best_excerpt_start(text: str, query: str, size: int) -> int:
    """Return where an excerpt of `size` characters starts: at the sentence that covers most query words, or at 0."""
    words = {word for word in re.findall(r"\w+", query.casefold()) if len(word) > MIN_WORD_LENGTH}

    def matches(start: int) -> int:
        return sum(word in text[start : start + size].casefold() for word in words)

    later = [sentence.end() for sentence in re.finditer(r"[.!?] +(?=\w)", text)]
    best = max(later, key=lambda start: (matches(start), start), default=0)
    return best if matches(best) > matches(0) else 0


def short_uri(uri: str) -> str:
    """Return a file URI as the shortest path from the working directory."""
    if not uri.startswith("file:"):
        return clean(uri)
    path = unquote(urlsplit(uri).path)
    near = os.path.relpath(path)
    return clean(near if not near.startswith("..") else path)


@click.command("entities")
@click.argument("text", metavar="[NAME]", default="")
@LIMIT
@DATABASE
@session_options
def entities(text: str, limit: int, database: str | None) -> int:
    """List entities by the number of chunks that mention them; NAME selects names that contain it."""
    found = query_documents("entities", database, text=text, limit=limit)
    rows = [(e["name"], e["label"], formatting.number(e["chunks"]), formatting.number(e["mentions"])) for e in found]
    nothing = "No entities yet. Extract them: milepost run extraction"
    if text:
        nothing = f"No entity name contains {text!r}. List all: milepost entities"
    return _print(found, ("NAME", "LABEL", "CHUNKS", "MENTIONS"), rows, ("CHUNKS", "MENTIONS"), nothing)


@click.command("neighbours")
@click.argument("words", metavar="NAME...", nargs=-1, required=True)
@click.option("--hops", type=click.IntRange(1, 4), default=1, show_default=True, help="Maximum distance in relations.")
@LIMIT
@DATABASE
@session_options
def neighbours(words: tuple[str, ...], hops: int, limit: int, database: str | None) -> int:
    """List the entities related to an entity, by distance, then by the number of chunks."""
    name = " ".join(words)
    if not name.strip():
        raise click.UsageError("NAME is empty")
    found = query_documents("neighbours", database, entity=name, hops=hops, limit=limit)
    rows = [
        (
            n["entity"]["name"],
            n["entity"]["label"],
            str(n["hops"]),
            formatting.number(n["weight"]),
            ", ".join(n["types"]),
        )
        for n in found
    ]
    nothing = f"No relations of {name!r}. Find similar names: milepost entities {shlex.join(words)}"
    return _print(found, ("NAME", "LABEL", "HOPS", "CHUNKS", "RELATIONS"), rows, ("HOPS", "CHUNKS"), nothing)


@click.command("communities")
@click.option(
    "--of", type=click.Choice(["entities", "chunks"]), default="entities", show_default=True, help="Kind of members."
)
@click.option("--level", type=click.IntRange(0, 100), help="Show only this level; 0 is the finest.")
@LIMIT
@DATABASE
@session_options
def communities(of: str, level: int | None, limit: int, database: str | None) -> int:
    """List communities by level and size."""
    found = query_documents("communities", database, of=of, level=level, limit=limit)
    rows = [(c["label"], formatting.number(c["size"]), str(c["level"]), c["community_id"]) for c in found]
    nothing = f"No communities of {of} yet. Compute them: milepost run clustering of={of}"
    if level:
        nothing = f"No communities of {of} on level {level}. List all levels: milepost communities --of {of}"
    return _print(found, ("LABEL", "SIZE", "LEVEL", "ID"), rows, ("SIZE", "LEVEL"), nothing)


@click.command("draw")
@click.argument("file", metavar="FILE.svg", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option(
    "-n", "--limit", type=click.IntRange(2, 200), default=40, show_default=True, help="Maximum number of entities."
)
@DATABASE
@session_options
def draw(file: Path, limit: int, database: str | None) -> int:
    """Draw the most mentioned entities and their relations as an SVG picture."""
    context = current()
    if file.suffix.lower() != ".svg":
        raise click.UsageError(
            f"FILE.svg: {str(file)!r} must end in .svg; the picture shows all documents of the store"
        )
    if not reads_store(database):
        raise InvalidInputError(
            "--database", "required with a server URL, because a server cannot draw; pass the document store"
        )
    with translate_errors():
        from milepost.documents.graph_svg import draw_graph
        from milepost.documents.retrieval import open_for_search

        require_documents(database)
        with open_for_search(database) as store:
            file.write_text(draw_graph(store, limit=limit), encoding="utf-8")
    if context.json:
        echo_json({"file": str(file)})
    else:
        context.console.print(f"Wrote the entity graph to {clean(str(file))}")
    return exit_codes.OK


def _print(
    found: Sequence[DocumentRow],
    heading: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    right: tuple[str, ...],
    nothing: str,
) -> int:
    print_records(current(), found, heading, rows, nothing=nothing, right=right)
    return exit_codes.OK


def reads_store(database: str | None) -> bool:
    """Return whether a command reads the document store itself instead of asking the server."""
    return database is not None or not current().is_server


def query_documents(
    what: Literal["search", "entities", "neighbours", "communities", "list_documents"],
    database: str | None,
    **question: Any,
) -> list[DocumentRow]:
    """Return the rows of a query as dicts: from the server, or from the document store with `database` or
    without a server."""
    context = current()
    with translate_errors():
        if reads_store(database):
            from milepost import documents

            require_documents(database)
            return [asdict(row) for row in getattr(documents, what)(**question, database=database)]
        _check_bounds(question)
        if (where := question.pop("where", None)) is not None:
            question["where"] = [f"{name}={value}" for name, values in where.items() for value in values]
        given = {URL_PARAMETERS.get(name, name): value for name, value in question.items() if value is not None}
        answer: dict[str, list[DocumentRow]] = context.client.request(
            "GET", URL_PATHS.get(what, f"/api/documents/{what}"), params=given
        )
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
