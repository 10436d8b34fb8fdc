/** The timeline of a job: its time in the queue, its stages with their durations, and its end. */
import { useSignal } from "@preact/signals";
import { now } from "../live/clock";
import { shownState } from "../parts/icons";
import { Link } from "../parts/link";
import { ago, elapsed, localTime, preciseDuration, utcTime, formatCount } from "../text/time";
import type { Failure, JobRecord, StageShape } from "../wire/types";
import { plain, workerName } from "../text/plain";
import { plural } from "../text/plural";
import { endedBy, endOf, failuresOf, isLost, lastedText, runName, useAttempts, type Run } from "./attempts";
import { spreadOf, usualText, type Spread } from "./durations";
import { events } from "./record";

/** The number of earlier runs shown; the part Attempts has the others. */
const RUNS = 3;
/** The number of stages shown before a button for the rest. */
const STAGES = 20;

const when = (text: string | null): string => (text === null ? "" : `${localTime(text)} · ${utcTime(text)}`);

export function Timeline({ job }: { job: JobRecord }) {
  const at = now.value;
  const usual = spreadOf(job.job_type);
  const ended = job.status !== "pending" && job.status !== "running";
  const look = shownState(job);
  const begun = job.stages.filter((stage) => stage.started_at !== null);
  const allStages = useSignal(false);
  const before = allStages.value ? 0 : Math.max(0, begun.length - STAGES);
  const stopping = job.receipt !== null && job.receipt["confirmed"] === null;
  const inStage = job.stages.some((stage) => stage.started_at !== null && stage.ended_at === null);
  const ready = Math.max(Date.parse(job.created_at ?? ""), job.not_before === null ? 0 : Date.parse(job.not_before));
  // A later run waited in the queue again, from a time that is not part of the record.
  const waited = job.started_at === null || job.attempts.length > 1 || Number.isNaN(ready) ? null : Date.parse(job.started_at) - ready;
  // A suspended run is pending, and has not ended.
  const here = job.status !== "pending" || job.attempts.at(-1)?.ended_at === null;
  const runs = here ? job.attempts.slice(0, -1) : job.attempts;
  const { found } = useAttempts(job, runs.length > 0);
  const failures = endedBy(runs, failuresOf(found));
  const last = job.attempts.at(-1);
  const failure = here ? (job.status === "failed" ? job.failure : null) : last === undefined ? null : failures.get(last);
  const until = isLost(failure) ? null : here ? job.completed_at : (last?.ended_at ?? null);
  return (
    <section aria-label="Timeline">
      <h2>Timeline</h2>
      <ol class={`timeline of-${look}`}>
        <li class={here ? "" : "here"}>
          <span>Created{job.retry_of === null ? "" : " for the failed items of another job"}</span>
          <span class="muted" title={when(job.created_at)}>
            {ago(job.created_at, at)}
          </span>
        </li>
        <EarlierRuns runs={runs} failures={failures} />
        {here && job.started_at !== null && (
          <li class={ended || inStage ? "" : "here"}>
            <span>
              {job.attempt > 1 ? `Attempt ${job.attempt} started` : job.attempts.length > 1 ? "Started again" : "Started"}
              {waited === null ? "" : ` after ${preciseDuration(waited / 1000)} in the queue`}
              {job.worker === null ? "" : ` on ${workerName(job.worker)}`}
            </span>
            <span class="muted" title={when(job.started_at)}>
              {ago(job.started_at, at)}
            </span>
            {waited !== null && <Usual kind="wait" value={usual?.wait} />}
          </li>
        )}
        {before > 0 && (
          <li>
            <button type="button" class="button plain" onClick={() => (allStages.value = true)}>
              Show {formatCount(before)} earlier stages
            </button>
          </li>
        )}
        {begun
          .slice(before)
          .map((stage) => (
            <Stage key={`${stage.parent ?? ""}/${stage.name}/${stage.started_at ?? ""}`} stage={stage} running={here && !ended} at={at} until={until} />
          ))}
        {ended && (
          <li class="here">
            <span>
              {job.status[0]?.toUpperCase()}
              {job.status.slice(1)}
              {stopping ? ", stopping…" : ""}
            </span>
            <span class="muted" title={when(job.completed_at)}>
              {job.started_at === null ? "never started" : stopping ? "" : lastedText(job.started_at, job.completed_at, failure, at)}
            </span>
            <Usual kind="run time" value={usual?.duration} />
          </li>
        )}
      </ol>
    </section>
  );
}

/** The runs before the current or last one, with what ended them: a lost worker leaves no other sign here. */
function EarlierRuns({ runs, failures }: { runs: readonly Run[]; failures: ReadonlyMap<Run, Failure> }) {
  const before = Math.max(0, runs.length - RUNS);
  return (
    <>
      {before > 0 && (
        <li>
          <Link to={{ part: "attempts" }}>{formatCount(before)} earlier runs</Link>
        </li>
      )}
      {runs.slice(before).map((run) => {
        const failure = failures.get(run);
        const end = endOf(run, failure, events.value);
        return (
          <li key={run.started_at}>
            <span>
              {runName(run)}
              {end !== "" && <span class={failure === undefined ? "" : "bad"}>: {end}</span>}
            </span>
            <span class="muted" title={when(run.started_at)}>
              {lastedText(run.started_at, run.ended_at, failure, now.value)}
            </span>
          </li>
        );
      })}
    </>
  );
}

/** A stage, and how long it took; not known if its run was lost. */
function Stage({ stage, running, at, until }: { stage: StageShape; running: boolean; at: number; until: string | null }) {
  const here = running && stage.ended_at === null;
  const end = stage.ended_at ?? (running ? null : until);
  return (
    <li class={here ? "here" : ""}>
      <span class={stage.parent === null ? "" : "nested"}>
        <bdi>{plain(stage.name)}</bdi> <span class="muted small count">{countOf(stage)}</span>
      </span>
      <span class="muted" title={when(stage.started_at)}>
        {here || end !== null ? elapsed(stage.started_at, end, at) : ""}
        {here ? ", now" : ""}
      </span>
    </li>
  );
}

/** "254 of 412 chunks", or "412 chunks" when all are done or the total is unknown. */
export function countOf({ done, total, unit }: Pick<StageShape, "done" | "total" | "unit">): string {
  if (total === null || total <= 0) return done > 0 ? `${formatCount(done)} ${plural(unit, done)}` : "";
  return `${done === total ? "" : `${formatCount(done)} of `}${formatCount(total)} ${plural(unit, total)}`;
}

function Usual({ kind, value }: { kind: string; value: Spread | undefined }) {
  if (value === undefined || value.p50 === null) return null;
  return <span class="muted small usual">{usualText(kind, value)}</span>;
}
