"""`milepost search QUERY`: find what was ingested, by meaning."""

from __future__ import annotations

import json
import os
import re
from urllib.parse import unquote, urlsplit

import click

from milepost.cli import exits
from milepost.cli.drawing.console import MUTED, clean, glyph
from milepost.cli.drawing.views import say
from milepost.cli.reading_documents import Row, ask_documents
from milepost.cli.session import Session, current, session_options

LINES, WIDTH = 3, 100
LONG_WORD = 3  # shorter ones say little


@click.command("search")
@click.argument("words", metavar="QUERY...", nargs=-1, required=True)
@click.option("-k", "--hits", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
@click.option(
    "--database", metavar="PATH|URL", help="Document store (default: MILEPOST_DOCUMENTS, else the user's own)."
)
@session_options
def command(words: tuple[str, ...], hits: int, database: str | None) -> int:
    """Search the ingested documents by meaning, best first."""
    session = current()
    query = " ".join(words)
    if not query.strip():
        raise click.UsageError("the QUERY is empty")
    found = ask_documents("search", database, query=query, k=hits)
    if session.json:
        for hit in found:
            say(json.dumps(hit, ensure_ascii=False))
        return exits.OK
    if not found:
        session.console.print("There are no documents yet. First: milepost run ingestion PATH...")
        return exits.FAILED
    for at, hit in enumerate(found):
        if at:
            session.console.print()
        _print(session, hit, query)
    return exits.OK


def _print(session: Session, hit: Row, query: str) -> None:
    from rich.text import Text

    console = session.console
    place = [part for part in (_file(hit["uri"]), f"page {hit['page']}" if hit["page"] else "") if part]
    head = Text(f"{hit['score']:.2f}  ", MUTED).append(clean(hit["title"] or _file(hit["uri"])), "bold")
    inside = clean(hit["heading"] or "").removeprefix(clean(hit["title"] or "")).removeprefix(" > ")
    if inside:
        head.append(f" > {inside}")
    console.print(head)
    console.print(Text("      " + ", ".join(place), MUTED))
    width = min(console.width, WIDTH) - 6
    whole = " ".join(clean(hit["text"]).split())
    start = telling_part(whole, query, LINES * width)
    text = Text(f"{glyph(console, 'ellipsis')} {whole[start:]}" if start else whole)
    for line in list(text.wrap(console, width))[:LINES]:
        line.rstrip()
        console.print(Text("      ").append_text(line))


def telling_part(text: str, query: str, size: int) -> int:
    """Where to begin to show `size` characters of a text: its head, or the sentence from which they have most of the query."""
    words = {word for word in re.findall(r"\w+", query.casefold()) if len(word) > LONG_WORD}

    def told(start: int) -> int:
        return sum(word in text[start : start + size].casefold() for word in words)

    later = [sentence.end() for sentence in re.finditer(r"[.!?] +(?=\w)", text)]
    best = max(later, key=lambda start: (told(start), start), default=0)
    return best if told(best) > told(0) else 0


def _file(uri: str) -> str:
    """A file's URI as the shortest path that names it from here."""
    if not uri.startswith("file:"):
        return clean(uri)
    path = unquote(urlsplit(uri).path)
    near = os.path.relpath(path)
    return clean(near if not near.startswith("..") else path)
