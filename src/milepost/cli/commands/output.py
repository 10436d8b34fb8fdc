"""`milepost output ID`: print what a job streams with `run.output`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from milepost.cli import exit_codes
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.formatting import plural
from milepost.cli.job_selection import JobId, resolve_job
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.terminal import clean
from milepost.core.output import OutputChunk


@click.command("output")
@click.argument("word", metavar="[ID|@last]", type=JobId(), default="@last")
@click.option(
    "-f", "--follow", is_flag=True, help="Follow the output until the job ends; Ctrl-C does not stop the job."
)
@click.option("-a", "--all", "everything", is_flag=True, help="Print the output of earlier runs, too.")
@session_options
def output(word: str, follow: bool, everything: bool) -> int:
    """Print the output of the last run of a job (default: the newest job), as `run.output` wrote it.

    A run that failed or was lost may have written a part of the same text. With --all and --follow, a line on stderr
    marks where another run starts over.
    """
    context = current()
    job_id = resolve_job(context, word).job_id
    shown: OutputChunk | None = None
    chunks: Iterable[OutputChunk] = context.manager.follow_output(job_id) if follow else _kept(context, job_id)
    if not (follow or everything or context.json):
        chunks = _last_run(chunks)
    try:
        for chunk in chunks:
            _print(chunk, shown, as_json=context.json)
            shown = chunk
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    if shown is not None and not context.json and not shown.text.endswith("\n"):
        click.echo()
    return exit_codes.OK


def _kept(context: CommandContext, job_id: str) -> Iterator[OutputChunk]:
    """Yield the output that is kept, oldest first."""
    position = None
    while chunks := context.manager.output(job_id, position):
        yield from chunks
        position = chunks[-1].position


def _last_run(chunks: Iterable[OutputChunk]) -> list[OutputChunk]:
    """Return the output of the last run, and say on stderr if earlier runs have written, too."""
    found: list[OutputChunk] = []
    earlier = 0
    for chunk in chunks:
        if chunk.starts_over and found:
            found, earlier = [], earlier + 1
        found.append(chunk)
    if earlier:
        click.echo(f"milepost: {plural(earlier, 'earlier run')} also wrote output; --all prints it", err=True)
    return found


def _print(chunk: OutputChunk, before: OutputChunk | None, *, as_json: bool) -> None:
    if as_json:
        echo_json(chunk.to_dict())
        return
    if before is not None and (chunk.starts_over or chunk.attempt != before.attempt):
        click.echo(f"\n--- attempt {chunk.attempt} ---", err=True)
    # Control characters of a terminal are not passed on; lines are.
    click.echo("\n".join(clean(line) for line in chunk.text.split("\n")), nl=False)
