/** The types of the server's responses, from its OpenAPI document: a difference is a compile error. */
import type { ROW_FIELDS } from "./fields";
import type { components } from "./openapi.gen";

type Shapes = components["schemas"];
export type JobRecord = Shapes["JobRecord"];
export type StageShape = Shapes["Stage"];
export type EventRecord = Shapes["EventRecord"];
export type JobList = Shapes["JobList"];
export type Done = Shapes["Done"];
export type BatchCounts = Shapes["BatchCounts"];
export type ClosedBatch = Shapes["ClosedBatch"];
export type Submission = Shapes["SubmitBody"];
export type Status = JobRecord["status"];

export type Eta = Shapes["Eta"];
export type Receipt = Shapes["Receipt"];
export type Failure = Shapes["Failure"];

/** A job as the list stream sends it. */
export interface Row extends Omit<Pick<JobRecord, (typeof ROW_FIELDS)[number]>, "item_counts"> {
  item_counts: { done: number; failed: number } | null;
  /** The innermost stage that is open. */
  stage: StageShape | null;
  /** The number of the outermost stages so far. */
  stage_number: number;
  stage_progress: number | null;
  activity: string;
  title: string | null;
  stopping: boolean;
}

/** A list with only the fields that its rows show. */
export interface RowList extends Pick<JobList, "total" | "total_at_least" | "next_cursor" | "scanned_all"> {
  jobs: Row[];
}

/** How many jobs there are by type and status. */
export type Counts = Record<string, Partial<Record<Status, number>>>;

export interface ListSnapshot {
  /** The server's time. */
  at: string;
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

/** Whether the record is a batch, whose progress is that of its jobs. */
export const isBatch = (job: Pick<JobRecord, "job_type" | "run_by">): boolean => job.job_type === "batch" && job.run_by === "manual";

export const isEnded = (status: Status): boolean => status !== "pending" && status !== "running";

export type Session = Shapes["Session"];
export type JobType = Shapes["JobType"];
export type BulkDone = Shapes["BulkDone"];
export type Attempts = Shapes["Attempts"];
export type BulkAction = Shapes["BulkBody"]["action"];
export type Stats = Shapes["Stats"];
export type Failures = Shapes["Failures"];
export type JobTypes = Shapes["JobTypes"];
export type Workers = Shapes["Workers"];
export type Limit = Shapes["LimitRecord"];
export type LimitList = Shapes["LimitList"];
export type Schedule = Shapes["ScheduleRecord"];
export type ScheduleList = Shapes["ScheduleList"];
export type RetryCheck = Shapes["RetryCheck"];
export type JobUsage = Shapes["JobUsage"];
export type Usage = Shapes["Usage"];
export type Share = Shapes["Share"];
