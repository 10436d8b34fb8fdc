"""`milepost completion SHELL`: print the script with which a shell completes commands, options and job ids."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from milepost.cli import exit_codes
from milepost.cli.context import session_options

INSTALL_LINES = {
    "bash": 'eval "$(milepost completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(milepost completion zsh)"  # in ~/.zshrc',
    "fish": "milepost completion fish | source  # in ~/.config/fish/config.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(INSTALL_LINES)), required=False)
@session_options
def command(shell: str | None) -> int:
    """Print the completion script of a shell (default: from $SHELL). Job ids are read from the store.

    \b
    bash  eval "$(milepost completion bash)"
    zsh   eval "$(milepost completion zsh)"
    fish  milepost completion fish | source
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    kind = get_completion_class(name)
    if kind is None:
        raise click.UsageError(f"unsupported shell {name!r}; choose from {', '.join(INSTALL_LINES)}")
    from milepost.cli.root_command import program

    click.echo(f"# {INSTALL_LINES[name]}\n{kind(program, {}, 'milepost', '_MILEPOST_COMPLETE').source()}")
    return exit_codes.OK
