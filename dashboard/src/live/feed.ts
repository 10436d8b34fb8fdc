/**
 * The live feed: one stream a browser. The tab that holds the lock reads the server's stream and tells the others over a
 * BroadcastChannel; when it goes, the next holder goes on from the last position that all of them heard. Without Web
 * Locks (a page that is not served securely) each visible tab reads its own. A share link hears of its job alone: whoever
 * came with it has a stream of their own, and never reads for the others.
 */
import { signal } from "@preact/signals";
import { apiBase, apiUrl, get, Problem, share, signInNeeded } from "../wire/api";
import { readStream, type Message } from "../wire/sse";
import type { Batch, Counts, JobList, ListSnapshot } from "../wire/types";

export type Link =
  | { kind: "connecting" }
  | { kind: "live" }
  | { kind: "retrying"; at: number; since: number; why: string };

type Post =
  | { kind: "hello" }
  | { kind: "who" }
  | { kind: "link"; link: Link; position: string | null }
  | { kind: "batch"; batch: Batch; position: string | null }
  | { kind: "counts"; counts: Counts | null; stalled: number | null }
  | { kind: "anew"; position: string | null };

export interface Listener {
  batch: (batch: Batch) => void;
  anew: () => void;
}

const SILENCE = 35_000;
const STALLED_EVERY = 2000;
const WAITS = [1, 2, 4, 8, 15, 30];

/** How this browser hangs on to the server. */
export const link = signal<Link>({ kind: "connecting" });
/** Whether this tab reads the stream for all. */
export const leading = signal(false);
export const counts = signal<Counts | null>(null);
export const stalledCount = signal<number | null>(null);

const listeners = new Set<Listener>();
const audience = share === null ? apiBase.href : `${apiBase.href} ${share}`;
const channel = "BroadcastChannel" in window ? new BroadcastChannel(`milepost ${audience}`) : null;
let position: string | null = null;
let hurry: (() => void) | null = null;

export function listen(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Tries again at once. */
export const reconnect = (): void => hurry?.();

function hear(post: Post): void {
  if ("position" in post && post.position !== null) position = post.position;
  if (post.kind === "link") link.value = post.link;
  else if (post.kind === "batch") for (const one of listeners) one.batch(post.batch);
  else if (post.kind === "who") location.reload();
  else if (post.kind === "anew") for (const one of listeners) one.anew();
  else if (post.kind === "counts") {
    if (post.counts !== null) counts.value = post.counts;
    if (post.stalled !== null) stalledCount.value = post.stalled;
  } else if (leading.value) tellState();
}

function tell(post: Post): void {
  channel?.postMessage(post);
  hear(post);
}

/** Somebody else is signed in now: no tab of this browser keeps, or goes on reading, what the last one saw. */
export const tellWho = (): void => tell({ kind: "who" });

function tellState(): void {
  channel?.postMessage({ kind: "link", link: link.value, position } satisfies Post);
  channel?.postMessage({ kind: "counts", counts: counts.value, stalled: stalledCount.value } satisfies Post);
}

function onMessage(message: Message): void {
  if (message.id !== null) position = message.id;
  if (message.event === "jobs") {
    tell({ kind: "batch", batch: JSON.parse(message.data) as Batch, position });
    countStalledSoon();
  } else if (message.event === "counts") {
    tell({ kind: "counts", counts: JSON.parse(message.data) as Counts, stalled: null });
  } else if (message.event === "snapshot") {
    const snapshot = JSON.parse(message.data) as ListSnapshot;
    tell({ kind: "counts", counts: snapshot.counts, stalled: null });
    tell({ kind: "anew", position });
    countStalledSoon(0);
  }
}

let counting: ReturnType<typeof setTimeout> | null = null;

/** Stalled jobs are not among the counts that are pushed: asked for after changes, by the leader alone. */
function countStalledSoon(wait = STALLED_EVERY): void {
  counting ??= setTimeout(async () => {
    counting = null;
    try {
      const found = await get<JobList>("jobs", { q: "is:stalled", limit: 1 });
      tell({ kind: "counts", counts: null, stalled: found.total ?? found.total_at_least ?? found.jobs.length });
    } catch {
      // The next change asks again.
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
    let heard = Date.now();
    const watch = setInterval(() => {
      if (Date.now() - heard > SILENCE) attempt.abort();
    }, 5000);
    let why = "The stream ended";
    let wait: number | null = null;
    try {
      await readStream(apiUrl("events"), position, attempt.signal, {
        open: () => {
          failures = 0;
          tell({ kind: "link", link: { kind: "live" }, position });
        },
        message: onMessage,
        alive: () => void (heard = Date.now()),
      });
    } catch (error) {
      why = error instanceof Problem ? error.detail : "The server cannot be reached";
      wait = error instanceof Problem ? error.retryAfter : null;
    } finally {
      clearInterval(watch);
      stop.removeEventListener("abort", stopped);
    }
    if (stop.aborted) return;
    if (failures === 0) since = Date.now();
    const seconds = wait ?? WAITS[Math.min(failures, WAITS.length - 1)] ?? 30;
    failures += 1;
    tell({ kind: "link", link: { kind: "retrying", at: Date.now() + seconds * 1000, since, why }, position });
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

/** Begins to follow the server, from this tab or through another. */
export function follow(): void {
  channel?.addEventListener("message", (event: MessageEvent<Post>) => hear(event.data));
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
