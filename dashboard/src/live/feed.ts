/**
 * The live feed: one stream per browser. The tab that holds the lock reads the server's stream and posts it to the others over
 * a BroadcastChannel. When it closes, the next holder continues from the last position that all of them received. Without Web
 * Locks (on a page that is not served securely) each visible tab reads its own stream. A page opened by a share link receives
 * its job only, so it has a stream of its own and never reads for the others.
 */
import { signal } from "@preact/signals";
import { apiBase, apiUrl, get, Problem, share, signInNeeded } from "../wire/api";
import { readStream, type Message } from "../wire/sse";
import type { Batch, Counts, ListSnapshot, Stats } from "../wire/types";

export type Link =
  | { kind: "connecting" }
  | { kind: "live" }
  /** The server responds, but its store is unavailable. */
  | { kind: "no-store"; since: number; store: string }
  | { kind: "retrying"; at: number; since: number; why: string };

type Post =
  | { kind: "hello" }
  | { kind: "user" }
  | { kind: "link"; link: Link; position: string | null }
  | { kind: "batch"; batch: Batch; position: string | null }
  /** `counts` is null for a user who may not see the counts of all. What is left out has not changed. */
  | { kind: "counts"; counts?: Counts | null; stalled?: number | null; waiting?: number | null }
  | { kind: "restarted"; position: string | null };

export interface Listener {
  batch: (batch: Batch) => void;
  onRestart: () => void;
}

const SILENCE = 35_000;
const COUNT_EVERY = 5000;
/** A store that is back is noticed within this time, whatever the server advises others to wait. */
const STORE_WAIT = 2000;
const WAITS = [1, 2, 4, 8, 15, 30];

/** The connection to the server, and to its store behind it. */
export const link = signal<Link>({ kind: "connecting" });
/** Whether this tab reads the stream for all. */
export const leading = signal(false);
export const counts = signal<Counts | null>(null);
export const stalledCount = signal<number | null>(null);
export const waitingCount = signal<number | null>(null);

const listeners = new Set<Listener>();
const audience = share === null ? apiBase.href : `${apiBase.href} ${share}`;
const channel = "BroadcastChannel" in window ? new BroadcastChannel(`milepost ${audience}`) : null;
let position: string | null = null;
let hurry: (() => void) | null = null;
/** Another user has signed in: until this page is gone, it tells the pages of that user nothing. */
let leaving = false;

export function listen(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Tries again at once. */
export const reconnect = (): void => hurry?.();

function receive(post: Post): void {
  if ("position" in post && post.position !== null) position = post.position;
  if (post.kind === "link") link.value = post.link;
  else if (post.kind === "batch") for (const one of listeners) one.batch(post.batch);
  else if (post.kind === "user") {
    leaving = true;
    location.reload();
  }
  else if (post.kind === "restarted") for (const one of listeners) one.onRestart();
  else if (post.kind === "counts") {
    if (post.counts !== undefined) counts.value = post.counts;
    if (post.stalled !== undefined) stalledCount.value = post.stalled;
    if (post.waiting !== undefined) waitingCount.value = post.waiting;
  } else if (leading.value && !leaving) postState();
}

function post(message: Post): void {
  if (leaving) return;
  channel?.postMessage(message);
  receive(message);
}

/** Another user has signed in: no tab of this browser may keep or show data of the previous user. */
export const postUserChange = (): void => post({ kind: "user" });

function postState(): void {
  channel?.postMessage({ kind: "link", link: link.value, position } satisfies Post);
  channel?.postMessage({ kind: "counts", counts: counts.value, stalled: stalledCount.value, waiting: waitingCount.value } satisfies Post);
}

function onMessage(message: Message): void {
  if (message.id !== null) position = message.id;
  if (message.event === "jobs") {
    post({ kind: "batch", batch: JSON.parse(message.data) as Batch, position });
    countSoon();
  } else if (message.event === "counts") {
    post({ kind: "counts", counts: JSON.parse(message.data) as Counts });
  } else if (message.event === "store") {
    const { ok, store } = JSON.parse(message.data) as { ok: boolean; store: string };
    if (!ok) post({ kind: "link", link: { kind: "no-store", since: Date.now(), store }, position });
    else if (link.value.kind === "no-store") post({ kind: "link", link: { kind: "live" }, position });
  } else if (message.event === "snapshot") {
    const snapshot = JSON.parse(message.data) as ListSnapshot;
    post({ kind: "counts", counts: snapshot.counts });
    post({ kind: "restarted", position });
    countSoon(0);
  }
}

let counting: ReturnType<typeof setTimeout> | null = null;

/** The pushed counts do not include stalled and waiting jobs, so the leading tab requests them after changes. */
function countSoon(wait = COUNT_EVERY): void {
  counting ??= setTimeout(async () => {
    counting = null;
    try {
      const { stalled, waiting } = await get<Stats>("stats", { window: "1h", step: "1h" });
      post({ kind: "counts", stalled, waiting });
    } catch {
      // The next change requests them again.
    }
  }, wait);
}

async function read(stop: AbortSignal): Promise<void> {
  let failures = 0;
  let since = 0;
  while (!stop.aborted) {
    const attempt = new AbortController();
    const stopped = (): void => attempt.abort();
    stop.addEventListener("abort", stopped);
    let lastSign = Date.now();
    const watch = setInterval(() => {
      if (Date.now() - lastSign > SILENCE) attempt.abort();
    }, 5000);
    let why = "The stream ended";
    let wait: number | null = null;
    let store: string | null = null;
    try {
      await readStream(apiUrl("events", { jobs: false }), position, attempt.signal, {
        open: () => {
          failures = 0;
          post({ kind: "link", link: { kind: "live" }, position });
        },
        message: onMessage,
        alive: () => void (lastSign = Date.now()),
      });
    } catch (error) {
      why = error instanceof Problem ? error.detail : "The server cannot be reached";
      wait = error instanceof Problem ? error.retryAfter : null;
      store = error instanceof Problem ? error.unreachableStore : null;
    } finally {
      clearInterval(watch);
      stop.removeEventListener("abort", stopped);
    }
    if (stop.aborted) return;
    if (failures === 0) since = Date.now();
    if (store !== null) {
      const before = link.peek();
      post({ kind: "link", link: before.kind === "no-store" ? before : { kind: "no-store", since: Date.now(), store }, position });
      await pause(STORE_WAIT, stop);
      continue;
    }
    const seconds = wait ?? WAITS[Math.min(failures, WAITS.length - 1)] ?? 30;
    failures += 1;
    post({ kind: "link", link: { kind: "retrying", at: Date.now() + seconds * 1000, since, why }, position });
    await pause(seconds * 1000, stop);
    while (signInNeeded.value && !stop.aborted) await pause(60_000, stop);
  }
}

function pause(milliseconds: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    function done(): void {
      clearTimeout(timer);
      hurry = null;
      stop.removeEventListener("abort", done);
      resolve();
    }
    hurry = done;
    stop.addEventListener("abort", done);
  });
}

/** Starts to follow the server, in this tab or through another one. */
export function follow(): void {
  channel?.addEventListener("message", (event: MessageEvent<Post>) => receive(event.data));
  signInNeeded.subscribe((needed) => {
    if (!needed) reconnect();
  });
  window.addEventListener("online", reconnect);
  if (navigator.locks !== undefined && channel !== null) {
    void navigator.locks.request(`milepost stream ${audience}`, async () => {
      leading.value = true;
      await read(new AbortController().signal);
    });
    channel.postMessage({ kind: "hello" } satisfies Post);
    return;
  }
  let reading: AbortController | null = null;
  const look = (): void => {
    const visible = document.visibilityState === "visible";
    if (visible && reading === null) {
      reading = new AbortController();
      leading.value = true;
      void read(reading.signal);
    } else if (!visible && reading !== null) {
      reading.abort();
      reading = null;
      leading.value = false;
    }
  };
  document.addEventListener("visibilitychange", look);
  look();
}
