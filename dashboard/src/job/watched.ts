/** The job that is open: its record and its events, read again when the feed says that it changed. */
import { batch, computed, signal } from "@preact/signals";
import { link, listen } from "../live/feed";
import { rows } from "../jobs/list";
import { place } from "../shell/address";
import { get, jobPath, Problem } from "../wire/api";
import { isOlder } from "../wire/row";
import type { EventRecord, JobRecord } from "../wire/types";
import { isEnded } from "../wire/types";

const LOOK_EVERY = 1000;
const READ_AGAIN = 250;
const EVENTS = 1000;

export const record = signal<JobRecord | null>(null);
export const events = signal<readonly EventRecord[]>([]);
export const problem = signal<Problem | null>(null);
/** The part of a job that needs its events. */
export const wantsEvents = signal(false);

let id: string | null = null;
let running: AbortController | null = null;
let changed = false;
let soon: ReturnType<typeof setTimeout> | null = null;

/** The record with what the list heard since it was read. */
export const job = computed<JobRecord | null>(() => {
  const read = record.value;
  if (read === null) return null;
  const row = rows.get(read.job_id)?.value;
  if (row === undefined || row.version === read.version || isOlder(row, read)) return read;
  const { progress, message, status, stalled, started_at, completed_at, error, attempt, worker, waiting_for } = row;
  const fresh = { progress, message, status, stalled, started_at, completed_at, error, attempt, worker, waiting_for };
  return { ...read, ...fresh, eta: row.eta as JobRecord["eta"] };
});

export async function readAgain(): Promise<void> {
  if (id === null) return;
  running?.abort();
  const mine = (running = new AbortController());
  const wanted = id;
  changed = false;
  try {
    const found = await get<JobRecord>(jobPath(wanted), {}, mine.signal);
    if (mine.signal.aborted) return;
    batch(() => {
      if (record.peek() !== null && record.peek()?.created_at !== found.created_at) events.value = []; // the id is used again
      record.value = found;
      problem.value = null;
    });
    if (wantsEvents.peek()) await readEvents(mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    problem.value = error;
    if (error.status === 404) batch(() => ((record.value = null), (events.value = [])));
  } finally {
    if (running === mine) {
      running = null;
      if (changed) readSoon();
    }
  }
}

async function readEvents(stop?: AbortSignal): Promise<void> {
  const wanted = id;
  if (wanted === null) return;
  const after = events.peek().at(-1)?.version ?? 0;
  const fresh = await get<EventRecord[]>(jobPath(wanted, "/events"), { after, limit: EVENTS }, stop);
  if (wanted !== id || fresh.length === 0) return;
  const last = events.peek().at(-1)?.version ?? 0;
  events.value = [...events.peek(), ...fresh.filter((event) => event.version > last)].slice(-EVENTS);
}

function readSoon(): void {
  soon ??= setTimeout(() => {
    soon = null;
    // What is on its way is waited for: a job that changes faster than it can be read would else never be seen.
    if (running !== null) changed = true;
    else void readAgain();
  }, READ_AGAIN);
}

/** Begins to follow whichever job the address names. */
export function start(): void {
  listen({
    batch: ({ jobs, gone }) => {
      if (id === null) return;
      const row = jobs.find((one) => one.job_id === id);
      const known = record.peek();
      if (row !== undefined && (known === null || isOlder(known, row))) readSoon();
      else if (gone.includes(id)) readSoon();
    },
    anew: readSoon,
  });
  let away = false;
  link.subscribe((now) => {
    const back = away && now.kind === "live";
    away = now.kind === "retrying";
    // A read that broke off with the connection, or failed without it; what changed since, the stream tells.
    if (back && (running !== null || (problem.peek() !== null && problem.peek()?.status !== 404))) void readAgain();
  });
  place.subscribe(({ job: next }) => {
    if (next === id) return;
    id = next;
    batch(() => {
      record.value = null;
      events.value = [];
      problem.value = null;
    });
    void readAgain();
  });
  wantsEvents.subscribe((wanted) => {
    if (wanted) void readEvents().catch(ignoreProblem);
  });
  // Lines of the log are no changes of the list: whoever looks at a job that runs asks for them.
  setInterval(() => {
    const shown = record.peek();
    const visible = document.visibilityState === "visible" && link.peek().kind === "live";
    const alive = shown !== null && (!isEnded(shown.status) || unanswered(shown));
    if (wantsEvents.peek() && visible && alive) void readEvents().catch(ignoreProblem);
  }, LOOK_EVERY);
}

const unanswered = (shown: JobRecord): boolean => shown.receipt !== null && shown.receipt["confirmed"] === null;

function ignoreProblem(error: unknown): void {
  if (!(error instanceof Problem)) throw error;
}
