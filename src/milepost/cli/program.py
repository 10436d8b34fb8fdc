"""The program `milepost`: its commands by name, and errors as one line with the remedy. Owns no command.

A command's module is imported when that command is called: `milepost --help` loads Click and this file.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import NamedTuple

import click

from milepost.cli import exits
from milepost.cli.session import Session, session_options


class Entry(NamedTuple):
    """Where a command lives and what it is for, so that the list of commands needs none of them."""

    module: str
    about: str


GROUPS: dict[str, dict[str, Entry]] = {
    "Run": {
        "run": Entry("run", "Run a job here, with a live bar; the same command after a kill goes on."),
        "submit": Entry("submit", "Hand a job to the workers."),
        "worker": Entry("worker", "Run the jobs that were submitted: worker MODULE:APP."),
        "serve": Entry("serve", "Serve the jobs over HTTP, with the dashboard."),
    },
    "Look": {
        "ls": Entry("ls", "List jobs; -w stays live."),
        "show": Entry("show", "Show all that is known of a job."),
        "watch": Entry("watch", "Follow jobs to their end."),
        "logs": Entry("logs", "Print the log of a job; -f follows it."),
        "failures": Entry("failures", "Group failed jobs by what went wrong."),
        "stats": Entry("stats", "Count jobs by type and status, with durations."),
        "types": Entry("types", "List job types; pause and resume them."),
        "workers": Entry("workers", "List workers and what they run."),
        "top": Entry("top", "Full-screen live view."),
    },
    "Change": {
        "cancel": Entry("cancel", "Cancel jobs."),
        "retry": Entry("retry", "Send failed or cancelled jobs back to pending."),
        "rm": Entry("rm", "Delete jobs."),
    },
    "Documents": {
        "search": Entry("search", "Search the ingested documents."),
        "entities": Entry("graph", "List what the documents speak of."),
        "neighbours": Entry("graph", "List what an entity is related to."),
        "communities": Entry("graph", "List what belongs together."),
        "draw": Entry("graph", "Draw the graph of entities as SVG."),
    },
    "Look after": {
        "doctor": Entry("doctor", "Examine the store."),
        "migrate": Entry("migrate", "Move the store to this release's layout."),
        "purge": Entry("purge", "Remove jobs that ended long ago."),
        "keys": Entry("keys", "API keys: list, create, revoke."),
        "completion": Entry("completion", "Print shell completion for bash, zsh or fish."),
    },
}
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


class ReaderGone(Exception):
    """Whoever read the output has gone. Click would end with 1 for the BrokenPipeError itself."""


class Program(click.Group):
    """A group that imports a command when it is asked for."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and take its `command`, or the one of that name where it has several."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = import_module(f"milepost.cli.commands.{entry.module}")
        command = getattr(module, "command", None) or getattr(module, cmd_name, None)
        assert isinstance(command, click.Command), f"{entry.module}.command is the command"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one say which were meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "`milepost --help` lists them"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for, from the table alone."""
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.about) for name, entry in group.items()])


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exits.EXPLAINED + " The store: --url, else MILEPOST_URL, else REDIS_URL, else a SQLite file of the user.",
)
@session_options
@click.version_option(package_name="milepost", message="%(prog)s %(version)s")
def program() -> None:
    """Run, watch, cancel and remember long work."""


def run_program(arguments: list[str]) -> int:
    """Run a command line and return its exit code. Errors go to stderr, in one line with the remedy."""
    session = Session()
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        codecs.register_error("milepost", _escaped)
        # On a terminal what stands in columns must stay as wide as it is.
        sys.stdout.reconfigure(errors="replace" if sys.stdout.isatty() else "milepost")
    try:
        code = program.main(arguments, prog_name="milepost", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return code if isinstance(code, int) else exits.OK
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return exits.INTERRUPTED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return exits.INTERRUPTED
    except click.UsageError as error:
        where = f" (milepost {_path(error.ctx)} --help)" if error.ctx is not None and _path(error.ctx) else ""
        return _complain(error.format_message() + where, exits.USAGE)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except (BrokenPipeError, ReaderGone):
        _drop_output()  # whoever read it has seen enough
        return exits.OK
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            _drop_output()
            return _complain(f"the output cannot be written: {error.strerror}", exits.FAILED)
        if isinstance(error, UnicodeEncodeError) and any("\udc80" <= part <= "\udcff" for part in "".join(arguments)):
            return _complain("the words of a command must be UTF-8", exits.USAGE)
        line = _explained(error, session)
        if line is None:
            raise
        return _complain(line, exits.USAGE if _is_usage(error) else exits.FAILED)
    finally:
        session.close()


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Characters that the output's encoding has not, as JSON writes them: what jobs say is never a reason to fail."""
    assert isinstance(error, UnicodeEncodeError), "only an output asks"
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that the interpreter does not complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _path(ctx: click.Context) -> str:
    return ctx.command_path.removeprefix("milepost").strip()


def _complain(text: str, code: int) -> int:
    lines = text.strip().splitlines() or ["failed"]
    sys.stderr.write(f"milepost: {lines[0]}\n" + "".join(f"{line}\n" for line in lines[1:]))
    return code


def _is_usage(error: Exception) -> bool:
    from milepost.core.errors import FilterError, InvalidInput, UnknownJobType

    return isinstance(error, InvalidInput | FilterError | UnknownJobType)


def _explained(error: Exception, session: Session) -> str | None:
    """An error that people can mend, in one line with the remedy; None for a defect, which shows its traceback."""
    from milepost.core.errors import FilterError, JobNotFound, MilepostError, StoreUnavailable

    if isinstance(error, FilterError):
        return f"filter: {error.problem} (at character {error.position + 1} of {error.text!r})"
    text = " ".join(str(error).split())
    if isinstance(error, JobNotFound):
        return f"{text}: deleted, expired, or in another store; `milepost ls` shows what is in this one"
    if isinstance(error, StoreUnavailable):
        running = " is it running?" if "reach" in text else ""
        where = f"{session.shown_place}: " if session.is_server else ""
        return f"{where}{text};{running} --url or MILEPOST_URL names another store"
    if isinstance(error, PermissionError) and isinstance(error, MilepostError):
        return f"{text}; the key is taken from MILEPOST_KEY, and made beside the store: milepost keys create NAME"
    return text if isinstance(error, MilepostError) else None
