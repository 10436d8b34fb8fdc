"""`milepost documents`: commands that manage a document store and measure its search."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import current, session_options
from milepost.cli.rendering.tables import print_records
from milepost.core.errors import InvalidInputError
from milepost.documents.commands import DATABASE, require_documents, translate_errors


@click.group("documents")
@session_options
def documents() -> None:
    """Manage ingested documents."""


@documents.command("measure")
@click.argument("questions", metavar="QUESTIONS.csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@DATABASE
@session_options
def measure(questions: Path, database: str | None) -> int:
    """Measure the search with questions whose answers are known.

    QUESTIONS.csv has the columns question, answer (a regular expression that the text of a correct hit matches), and
    optionally file (a glob of the file name) and kind (a group with figures of its own).
    """
    context = current()
    if context.is_server and database is None:
        raise InvalidInputError("--database", "required with a server URL, because a server cannot measure its search")
    with translate_errors():
        from milepost.documents.retrieval import Searcher, open_for_search
        from milepost.documents.search_quality import measure as measure_search
        from milepost.documents.search_quality import read_questions

        require_documents(database)
        asked = read_questions(questions)
        with open_for_search(database) as store:
            found = measure_search(Searcher(store).search, asked)
    rows = [
        (
            quality.kind or "all", formatting.number(quality.questions), f"{quality.hit_at_1:.2f}",
            f"{quality.hit_at_5:.2f}", f"{quality.mrr:.2f}", f"{quality.seconds * 1000:.0f} ms",
        )
        for quality in found
    ]  # fmt: skip
    heading = ("KIND", "QUESTIONS", "HIT@1", "HIT@5", "MRR", "TIME")
    print_records(context, [asdict(quality) for quality in found], heading, rows, nothing="", right=heading[1:])
    return exit_codes.OK
