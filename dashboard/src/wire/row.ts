/** From a whole record to the row that lists show: the same rules as the server's `wire.row`. */
import type { Eta, JobRecord, Receipt, Row } from "./types";

/** What a job is called: `metadata.title`, a file's name, or the first text among its parameters. */
export function titleOf(job: Pick<JobRecord, "metadata" | "params">): string | null {
  const metadata = asObject(job.metadata);
  for (const name of ["title", "filename"]) {
    const value = metadata[name];
    if (typeof value === "string" && value !== "") return short(value);
  }
  const path = metadata["file_path"];
  if (typeof path === "string" && path !== "") {
    return short(path.replaceAll("\\", "/").replace(/\/+$/, "").split("/").at(-1) ?? "");
  }
  for (const value of Object.values(asObject(job.params))) {
    if (typeof value === "string" && value !== "" && value !== "***") return short(value);
  }
  return null;
}

/** By whole characters, as the server cuts: half an emoji is none. */
const short = (text: string): string => (text.length <= 200 ? text : [...text.slice(0, 400)].slice(0, 200).join(""));

export function rowOf(job: JobRecord): Row {
  const open = job.stages.filter((stage) => stage.ended_at === null && stage.started_at !== null);
  const counts = job.item_counts;
  const receipt = job.receipt as Receipt | null;
  return {
    job_id: job.job_id,
    job_type: job.job_type,
    status: job.status,
    progress: job.progress,
    message: job.message,
    created_at: job.created_at,
    started_at: job.started_at,
    completed_at: job.completed_at,
    updated_at: job.updated_at,
    error: job.error,
    driver: job.driver,
    labels: job.labels,
    attempt: job.attempt,
    max_attempts: job.max_attempts,
    version: job.version,
    worker: job.worker,
    stalled: job.stalled,
    waiting_for: job.waiting_for,
    eta: job.eta as Eta | null,
    item_counts: counts === null ? null : { done: Number(counts["done"] ?? 0), failed: Number(counts["failed"] ?? 0) },
    stage: open.at(-1)?.name ?? null,
    title: titleOf(job),
    stopping: receipt !== null && receipt.confirmed === null,
  };
}

/** Whether what is told of a job is older than what is known of it. An id may be used again: then its versions begin anew. */
export function isOlder(told: Pick<Row, "created_at" | "version">, known: Pick<Row, "created_at" | "version">): boolean {
  const [one, other] = [told.created_at ?? "", known.created_at ?? ""];
  return one === other ? told.version < known.version : one < other;
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}
