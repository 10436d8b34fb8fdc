/** Calls to the server: the address of the API, and errors as values. */
import { signal } from "@preact/signals";
import { noteDate } from "../live/clock";
import { parseExactly } from "./numbers";

const mark = document.querySelector<HTMLMetaElement>("meta[name=milepost-api]")?.content ?? "./api";
/** The token of the share link, if the page was opened with one. */
export const share = new URLSearchParams(location.search).get("share");

/** The URL of the API as given by the server: relative to the page, so that any mount prefix works. */
export const apiBase = new URL(`${mark.replace(/\/+$/, "")}/`, document.baseURI);

/** Whether the server requires a key and this browser has none. */
export const signInNeeded = signal(false);

/** An error response (RFC 9457), or with status 0 a server that cannot be reached. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly retryAfter: number | null = null,
    readonly more: Record<string, unknown> = {},
  ) {
    super(detail);
  }

  /** The name of the store, if the server answers and its store does not. */
  get unreachableStore(): string | null {
    if (this.status !== 503 || typeof this.more["error"] !== "string") return null;
    return typeof this.more["store"] === "string" ? this.more["store"] : "The store";
  }
}

type Parameters = Record<string, string | number | boolean | readonly string[] | null | undefined>;

export function apiUrl(path: string, parameters: Parameters = {}): URL {
  const url = new URL(path, apiBase);
  for (const [name, value] of Object.entries(parameters)) {
    if (value === null || value === undefined || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) url.searchParams.append(name, String(one));
  }
  if (share !== null) url.searchParams.set("share", share);
  return url;
}

/** The path of one job, with its id encoded. */
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
  noteDate(answer.headers.get("Date"));
  if (!answer.ok && answer.status !== 304) throw await problemOf(answer);
  return answer;
}

export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const answer = await send(method, path, options);
  return (answer.status === 204 ? undefined : parseExactly(await answer.text())) as T;
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
    // Not every proxy responds with JSON; the status is enough.
  }
  return new Problem(answer.status, detail, Number.isFinite(after) && after > 0 ? after : null, more);
}

export const errorText = (error: unknown): string => (error instanceof Error ? error.message : String(error));
