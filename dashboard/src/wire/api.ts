/** Calls to the server. Owns the address of the API, errors as values, and who is told of a missing key. */
import { signal } from "@preact/signals";
import { noteServerTime } from "../live/clock";

const mark = document.querySelector<HTMLMetaElement>("meta[name=milepost-api]")?.content ?? "./api";
/** The token of a share link, where this visitor came with one. */
export const share = new URLSearchParams(location.search).get("share");

/** Where the API is, as the server said it: relative to the page, so that any mount prefix holds. */
export const apiBase = new URL(`${mark.replace(/\/+$/, "")}/`, document.baseURI);

/** Whether a key is needed that this browser does not have. */
export const signInNeeded = signal(false);

/** An answer that is an error: RFC 9457, or what stands for a server that cannot be reached (status 0). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly retryAfter: number | null = null,
    readonly more: Record<string, unknown> = {},
  ) {
    super(detail);
  }
}

type Parameters = Record<string, string | number | boolean | null | undefined>;

export function apiUrl(path: string, parameters: Parameters = {}): URL {
  const url = new URL(path, apiBase);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, String(value));
  }
  if (share !== null) url.searchParams.set("share", share);
  return url;
}

/** The path of one job, whatever its id has in it. */
export const jobPath = (id: string, rest = ""): string => `jobs/${encodeURIComponent(id)}${rest}`;

export interface Options {
  parameters?: Parameters;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  keepalive?: boolean;
}

export async function send(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json", ...options.headers };
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(apiUrl(path, options.parameters), {
      method,
      headers,
      credentials: "same-origin",
      keepalive: options.keepalive ?? false,
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, "The server cannot be reached");
  }
  noteServerTime(answer.headers.get("Date"));
  if (!answer.ok && answer.status !== 304) throw await problemOf(answer);
  return answer;
}

export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const answer = await send(method, path, options);
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

export const get = <T>(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<T> =>
  call<T>("GET", path, signal === undefined ? { parameters } : { parameters, signal });

export async function problemOf(answer: Response): Promise<Problem> {
  if (answer.status === 401) signInNeeded.value = true;
  const after = Number(answer.headers.get("Retry-After"));
  let detail = answer.statusText || `Status ${answer.status}`;
  let more: Record<string, unknown> = {};
  try {
    more = (await answer.json()) as Record<string, unknown>;
    if (typeof more["detail"] === "string") detail = more["detail"];
  } catch {
    // Not every proxy answers with JSON; the status says enough.
  }
  return new Problem(answer.status, detail, Number.isFinite(after) && after > 0 ? after : null, more);
}

export const words = (error: unknown): string => (error instanceof Error ? error.message : String(error));
