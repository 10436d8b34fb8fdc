/** The icons of the statuses, which differ in shape as well as in colour. */
import type { Row } from "../wire/types";

/** The state that a job is shown with: its status, or `stalled`. */
export type Look = "pending" | "running" | "completed" | "failed" | "cancelled" | "stalled";

export const shownState = (job: Pick<Row, "status" | "stalled">): Look =>
  job.status === "running" && job.stalled ? "stalled" : job.status;

export function StatusIcon({ look }: { look: Look }) {
  return (
    <svg class={`icon of-${look}`} viewBox="0 0 20 20" fill="none" aria-hidden="true">
      {SHAPES[look]}
    </svg>
  );
}

const cut = "var(--surface)";
const SHAPES = {
  pending: <circle cx="10" cy="10" r="7.5" stroke="currentColor" stroke-width="2" stroke-dasharray="2.9 3" />,
  running: (
    <>
      <circle cx="10" cy="10" r="7.5" stroke="currentColor" stroke-width="2" opacity="0.3" />
      <path d="M10 2.5a7.5 7.5 0 0 1 7.5 7.5" stroke="currentColor" stroke-width="2" />
    </>
  ),
  completed: (
    <>
      <circle cx="10" cy="10" r="8.5" fill="currentColor" />
      <path d="m6.2 10.2 2.6 2.6 5-5.4" stroke={cut} stroke-width="2" />
    </>
  ),
  failed: (
    <>
      <path d="M6.5 1.5h7l5 5v7l-5 5h-7l-5-5v-7z" fill="currentColor" />
      <path d="m7 7 6 6m0-6-6 6" stroke={cut} stroke-width="2" />
    </>
  ),
  cancelled: (
    <>
      <circle cx="10" cy="10" r="7.5" stroke="currentColor" stroke-width="2" />
      <path d="m4.8 15.2 10.4-10.4" stroke="currentColor" stroke-width="2" />
    </>
  ),
  stalled: (
    <>
      <path d="M10 1.8 19 18H1z" fill="currentColor" />
      <path d="M10 7.5v5m0 1.6v1.8" stroke={cut} stroke-width="2" />
    </>
  ),
};

export function Mark() {
  return (
    <svg viewBox="0 0 20 20" aria-hidden="true">
      <path fill="currentColor" d="M9 1h2v2h4.5L18.5 6l-3 3H11v10H9V9H2V3h7z" />
    </svg>
  );
}

export function Glass() {
  return (
    <svg viewBox="0 0 16 16" fill="none" aria-hidden="true">
      <circle cx="7" cy="7" r="5" stroke="currentColor" stroke-width="1.5" />
      <path d="m11 11 3.5 3.5" stroke="currentColor" stroke-width="1.5" />
    </svg>
  );
}

export function HalfMoon() {
  return (
    <svg viewBox="0 0 16 16" width="16" height="16" fill="none" aria-hidden="true">
      <circle cx="8" cy="8" r="6" stroke="currentColor" stroke-width="1.5" />
      <path d="M8 2a6 6 0 0 1 0 12z" fill="currentColor" />
    </svg>
  );
}

export function Cross() {
  return (
    <svg viewBox="0 0 16 16" width="14" height="14" fill="none" aria-hidden="true">
      <path d="m3 3 10 10M13 3 3 13" stroke="currentColor" stroke-width="1.8" />
    </svg>
  );
}

export function Lines() {
  return (
    <svg viewBox="0 0 16 16" width="16" height="16" fill="none" aria-hidden="true">
      <path d="M2 4h12M2 8h12M2 12h12" stroke="currentColor" stroke-width="1.6" />
    </svg>
  );
}

export function Expand() {
  return (
    <svg viewBox="0 0 16 16" width="14" height="14" fill="none" aria-hidden="true">
      <path d="M9.5 2.5h4v4m0-4L8.5 7.5M6.5 13.5h-4v-4m0 4 5-5" stroke="currentColor" stroke-width="1.6" />
    </svg>
  );
}
