/** What the server says, by the names of its OpenAPI: a drift between the two is a compile error. */
import type { components } from "./openapi.gen";

type Shapes = components["schemas"];
export type JobRecord = Shapes["JobRecord"];
export type StageShape = Shapes["StageShape"];
export type EventRecord = Shapes["EventShape"];
export type JobList = Shapes["JobList"];
export type Done = Shapes["Done"];
export type Submission = Shapes["SubmitBody"];
export type Status = JobRecord["status"];

export interface Eta {
  earliest: string;
  latest: string;
}

export interface Receipt {
  requested_at: string | null;
  requested_by: string | null;
  reason: string | null;
  stopped_at: string | null;
  how: string | null;
  confirmed: boolean | null;
  late_result?: unknown;
}

export interface Failure {
  kind: string;
  type: string | null;
  message: string;
  traceback: string | null;
  exit_signal: string | null;
  exit_code: number | null;
  last_stage: string | null;
  last_item: string | null;
  last_checkpoint_at: string | null;
  last_log: string[];
  peak_memory: number | null;
  host: string | null;
  pid: number | null;
  versions: Record<string, string> | null;
  attempt: number | null;
  at: string | null;
}

/** A job as the list stream tells it. */
export interface Row
  extends Pick<
    JobRecord,
    | "job_id"
    | "job_type"
    | "status"
    | "progress"
    | "message"
    | "created_at"
    | "started_at"
    | "completed_at"
    | "updated_at"
    | "error"
    | "driver"
    | "labels"
    | "attempt"
    | "max_attempts"
    | "version"
    | "worker"
    | "stalled"
    | "waiting_for"
  > {
  eta: Eta | null;
  item_counts: { done: number; failed: number } | null;
  stage: string | null;
  title: string | null;
  stopping: boolean;
}

/** How many jobs there are by type and status. */
export type Counts = Record<string, Partial<Record<Status, number>>>;

export interface ListSnapshot {
  jobs: Row[];
  total: number | null;
  total_at_least: number | null;
  next_cursor: string | null;
  counts: Counts | null;
}

export interface Batch {
  jobs: Row[];
  gone: string[];
}

export const STATUSES = ["pending", "running", "completed", "failed", "cancelled"] as const;

export const isEnded = (status: Status): boolean => status !== "pending" && status !== "running";

export type Session = Shapes["SessionShape"];
export type JobType = Shapes["JobTypeShape"];
export type BulkDone = Shapes["BulkDone"];
export type Attempts = Shapes["Attempts"];
export type BulkAction = Shapes["BulkBody"]["action"];
export type Stats = Shapes["Stats"];
export type Failures = Shapes["Failures"];
export type JobTypes = Shapes["JobTypes"];
export type Workers = Shapes["Workers"];
export type Share = Shapes["Share"];
