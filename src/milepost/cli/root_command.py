"""The root command `milepost`, which finds the other commands as plugins, and one-line error messages.

A command's module is imported when the command is called, so that `milepost --help` loads only Click and this file.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from io import TextIOWrapper

import click

from milepost import plugins
from milepost.cli import exit_codes
from milepost.cli.context import CommandContext, session_options

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
COMMANDS = "milepost.commands"


class OutputClosedError(Exception):
    """The reader closed the pipe. Click would exit with 1 for the BrokenPipeError itself."""


class CommandGroup(click.Group):
    """A command group that imports a command's module when the command is called."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the named command; a closed pipe raises OutputClosedError."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OutputClosedError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return plugins.names(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it. Raises PluginError, but returns None while completing a line."""
        plugin = plugins.find(COMMANDS, cmd_name)
        if plugin is None:
            return None
        try:
            command = plugin.load()
            if not isinstance(command, click.Command):
                raise plugin.error("is not a click.Command")
        except Exception:
            if ctx.resilient_parsing and plugin.distributions:
                return None
            raise
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises UsageError with the closest match for an unknown one."""
        if args and not args[0].startswith("-") and plugins.find(COMMANDS, args[0]) is None:
            from difflib import get_close_matches

            close = get_close_matches(args[0], plugins.names(COMMANDS))
            close.sort(key=lambda name: name[:2] != args[0][:2])  # people get the beginning right
            hint = f"did you mean {close[0]!r}?" if close else "milepost --help lists all commands"
            raise click.UsageError(f"unknown command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, without importing any: those of plugins with the packages they are from."""
        names = plugins.names(COMMANDS)
        width = max(map(len, names))
        for title, group in plugins.COMMAND_SUMMARIES.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in group.items()])
        others = [plugin for name in names if (plugin := plugins.find(COMMANDS, name)) and plugin.distributions]
        if others:
            with formatter.section("Plugins"):
                formatter.write_dl([(one.name.ljust(width), f"From {', '.join(one.distributions)}.") for one in others])


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exit_codes.EXIT_CODES_HELP
    + " Store: the first set of --url, MILEPOST_URL, REDIS_URL; else the user's SQLite file.",
)
@session_options
@click.version_option(package_name="milepost", message="%(prog)s %(version)s")
def program() -> None:
    """Run, watch, cancel and inspect long-running jobs."""


def run_program(arguments: list[str]) -> int:
    """Run a command line and return its exit code. Errors go to stderr as one line with the remedy."""
    context = CommandContext()
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        codecs.register_error("milepost", _escape_unencodable)
        # On a terminal, columns must keep their width: replace rather than escape.
        sys.stdout.reconfigure(errors="replace" if sys.stdout.isatty() else "milepost")
    try:
        code = program.main(arguments, prog_name="milepost", standalone_mode=False, obj=context)
        sys.stdout.flush()
        return code if isinstance(code, int) else exit_codes.OK
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return exit_codes.INTERRUPTED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return exit_codes.INTERRUPTED
    except click.UsageError as error:
        where = (
            f" (milepost {_command_path(error.ctx)} --help)"
            if error.ctx is not None and _command_path(error.ctx)
            else ""
        )
        return _fail(error.format_message() + where, exit_codes.USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except (BrokenPipeError, OutputClosedError):
        _discard_output()
        return exit_codes.OK
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            _discard_output()
            return _fail(f"cannot write the output: {error.strerror}", exit_codes.FAILED)
        if isinstance(error, UnicodeEncodeError) and any("\udc80" <= part <= "\udcff" for part in "".join(arguments)):
            return _fail("arguments must be valid UTF-8", exit_codes.USAGE)
        line = _describe_error(error, context)
        if line is None:
            raise
        return _fail(line, exit_codes.USAGE if _is_usage_error(error) else exit_codes.FAILED)
    finally:
        context.close()


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Return unencodable characters as JSON escapes, so that text of jobs never makes a command fail."""
    assert isinstance(error, UnicodeEncodeError), "only an output asks"
    import json

    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _discard_output() -> None:
    """Redirect stdout to /dev/null, so that the interpreter does not report a failed flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command_path(ctx: click.Context) -> str:
    return ctx.command_path.removeprefix("milepost").strip()


def _fail(text: str, code: int) -> int:
    from milepost.cli.rendering.terminal import clean

    lines = clean(text).strip().splitlines() or ["failed"]
    sys.stderr.write(f"milepost: {lines[0]}\n" + "".join(f"{line}\n" for line in lines[1:]))
    return code


def _is_usage_error(error: Exception) -> bool:
    from milepost.core.errors import FilterError, InvalidInputError, UnknownJobTypeError

    return isinstance(error, InvalidInputError | FilterError | UnknownJobTypeError)


def _describe_error(error: Exception, context: CommandContext) -> str | None:
    """Return an expected error as one line with its remedy, or None for a defect, whose traceback is shown."""
    from milepost.core.errors import FilterError, JobNotFoundError, MilepostError, StoreUnavailableError

    if isinstance(error, FilterError):
        return f"filter: {error.problem} (at character {error.position + 1} of {error.text!r})"
    text = " ".join(str(error).split())
    if isinstance(error, JobNotFoundError):
        return (
            f"{text}. It may have been deleted or expired, or be in another store. To list the jobs, run: milepost ls"
        )
    if isinstance(error, StoreUnavailableError):
        remedy = "is it running? Select" if "reach" in text else "select"
        where = f"{context.display_url}: " if context.is_server else ""
        return f"{where}{text.rstrip('.')}; {remedy} another store with --url or MILEPOST_URL"
    if isinstance(error, PermissionError) and isinstance(error, MilepostError) and "keys create" not in text:
        problem = text.partition(": set MILEPOST_KEY")[0]  # the command line has no other way
        return f"{problem}; set MILEPOST_KEY to an API key, created next to the store with: milepost keys create NAME"
    return text if isinstance(error, MilepostError) else None
