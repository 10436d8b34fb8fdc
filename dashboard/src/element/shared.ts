/**
 * One connection for all `<milepost-job>` of a page. A browser allows six per server over HTTP/1.1, so a stream for each
 * element would block the page. Elements with different share tokens cannot share a stream; from the second token on,
 * their jobs are polled in turn.
 */
import { noteServerTime } from "../live/offset";
import type { ListSnapshot, Row } from "../wire/types";

export interface Listener {
  api: string;
  id: string;
  share: string | null;
  update: (row: Row) => void;
  missing: () => void;
}

const POLL_EVERY = 2000;
const REOPEN_AFTER = 50;
/** Sign-in required, not allowed, does not exist. Other errors pass. */
const REFUSED = [401, 403, 404];

class Group {
  readonly listeners = new Set<Listener>();
  #source: EventSource | null = null;
  #opened = "";
  #soon: ReturnType<typeof setTimeout> | undefined;
  /** The listeners that were asked about one by one since the stream was refused. */
  #asked = new WeakSet<Listener>();

  constructor(
    readonly api: string,
    readonly share: string | null,
  ) {}

  url(path: string, ids: readonly string[] = []): string {
    const query = new URLSearchParams(ids.map((id) => ["ids", id]));
    if (this.share !== null) query.set("share", this.share);
    return `${this.api}/${path}${query.size === 0 ? "" : `?${query}`}`;
  }

  /** Opens the stream again for the current elements, after a page has added several at once. */
  change(): void {
    clearTimeout(this.#soon);
    this.#soon = setTimeout(() => this.#open(), REOPEN_AFTER);
  }

  /** Lets the next `change` open the stream for the same jobs again, so that all listeners get a snapshot. */
  close(): void {
    this.#source?.close();
    this.#source = null;
    this.#opened = "";
  }

  #open(): void {
    const ids = [...new Set([...this.listeners].map((one) => one.id))].sort();
    const wanted = ids.length === 0 || isPolled(this) ? "" : this.url("events", ids);
    if (wanted === this.#opened && this.#source?.readyState !== EventSource.CLOSED) return;
    this.close();
    this.#opened = wanted;
    if (wanted === "") return;
    const source = (this.#source = new EventSource(wanted));
    source.addEventListener("snapshot", (message) => {
      const { jobs, at } = JSON.parse(message.data as string) as ListSnapshot;
      this.#asked = new WeakSet();
      noteServerTime(at);
      this.tell(jobs);
      const found = new Set(jobs.map((row) => row.job_id));
      for (const one of this.listeners) if (ids.includes(one.id) && !found.has(one.id)) one.missing();
    });
    source.addEventListener("jobs", (message) => {
      const { jobs, gone } = JSON.parse(message.data as string) as { jobs: Row[]; gone: string[] };
      this.tell(jobs);
      for (const one of this.listeners) if (gone.includes(one.id)) one.missing();
    });
    source.onerror = () => {
      // An error response closes the stream for good, but the server, or the key, may be valid again later.
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(() => this.change(), POLL_EVERY);
      // The stream does not tell its status, requests do.
      const unasked = [...this.listeners].filter((one) => !this.#asked.has(one));
      for (const one of unasked) this.#asked.add(one);
      void this.poll(unasked);
    };
  }

  tell(rows: readonly Row[]): void {
    for (const row of rows) for (const one of this.listeners) if (one.id === row.job_id) one.update(row);
  }

  async poll(listeners = [...this.listeners]): Promise<void> {
    for (const one of listeners) {
      const query = new URLSearchParams({ fields: "row", q: `id:${one.id}`, limit: "1" });
      if (this.share !== null) query.set("share", this.share);
      const answer = await fetch(`${this.api}/jobs?${query}`).catch(() => null);
      if (answer === null || !answer.ok) {
        if (answer !== null && REFUSED.includes(answer.status)) one.missing();
        continue;
      }
      noteServerTime(answer.headers.get("Date"));
      const { jobs } = (await answer.json()) as { jobs: Row[] };
      if (jobs.length === 0) one.missing();
      this.tell(jobs);
    }
  }
}

const groups = new Map<string, Group>();

/** Whether the jobs of a group are polled: true for all groups with a share token but the first. */
function isPolled(group: Group): boolean {
  const shared = [...groups.values()].filter((one) => one.share !== null && one.listeners.size > 0);
  return group.share !== null && shared[0] !== group;
}

let polling: ReturnType<typeof setTimeout> | undefined;

async function pollAll(): Promise<void> {
  for (const group of groups.values()) if (isPolled(group)) await group.poll();
  polling = [...groups.values()].some(isPolled) ? setTimeout(() => void pollAll(), POLL_EVERY) : undefined;
}

/** Notifies a listener of its job from now on; the returned function ends that. */
export function listen(listener: Listener): () => void {
  const key = `${listener.api} ${listener.share ?? ""}`;
  let group = groups.get(key);
  if (group === undefined) groups.set(key, (group = new Group(listener.api, listener.share)));
  const mine = group;
  if ([...mine.listeners].some((one) => one.id === listener.id)) mine.close();
  mine.listeners.add(listener);
  mine.change();
  if (isPolled(mine)) polling ??= setTimeout(() => void pollAll(), 0);
  return () => {
    mine.listeners.delete(listener);
    mine.change();
  };
}
