/** The progress of a job as text. */
import { ATTEMPTS_MAX } from "../wire/fields";
import type { Row } from "../wire/types";
import { percent } from "./time";

/** The attempt of a job: "2 of 3", or "2" if milepost does not limit them. */
export const attemptText = (attempt: number, most: number): string =>
  most >= ATTEMPTS_MAX ? `${attempt}` : `${attempt} of ${most}`;

export type Known = Pick<Row, "status" | "progress" | "progress_known" | "stage_progress" | "stage_number">;
/** Whether the progress of the job is unknown: then only its stage has a percentage. */
export const isProgressUnknown = (job: Known): boolean => job.status !== "completed" && !job.progress_known;

/** The progress of a job: "40%", "stage 2: 40%", or empty if neither is known. */
export function progressText(job: Known): string {
  if (!isProgressUnknown(job)) return `${percent(job.progress)}%`;
  return job.stage_progress === null ? "" : `stage ${job.stage_number}: ${percent(job.stage_progress)}%`;
}
