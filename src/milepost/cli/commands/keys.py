"""`milepost keys`: list, create and revoke API keys."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from milepost.cli import admin, exit_codes, formatting
from milepost.cli.arguments import WholeNumber, labels_of
from milepost.cli.context import current, session_options
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.tables import print_records
from milepost.core.defaults import PRIORITY_MAX
from milepost.core.serialization import seconds

SCOPES = ("jobs:read", "jobs:write", "jobs:delete", "jobs:cancel", "jobs:answer", "admin")
DEFAULT = SCOPES[:3]


@click.group("keys", invoke_without_command=True)
@session_options
@click.pass_context
def keys(ctx: click.Context) -> int | None:
    """List, create and revoke API keys. The store keeps only the SHA-256 of a secret."""
    if ctx.invoked_subcommand is not None:
        return None
    context = current()
    known = admin.keys(context)

    def when(text: str | None) -> str:
        return formatting.clock(datetime.fromisoformat(text), utc=context.utc) if text else "-"

    print_records(
        context,
        known,
        ("ID", "NAME", "STATE", "CREATED", "EXPIRES", "SCOPES", "LABELS", "TYPES", "QUEUES"),
        [
            (
                key["id"], key["name"], _state(key), when(key.get("created_at")), when(key.get("expires_at")),
                " ".join(key["scopes"]), " ".join(f"{n}={v}" for n, v in key.get("labels", {}).items()),
                ",".join(key.get("types", ())), ",".join(key.get("queues", ())),
            )
            for key in known
        ],
        nothing="No API keys. Create one: milepost keys create NAME",
        optional=("QUEUES", "TYPES", "LABELS", "CREATED", "EXPIRES", "SCOPES"),
    )  # fmt: skip
    return exit_codes.OK


def _state(key: Mapping[str, Any]) -> str:
    if key.get("revoked_at"):
        return "revoked"
    expires = key.get("expires_at")
    return "expired" if expires and datetime.fromisoformat(expires) <= datetime.now(UTC) else "active"


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="Grant a scope; may be repeated (default: jobs:read, jobs:write, jobs:delete).",
)
@click.option(
    "--label",
    "labels",
    metavar="NAME=VALUE",
    multiple=True,
    help="Restrict the key to jobs with this label; may be repeated.",
)
@click.option(
    "--types",
    metavar="TYPE,...",
    multiple=True,
    help="Restrict submit and retry to these job types (default: all).",
)
@click.option(
    "--queues",
    metavar="QUEUE,...",
    multiple=True,
    help="Restrict submit and retry to these queues (default: all).",
)
@click.option(
    "--max-priority",
    type=WholeNumber(-PRIORITY_MAX, PRIORITY_MAX),
    help="Refuse jobs with a higher priority (default: allow all).",
)
@click.option("--expires-in", metavar="TIME", help="Expire the key after TIME (e.g. 12h, 30d).")
@session_options
def create(
    name: str,
    scopes: tuple[str, ...],
    labels: tuple[str, ...],
    types: tuple[str, ...],
    queues: tuple[str, ...],
    max_priority: int | None,
    expires_in: str | None,
) -> int:
    """Create a key and print it. It cannot be shown again."""
    context = current()
    limit = None if expires_in is None else seconds(expires_in, "--expires-in")
    limits = _names("types", types), _names("queues", queues)
    key, text = admin.create_key(context, name, scopes or DEFAULT, labels_of(labels), *limits, max_priority, limit)
    if context.json:
        echo_json({**key, "key": text})
        return exit_codes.OK
    echo(text)
    if sys.stdout.isatty():
        sys.stderr.write(
            f"Store this key now; it cannot be shown again. To revoke it: milepost keys revoke {key['id']}\n"
        )
    return exit_codes.OK


def _names(option: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in comma-separated texts. Raises UsageError if there are texts without a name."""
    names = tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
    if texts and not names:
        raise click.UsageError(f"--{option} is empty; omit it to allow all {option}")
    return names


@keys.command("revoke")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@session_options
def revoke(ids: tuple[str, ...]) -> int:
    """Revoke keys; takes effect on all servers within seconds."""
    context = current()
    code = exit_codes.OK
    for key_id in ids:
        if admin.revoke_key(context, key_id):
            echo(json.dumps({"id": key_id, "revoked": True}) if context.json else f"Revoked {key_id}.")
        else:
            sys.stderr.write(f"milepost: no key with id {key_id}; milepost keys lists all keys\n")
            code = exit_codes.FAILED
    return code
