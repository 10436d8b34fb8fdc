/** The progress of a job: bar, percentage and status. */
import { now } from "../live/clock";
import { progressText, isProgressUnknown, type Known } from "../text/progress";
import { about, percent, timeLeft } from "../text/time";
import type { Row } from "../wire/types";
import { shownState, StatusIcon } from "./icons";

type Shown = Known & Pick<Row, "stalled" | "eta" | "job_type">;

export function Bar({ job, thick = false, label }: { job: Shown; thick?: boolean; label?: string }) {
  const left = job.status === "running" ? timeLeft(job.eta, now.peek()) : null;
  const look = shownState(job);
  const unknown = isProgressUnknown(job);
  const fraction = unknown ? job.stage_progress : job.progress;
  const text = `${progressText(job)}${left === null ? "" : `, ${about(left)} left`}`;
  return (
    <div
      class={`bar of-${look}${thick ? " thick" : ""}${unknown ? " stage-only" : ""}`}
      role="progressbar"
      aria-label={label ?? `Progress of ${job.job_type}`}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(fraction === null ? {} : { "aria-valuenow": percent(fraction) })}
      aria-valuetext={text === "" ? "Progress unknown" : text}
    >
      <div style={{ transform: `scaleX(${Math.max(0, Math.min(1, fraction ?? 0))})` }} />
    </div>
  );
}

export function Chip({ job }: { job: Pick<Row, "status" | "stalled" | "stopping"> }) {
  const look = shownState(job);
  return (
    <span class={`chip of-${look}`}>
      <StatusIcon look={look} />
      {job.stopping ? "stopping…" : look}
    </span>
  );
}
