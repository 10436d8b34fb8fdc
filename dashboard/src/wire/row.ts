/** Makes the row of a list from a whole record, as the server does. */
import { ROW_FIELDS } from "./fields";
import type { JobRecord, Row } from "./types";

/** The title of a job: `metadata.title`, a file name, the first text among its parameters, or its key as a child. */
export function titleOf(job: Pick<JobRecord, "metadata" | "params"> & { child_key?: string | null }): string | null {
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
  return job.child_key ? short(job.child_key) : null;
}

/** Truncates between characters, as the server does, and never inside an emoji. */
const short = (text: string): string => (text.length <= 200 ? text : [...text.slice(0, 400)].slice(0, 200).join(""));

export function rowOf(job: JobRecord): Row {
  const open = job.stages.filter((stage) => stage.ended_at === null && stage.started_at !== null);
  const counts = job.item_counts;
  const shown = Object.fromEntries(ROW_FIELDS.map((name) => [name, job[name]])) as Pick<JobRecord, (typeof ROW_FIELDS)[number]>;
  return {
    ...shown,
    item_counts: counts === null ? null : { done: counts.done, failed: counts.failed },
    stage: open.at(-1) ?? null,
    stage_number: job.stages.filter((stage) => stage.parent === null).length,
    stage_progress: job.stage_progress,
    activity: job.activity,
    title: titleOf(job),
    stopping: job.receipt !== null && job.receipt.confirmed === null,
  };
}

/** Whether an update of a job is older than the known state. If an id is reused, its versions start again. */
export function isOlder(update: Pick<Row, "created_at" | "version">, known: Pick<Row, "created_at" | "version">): boolean {
  const [one, other] = [update.created_at ?? "", known.created_at ?? ""];
  return one === other ? update.version < known.version : one < other;
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}
