/** The progress of a job: bar, percentage and status. */
import { now } from "../live/clock";
import { progressText, isProgressUnknown, type Known } from "../text/progress";
import { about, percent, remaining, type Remaining } from "../text/time";
import type { Row } from "../wire/types";
import { shownState, StatusIcon } from "./icons";

type Shown = Known & Pick<Row, "stalled" | "eta" | "updated_at" | "job_type">;

export function Bar({ job, thick = false, label }: { job: Shown; thick?: boolean; label?: string }) {
  const rest = remaining(job, now.peek());
  const look = shownState(job);
  const unknown = isProgressUnknown(job);
  const fraction = unknown ? job.stage_progress : job.progress;
  const text = `${progressText(job)}${rest === null ? "" : `, ${rest.text}`}`;
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

/** The time left in a cell, with its age below. */
export function Left({ rest }: { rest: Remaining }) {
  return (
    <>
      {about(rest.left)}
      {rest.asOf !== "" && (
        <>
          <br />
          <span class="small">{rest.asOf}</span>
        </>
      )}
    </>
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
