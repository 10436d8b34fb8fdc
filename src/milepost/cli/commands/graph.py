"""`milepost entities`, `neighbours`, `communities`, `draw`: results of extraction and clustering."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import current, session_options
from milepost.cli.documents_query import DocumentRow, query_documents, require_documents, translate_errors
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.tables import print_records
from milepost.cli.rendering.terminal import clean
from milepost.core.errors import InvalidInputError

F = TypeVar("F", bound=Callable[..., Any])


_DATABASE = click.option(
    "--database", metavar="PATH|URL", help="Document store (default: MILEPOST_DOCUMENTS, else the user's own)."
)


def _options(function: F) -> F:
    return click.option(
        "-n", "--limit", type=click.IntRange(1, 10_000), default=30, show_default=True, help="Maximum number of rows."
    )(_DATABASE(function))


@click.command("entities")
@click.argument("text", metavar="[NAME]", default="")
@_options
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
@_options
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
@_options
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
@_DATABASE
@session_options
def draw(file: Path, limit: int, database: str | None) -> int:
    """Draw the most mentioned entities and their relations as an SVG picture."""
    context = current()
    if context.is_server and database is None:
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
