"""Small words of a command line: NAME=VALUE pairs. Knows no command."""

from __future__ import annotations

from collections.abc import Sequence

import click


def labels_of(pairs: Sequence[str]) -> dict[str, str]:
    """Labels from NAME=VALUE words. Raises UsageError."""
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--label {pair!r} is not NAME=VALUE")
        labels[name] = value
    return labels
