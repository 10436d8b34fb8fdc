"""`milepost completion SHELL`: the script that makes a shell complete commands, options and live ids."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from milepost.cli import exits
from milepost.cli.session import session_options

HOW = {
    "bash": 'eval "$(milepost completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(milepost completion zsh)"  # in ~/.zshrc',
    "fish": "milepost completion fish | source  # in ~/.config/fish/config.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(HOW)), required=False)
@session_options
def command(shell: str | None) -> int:
    """Print the completion script of a shell (default: yours). Ids come live from the store.

    \b
    bash  eval "$(milepost completion bash)"
    zsh   eval "$(milepost completion zsh)"
    fish  milepost completion fish | source
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    kind = get_completion_class(name)
    if kind is None:
        raise click.UsageError(f"which shell? one of {', '.join(HOW)}")
    from milepost.cli.program import program

    click.echo(f"# {HOW[name]}\n{kind(program, {}, 'milepost', '_MILEPOST_COMPLETE').source()}")
    return exits.OK
