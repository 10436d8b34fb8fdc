/** The runs of a job, oldest first: where each ran, how long, and how it ended. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { now } from "../live/clock";
import { workerName } from "../text/plain";
import { attemptText } from "../text/progress";
import { elapsed, localTime, utcTime } from "../text/time";
import { errorText, get, jobPath } from "../wire/api";
import type { Attempts, EventRecord, Failure, JobRecord } from "../wire/types";
import { FailureText, REASONS } from "./error";
import { events } from "./record";

export type Run = JobRecord["attempts"][number];

/** The request under way, and for which state of which job: parts of a page that want its answer at once share it. */
let asked: { of: string; answer: Promise<Attempts> } | null = null;

/** The runs with their failures, read again with each start and end; null until they are known, and while not wanted. */
export function useAttempts(job: JobRecord, wanted = true): { found: Attempts | null; wrong: string | null } {
  const found = useSignal<Attempts | null>(null);
  const wrong = useSignal<string | null>(null);
  // A run whose worker was lost does not count as an attempt, so the next start may have the same number.
  const of = [job.job_id, job.attempt, job.status, job.started_at].join(" ");
  useEffect(() => {
    if (!wanted) return;
    let mine = true;
    if (asked?.of !== of) asked = { of, answer: get<Attempts>(jobPath(job.job_id, "/attempts")) };
    const { answer } = asked;
    answer
      .then(
        (read) => mine && ((found.value = read), (wrong.value = null)),
        (error: unknown) => mine && (wrong.value = errorText(error)),
      )
      .finally(() => asked?.answer === answer && (asked = null));
    return () => void (mine = false);
  }, [wanted, of]);
  return { found: found.value, wrong: wrong.value };
}

export const failuresOf = (found: Attempts | null): Failure[] => (found?.attempts ?? []).map((one) => ({ ...EMPTY, ...(one as Partial<Failure>) }));

const time = (text: string | null | undefined): number => Date.parse(text ?? "");

/** Each failure by the run that it ended: of those with its number, the one whose end is nearest. */
export function endedBy(runs: readonly Run[], failures: readonly Failure[]): Map<Run, Failure> {
  const ended = new Map<Run, Failure>();
  for (const failure of failures) {
    const free = runs.filter((run) => run.ended_at !== null && run.attempt === failure.attempt && !ended.has(run));
    const far = (run: Run): number => Math.abs(time(run.ended_at) - time(failure.at));
    const nearest = free.sort((a, b) => far(a) - far(b))[0];
    if (nearest !== undefined) ended.set(nearest, failure);
  }
  return ended;
}

/** What the event that ended a run says of it, where that is not its own name. */
const ENDS: Record<string, string> = { retrying: "failed", released: "given back to the queue" };

/** What ended a run, in a few words, as on the command line; empty if it is not known. */
export function endOf(run: Run, failure: Failure | undefined, all: readonly EventRecord[]): string {
  const event = all.findLast((one) => run.ended_at !== null && time(one.at) === time(run.ended_at) && one.kind !== "running");
  if (failure === undefined) return ENDS[event?.kind ?? ""] ?? event?.kind ?? "";
  const reason = (REASONS[failure.kind] ?? failure.kind).toLowerCase();
  return event?.data?.["suspect"] === undefined ? reason : `${reason}, not counted as a crash`;
}

/** Whether the end of a run is only when its lease was found expired. The code had stopped earlier, at an unknown time. */
export const isLost = (failure: Pick<Failure, "kind"> | null | undefined): boolean => failure?.kind === "lost" || failure?.kind === "crash_loop";

/** "ran 5 s", or "lost after 39 s". */
export const lastedText = (from: string | null, to: string | null, failure: Pick<Failure, "kind"> | null | undefined, at: number): string =>
  `${isLost(failure) ? "lost after" : "ran"} ${elapsed(from, to, at)}`;

/** "Attempt 1 on vm:4711". */
export const runName = ({ attempt, worker }: Run): string => `Attempt ${attempt}${worker === null ? "" : ` on ${workerName(worker)}`}`;

export function AttemptsPart({ job }: { job: JobRecord }) {
  const { found, wrong } = useAttempts(job);
  if (found === null) return wrong === null ? <p class="muted">Loading…</p> : <p role="alert">{wrong}</p>;
  const runs = found.runs as unknown as Run[];
  const failures = failuresOf(found);
  const ended = endedBy(runs, failures);
  const matched = new Set(ended.values());
  const earlier = failures.filter((failure) => !matched.has(failure));
  return (
    <div class="job">
      <p>
        Attempt {attemptText(found.attempt, found.max_attempts)}
        {found.crashes > 0 ? `, ${found.crashes} ${found.crashes === 1 ? "crash" : "crashes"}` : ""}.
        {job.checkpoint_at === null ? "" : ` The next attempt resumes from the checkpoint at ${localTime(job.checkpoint_at)}.`}
      </p>
      {runs.length === 0 && failures.length === 0 && <p class="muted">The job has not started</p>}
      {earlier.map((failure, at) => (
        <section class="section" key={at}>
          <h2 title={utcTime(failure.at)}>
            Attempt {failure.attempt ?? at + 1}
            {failure.at === null ? "" : `, ended ${localTime(failure.at)}`}
          </h2>
          <FailureText failure={failure} error={null} />
        </section>
      ))}
      {runs.map((run) => (
        <RunPart key={run.started_at} run={run} failure={ended.get(run)} suspended={job.status === "pending" && run.ended_at === null} />
      ))}
    </div>
  );
}

function RunPart({ run, failure, suspended }: { run: Run; failure: Failure | undefined; suspended: boolean }) {
  const end = endOf(run, failure, events.value);
  const lasted = run.ended_at === null ? `running for ${elapsed(run.started_at, null, now.value)}` : lastedText(run.started_at, run.ended_at, failure, now.value);
  return (
    <section class="section">
      <h2>{runName(run)}</h2>
      <p class="muted" title={`${utcTime(run.started_at)} to ${run.ended_at === null ? "now" : utcTime(run.ended_at)}`}>
        Started {localTime(run.started_at)}, {suspended ? "now suspended" : lasted}
        {end !== "" && `: ${end}`}
      </p>
      {failure !== undefined && <FailureText failure={failure} error={null} />}
    </section>
  );
}

const EMPTY: Failure = {
  kind: "error",
  type: null,
  message: "",
  traceback: null,
  exit_signal: null,
  exit_code: null,
  last_stage: null,
  last_item: null,
  last_checkpoint_at: null,
  last_log: [],
  peak_memory: null,
  host: null,
  pid: null,
  versions: null,
  attempt: null,
  at: null,
};
