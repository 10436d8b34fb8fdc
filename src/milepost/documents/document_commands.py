"""`milepost documents`: commands that manage a document store and measure its search."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import current, session_options
from milepost.cli.rendering.tables import print_records
from milepost.core.errors import InvalidInputError
from milepost.documents.commands import DATABASE, require_documents, translate_errors

if TYPE_CHECKING:
    from milepost.documents.retrieval import Mode


@click.group("documents")
@session_options
def documents() -> None:
    """Manage ingested documents."""


@documents.command("measure")
@click.argument("questions", metavar="QUESTIONS.csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--mode",
    "modes",
    type=click.Choice(["hybrid", "meaning", "words"]),
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
    if context.is_server and database is None:
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
