"""Every transition of a job: the table of legal moves, and one constructor `plan_*` for each change.

A branch with a move that `table` does not list raises when its module is imported. The constructors return a `Change`
for `Store.apply`. Times and durations are microseconds, JSON is encoded text, and None leaves a field unchanged.
"""

from milepost.core.transitions.cancel import (
    plan_cancel,
    plan_delete,
    plan_drain_timeout,
    plan_overrun,
    plan_receipt,
    plan_self_cancel,
)
from milepost.core.transitions.create import plan_create, plan_fire, plan_track
from milepost.core.transitions.dispatch import plan_dispatch, plan_dispatched, plan_rejected, plan_undispatchable
from milepost.core.transitions.groups import (
    STILL_HELD,
    plan_cancel_orphan,
    plan_close_batch,
    plan_flag_cycle,
    plan_no_cycle,
    plan_open_batch,
    plan_release_held,
)
from milepost.core.transitions.manual import plan_retry, plan_retry_child, plan_update
from milepost.core.transitions.pause import plan_pause, plan_resume_paused, plan_stopped_for_pause
from milepost.core.transitions.questions import (
    plan_answer,
    plan_ask,
    plan_ask_from_below,
    plan_settle_question,
    plan_wake_below,
)
from milepost.core.transitions.recovery import plan_crash, plan_expire, plan_lease_expired, plan_mark_stale
from milepost.core.transitions.run import (
    plan_checkpoint,
    plan_complete,
    plan_complete_without_result,
    plan_fail,
    plan_keep_step,
    plan_log,
    plan_output,
    plan_release,
    plan_report,
    plan_suspend,
)
from milepost.core.transitions.start import plan_adopt, plan_deliver, plan_resume, plan_start
from milepost.core.transitions.table import ACTIVE, ANY, MOVES, REPORT, TERMINAL

__all__ = [
    "ACTIVE",
    "ANY",
    "MOVES",
    "REPORT",
    "STILL_HELD",
    "TERMINAL",
    "plan_adopt",
    "plan_answer",
    "plan_ask",
    "plan_ask_from_below",
    "plan_cancel",
    "plan_cancel_orphan",
    "plan_checkpoint",
    "plan_close_batch",
    "plan_complete",
    "plan_complete_without_result",
    "plan_crash",
    "plan_create",
    "plan_delete",
    "plan_deliver",
    "plan_dispatch",
    "plan_dispatched",
    "plan_drain_timeout",
    "plan_expire",
    "plan_fail",
    "plan_fire",
    "plan_flag_cycle",
    "plan_keep_step",
    "plan_lease_expired",
    "plan_log",
    "plan_mark_stale",
    "plan_no_cycle",
    "plan_open_batch",
    "plan_output",
    "plan_overrun",
    "plan_pause",
    "plan_receipt",
    "plan_rejected",
    "plan_release",
    "plan_release_held",
    "plan_report",
    "plan_resume",
    "plan_resume_paused",
    "plan_retry",
    "plan_retry_child",
    "plan_self_cancel",
    "plan_settle_question",
    "plan_start",
    "plan_stopped_for_pause",
    "plan_suspend",
    "plan_track",
    "plan_undispatchable",
    "plan_update",
    "plan_wake_below",
]
