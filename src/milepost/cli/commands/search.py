"""`milepost search QUERY`: search the ingested documents by meaning."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

import click

from milepost.cli import exit_codes
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.documents_query import DocumentRow, query_documents
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.terminal import MUTED, clean, glyph

MAX_LINES, MAX_WIDTH = 3, 100
MIN_WORD_LENGTH = 3  # shorter words do not identify a passage


@click.command("search")
@click.argument("words", metavar="QUERY...", nargs=-1, required=True)
@click.option(
    "-k", "--hits", type=click.IntRange(1, 1000), default=5, show_default=True, help="Maximum number of hits."
)
@click.option(
    "--database", metavar="PATH|URL", help="Document store (default: MILEPOST_DOCUMENTS, else the user's own)."
)
@session_options
def command(words: tuple[str, ...], hits: int, database: str | None) -> int:
    """Search the ingested documents by meaning, best match first."""
    context = current()
    query = " ".join(words)
    if not query.strip():
        raise click.UsageError("QUERY is empty")
    found = query_documents("search", database, query=query, k=hits)
    if context.json:
        for hit in found:
            echo_json(hit)
        return exit_codes.OK
    if not found:
        context.console.print("No documents yet. Ingest some: milepost run ingestion PATH...")
        return exit_codes.FAILED
    for at, hit in enumerate(found):
        if at:
            context.console.print()
        _print(context, hit, query)
    return exit_codes.OK


def _print(context: CommandContext, hit: DocumentRow, query: str) -> None:
    from rich.text import Text

    console = context.console
    place = [part for part in (_file(hit["uri"]), f"page {hit['page']}" if hit["page"] else "") if part]
    head = Text(f"{hit['score']:.2f}  ", MUTED).append(clean(hit["title"] or _file(hit["uri"])), "bold")
    inside = clean(hit["heading"] or "").removeprefix(clean(hit["title"] or "")).removeprefix(" > ")
    if inside:
        head.append(f" > {inside}")
    console.print(head)
    console.print(Text("      " + ", ".join(place), MUTED))
    width = min(console.width, MAX_WIDTH) - 6
    whole = " ".join(clean(hit["text"]).split())
    start = best_excerpt_start(whole, query, MAX_LINES * width)
    text = Text(f"{glyph(console, 'ellipsis')} {whole[start:]}" if start else whole)
    for line in list(text.wrap(console, width))[:MAX_LINES]:
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


def _file(uri: str) -> str:
    """Return a file URI as the shortest path from the working directory."""
    if not uri.startswith("file:"):
        return clean(uri)
    path = unquote(urlsplit(uri).path)
    near = os.path.relpath(path)
    return clean(near if not near.startswith("..") else path)
