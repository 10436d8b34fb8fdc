/**
 * Show and change the jobs of a milepost server from a page. All jobs that a page watches share one connection, which
 * resumes after an outage. Types come from the server's OpenAPI document.
 */
import { listen } from "../../../dashboard/src/element/shared";
import type { components } from "../../../dashboard/src/wire/openapi.gen";
import { isEnded, type BatchCounts, type ClosedBatch, type Done, type JobRecord, type Row, type Status, type Submission } from "../../../dashboard/src/wire/types";

export type { BatchCounts, ClosedBatch, JobRecord, Status, Submission };
/** A job as a list shows it: everything but its parameters, result and crash report, which `getJob` returns. */
export type Job = Row;

const OUTPUT_PAUSE = 1000;

export interface Options {
  /** The address of the API; by default `/api` of the page's origin. */
  api?: string;
  /** The token of a share link, which shows one job without signing in. */
  share?: string | null;
}

/** What a watched job tells. */
export interface Listener {
  /** Called with the job at once, and after each change. */
  onChange(job: Job): void;
  /** Called if the job does not exist, was deleted, or may not be seen. */
  onMissing?(): void;
}

/** A request that the server refused. `problem` is its answer, an RFC 9457 document. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    readonly problem: { detail?: string; [name: string]: unknown },
  ) {
    super(problem.detail ?? `The server answered with status ${status}`);
  }
}

/** Watches a job until the returned function is called. */
export function watchJob(id: string, listener: Listener, { api = "/api", share = null }: Options = {}): () => void {
  return listen({
    api: new URL(api, document.baseURI).href.replace(/\/$/, ""),
    id,
    share,
    update: (job) => listener.onChange(job),
    missing: () => listener.onMissing?.(),
  });
}

/** Waits until a job has ended, and returns its whole record. Rejects with an ApiError if it does not exist. */
export function waitForJob(id: string, options: Options = {}): Promise<JobRecord> {
  return new Promise((resolve, reject) => {
    const end = async (): Promise<void> => {
      try {
        const record = await getJob(id, options);
        if (!isEnded(record.status)) return; // it was retried
        resolve(record);
      } catch (error) {
        reject(error);
      }
      stop();
    };
    const stop = watchJob(id, { onChange: (job) => void (isEnded(job.status) && end()), onMissing: () => void end() }, options);
  });
}

/** A piece of the output of a job. With `starts_over` a run began anew: discard what is shown. */
export type OutputChunk = components["schemas"]["OutputRecord"];

/**
 * Yields the chunks of the output of a job as they are written, each once and in order, until the job has ended. A broken
 * connection is resumed. `after` is the `position` of a chunk to continue after; `signal` ends it. Throws an ApiError if the job does
 * not exist, was deleted, or may not be seen.
 */
export async function* followOutput(
  id: string,
  { api = "/api", share = null, after = null, signal }: Options & { after?: string | null; signal?: AbortSignal } = {},
): AsyncGenerator<OutputChunk, void> {
  let position = after;
  while (!signal?.aborted) {
    const query = new URLSearchParams({ ...(share !== null && { share }), ...(position !== null && { after: position }) });
    const source = new EventSource(`${api.replace(/\/$/, "")}/jobs/${encodeURIComponent(id)}/output?${query}`);
    const waiting: (OutputChunk | "end" | "deleted" | "closed")[] = [];
    let wake = (): void => undefined;
    const add = (news: (typeof waiting)[number]): void => void (waiting.push(news), wake());
    source.addEventListener("output", (event) => add(JSON.parse(event.data) as OutputChunk));
    source.addEventListener("end", () => add("end"));
    source.addEventListener("deleted", () => add("deleted"));
    // The browser reconnects by itself, after the last position, unless the server refused the request.
    source.onerror = () => source.readyState === EventSource.CLOSED && add("closed");
    const abort = (): void => add("end");
    signal?.addEventListener("abort", abort);
    try {
      for (let news = waiting.shift(); news !== "closed"; news = waiting.shift()) {
        if (news === "end") return;
        if (news === "deleted") throw new ApiError(404, { detail: `Job ${id} was deleted` });
        if (news === undefined) await new Promise<void>((resolve) => (wake = resolve));
        else {
          position = news.position;
          yield news;
        }
      }
    } finally {
      source.close();
      signal?.removeEventListener("abort", abort);
    }
    try {
      if (isEnded((await getJob(id, { api, share })).status)) return; // all of it was read before
    } catch (error) {
      if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, OUTPUT_PAUSE));
  }
}

/** Returns the whole record of a job. */
export function getJob(id: string, options: Options = {}): Promise<JobRecord> {
  return request("GET", `jobs/${encodeURIComponent(id)}`, options);
}

/** Submits a job to the workers, and returns its record. */
export function submitJob(
  type: string,
  params: Record<string, unknown> = {},
  options: Options & Partial<Omit<Submission, "job_type" | "params">> = {},
): Promise<JobRecord> {
  const { api, share, ...rest } = options;
  return request("POST", "jobs", { api, share }, { ...rest, job_type: type, params });
}

/** Cancels a job. Its status is final at once. */
export function cancelJob(id: string, reason?: string, options: Options = {}): Promise<Done> {
  return request("POST", `jobs/${encodeURIComponent(id)}/cancel`, options, reason === undefined ? {} : { reason });
}

/**
 * Opens a batch, or continues an open one, and returns its record. Its `job_id` is the name of the batch, which is new unless
 * `name` is given. Jobs join it with `submitJob(type, params, { group: name })`.
 */
export function openBatch(name?: string, options: Options & { labels?: Record<string, string> } = {}): Promise<JobRecord> {
  const { api, share, labels } = options;
  return request("POST", "batches", { api, share }, { ...(name !== undefined && { name }), ...(labels && { labels }) });
}

/** Counts the jobs of a batch. */
export function countBatch(name: string, options: Options = {}): Promise<BatchCounts> {
  return request("GET", `batches/${encodeURIComponent(name)}`, options);
}

/**
 * Closes a batch: it accepts no more jobs, and ends when none is open. With `error` it fails, and its open jobs are cancelled.
 * Callers without `jobs:read` get no counts.
 */
export function closeBatch(name: string, error?: string, options: Options = {}): Promise<ClosedBatch> {
  return request("POST", `batches/${encodeURIComponent(name)}/close`, options, error === undefined ? {} : { error: error || "no message" });
}

interface Address {
  api?: string | undefined;
  share?: string | null | undefined;
}

async function request<T>(method: string, path: string, { api = "/api", share }: Address, body?: object): Promise<T> {
  const query = share == null ? "" : `?share=${encodeURIComponent(share)}`;
  const sent = body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(`${api.replace(/\/$/, "")}/${path}${query}`, { method, ...sent });
  const data: unknown = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(answer.status, data as { detail?: string });
  return data as T;
}
