/**
 * The list: the jobs that the filter selects, newest first, kept up to date by the feed. It keeps the order, the pages, and the
 * changes that wait while no row may move. Each row is a signal of its own, so a change redraws one row.
 */
import { batch, computed, signal, type Signal } from "@preact/signals";
import { link, listen } from "../live/feed";
import { filter } from "../shell/address";
import { get, Problem } from "../wire/api";
import { isOlder } from "../wire/row";
import type { Batch, Row, RowList } from "../wire/types";
import { matcher } from "./matching";

const PAGE = 200;
const ASK_AGAIN = 1500;
const TRY_AGAIN = 5000;

export const rows = new Map<string, Signal<Row>>();
export const order = signal<readonly string[]>([]);
export const total = signal<{ count: number; exact: boolean } | null>(null);
export const loading = signal(true);
export const problem = signal<Problem | null>(null);
/** New jobs that are held back because rows would move under the pointer. */
export const waiting = signal<ReadonlySet<string>>(new Set());
/** Rows that no longer match, kept in place while no row may move. */
export const unmatched = signal<ReadonlySet<string>>(new Set());
/** Jobs that are shown as deleted until their deletion is carried out or undone. */
export const hidden = signal<ReadonlySet<string>>(new Set());
/** Whether no row may move: the pointer is over the list, it is scrolled, or jobs are selected. */
export const held = signal(false);
export const paused = signal(false);
export const heldChanges = signal(0);
/** Whether any listed job has usage. */
export const withUsage = signal(false);
/** Changes per second, over the last few seconds. */
export const rate = signal(0);

export const shown = computed(() =>
  hidden.value.size === 0 ? order.value : order.value.filter((id) => !hidden.value.has(id)),
);

let cursor: string | null = null;
let running: AbortController | null = null;
/** Whether the list that is being read was requested while the stream was open. */
let beganLive = false;
/** The filter whose jobs are shown. */
let answered: string | null = null;
let matches = matcher("");
let parked = new Map<string, Row | null>();
let beats: number[] = [];
let received = 0;

const later = (a: Row, b: Row): number => {
  const when = (b.created_at ?? "").localeCompare(a.created_at ?? "");
  return when !== 0 ? when : b.job_id.localeCompare(a.job_id);
};

export const hasMore = (): boolean => cursor !== null;

/** Reads the list again; if `quiet`, the current rows stay until the response arrives. */
export async function load(quiet = false): Promise<void> {
  running?.abort();
  const mine = (running = new AbortController());
  beganLive = link.peek().kind === "live";
  if (!quiet) loading.value = true;
  const wanted = filter.peek();
  const limit = quiet ? Math.min(1000, Math.max(PAGE, order.peek().length)) : PAGE;
  try {
    const found = await get<RowList>("jobs", { q: wanted, limit, fields: "row" }, mine.signal);
    if (mine.signal.aborted) return;
    batch(() => {
      if (!quiet) withUsage.value = false;
      const ids = found.jobs.map(put);
      answered = wanted;
      cursor = found.next_cursor ?? null;
      total.value = countOf(found);
      order.value = ids;
      waiting.value = new Set();
      unmatched.value = new Set();
      loading.value = false;
      problem.value = null;
      forget(ids);
      running = null;
      if (!paused.peek()) applyParked();
    });
  } catch (error) {
    if (mine.signal.aborted) return;
    running = null;
    loading.value = false;
    if (order.peek().length > 0 && !paused.peek()) applyParked();
    problem.value = error instanceof Problem ? error : new Problem(0, String(error));
    if (!(error instanceof Problem)) throw error;
    if (answered !== wanted) nothing(); // jobs of an earlier filter must not be shown for this one
    if (error.status !== 422) trySoon(error.retryAfter);
  } finally {
    if (running === mine) running = null;
  }
}

function nothing(): void {
  batch(() => {
    answered = null;
    cursor = null;
    total.value = null;
    order.value = [];
    waiting.value = new Set();
    unmatched.value = new Set();
  });
}

let trying: ReturnType<typeof setTimeout> | undefined;

/** Reads a list again that could not be read, while the feed is connected. Otherwise the next connection does so. */
function trySoon(wait: number | null): void {
  clearTimeout(trying);
  trying = setTimeout(() => {
    if (problem.peek() !== null && running === null && link.peek().kind === "live") void load(true);
  }, wait === null ? TRY_AGAIN : wait * 1000);
}

let reading = false;

/** Reads the next page, if there is one. */
export async function loadMore(): Promise<void> {
  if (cursor === null || reading || running !== null) return;
  reading = true;
  const asked = filter.peek();
  try {
    const found = await get<RowList>("jobs", { q: asked, limit: order.peek().length > 1000 ? 1000 : PAGE, cursor, fields: "row" });
    if (asked !== filter.peek()) return;
    batch(() => {
      cursor = found.next_cursor ?? null;
      const known = new Set(order.peek());
      const fresh = found.jobs.map(put).filter((id) => !known.has(id));
      order.value = [...order.peek(), ...fresh];
      if (found.total !== null) total.value = countOf(found);
    });
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  } finally {
    reading = false;
  }
}

function countOf(found: RowList): { count: number; exact: boolean } {
  if (found.total !== null) return { count: found.total, exact: true };
  return { count: found.total_at_least ?? found.jobs.length, exact: found.next_cursor == null && found.scanned_all !== false };
}

function put(row: Row): string {
  if (Object.keys(row.usage).length > 0) withUsage.value = true;
  const known = rows.get(row.job_id);
  if (known === undefined) rows.set(row.job_id, signal(row));
  else if (!isOlder(row, known.peek())) known.value = row;
  return row.job_id;
}

function forget(ids: readonly string[]): void {
  if (rows.size < 2 * ids.length + 2000) return;
  const kept = new Set(ids);
  for (const id of rows.keys()) if (!kept.has(id)) rows.delete(id);
}

/** Applies a batch of changes from the feed. */
export function applyBatch(changes: Batch): void {
  const count = changes.jobs.length + changes.gone.length;
  received += count;
  if (paused.peek()) heldChanges.value += count;
  else if (running === null && answered !== null) return apply(changes);
  else {
    update(changes);
    if (running === null) return; // while no list is shown, changes alone would look like one
  }
  // Also while the list is being read, because its response may be older than this batch.
  for (const row of changes.jobs) parked.set(row.job_id, row);
  for (const id of changes.gone) parked.set(id, null);
}

/** Takes in the new state of known jobs, and leaves the list as it is. */
function update({ jobs }: Batch): void {
  batch(() => {
    for (const row of jobs) if (rows.has(row.job_id)) put(row);
  });
}

function applyParked(): void {
  const changes = parked;
  parked = new Map();
  apply({
    jobs: [...changes.values()].filter((row): row is Row => row !== null),
    gone: [...changes].filter(([, row]) => row === null).map(([id]) => id),
  });
}

function apply({ jobs, gone }: Batch): void {
  batch(() => {
    const listed = new Set(order.peek());
    const arrived: Row[] = [];
    const left = new Set<string>();
    const stays = new Set<string>();
    let unsure = false;
    let change = 0;
    for (const row of jobs) {
      const known = rows.get(row.job_id);
      if (known !== undefined && isOlder(row, known.peek())) continue;
      const fits = matches(row);
      if (fits === undefined) unsure = true;
      const there = listed.has(row.job_id) || waiting.peek().has(row.job_id);
      if (there || known !== undefined) put(row);
      if (there && fits === false) left.add(row.job_id);
      else if (there) stays.add(row.job_id);
      else if (fits === true && (known === undefined || !listed.has(row.job_id))) {
        put(row);
        arrived.push(row);
      }
    }
    for (const id of gone) if (listed.has(id) || waiting.peek().has(id)) left.add(id);
    place(arrived, left, stays, (by) => (change += by));
    const known = total.peek();
    if (known !== null && change !== 0) total.value = { ...known, count: Math.max(0, known.count + change) };
    if (unsure) reloadSoon();
  });
}

function place(arrived: Row[], left: Set<string>, stays: Set<string>, count: (by: number) => void): void {
  const list = order.peek();
  const last = list.length > 0 ? rows.get(list[list.length - 1] as string)?.peek() : undefined;
  // Jobs older than the last row that was read come with their page.
  const fresh = arrived.filter((row) => cursor === null || last === undefined || later(row, last) < 0);
  count(fresh.length);
  if (held.peek()) {
    if (fresh.length > 0) waiting.value = new Set([...waiting.peek(), ...fresh.map((row) => row.job_id)]);
    const going = new Set(unmatched.peek());
    for (const id of left) {
      if (!going.has(id)) count(-1);
      going.add(id);
    }
    for (const id of stays) if (going.delete(id)) count(1);
    if (going.size !== unmatched.peek().size || left.size > 0) unmatched.value = going;
    return;
  }
  const out = new Set([...left, ...unmatched.peek()]);
  for (const id of stays) out.delete(id);
  if (fresh.length === 0 && waiting.peek().size === 0 && out.size === 0) return;
  count(-left.size);
  settle(fresh, out);
}

function settle(fresh: readonly Row[], out: ReadonlySet<string>): void {
  const kept = order.peek().filter((id) => !out.has(id));
  const known = new Set(kept);
  const incoming = [...waiting.peek()]
    .map((id) => rows.get(id)?.peek())
    .filter((row): row is Row => row !== undefined)
    .concat(fresh)
    .filter((row) => !known.has(row.job_id) && !out.has(row.job_id))
    .sort(later);
  order.value = incoming.length === 0 ? kept : merge(kept, [...new Map(incoming.map((row) => [row.job_id, row])).values()]);
  waiting.value = new Set();
  unmatched.value = new Set();
}

function merge(kept: readonly string[], incoming: readonly Row[]): string[] {
  const merged: string[] = [];
  let next = 0;
  for (const id of kept) {
    const row = rows.get(id)?.peek();
    while (next < incoming.length && row !== undefined && later(incoming[next] as Row, row) < 0) {
      merged.push((incoming[next++] as Row).job_id);
    }
    merged.push(id);
  }
  for (; next < incoming.length; next++) merged.push((incoming[next] as Row).job_id);
  return merged;
}

/** Removes jobs that are known to be deleted, before the feed reports it. */
export function removeJobs(ids: readonly string[]): void {
  const gone = new Set(ids);
  batch(() => {
    const counted = order.peek().filter((id) => gone.has(id) && !unmatched.peek().has(id)).length;
    const known = total.peek();
    if (known !== null && counted > 0) total.value = { ...known, count: Math.max(0, known.count - counted) };
    order.value = order.peek().filter((id) => !gone.has(id));
    unmatched.value = new Set([...unmatched.peek()].filter((id) => !gone.has(id)));
    for (const id of ids) rows.delete(id);
  });
}

/** Applies the changes that were held back. */
export function release(): void {
  if (waiting.peek().size > 0 || unmatched.peek().size > 0) batch(() => settle([], unmatched.peek()));
}

export function pause(on: boolean): void {
  if (on === paused.peek()) return;
  batch(() => {
    paused.value = on;
    heldChanges.value = 0;
    if (!on && running === null) applyParked();
  });
}

let asking: ReturnType<typeof setTimeout> | null = null;

/** Asks the server again, at most once per `ASK_AGAIN`, if only the server can evaluate the filter. */
function reloadSoon(): void {
  asking ??= setTimeout(() => {
    asking = null;
    if (!held.peek() && problem.peek()?.status !== 422) void load(true);
  }, ASK_AGAIN);
}

/** Starts to follow: reads the list when the feed is connected (or soon, without it), and again when the filter changes. */
export function start(): void {
  listen({
    batch: applyBatch,
    onRestart: () => {
      // The first list is requested when the stream is open: it includes the snapshot, and later changes follow.
      const isFirst = opening;
      opening = false;
      if (!first && !(isFirst && running !== null && beganLive)) void load(true);
    },
  });
  let first = true;
  let opening = false;
  const begin = (): void => {
    if (!first) return;
    first = false;
    filter.subscribe((text) => {
      matches = matcher(text);
      void load();
    });
  };
  const timer = setTimeout(begin, 400);
  link.subscribe((now) => {
    if (now.kind !== "live") return;
    opening = true;
    clearTimeout(timer);
    begin();
    // The stream continues from its position, and does not repeat a list that could not be read meanwhile.
    if (running === null && problem.peek() !== null && problem.peek()?.status !== 422) void load(true);
  });
  held.subscribe((on) => {
    if (!on) release();
  });
  setInterval(() => {
    beats = [...beats.slice(-4), received];
    received = 0;
    rate.value = Math.round(beats.reduce((sum, beat) => sum + beat, 0) / beats.length);
  }, 1000);
}
