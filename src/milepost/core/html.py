"""Render a job as HTML for notebooks. Texts of the job are escaped; there is no script and nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from milepost.core.activity import counted, whole_percent
from milepost.core.values import Stage

_COLOURS = {
    "pending": ("#4a5562", "#e9ecf0"),
    "running": ("#0a55c2", "#e2edfd"),
    "completed": ("#0c6631", "#dff2e5"),
    "failed": ("#b3211a", "#fde6e3"),
    "cancelled": ("#6a3ea1", "#efe7fa"),
}
_OTHER = ("#7d4800", "#fbecd0")
STAGES_SHOWN = 12


def bar(job_id: str, job_type: str, status: str, fraction: float, message: str, stages: Iterable[Stage]) -> str:
    """Return one job as HTML: its progress (`fraction` in [0, 1]), the newest stages, and a line of text."""
    percent = whole_percent(fraction)
    colour, ground = _COLOURS.get(status, _OTHER)
    shown = list(stages)[-STAGES_SHOWN:]
    rows = "".join(_row(stage) for stage in shown)
    return (
        '<div style="font:13px/20px system-ui,sans-serif;max-width:640px;padding:4px 0">'
        f'<div><b>{escape(job_type)}</b> <span style="background:{ground};color:{colour};border-radius:8px;'
        f'padding:1px 8px">{escape(status)}</span> <code style="opacity:.7">{escape(job_id)}</code>'
        f'<span style="float:right;font-variant-numeric:tabular-nums">{percent}%</span></div>'
        f'<div role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" aria-valuemax="100" '
        'style="background:#8883;border-radius:3px;height:6px;margin:4px 0">'
        f'<div style="background:{colour};border-radius:3px;height:6px;width:{percent}%"></div></div>'
        f"{rows}" + (f"<div>{escape(message)}</div>" if message else "") + "</div>"
    )


def _row(stage: Stage) -> str:
    mark = "✓" if stage.ended_at is not None else "▸"
    return f'<div style="opacity:.8">{mark} {escape(stage.name)}<span style="float:right">{escape(counted(stage))}</span></div>'
