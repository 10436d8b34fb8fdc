/** Format times and durations. Durations round down, so "60 s" is never shown. */
import type { Eta, Row } from "../wire/types";

/** A number with its unit, which no line break separates. */
const unit = (count: number | string, name: string): string => `${count}\u00a0${name}`;

export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return unit(seconds, "s");
  if (seconds < 3600) return `${unit(Math.floor(seconds / 60), "min")} ${unit(seconds % 60, "s")}`;
  if (seconds < 86_400) return `${unit(Math.floor(seconds / 3600), "h")} ${unit(Math.floor(seconds / 60) % 60, "min")}`;
  return `${unit(Math.floor(seconds / 86_400), "d")} ${unit(Math.floor(seconds / 3600) % 24, "h")}`;
}

/** A duration that was chosen, not measured, without a part that is 0: "10 min". */
export const statedDuration = (milliseconds: number): string => duration(milliseconds).replace(/ 0\u00a0.*/, "");

/** A short duration with its fraction, for values that are often below a second. */
export function preciseDuration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return unit(Math.max(0, Math.floor(seconds * 1000)), "ms");
  return seconds < 10 ? unit((Math.floor(seconds * 10) / 10).toFixed(1), "s") : duration(seconds * 1000);
}

export function ago(then: string | null, now: number): string {
  if (then === null) return "";
  const passed = now - Date.parse(then);
  return passed < 1000 ? "now" : `${duration(passed).split(" ")[0]} ago`;
}

/** The duration from start to end, with its fraction if it is short, or until now; empty without a start. */
export function elapsed(from: string | null, to: string | null, now: number): string {
  if (from === null) return "";
  const start = Date.parse(from);
  return to === null ? duration(now - start) : preciseDuration((Date.parse(to) - start) / 1000);
}

/** The time left, as precise as an estimate is: whole minutes from two minutes on. */
function rough(milliseconds: number): string {
  const minutes = Math.round(milliseconds / 60_000);
  return milliseconds < 120_000 || minutes >= 60 ? duration(milliseconds) : unit(minutes, "min");
}

/** "47 s", or null if unknown. */
export function timeLeft(eta: Eta | null, now: number): string | null {
  if (eta === null) return null;
  const latest = Date.parse(eta.latest) - now;
  const middle = (Date.parse(eta.earliest) + Date.parse(eta.latest)) / 2 - now;
  if (Number.isNaN(middle) || latest < -60_000) return null;
  return middle < 1000 ? (latest < 1000 ? "a moment" : rough(latest)) : rough(middle);
}

/** Adds "about" to a time left that is a number. */
export const about = (left: string): string => (left === "a moment" ? left : `about ${left}`);

/** "40 s to 1 min 10 s", or null if both ends read the same. */
export function timeLeftRange(eta: Eta | null, now: number): string | null {
  if (eta === null) return null;
  const [from, to] = [Math.max(0, Date.parse(eta.earliest) - now), Math.max(0, Date.parse(eta.latest) - now)];
  if (Number.isNaN(from) || to < 1000 || rough(from) === rough(to)) return null;
  return `${rough(from)} to ${rough(to)}`;
}

/** The age of an update in milliseconds from which on it is said. */
const NEWS = 10_000;
/** The age of an update after the given words: "as of 12 s ago"; empty if the update is new or unknown. */
const ageOf = (updated: string | null, now: number, words: string): string =>
  updated === null || now - Date.parse(updated) < NEWS ? "" : `${words} ${ago(updated, now)}`;

/** "time left unknown, last change 12 min ago": that is the only sign of code that hangs, since its worker renews the lease. */
export const unknownLeft = (updated: string | null, now: number): string =>
  `time left unknown${ageOf(updated, now, ", last change")}`;

/** What is known of the time left: "47 s", how old that is if not new ("as of 12 s ago"), both as text, and the range. */
export interface Remaining {
  left: string;
  asOf: string;
  text: string;
  range: string | null;
}

/**
 * The time left of a running job as of its last update, or null if unknown. Between two updates it is not counted down: the
 * worker may be gone, and until its lease ends nothing says so. Without an update it is unknown when the whole range is over.
 */
export function remaining(
  { status, stalled, eta, updated_at }: Pick<Row, "status" | "stalled" | "eta" | "updated_at">,
  now: number,
): Remaining | null {
  if (status !== "running" || stalled || eta === null) return null;
  const at = updated_at === null ? now : Date.parse(updated_at);
  const asOf = ageOf(updated_at, now, "as of");
  const left = asOf !== "" && Date.parse(eta.latest) < now ? null : timeLeft(eta, at);
  if (left === null) return null;
  return { left, asOf, text: `${about(left)} left ${asOf}`.trimEnd(), range: timeLeftRange(eta, at) };
}

/** "in about 2 min", "any moment", or null if the start is unknown. */
export function startsIn(expected: Eta | null, now: number): string | null {
  if (expected === null) return null;
  const left = timeLeft(expected, now);
  return left === null || left === "a moment" ? "any moment" : `in about ${left}`;
}

export const percent = (progress: number): number => Math.min(100, Math.floor(progress * 100 + 1e-9));

const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

/** Local time. */
export const localTime = (text: string | null): string => (text === null ? "" : local.format(new Date(text)));
export const clockTime = (text: string | number | null): string =>
  text === null ? "" : clock.format(new Date(text));
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
export const dayOf = (seconds: number): string => day.format(new Date(seconds * 1000));
/** UTC, for tooltips. */
export const utcTime = (text: string | null): string =>
  text === null ? "" : `${new Date(text).toISOString().replace("T", " ").slice(0, 19)} UTC`;

export const formatCount = (count: number): string => count.toLocaleString("en-US");
/** An amount of usage, which is kept in millionths. */
export const formatAmount = (amount: number): string => amount.toLocaleString("en-US", { maximumFractionDigits: 6 });
/** An amount in few digits: "0.0041", "2,436", "1.23M". */
export const shortAmount = (amount: number): string =>
  amount.toLocaleString("en-US", amount >= 100_000 ? { notation: "compact", maximumSignificantDigits: 3 } : { maximumSignificantDigits: amount < 1000 ? 4 : 5 });
