/** The actions on jobs: cancel and retry ask first, a deletion can be undone for six seconds. */
import { now } from "../live/clock";
import { confirm } from "../parts/confirm";
import { attempt } from "../shell/action";
import { showToast } from "../shell/toasts";
import { plain } from "../text/plain";
import { elapsed, formatCount } from "../text/time";
import { call, get, jobPath, Problem, send } from "../wire/api";
import { rowOf } from "../wire/row";
import { isBatch, isEnded, type BulkAction, type BulkDone, type Done, type JobRecord, type RetryCheck, type Row } from "../wire/types";
import { removeJobs, hidden, load, applyBatch } from "./list";

const UNDO_SECONDS = 6;
const AT_ONCE = 1000;

export const canCancel = (job: Pick<Row, "status">): boolean => !isEnded(job.status);
export const canRetry = (job: Pick<Row, "status" | "run_by">): boolean =>
  (job.status === "failed" || job.status === "cancelled") && (job.run_by === "worker" || job.run_by === "external");

export const isPaused = (job: JobRecord): boolean => job.waiting_for?.code === "paused_job";
export const canPause = (job: JobRecord): boolean =>
  (job.status === "pending" && job.run_by !== "manual") || (job.status === "running" && job.run_by === "worker");

/** Pauses or resumes a job; neither loses work, so neither asks first. */
export async function setPaused(job: JobRecord, paused: boolean): Promise<void> {
  const done = paused ? "Paused" : "Resumed";
  if (await attempt(() => send("POST", `${jobPath(job.job_id)}/${paused ? "pause" : "resume"}`), done)) await refresh(job.job_id);
}

/** Reads a job again, so that the effect of an action shows at once. */
async function refresh(id: string): Promise<void> {
  try {
    applyBatch({ jobs: [rowOf(await get<JobRecord>(jobPath(id)))], gone: [] });
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

type Named = Pick<Row, "job_id" | "job_type" | "run_by" | "status" | "started_at">;

/** Cancels a job after a confirmation, because the work of its run is lost and a key may be pressed by mistake. */
export function confirmCancel(job: Named): void {
  const ran = elapsed(job.started_at, null, now.peek());
  const running = job.status === "running";
  const what = isBatch(job) ? "batch" : "job";
  let text = `${plain(job.job_type)} has not started and will not run.`;
  if (running) text = `${plain(job.job_type)} has been running for ${ran}. Its code stops at its next cancellation point.`;
  if (isBatch(job)) text = "Its open jobs are cancelled too. Running code stops at its next cancellation point.";
  confirm({
    title: `Cancel this ${what}?`,
    text,
    yes: `Cancel ${what}`,
    no: "Don't cancel",
    act: () => void cancel(job.job_id, running),
  });
}

/** Returns why a retry of a job would not succeed, or "". Unknown while the server cannot be reached, which the retry itself reports. */
export const whyNotRetry = (id: string): Promise<string> =>
  get<RetryCheck>(jobPath(id, "/retry-check")).then(
    (found) => found.text,
    () => "",
  );

/** Queues an ended job again after a confirmation, or shows why it would not succeed. */
export function confirmRetry(job: Named, fromStart = false): void {
  const lost = fromStart ? " Its checkpoint, state and kept results are discarded." : "";
  confirm({
    title: `Retry this job${fromStart ? " from the start" : ""}?`,
    text: `${plain(job.job_type)} will be queued again.${lost}`,
    yes: "Retry job",
    no: "Don't retry",
    act: () => void retry(job.job_id, fromStart),
  });
}

async function cancel(id: string, running: boolean): Promise<void> {
  const done = running ? "Cancelled. Waiting for the code to stop" : "Cancelled";
  if (await attempt(() => call<Done>("POST", jobPath(id, "/cancel"), { body: {} }), done)) await refresh(id);
}

async function retry(id: string, fromStart: boolean): Promise<void> {
  const body = fromStart ? { from_start: true } : {};
  const why = await whyNotRetry(id);
  if (why) showToast(why);
  else if (await attempt(() => call<JobRecord>("POST", jobPath(id, "/retry"), { body }), "Queued again")) await refresh(id);
}

/** Submits a new job for the items that failed, and returns its id. */
export async function retryFailed(id: string): Promise<string | null> {
  let made: string | null = null;
  await attempt(async () => {
    made = (await call<JobRecord>("POST", jobPath(id, "/retry"), { body: { only_failed: true } })).job_id;
  }, "New job submitted for the failed items");
  return made;
}

export async function forgetStop(id: string): Promise<void> {
  if (await attempt(() => call<Done>("POST", jobPath(id, "/stop/forget")), "No longer waiting for confirmation")) await refresh(id);
}

const undecided = new Map<number, () => Promise<void>>();
let decisions = 0;

function later(text: string, ids: readonly string[], work: () => Promise<void>): void {
  const key = ++decisions;
  hidden.value = new Set([...hidden.peek(), ...ids]);
  const show = (): void => {
    const gone = new Set(ids);
    hidden.value = new Set([...hidden.peek()].filter((id) => !gone.has(id)));
  };
  const carryOut = async (): Promise<void> => {
    if (!undecided.delete(key)) return;
    clearTimeout(timer);
    close();
    const done = await attempt(work, "");
    if (done) removeJobs(ids);
    show();
  };
  undecided.set(key, carryOut);
  const close = showToast(text, {
    seconds: UNDO_SECONDS,
    undo: () => {
      if (!undecided.delete(key)) return;
      clearTimeout(timer);
      close();
      show();
      showToast("Not deleted", { seconds: 2 });
    },
  });
  const timer = setTimeout(carryOut, UNDO_SECONDS * 1000);
}

// Leaving the page confirms the action.
window.addEventListener("pagehide", () => {
  for (const carryOut of [...undecided.values()]) void carryOut();
});

export function remove(id: string): void {
  later("Deleted", [id], async () => {
    await send("DELETE", jobPath(id), { keepalive: true });
  });
}

export type Many = { ids: readonly string[] } | { q: string };

/** Returns what an action would do, without doing it. */
export async function dryRun(action: BulkAction, many: Many): Promise<BulkDone> {
  if ("q" in many) return call<BulkDone>("POST", "jobs/bulk", { body: { action, q: many.q, dry_run: true } });
  let matching = 0;
  let eligible = 0;
  for (let at = 0; at < many.ids.length; at += AT_ONCE) {
    const ids = many.ids.slice(at, at + AT_ONCE);
    const counted = await call<BulkDone>("POST", "jobs/bulk", { body: { action, ids, dry_run: true } });
    matching += counted.matching ?? 0;
    eligible += counted.eligible ?? 0;
  }
  return { action, dry_run: true, matching, eligible, exact: true };
}

/** Applies an action, a thousand jobs at a time; returns how many were changed and how many refused. */
export async function applyToMany(action: BulkAction, many: Many, report: (done: number) => void): Promise<[number, number]> {
  let done = 0;
  let refused = 0;
  const count = (answer: BulkDone): void => {
    done += answer.done ?? 0;
    refused += (answer.outcomes ?? []).filter((one) => one["outcome"] === "refused").length;
    report(done);
  };
  if ("ids" in many) {
    for (let at = 0; at < many.ids.length; at += AT_ONCE) {
      count(await call<BulkDone>("POST", "jobs/bulk", { body: { action, ids: many.ids.slice(at, at + AT_ONCE) } }));
    }
    return [done, refused];
  }
  let cursor: string | null | undefined = null;
  do {
    const body: Record<string, unknown> = { action, q: many.q };
    if (cursor != null) body["cursor"] = cursor;
    const answer: BulkDone = await call<BulkDone>("POST", "jobs/bulk", { body });
    count(answer);
    cursor = answer.next_cursor;
  } while (cursor != null);
  return [done, refused];
}

export function removeMany(many: Many, count: number, shownIds: readonly string[]): void {
  later(`Deleting ${formatCount(count)} jobs`, shownIds, async () => {
    const [, refused] = await applyToMany("delete", many, () => undefined);
    await load(true);
    if (refused > 0) throw new Problem(409, `${formatCount(refused)} not deleted: their parents have not ended; delete those`);
  });
}
