/** What can be done to a job. A single action asks nothing; a deletion can be undone for six seconds. */
import { say } from "../shell/toasts";
import { call, get, jobPath, Problem, send, words } from "../wire/api";
import { rowOf } from "../wire/row";
import { isEnded, type BulkAction, type BulkDone, type Done, type JobRecord, type Row } from "../wire/types";
import { drop, hidden, load, take } from "./list";

const UNDO_SECONDS = 6;
const AT_ONCE = 1000;

export const canCancel = (job: Pick<Row, "status">): boolean => !isEnded(job.status);
export const canRetry = (job: Pick<Row, "status" | "driver">): boolean =>
  (job.status === "failed" || job.status === "cancelled") && (job.driver === "worker" || job.driver === "engine");

/** Looks at a job again, so that what was done shows at once. */
async function refresh(id: string): Promise<void> {
  try {
    take({ jobs: [rowOf(await get<JobRecord>(jobPath(id)))], gone: [] });
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

async function attempt(work: () => Promise<unknown>, done: string): Promise<boolean> {
  try {
    await work();
    if (done !== "") say(done, { seconds: 3 });
    return true;
  } catch (error) {
    say(words(error));
    if (!(error instanceof Problem)) throw error;
    return false;
  }
}

export async function cancel(id: string): Promise<void> {
  if (await attempt(() => call<Done>("POST", jobPath(id, "/cancel"), { body: {} }), "Cancelled")) await refresh(id);
}

export async function retry(id: string): Promise<void> {
  if (await attempt(() => call<JobRecord>("POST", jobPath(id, "/retry"), { body: {} }), "Retried")) await refresh(id);
}

/** Submits a new job for the items that failed; its id. */
export async function retryFailed(id: string): Promise<string | null> {
  let made: string | null = null;
  await attempt(async () => {
    made = (await call<JobRecord>("POST", jobPath(id, "/retry"), { body: { only_failed: true } })).job_id;
  }, "A new job takes up the failed items");
  return made;
}

export async function forgetStop(id: string): Promise<void> {
  if (await attempt(() => call<Done>("POST", jobPath(id, "/stop/forget")), "The stop is forgotten")) await refresh(id);
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
    if (done) drop(ids);
    show();
  };
  undecided.set(key, carryOut);
  const close = say(text, {
    seconds: UNDO_SECONDS,
    undo: () => {
      if (!undecided.delete(key)) return;
      clearTimeout(timer);
      close();
      show();
      say("Kept", { seconds: 2 });
    },
  });
  const timer = setTimeout(carryOut, UNDO_SECONDS * 1000);
}

// Whoever leaves the page has decided.
window.addEventListener("pagehide", () => {
  for (const carryOut of [...undecided.values()]) void carryOut();
});

export function remove(id: string): void {
  later("Deleted", [id], async () => {
    await send("DELETE", jobPath(id), { keepalive: true });
  });
}

export type Many = { ids: readonly string[] } | { q: string };

/** What an action would do, without doing it. */
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

/** Does it, in steps of a thousand; how many were changed and how many refused. */
export async function doMany(action: BulkAction, many: Many, told: (done: number) => void): Promise<[number, number]> {
  let done = 0;
  let refused = 0;
  const count = (answer: BulkDone): void => {
    done += answer.done ?? 0;
    refused += (answer.outcomes ?? []).filter((one) => one["outcome"] === "refused").length;
    told(done);
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
  later(`Deleting ${count.toLocaleString("en-US")} jobs`, shownIds, async () => {
    await doMany("delete", many, () => undefined);
    await load(true);
  });
}
