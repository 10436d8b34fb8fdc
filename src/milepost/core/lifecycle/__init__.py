"""Every transition of a job: a table, and one constructor `plan_*` for each change. The one place where a status changes.

`table` has the legal moves; a case that makes another is an error when its module is imported. The constructors give a
`Change` for `Store.apply`. Values: times and durations are microseconds, JSON is text already encoded, None leaves a
field as it is. Decides from values alone; knows no store, no clock and no transport.
"""

from milepost.core.lifecycle.births import plan_adopt, plan_create, plan_deliver, plan_reopen, plan_start, plan_track
from milepost.core.lifecycle.callers import (
    plan_cancel,
    plan_cancel_own,
    plan_delete,
    plan_receipt,
    plan_retry,
    plan_run_out,
    plan_update,
)
from milepost.core.lifecycle.handing import plan_hand_over, plan_handed, plan_stranded
from milepost.core.lifecycle.runs import plan_checkpoint, plan_complete, plan_fail, plan_log, plan_release, plan_report
from milepost.core.lifecycle.sweeps import plan_crash, plan_expire, plan_lost, plan_quiet
from milepost.core.lifecycle.table import ACTIVE, ANY, MOVES, REPORT, TERMINAL

__all__ = [
    "ACTIVE",
    "ANY",
    "MOVES",
    "REPORT",
    "TERMINAL",
    "plan_adopt",
    "plan_cancel",
    "plan_cancel_own",
    "plan_checkpoint",
    "plan_complete",
    "plan_crash",
    "plan_create",
    "plan_delete",
    "plan_deliver",
    "plan_expire",
    "plan_fail",
    "plan_hand_over",
    "plan_handed",
    "plan_log",
    "plan_lost",
    "plan_quiet",
    "plan_receipt",
    "plan_release",
    "plan_reopen",
    "plan_report",
    "plan_retry",
    "plan_run_out",
    "plan_start",
    "plan_stranded",
    "plan_track",
    "plan_update",
]
