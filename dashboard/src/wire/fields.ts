/** The fields of a job that a row of a list has. Written by scripts/fields.py; do not edit. */
export const ROW_FIELDS = [
  "job_id",
  "job_type",
  "status",
  "progress",
  "message",
  "created_at",
  "started_at",
  "completed_at",
  "error",
  "run_by",
  "labels",
  "attempt",
  "max_attempts",
  "updated_at",
  "version",
  "worker",
  "waiting_for",
  "group",
  "queue",
  "schedule",
  "item_counts",
  "eta",
  "stalled",
  "usage",
  "progress_known",
] as const;

/** The greatest `max_attempts`, of tasks whose own task queue limits their attempts. */
export const ATTEMPTS_MAX = 1000;
