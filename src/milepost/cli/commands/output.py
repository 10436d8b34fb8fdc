"""`milepost output ID`: print what a job streams with `run.output`."""

from __future__ import annotations

import click

from milepost.cli import exit_codes
from milepost.cli.context import current, session_options
from milepost.cli.job_selection import JobId, resolve_job
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.terminal import clean
from milepost.core.output import OutputChunk


@click.command("output")
@click.argument("word", metavar="[ID|@last]", type=JobId(), default="@last")
@click.option(
    "-f", "--follow", is_flag=True, help="Follow the output until the job ends; Ctrl-C does not stop the job."
)
@session_options
def output(word: str, follow: bool) -> int:
    """Print the output of a job (default: the newest job), as `run.output` wrote it."""
    context = current()
    job_id = resolve_job(context, word).job_id
    shown: OutputChunk | None = None
    try:
        if follow:
            for chunk in context.manager.follow_output(job_id):
                _print(chunk, shown, as_json=context.json)
                shown = chunk
        else:
            while chunks := context.manager.output(job_id, shown.position if shown is not None else None):
                for chunk in chunks:
                    _print(chunk, shown, as_json=context.json)
                    shown = chunk
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    if shown is not None and not context.json and not shown.text.endswith("\n"):
        click.echo()
    return exit_codes.OK


def _print(chunk: OutputChunk, before: OutputChunk | None, *, as_json: bool) -> None:
    if as_json:
        echo_json(chunk.to_dict())
        return
    if before is not None and (chunk.starts_over or chunk.attempt != before.attempt):
        click.echo(f"\n--- attempt {chunk.attempt} ---", err=True)
    # Control characters of a terminal are not passed on; lines are.
    click.echo("\n".join(clean(line) for line in chunk.text.split("\n")), nl=False)
