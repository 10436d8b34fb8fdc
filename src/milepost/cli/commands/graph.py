"""`milepost entities`, `neighbours`, `communities`, `draw`: what extraction and clustering have found in the documents."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from milepost.cli import exits, wording
from milepost.cli.drawing.console import clean
from milepost.cli.drawing.grids import print_rows
from milepost.cli.drawing.views import say
from milepost.cli.reading_documents import Row, ask_documents, documents_answer, look_for
from milepost.cli.session import current, session_options
from milepost.core.errors import InvalidInput

F = TypeVar("F", bound=Callable[..., Any])


_DATABASE = click.option(
    "--database", metavar="PATH|URL", help="Document store (default: MILEPOST_DOCUMENTS, else the user's own)."
)


def _options(function: F) -> F:
    return click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=30, show_default=True)(
        _DATABASE(function)
    )


@click.command("entities")
@click.argument("text", metavar="[NAME]", default="")
@_options
@session_options
def entities(text: str, limit: int, database: str | None) -> int:
    """List entities by the number of chunks that mention them; with NAME those whose name contains it."""
    found = ask_documents("entities", database, text=text, limit=limit)
    rows = [(e["name"], e["label"], wording.number(e["chunks"]), wording.number(e["mentions"])) for e in found]
    nothing = "There are no entities yet. First: milepost run extraction"
    if text:
        nothing = f"No entity has {text!r} in its name. All of them: milepost entities"
    return _print(found, ("NAME", "LABEL", "CHUNKS", "MENTIONS"), rows, ("CHUNKS", "MENTIONS"), nothing)


@click.command("neighbours")
@click.argument("words", metavar="NAME...", nargs=-1, required=True)
@click.option("--hops", type=click.IntRange(1, 4), default=1, show_default=True, help="How many relations away.")
@_options
@session_options
def neighbours(words: tuple[str, ...], hops: int, limit: int, database: str | None) -> int:
    """List the entities that an entity is related to, nearest and heaviest first."""
    name = " ".join(words)
    if not name.strip():
        raise click.UsageError("the NAME is empty")
    found = ask_documents("neighbours", database, entity=name, hops=hops, limit=limit)
    rows = [
        (n["entity"]["name"], n["entity"]["label"], str(n["hops"]), wording.number(n["weight"]), ", ".join(n["types"]))
        for n in found
    ]
    nothing = f"Nothing is related to {name!r}. Names like it: milepost entities {shlex.join(words)}"
    return _print(found, ("NAME", "LABEL", "HOPS", "CHUNKS", "RELATIONS"), rows, ("HOPS", "CHUNKS"), nothing)


@click.command("communities")
@click.option("--of", type=click.Choice(["entities", "chunks"]), default="entities", show_default=True)
@click.option("--level", type=click.IntRange(0, 100), help="Only this level; 0 is the finest.")
@_options
@session_options
def communities(of: str, level: int | None, limit: int, database: str | None) -> int:
    """List communities by level and size."""
    found = ask_documents("communities", database, of=of, level=level, limit=limit)
    rows = [(c["label"], wording.number(c["size"]), str(c["level"]), c["community_id"]) for c in found]
    nothing = f"There are no communities of {of} yet. First: milepost run clustering of={of}"
    if level:
        nothing = f"There are no communities of {of} on level {level}. All of them: milepost communities --of {of}"
    return _print(found, ("LABEL", "SIZE", "LEVEL", "ID"), rows, ("SIZE", "LEVEL"), nothing)


@click.command("draw")
@click.argument("file", metavar="FILE.svg", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("-n", "--limit", type=click.IntRange(2, 200), default=40, show_default=True, help="How many entities.")
@_DATABASE
@session_options
def draw(file: Path, limit: int, database: str | None) -> int:
    """Draw the entities that are mentioned most, and what relates them, as a picture for a browser."""
    session = current()
    if session.is_server and database is None:
        raise InvalidInput("--database", "names the document store to draw from: a server does not draw")
    with documents_answer():
        from milepost.documents.drawing import draw_graph
        from milepost.documents.searching import store_to_ask

        look_for(database)
        with store_to_ask(database) as store:
            file.write_text(draw_graph(store, limit=limit), encoding="utf-8")
    if session.json:
        say(json.dumps({"file": str(file)}))
    else:
        session.console.print(f"The entities and their relations are drawn in {clean(str(file))}")
    return exits.OK


def _print(
    found: Sequence[Row],
    heading: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    right: tuple[str, ...],
    nothing: str,
) -> int:
    session = current()
    if session.json:
        for one in found:
            say(json.dumps(one, ensure_ascii=False))
    elif not found:
        session.console.print(clean(nothing))
    else:
        print_rows(session, heading, rows, right=right)
    return exits.OK
