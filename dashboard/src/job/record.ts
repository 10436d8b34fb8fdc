/** The job that is open: its record and its events, read again when the feed says that it changed. */
import { batch, computed, signal } from "@preact/signals";
import { link, listen } from "../live/feed";
import { rows } from "../jobs/list";
import { place } from "../shell/address";
import { get, jobPath, Problem } from "../wire/api";
import { isOlder } from "../wire/row";
import type { EventRecord, JobRecord, Row, StageShape } from "../wire/types";
import { isEnded } from "../wire/types";

const LOOK_EVERY = 3000;
/** The interval for fields that only the record has; the list stream sends the others at once. */
const READ_AGAIN = 4000;
const READ_SOON = 150;
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
let soonAt = 0;

/** The record with what the list received since it was read. */
export const job = computed<JobRecord | null>(() => {
  const read = record.value;
  if (read === null) return null;
  const row = rows.get(read.job_id)?.value;
  if (row === undefined || isOlder(row, read)) return read;
  if (row.version === read.version) {
    const { activity, waiting_for, progress, progress_known } = row; // of a job that waits for its children, these change without its version
    return { ...read, activity, waiting_for, progress, progress_known };
  }
  const { progress, progress_known, stage_progress, message, activity, status, stalled, started_at, completed_at, updated_at, error, attempt, worker, waiting_for } = row;
  const fresh = { progress, progress_known, stage_progress, message, activity, status, stalled, started_at, completed_at, updated_at, error, attempt, worker, waiting_for };
  return { ...read, ...fresh, eta: row.eta as JobRecord["eta"], stages: withStage(read.stages, row.stage) };
});

/** The stages that were read, with the open one as the list stream sent it last. */
function withStage(stages: JobRecord["stages"], open: StageShape | null): JobRecord["stages"] {
  if (open === null) return stages;
  const at = stages.findIndex((one) => one.name === open.name && one.parent === open.parent && one.started_at === open.started_at);
  if (at >= 0) return stages.with(at, open);
  const ended = stages.map((one) => (one.ended_at === null && one.parent === open.parent ? { ...one, ended_at: open.started_at } : one));
  return [...ended, open];
}

export async function reload(): Promise<void> {
  if (id === null) return;
  running?.abort();
  const mine = (running = new AbortController());
  const wanted = id;
  changed = false;
  try {
    const found = await get<JobRecord>(jobPath(wanted), {}, mine.signal);
    if (mine.signal.aborted) return;
    batch(() => {
      if (record.peek() !== null && record.peek()?.created_at !== found.created_at) events.value = []; // the id was reused
      record.value = found;
      problem.value = null;
    });
    if (wantsEvents.peek() && isEnded(found.status)) await readEvents(mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    problem.value = error;
    if (error.status === 404) batch(() => ((record.value = null), (events.value = [])));
  } finally {
    if (running === mine) {
      running = null;
      if (changed) readSoon(READ_AGAIN);
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

function readSoon(wait = READ_SOON): void {
  const at = Date.now() + wait;
  if (soon !== null && soonAt <= at) return;
  if (soon !== null) clearTimeout(soon);
  soonAt = at;
  soon = setTimeout(() => {
    soon = null;
    // A read in progress is not restarted, or a job that changes faster than it can be read would never be shown.
    if (running !== null) changed = true;
    else void reload();
  }, wait);
}

/** Starts to follow the job that the address names. */
export function start(): void {
  listen({
    batch: ({ jobs, gone }) => {
      if (id === null) return;
      const row = jobs.find((one) => one.job_id === id);
      const known = record.peek();
      if (row !== undefined && (known === null || isOlder(known, row))) readSoon(isTurn(known, row) ? READ_SOON : READ_AGAIN);
      else if (gone.includes(id)) readSoon();
    },
    onRestart: () => readSoon(),
  });
  let away = false;
  link.subscribe((now) => {
    const back = away && now.kind === "live";
    away = now.kind === "retrying" || now.kind === "no-store";
    // Repeats a read that failed with the connection; the stream sends later changes.
    if (back && (running !== null || (problem.peek() !== null && problem.peek()?.status !== 404))) void reload();
  });
  place.subscribe(({ job: next }) => {
    if (next === id) return;
    id = next;
    batch(() => {
      record.value = null;
      events.value = [];
      problem.value = null;
    });
    void reload();
  });
  wantsEvents.subscribe((wanted) => {
    if (wanted) void readEvents().catch(ignoreProblem);
  });
  // Log lines are not changes of the list, so the page of a running job requests them.
  setInterval(() => {
    const shown = record.peek();
    const visible = document.visibilityState === "visible" && link.peek().kind === "live";
    const alive = shown !== null && (!isEnded(shown.status) || unanswered(shown));
    if (wantsEvents.peek() && visible && alive) void readEvents().catch(ignoreProblem);
  }, LOOK_EVERY);
}

const unanswered = (shown: JobRecord): boolean => shown.receipt !== null && shown.receipt["confirmed"] === null;

/** Whether a change requires a new read of the record: another status, or the next attempt. */
const isTurn = (known: JobRecord | null, row: Row): boolean =>
  known === null || row.status !== known.status || row.attempt !== known.attempt || row.started_at !== known.started_at || row.stopping || unanswered(known);

function ignoreProblem(error: unknown): void {
  if (!(error instanceof Problem)) throw error;
}
