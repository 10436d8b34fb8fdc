"""`milepost keys`: API keys of the server, listed, made and revoked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from milepost.cli import administration, exits, wording
from milepost.cli.drawing.grids import print_rows
from milepost.cli.drawing.views import say
from milepost.cli.session import current, session_options
from milepost.cli.words import labels_of
from milepost.core.encoding import seconds

SCOPES = ("jobs:read", "jobs:write", "jobs:delete", "admin")


@click.group("keys", invoke_without_command=True)
@session_options
@click.pass_context
def command(ctx: click.Context) -> int | None:
    """List the API keys; create and revoke them. Of a secret only its SHA-256 is kept."""
    if ctx.invoked_subcommand is not None:
        return None
    session = current()
    known = administration.keys(session)
    if session.json:
        for key in known:
            say(json.dumps(key, ensure_ascii=False))
        return exits.OK
    if not known:
        session.console.print("No keys. Make one: milepost keys create NAME")
        return exits.OK

    def when(text: str | None) -> str:
        return wording.clock(datetime.fromisoformat(text), utc=session.utc) if text else "-"

    print_rows(
        session,
        ("ID", "NAME", "STATE", "CREATED", "EXPIRES", "SCOPES", "LABELS"),
        [
            (
                key["id"], key["name"], _state(key), when(key.get("created_at")), when(key.get("expires_at")),
                " ".join(key["scopes"]), " ".join(f"{n}={v}" for n, v in key.get("labels", {}).items()),
            )
            for key in known
        ],
        spare=("LABELS", "CREATED", "EXPIRES", "SCOPES"),
    )  # fmt: skip
    return exits.OK


def _state(key: Mapping[str, Any]) -> str:
    if key.get("revoked_at"):
        return "revoked"
    expires = key.get("expires_at")
    return "expired" if expires and datetime.fromisoformat(expires) <= datetime.now(UTC) else "good"


@command.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="May be repeated (default: all but admin)."
)
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Bind it to jobs with this label.")
@click.option("--expires-in", metavar="TIME", help="It ends after so long (12h, 30d).")
@session_options
def create(name: str, scopes: tuple[str, ...], labels: tuple[str, ...], expires_in: str | None) -> int:
    """Make a key. It is shown once, alone on stdout."""
    session = current()
    limit = None if expires_in is None else seconds(expires_in, "--expires-in")
    key, text = administration.create_key(session, name, scopes or SCOPES[:3], labels_of(labels), limit)
    if session.json:
        say(json.dumps({**key, "key": text}, ensure_ascii=False))
        return exits.OK
    say(text)
    if sys.stdout.isatty():
        sys.stderr.write(f"Keep it: nobody can show it again. Revoke it with: milepost keys revoke {key['id']}\n")
    return exits.OK


@command.command("revoke")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@session_options
def revoke(ids: tuple[str, ...]) -> int:
    """Make keys useless, within seconds everywhere."""
    session = current()
    code = exits.OK
    for key_id in ids:
        if administration.revoke_key(session, key_id):
            say(json.dumps({"id": key_id, "revoked": True}) if session.json else f"Revoked {key_id}.")
        else:
            sys.stderr.write(f"milepost: no key has the id {key_id}; milepost keys lists them\n")
            code = exits.FAILED
    return code
