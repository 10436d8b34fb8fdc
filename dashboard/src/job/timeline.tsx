/** From its creation to now: how long it waited, each stage with its duration, and the end. */
import { now } from "../live/clock";
import { lookOf } from "../parts/icons";
import { ago, between, duration, localTime, span, utcTime, whole } from "../text/time";
import type { JobRecord, StageShape } from "../wire/types";
import { spreadOf } from "./usual";

const when = (text: string | null): string => (text === null ? "" : `${localTime(text)} · ${utcTime(text)}`);

export function Timeline({ job }: { job: JobRecord }) {
  const at = now.value;
  const usual = spreadOf(job.job_type);
  const ended = job.status !== "pending" && job.status !== "running";
  const look = lookOf(job);
  const inStage = job.stages.some((stage) => stage.started_at !== null && stage.ended_at === null);
  const waited = job.started_at === null || job.created_at === null ? null : Date.parse(job.started_at) - Date.parse(job.created_at);
  return (
    <section aria-label="Timeline">
      <h2>Timeline</h2>
      <ol class={`timeline of-${look}`}>
        <li class={job.status === "pending" ? "here" : ""}>
          <span>Created{job.retry_of === null ? "" : " for the failed items of another job"}</span>
          <span class="muted" title={when(job.created_at)}>
            {ago(job.created_at, at)}
          </span>
        </li>
        {job.started_at !== null && (
          <li class={job.status === "running" && !inStage ? "here" : ""}>
            <span>
              Started{job.worker === null ? "" : ` on ${job.worker}`}
            </span>
            <span class="muted" title={when(job.started_at)}>
              {waited === null ? "" : `waited ${duration(waited)}`}
            </span>
            <Usual kind="waits" value={usual?.wait} />
          </li>
        )}
        {job.stages
          .filter((stage) => stage.started_at !== null)
          .map((stage) => (
            <Stage key={`${stage.parent ?? ""}/${stage.name}`} stage={stage} running={!ended} at={at} until={job.completed_at} />
          ))}
        {ended && (
          <li class="here">
            <span>
              {job.status[0]?.toUpperCase()}
              {job.status.slice(1)}
            </span>
            <span class="muted" title={when(job.completed_at)}>
              {job.started_at === null ? "never started" : `ran ${between(job.started_at, job.completed_at, at)}`}
            </span>
            <Usual kind="runs" value={usual?.duration} />
          </li>
        )}
      </ol>
    </section>
  );
}

function Stage({ stage, running, at, until }: { stage: StageShape; running: boolean; at: number; until: string | null }) {
  const here = running && stage.ended_at === null;
  return (
    <li class={here ? "here" : ""}>
      <span class={stage.parent === null ? "" : "nested"}>
        {stage.name} <span class="muted small count">{countOf(stage)}</span>
      </span>
      <span class="muted" title={when(stage.started_at)}>
        {between(stage.started_at, stage.ended_at ?? (running ? null : until), at)}
        {here ? ", now" : ""}
      </span>
    </li>
  );
}

/** "254 of 412 chunks", and "412 chunks" when that was all. */
function countOf({ done, total, unit }: StageShape): string {
  if (total === null || total <= 0) return "";
  return `${done === total ? "" : `${whole(done)} of `}${whole(total)} ${unit}s`;
}

function Usual({ kind, value }: { kind: string; value: { p50: number | null; p95: number | null } | undefined }) {
  if (value === undefined || value.p50 === null) return null;
  return (
    <span class="muted small usual">
      usually {kind} {span(value.p50)}, 95% within {span(value.p95)}
    </span>
  );
}
