/** The usual wait and run times of a type, from the statistics of the last day, read at most once a minute. */
import { signal } from "@preact/signals";
import { get, Problem } from "../wire/api";
import { serverNow } from "../live/offset";
import type { Stats } from "../wire/types";

const FRESH = 60_000;

export interface Spread {
  p50: number | null;
  p95: number | null;
  count: number;
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
