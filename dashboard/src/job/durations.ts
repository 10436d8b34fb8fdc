/** The usual wait and run times of a type, from the statistics of the last day, read at most once a minute. */
import { signal } from "@preact/signals";
import { get, Problem } from "../wire/api";
import { serverNow } from "../live/offset";
import { plural } from "../text/plural";
import { formatCount, preciseDuration } from "../text/time";
import type { Stats } from "../wire/types";

const FRESH = 60_000;

export interface Spread {
  p50: number | null;
  p95: number | null;
  count: number;
}

/** From how many jobs on a 95th percentile is shown: of few it would only be their longest. */
const MANY = 20;

/** "Typical wait 961 ms (of 1 job)", "Typical run 1.2 s (p95 4.0 s, of 400 jobs)". */
export function usualText(kind: string, { p50, p95, count }: Spread): string {
  const longest = count < MANY ? "" : `p95 ${preciseDuration(p95)}, `;
  return `Typical ${kind} ${preciseDuration(p50)} (${longest}of ${formatCount(count)} ${plural("job", count)})`;
}

export interface TypeNumbers {
  job_type: string;
  completed: number;
  failed: number;
  cancelled: number;
  duration: Spread;
  wait: Spread;
}

export const usualDurations = signal<ReadonlyMap<string, TypeNumbers>>(new Map());
let readAt = 0;

export function spreadOf(jobType: string): TypeNumbers | undefined {
  if (serverNow() - readAt > FRESH) {
    readAt = serverNow();
    void read();
  }
  return usualDurations.value.get(jobType);
}

async function read(): Promise<void> {
  try {
    const found = await get<Stats>("stats", { window: "24h", step: "24h" });
    usualDurations.value = new Map((found.types as unknown as TypeNumbers[]).map((one) => [one.job_type, one]));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}
