/** Times as people read them. Durations floor: nothing is ever 60 s, and 100 % is only what has ended. */
import type { Eta } from "../wire/types";

const two = (value: number): string => String(value).padStart(2, "0");

export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${two(Math.floor(seconds / 60) % 60)} m`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

/** A short duration with its fraction, for what is often below a second. */
export function span(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.floor(seconds * 1000)} ms`;
  return seconds < 10 ? `${(Math.floor(seconds * 10) / 10).toFixed(1)} s` : duration(seconds * 1000);
}

export function ago(then: string | null, now: number): string {
  if (then === null) return "";
  const seconds = Math.max(0, Math.floor((now - Date.parse(then)) / 1000));
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** How long something took, or takes until now; empty when it never began. */
export function between(from: string | null, to: string | null, now: number): string {
  return from === null ? "" : duration((to === null ? now : Date.parse(to)) - Date.parse(from));
}

/** What is left, roughly: from five minutes on without seconds. */
function rough(milliseconds: number): string {
  return milliseconds < 300_000 || milliseconds >= 3_600_000
    ? duration(milliseconds)
    : `${Math.floor(milliseconds / 60_000)} m`;
}

/** "47 s", or null when nothing is known. */
export function timeLeft(eta: Eta | null, now: number): string | null {
  if (eta === null) return null;
  const latest = Date.parse(eta.latest) - now;
  const middle = (Date.parse(eta.earliest) + Date.parse(eta.latest)) / 2 - now;
  if (Number.isNaN(middle) || latest < -60_000) return null;
  return middle < 1000 ? (latest < 1000 ? "a moment" : rough(latest)) : rough(middle);
}

/** "40 s to 1 m 10 s", or null when the ends say the same. */
export function leftRange(eta: Eta | null, now: number): string | null {
  if (eta === null) return null;
  const [from, to] = [Math.max(0, Date.parse(eta.earliest) - now), Math.max(0, Date.parse(eta.latest) - now)];
  if (Number.isNaN(from) || to < 1000 || rough(from) === rough(to)) return null;
  return `${rough(from)} to ${rough(to)}`;
}

/** "in about 2 m 10 s", "any moment", or null when nothing is known of a start. */
export function startsIn(expected: Eta | null, now: number): string | null {
  if (expected === null) return null;
  const left = timeLeft(expected, now);
  return left === null || left === "a moment" ? "any moment" : `in about ${left}`;
}

export const percent = (progress: number): number => Math.min(100, Math.floor(progress * 100 + 1e-9));

const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

/** Local time for reading. */
export const localTime = (text: string | null): string => (text === null ? "" : local.format(new Date(text)));
export const clockTime = (text: string | number | null): string =>
  text === null ? "" : clock.format(new Date(text));
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
export const dayOf = (seconds: number): string => day.format(new Date(seconds * 1000));
/** UTC for the hover. */
export const utcTime = (text: string | null): string =>
  text === null ? "" : `${new Date(text).toISOString().replace("T", " ").slice(0, 19)} UTC`;

export const whole = (count: number): string => count.toLocaleString("en-US");
