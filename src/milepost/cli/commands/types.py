"""`milepost types`: what workers can run, and pausing or limiting it for all of them at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from milepost.cli import administration, exits, wording
from milepost.cli.arguments import usage
from milepost.cli.drawing.grids import print_rows
from milepost.cli.drawing.views import say
from milepost.cli.session import Session, current, session_options

if TYPE_CHECKING:
    from milepost.worker.published import JobType


@click.group("types", invoke_without_command=True)
@session_options
@click.pass_context
def command(ctx: click.Context) -> int | None:
    """List the job types that workers have published; pause, resume and limit them."""
    if ctx.invoked_subcommand is not None:
        return None
    session = current()
    known = administration.types(session)
    if session.json:
        for one in known:
            say(json.dumps(one.to_dict(), ensure_ascii=False))
        return exits.OK
    if not known:
        session.console.print("No worker has published a type yet. Start one: milepost worker MODULE:APP")
        return exits.OK
    print_rows(
        session,
        ("TYPE", "STATE", "AT ONCE", "ATTEMPTS", "TIMEOUT", "PARAMETERS"),
        [
            (
                one.name,
                "paused" if one.paused else "open",
                "any" if (one.limit or one.concurrency) is None else str(one.limit or one.concurrency),
                str(one.max_attempts),
                wording.duration(one.timeout) if one.timeout is not None else "-",
                usage(one.name, one.schema, "submit").partition(f"submit {one.name}")[2].strip(),
            )
            for one in known
        ],
        spare=("ATTEMPTS", "TIMEOUT", "AT ONCE"),
    )
    return exits.OK


@command.command("pause")
@click.argument("names", metavar="TYPE...", nargs=-1, required=True)
@session_options
def pause(names: tuple[str, ...]) -> int:
    """Start no more jobs of a type, on any worker; what runs goes on."""
    return _set(current(), names, True)


@command.command("resume")
@click.argument("names", metavar="TYPE...", nargs=-1, required=True)
@session_options
def resume(names: tuple[str, ...]) -> int:
    """Start jobs of a type again."""
    return _set(current(), names, False)


@command.command("limit")
@click.argument("name", metavar="TYPE")
@click.argument("most", metavar="N|none")
@session_options
def limit(name: str, most: str) -> int:
    """Run at most N jobs of a type at once, over all workers; `none` lifts the limit."""
    session = current()
    if most != "none" and not (most.isdecimal() and int(most) >= 1):
        raise click.UsageError(f"{most!r} is neither a number from 1 nor `none`")
    number = None if most == "none" else int(most)
    _tell(session, administration.set_limit(session, name, limit=number, lift=number is None))
    return exits.OK


def _set(session: Session, names: tuple[str, ...], paused: bool) -> int:
    for name in names:
        _tell(session, administration.set_limit(session, name, paused=paused))
    return exits.OK


def _tell(session: Session, known: JobType) -> None:
    if session.json:
        say(json.dumps(known.to_dict(), ensure_ascii=False))
        return
    most = f", at most {known.limit} at once" if known.limit is not None else ""
    say(f"{known.name} is {'paused: nothing of it is started' if known.paused else 'open'}{most}")
