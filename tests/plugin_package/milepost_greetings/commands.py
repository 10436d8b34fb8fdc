"""The command `milepost greetings`."""

import click

from milepost.cli.context import current, session_options


@click.command("greetings")
@session_options
def greetings() -> int:
    """List the greetings of completed jobs, newest first."""
    manager = current().manager  # of --url, or a client of that server
    for job in manager.list_jobs("greet", "completed"):
        click.echo(manager.result(job))
    return 0  # the exit code
