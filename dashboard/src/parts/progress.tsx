/** How far a job is: its bar and its chip. */
import { now } from "../live/clock";
import { percent, timeLeft } from "../text/time";
import type { Row } from "../wire/types";
import { lookOf, StatusIcon } from "./icons";

type Shown = Pick<Row, "status" | "stalled" | "progress" | "eta" | "job_type">;

export function Bar({ job, thick = false, label }: { job: Shown; thick?: boolean; label?: string }) {
  const far = percent(job.progress);
  const left = job.status === "running" ? timeLeft(job.eta, now.peek()) : null;
  const look = lookOf(job);
  return (
    <div
      class={`bar of-${look}${thick ? " thick" : ""}`}
      role="progressbar"
      aria-label={label ?? `Progress of ${job.job_type}`}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={far}
      aria-valuetext={`${far}%${left === null ? "" : `, about ${left} left`}`}
    >
      <div style={{ transform: `scaleX(${Math.max(0, Math.min(1, job.progress))})` }} />
    </div>
  );
}

export function Chip({ job }: { job: Pick<Row, "status" | "stalled" | "stopping"> }) {
  const look = lookOf(job);
  return (
    <span class={`chip of-${look}`}>
      <StatusIcon look={look} />
      {job.stopping ? "stopping…" : look}
    </span>
  );
}
